// An arena: where pieces of memory lie that are not all needed at once.
#ifndef SUBBYTE_ARENA_H
#define SUBBYTE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct subbyte_tenant {
  size_t bytes;        // 0: needs no place
  int32_t first, last; // steps between which it is in use, both included
  size_t offset;       // set by subbyte_plan_arena()
} subbyte_tenant;

// Gives each tenant an offset, a multiple of 64, so that those in use at the same step do not overlap: the largest
// first, each at the lowest place that is free for as long as it is needed. Returns how many bytes hold them all.
size_t subbyte_plan_arena(subbyte_tenant *tenants, int32_t count);

#endif
