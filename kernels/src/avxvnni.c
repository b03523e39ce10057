// x86 with AVX-VNNI but without AVX-512: half a block, 8 channels by 4 inputs, is one register.
#include "x86.h"

#if defined(SUBBYTE_AVXVNNI)

#if defined(SUBBYTE_AVXVNNI_IN_AVX512) // to test it on a processor that has the same operation in AVX-512 only
#define TARGET __attribute__((target("avx2,avx512vl,avx512vnni")))
#define DPBUSD _mm256_dpbusd_epi32
#else
#define TARGET __attribute__((target("avx2,avxvnni")))
#define DPBUSD _mm256_dpbusd_avx_epi32
#endif
#define OPERATION static inline __attribute__((always_inline)) TARGET

typedef __m256i vector;
// Parts of a panel; what is computed at once, as the 16 registers have room.
enum { PARTS = 2, MOST_VECTORS = 4, MOST_SUMS = 8 };
#define WIDE_WINDOWS 0

OPERATION vector load(const uint8_t *from) {
  return _mm256_loadu_si256((const __m256i *)(const void *)from);
}

OPERATION void store(int32_t *to, vector sums) {
  _mm256_storeu_si256((__m256i *)(void *)to, sums);
}

OPERATION vector repeat(__m128i bytes) {
  return _mm256_broadcastsi128_si256(bytes);
}

OPERATION vector set_bytes(int value) {
  return _mm256_set1_epi8((char)value);
}

OPERATION vector set_sums(int32_t value) {
  return _mm256_set1_epi32(value);
}

OPERATION vector add(vector a, vector b) {
  return _mm256_add_epi32(a, b);
}

OPERATION vector add_bytes(vector a, vector b) {
  return _mm256_add_epi8(a, b);
}

OPERATION vector negate(vector a) {
  return _mm256_sub_epi32(_mm256_setzero_si256(), a);
}

// a + 128 in unsigned bytes
OPERATION vector flip(vector a) {
  return _mm256_xor_si256(a, set_bytes(-128));
}

OPERATION vector and(vector a, vector b) {
  return _mm256_and_si256(a, b);
}

OPERATION vector or(vector a, vector b) {
  return _mm256_or_si256(a, b);
}

// Bits that cross into the next byte are the caller's to mask.
OPERATION vector shift_bytes_left(vector a, int bits) {
  return _mm256_slli_epi16(a, bits);
}

OPERATION vector shift_bytes_right(vector a, int bits) {
  return _mm256_srli_epi16(a, bits);
}

OPERATION vector shift_sums_left(vector a, int bits) {
  return _mm256_slli_epi32(a, bits);
}

OPERATION vector shift_sums_right(vector a, int bits) {
  return _mm256_srai_epi32(a, bits);
}

OPERATION vector shuffle(vector sixteens, vector indices) {
  return _mm256_shuffle_epi8(sixteens, indices);
}

// a | value where the bytes of b and c are equal
OPERATION vector or_if_equal(vector a, vector b, vector c, vector value) {
  return _mm256_or_si256(a, _mm256_and_si256(_mm256_cmpeq_epi8(b, c), value));
}

OPERATION vector add_products(vector sums, vector digits, vector inputs) {
  return DPBUSD(sums, digits, inputs);
}

OPERATION vector zip_low_bytes(vector a, vector b) {
  return _mm256_unpacklo_epi8(a, b);
}

OPERATION vector zip_high_bytes(vector a, vector b) {
  return _mm256_unpackhi_epi8(a, b);
}

OPERATION vector zip_low_pairs(vector a, vector b) {
  return _mm256_unpacklo_epi16(a, b);
}

OPERATION vector zip_high_pairs(vector a, vector b) {
  return _mm256_unpackhi_epi16(a, b);
}

// The first halves of all four, then the second ones.
OPERATION void transpose(const vector from[4], vector to[4]) {
  to[0] = _mm256_permute2x128_si256(from[0], from[1], 0x20);
  to[1] = _mm256_permute2x128_si256(from[2], from[3], 0x20);
  to[2] = _mm256_permute2x128_si256(from[0], from[1], 0x31);
  to[3] = _mm256_permute2x128_si256(from[2], from[3], 0x31);
}

#include "vnni_decoded.h"

static int runs(void) {
#if defined(SUBBYTE_AVXVNNI_IN_AVX512)
  return subbyte_has(bit_AVX2 | bit_AVX512VL, bit_AVX512VNNI, SUBBYTE_ZMM);
#else
  unsigned eax, ebx, ecx, edx;
  const unsigned avx_vnni = 1u << 4;
  return subbyte_has(bit_AVX2, 0, SUBBYTE_YMM) && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & avx_vnni);
#endif
}

TARGET static void flip_inputs(const int8_t *from, size_t bytes, int8_t *to) {
  for (; bytes >= 32; bytes -= 32, from += 32, to += 32) {
    _mm256_storeu_si256((__m256i *)(void *)to, flip(load((const uint8_t *)from)));
  }
  for (size_t i = 0; i < bytes; ++i) {
    to[i] = from[i] ^ -128;
  }
}

TARGET static int32_t input_sum(const int8_t *x, int32_t features) {
  __m256i sums = _mm256_setzero_si256();
  int32_t k = 0;
  for (; k + 32 <= features; k += 32) {
    sums = add_products(sums, set_bytes(1), load((const uint8_t *)x + k));
  }
  int32_t lanes[LANES], sum = 0;
  store(lanes, sums);
  for (int i = 0; i < LANES; ++i) {
    sum += lanes[i];
  }
  for (; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

TARGET static void finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                               const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int8(epilogue, first, channels, rows, input_sums, sums, output);
}

TARGET static void finish_int16(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                                const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int16(epilogue, first, channels, rows, input_sums, sums, output);
}

const subbyte_isa subbyte_avxvnni = {
    .name = "avxvnni",
    .runs = runs,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    .window_sums = window_sums,
    .convolve = subbyte_portable_convolve,
    .depthwise_sums = depthwise_sums,
    .decode = decode,
    .flip = 128,
    .prefers_decoded = 1,
    .flip_inputs = flip_inputs,
    .input_sum = input_sum,
    .split = subbyte_portable_split,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = finish_int8, [SUBBYTE_REQUANTIZE_FIXED_POINT] = finish_int16},
};

#endif
