// Convolutions, depthwise ones too: their row of the op table, and what their two ways of computing share.
#ifndef SUBBYTE_CONV_2D_H
#define SUBBYTE_CONV_2D_H

#include "ops.h"
#include "window.h"

// Sets the sizes of [batch, height, width, channels] and of the output. Returns what is wrong, or NULL.
const char *subbyte_fit_conv_2d(subbyte_op *op, const subbyte_activation *input);

int32_t subbyte_cut_conv_2d(const subbyte_op *op, int32_t wanted);

void subbyte_run_conv_2d(const subbyte_op *op, const void *input, void *output, void *scratch, int32_t part,
                         int32_t parts);

// The inputs of a window of one group of channels.
typedef struct subbyte_window {
  int32_t channels;  // of a pixel
  int32_t run, runs; // inputs of a run, and how many runs there are
  int32_t quads;     // of all runs
} subbyte_window;

// What a call computes, for one group of channels.
typedef struct subbyte_convolution {
  const subbyte_prepared *layer;
  const subbyte_image *image;
  subbyte_window window;
  subbyte_slice slice;
  int32_t first, last;  // tiles
  int32_t channel, end; // output channels
  int8_t *output, *strip;
} subbyte_convolution;

// Scratch memory of the way that gathers windows, which meet the packed weights, behind `from` bytes.
size_t subbyte_packed_scratch(const subbyte_header *header, const subbyte_window *window, size_t from);

// `memory` is where the scratch memory starts, from which `from` bytes are the strip's.
void subbyte_convolve_packed(const subbyte_convolution *call, int8_t *memory, size_t from);

// Scratch memory of the way that decodes as many weights as a cache holds, for many positions. Returns 0 where it is no
// way for this image, or on processors with little memory.
size_t subbyte_decoded_scratch(const subbyte_header *header, const subbyte_image *image, const subbyte_window *window,
                               size_t from);

// All output channels of the group: sets `channel` and `end` as it goes.
void subbyte_convolve_decoded(subbyte_convolution *call, int8_t *memory, size_t from);

#endif
