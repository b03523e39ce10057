// From an exact 32-bit sum to an int8 code.
#ifndef SUBBYTE_REQUANTIZE_H
#define SUBBYTE_REQUANTIZE_H

#include "layout.h"

#if defined(__FAST_MATH__)
#error "fast math breaks the rounding: compile subbyte without it"
#endif

// codes[c] = clamp(rint(sums[c] * multipliers[c]) + output_zero_point), ties to even. Sixteen at a time, for compilers
// to vectorise.
//
// Clamping first gives the same code, since the ends are integers, and makes whatever the product is, NaN included,
// small enough for the rounding: 1.5 * 2^23 has a unit in the last place of 1, so adding it rounds as the processor
// does.
static inline void subbyte_requantize(const subbyte_header *header, int32_t channels, const int32_t *sums,
                                      const float *multipliers, int8_t *codes) {
  const float magic = 12582912.0f;
  const int32_t zero_point = header->output_zero_point;
  const float smallest = (float)(header->clamp_min - zero_point), largest = (float)(header->clamp_max - zero_point);
  for (int32_t c = 0; c < channels; ++c) {
    float value = (float)sums[c] * multipliers[c];
    value = value > smallest ? value : smallest;
    value = value < largest ? value : largest;
    const float rounded = (value + magic) - magic;
    codes[c] = (int8_t)((int32_t)rounded + zero_point);
  }
}

#endif
