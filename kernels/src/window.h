// Convolutions: which inputs an output position sees. They are computed in tiles of positions, each from a strip, a
// copy of the inputs that its windows see: there every window is inside, padding being inputs like any other.
#ifndef SUBBYTE_WINDOW_H
#define SUBBYTE_WINDOW_H

#include "isa.h"

// One dimension of the window.
typedef struct subbyte_axis {
  int32_t kernel, stride, dilation;
  int32_t size;        // of the input
  int32_t output_size; // of the output
  int32_t before;      // padded in front of the input
  int32_t tile;        // output positions at once
  int32_t strip;       // inputs of such a tile
} subbyte_axis;

typedef struct subbyte_image {
  const int8_t *input; // [batch, height, width, channels]
  int32_t batch;
  subbyte_axis rows, columns;
  int32_t channels;
  int8_t padding; // the zero point
} subbyte_image;

// Output positions that lie one behind the other: whole rows, or a part of one.
typedef struct subbyte_tile {
  int32_t item, top, left; // the first of them
  int32_t rows, columns;
  int32_t first; // of all positions of the output
} subbyte_tile;

// What a strip holds of every pixel: output channels [first, first + channels) of a depthwise convolution of that
// multiplier, or inputs [first, first + channels) where it is 1.
typedef struct subbyte_slice {
  int32_t first, channels, multiplier;
  uint8_t flip; // of the inputs, and by what
  subbyte_flip *flip_inputs;
} subbyte_slice;

subbyte_image subbyte_make_image(const subbyte_header *header, const int8_t *input, int32_t batch, int32_t height,
                                 int32_t width);

int32_t subbyte_count_tiles(const subbyte_image *image);

subbyte_tile subbyte_find_tile(const subbyte_image *image, int32_t index);

// Bytes of a strip of so many channels: what leaves read behind its end lies inside.
uint64_t subbyte_strip_bytes(const subbyte_image *image, int32_t channels);

void subbyte_fill_strip(const subbyte_image *image, const subbyte_tile *tile, const subbyte_slice *slice,
                        int8_t *strip);

// Where the window of every position of a tile starts in a strip of so many channels.
void subbyte_find_positions(const subbyte_image *image, const subbyte_tile *tile, int32_t channels, int32_t *positions);

// Sets the windows of `rows` positions of a tile, from its `position` on, in a strip of so many channels.
void subbyte_set_windows(subbyte_windows *windows, int32_t rows, const subbyte_image *image, const subbyte_tile *tile,
                         int32_t position, const int8_t *strip, int32_t channels);

// Runs of inputs of a window that lie one behind the other in a strip: rows of the window, or its taps where they stand
// apart.
static inline int32_t subbyte_count_runs(const subbyte_header *header) {
  return header->dilation_width == 1 ? header->kernel_height : header->kernel_height * header->kernel_width;
}

// The offsets of taps, or of the first of every `step` of them, from the start of a window.
void subbyte_find_taps(const subbyte_image *image, int32_t channels, int32_t step, int32_t *offsets);

#endif
