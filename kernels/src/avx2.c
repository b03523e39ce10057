// x86 with AVX2: half a block, 8 channels by 4 inputs, is one register.
#include "x86.h"

#if defined(SUBBYTE_X86)

#define TARGET __attribute__((target("avx2")))
#define INLINE static inline __attribute__((target("avx2"), always_inline))

static int runs_avx2(void) {
  return subbyte_has(bit_AVX2, 0, SUBBYTE_YMM);
}

enum { MOST_ROWS = 2, HALVES = 2 }; // as the registers have room

// 16 channels, 8 in each half: 4 bytes, 2 sums of pairs or a total a channel.
typedef struct block {
  __m256i half[HALVES];
} block;

INLINE block zero_block(void) {
  return (block){{_mm256_setzero_si256(), _mm256_setzero_si256()}};
}

INLINE block load_block(const uint8_t *bytes) {
  const __m256i *halves = (const __m256i *)(const void *)bytes;
  return (block){{_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)}};
}

// (byte >> shift) & mask
INLINE block digits_of(const block *codes, int shift, int mask) {
  block digits;
  for (int i = 0; i < HALVES; ++i) {
    digits.half[i] = _mm256_and_si256(_mm256_srli_epi16(codes->half[i], shift), _mm256_set1_epi8((char)mask));
  }
  return digits;
}

// Adds digits times the quad of inputs that they meet to 16-bit sums of pairs.
//
// 16 bits hold it: in a stride 8 quads meet a pair, with digits up to 15: 8 * 2 * 15 * 128 < 2^15.
INLINE void multiply(const block *digits, const int8_t *x, block *pairs) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  for (int i = 0; i < HALVES; ++i) {
    const __m256i products = _mm256_maddubs_epi16(digits->half[i], _mm256_set1_epi32(quad));
    pairs->half[i] = _mm256_add_epi16(pairs->half[i], products);
  }
}

// Adds pairs, times a scale, to the totals.
INLINE void add_pairs(const block *pairs, int scale, block *totals) {
  for (int i = 0; i < HALVES; ++i) {
    const __m256i sums = _mm256_madd_epi16(pairs->half[i], _mm256_set1_epi16((int16_t)scale));
    totals->half[i] = _mm256_add_epi32(totals->half[i], sums);
  }
}

// The sums of one panel and some rows.
typedef struct sums {
  block low[MOST_ROWS], high[MOST_ROWS]; // of pairs: digits in place, and those worth 16 times as much
  block totals[MOST_ROWS];
} sums;

INLINE void clear_pairs(sums *sums, int rows) {
  for (int r = 0; r < rows; ++r) {
    sums->low[r] = sums->high[r] = zero_block();
  }
}

INLINE void set_rows(const subbyte_inputs *inputs, int32_t row, int rows, int32_t first, const int8_t *x[MOST_ROWS]) {
  for (int r = 0; r < rows; ++r) {
    x[r] = subbyte_stride(inputs, row + r, first);
  }
}

// Bytes of 8 bits go as two digits of 4.
INLINE void multiply_bytes(const block *bytes, const int8_t *const x[MOST_ROWS], int32_t k, int rows, sums *sums) {
  const block low = digits_of(bytes, 0, 15), high = digits_of(bytes, 4, 15);
  for (int r = 0; r < rows; ++r) {
    multiply(&low, x[r] + k, &sums->low[r]);
    multiply(&high, x[r] + k, &sums->high[r]);
  }
}

INLINE void multiply_block(const block *codes, int width, const int8_t *const x[MOST_ROWS], int32_t k, int rows,
                           sums *sums) {
  if (width == 8) {
    multiply_bytes(codes, x, k, rows, sums);
    return;
  }
  for (int field = 0; field < 8 / width; ++field) {
    const block digits = digits_of(codes, field * width, (1 << width) - 1);
    for (int r = 0; r < rows; ++r) {
      multiply(&digits, x[r] + k + 4 * field, &sums->low[r]);
    }
  }
}

// totals = 2^width * totals + sum_k digit[k] * x[k]
INLINE void add_plane(const uint8_t *plane, size_t block_bytes, int width, const subbyte_inputs *inputs, int32_t row,
                      int rows, sums *sums) {
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < HALVES; ++i) {
      sums->totals[r].half[i] = _mm256_slli_epi32(sums->totals[r].half[i], width);
    }
  }
  for (int32_t first = 0; first < inputs->features; first += SUBBYTE_STRIDE) {
    const int8_t *x[MOST_ROWS];
    set_rows(inputs, row, rows, first, x);
    clear_pairs(sums, rows);
    const int32_t rest = inputs->features - first;
    for (int32_t k = 0; k < SUBBYTE_STRIDE && k < rest; k += 32 / width) {
      const block codes = load_block(plane);
      multiply_block(&codes, width, x, k, rows, sums);
      plane += block_bytes;
    }
    for (int r = 0; r < rows; ++r) {
      add_pairs(&sums->low[r], 1, &sums->totals[r]);
      if (width == 8) {
        add_pairs(&sums->high[r], 16, &sums->totals[r]);
      }
    }
  }
}

