// What the core may ask of a machine without a C library, for programs of the tests to link against.
#include "../../kernels/src/layout.h"

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    ((volatile char *)to)[i] = ((const char *)from)[i]; // volatile: or the compiler makes it a call to memcpy
  }
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    ((volatile char *)to)[i] = (char)value;
  }
  return to;
}

int strcmp(const char *left, const char *right) {
  while (*left != 0 && *left == *right) {
    ++left;
    ++right;
  }
  return (unsigned char)*left - (unsigned char)*right;
}

#if defined(__ARM_EABI__)
// What compilers for 32-bit Arm call in place of memcpy and memset.
void __aeabi_memcpy(void *to, const void *from, size_t bytes) {
  memcpy(to, from, bytes);
}

void __aeabi_memcpy4(void *to, const void *from, size_t bytes) {
  memcpy(to, from, bytes);
}

void __aeabi_memclr(void *to, size_t bytes) {
  memset(to, 0, bytes);
}

void __aeabi_memclr4(void *to, size_t bytes) {
  memset(to, 0, bytes);
}

void __aeabi_memclr8(void *to, size_t bytes) {
  memset(to, 0, bytes);
}
#endif

// Uses the whole interface, so that the linker resolves all of it.
int use(const void *layer, size_t bytes, const int8_t *input, int8_t *output) {
  const subbyte_status status = subbyte_check(layer, bytes);
  if (status == SUBBYTE_OK && subbyte_find_isa("portable") == subbyte_isa_at(0)) {
    subbyte_fully_connected(layer, input, 1, output, subbyte_best_isa());
    subbyte_fully_connected_int16(layer, (const int16_t *)(const void *)input, 1, (int16_t *)(void *)output, output,
                                  subbyte_best_isa());
    subbyte_conv_2d(layer, input, 1, 1, 1, output, output, subbyte_best_isa());
  }
  return *subbyte_message(status) + *subbyte_isa_name(subbyte_isa_at(0)) + subbyte_isa_runs(subbyte_isa_at(0));
}

void _start(void) {
  int8_t output[1] = {0};
  use("", 0, output, output);
}
