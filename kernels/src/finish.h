// From exact 32-bit sums to int8 codes. Each variant compiles this one body for its instruction set.
#ifndef SUBBYTE_FINISH_H
#define SUBBYTE_FINISH_H

#include "isa.h"

#if defined(__FAST_MATH__)
#error "fast math breaks the rounding: compile subbyte without it"
#endif

#if defined(__GNUC__)
#define SUBBYTE_FINISH_INLINE static inline __attribute__((always_inline)) // into a function of more instructions
#else
#define SUBBYTE_FINISH_INLINE static inline
#endif

// Loops run over whole vectors: to a multiple of 16 channels, of which those beyond the last have zeros.
SUBBYTE_FINISH_INLINE void subbyte_load_biases(const subbyte_header *header, const uint8_t *layer, int32_t first,
                                               int32_t channels, uint32_t biases[SUBBYTE_TILE]) {
  const size_t width = subbyte_bias_bytes(header);
  const uint8_t *section = layer + header->bias_offset + width * (size_t)first;
  const int32_t shift = header->bias_shift, padded = subbyte_whole_panels(channels);
  if (header->bias_type == SUBBYTE_BIAS_INT32) {
    memset(biases + padded - SUBBYTE_PANEL, 0, sizeof *biases * SUBBYTE_PANEL);
    memcpy(biases, section, width * (size_t)channels);
    for (int32_t c = 0; c < padded; ++c) {
      biases[c] <<= shift;
    }
    return;
  }
  int16_t narrow[SUBBYTE_TILE];
  memset(narrow + padded - SUBBYTE_PANEL, 0, sizeof *narrow * SUBBYTE_PANEL);
  memcpy(narrow, section, width * (size_t)channels);
  for (int32_t c = 0; c < padded; ++c) {
    biases[c] = (uint32_t)narrow[c] << shift;
  }
}

SUBBYTE_FINISH_INLINE void subbyte_load_multipliers(const subbyte_header *header, const uint8_t *layer, int32_t first,
                                                    int32_t channels, float multipliers[SUBBYTE_TILE]) {
  const size_t width = subbyte_multiplier_bytes(header);
  const uint8_t *section = layer + header->multiplier_offset + width * (size_t)first;
  const int32_t padded = subbyte_whole_panels(channels);
  if (header->multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32) {
    memset(multipliers + padded - SUBBYTE_PANEL, 0, sizeof *multipliers * SUBBYTE_PANEL);
    memcpy(multipliers, section, width * (size_t)channels);
    return;
  }
  uint16_t middle[SUBBYTE_TILE];
  uint32_t bits[SUBBYTE_TILE];
  memset(middle + padded - SUBBYTE_PANEL, 0, sizeof *middle * SUBBYTE_PANEL);
  memcpy(middle, section, width * (size_t)channels);
  for (int32_t c = 0; c < padded; ++c) {
    bits[c] = (uint32_t)middle[c] << 14;
  }
  memcpy(multipliers, bits, sizeof *bits * (size_t)padded);
}

// codes[c] = clamp(rint((step * sums[c] + offset + biases[c]) * multipliers[c]) + output_zero_point), ties to even.
//
// Unsigned arithmetic may wrap around on the way; the format check saw to it that the sum stays in 32 bits, so it is
// exact. Clamping before the rounding gives the same code, since the ends are integers, and makes whatever the product
// is, NaN included, small enough for it: 1.5 * 2^23 has a unit in the last place of 1, so adding it rounds as the
// processor does.
SUBBYTE_FINISH_INLINE void subbyte_requantize(const subbyte_header *header, int32_t channels, const int32_t *sums,
                                              uint32_t step, uint32_t offset, const uint32_t *biases,
                                              const float *multipliers, int8_t *codes) {
  const float magic = 12582912.0f;
  const int32_t zero_point = header->output_zero_point, padded = subbyte_whole_panels(channels);
  const float smallest = (float)(header->clamp_min - zero_point), largest = (float)(header->clamp_max - zero_point);
  int32_t wide[SUBBYTE_TILE];
  for (int32_t c = 0; c < padded; ++c) {
    const int32_t sum = (int32_t)(step * (uint32_t)sums[c] + offset + biases[c]);
    float value = (float)sum * multipliers[c];
    value = value > smallest ? value : smallest;
    value = value < largest ? value : largest;
    const float rounded = (value + magic) - magic;
    wide[c] = (int32_t)rounded + zero_point;
  }
  for (int32_t c = 0; c < channels; ++c) {
    codes[c] = (int8_t)wide[c];
  }
}

// Output channels [first, first + channels), at most a tile, of each row; `output` is the first channel of row 0.
SUBBYTE_FINISH_INLINE void subbyte_finish_rows(const subbyte_header *header, const uint8_t *layer, int32_t first,
                                               int32_t channels, const subbyte_inputs *inputs, const int32_t *sums,
                                               int8_t *output) {
  uint32_t biases[SUBBYTE_TILE];
  float multipliers[SUBBYTE_TILE];
  subbyte_load_biases(header, layer, first, channels, biases);
  subbyte_load_multipliers(header, layer, first, channels, multipliers);
  const int is_linear = header->decode == SUBBYTE_LINEAR;
  const uint32_t step = is_linear ? (uint32_t)header->code_step : 1;
  for (int32_t row = 0; row < inputs->rows; ++row) {
    const uint32_t offset = is_linear ? (uint32_t)(header->code_offset * inputs->sums[row]) : 0;
    subbyte_requantize(header, channels, sums + (ptrdiff_t)SUBBYTE_TILE * row, step, offset, biases, multipliers,
                       output + (ptrdiff_t)header->output_channels * row);
  }
}

#endif
