// The records of a packed layer: what each output channel has besides its weights, a multiplier and a bias.
//
// The only place that knows how they are stored. Variants with instructions for whole vectors read the same fields.
#ifndef SUBBYTE_RECORDS_H
#define SUBBYTE_RECORDS_H

#include "layout.h"

#if defined(__GNUC__)
#define SUBBYTE_INLINE static inline __attribute__((always_inline)) // into a function of more instructions
#else
#define SUBBYTE_INLINE static inline
#endif

static inline size_t subbyte_bias_bytes(int32_t bias_type) {
  return bias_type == SUBBYTE_BIAS_INT16 ? 2 : 4;
}

// What each channel has of its own at `multipliers`.
static inline size_t subbyte_multiplier_bytes(int32_t multiplier_type) {
  return multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32 ? 4 : 2;
}

static inline subbyte_records subbyte_find_records(const uint8_t *layer, const subbyte_header *header) {
  const int is_in_bias = header->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS;
  subbyte_records records = {
      .biases = layer + header->bias_offset,
      .multipliers = layer + (is_in_bias ? header->bias_offset : header->multiplier_offset),
      .bias_type = header->bias_type,
      .multiplier_type = header->multiplier_type,
      .bias_shift = header->bias_shift,
      .multiplier_bits = header->multiplier_bits,
      .multiplier_shift = header->multiplier_shift,
      .multiplier_mask = (1u << header->multiplier_bits) - 1,
  };
  if (is_in_bias) {
    memcpy(&records.multiplier_base, layer + header->multiplier_offset, sizeof records.multiplier_base);
  }
  return records;
}

// How the sums of a layer are rounded.
static inline subbyte_epilogue subbyte_make_epilogue(const uint8_t *bytes, const subbyte_header *header) {
  const int is_linear = header->decode == SUBBYTE_LINEAR;
  return (subbyte_epilogue){
      .records = subbyte_find_records(bytes, header),
      .rule = header->requantization,
      .step = is_linear ? header->code_step : 1,
      .offset = is_linear ? header->code_offset : 0,
      .zero_point = header->output_zero_point,
      .clamp_min = header->clamp_min,
      .clamp_max = header->clamp_max,
      .output_channels = header->output_channels,
  };
}

// The same records from channel `first` on.
SUBBYTE_INLINE subbyte_records subbyte_records_from(const subbyte_records *records, int32_t first) {
  subbyte_records rest = *records;
  rest.biases += subbyte_bias_bytes(records->bias_type) * (size_t)first;
  rest.multipliers += subbyte_multiplier_bytes(records->multiplier_type) * (size_t)first;
  return rest;
}

// The bias of a channel before its shift.
SUBBYTE_INLINE int32_t subbyte_stored_bias(const subbyte_records *records, int32_t channel) {
  if (records->bias_type == SUBBYTE_BIAS_INT32) {
    int32_t bias;
    memcpy(&bias, records->biases + sizeof bias * (size_t)channel, sizeof bias);
    return bias;
  }
  int16_t bias;
  memcpy(&bias, records->biases + sizeof bias * (size_t)channel, sizeof bias);
  return records->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS ? bias >> records->multiplier_bits : bias;
}

// The bias of a channel: 64 bits hold every stored value with every shift.
static inline int64_t subbyte_bias(const subbyte_records *records, int32_t channel) {
  return (int64_t)subbyte_stored_bias(records, channel) * ((int64_t)1 << records->bias_shift);
}

SUBBYTE_INLINE float subbyte_multiplier(const subbyte_records *records, int32_t channel) {
  uint32_t bits;
  if (records->multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32) {
    memcpy(&bits, records->multipliers + sizeof bits * (size_t)channel, sizeof bits);
  } else {
    uint16_t word;
    memcpy(&word, records->multipliers + sizeof word * (size_t)channel, sizeof word);
    bits = records->multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16
               ? (uint32_t)word << 14
               : records->multiplier_base + ((word & records->multiplier_mask) << records->multiplier_shift);
  }
  float multiplier;
  memcpy(&multiplier, &bits, sizeof multiplier);
  return multiplier;
}

// Runs `loop` with a copy of `records`, `known`, whose types are constants to the compiler where they are those of what
// we train: its loop over channels has no branch in it then. Where size counts more, there is one loop for all.
#if defined(__OPTIMIZE_SIZE__)
#define SUBBYTE_WITH_KNOWN_TYPES(records, known, loop)                                                                 \
  do {                                                                                                                 \
    const subbyte_records known = *(records);                                                                          \
    loop;                                                                                                              \
  } while (0)
#else
#define SUBBYTE_WITH_KNOWN_TYPES(records, known, loop)                                                                 \
  do {                                                                                                                 \
    subbyte_records known = *(records);                                                                                \
    if (known.multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS) {                                                         \
      known.bias_type = SUBBYTE_BIAS_INT16;                                                                            \
      known.multiplier_type = SUBBYTE_MULTIPLIER_IN_BIAS;                                                              \
      loop;                                                                                                            \
    } else if (known.multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16 && known.bias_type == SUBBYTE_BIAS_INT16) {        \
      known.bias_type = SUBBYTE_BIAS_INT16;                                                                            \
      known.multiplier_type = SUBBYTE_MULTIPLIER_UFLOAT16;                                                             \
      loop;                                                                                                            \
    } else {                                                                                                           \
      loop;                                                                                                            \
    }                                                                                                                  \
  } while (0)
#endif

#endif
