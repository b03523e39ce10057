// Convolutions from the packed weights: windows are gathered, and are rows as those of a fully connected layer.
#include "conv_2d.h"

size_t subbyte_packed_scratch(const subbyte_header *header, const subbyte_window *window, size_t from) {
  return from + (window->runs > 1 ? SUBBYTE_ROWS * (size_t)header->input_features : 0);
}

// The inputs of a window, one behind the other.
static void gather(const int8_t *x, const subbyte_window *window, const subbyte_image *image, int8_t *patch) {
  const int32_t step = image->columns.dilation == 1 ? image->columns.kernel : 1;
  for (int32_t ky = 0; ky < image->rows.kernel; ++ky) {
    const int8_t *row = x + (ptrdiff_t)ky * image->columns.strip * window->channels;
    for (int32_t kx = 0; kx < image->columns.kernel; kx += step) {
      memcpy(patch, row + (ptrdiff_t)kx * image->columns.dilation * window->channels, (size_t)window->run);
      patch += window->run;
    }
  }
}

// Some positions of a tile, from its `position` on.
static void compute_rows(const subbyte_convolution *call, const subbyte_tile *tile, int32_t position, int32_t rows,
                         int8_t *patches) {
  const subbyte_header *header = &call->layer->header;
  subbyte_windows windows;
  subbyte_inputs inputs;
  subbyte_set_windows(&windows, rows, call->image, tile, position, call->strip, call->window.channels);
  for (int32_t r = 0; r < rows; ++r) {
    inputs.x[r] = windows.x[r];
    if (call->window.runs > 1) {
      int8_t *patch = patches + (ptrdiff_t)header->input_features * r;
      gather(windows.x[r], &call->window, call->image, patch);
      inputs.x[r] = patch;
    }
  }
  subbyte_set_rows(&inputs, rows, header->input_features, call->layer->isa);
  subbyte_compute_channels(call->layer, call->channel, call->end, &inputs,
                           call->output + (ptrdiff_t)header->output_channels * (tile->first + position));
}

void subbyte_convolve_packed(const subbyte_convolution *call, int8_t *memory, size_t from) {
  for (int32_t index = call->first; index < call->last; ++index) {
    const subbyte_tile tile = subbyte_find_tile(call->image, index);
    const int32_t positions = tile.rows * tile.columns;
    subbyte_fill_strip(call->image, &tile, &call->slice, call->strip);
    for (int32_t position = 0; position < positions; position += SUBBYTE_ROWS) {
      compute_rows(call, &tile, position, subbyte_smaller(positions - position, SUBBYTE_ROWS), memory + from);
    }
  }
}
