// A layer, shared out among threads.
#ifndef SUBBYTE_PARALLEL_H
#define SUBBYTE_PARALLEL_H

#include "../include/subbyte_op.h"
#include "threads.h"

// How one layer is computed for one size of its input.
typedef struct subbyte_plan {
  subbyte_op op;
  int32_t threads;      // that it is worth; 1 for a small layer
  int32_t parts;        // as the op table cuts it; each has scratch memory of its own
  size_t scratch_bytes; // that all of them need
} subbyte_plan;

// op: of a layer that passed subbyte_check() and stays where it is. threads: at most so many.
subbyte_plan subbyte_plan_op(const subbyte_op *op, int32_t threads);

// Runs each op as subbyte_run_op() does, by the threads of `pool`.
void subbyte_run_plan(const subbyte_plan *plan, const void *input, void *output, void *scratch, subbyte_pool *pool);

#endif
