// How many products of a convolution's weights fit in 16 bits.
#ifndef SUBBYTE_CHUNK_H
#define SUBBYTE_CHUNK_H

#include "prepared.h"

// Quads of a chunk that holds whatever the codes are, wherever it starts: evened out, so that the fewest chunks are
// about as long as each other. At least 1.
int32_t subbyte_safe_chunk(const subbyte_prepared *layer);

// Quads of a chunk by the weights themselves, which are decoded some times for it: chunks stand one behind the other
// from the first quad on. Below 4 quads it is the safe one, so that any quads in succession fit.
int32_t subbyte_find_chunk(const subbyte_prepared *layer);

#endif