INLINE void store_totals(const sums *sums, int32_t row, int rows, int32_t panel, int32_t *to) {
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < HALVES; ++i) {
      int32_t *at = to + SUBBYTE_TILE * (row + r) + SUBBYTE_PANEL * panel + 8 * i;
      _mm256_storeu_si256((__m256i *)(void *)at, sums->totals[r].half[i]);
    }
  }
}

INLINE void linear_rows(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t row, int rows,
                        int32_t *to) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    const size_t block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel);
    sums sums;
    const uint8_t *blocks[SUBBYTE_PLANES];
    for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
      blocks[plane] = panels->planes[plane] ? panels->planes[plane] + panels->steps[plane] * (size_t)panel : NULL;
    }
    for (int r = 0; r < rows; ++r) {
      sums.totals[r] = zero_block();
    }
    // The narrowest plane has the highest bits.
    if (blocks[3]) {
      add_plane(blocks[3], block_bytes, 1, inputs, row, rows, &sums);
    }
    if (blocks[2]) {
      add_plane(blocks[2], block_bytes, 2, inputs, row, rows, &sums);
    }
    if (blocks[1]) {
      add_plane(blocks[1], block_bytes, 4, inputs, row, rows, &sums);
    }
    if (blocks[0]) {
      add_plane(blocks[0], block_bytes, 8, inputs, row, rows, &sums);
    }
    store_totals(&sums, row, rows, panel, to);
  }
}

TARGET static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {
  int32_t row = 0;
  for (; row + 2 <= inputs->rows; row += 2) {
    linear_rows(panels, inputs, row, 2, to);
  }
  if (row < inputs->rows) {
    linear_rows(panels, inputs, row, 1, to);
  }
}

// The codes of a panel for the quad of inputs that starts with `k`, from all planes.
INLINE block gather_codes(const subbyte_panels *panels, int32_t panel, int bits, int32_t k) {
  const size_t block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel);
  block codes = zero_block();
  int bit = 0;
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (bits & width) {
      const size_t at = panels->steps[plane] * (size_t)panel + block_bytes * (size_t)(k * width / 32);
      const block bytes = load_block(panels->planes[plane] + at);
      const block digits = digits_of(&bytes, k * width / 4 % 8, (1 << width) - 1);
      for (int i = 0; i < HALVES; ++i) {
        codes.half[i] = _mm256_or_si256(codes.half[i], _mm256_slli_epi16(digits.half[i], bit));
      }
      bit += width;
    }
  }
  return codes;
}

// table[code], 16 entries at a time.
INLINE block look_up(const block *codes, int bits, const uint8_t table[256]) {
  const block low = digits_of(codes, 0, 15), high = digits_of(codes, 4, 15);
  block values = zero_block();
  for (int sixteen = 0; sixteen < (bits > 4 ? 1 << (bits - 4) : 1); ++sixteen) {
    const __m128i *at = (const __m128i *)(const void *)(table + 16 * sixteen);
    const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128(at));
    for (int i = 0; i < HALVES; ++i) {
      const __m256i chosen = _mm256_cmpeq_epi8(high.half[i], _mm256_set1_epi8((char)sixteen));
      const __m256i found = _mm256_and_si256(chosen, _mm256_shuffle_epi8(entries, low.half[i]));
      values.half[i] = _mm256_or_si256(values.half[i], found);
    }
  }
  return values;
}

INLINE void codebook_rows(const subbyte_panels *panels, int bits, const uint8_t table[256],
                          const subbyte_inputs *inputs, int32_t row, int rows, int32_t *to) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    sums sums;
    for (int r = 0; r < rows; ++r) { // the table has 128 too much
      const __m256i start = _mm256_set1_epi32(-128 * inputs->sums[row + r]);
      sums.totals[r] = (block){{start, start}};
    }
    for (int32_t first = 0; first < inputs->features; first += SUBBYTE_STRIDE) {
      const int8_t *x[MOST_ROWS];
      set_rows(inputs, row, rows, first, x);
      clear_pairs(&sums, rows);
      const int32_t rest = inputs->features - first;
      for (int32_t k = 0; k < SUBBYTE_STRIDE && k < rest; k += 4) {
        const block codes = gather_codes(panels, panel, bits, first + k);
        const block values = look_up(&codes, bits, table);
        multiply_bytes(&values, x, k, rows, &sums);
      }
      for (int r = 0; r < rows; ++r) {
        add_pairs(&sums.low[r], 1, &sums.totals[r]);
        add_pairs(&sums.high[r], 16, &sums.totals[r]);
      }
    }
    store_totals(&sums, row, rows, panel, to);
  }
}

INLINE void codebook_bits(const subbyte_panels *panels, int bits, const uint8_t table[256],
                          const subbyte_inputs *inputs, int32_t *to) {
  int32_t row = 0;
  for (; row + 2 <= inputs->rows; row += 2) {
    codebook_rows(panels, bits, table, inputs, row, 2, to);
  }
  if (row < inputs->rows) {
    codebook_rows(panels, bits, table, inputs, row, 1, to);
  }
}

