// 64-bit Arm with the dot product of Armv8.2: 4 inputs meet 4 channels in one instruction.
#include "finish.h"

#if defined(SUBBYTE_ARM64)

#include <arm_neon.h>

#define FUNCTION __attribute__((target("arch=armv8.2-a+dotprod"))) static
#define INLINE static inline __attribute__((target("arch=armv8.2-a+dotprod"), always_inline))
// gcc unrolls these loops only if asked, and keeps an array in registers only if its loops are unrolled.
#define UNROLL _Pragma("GCC unroll 16")

#if defined(__linux__) && __STDC_HOSTED__
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <processthreadsapi.h>
#endif

// Bare metal has nobody to ask: it is as the compiler was told.
static int runs_neon_dotprod(void) {
#if defined(__ARM_FEATURE_DOTPROD)
  return 1;
#elif defined(__linux__) && __STDC_HOSTED__
  return (getauxval(AT_HWCAP) & 1ul << 20) != 0; // HWCAP_ASIMDDP, a name that older headers lack
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#elif defined(_WIN32)
  return IsProcessorFeaturePresent(43); // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE, likewise
#else
  return 0;
#endif
}

enum { VECTORS = 4, ROWS = 4 };

typedef struct sums {
  int32x4_t total;
} sums;

INLINE void clear(sums *sums) {
  sums->total = vdupq_n_s32(0);
}

// 16 inputs lie in a register; an instruction takes the 4 of one lane, whose number must be a constant.
INLINE void multiply(sums *sums, int8x16_t factors, const int8_t *x, int quad, int largest_factor) {
  (void)largest_factor;
  const int8x16_t inputs = vld1q_s8(x + 16 * (quad / 4));
  switch (quad % 4) {
  case 0:
    sums->total = vdotq_laneq_s32(sums->total, factors, inputs, 0);
    break;
  case 1:
    sums->total = vdotq_laneq_s32(sums->total, factors, inputs, 1);
    break;
  case 2:
    sums->total = vdotq_laneq_s32(sums->total, factors, inputs, 2);
    break;
  default:
    sums->total = vdotq_laneq_s32(sums->total, factors, inputs, 3);
    break;
  }
}

INLINE void widen(sums *sums) {
  (void)sums;
}

INLINE int32x4_t total(const sums *sums) {
  return sums->total;
}

INLINE int32_t strides_until_widen(int largest_factor) {
  (void)largest_factor;
  return SUBBYTE_MAX_FEATURES;
}

#include "neon.h"
#include "neon_finish.h"

#include "neon_decode.h"

enum { MOST_WINDOWS = 8 };

// 4 inputs of each window, in a lane of `x`, meet 4 or 8 or 16 channels.
INLINE void add_quad(const int8_t *weights, const int8x16_t x[MOST_WINDOWS], int lane, int positions, int vectors,
                     int32x4_t totals[MOST_WINDOWS][4]) {
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    const int8x16_t factors = vld1q_s8(weights + 16 * v);
    UNROLL
    for (int p = 0; p < positions; ++p) {
      totals[p][v] = lane == 0   ? vdotq_laneq_s32(totals[p][v], factors, x[p], 0)
                     : lane == 1 ? vdotq_laneq_s32(totals[p][v], factors, x[p], 1)
                     : lane == 2 ? vdotq_laneq_s32(totals[p][v], factors, x[p], 2)
                                 : vdotq_laneq_s32(totals[p][v], factors, x[p], 3);
    }
  }
}

INLINE void start_totals(const job *job, int positions, int vectors, int32x4_t totals[MOST_WINDOWS][4]) {
  UNROLL
  for (int p = 0; p < positions; ++p) {
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      totals[p][v] = vld1q_s32(job->biases + 4 * v);
    }
  }
}

INLINE void add_windows(const job *job, const int32_t *at, int positions, int vectors, int is_wide,
                        int32x4_t totals[MOST_WINDOWS][4]) {
  (void)is_wide;
  const subbyte_block *block = job->block;
  const int8_t *weights = job->weights, *from[MOST_WINDOWS];
  int8x16_t x[MOST_WINDOWS];
  start_totals(job, positions, vectors, totals);
#pragma GCC unroll 1
  for (int32_t run = 0; run < block->runs; ++run) {
    const int8_t *strip = block->strip + block->offsets[run];
    UNROLL
    for (int p = 0; p < positions; ++p) {
      from[p] = strip + at[p];
    }
    int32_t rest = block->quads;
#pragma GCC unroll 1
    for (; rest >= 4; rest -= 4) {
      UNROLL
      for (int p = 0; p < positions; ++p) {
        x[p] = vld1q_s8(from[p]);
        from[p] += 16;
      }
      UNROLL
      for (int quad = 0; quad < 4; ++quad) {
        add_quad(weights + SUBBYTE_QUAD_BYTES * quad, x, quad, positions, vectors, totals);
      }
      weights += 4 * SUBBYTE_QUAD_BYTES;
    }
#pragma GCC unroll 1
    for (; rest > 0; --rest) {
      UNROLL
      for (int p = 0; p < positions; ++p) {
        x[p] = load_quad(from[p]);
        from[p] += 4;
      }
      add_quad(weights, x, 0, positions, vectors, totals);
      weights += SUBBYTE_QUAD_BYTES;
    }
  }
}

#include "neon_convolve.h"

WINDOWS(whole, 1, 4, 0)
WINDOWS(whole, 2, 4, 0)
WINDOWS(whole, 3, 4, 0)
WINDOWS(whole, 4, 4, 0)
WINDOWS(whole, 5, 4, 0)
WINDOWS(whole, 6, 4, 0)
WINDOWS(half, 1, 2, 0)
WINDOWS(half, 2, 2, 0)
WINDOWS(half, 3, 2, 0)
WINDOWS(half, 4, 2, 0)
WINDOWS(half, 5, 2, 0)
WINDOWS(half, 6, 2, 0)
WINDOWS(half, 7, 2, 0)
WINDOWS(half, 8, 2, 0)

static way find_way(const job *job) {
  static windows_function *const whole[] = {whole_1, whole_2, whole_3, whole_4, whole_5, whole_6};
  static windows_function *const half[] = {half_1, half_2, half_3, half_4, half_5, half_6, half_7, half_8};
  return job->channels <= SUBBYTE_PANEL / 2 ? (way){half, 8} : (way){whole, 6};
}

FUNCTION int32_t input_sum(const int8_t *x, int32_t features) {
  int32x4_t sums = vdupq_n_s32(0);
  int32_t k = 0;
  for (; k + 16 <= features; k += 16) {
    sums = vdotq_s32(sums, vld1q_s8(x + k), vdupq_n_s8(1));
  }
  int32_t sum = vaddvq_s32(sums);
  for (; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

const subbyte_isa subbyte_neon_dotprod = {
    .name = "neon_dotprod",
    .runs = runs_neon_dotprod,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    .flip_inputs = subbyte_portable_flip_inputs,
    .decode = decode,
    .window_sums = subbyte_portable_window_sums,
    .convolve = convolve,
    .depthwise_sums = subbyte_portable_depthwise_sums,
    .prefers_decoded = 1,
    .has_depthwise_chunks = 1,
    .input_sum = input_sum,
    .split = subbyte_portable_split,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = finish_int8,
               [SUBBYTE_REQUANTIZE_FIXED_POINT] = subbyte_portable_finish_int16},
};

#endif
