// Convolutions for 64-bit Arm: the channels of a decoded panel meet several windows at once, and their sums are rounded
// where they are. A variant defines before it includes this
//
//   MOST_WINDOWS    at once
//   add_windows()   the sums of some windows
//
// and behind it its functions for WINDOWS() and find_way(), which chooses among them.
#ifndef SUBBYTE_NEON_CONVOLVE_H
#define SUBBYTE_NEON_CONVOLVE_H

#include "neon_depthwise.h"

// Windows from the `position` of a block on, `blocks` times as many as the function takes at once.
typedef void windows_function(const job *job, int32_t position, int32_t blocks);

INLINE void convolve_windows(const job *job, int32_t position, int32_t blocks, int positions, int vectors,
                             int is_wide) {
  const ptrdiff_t step = job->block->epilogue->output_channels;
  int8_t *to = job->to + step * position;
#pragma GCC unroll 1
  for (; blocks > 0; --blocks, position += positions) {
    int32x4_t totals[MOST_WINDOWS][4];
    float32x4_t multipliers[4];
    add_windows(job, job->block->positions + position, positions, vectors, is_wide, totals);
    UNROLL
    for (int v = 0; v < 4; ++v) { // the upper half again where there are 8 channels
      multipliers[v] = vld1q_f32(job->multipliers + 4 * (v % vectors));
    }
    UNROLL
    for (int p = 0; p < positions; ++p) {
      const int32x4_t all[4] = {totals[p][0], totals[p][1], totals[p][2 % vectors], totals[p][3 % vectors]};
      store_codes(round_panel(&job->finisher, all, multipliers), job->channels, to);
      to += step;
    }
  }
}

// A function of its own: that leaves the registers to its loop.
#define WINDOWS(name, positions, vectors, is_wide)                                                                     \
  FUNCTION __attribute__((noinline)) void name##_##positions(const job *job, int32_t position, int32_t blocks) {       \
    convolve_windows(job, position, blocks, positions, vectors, is_wide);                                              \
  }

// Functions for 1, 2, ... `most` windows.
typedef struct way {
  windows_function *const *windows;
  int32_t most;
} way;

static way find_way(const job *job);

FUNCTION void spread_records(const subbyte_block *block, int32_t panel, job *job) {
  uint8_t biases[4 * SUBBYTE_PANEL], multipliers[4 * SUBBYTE_PANEL];
  const subbyte_records first = subbyte_records_from(&block->epilogue->records, block->first + SUBBYTE_PANEL * panel);
  const subbyte_records records = copy_records(&first, (size_t)job->channels, biases, multipliers);
  for (int v = 0; v < 4; ++v) {
    vst1q_s32(job->biases + 4 * v, find_start(&job->finisher, &records, 4 * v));
    vst1q_f32(job->multipliers + 4 * v, load_multipliers(&job->finisher, &records, 4 * v));
  }
}

// All windows of a panel.
FUNCTION void convolve_panel(const job *job) {
  const way way = find_way(job);
  const int32_t count = job->block->count, blocks = count / way.most, rest = count % way.most;
  if (blocks > 0) {
    way.windows[way.most - 1](job, 0, blocks);
  }
  if (rest > 0) {
    way.windows[rest - 1](job, count - rest, 1);
  }
}

FUNCTION void convolve(const subbyte_block *block) {
  job job = {.block = block,
             .weights = block->weights,
             .strip = block->strip,
             .to = block->output,
             .finisher = make_finisher(block->epilogue)};
  for (int32_t panel = 0; SUBBYTE_PANEL * panel < block->channels; ++panel) {
    job.channels = subbyte_smaller(block->channels - SUBBYTE_PANEL * panel, SUBBYTE_PANEL);
    spread_records(block, panel, &job);
    if (block->is_depthwise) {
      convolve_depthwise_panel(&job);
      job.weights += SUBBYTE_PANEL;
      job.strip += SUBBYTE_PANEL;
    } else {
      convolve_panel(&job);
      job.weights += (ptrdiff_t)SUBBYTE_QUAD_BYTES * block->runs * block->quads;
    }
    job.to += SUBBYTE_PANEL;
  }
}

#endif
