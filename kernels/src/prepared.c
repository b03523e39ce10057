#include "prepared.h"

#include "records.h"
#include "window.h"

// Fills the weights of all codes; where these are evenly spaced, only convolutions, which decode them, have a use for
// it.
static void fill_codebook(subbyte_prepared *layer) {
  const subbyte_header *header = &layer->header;
  const int32_t count = 1 << header->weight_bits;
  if (header->decode == SUBBYTE_CODEBOOK) {
    memset(layer->codebook, 0, sizeof layer->codebook);
    memcpy(layer->codebook, layer->bytes + header->codebook_offset, (size_t)count);
  } else if (header->op != SUBBYTE_FULLY_CONNECTED) {
    for (int32_t code = 0; code < (count > 16 ? count : 16); ++code) { // at least a vector
      layer->codebook[code] = (int8_t)(header->code_offset + header->code_step * code);
    }
  }
}

enum { LANE_LIMIT = INT16_MAX / 128 }; // of the magnitudes of weights whose products share 16 bits: inputs reach 128

// The magnitude of the weight that a lane of a quad has in the runs of a convolution; 0 for what fills up a run.
static int32_t find_magnitude(const subbyte_prepared *layer, const subbyte_panels *panels, int32_t run, int32_t c,
                              int32_t quad, int32_t lane) {
  const int32_t run_quads = subbyte_quads(run), k = SUBBYTE_QUAD * (quad % run_quads) + lane;
  if (k >= run) {
    return 0;
  }
  const int32_t code = subbyte_load_code(panels, c / SUBBYTE_PANEL, c % SUBBYTE_PANEL, quad / run_quads * run + k);
  const int32_t weight = layer->codebook[code];
  return weight < 0 ? -weight : weight;
}

// How many quads in succession stay below the limit wherever they start, in every lane of the layer: evened out, so
// that the fewest chunks are about as long as each other.
static int32_t find_chunk(const subbyte_prepared *layer) {
  const subbyte_header *header = &layer->header;
  const int32_t runs = subbyte_count_runs(header), run = header->input_features / runs;
  const int32_t channels = header->output_channels / header->groups, quads = runs * subbyte_quads(run);
  int32_t chunk = quads;
  for (int32_t first = 0; first < header->output_channels; first += channels) {
    const subbyte_panels panels = subbyte_find_panels(layer, first, channels);
    for (int32_t lane = 0; lane < SUBBYTE_QUAD * channels; ++lane) {
      int32_t start = 0, sum = 0;
      for (int32_t quad = 0; quad < quads; ++quad) {
        sum += find_magnitude(layer, &panels, run, lane / SUBBYTE_QUAD, quad, lane % SUBBYTE_QUAD);
        for (; sum > LANE_LIMIT; ++start) {
          chunk = subbyte_smaller(chunk, quad - start);
          sum -= find_magnitude(layer, &panels, run, lane / SUBBYTE_QUAD, start, lane % SUBBYTE_QUAD);
        }
      }
    }
  }
  const int32_t chunks = quads / chunk + (quads % chunk != 0);
  return quads / chunks + (quads % chunks != 0);
}

void subbyte_prepare(subbyte_prepared *prepared, const void *layer, const subbyte_isa *isa) {
  prepared->bytes = layer;
  prepared->isa = isa;
  prepared->header = subbyte_load_header(layer);
  prepared->epilogue = subbyte_make_epilogue(layer, &prepared->header);
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) { // 4 bytes of every block
    prepared->channel_bytes[plane] =
        4 * (size_t)subbyte_blocks(prepared->header.input_features, subbyte_plane_width(plane));
  }
  fill_codebook(prepared);
  prepared->chunk = isa->has_chunks && prepared->header.op == SUBBYTE_CONV_2D ? find_chunk(prepared) : 0;
}

void subbyte_decode_panel(const subbyte_prepared *layer, const subbyte_panels *panels, int32_t panel, int8_t *weights,
                          int32_t *start) {
  layer->isa->decode(panels, panel, layer->header.decode == SUBBYTE_LINEAR, layer->header.input_features, weights,
                     start);
}

void subbyte_set_rows(subbyte_inputs *inputs, int32_t rows, int32_t features, const subbyte_isa *isa) {
  const size_t rest = (size_t)features % SUBBYTE_STRIDE;
  inputs->rows = rows;
  inputs->features = features;
  for (int32_t row = 0; row < SUBBYTE_ROWS; ++row) {
    inputs->x[row] = row < rows ? inputs->x[row] : inputs->x[0];
    inputs->sums[row] = 0;
    memset(inputs->tail[row], 0, SUBBYTE_STRIDE);
  }
  for (int32_t row = 0; row < rows; ++row) {
    memcpy(inputs->tail[row], inputs->x[row] + features - rest, rest);
    inputs->sums[row] = isa->input_sum(inputs->x[row], features);
  }
}

subbyte_panels subbyte_find_panels(const subbyte_prepared *layer, int32_t first, int32_t channels) {
  subbyte_panels panels;
  panels.count = subbyte_whole_panels(channels) / SUBBYTE_PANEL;
  panels.channels = channels;
  panels.weight_bits = layer->header.weight_bits;
  panels.codebook = layer->codebook;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const uint32_t offset = layer->header.plane_offset[plane];
    panels.planes[plane] = offset ? layer->bytes + offset + layer->channel_bytes[plane] * (size_t)first : NULL;
    panels.steps[plane] = SUBBYTE_PANEL * layer->channel_bytes[plane];
  }
  return panels;
}

void subbyte_compute_channels(const subbyte_prepared *layer, int32_t first, int32_t last, const subbyte_inputs *inputs,
                              void *output) {
  const int32_t code_bytes = subbyte_code_bytes(&layer->header);
  subbyte_sums *const compute_sums =
      layer->header.decode == SUBBYTE_LINEAR ? layer->isa->linear_sums : layer->isa->codebook_sums;
  for (int32_t tile = first; tile < last; tile += SUBBYTE_TILE) {
    int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
    const int32_t channels = subbyte_smaller(last - tile, SUBBYTE_TILE);
    const subbyte_panels panels = subbyte_find_panels(layer, tile, channels);
    compute_sums(&panels, inputs, sums);
    // A row of 16-bit inputs is two rows of bytes.
    subbyte_finish_sums(layer, &layer->epilogue, tile, channels, inputs->rows / code_bytes, inputs->sums, sums,
                        (int8_t *)output + (ptrdiff_t)code_bytes * tile);
  }
}
