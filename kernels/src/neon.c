// Arm with NEON and no dot product, 64-bit and 32-bit: products are added up in 16 bits for as long as they fit.
#include "finish.h"

#if defined(SUBBYTE_NEON)

#include <arm_neon.h>

#define FUNCTION static
#define INLINE static inline __attribute__((always_inline))
// gcc unrolls these loops only if asked, and keeps an array in registers only if its loops are unrolled.
#define UNROLL _Pragma("GCC unroll 16")

// Part of 64-bit Arm; on 32-bit Arm the compiler was told that it is there, and uses it anywhere.
static int runs_neon(void) {
  return 1;
}

#if defined(__aarch64__)
enum { VECTORS = 4, ROWS = 4 }; // of 32 registers these take 16
#else
enum { VECTORS = 2, ROWS = 2 }; // of 16 registers 8
#endif

// Byte 4 * c + i of the factors goes to a lane of its own: channels 0 and 1 to the first of each two registers.
typedef struct sums {
  int16x8_t products[2];
  int32x4_t pairs[2];
} sums;

INLINE void clear(sums *sums) {
  UNROLL
  for (int half = 0; half < 2; ++half) {
    sums->products[half] = vdupq_n_s16(0);
    sums->pairs[half] = vdupq_n_s32(0);
  }
}

// Adds the products to sums of 32 bits.
INLINE void widen(sums *sums) {
  UNROLL
  for (int half = 0; half < 2; ++half) {
    sums->pairs[half] = vpadalq_s16(sums->pairs[half], sums->products[half]);
    sums->products[half] = vdupq_n_s16(0);
  }
}

// How many products fit in 16 bits: inputs reach 128. 255 of 1 bit, 85 of 2, 36 of 3, 17 of 4, 8 of 5, 4 of 6, 2 of 7,
// 1 of 8.
INLINE int products_until_widen(int largest_factor) {
  return INT16_MAX / (128 * largest_factor);
}

INLINE int32_t strides_until_widen(int largest_factor) {
  const int products = products_until_widen(largest_factor);
  return products < 8 ? 1 : products / 8;
}

INLINE void multiply(sums *sums, int8x16_t factors, const int8_t *x, int quad, int largest_factor) {
  int32_t lanes;
  __builtin_memcpy(&lanes, x + 4 * quad, sizeof lanes); // on bare metal memcpy() alone may be a call
  int8x16_t inputs = vreinterpretq_s8_s32(vdupq_n_s32(lanes));
  __asm__("" : "+w"(inputs)); // else clang loads half of it, and moves the upper half of every vector of weights down
  sums->products[0] = vmlal_s8(sums->products[0], vget_low_s8(factors), vget_low_s8(inputs));
  sums->products[1] = vmlal_s8(sums->products[1], vget_high_s8(factors), vget_high_s8(inputs));
  const int products = products_until_widen(largest_factor);
  if (products < 8 && (quad + 1) % products == 0) {
    widen(sums);
  }
}

// Of 4 channels.
INLINE int32x4_t total(const sums *sums) {
  const int32x4_t *pairs = sums->pairs;
  return vcombine_s32(vpadd_s32(vget_low_s32(pairs[0]), vget_high_s32(pairs[0])),
                      vpadd_s32(vget_low_s32(pairs[1]), vget_high_s32(pairs[1])));
}

#if defined(__aarch64__)
#define WHOLE_PANELS
#include "neon_dense.h"
#endif
#include "neon.h"
#include "neon_finish.h"

#if defined(__aarch64__)
#include "neon_widening.h"
#endif

FUNCTION int32_t input_sum(const int8_t *x, int32_t features) {
  int32x4_t sums = vdupq_n_s32(0);
  int32_t k = 0;
  for (; k + 16 <= features; k += 16) {
    sums = vpadalq_s16(sums, vpaddlq_s8(vld1q_s8(x + k)));
  }
  int32_t sum = 0;
  for (int lane = 0; lane < 4; ++lane) {
    sum += sums[lane];
  }
  for (; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

const subbyte_isa subbyte_neon = {
    .name = "neon",
    .runs = runs_neon,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
#if defined(__aarch64__)
    .flip_inputs = subbyte_portable_flip_inputs,
    .decode = decode,
    .window_sums = subbyte_portable_window_sums,
    .convolve = convolve,
    .depthwise_sums = subbyte_portable_depthwise_sums,
    .prefers_decoded = 1,
    .has_chunks = 1,
    .has_depthwise_chunks = 1,
#else
    SUBBYTE_PORTABLE_DECODING,
    .depthwise_sums = depthwise_sums,
#endif
    .input_sum = input_sum,
    .split = subbyte_portable_split,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = finish_int8,
               [SUBBYTE_REQUANTIZE_FIXED_POINT] = subbyte_portable_finish_int16},
};

#endif