TARGET static void codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {
  uint8_t table[256]; // digits are unsigned
  for (int i = 0; i < 256; ++i) {
    table[i] = (uint8_t)(panels->codebook[i] + 128);
  }
  switch (panels->weight_bits) {
  case 1:
    codebook_bits(panels, 1, table, inputs, to);
    break;
  case 2:
    codebook_bits(panels, 2, table, inputs, to);
    break;
  case 3:
    codebook_bits(panels, 3, table, inputs, to);
    break;
  case 4:
    codebook_bits(panels, 4, table, inputs, to);
    break;
  case 5:
    codebook_bits(panels, 5, table, inputs, to);
    break;
  case 6:
    codebook_bits(panels, 6, table, inputs, to);
    break;
  case 7:
    codebook_bits(panels, 7, table, inputs, to);
    break;
  default:
    codebook_bits(panels, 8, table, inputs, to);
    break;
  }
}

// Adds the products of a panel and four taps. The inputs of a channel become neighbours; then pairs of 16 bits, which
// nothing overflows.
INLINE void add_taps(const int8_t *weights, const int8_t *const x[4], __m256i pairs[4]) {
  __m128i taps[4];
  for (int i = 0; i < 4; ++i) {
    taps[i] = _mm_loadu_si128((const __m128i *)(const void *)x[i]);
  }
  const __m128i low[2] = {_mm_unpacklo_epi8(taps[0], taps[1]), _mm_unpacklo_epi8(taps[2], taps[3])};
  const __m128i high[2] = {_mm_unpackhi_epi8(taps[0], taps[1]), _mm_unpackhi_epi8(taps[2], taps[3])};
  const __m128i by_channel[4] = {_mm_unpacklo_epi16(low[0], low[1]), _mm_unpackhi_epi16(low[0], low[1]),
                                 _mm_unpacklo_epi16(high[0], high[1]), _mm_unpackhi_epi16(high[0], high[1])};
  for (int i = 0; i < 4; ++i) { // of 4 channels each
    const __m128i *digits = (const __m128i *)(const void *)weights + SUBBYTE_DEPTHWISE_PANELS * i;
    const __m256i products =
        _mm256_madd_epi16(_mm256_cvtepi8_epi16(by_channel[i]), _mm256_cvtepi8_epi16(_mm_loadu_si128(digits)));
    pairs[i] = _mm256_add_epi32(pairs[i], products);
  }
}

TARGET static void depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start,
                                  int32_t *sums) {
  for (int32_t row = 0; row < windows->rows; ++row) {
    for (int32_t panel = 0; SUBBYTE_PANEL * panel < windows->channels; ++panel) {
      const int8_t *digits = weights + 16 * panel;
      __m256i pairs[4]; // taps 0 and 1, taps 2 and 3
      for (int i = 0; i < 4; ++i) {
        pairs[i] = _mm256_setzero_si256();
      }
      for (int32_t quad = 0; quad < windows->quads; ++quad) {
        const int8_t *x[4];
        for (int i = 0; i < 4; ++i) {
          x[i] = windows->x[row] + windows->offsets[4 * quad + i] + SUBBYTE_PANEL * panel;
        }
        add_taps(digits, x, pairs);
        digits += 4 * SUBBYTE_DEPTHWISE_TILE;
      }
      for (int i = 0; i < 2; ++i) { // hadd works on halves, and leaves channels 0 1 4 5 2 3 6 7
        const int32_t c = SUBBYTE_PANEL * panel + 8 * i;
        const __m256i mixed = _mm256_hadd_epi32(pairs[2 * i], pairs[2 * i + 1]);
        const __m256i total = _mm256_add_epi32(_mm256_permute4x64_epi64(mixed, 0xd8),
                                               _mm256_loadu_si256((const __m256i *)(const void *)(start + c)));
        _mm256_storeu_si256((__m256i *)(void *)(sums + SUBBYTE_TILE * row + c), total);
      }
    }
  }
}

TARGET static int32_t input_sum(const int8_t *x, int32_t features) {
  const __m256i ones = _mm256_set1_epi8(1), pairs_of_ones = _mm256_set1_epi16(1);
  __m256i sums = _mm256_setzero_si256();
  int32_t k = 0;
  for (; k + 32 <= features; k += 32) {
    const __m256i pairs = _mm256_maddubs_epi16(ones, _mm256_loadu_si256((const __m256i *)(const void *)(x + k)));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, pairs_of_ones));
  }
  int32_t lanes[8], sum = 0;
  _mm256_storeu_si256((__m256i *)(void *)lanes, sums);
  for (int i = 0; i < 8; ++i) {
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

const subbyte_isa subbyte_avx2 = {
    .name = "avx2",
    .runs = runs_avx2,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    SUBBYTE_PORTABLE_DECODING,
    .depthwise_sums = depthwise_sums,
    .input_sum = input_sum,
    .split = subbyte_portable_split,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = finish_int8, [SUBBYTE_REQUANTIZE_FIXED_POINT] = finish_int16},
};

#endif
