// Where pieces of memory lie that are not all needed at once.
#ifndef SUBBYTE_BLOCKS_H
#define SUBBYTE_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

typedef struct subbyte_block {
  size_t bytes;        // 0: needs no place
  int32_t first, last; // steps between which it is in use, both included
  size_t offset;       // set by subbyte_place_blocks()
} subbyte_block;

// Gives each block an offset, a multiple of 64, so that blocks in use at the same step do not overlap: the largest
// first, each at the lowest place that is free for as long as it is needed. Returns how many bytes hold them all.
size_t subbyte_place_blocks(subbyte_block *blocks, int32_t count);

#endif
