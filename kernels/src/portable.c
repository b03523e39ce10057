// The variant in plain C, which defines correct. Written for compilers to vectorise.
#include "isa.h"

enum {
  QUAD = 4,         // inputs side by side in a block, one byte each
  GROUP = 4 * QUAD, // bytes of 4 channels: the unit of the inner loops
  QUADS_A_STRIDE = SUBBYTE_STRIDE / QUAD
};

static int runs_everywhere(void) {
  return 1;
}

// Adds the digits (byte >> shift) & mask of `bytes` bytes, times the quad of inputs that they meet, lane by lane.
//
// 16 bits hold it: at most 8 quads of digits up to 15 meet a lane, 8 * 15 * 128 < 2^15.
static inline void multiply_quad(const uint8_t *block, int32_t bytes, int32_t shift, int32_t mask, const int8_t *x,
                                 int16_t lanes[SUBBYTE_BLOCK_BYTES]) {
  int16_t inputs[GROUP];
  for (int32_t i = 0; i < GROUP; ++i) {
    inputs[i] = x[i % QUAD];
  }
  for (int32_t group = 0; group < bytes; group += GROUP) {
    for (int32_t i = 0; i < GROUP; ++i) {
      int16_t digit = (int16_t)((block[group + i] >> shift) & mask);
      lanes[group + i] = (int16_t)(lanes[group + i] + digit * inputs[i]);
    }
  }
}

static inline void add_lanes(const int16_t lanes[SUBBYTE_BLOCK_BYTES], int32_t channels, int32_t scale,
                             int32_t sums[SUBBYTE_PANEL]) {
  for (int32_t c = 0; c < channels; ++c) {
    const int16_t *lane = lanes + QUAD * c;
    sums[c] += scale * (lane[0] + lane[1] + lane[2] + lane[3]);
  }
}

// The digits of `digit_bits` bits that start at `first_bit` of every field of a plane of `width` bits.
static inline void digit_sums(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t width,
                              int32_t first_bit, int32_t digit_bits, int32_t sums[SUBBYTE_PANEL]) {
  const int32_t mask = (1 << digit_bits) - 1, span = 32 / width;
  for (int32_t k = 0; k < features; k += SUBBYTE_STRIDE) {
    int16_t lanes[SUBBYTE_BLOCK_BYTES] = {0};
    for (int32_t first = k; first < k + SUBBYTE_STRIDE && first < features; first += span) {
      for (int32_t field = 0; field < 8; field += width) {
        multiply_quad(plane, QUAD * channels, field + first_bit, mask, x + first + QUAD * field / width, lanes);
      }
      plane += QUAD * channels;
    }
    add_lanes(lanes, channels, 1 << first_bit, sums);
  }
}

static void sum_plane_8(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  // As two digits of 4 bits, which fit the 16-bit lanes.
  digit_sums(plane, channels, x, features, 8, 0, 4, sums);
  digit_sums(plane, channels, x, features, 8, 4, 4, sums);
}

static void sum_plane_4(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  digit_sums(plane, channels, x, features, 4, 0, 4, sums);
}

static void sum_plane_2(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  digit_sums(plane, channels, x, features, 2, 0, 2, sums);
}

static void sum_plane_1(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  digit_sums(plane, channels, x, features, 1, 0, 1, sums);
}

// The quad of codes of one channel whose first input is `k`.
static inline void gather_quad(const uint8_t *const planes[SUBBYTE_PLANES], int32_t channels, int32_t c, int32_t k,
                               uint8_t codes[QUAD]) {
  memset(codes, 0, QUAD);
  int32_t code_bit = 0;
  for (int32_t i = 0; i < SUBBYTE_PLANES; ++i) {
    if (planes[i]) {
      const int32_t width = subbyte_plane_width(i), span = 32 / width, field = k % span / QUAD * width;
      const uint8_t *bytes = planes[i] + QUAD * (k / span * channels + c);
      for (int32_t j = 0; j < QUAD; ++j) {
        codes[j] |= (uint8_t)(((bytes[j] >> field) & ((1 << width) - 1)) << code_bit);
      }
      code_bit += width;
    }
  }
}

static void sum_codebook(const uint8_t *const planes[SUBBYTE_PLANES], int32_t channels, const int8_t *codebook,
                         const int8_t *x, int32_t features, int32_t sums[SUBBYTE_PANEL]) {
  for (int32_t k = 0; k < features; k += QUAD) {
    for (int32_t c = 0; c < channels; ++c) {
      uint8_t codes[QUAD];
      gather_quad(planes, channels, c, k, codes);
      for (int32_t j = 0; j < QUAD; ++j) {
        sums[c] += codebook[codes[j]] * x[k + j];
      }
    }
  }
}

const subbyte_isa subbyte_portable = {
    .name = "portable",
    .runs = runs_everywhere,
    .plane_sums = {sum_plane_8, sum_plane_4, sum_plane_2, sum_plane_1},
    .codebook_sums = sum_codebook,
};
