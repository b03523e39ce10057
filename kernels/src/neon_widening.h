// Windows of a convolution on 64-bit Arm without dot product. Products are added up in 16 bits for a chunk of quads,
// which the weights themselves limit, or where that is short, by twos.
#ifndef SUBBYTE_NEON_WIDENING_H
#define SUBBYTE_NEON_WIDENING_H

#include "neon_decode.h"

enum {
  MOST_WINDOWS = 6,
};

// The quads of some windows: each lane takes one product of each.
INLINE void add_products(const int8_t *weights, const int8_t *x[MOST_WINDOWS], int positions, int vectors,
                         int16x8_t products[MOST_WINDOWS][8]) {
  int8x16_t factors[4];
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    factors[v] = vld1q_s8(weights + 16 * v);
  }
  UNROLL
  for (int p = 0; p < positions; ++p) {
    int8x16_t quad = load_quad(x[p]);
    __asm__("" : "+w"(quad)); // else clang loads half of it, and moves the upper half of every vector of weights down
    x[p] += 4;
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      products[p][2 * v] = vmlal_s8(products[p][2 * v], vget_low_s8(factors[v]), vget_low_s8(quad));
      products[p][2 * v + 1] = vmlal_high_s8(products[p][2 * v + 1], factors[v], quad);
    }
  }
}

INLINE void add_quads(const int8_t **weights, const int8_t *x[MOST_WINDOWS], int32_t quads, int positions, int vectors,
                      int16x8_t products[MOST_WINDOWS][8]) {
#pragma GCC unroll 1
  for (; quads >= 4; quads -= 4) {
    UNROLL
    for (int quad = 0; quad < 4; ++quad) {
      add_products(*weights + SUBBYTE_QUAD_BYTES * quad, x, positions, vectors, products);
    }
    *weights += 4 * SUBBYTE_QUAD_BYTES;
  }
#pragma GCC unroll 1
  for (; quads > 0; --quads) {
    add_products(*weights, x, positions, vectors, products);
    *weights += SUBBYTE_QUAD_BYTES;
  }
}

// Adds the lanes of each of 4 channels.
INLINE int32x4_t add_lanes(const int16x8_t products[2]) {
  return vpaddq_s32(vpaddlq_s16(products[0]), vpaddlq_s16(products[1]));
}

INLINE void clear_products(int positions, int vectors, int16x8_t products[MOST_WINDOWS][8]) {
  UNROLL
  for (int p = 0; p < positions; ++p) {
    UNROLL
    for (int i = 0; i < 2 * vectors; ++i) {
      products[p][i] = vdupq_n_s16(0);
    }
  }
}

// Sums that start at the biases are kept in memory: registers hold the products. `step` is from a window to the next.
INLINE void add_chunk(const int32_t *start, ptrdiff_t step, int positions, int vectors,
                      const int16x8_t products[MOST_WINDOWS][8], int32x4_t totals[MOST_WINDOWS][4]) {
  UNROLL
  for (int p = 0; p < positions; ++p) {
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      totals[p][v] = vaddq_s32(vld1q_s32(start + step * p + 4 * v), add_lanes(products[p] + 2 * v));
    }
  }
}

INLINE void add_by_chunks(const job *job, const int32_t *at, int positions, int vectors,
                          int32x4_t totals[MOST_WINDOWS][4]) {
  const subbyte_block *block = job->block;
  const int8_t *weights = job->weights, *x[MOST_WINDOWS];
  const int32_t *start = job->biases;
  int32_t kept[MOST_WINDOWS * SUBBYTE_PANEL];
  int16x8_t products[MOST_WINDOWS][8];
  ptrdiff_t step = 0;
  int32_t room = block->chunk;
  clear_products(positions, vectors, products);
#pragma GCC unroll 1
  for (int32_t run = 0; run < block->runs; ++run) {
    const int8_t *strip = block->strip + block->offsets[run];
    UNROLL
    for (int p = 0; p < positions; ++p) {
      x[p] = strip + at[p];
      __asm__("" : "+r"(x[p])); // a pointer of its own, that a load moves on
    }
#pragma GCC unroll 1
    for (int32_t rest = block->quads, some; rest > 0; rest -= some) {
      if (room == 0) {
        add_chunk(start, step, positions, vectors, products, totals);
        UNROLL
        for (int i = 0; i < positions * vectors; ++i) {
          vst1q_s32(kept + SUBBYTE_PANEL * (i / vectors) + 4 * (i % vectors), totals[i / vectors][i % vectors]);
        }
        __asm__("" : : "r"(kept) : "memory");
        clear_products(positions, vectors, products);
        start = kept;
        step = SUBBYTE_PANEL;
        room = block->chunk;
      }
      some = subbyte_smaller(rest, room);
      room -= some;
      add_quads(&weights, x, some, positions, vectors, products);
    }
  }
  add_chunk(start, step, positions, vectors, products, totals);
}

