// Where things lie in a packed layer: shared by the check and the kernels, so that both count the same bytes.
#ifndef SUBBYTE_LAYOUT_H
#define SUBBYTE_LAYOUT_H

#include "../include/subbyte_prepared.h"

// All that is asked of a C library. Declared here because bare-metal compilers may come without <string.h>.
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int strcmp(const char *left, const char *right);

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the packed layer is little-endian and so must the processor be"
#endif

enum {
  SUBBYTE_PANEL = 16,                               // output channels side by side in a plane
  SUBBYTE_BLOCK_BYTES = 64,                         // of a panel of 16 channels: 4 bytes a channel
  SUBBYTE_STRIDE = 32,                              // inputs: a whole number of blocks in every plane
  SUBBYTE_PLANES = 4,                               // of 8, 4, 2 and 1 bits
  SUBBYTE_QUAD = 4,                                 // inputs whose codes lie in neighbouring bytes of a block
  SUBBYTE_QUAD_BYTES = SUBBYTE_QUAD * SUBBYTE_PANEL // of decoded weights
};

static inline int32_t subbyte_smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

// Quads of so many inputs.
static inline int32_t subbyte_quads(int32_t inputs) {
  return inputs / SUBBYTE_QUAD + (inputs % SUBBYTE_QUAD != 0);
}

static inline int32_t subbyte_plane_width(int32_t plane) {
  return 8 >> plane;
}

// A packed layer may lie at any address, so everything is read through memcpy.
static inline subbyte_header subbyte_load_header(const void *layer) {
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  return header;
}

// Blocks that hold `features` inputs in a plane of `width` bits.
static inline uint32_t subbyte_blocks(int32_t features, int32_t width) {
  return ((uint32_t)features * (uint32_t)width + 31) / 32;
}

// Channels of the panels that hold `channels`.
static inline int32_t subbyte_whole_panels(int32_t channels) {
  return (channels + SUBBYTE_PANEL - 1) / SUBBYTE_PANEL * SUBBYTE_PANEL;
}

#endif
