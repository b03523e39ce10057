// What the packed kernels are measured against on Arm: dense layers with float32 and with plain int8 weights, written
// with the same care. Panels of 16 output channels, one row of input, all sums in registers.
#include "../kernels/src/finish.h"

#include <arm_neon.h>

#define FUNCTION static
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))

#include "../kernels/src/neon_finish.h"

enum { VECTORS = 4 }; // of 4 channels

INLINE float32x4_t multiply_add(float32x4_t sum, float32x4_t w, float x) {
#if defined(__aarch64__)
  return vfmaq_n_f32(sum, w, x);
#else
  return vfmaq_f32(sum, w, vdupq_n_f32(x));
#endif
}

// One load for a panel, or four. Which is faster depends on the processor: both are measured, the better one counts.
INLINE void load_float32(const float *w, int vectors, int at_once, float32x4_t weights[VECTORS]) {
#if defined(__aarch64__)
  if (vectors == VECTORS && at_once) {
    const float32x4x4_t all = vld1q_f32_x4(w);
    UNROLL
    for (int v = 0; v < VECTORS; ++v) {
      weights[v] = all.val[v];
    }
    return;
  }
#endif
  (void)at_once;
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    weights[v] = vld1q_f32(w + 4 * v);
  }
}

// Sums of one vector that run side by side.
#if defined(__aarch64__)
enum { SIDES = 4 };
#else
enum { SIDES = 2 };
#endif

// y[n] = max(floor, sum_k w[n, k] * x[k] + bias[n]) for 4 * vectors channels. Sums of several inputs run side by side:
// one alone would wait for itself.
INLINE void multiply_float32(const float *w, const float *bias, const float *x, int32_t features, int vectors,
                             int at_once, float floor, float *y) {
  float32x4_t sums[VECTORS * SIDES], weights[VECTORS];
  UNROLL
  for (int i = 0; i < vectors * SIDES; ++i) {
    sums[i] = i < vectors ? vld1q_f32(bias + 4 * i) : vdupq_n_f32(0);
  }
  int32_t k = 0;
#pragma GCC unroll 1
  for (; k + 4 <= features; k += 4) {
    const float32x4_t inputs = vld1q_f32(x + k);
    UNROLL
    for (int i = 0; i < 4; ++i) {
      load_float32(w, vectors, at_once, weights);
      w += 4 * vectors;
      UNROLL
      for (int v = 0; v < vectors; ++v) {
        float32x4_t *sum = &sums[vectors * (i % SIDES) + v];
        *sum = multiply_add(*sum, weights[v], inputs[i]);
      }
    }
  }
#pragma GCC unroll 1
  for (; k < features; ++k) {
    load_float32(w, vectors, at_once, weights);
    w += 4 * vectors;
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      sums[v] = multiply_add(sums[v], weights[v], x[k]);
    }
  }
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    float32x4_t sum = sums[v];
    UNROLL
    for (int side = 1; side < SIDES; ++side) {
      sum = vaddq_f32(sum, sums[vectors * side + v]);
    }
    vst1q_f32(y + 4 * v, vmaxq_f32(sum, vdupq_n_f32(floor)));
  }
}

INLINE void compute_float32(const float *w, const float *bias, const float *x, int32_t features, int32_t channels,
                            int at_once, float floor, float *y) {
  int32_t c = 0;
  for (; c + 16 <= channels; c += 16) {
    multiply_float32(w + (ptrdiff_t)features * c, bias + c, x, features, 4, at_once, floor, y + c);
  }
  w += (ptrdiff_t)features * c;
  if (channels - c > 8) {
    multiply_float32(w, bias + c, x, features, 4, at_once, floor, y + c);
  } else if (channels - c > 0) {
    multiply_float32(w, bias + c, x, features, 2, at_once, floor, y + c);
  }
}

// w: [K, 16] for each 16 channels, the last ones as a panel of 8 if they are at most 8. bias and y: as many channels.
void float32_layer(const float *w, const float *bias, const float *x, int32_t features, int32_t channels, float *y,
                   int is_last) {
  compute_float32(w, bias, x, features, channels, 0, is_last ? -3e38f : 0, y);
}

void float32_layer_at_once(const float *w, const float *bias, const float *x, int32_t features, int32_t channels,
                           float *y, int is_last) {
  compute_float32(w, bias, x, features, channels, 1, is_last ? -3e38f : 0, y);
}

// Layers of 8 bits whose codes were replaced by the weights, -127 to 127. `x` has 16 zeros behind it.

INLINE int8x16_t load_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

// Sums of 4 * vectors channels. Two products of 127 * 128 fit in 16 bits.
INLINE void multiply_int8(const uint8_t *blocks, size_t block_bytes, const int8_t *x, int32_t features, int vectors,
                          int32_t *to) {
  int32x4_t pairs[VECTORS][2];
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    pairs[v][0] = pairs[v][1] = vdupq_n_s32(0);
  }
  int32_t k = 0;
