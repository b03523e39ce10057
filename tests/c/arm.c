// The system of test_kernels_arm.py: it says whether the processor has dot products. And a runtime that fits a layer to
// its tensors first.
#include <stddef.h>

#include "subbyte_op.h"

static unsigned long has_dot_product;

void set_dot_product(int has) {
  has_dot_product = has != 0;
}

// As on Linux: 16 asks for the processor's features, and bit 20 is dot products.
unsigned long getauxval(unsigned long type) {
  return type == 16 ? has_dot_product << 20 : 0;
}

// What compilers make of copying a struct, besides what freestanding.c has.
void *memmove(void *to, const void *from, size_t bytes) {
  volatile char *target = to;
  const char *source = from;
  if (target < source) {
    for (size_t i = 0; i < bytes; ++i) {
      target[i] = source[i];
    }
  } else {
    for (size_t i = bytes; i-- > 0;) {
      target[i] = source[i];
    }
  }
  return to;
}

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
