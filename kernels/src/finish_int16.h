// From exact sums to int16 codes, in integers of 64 bits. Written for compilers to vectorise.
#ifndef SUBBYTE_FINISH_INT16_H
#define SUBBYTE_FINISH_INT16_H

#include "finish.h"

// codes[c] = clamp(round((step * (256 * high[c] + low[c]) + offset + biases[c]) * multipliers[c])), ties away from
// zero.
//
// A float32 is significand * 2^(exponent - 150). The format check saw to it that the sum stays in 40 bits, so that the
// product has less than 63, and that the exponent is at most 149. A shift by 63 in place of a longer one gives the
// same: 0.
SUBBYTE_INLINE void subbyte_requantize_int16(const subbyte_epilogue *epilogue, const subbyte_records *records,
                                             int32_t channels, const int32_t *high, const int32_t *low, int64_t offset,
                                             int16_t *codes) {
  enum { BEYOND = UINT16_MAX }; // of any clamp
  const int32_t step = epilogue->step, smallest = epilogue->clamp_min, largest = epilogue->clamp_max;
  for (int32_t c = 0; c < channels; ++c) {
    const int64_t bias = (int64_t)((uint64_t)subbyte_stored_bias(records, c) << records->bias_shift);
    const int64_t sum = (int64_t)high[c] * (256 * step) + (int64_t)low[c] * step + offset + bias;
    const float multiplier = subbyte_multiplier(records, c);
    uint32_t bits;
    memcpy(&bits, &multiplier, sizeof bits);
    const uint32_t significand = (bits & 0x7fffff) | 0x800000, exponent = bits >> 23;
    const uint32_t shift = exponent < 149 - 63 ? 63 : 149 - exponent;
    const uint64_t product = (uint64_t)(sum < 0 ? -sum : sum) * significand;
    const uint64_t rounded = ((product >> shift) + 1) >> 1;
    const int32_t magnitude = rounded < BEYOND ? (int32_t)rounded : BEYOND;
    int32_t code = sum < 0 ? -magnitude : magnitude;
    code = code > smallest ? code : smallest;
    codes[c] = (int16_t)(code < largest ? code : largest);
  }
}

// Finishes to int16, see subbyte_finish. Inputs and sums are those of the high bytes of each row, then of its low ones.
SUBBYTE_INLINE void subbyte_finish_int16(const subbyte_epilogue *epilogue, int32_t first, int32_t channels,
                                         int32_t rows, const int32_t *input_sums, const int32_t *sums,
                                         int16_t *output) {
  const subbyte_records records = subbyte_records_from(&epilogue->records, first);
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t *high = sums + (ptrdiff_t)2 * SUBBYTE_TILE * row, *low = high + SUBBYTE_TILE;
    const int64_t inputs = 256 * (int64_t)input_sums[2 * row] + input_sums[2 * row + 1];
    int16_t *to = output + (ptrdiff_t)epilogue->output_channels * row;
    if (records.multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16 && records.bias_type == SUBBYTE_BIAS_INT32) {
      subbyte_records known = records; // of sums of 8-bit weights, which are long
      known.multiplier_type = SUBBYTE_MULTIPLIER_UFLOAT16;
      known.bias_type = SUBBYTE_BIAS_INT32;
      subbyte_requantize_int16(epilogue, &known, channels, high, low, epilogue->offset * inputs, to);
    } else {
      SUBBYTE_WITH_KNOWN_TYPES(
          &records, known,
          subbyte_requantize_int16(epilogue, &known, channels, high, low, epilogue->offset * inputs, to));
    }
  }
}

#endif
