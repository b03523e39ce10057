// A layer that has been looked at once: where its parts lie, how its sums are rounded, which loops compute it.
//
// Its members are for the library alone; the struct stands here so that whoever keeps one knows its size.
#ifndef SUBBYTE_PREPARED_H
#define SUBBYTE_PREPARED_H

#include "subbyte.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where the multiplier and the bias of each channel are, and how they are stored. What the types do not name is 0.
typedef struct subbyte_records {
  const uint8_t *biases, *multipliers; // of channel 0
  int32_t bias_type, multiplier_type;
  int32_t bias_shift, multiplier_bits, multiplier_shift;
  uint32_t multiplier_mask, multiplier_base;
} subbyte_records;

// How exact sums become output codes, by one of the rules of SUBBYTE_REQUANTIZE_:
//
//   sum = step * sums[c] + offset * sum of inputs + bias[c]
//   code = clamp(round(sum * multiplier[c]) + zero_point)
typedef struct subbyte_epilogue {
  subbyte_records records;
  int32_t rule;
  int32_t step, offset; // 1 and 0 where the sums are of weights and not of codes
  int32_t zero_point, clamp_min, clamp_max;
  int32_t output_channels; // from a row of outputs to the next
} subbyte_epilogue;

typedef struct subbyte_prepared {
  const uint8_t *bytes;
  const subbyte_isa *isa;
  subbyte_header header;
  subbyte_epilogue epilogue;
  size_t channel_bytes[4]; // of a channel in each plane
  // Of a convolution whose loops add up products in 16 bits: so many fit. Else 0.
  int32_t chunk;
  int8_t codebook[256]; // the weights of all codes, evenly spaced ones too
} subbyte_prepared;

// Prepares a layer for an instruction set. Nothing is allocated; `layer` stays where it is for as long as it is used.
//
// layer: passed subbyte_check(). isa: runs on this processor.
SUBBYTE_API void subbyte_prepare(subbyte_prepared *prepared, const void *layer, const subbyte_isa *isa);

#ifdef __cplusplus
}
#endif
#endif
