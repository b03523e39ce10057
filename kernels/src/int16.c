// Fully connected layers with 16-bit activations. A row of x = 256 * high + low + 128 is two rows of bytes, which meet
// the weights as any others do: sum(w * x) = 256 * sum(w * high) + sum(w * low) + 128 * sum(w). The packer put the last
// of these into the bias.
#include "compute.h"
#include "finish_int16.h"

enum { ROWS = SUBBYTE_ROWS / 2 }; // that share a decoded vector of weights

static void split(const int16_t *x, int32_t features, int8_t *high, int8_t *low) {
  for (int32_t k = 0; k < features; ++k) {
    high[k] = (int8_t)(x[k] >> 8);
    low[k] = (int8_t)(x[k] ^ 0x80); // less 128
  }
}

size_t subbyte_fully_connected_int16_scratch(const void *layer, int32_t rows) {
  return 2 * (size_t)subbyte_smaller(rows, ROWS) * (size_t)subbyte_load_header(layer).input_features;
}

static void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels, int32_t rows,
                   const int32_t *input_sums, const int32_t *sums, int16_t *output) {
  subbyte_finish_int16_rows(header, layer, first, channels, rows, input_sums, sums, output);
}

static void compute_rows(const subbyte_layer_view *view, int32_t first, int32_t last, const subbyte_inputs *inputs,
                         int16_t *output) {
  for (int32_t tile = first; tile < last; tile += SUBBYTE_TILE) {
    int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
    const int32_t channels = subbyte_smaller(last - tile, SUBBYTE_TILE);
    const subbyte_panels panels = subbyte_find_panels(view, tile, channels);
    view->sums(&panels, inputs, sums);
    (view->isa->finish_int16 ? view->isa->finish_int16 : finish)(&view->header, view->bytes, tile, channels,
                                                                 inputs->rows / 2, inputs->sums, sums, output + tile);
  }
}

void subbyte_fully_connected_int16_channels(const void *layer, const int16_t *input, int32_t rows, int16_t *output,
                                            void *scratch, const subbyte_isa *isa, int32_t first, int32_t last) {
  subbyte_layer_view view;
  subbyte_view_layer(&view, layer, isa);
  const int32_t features = view.header.input_features;
  // Few rows are taken once; of many, a tile of weights at a time, which stays in the cache while they pass.
  const int32_t step = rows <= ROWS ? last - first : SUBBYTE_TILE;
  for (int32_t tile = first; tile < last; tile += step) {
    for (int32_t row = 0; row < rows; row += ROWS) {
      const int32_t some = subbyte_smaller(rows - row, ROWS);
      subbyte_inputs inputs;
      for (int32_t r = 0; r < some; ++r) {
        int8_t *high = (int8_t *)scratch + (ptrdiff_t)2 * features * r, *low = high + features;
        split(input + (ptrdiff_t)features * (row + r), features, high, low);
        inputs.x[2 * r] = high;
        inputs.x[2 * r + 1] = low;
      }
      subbyte_set_rows(&inputs, 2 * some, features, isa);
      compute_rows(&view, tile, subbyte_smaller(last, tile + step), &inputs,
                   output + (ptrdiff_t)view.header.output_channels * row);
    }
  }
}

void subbyte_fully_connected_int16(const void *layer, const int16_t *input, int32_t rows, int16_t *output,
                                   void *scratch, const subbyte_isa *isa) {
  subbyte_fully_connected_int16_channels(layer, input, rows, output, scratch, isa, 0,
                                         subbyte_load_header(layer).output_channels);
}
