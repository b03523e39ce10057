// Depthwise convolutions: the weights are decoded once a call, since every output position needs all of them.
#include "window.h"

enum { QUAD = 4 }; // taps side by side, one byte each

static int32_t count_quads(int32_t taps) {
  return taps / QUAD + (taps % QUAD != 0);
}

size_t subbyte_depthwise_scratch(const subbyte_header *header) {
  const size_t panel_bytes = (size_t)(QUAD * SUBBYTE_PANEL) * (size_t)count_quads(header->input_features);
  return panel_bytes * (size_t)(subbyte_whole_panels(header->output_channels) / SUBBYTE_PANEL + 1);
}

// Decodes the panel of `channels` output channels that starts with `first`: [quads, 16, 4], zeros where there is no tap
// or no channel.
static void decode_panel(const subbyte_layer_view *view, int32_t first, int32_t channels, int8_t *weights) {
  const subbyte_header *header = &view->header;
  const subbyte_panels panels = subbyte_find_panels(view, first, channels);
  const int32_t taps = header->input_features, quads = count_quads(taps);
  for (int32_t quad = 0; quad < quads; ++quad) {
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      for (int32_t j = 0; j < QUAD; ++j) {
        const int32_t tap = QUAD * quad + j;
        int32_t weight = 0;
        if (tap < taps && c < channels) {
          const int32_t code = subbyte_load_code(&panels, 0, c, tap);
          weight =
              header->decode == SUBBYTE_LINEAR ? header->code_offset + header->code_step * code : view->codebook[code];
        }
        *weights++ = (int8_t)weight;
      }
    }
  }
}

// The inputs of output channels [first, first + channels) at a window: [taps, 16].
static void gather_panel(const subbyte_image *image, subbyte_window window, int32_t multiplier, int32_t first,
                         int32_t channels, int8_t *patch) {
  for (int32_t ky = 0; ky < image->rows.kernel; ++ky) {
    const int8_t *row = subbyte_find_row(image, window.item, window.top + ky * image->rows.dilation);
    for (int32_t kx = 0; kx < image->columns.kernel; ++kx, patch += SUBBYTE_PANEL) {
      const int32_t x = window.left + kx * image->columns.dilation;
      if (row == NULL || x < 0 || x >= image->columns.size) {
        memset(patch, image->padding, SUBBYTE_PANEL);
        continue;
      }
      const int8_t *pixel = row + (ptrdiff_t)x * image->channels;
      if (multiplier == 1 && channels == SUBBYTE_PANEL) {
        memcpy(patch, pixel + first, SUBBYTE_PANEL);
        continue;
      }
      for (int32_t c = 0; c < channels; ++c) {
        patch[c] = pixel[(first + c) / multiplier];
      }
    }
  }
}

void subbyte_compute_depthwise(const subbyte_layer_view *view, const subbyte_image *image, int32_t first_position,
                               int32_t last_position, int8_t *output, int8_t *scratch) {
  subbyte_header header = view->header;
  const int32_t channels = header.output_channels, multiplier = channels / header.input_channels;
  const int32_t quads = count_quads(header.input_features), panel_bytes = QUAD * SUBBYTE_PANEL * quads;
  int8_t *const patch = scratch, *const weights = scratch + panel_bytes;
  memset(patch, 0, (size_t)panel_bytes); // what no tap or channel writes stays zero
  for (int32_t first = 0; first < channels; first += SUBBYTE_PANEL) {
    decode_panel(view, first, subbyte_smaller(channels - first, SUBBYTE_PANEL),
                 weights + (ptrdiff_t)panel_bytes * (first / SUBBYTE_PANEL));
  }
  subbyte_depthwise_sums *const compute =
      view->isa->depthwise_sums ? view->isa->depthwise_sums : subbyte_portable_depthwise_sums;
  header.decode = SUBBYTE_CODEBOOK; // the sums are of weights, no longer of codes
  subbyte_inputs inputs;
  for (int32_t position = first_position; position < last_position; position += SUBBYTE_ROWS) {
    inputs.rows = subbyte_smaller(last_position - position, SUBBYTE_ROWS);
    for (int32_t tile = 0; tile < channels; tile += SUBBYTE_TILE) {
      int32_t sums[SUBBYTE_ROWS * SUBBYTE_TILE];
      const int32_t tile_channels = subbyte_smaller(channels - tile, SUBBYTE_TILE);
      for (int32_t row = 0; row < inputs.rows; ++row) {
        const subbyte_window window = subbyte_find_window(image, position + row);
        for (int32_t c = 0; c < tile_channels; c += SUBBYTE_PANEL) {
          gather_panel(image, window, multiplier, tile + c, subbyte_smaller(tile_channels - c, SUBBYTE_PANEL), patch);
          compute(weights + (ptrdiff_t)panel_bytes * ((tile + c) / SUBBYTE_PANEL), patch, quads,
                  sums + SUBBYTE_TILE * row + c);
        }
      }
      view->isa->finish(&header, view->bytes, tile, tile_channels, &inputs, sums,
                        output + (ptrdiff_t)channels * position + tile);
    }
  }
}
