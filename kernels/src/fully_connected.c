// The fully connected layer: which weights meet which inputs.
#include "compute.h"

void subbyte_fully_connected_channels(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                      const subbyte_isa *isa, int32_t first, int32_t last) {
  subbyte_layer_view view;
  subbyte_view_layer(&view, layer, isa);
  subbyte_inputs inputs;
  const int32_t features = view.header.input_features;
  // Few rows are taken once; of many, a tile of weights at a time, which stays in the cache while they pass.
  const int32_t step = rows <= SUBBYTE_ROWS ? last - first : SUBBYTE_TILE;
  for (int32_t tile = first; tile < last; tile += step) {
    for (int32_t row = 0; row < rows; row += SUBBYTE_ROWS) {
      const int32_t some = subbyte_smaller(rows - row, SUBBYTE_ROWS);
      for (int32_t r = 0; r < some; ++r) {
        inputs.x[r] = input + (ptrdiff_t)features * (row + r);
      }
      subbyte_set_rows(&inputs, some, features, isa);
      subbyte_compute_channels(&view, tile, subbyte_smaller(last, tile + step), &inputs,
                               output + (ptrdiff_t)view.header.output_channels * row);
    }
  }
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  subbyte_fully_connected_channels(layer, input, rows, output, isa, 0, subbyte_load_header(layer).output_channels);
}
