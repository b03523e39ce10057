// Depthwise convolutions: the weights of a tile of channels are decoded once a call, since every position needs them.
#include "depthwise.h"

// Where things lie in the scratch memory.
typedef struct places {
  size_t panel, weights; // one decoded panel, and the tile
  size_t start, offsets, strip, end;
} places;

static places find_places(const subbyte_header *header, const subbyte_image *image) {
  const size_t quads = (size_t)subbyte_quads(header->input_features);
  const int32_t channels = subbyte_smaller(header->output_channels, SUBBYTE_DEPTHWISE_TILE);
  places at = {.panel = 0};
  at.weights = at.panel + SUBBYTE_QUAD_BYTES * quads;
  at.start = at.weights + SUBBYTE_QUAD_BYTES * quads * SUBBYTE_DEPTHWISE_PANELS;
  at.offsets = at.start + sizeof(int32_t) * SUBBYTE_DEPTHWISE_TILE;
  at.strip = (at.offsets + sizeof(int32_t) * SUBBYTE_QUAD * quads + 63) / 64 * 64;
  at.end = at.strip + (size_t)subbyte_strip_bytes(image, channels);
  return at;
}

size_t subbyte_depthwise_scratch(const subbyte_header *header, const subbyte_image *image) {
  return find_places(header, image).end;
}

// Decodes output channels [first, first + channels), to [quads, 4, panels, 4, SUBBYTE_QUAD].
static void unpack_tile(const subbyte_prepared *layer, int32_t first, int32_t channels, int8_t *panel, int8_t *weights,
                        int32_t *start) {
  const int32_t quads = subbyte_quads(layer->header.input_features);
  memset(start, 0, sizeof *start * SUBBYTE_DEPTHWISE_TILE);
  memset(weights, 0, (size_t)(SUBBYTE_QUAD_BYTES * SUBBYTE_DEPTHWISE_PANELS) * (size_t)quads);
  const subbyte_panels panels = subbyte_find_panels(layer, first, channels);
  for (int32_t p = 0; p < panels.count; ++p) {
    subbyte_decode_panel(layer, &panels, p, panel, start + SUBBYTE_PANEL * p);
    for (int32_t i = 0; i < 4 * quads; ++i) { // 4 channels of a quad
      memcpy(weights + 16 * (SUBBYTE_DEPTHWISE_PANELS * i + p), panel + 16 * i, 16);
    }
  }
}

// What a call computes with.
typedef struct job {
  const subbyte_image *image;
  subbyte_epilogue epilogue;
  subbyte_slice slice;
  subbyte_windows windows;
  int8_t *weights, *strip;
  int32_t *start;
} job;

static void compute_tile(job *job, const subbyte_prepared *layer, const subbyte_tile *tile, int8_t *output) {
  const int32_t positions = tile->rows * tile->columns;
  subbyte_fill_strip(job->image, tile, &job->slice, job->strip);
  for (int32_t position = 0; position < positions; position += SUBBYTE_ROWS) {
    int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
    subbyte_set_windows(&job->windows, subbyte_smaller(positions - position, SUBBYTE_ROWS), job->image, tile, position,
                        job->strip, job->slice.channels);
    layer->isa->depthwise_sums(job->weights, &job->windows, job->start, sums);
    subbyte_finish_sums(layer, &job->epilogue, job->slice.first, job->slice.channels, job->windows.rows, NULL, sums,
                        output + (ptrdiff_t)job->epilogue.output_channels * (tile->first + position) +
                            job->slice.first);
  }
}

void subbyte_compute_depthwise(const subbyte_prepared *layer, const subbyte_image *image, int32_t first, int32_t last,
                               int8_t *output, int8_t *memory) {
  const subbyte_header *header = &layer->header;
  const places at = find_places(header, image);
  int32_t *const offsets = (int32_t *)(void *)(memory + at.offsets);
  const int32_t taps = header->input_features, quads = subbyte_quads(taps), channels = header->output_channels;
  job job = {
      .image = image,
      .epilogue = subbyte_epilogue_of_weights(layer),
      .slice = {.multiplier = channels / header->input_channels,
                .flip = layer->isa->flip,
                .flip_inputs = layer->isa->flip_inputs},
      .windows = {.offsets = offsets, .runs = 1, .quads = quads},
      .weights = memory + at.weights,
      .strip = memory + at.strip,
      .start = (int32_t *)(void *)(memory + at.start),
  };
  memset(offsets + taps, 0,
         sizeof *offsets * (size_t)(SUBBYTE_QUAD * quads - taps)); // their weights are 0
  for (int32_t channel = 0; channel < channels; channel += SUBBYTE_DEPTHWISE_TILE) {
    job.slice.first = channel;
    job.slice.channels = subbyte_smaller(channels - channel, SUBBYTE_DEPTHWISE_TILE);
    job.windows.channels = job.slice.channels;
    subbyte_find_taps(image, job.slice.channels, 1, offsets);
    unpack_tile(layer, channel, job.slice.channels, memory + at.panel, job.weights, job.start);
    for (int32_t index = first; index < last; ++index) {
      const subbyte_tile tile = subbyte_find_tile(image, index);
      compute_tile(&job, layer, &tile, output);
    }
  }
}
