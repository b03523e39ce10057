// Depthwise convolutions.
#ifndef SUBBYTE_DEPTHWISE_H
#define SUBBYTE_DEPTHWISE_H

#include "prepared.h"
#include "window.h"

// Bytes that subbyte_compute_depthwise() works in, from an address that is a multiple of 64.
size_t subbyte_depthwise_scratch(const subbyte_header *header, const subbyte_image *image);

// Tiles [first, last) of the output; `memory` is where it works.
void subbyte_compute_depthwise(const subbyte_prepared *layer, const subbyte_image *image, int32_t first, int32_t last,
                               int8_t *output, int8_t *memory);

#endif
