#include "blocks.h"

enum { ALIGNMENT = 64 }; // of the runtime's own tensors

static const size_t NOWHERE = SIZE_MAX;

static size_t align(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

// The largest block that has no place yet, or NULL.
static subbyte_block *find_largest(subbyte_block *blocks, int32_t count) {
  subbyte_block *largest = NULL;
  for (subbyte_block *block = blocks; block < blocks + count; ++block) {
    if (block->bytes > 0 && block->offset == NOWHERE && (largest == NULL || block->bytes > largest->bytes)) {
      largest = block;
    }
  }
  return largest;
}

// A block that is in the way of `block` at `offset`, or NULL.
static const subbyte_block *find_obstacle(const subbyte_block *blocks, int32_t count, const subbyte_block *block,
                                          size_t offset) {
  for (const subbyte_block *other = blocks; other < blocks + count; ++other) {
    const int is_placed = other->bytes > 0 && other->offset != NOWHERE;
    const int in_use_at_once = other->first <= block->last && block->first <= other->last;
    if (is_placed && in_use_at_once && other->offset < offset + block->bytes && offset < other->offset + other->bytes) {
      return other;
    }
  }
  return NULL;
}

size_t subbyte_place_blocks(subbyte_block *blocks, int32_t count) {
  size_t total = 0;
  for (int32_t i = 0; i < count; ++i) {
    blocks[i].offset = blocks[i].bytes > 0 ? NOWHERE : 0;
  }
  for (subbyte_block *block; (block = find_largest(blocks, count)) != NULL;) {
    size_t offset = 0;
    for (const subbyte_block *other; (other = find_obstacle(blocks, count, block, offset)) != NULL;) {
      offset = align(other->offset + other->bytes);
    }
    block->offset = offset;
    total = offset + block->bytes > total ? offset + block->bytes : total;
  }
  return total;
}