#pragma GCC unroll 2
  for (; k + 4 < features; k += 8) {
    const int8x16_t x0 = load_quad(x + k), x1 = load_quad(x + k + 4);
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      const int8x16_t w0 = vreinterpretq_s8_u8(vld1q_u8(blocks + 16 * v));
      const int8x16_t w1 = vreinterpretq_s8_u8(vld1q_u8(blocks + block_bytes + 16 * v));
      const int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0));
      const int16x8_t high = vmull_s8(vget_high_s8(w0), vget_high_s8(x0));
      pairs[v][0] = vpadalq_s16(pairs[v][0], vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1)));
      pairs[v][1] = vpadalq_s16(pairs[v][1], vmlal_s8(high, vget_high_s8(w1), vget_high_s8(x1)));
    }
    blocks += 2 * block_bytes;
  }
  if (k < features) {
    const int8x16_t x0 = load_quad(x + k);
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      const int8x16_t w0 = vreinterpretq_s8_u8(vld1q_u8(blocks + 16 * v));
      pairs[v][0] = vpadalq_s16(pairs[v][0], vmull_s8(vget_low_s8(w0), vget_low_s8(x0)));
      pairs[v][1] = vpadalq_s16(pairs[v][1], vmull_s8(vget_high_s8(w0), vget_high_s8(x0)));
    }
  }
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    vst1q_s32(to + 4 * v, vcombine_s32(vpadd_s32(vget_low_s32(pairs[v][0]), vget_high_s32(pairs[v][0])),
                                       vpadd_s32(vget_low_s32(pairs[v][1]), vget_high_s32(pairs[v][1]))));
  }
}

#if defined(__aarch64__)
#define DOTPROD static inline __attribute__((target("arch=armv8.2-a+dotprod"), always_inline))

DOTPROD void multiply_int8_dotprod(const uint8_t *blocks, size_t block_bytes, const int8_t *x, int32_t features,
                                   int vectors, int32_t *to) {
  int32x4_t sums[VECTORS];
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    sums[v] = vdupq_n_s32(0);
  }
  int32_t k = 0;
#pragma GCC unroll 2
  for (; k + 16 <= features; k += 16) {
    const int8x16_t inputs = vld1q_s8(x + k);
#define QUAD(quad)                                                                                                     \
  UNROLL                                                                                                               \
  for (int v = 0; v < vectors; ++v) {                                                                                  \
    sums[v] = vdotq_laneq_s32(sums[v], vreinterpretq_s8_u8(vld1q_u8(blocks + 16 * v)), inputs, quad);                  \
  }                                                                                                                    \
  blocks += block_bytes;
    QUAD(0)
    QUAD(1)
    QUAD(2)
    QUAD(3)
#undef QUAD
  }
#pragma GCC unroll 1
  for (; k < features; k += 4) {
    const int8x16_t inputs = load_quad(x + k);
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      sums[v] = vdotq_s32(sums[v], vreinterpretq_s8_u8(vld1q_u8(blocks + 16 * v)), inputs);
    }
    blocks += block_bytes;
  }
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    vst1q_s32(to + 4 * v, sums[v]);
  }
}
#endif

// The panels' sums, a tile at a time, and what the packed kernels make of theirs.
#define INT8_LAYER(name, multiply)                                                                                     \
  void name(const uint8_t *layer, const int8_t *x, int8_t *y) {                                                        \
    const subbyte_header header = subbyte_load_header(layer);                                                          \
    const int32_t features = header.input_features, channels = header.output_channels;                                 \
    const uint8_t *plane = layer + header.plane_offset[0];                                                             \
    const size_t channel_bytes = 4 * (size_t)subbyte_blocks(features, 8);                                              \
    const subbyte_epilogue epilogue = subbyte_make_epilogue(layer, &header);                                           \
    for (int32_t tile = 0; tile < channels; tile += SUBBYTE_TILE) {                                                    \
      const int32_t count = channels - tile < SUBBYTE_TILE ? channels - tile : SUBBYTE_TILE;                           \
      int32_t sums[SUBBYTE_TILE] = {0};                                                                                \
      for (int32_t c = 0; c < count; c += SUBBYTE_PANEL) {                                                             \
        const uint8_t *blocks = plane + channel_bytes * (size_t)(tile + c);                                            \
        if (count - c >= SUBBYTE_PANEL) {                                                                              \
          multiply(blocks, SUBBYTE_BLOCK_BYTES, x, features, 4, sums + c);                                             \
        } else if (count - c > 8) {                                                                                    \
          multiply(blocks, 4 * (size_t)(count - c), x, features, 4, sums + c);                                         \
        } else {                                                                                                       \
          multiply(blocks, 4 * (size_t)(count - c), x, features, 2, sums + c);                                         \
        }                                                                                                              \
      }                                                                                                                \
      finish_int8(&epilogue, tile, count, 1, NULL, sums, y + tile);                                                    \
    }                                                                                                                  \
  }

INT8_LAYER(int8_layer, multiply_int8)
#if defined(__aarch64__)
__attribute__((target("arch=armv8.2-a+dotprod"))) INT8_LAYER(int8_layer_dotprod, multiply_int8_dotprod)
#endif

    // The C library starts it; the emulator calls the functions themselves.
    int main(void) {
  return 0;
}
