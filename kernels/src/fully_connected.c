// The fully connected layer: which weights meet which inputs, around the loops of a variant.
#include "isa.h"

// The panels of output channels [first, first + channels): whole ones, or a single one.
static subbyte_panels find_panels(const subbyte_header *header, const uint8_t *layer, const int8_t *codebook,
                                  int32_t first, int32_t channels) {
  subbyte_panels panels = {
      .count = (channels + SUBBYTE_PANEL - 1) / SUBBYTE_PANEL,
      .channels = channels < SUBBYTE_PANEL ? channels : SUBBYTE_PANEL,
      .weight_bits = header->weight_bits,
      .codebook = codebook,
  };
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (header->plane_offset[plane]) {
      // A channel has 4 bytes in every block.
      const size_t channel_bytes = 4 * (size_t)subbyte_blocks(header->input_features, subbyte_plane_width(plane));
      panels.planes[plane] = layer + header->plane_offset[plane] + channel_bytes * (size_t)first;
      panels.steps[plane] = channel_bytes * SUBBYTE_PANEL;
    }
  }
  return panels;
}

static void set_inputs(subbyte_inputs *inputs, const subbyte_isa *isa, const int8_t *x, int32_t rows,
                       int32_t features) {
  const size_t rest = (size_t)features % SUBBYTE_STRIDE;
  inputs->rows = rows;
  inputs->features = features;
  for (int32_t row = 0; row < SUBBYTE_ROWS; ++row) {
    inputs->x[row] = row < rows ? x + (ptrdiff_t)features * row : x;
    inputs->sums[row] = 0;
  }
  for (int32_t row = 0; row < rows; ++row) {
    memcpy(inputs->tail[row], inputs->x[row] + features - rest, rest);
    inputs->sums[row] = isa->input_sum(inputs->x[row], features);
  }
}

static void compute_rows(const subbyte_header *header, const uint8_t *layer, const int8_t *codebook, int32_t first,
                         int32_t channels, const subbyte_inputs *inputs, int8_t *output, const subbyte_isa *isa) {
  int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
  subbyte_sums *const compute = codebook ? isa->codebook_sums : isa->linear_sums;
  const int32_t last = channels % SUBBYTE_PANEL, whole = channels - last;
  if (whole > 0) {
    const subbyte_panels panels = find_panels(header, layer, codebook, first, whole);
    compute(&panels, inputs, sums);
  }
  if (last > 0) {
    const subbyte_panels panels = find_panels(header, layer, codebook, first + whole, last);
    compute(&panels, inputs, sums + whole);
  }
  isa->finish(header, layer, first, channels, inputs, sums, output);
}

void subbyte_fully_connected_channels(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                      const subbyte_isa *isa, int32_t first, int32_t last) {
  const subbyte_header header = subbyte_load_header(layer);
  const int32_t features = header.input_features;
  int8_t codebook[256];
  const int is_codebook = header.decode == SUBBYTE_CODEBOOK;
  if (is_codebook) {
    memset(codebook, 0, sizeof codebook);
    memcpy(codebook, (const uint8_t *)layer + header.codebook_offset, (size_t)1 << header.weight_bits);
  }
  subbyte_inputs inputs;
  memset(inputs.tail, 0, sizeof inputs.tail); // every row leaves the end of its tail alone
  // A tile of weights stays in the cache while all rows pass.
  for (int32_t tile = first; tile < last; tile += SUBBYTE_TILE) {
    const int32_t channels = last - tile < SUBBYTE_TILE ? last - tile : SUBBYTE_TILE;
    for (int32_t row = 0; row < rows; row += SUBBYTE_ROWS) {
      set_inputs(&inputs, isa, input + (ptrdiff_t)features * row, rows - row < SUBBYTE_ROWS ? rows - row : SUBBYTE_ROWS,
                 features);
      compute_rows(&header, layer, is_codebook ? codebook : NULL, tile, channels, &inputs,
                   output + (ptrdiff_t)header.output_channels * row + tile, isa);
    }
  }
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  subbyte_fully_connected_channels(layer, input, rows, output, isa, 0, subbyte_load_header(layer).output_channels);
}
