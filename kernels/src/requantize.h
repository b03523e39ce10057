// From an exact 32-bit sum to an int8 code.
#ifndef SUBBYTE_REQUANTIZE_H
#define SUBBYTE_REQUANTIZE_H

#include <stdint.h>

#if defined(__FAST_MATH__)
#error "fast math breaks the rounding: compile subbyte without it"
#endif

// clamp(rint(sum * multiplier) + zero_point, low, high), ties to even.
//
// Clamping first gives the same code, since the ends are integers, and makes whatever the product is, NaN included,
// small enough for the rounding: 1.5 * 2^23 has a unit in the last place of 1, so adding it rounds as the processor
// does.
static inline int8_t subbyte_requantize(int32_t sum, float multiplier, int32_t zero_point, int32_t low, int32_t high) {
  const float magic = 12582912.0f;
  const float smallest = (float)(low - zero_point), largest = (float)(high - zero_point);
  float value = (float)sum * multiplier;
  value = value > smallest ? value : smallest;
  value = value < largest ? value : largest;
  const float rounded = (value + magic) - magic;
  return (int8_t)((int32_t)rounded + zero_point);
}

#endif
