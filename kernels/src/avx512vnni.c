// x86 with AVX-512 and VNNI: a block, 16 channels by 4 inputs, is one register.
#include "x86.h"

#if defined(SUBBYTE_X86)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define OPERATION static inline __attribute__((always_inline)) TARGET

typedef __m512i vector;
enum { PARTS = 1, MOST_VECTORS = 4, MOST_SUMS = 16 }; // of a panel; at once, as the 32 registers have room

OPERATION vector load(const uint8_t *from) {
  return _mm512_loadu_si512(from);
}

OPERATION void store(int32_t *to, vector sums) {
  _mm512_storeu_si512(to, sums);
}

OPERATION vector repeat(__m128i bytes) {
  return _mm512_broadcast_i32x4(bytes);
}

OPERATION vector set_bytes(int value) {
  return _mm512_set1_epi8((char)value);
}

OPERATION vector set_sums(int32_t value) {
  return _mm512_set1_epi32(value);
}

OPERATION vector add(vector a, vector b) {
  return _mm512_add_epi32(a, b);
}

OPERATION vector and(vector a, vector b) {
  return _mm512_and_si512(a, b);
}

OPERATION vector or(vector a, vector b) {
  return _mm512_or_si512(a, b);
}

// Bits that cross into the next byte are the caller's to mask.
OPERATION vector shift_bytes_left(vector a, int bits) {
  return _mm512_slli_epi16(a, (uint8_t)bits);
}

OPERATION vector shift_bytes_right(vector a, int bits) {
  return _mm512_srli_epi16(a, (uint8_t)bits);
}

OPERATION vector shift_sums_left(vector a, int bits) {
  return _mm512_slli_epi32(a, (uint8_t)bits);
}

OPERATION vector shift_sums_right(vector a, int bits) {
  return _mm512_srai_epi32(a, (uint8_t)bits);
}

OPERATION vector shuffle(vector sixteens, vector indices) {
  return _mm512_shuffle_epi8(sixteens, indices);
}

// a | value where the bytes of b and c are equal
OPERATION vector or_if_equal(vector a, vector b, vector c, vector value) {
  return _mm512_mask_mov_epi8(a, _mm512_cmpeq_epi8_mask(b, c), value);
}

OPERATION vector add_products(vector sums, vector digits, vector inputs) {
  return _mm512_dpbusd_epi32(sums, digits, inputs);
}

#include "vnni.h"

static int runs(void) {
  return subbyte_has(bit_AVX512F | bit_AVX512BW | bit_AVX512VL, bit_AVX512VNNI, SUBBYTE_ZMM);
}

// Four taps of 16 channels are a vector: a dword permutation and a byte shuffle make a channel's four neighbours.
TARGET static void depthwise_sums(const int8_t *weights, const int8_t *inputs, int32_t quads,
                                  int32_t sums[SUBBYTE_PANEL]) {
  const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = repeat(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i flip = set_bytes(-128);
  __m512i total = _mm512_setzero_si512(), too_much = total;
  for (int32_t quad = 0; quad < quads; ++quad) {
    const __m512i taps = _mm512_loadu_si512(inputs + 64 * quad), digits = _mm512_loadu_si512(weights + 64 * quad);
    const __m512i by_channel = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, taps), bytes);
    total = _mm512_dpbusd_epi32(total, _mm512_xor_si512(by_channel, flip), digits); // inputs plus 128: unsigned
    too_much = _mm512_dpbusd_epi32(too_much, flip, digits);
  }
  _mm512_storeu_si512(sums, _mm512_sub_epi32(total, too_much));
}

TARGET static int32_t input_sum(const int8_t *x, int32_t features) {
  __m512i sum = _mm512_setzero_si512();
  for (int32_t k = 0; k < features; k += 64) {
    const int32_t rest = features - k;
    const __mmask64 mask = rest < 64 ? ((__mmask64)1 << rest) - 1 : ~(__mmask64)0;
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(mask, x + k));
  }
  return _mm512_reduce_add_epi32(sum);
}

const subbyte_isa subbyte_avx512vnni = {
    .name = "avx512vnni",
    .runs = runs,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    .depthwise_sums = depthwise_sums,
    .input_sum = input_sum,
    .finish = finish,
};

#endif
