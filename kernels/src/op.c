#include "../include/subbyte_op.h"

#include "layout.h"

int32_t subbyte_op_kind(const char *name) {
  static const char *const names[] = {
      [SUBBYTE_FULLY_CONNECTED] = SUBBYTE_FULLY_CONNECTED_NAME,
      [SUBBYTE_CONV_2D] = SUBBYTE_CONV_2D_NAME,
      [SUBBYTE_DEPTHWISE_CONV_2D] = SUBBYTE_DEPTHWISE_CONV_2D_NAME,
  };
  for (int32_t kind = SUBBYTE_FULLY_CONNECTED; kind <= SUBBYTE_DEPTHWISE_CONV_2D; ++kind) {
    if (strcmp(name, names[kind]) == 0) {
      return kind;
    }
  }
  return 0;
}

static int has_values(const subbyte_activation *tensor, float scale, int32_t zero_point) {
  return tensor->scale == scale && tensor->zero_point == zero_point;
}

// What is wrong between the header and the types and scales around it, or NULL.
static const char *find_value_fault(const subbyte_header *header, const subbyte_activation *input,
                                    const subbyte_activation *output) {
  const int32_t code_bytes = header->activation_type == SUBBYTE_ACTIVATION_INT16 ? 2 : 1;
  if (input->code_bytes != code_bytes || output->code_bytes != code_bytes) {
    return code_bytes == 2 ? "the first input and the output must be int16" // as the layer was packed for
                           : "the first input and the output must be int8";
  }
  if (!has_values(input, header->input_scale, header->input_zero_point)) {
    return "the input's scale and zero point are not those the layer was packed for: convert the model again";
  }
  if (!has_values(output, header->output_scale, header->output_zero_point)) {
    return "the output's scale and zero point are not those the layer was packed for: convert the model again";
  }
  return NULL;
}

// The product of some dimensions, or -1 where it has more than 31 bits.
static int32_t multiply(const int *shape, int32_t rank) {
  int64_t product = 1;
  for (int32_t i = 0; i < rank; ++i) {
    product *= shape[i];
    if (product < 0 || product > INT32_MAX) {
      return -1;
    }
  }
  return (int32_t)product;
}

// Sets the sizes of a fully connected layer's input [..., K].
static const char *fit_rows(subbyte_op *op, const subbyte_header *header, const subbyte_activation *input) {
  const char *const fault = "the last dimension of the input is not the layer's number of inputs";
  if (input->rank < 1 || input->shape[input->rank - 1] != header->input_features) {
    return fault;
  }
  op->rows = multiply(input->shape, input->rank - 1);
  const size_t row_bytes = (size_t)op->code_bytes * (size_t)header->input_features;
  if (op->rows < 0 || input->bytes != (size_t)op->rows * row_bytes) {
    return fault;
  }
  op->scratch_bytes = op->code_bytes == 2 ? subbyte_fully_connected_int16_scratch(op->layer, op->rows) : 0;
  return NULL;
}

// Sets those of a convolution's input [batch, height, width, channels] and of its output.
static const char *fit_image(subbyte_op *op, const subbyte_header *header, const subbyte_activation *input) {
  const char *const fault = "the input of a convolution must be [batch, height, width, the layer's channels]";
  if (input->rank != 4 || input->shape[3] != header->input_channels) {
    return fault;
  }
  const int32_t inputs = multiply(input->shape, 4);
  if (inputs < 0 || input->bytes != (size_t)inputs) {
    return fault;
  }
  op->batch = input->shape[0];
  op->height = input->shape[1];
  op->width = input->shape[2];
  subbyte_conv_2d_output(op->layer, op->height, op->width, &op->output_height, &op->output_width);
  if (inputs > 0 && (op->output_height == 0 || op->output_width == 0)) {
    return "the window of the convolution is larger than its input";
  }
  const int sizes[] = {op->batch, op->output_height, op->output_width, op->output_channels};
  if (multiply(sizes, 4) < 0) {
    return "the output of the convolution is too large";
  }
  op->scratch_bytes = subbyte_conv_2d_scratch(op->layer, op->batch, op->height, op->width);
  return op->scratch_bytes <= INT32_MAX ? NULL : "the window of the convolution takes too much memory";
}

const char *subbyte_fit_op(subbyte_op *op, int32_t kind, const void *layer, size_t bytes,
                           const subbyte_activation *input, const subbyte_activation *output) {
  const subbyte_status status = subbyte_check(layer, bytes);
  if (status != SUBBYTE_OK) {
    return subbyte_message(status);
  }
  const subbyte_header header = subbyte_load_header(layer);
  if (header.op != kind) {
    return "the packed layer is of another kind than its op: convert the model again";
  }
  const char *const fault = find_value_fault(&header, input, output);
  if (fault != NULL) {
    return fault;
  }
  memset(op, 0, sizeof *op);
  op->layer = layer;
  op->kind = kind;
  op->code_bytes = input->code_bytes;
  op->output_channels = header.output_channels;
  if (input->shape == NULL) {
    return "the input has no shape";
  }
  if (kind == SUBBYTE_FULLY_CONNECTED) {
    return fit_rows(op, &header, input);
  }
  return fit_image(op, &header, input);
}

int32_t subbyte_output_dimension(const subbyte_op *op, const subbyte_activation *input, int32_t dimension) {
  if (dimension == input->rank - 1) {
    return op->output_channels;
  }
  if (op->kind != SUBBYTE_FULLY_CONNECTED && dimension > 0) {
    return dimension == 1 ? op->output_height : op->output_width;
  }
  return input->shape[dimension];
}

void subbyte_run_op(const subbyte_op *op, const void *input, void *output, void *scratch, const subbyte_isa *isa) {
  if (op->code_bytes == 2) {
    subbyte_fully_connected_int16(op->layer, input, op->rows, output, scratch, isa);
  } else if (op->kind == SUBBYTE_FULLY_CONNECTED) {
    subbyte_fully_connected(op->layer, input, op->rows, output, isa);
  } else {
    subbyte_conv_2d(op->layer, input, op->batch, op->height, op->width, output, scratch, isa);
  }
}
