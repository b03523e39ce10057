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
SUBBYTE_FINISH_INLINE void subbyte_requantize_int16(const subbyte_header *header, const uint8_t *biases,
                                                    const uint8_t *multipliers, const subbyte_record_types *types,
                                                    int32_t channels, const int32_t *high, const int32_t *low,
                                                    int64_t offset, int16_t *codes) {
  enum { BEYOND = UINT16_MAX }; // of any clamp
  const int32_t step = header->decode == SUBBYTE_LINEAR ? header->code_step : 1;
  const int32_t smallest = header->clamp_min, largest = header->clamp_max, bias_shift = header->bias_shift;
  for (int32_t c = 0; c < channels; ++c) {
    const int64_t bias = (int64_t)((uint64_t)subbyte_stored_bias(biases, types, c) << bias_shift);
    const int64_t sum = (int64_t)high[c] * (256 * step) + (int64_t)low[c] * step + offset + bias;
    const float multiplier = subbyte_multiplier(multipliers, types, c);
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

// Output channels [first, first + channels), at most a tile, of `rows` rows; `output` is the first channel of row 0.
// Inputs and sums are those of the high bytes of each row, then of its low ones.
SUBBYTE_FINISH_INLINE void subbyte_finish_int16_rows(const subbyte_header *header, const uint8_t *layer, int32_t first,
                                                     int32_t channels, int32_t rows, const int32_t *input_sums,
                                                     const int32_t *sums, int16_t *output) {
  const subbyte_record_types types = subbyte_find_types(header, layer);
  const uint8_t *biases = layer + header->bias_offset + subbyte_bias_bytes(header) * (size_t)first;
  const uint8_t *multipliers =
      layer + subbyte_first_multiplier(header) + subbyte_multiplier_bytes(header) * (size_t)first;
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t *high = sums + (ptrdiff_t)2 * SUBBYTE_TILE * row, *low = high + SUBBYTE_TILE;
    const int64_t inputs = 256 * (int64_t)input_sums[2 * row] + input_sums[2 * row + 1];
    const int64_t offset = header->decode == SUBBYTE_LINEAR ? header->code_offset * inputs : 0;
    int16_t *to = output + (ptrdiff_t)header->output_channels * row;
    subbyte_record_types known = types;
    if (types.multiplier == SUBBYTE_MULTIPLIER_IN_BIAS) { // as what we train has
      known.bias = SUBBYTE_BIAS_INT16;
      known.multiplier = SUBBYTE_MULTIPLIER_IN_BIAS;
      subbyte_requantize_int16(header, biases, multipliers, &known, channels, high, low, offset, to);
    } else if (types.bias == SUBBYTE_BIAS_INT16 && types.multiplier == SUBBYTE_MULTIPLIER_UFLOAT16) { // likewise
      known.bias = SUBBYTE_BIAS_INT16;
      known.multiplier = SUBBYTE_MULTIPLIER_UFLOAT16;
      subbyte_requantize_int16(header, biases, multipliers, &known, channels, high, low, offset, to);
    } else if (types.multiplier == SUBBYTE_MULTIPLIER_UFLOAT16) { // likewise: sums of 8-bit weights are long
      known.bias = SUBBYTE_BIAS_INT32;
      known.multiplier = SUBBYTE_MULTIPLIER_UFLOAT16;
      subbyte_requantize_int16(header, biases, multipliers, &known, channels, high, low, offset, to);
    } else {
      subbyte_requantize_int16(header, biases, multipliers, &types, channels, high, low, offset, to);
    }
  }
}

#endif
