// Depthwise convolutions for 64-bit Arm: 16 channels of several windows at once, whose products are added up in 16 bits
// for a chunk of taps, which the weights themselves limit.
#ifndef SUBBYTE_NEON_DEPTHWISE_H
#define SUBBYTE_NEON_DEPTHWISE_H

enum { DEPTHWISE_WINDOWS = 8 };

// Adds the products of so many taps of a panel.
INLINE void add_some_taps(const int8_t *weights, const int32_t *offsets, int32_t taps,
                          const int8_t *const x[DEPTHWISE_WINDOWS], int positions,
                          int16x8_t products[DEPTHWISE_WINDOWS][2]) {
#pragma GCC unroll 1
  for (; taps > 0; --taps, weights += SUBBYTE_DEPTHWISE_TILE, ++offsets) {
    const int8x16_t factors = vld1q_s8(weights);
    UNROLL
    for (int p = 0; p < positions; ++p) {
      const int8x16_t inputs = vld1q_s8(x[p] + *offsets);
      products[p][0] = vmlal_s8(products[p][0], vget_low_s8(factors), vget_low_s8(inputs));
      products[p][1] = vmlal_high_s8(products[p][1], factors, inputs);
    }
  }
}

// Adds products to sums that start at the biases, or at what is kept of earlier chunks: `step` is from a window to the
// next.
INLINE void add_to_sums(const int32_t *start, ptrdiff_t step, const int16x8_t products[2], int p, int32x4_t totals[4]) {
  start += step * p;
  totals[0] = vaddw_s16(vld1q_s32(start), vget_low_s16(products[0]));
  totals[1] = vaddw_high_s16(vld1q_s32(start + 4), products[0]);
  totals[2] = vaddw_s16(vld1q_s32(start + 8), vget_low_s16(products[1]));
  totals[3] = vaddw_high_s16(vld1q_s32(start + 12), products[1]);
}

INLINE void clear_windows(int positions, int16x8_t products[DEPTHWISE_WINDOWS][2]) {
  UNROLL
  for (int i = 0; i < 2 * positions; ++i) {
    products[i / 2][i % 2] = vdupq_n_s16(0);
  }
}

INLINE void convolve_depthwise_windows(const job *job, int32_t position, int positions) {
  const subbyte_block *block = job->block;
  const int8_t *x[DEPTHWISE_WINDOWS], *weights = job->weights;
  const int32_t *offsets = block->offsets, *start = job->biases;
  int32_t kept[DEPTHWISE_WINDOWS * SUBBYTE_PANEL], rest = block->runs;
  int16x8_t products[DEPTHWISE_WINDOWS][2];
  ptrdiff_t step = 0;
  UNROLL
  for (int p = 0; p < positions; ++p) {
    x[p] = job->strip + block->positions[position + p];
  }
  clear_windows(positions, products);
#pragma GCC unroll 1
  for (; rest > block->chunk; rest -= block->chunk) {
    add_some_taps(weights, offsets, block->chunk, x, positions, products);
    weights += (ptrdiff_t)SUBBYTE_DEPTHWISE_TILE * block->chunk;
    offsets += block->chunk;
    UNROLL
    for (int p = 0; p < positions; ++p) {
      int32x4_t totals[4];
      add_to_sums(start, step, products[p], p, totals);
      UNROLL
      for (int v = 0; v < 4; ++v) {
        vst1q_s32(kept + SUBBYTE_PANEL * p + 4 * v, totals[v]);
      }
    }
    clear_windows(positions, products);
    start = kept;
    step = SUBBYTE_PANEL;
  }
  add_some_taps(weights, offsets, rest, x, positions, products);
  float32x4_t multipliers[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    multipliers[v] = vld1q_f32(job->multipliers + 4 * v);
  }
  int8_t *to = job->to + (ptrdiff_t)block->epilogue->output_channels * position;
  UNROLL
  for (int p = 0; p < positions; ++p) {
    int32x4_t totals[4];
    add_to_sums(start, step, products[p], p, totals);
    store_codes(round_panel(&job->finisher, totals, multipliers), job->channels, to);
    to += block->epilogue->output_channels;
  }
}

// All windows of a panel. Those left over of blocks of 8 are computed with the ones before them, again, or one by one.
FUNCTION void convolve_depthwise_panel(const job *job) {
  const int32_t count = job->block->count;
  if (count < DEPTHWISE_WINDOWS) {
    for (int32_t position = 0; position < count; ++position) {
      convolve_depthwise_windows(job, position, 1);
    }
    return;
  }
#pragma GCC unroll 1
  for (int32_t position = 0; position < count; position += DEPTHWISE_WINDOWS) {
    convolve_depthwise_windows(job, subbyte_smaller(position, count - DEPTHWISE_WINDOWS), DEPTHWISE_WINDOWS);
  }
}

#endif
