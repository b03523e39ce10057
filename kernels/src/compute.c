#include "compute.h"

void subbyte_view_layer(subbyte_layer_view *view, const void *layer, const subbyte_isa *isa) {
  view->isa = isa;
  view->bytes = layer;
  view->header = subbyte_load_header(layer);
  view->sums = isa->linear_sums;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) { // 4 bytes of every block
    view->channel_bytes[plane] = 4 * (size_t)subbyte_blocks(view->header.input_features, subbyte_plane_width(plane));
  }
  if (view->header.decode == SUBBYTE_CODEBOOK) {
    view->sums = isa->codebook_sums;
    memset(view->codebook, 0, sizeof view->codebook);
    memcpy(view->codebook, view->bytes + view->header.codebook_offset, (size_t)1 << view->header.weight_bits);
  }
}

void subbyte_fill_codebook(subbyte_layer_view *view) {
  const subbyte_header *header = &view->header;
  const int32_t count = 1 << header->weight_bits;
  if (header->decode == SUBBYTE_LINEAR) {
    for (int32_t code = 0; code < (count > 16 ? count : 16); ++code) { // at least a vector
      view->codebook[code] = (int8_t)(header->code_offset + header->code_step * code);
    }
  }
}

void subbyte_decode_panel(const subbyte_layer_view *view, const subbyte_panels *panels, int32_t panel, int8_t *weights,
                          int32_t *start) {
  subbyte_decode *const decode = view->isa->decode ? view->isa->decode : subbyte_portable_decode;
  decode(panels, panel, view->header.decode == SUBBYTE_LINEAR, view->header.input_features, weights, start);
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

subbyte_panels subbyte_find_panels(const subbyte_layer_view *view, int32_t first, int32_t channels) {
  subbyte_panels panels;
  panels.count = subbyte_whole_panels(channels) / SUBBYTE_PANEL;
  panels.channels = channels;
  panels.weight_bits = view->header.weight_bits;
  panels.codebook = view->codebook;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const uint32_t offset = view->header.plane_offset[plane];
    panels.planes[plane] = offset ? view->bytes + offset + view->channel_bytes[plane] * (size_t)first : NULL;
    panels.steps[plane] = SUBBYTE_PANEL * view->channel_bytes[plane];
  }
  return panels;
}

void subbyte_compute_channels(const subbyte_layer_view *view, int32_t first, int32_t last, const subbyte_inputs *inputs,
                              int8_t *output) {
  for (int32_t tile = first; tile < last; tile += SUBBYTE_TILE) {
    int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
    const int32_t channels = subbyte_smaller(last - tile, SUBBYTE_TILE);
    const subbyte_panels panels = subbyte_find_panels(view, tile, channels);
    view->sums(&panels, inputs, sums);
    view->isa->finish(&view->header, view->bytes, tile, channels, inputs->rows, inputs->sums, sums, output + tile);
  }
}
