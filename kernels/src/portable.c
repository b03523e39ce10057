// The variant in plain C, which defines correct. Written for compilers to vectorise.
#include "isa.h"

enum { QUAD = 4 }; // inputs side by side in a block, one byte each

static int runs_everywhere(void) {
  return 1;
}

// For one plane of `width` bits, which is a constant to the compiler: the loop over channels, whose codes and sums are
// contiguous, vectorises.
static inline void sum_plane(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t width,
                             int32_t sums[SUBBYTE_PANEL]) {
  const uint32_t mask = (1u << width) - 1;
  for (int32_t k = 0; k < features; k += 32 / width) {
    for (int32_t field = 0; field < 8; field += width) {
      const int8_t *quad = x + k + QUAD * field / width;
      for (int32_t c = 0; c < channels; ++c) {
        uint32_t codes;
        memcpy(&codes, plane + QUAD * c, sizeof codes);
        codes >>= field;
        sums[c] += (int32_t)(codes & mask) * quad[0] + (int32_t)(codes >> 8 & mask) * quad[1] +
                   (int32_t)(codes >> 16 & mask) * quad[2] + (int32_t)(codes >> 24 & mask) * quad[3];
      }
    }
    plane += QUAD * channels;
  }
}

static void sum_plane_8(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 8, sums);
}

static void sum_plane_4(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 4, sums);
}

static void sum_plane_2(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 2, sums);
}

static void sum_plane_1(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 1, sums);
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
