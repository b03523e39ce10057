// Where things lie in a packed layer: shared by the check and the kernels, so that both count the same bytes.
#ifndef SUBBYTE_LAYOUT_H
#define SUBBYTE_LAYOUT_H

#include "../include/subbyte.h"

// All that is asked of a C library. Declared here because bare-metal compilers may come without <string.h>.
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int strcmp(const char *left, const char *right);

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the packed layer is little-endian and so must the processor be"
#endif

enum {
  SUBBYTE_PANEL = 16,       // output channels side by side in a plane
  SUBBYTE_BLOCK_BYTES = 64, // of a panel of 16 channels: 4 bytes a channel
  SUBBYTE_STRIDE = 32,      // inputs: a whole number of blocks in every plane
  SUBBYTE_PLANES = 4        // of 8, 4, 2 and 1 bits
};

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

static inline size_t subbyte_bias_bytes(const subbyte_header *header) {
  return header->bias_type == SUBBYTE_BIAS_INT16 ? 2 : 4;
}

// What each channel has of its own, from `subbyte_first_multiplier` on.
static inline size_t subbyte_multiplier_bytes(const subbyte_header *header) {
  return header->multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32 ? 4 : 2;
}

static inline uint32_t subbyte_first_multiplier(const subbyte_header *header) {
  const int is_in_bias = header->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS;
  return is_in_bias ? header->bias_offset : header->multiplier_offset;
}

// What the codes of multipliers in the biases are added to; else 0.
static inline uint32_t subbyte_multiplier_base(const uint8_t *layer, const subbyte_header *header) {
  uint32_t base = 0;
  if (header->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS) {
    memcpy(&base, layer + header->multiplier_offset, sizeof base);
  }
  return base;
}

static inline uint32_t subbyte_multiplier_mask(const subbyte_header *header) {
  return (1u << header->multiplier_bits) - 1;
}

// The multiplier of one output channel.
static inline float subbyte_load_multiplier(const uint8_t *layer, const subbyte_header *header, int32_t channel) {
  const uint8_t *at = layer + subbyte_first_multiplier(header) + subbyte_multiplier_bytes(header) * (size_t)channel;
  uint32_t bits = 0;
  if (header->multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32) {
    memcpy(&bits, at, sizeof bits);
  } else {
    uint16_t word;
    memcpy(&word, at, sizeof word);
    bits = header->multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16
               ? (uint32_t)word << 14
               : subbyte_multiplier_base(layer, header) +
                     ((word & subbyte_multiplier_mask(header)) << header->multiplier_shift);
  }
  float multiplier;
  memcpy(&multiplier, &bits, sizeof multiplier);
  return multiplier;
}

// The bias of one output channel: 64 bits hold every stored value with every shift.
static inline int64_t subbyte_load_bias(const uint8_t *layer, const subbyte_header *header, int32_t channel) {
  const uint8_t *at = layer + header->bias_offset + subbyte_bias_bytes(header) * (size_t)channel;
  int32_t stored;
  if (header->bias_type == SUBBYTE_BIAS_INT16) {
    int16_t narrow;
    memcpy(&narrow, at, sizeof narrow);
    stored = narrow >> header->multiplier_bits;
  } else {
    memcpy(&stored, at, sizeof stored);
  }
  return (int64_t)stored * ((int64_t)1 << header->bias_shift);
}

#endif
