// From exact 32-bit sums to int8 codes. Each variant compiles this one body for its instruction set.
#ifndef SUBBYTE_FINISH_H
#define SUBBYTE_FINISH_H

#include "isa.h"
#include "records.h"

#if defined(__FAST_MATH__)
#error "fast math breaks the rounding: compile subbyte without it"
#endif

// codes[c] = clamp(rint((step * sums[c] + offset + biases[c]) * multipliers[c]) + zero_point), ties to even.
//
// Unsigned arithmetic may wrap around on the way; the format check saw to it that the sum stays in 32 bits, so it is
// exact. Clamping before the rounding gives the same code, since the ends are integers, and makes whatever the product
// is, NaN included, small enough for it: 1.5 * 2^23 has a unit in the last place of 1, so adding it rounds as the
// processor does.
SUBBYTE_INLINE void subbyte_requantize(const subbyte_epilogue *epilogue, const subbyte_records *records,
                                       int32_t channels, const int32_t *sums, uint32_t offset, int32_t *codes) {
  const float magic = 12582912.0f;
  const int32_t zero_point = epilogue->zero_point, shift = records->bias_shift;
  const uint32_t step = (uint32_t)epilogue->step;
  const float smallest = (float)(epilogue->clamp_min - zero_point);
  const float largest = (float)(epilogue->clamp_max - zero_point);
  for (int32_t c = 0; c < channels; ++c) {
    const uint32_t bias = (uint32_t)subbyte_stored_bias(records, c) << shift;
    const int32_t sum = (int32_t)(step * (uint32_t)sums[c] + offset + bias);
    float value = (float)sum * subbyte_multiplier(records, c);
    value = value > smallest ? value : smallest;
    value = value < largest ? value : largest;
    const float rounded = (value + magic) - magic;
    codes[c] = (int32_t)rounded + zero_point;
  }
}

// Finishes to int8, see subbyte_finish. Loops run over whole panels, so that they take whole vectors: the records of a
// shorter one are copied.
SUBBYTE_INLINE void subbyte_finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                                        const int32_t *input_sums, const int32_t *sums, int8_t *output) {
  const int32_t rest = channels % SUBBYTE_PANEL, whole = channels - rest;
  const int32_t starts[] = {0, whole}, counts[] = {whole, subbyte_whole_panels(rest)};
  uint8_t biases[4 * SUBBYTE_PANEL] = {0}, multipliers[4 * SUBBYTE_PANEL] = {0};
  subbyte_records records[2];
  records[0] = subbyte_records_from(&epilogue->records, first);
  records[1] = subbyte_records_from(&records[0], whole);
  memcpy(biases, records[1].biases, subbyte_bias_bytes(records[1].bias_type) * (size_t)rest);
  memcpy(multipliers, records[1].multipliers, subbyte_multiplier_bytes(records[1].multiplier_type) * (size_t)rest);
  records[1].biases = biases;
  records[1].multipliers = multipliers;
  for (int32_t row = 0; row < rows; ++row) {
    int32_t codes[SUBBYTE_TILE];
    const int32_t *row_sums = sums + (ptrdiff_t)SUBBYTE_TILE * row;
    const uint32_t offset = (uint32_t)subbyte_input_offset(epilogue, input_sums, row);
    for (int i = 0; i < 2; ++i) {
      SUBBYTE_WITH_KNOWN_TYPES(
          &records[i], known,
          subbyte_requantize(epilogue, &known, counts[i], row_sums + starts[i], offset, codes + starts[i]));
    }
    int8_t *to = output + (ptrdiff_t)epilogue->output_channels * row;
    for (int32_t c = 0; c < channels; ++c) {
      to[c] = (int8_t)codes[c];
    }
  }
}

#endif
