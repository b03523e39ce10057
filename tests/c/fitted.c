// A runtime for emulated processors: it fits a layer to its tensors, and runs it then.
#include "subbyte_op.h"

const char *convolve_fitted(const void *layer, size_t bytes, const int8_t *input, const int *shape, int8_t *output,
                            void *scratch, const subbyte_isa *isa);

// A convolution of int8 [batch, height, width, channels]. Returns what is wrong, or NULL.
const char *convolve_fitted(const void *layer, size_t bytes, const int8_t *input, const int *shape, int8_t *output,
                            void *scratch, const subbyte_isa *isa) {
  const subbyte_header *header = layer; // the caller's lies at a multiple of 4 bytes
  const size_t inputs = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
  const subbyte_activation x = {1, header->input_scale, header->input_zero_point, shape, 4, inputs};
  const subbyte_activation y = {1, header->output_scale, header->output_zero_point, NULL, 0, 0};
  static subbyte_op op;
  const char *const fault = subbyte_fit_op(&op, header->op, layer, bytes, &x, &y, isa);
  if (fault == NULL) {
    subbyte_run_op(&op, input, output, scratch);
  }
  return fault;
}
