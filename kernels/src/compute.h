// What layers share: a packed layer ready to be computed, and outputs of a few rows of its inputs.
#ifndef SUBBYTE_COMPUTE_H
#define SUBBYTE_COMPUTE_H

#include "isa.h"

static inline int32_t subbyte_smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

typedef struct subbyte_layer_view {
  const subbyte_isa *isa;
  const uint8_t *bytes;
  subbyte_header header;
  subbyte_sums *sums;
  size_t channel_bytes[SUBBYTE_PLANES]; // of the plane
  int8_t codebook[256];
} subbyte_layer_view;

void subbyte_view_layer(subbyte_layer_view *view, const void *layer, const subbyte_isa *isa);

// Output channels [first, first + channels), at most a tile.
subbyte_panels subbyte_find_panels(const subbyte_layer_view *view, int32_t first, int32_t channels);

// Makes a codebook for a linear layer too. Comes before subbyte_decode_panel().
void subbyte_fill_codebook(subbyte_layer_view *view);

// One of those panels, as subbyte_decode does: weights [quads, 16, 4] and start [16].
void subbyte_decode_panel(const subbyte_layer_view *view, const subbyte_panels *panels, int32_t panel, int8_t *weights,
                          int32_t *start);

// Takes the rows at inputs->x[0 .. rows - 1], of `features` inputs each.
void subbyte_set_rows(subbyte_inputs *inputs, int32_t rows, int32_t features, const subbyte_isa *isa);

// Output channels [first, last) of those rows; `output` is channel 0 of the first row. Panels start at `first`.
void subbyte_compute_channels(const subbyte_layer_view *view, int32_t first, int32_t last, const subbyte_inputs *inputs,
                              int8_t *output);

#endif
