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

// Consecutive panels, and the first of their records, which have 16 or 32 bits a channel.
typedef struct subbyte_records {
  const uint8_t *biases, *multipliers;
  int32_t first, channels; // a multiple of 16, so that loops run over whole vectors
} subbyte_records;

// How to read them. All that the types do not name is 0.
typedef struct subbyte_record_types {
  int bias, multiplier;
  int multiplier_bits, multiplier_shift;
  uint32_t multiplier_mask, multiplier_base;
} subbyte_record_types;

SUBBYTE_FINISH_INLINE subbyte_record_types subbyte_find_types(const subbyte_header *header, const uint8_t *layer) {
  return (subbyte_record_types){.bias = header->bias_type,
                                .multiplier = header->multiplier_type,
                                .multiplier_bits = header->multiplier_bits,
                                .multiplier_shift = header->multiplier_shift,
                                .multiplier_mask = subbyte_multiplier_mask(header),
                                .multiplier_base = subbyte_multiplier_base(layer, header)};
}

SUBBYTE_FINISH_INLINE int32_t subbyte_stored_bias(const uint8_t *biases, const subbyte_record_types *types, int32_t c) {
  if (types->bias == SUBBYTE_BIAS_INT32) {
    int32_t bias;
    memcpy(&bias, biases + sizeof bias * (size_t)c, sizeof bias);
    return bias;
  }
  int16_t bias;
  memcpy(&bias, biases + sizeof bias * (size_t)c, sizeof bias);
  return types->multiplier == SUBBYTE_MULTIPLIER_IN_BIAS ? bias >> types->multiplier_bits : bias;
}

SUBBYTE_FINISH_INLINE float subbyte_multiplier(const uint8_t *multipliers, const subbyte_record_types *types,
                                               int32_t c) {
  uint32_t bits;
  if (types->multiplier == SUBBYTE_MULTIPLIER_FLOAT32) {
    memcpy(&bits, multipliers + sizeof bits * (size_t)c, sizeof bits);
  } else {
    uint16_t word;
    memcpy(&word, multipliers + sizeof word * (size_t)c, sizeof word);
    bits = types->multiplier == SUBBYTE_MULTIPLIER_UFLOAT16
               ? (uint32_t)word << 14
               : types->multiplier_base + ((word & types->multiplier_mask) << types->multiplier_shift);
  }
  float multiplier;
  memcpy(&multiplier, &bits, sizeof multiplier);
  return multiplier;
}

// codes[c] = clamp(rint((step * sums[c] + offset + biases[c]) * multipliers[c]) + output_zero_point), ties to even.
//
// Unsigned arithmetic may wrap around on the way; the format check saw to it that the sum stays in 32 bits, so it is
// exact. Clamping before the rounding gives the same code, since the ends are integers, and makes whatever the product
// is, NaN included, small enough for it: 1.5 * 2^23 has a unit in the last place of 1, so adding it rounds as the
// processor does.
SUBBYTE_FINISH_INLINE void subbyte_requantize(const subbyte_header *header, const subbyte_records *records,
                                              const subbyte_record_types *types, const int32_t *sums, uint32_t offset,
                                              int32_t *codes) {
  const float magic = 12582912.0f;
  const int32_t zero_point = header->output_zero_point, shift = header->bias_shift;
  const uint32_t step = header->decode == SUBBYTE_LINEAR ? (uint32_t)header->code_step : 1;
  const float smallest = (float)(header->clamp_min - zero_point), largest = (float)(header->clamp_max - zero_point);
  for (int32_t c = 0; c < records->channels; ++c) {
    const uint32_t bias = (uint32_t)subbyte_stored_bias(records->biases, types, c) << shift;
    const int32_t sum = (int32_t)(step * (uint32_t)sums[c] + offset + bias);
    float value = (float)sum * subbyte_multiplier(records->multipliers, types, c);
    value = value > smallest ? value : smallest;
    value = value < largest ? value : largest;
    const float rounded = (value + magic) - magic;
    codes[c] = (int32_t)rounded + zero_point;
  }
}

SUBBYTE_FINISH_INLINE void subbyte_finish_panels(const subbyte_header *header, const subbyte_records *records,
                                                 const subbyte_record_types *types, const int32_t *sums,
                                                 uint32_t offset, int32_t *codes) {
  subbyte_record_types known = *types;
  if (types->multiplier == SUBBYTE_MULTIPLIER_IN_BIAS) { // as what we train has
    known.bias = SUBBYTE_BIAS_INT16;
    known.multiplier = SUBBYTE_MULTIPLIER_IN_BIAS;
    subbyte_requantize(header, records, &known, sums, offset, codes);
  } else if (types->bias == SUBBYTE_BIAS_INT16 && types->multiplier == SUBBYTE_MULTIPLIER_UFLOAT16) { // likewise
    known.bias = SUBBYTE_BIAS_INT16;
    known.multiplier = SUBBYTE_MULTIPLIER_UFLOAT16;
    subbyte_requantize(header, records, &known, sums, offset, codes);
  } else {
    subbyte_requantize(header, records, types, sums, offset, codes);
  }
}

// Output channels [first, first + channels), at most a tile, of each row; `output` is the first channel of row 0.
SUBBYTE_FINISH_INLINE void subbyte_finish_rows(const subbyte_header *header, const uint8_t *layer, int32_t first,
                                               int32_t channels, int32_t rows, const int32_t *input_sums,
                                               const int32_t *sums, int8_t *output) {
  const size_t bias_bytes = subbyte_bias_bytes(header), multiplier_bytes = subbyte_multiplier_bytes(header);
  const uint8_t *biases = layer + header->bias_offset + bias_bytes * (size_t)first;
  const uint8_t *multipliers = layer + subbyte_first_multiplier(header) + multiplier_bytes * (size_t)first;
  const subbyte_record_types types = subbyte_find_types(header, layer);
  const int32_t rest = channels % SUBBYTE_PANEL, whole = channels - rest;
  uint8_t last_biases[4 * SUBBYTE_PANEL] = {0}, last_multipliers[4 * SUBBYTE_PANEL] = {0}; // of a shorter panel
  memcpy(last_biases, biases + bias_bytes * (size_t)whole, bias_bytes * (size_t)rest);
  memcpy(last_multipliers, multipliers + multiplier_bytes * (size_t)whole, multiplier_bytes * (size_t)rest);
  const subbyte_records records[2] = {{biases, multipliers, 0, whole},
                                      {last_biases, last_multipliers, whole, subbyte_whole_panels(rest)}};
  for (int32_t row = 0; row < rows; ++row) {
    int32_t codes[SUBBYTE_TILE];
    const int32_t *row_sums = sums + (ptrdiff_t)SUBBYTE_TILE * row;
    const uint32_t offset = header->decode == SUBBYTE_LINEAR ? (uint32_t)(header->code_offset * input_sums[row]) : 0;
    for (int i = 0; i < 2; ++i) {
      subbyte_finish_panels(header, &records[i], &types, row_sums + records[i].first, offset, codes + records[i].first);
    }
    int8_t *to = output + (ptrdiff_t)header->output_channels * row;
    for (int32_t c = 0; c < channels; ++c) {
      to[c] = (int8_t)codes[c];
    }
  }
}

#endif
