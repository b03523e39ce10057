// How many products of a convolution's weights fit in 16 bits.
#ifndef SUBBYTE_CHUNK_H
#define SUBBYTE_CHUNK_H

#include "prepared.h"

// Products of a chunk, one of each quad of inputs, or of a depthwise convolution of each tap, that fit whatever the
// codes are, wherever it starts: evened out, so that the fewest chunks are about as long as each other. At least 1.
int32_t subbyte_safe_chunk(const subbyte_prepared *layer);

// The same by the weights themselves, which are decoded a few times for it: chunks stand one behind the other from the
// first product on. Below SUBBYTE_SHORT_CHUNK it is the safe one, so that any in succession fit.
int32_t subbyte_find_chunk(const subbyte_prepared *layer);

#endif
