#include "prepared.h"

#include "records.h"

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
  prepared->chunk = 0;
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
