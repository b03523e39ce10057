// A fully connected layer, shared out among threads.
#ifndef SUBBYTE_PARALLEL_H
#define SUBBYTE_PARALLEL_H

#include "../include/subbyte.h"
#include "threads.h"

// How one layer is computed for one number of rows.
typedef struct subbyte_plan {
  const void *layer;
  int32_t rows, features, channels;
  int32_t threads; // that it is worth; 1 for a small layer
  int32_t parts;   // of channels or of rows
  int is_cut_by_rows;
} subbyte_plan;

// layer: passed subbyte_check(), and stays where it is. threads: at most so many.
subbyte_plan subbyte_plan_layer(const void *layer, int32_t rows, int32_t threads);

// As subbyte_fully_connected(), by the threads of `pool`.
void subbyte_run_plan(const subbyte_plan *plan, const int8_t *input, int8_t *output, const subbyte_isa *isa,
                      subbyte_pool *pool);

#endif
