// The system of test_kernels_arm.py: it says whether the processor has dot products.
#include <stddef.h>

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