// Two quads of which 16 bits hold a product each, or one quad; 16 channels.
INLINE void add_pairs(const int8_t *weights, const int8_t *const x[MOST_WINDOWS], int quads, int positions,
                      int32x4_t pairs[MOST_WINDOWS][8]) {
  UNROLL
  for (int p = 0; p < positions; ++p) {
    int8x16_t first = load_quad(x[p]), second = load_quad(x[p] + 4 * (quads - 1));
    __asm__("" : "+w"(first), "+w"(second));
    UNROLL
    for (int v = 0; v < 4; ++v) {
      const int8x16_t factors = vld1q_s8(weights + 16 * v), others = vld1q_s8(weights + SUBBYTE_QUAD_BYTES + 16 * v);
      int16x8_t low = vmull_s8(vget_low_s8(factors), vget_low_s8(first)), high = vmull_high_s8(factors, first);
      if (quads == 2) {
        low = vmlal_s8(low, vget_low_s8(others), vget_low_s8(second));
        high = vmlal_high_s8(high, others, second);
      }
      pairs[p][2 * v] = vpadalq_s16(pairs[p][2 * v], low);
      pairs[p][2 * v + 1] = vpadalq_s16(pairs[p][2 * v + 1], high);
    }
  }
}

INLINE void add_by_twos(const job *job, const int32_t *at, int positions, int32x4_t totals[MOST_WINDOWS][4]) {
  const subbyte_block *block = job->block;
  const int8_t *weights = job->weights, *x[MOST_WINDOWS];
  int32x4_t pairs[MOST_WINDOWS][8];
  UNROLL
  for (int i = 0; i < 8 * positions; ++i) {
    pairs[i / 8][i % 8] = vdupq_n_s32(0);
  }
#pragma GCC unroll 1
  for (int32_t run = 0; run < block->runs; ++run) {
    const int8_t *strip = block->strip + block->offsets[run];
    int32_t rest = block->quads;
#pragma GCC unroll 1
    for (int32_t quads; rest > 0; rest -= quads, strip += 4 * quads, weights += (ptrdiff_t)SUBBYTE_QUAD_BYTES * quads) {
      UNROLL
      for (int p = 0; p < positions; ++p) {
        x[p] = strip + at[p];
      }
      quads = rest > 1 && block->chunk > 1 ? 2 : 1;
      if (quads == 2) {
        add_pairs(weights, x, 2, positions, pairs);
      } else {
        add_pairs(weights, x, 1, positions, pairs);
      }
    }
  }
  UNROLL
  for (int i = 0; i < 4 * positions; ++i) {
    const int32x4_t *two = &pairs[i / 4][2 * (i % 4)];
    totals[i / 4][i % 4] = vaddq_s32(vld1q_s32(job->biases + 4 * (i % 4)), vpaddq_s32(two[0], two[1]));
  }
}

INLINE void add_windows(const job *job, const int32_t *at, int positions, int vectors, int is_wide,
                        int32x4_t totals[MOST_WINDOWS][4]) {
  if (is_wide) {
    add_by_twos(job, at, positions, totals);
  } else {
    add_by_chunks(job, at, positions, vectors, totals);
  }
}

#include "neon_convolve.h"

WINDOWS(whole, 1, 4, 0)
WINDOWS(whole, 2, 4, 0)
WINDOWS(whole, 3, 4, 0)
WINDOWS(half, 1, 2, 0)
WINDOWS(half, 2, 2, 0)
WINDOWS(half, 3, 2, 0)
WINDOWS(half, 4, 2, 0)
WINDOWS(half, 5, 2, 0)
WINDOWS(half, 6, 2, 0)
WINDOWS(wide, 1, 4, 1)
WINDOWS(wide, 2, 4, 1)

static way find_way(const job *job) {
  static windows_function *const whole[] = {whole_1, whole_2, whole_3}, *const wide[] = {wide_1, wide_2};
  static windows_function *const half[] = {half_1, half_2, half_3, half_4, half_5, half_6};
  if (job->block->chunk < SUBBYTE_SHORT_CHUNK && job->block->chunk < job->block->runs * job->block->quads) {
    return (way){wide, 2};
  }
  return job->channels <= SUBBYTE_PANEL / 2 ? (way){half, 6} : (way){whole, 3};
}

#endif
