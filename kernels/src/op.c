#include "../include/subbyte_op.h"

#include "layout.h"

static int has_values(const subbyte_activation *tensor, float scale, int32_t zero_point) {
  return tensor->scale == scale && tensor->zero_point == zero_point;
}

// Rows of a tensor [..., features], or -1 where it is none.
static int32_t count_rows(const subbyte_activation *tensor, int32_t features) {
  if (tensor->shape == NULL || tensor->rank < 1 || tensor->shape[tensor->rank - 1] != features) {
    return -1;
  }
  int64_t rows = 1;
  for (int32_t i = 0; i < tensor->rank - 1; ++i) {
    rows *= tensor->shape[i];
    if (rows < 0 || rows > INT32_MAX) {
      return -1;
    }
  }
  return tensor->bytes == (size_t)rows * (size_t)features ? (int32_t)rows : -1;
}

const char *subbyte_find_op_fault(const void *layer, size_t bytes, const subbyte_activation *input,
                                  const subbyte_activation *output, int32_t *rows, int32_t *channels) {
  const subbyte_status status = subbyte_check(layer, bytes);
  if (status != SUBBYTE_OK) {
    return subbyte_message(status);
  }
  const subbyte_header header = subbyte_load_header(layer);
  if (!input->is_int8 || !output->is_int8) {
    return "the first input and the output must be int8";
  }
  if (!has_values(input, header.input_scale, header.input_zero_point)) {
    return "the input's scale and zero point are not those the layer was packed for: convert the model again";
  }
  if (!has_values(output, header.output_scale, header.output_zero_point)) {
    return "the output's scale and zero point are not those the layer was packed for: convert the model again";
  }
  *rows = count_rows(input, header.input_features);
  *channels = header.output_channels;
  return *rows < 0 ? "the last dimension of the input is not the layer's number of inputs" : NULL;
}
