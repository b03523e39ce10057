// Convolutions: which inputs an output position sees.
#ifndef SUBBYTE_WINDOW_H
#define SUBBYTE_WINDOW_H

#include "compute.h"

// One dimension of the window.
typedef struct subbyte_axis {
  int32_t kernel, stride, dilation;
  int32_t size;        // of the input
  int32_t output_size; // of the output
  int32_t before;      // padded in front of the input
} subbyte_axis;

typedef struct subbyte_image {
  const int8_t *input; // [batch, height, width, channels]
  subbyte_axis rows, columns;
  int32_t channels;
  int8_t padding; // the zero point
} subbyte_image;

// Where the first tap of an output position lies in the input; outside, if in the padding.
typedef struct subbyte_window {
  int32_t item, top, left;
} subbyte_window;

subbyte_image subbyte_make_image(const subbyte_header *header, const int8_t *input, int32_t height, int32_t width);

// Positions are counted along rows of each item of the batch.
subbyte_window subbyte_find_window(const subbyte_image *image, int32_t position);

// Where row `y` of one item of the batch starts, or NULL outside of the input.
const int8_t *subbyte_find_row(const subbyte_image *image, int32_t item, int32_t y);

// Bytes that subbyte_compute_depthwise() works in: the decoded weights, and the inputs of a panel at one position.
size_t subbyte_depthwise_scratch(const subbyte_header *header);

// Output positions [first, last); `output` is that of position 0.
void subbyte_compute_depthwise(const subbyte_layer_view *view, const subbyte_image *image, int32_t first, int32_t last,
                               int8_t *output, int8_t *scratch);

#endif
