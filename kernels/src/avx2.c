// x86 with AVX2: 32 bytes, 8 channels, in one instruction.
#include "isa.h"

#if defined(SUBBYTE_AVX2)

#include <cpuid.h>
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((target("avx2"), always_inline))

// Not __builtin_cpu_supports: it needs a C library that not every linker brings.
static int runs_avx2(void) {
  unsigned eax, ebx, ecx, edx, state, high;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || !(ecx & bit_AVX)) {
    return 0;
  }
  __asm__("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
  const unsigned sse_and_avx = 6; // the operating system saves both
  return (state & sse_and_avx) == sse_and_avx && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & bit_AVX2);
}

// 16 channels, 8 in each half, 4 bytes or 2 pairs a channel.
typedef struct block {
  __m256i half[2];
} block;

AVX2_INLINE block load_block(const uint8_t *bytes) {
  const __m256i *halves = (const __m256i *)(const void *)bytes;
  return (block){{_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)}};
}

// Adds the digits (byte >> shift) & mask of a block, times the quad of inputs that they meet, to 16-bit sums of pairs.
//
// 16 bits hold it: in a stride 8 quads meet a pair, with digits up to 15: 8 * 2 * 15 * 128 < 2^15.
AVX2_INLINE void multiply_quad(const block *codes, int shift, int mask, const int8_t *x, block *pairs) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  const __m256i inputs = _mm256_set1_epi32(quad), masks = _mm256_set1_epi8((char)mask);
  for (int i = 0; i < 2; ++i) {
    const __m256i digits = _mm256_and_si256(_mm256_srli_epi16(codes->half[i], shift), masks);
    pairs->half[i] = _mm256_add_epi16(pairs->half[i], _mm256_maddubs_epi16(digits, inputs));
  }
}

// Adds pairs, times a scale, to the 32-bit sum of each channel.
AVX2_INLINE void add_pairs(const block *pairs, int16_t scale, block *totals) {
  for (int i = 0; i < 2; ++i) {
    const __m256i sums = _mm256_madd_epi16(pairs->half[i], _mm256_set1_epi16(scale));
    totals->half[i] = _mm256_add_epi32(totals->half[i], sums);
  }
}

AVX2_INLINE void add_totals(const block *totals, int32_t sums[SUBBYTE_PANEL]) {
  for (int i = 0; i < 2; ++i) {
    __m256i *at = (__m256i *)(void *)sums + i;
    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), totals->half[i]));
  }
}

// Some blocks of one stride. Codes of 8 bits go as two digits of 4.
AVX2_INLINE void add_blocks(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t blocks, int width,
                            block *totals) {
  block low = {{_mm256_setzero_si256(), _mm256_setzero_si256()}}, high = low;
  for (int32_t b = 0; b < blocks; ++b) {
    const block codes = load_block(plane + (size_t)b * 4 * (size_t)channels);
    const int8_t *inputs = x + b * (32 / width);
    if (width == 8) {
      multiply_quad(&codes, 0, 15, inputs, &low);
      multiply_quad(&codes, 4, 15, inputs, &high);
    } else {
      for (int field = 0; field < 8; field += width) {
        multiply_quad(&codes, field, (1 << width) - 1, inputs + 4 * field / width, &low);
      }
    }
  }
  add_pairs(&low, 1, totals);
  if (width == 8) {
    add_pairs(&high, 16, totals);
  }
}

AVX2_INLINE void sum_plane(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int width,
                           int32_t sums[SUBBYTE_PANEL]) {
  block totals = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
  const int32_t strides = features / SUBBYTE_STRIDE, rest = features % SUBBYTE_STRIDE;
  for (int32_t i = 0; i < strides; ++i) {
    add_blocks(plane, channels, x, width, width, &totals); // a stride takes as many blocks as a code has bits
    plane += (size_t)width * 4 * (size_t)channels;
    x += SUBBYTE_STRIDE;
  }
  if (rest > 0) {
    add_blocks(plane, channels, x, (int32_t)subbyte_blocks(rest, width), width, &totals);
  }
  add_totals(&totals, sums);
}

AVX2 static void sum_plane_8(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 8, sums);
}

AVX2 static void sum_plane_4(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 4, sums);
}

AVX2 static void sum_plane_2(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 2, sums);
}

AVX2 static void sum_plane_1(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features, int32_t *sums) {
  sum_plane(plane, channels, x, features, 1, sums);
}

const subbyte_isa subbyte_avx2 = {
    .name = "avx2",
    .runs = runs_avx2,
    .plane_sums = {sum_plane_8, sum_plane_4, sum_plane_2, sum_plane_1},
};

#endif
