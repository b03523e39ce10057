// The fully connected layer: which weights meet which inputs, around the loops of a variant.
#include "isa.h"

static int32_t smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

typedef struct call {
  const subbyte_isa *isa;
  const uint8_t *layer;
  subbyte_header header;
  subbyte_sums *sums;
  size_t channel_bytes[SUBBYTE_PLANES]; // of the plane
  int8_t codebook[256];
} call;

static void start_call(call *call, const void *layer, const subbyte_isa *isa) {
  call->isa = isa;
  call->layer = layer;
  call->header = subbyte_load_header(layer);
  call->sums = isa->linear_sums;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) { // 4 bytes of every block
    call->channel_bytes[plane] = 4 * (size_t)subbyte_blocks(call->header.input_features, subbyte_plane_width(plane));
  }
  if (call->header.decode == SUBBYTE_CODEBOOK) {
    call->sums = isa->codebook_sums;
    memset(call->codebook, 0, sizeof call->codebook);
    memcpy(call->codebook, call->layer + call->header.codebook_offset, (size_t)1 << call->header.weight_bits);
  }
}

static subbyte_panels find_panels(const call *call, int32_t first, int32_t channels) {
  subbyte_panels panels;
  panels.count = subbyte_whole_panels(channels) / SUBBYTE_PANEL;
  panels.channels = channels;
  panels.weight_bits = call->header.weight_bits;
  panels.codebook = call->codebook;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const uint32_t offset = call->header.plane_offset[plane];
    panels.planes[plane] = offset ? call->layer + offset + call->channel_bytes[plane] * (size_t)first : NULL;
    panels.steps[plane] = SUBBYTE_PANEL * call->channel_bytes[plane];
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
    memset(inputs->tail[row], 0, SUBBYTE_STRIDE);
  }
  for (int32_t row = 0; row < rows; ++row) {
    memcpy(inputs->tail[row], inputs->x[row] + features - rest, rest);
    inputs->sums[row] = isa->input_sum(inputs->x[row], features);
  }
}

void subbyte_fully_connected_channels(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                      const subbyte_isa *isa, int32_t first, int32_t last) {
  call call;
  start_call(&call, layer, isa);
  subbyte_inputs inputs;
  const int32_t features = call.header.input_features;
  for (int32_t tile = first; tile < last; tile += SUBBYTE_TILE) { // its weights stay in the cache for all rows
    const int32_t channels = smaller(last - tile, SUBBYTE_TILE);
    const subbyte_panels panels = find_panels(&call, tile, channels);
    for (int32_t row = 0; row < rows; row += SUBBYTE_ROWS) {
      int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
      if (tile == first || rows > SUBBYTE_ROWS) { // or they are those of the last tile
        set_inputs(&inputs, isa, input + (ptrdiff_t)features * row, smaller(rows - row, SUBBYTE_ROWS), features);
      }
      call.sums(&panels, &inputs, sums);
      isa->finish(&call.header, call.layer, tile, channels, &inputs, sums,
                  output + (ptrdiff_t)call.header.output_channels * row + tile);
    }
  }
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  subbyte_fully_connected_channels(layer, input, rows, output, isa, 0, subbyte_load_header(layer).output_channels);
}
