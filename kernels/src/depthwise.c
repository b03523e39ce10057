// Depthwise convolutions: the weights of a tile of channels are decoded once a call, since every position needs them.
#include "depthwise.h"

// Where things lie in the scratch memory.
typedef struct places {
  size_t panel, weights; // one decoded panel, and the tile
  size_t start, offsets, positions, strip, end;
} places;

static places find_places(const subbyte_header *header, const subbyte_image *image) {
  const size_t quads = (size_t)subbyte_quads(header->input_features);
  const int32_t channels = subbyte_smaller(header->output_channels, SUBBYTE_DEPTHWISE_TILE);
  places at = {.panel = 0};
  at.weights = at.panel + SUBBYTE_QUAD_BYTES * quads;
  at.start = at.weights + SUBBYTE_QUAD_BYTES * quads * SUBBYTE_DEPTHWISE_PANELS;
  at.offsets = at.start + sizeof(int32_t) * SUBBYTE_DEPTHWISE_TILE;
  at.positions = at.offsets + sizeof(int32_t) * SUBBYTE_QUAD * quads;
  at.strip = (at.positions + sizeof(int32_t) * (size_t)(image->rows.tile * image->columns.tile) + 63) / 64 * 64;
  at.end = at.strip + (size_t)subbyte_strip_bytes(image, channels);
  return at;
}

size_t subbyte_depthwise_scratch(const subbyte_header *header, const subbyte_image *image) {
  return find_places(header, image).end;
}

// Weights [16, 4] of a quad of taps, to rows of taps.
static void transpose_quad(const int8_t *quad, int8_t *weights) {
  for (int32_t tap = 0; tap < SUBBYTE_QUAD; ++tap) {
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      weights[SUBBYTE_DEPTHWISE_TILE * tap + c] = quad[SUBBYTE_QUAD * c + tap];
    }
  }
}

// Decodes output channels [first, first + channels), to the order of the variant.
static void unpack_tile(const subbyte_prepared *layer, int32_t first, int32_t channels, int8_t *panel, int8_t *weights,
                        int32_t *start) {
  const int32_t quads = subbyte_quads(layer->header.input_features);
  memset(start, 0, sizeof *start * SUBBYTE_DEPTHWISE_TILE);
  memset(weights, 0, (size_t)(SUBBYTE_QUAD_BYTES * SUBBYTE_DEPTHWISE_PANELS) * (size_t)quads);
  const subbyte_panels panels = subbyte_find_panels(layer, first, channels);
  for (int32_t p = 0; p < panels.count; ++p) {
    subbyte_decode_panel(layer, &panels, p, panel, start + SUBBYTE_PANEL * p);
    for (int32_t quad = 0; quad < quads; ++quad) {
      const int8_t *const from = panel + (ptrdiff_t)SUBBYTE_QUAD_BYTES * quad;
      int8_t *const to = weights + (ptrdiff_t)SUBBYTE_QUAD * SUBBYTE_DEPTHWISE_TILE * quad + SUBBYTE_PANEL * p;
      if (layer->isa->has_depthwise_chunks) {
        transpose_quad(from, to);
        continue;
      }
      for (int32_t i = 0; i < SUBBYTE_PANEL / SUBBYTE_QUAD; ++i) { // 4 channels
        memcpy(to + SUBBYTE_DEPTHWISE_TILE * i, from + 16 * i, 16);
      }
    }
  }
}

// Computes some channels of all tiles [first, last).
static void compute_channels(const subbyte_image *image, const subbyte_slice *slice, int32_t first, int32_t last,
                             subbyte_block *block, int8_t *strip, int32_t *positions, int8_t *output) {
  for (int32_t index = first; index < last; ++index) {
    const subbyte_tile tile = subbyte_find_tile(image, index);
    subbyte_fill_strip(image, &tile, slice, strip);
    subbyte_find_positions(image, &tile, slice->channels, positions);
    block->count = tile.rows * tile.columns;
    block->output = output + (ptrdiff_t)block->epilogue->output_channels * tile.first + slice->first;
    block->isa->convolve(block);
  }
}

void subbyte_compute_depthwise(const subbyte_prepared *layer, const subbyte_image *image, int32_t first, int32_t last,
                               int8_t *output, int8_t *memory) {
  const subbyte_header *header = &layer->header;
  const places at = find_places(header, image);
  int8_t *const weights = memory + at.weights, *const strip = memory + at.strip;
  int32_t *const offsets = (int32_t *)(void *)(memory + at.offsets), *const start = (void *)(memory + at.start);
  const int32_t taps = header->input_features, quads = subbyte_quads(taps), channels = header->output_channels;
  const subbyte_epilogue epilogue = subbyte_epilogue_of_weights(layer);
  subbyte_slice slice = {.multiplier = channels / header->input_channels,
                         .flip = layer->isa->flip,
                         .flip_inputs = layer->isa->flip_inputs};
  int32_t *const positions = (int32_t *)(void *)(memory + at.positions);
  subbyte_block block = {.isa = layer->isa,
                         .epilogue = &epilogue,
                         .weights = weights,
                         .start = start,
                         .is_depthwise = 1,
                         .chunk = layer->chunk,
                         .strip = strip,
                         .positions = positions,
                         .offsets = offsets,
                         .runs = taps,
                         .quads = quads};
  memset(offsets + taps, 0, sizeof *offsets * (size_t)(SUBBYTE_QUAD * quads - taps)); // their weights are 0
  for (int32_t channel = 0; channel < channels; channel += SUBBYTE_DEPTHWISE_TILE) {
    slice.first = block.first = channel;
    slice.channels = block.channels = subbyte_smaller(channels - channel, SUBBYTE_DEPTHWISE_TILE);
    subbyte_find_taps(image, slice.channels, 1, offsets);
    unpack_tile(layer, channel, slice.channels, memory + at.panel, weights, start);
    compute_channels(image, &slice, first, last, &block, strip, positions, output);
  }
}
