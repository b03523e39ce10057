#include "ops.h"

#include "conv_2d.h"
#include "fully_connected.h"

static const subbyte_op_row rows[] = {
    {.name = SUBBYTE_FULLY_CONNECTED_NAME,
     .kind = SUBBYTE_FULLY_CONNECTED,
     .inputs = 2,
     .fit = subbyte_fit_dense,
     .cut = subbyte_cut_dense,
     .run = subbyte_run_dense,
     .cost = 1,
     .parts_per_thread = 2}, // one that comes late or is interrupted leaves its share to the others
    {.name = SUBBYTE_CONV_2D_NAME,
     .kind = SUBBYTE_CONV_2D,
     .inputs = 2,
     .fit = subbyte_fit_conv_2d,
     .cut = subbyte_cut_conv_2d,
     .run = subbyte_run_conv_2d,
     .cost = 1,
     .least_positions = 64, // each part decodes the weights anew
     .parts_per_thread = 1},
    {.name = SUBBYTE_DEPTHWISE_CONV_2D_NAME,
     .kind = SUBBYTE_DEPTHWISE_CONV_2D,
     .inputs = 2,
     .fit = subbyte_fit_conv_2d,
     .cut = subbyte_cut_conv_2d,
     .run = subbyte_run_conv_2d,
     .cost = 8,
     .least_positions = 64,
     .parts_per_thread = 1},
};

enum { ROWS = sizeof rows / sizeof *rows };

const subbyte_op_row *subbyte_find_op(int32_t kind) {
  for (int32_t i = 0; i < ROWS; ++i) {
    if (rows[i].kind == kind) {
      return &rows[i];
    }
  }
  return NULL;
}

int32_t subbyte_op_kind(const char *name) {
  for (int32_t i = 0; i < ROWS; ++i) {
    if (strcmp(name, rows[i].name) == 0) {
      return rows[i].kind;
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
  const int32_t code_bytes = subbyte_code_bytes(header);
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

const char *subbyte_fit_op(subbyte_op *op, int32_t kind, const void *layer, size_t bytes,
                           const subbyte_activation *input, const subbyte_activation *output, const subbyte_isa *isa) {
  const subbyte_status status = subbyte_check(layer, bytes);
  if (status != SUBBYTE_OK) {
    return subbyte_message(status);
  }
  memset(op, 0, sizeof *op);
  subbyte_prepare(&op->layer, layer, isa);
  if (op->layer.header.op != kind) {
    return "the packed layer is of another kind than its op: convert the model again";
  }
  const char *const fault = find_value_fault(&op->layer.header, input, output);
  if (fault != NULL) {
    return fault;
  }
  op->code_bytes = input->code_bytes;
  op->output_channels = op->layer.header.output_channels;
  if (input->shape == NULL) {
    return "the input has no shape";
  }
  return subbyte_find_op(kind)->fit(op, input);
}

int32_t subbyte_output_dimension(const subbyte_op *op, const subbyte_activation *input, int32_t dimension) {
  if (dimension == input->rank - 1) {
    return op->output_channels;
  }
  if (op->layer.header.op != SUBBYTE_FULLY_CONNECTED && dimension > 0) {
    return dimension == 1 ? op->output_height : op->output_width;
  }
  return input->shape[dimension];
}

void subbyte_run_op(const subbyte_op *op, const void *input, void *output, void *scratch) {
  subbyte_find_op(op->layer.header.op)->run(op, input, output, scratch, 0, 1);
}
