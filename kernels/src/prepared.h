// A prepared layer at work: which panels of weights it has, and outputs of a few rows of its inputs.
#ifndef SUBBYTE_PREPARED_LAYER_H
#define SUBBYTE_PREPARED_LAYER_H

#include "isa.h"

// Output channels [first, first + channels), at most a tile.
subbyte_panels subbyte_find_panels(const subbyte_prepared *layer, int32_t first, int32_t channels);

// Decodes one panel as subbyte_decode does all: weights [quads, 16, 4] and start [16]. Not for a fully connected layer.
void subbyte_decode_panel(const subbyte_prepared *layer, const subbyte_panels *panels, int32_t panel, int8_t *weights,
                          int32_t *start);

// The epilogue of sums that are of decoded weights and no longer of codes.
static inline subbyte_epilogue subbyte_epilogue_of_weights(const subbyte_prepared *layer) {
  subbyte_epilogue epilogue = layer->epilogue;
  epilogue.step = 1;
  epilogue.offset = 0;
  return epilogue;
}

// Rounds sums of output channels [first, first + channels) of some rows, at most a tile; `output` is the first channel
// of row 0.
static inline void subbyte_finish_sums(const subbyte_prepared *layer, const subbyte_epilogue *epilogue, int32_t first,
                                       int32_t channels, int32_t rows, const int32_t *input_sums, const int32_t *sums,
                                       void *output) {
  layer->isa->finish[epilogue->rule](epilogue, first, channels, rows, input_sums, sums, output);
}

// Bytes of an input or output code.
static inline int32_t subbyte_code_bytes(const subbyte_header *header) {
  return header->activation_type == SUBBYTE_ACTIVATION_INT16 ? 2 : 1;
}

// Takes the rows at inputs->x[0 .. rows - 1], of `features` inputs each.
void subbyte_set_rows(subbyte_inputs *inputs, int32_t rows, int32_t features, const subbyte_isa *isa);

// Output channels [first, last) of those rows; `output` is channel 0 of the first row. Panels start at `first`.
void subbyte_compute_channels(const subbyte_prepared *layer, int32_t first, int32_t last, const subbyte_inputs *inputs,
                              void *output);

#endif
