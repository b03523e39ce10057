// x86 with AVX-512 and VNNI: a block, 16 channels by 4 inputs, is one register and one instruction.
#include "x86.h"

#if defined(SUBBYTE_X86)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
// gcc unrolls these loops only if asked, and keeps an array in registers only if its loops are unrolled.
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"), always_inline))

static int runs_avx512vnni(void) {
  return subbyte_has(bit_AVX512F | bit_AVX512BW | bit_AVX512VL, bit_AVX512VNNI, SUBBYTE_ZMM);
}

enum { MOST_PANELS = 4, MOST_SUMS = 16 }; // as the registers have room

// What is computed at once. All of it is constant to the compiler.
typedef struct shape {
  int width;  // of the plane
  int panels; // they share the loaded inputs
  int rows;   // they share the digits
  int places; // of digits in a byte that have sums of their own
  int chains; // of sums, which take turns with the blocks: an addition need not wait for the last one
} shape;

// As many sums as there is room for.
INLINE shape make_shape(int width, int panels, int rows) {
  const int room = MOST_SUMS / (panels * rows), places = 8 / width < room ? 8 / width : room;
  const int chains = panels * rows < 4 ? 8 / places : 1;
  return (shape){width, panels, rows, places, chains};
}

INLINE int sum_index(shape shape, int chain, int place, int row, int panel) {
  return ((chain * shape.places + place) * shape.rows + row) * shape.panels + panel;
}

INLINE __m512i broadcast_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// A digit is not shifted down: it is multiplied where it stands in its byte, and the sum is shifted in the end, which
// is exact. No sum is larger than that of 8 bits, which fits (SUBBYTE_MAX_FEATURES).
INLINE void add_block(const uint8_t *const blocks[MOST_PANELS], const int8_t *const x[SUBBYTE_ROWS], shape shape,
                      int chain, __m512i sums[MOST_SUMS]) {
  __m512i codes[MOST_PANELS];
  UNROLL
  for (int p = 0; p < shape.panels; ++p) {
    codes[p] = _mm512_loadu_si512(blocks[p]);
    __asm__("" : "+v"(codes[p])); // or gcc loads it anew for each mask
  }
  UNROLL
  for (int field = 0; field < 8 / shape.width; ++field) {
    const int place = field % shape.places;
    const __m512i mask = _mm512_set1_epi8((char)(((1 << shape.width) - 1) << (shape.width * place)));
    __m512i digits[MOST_PANELS];
    UNROLL
    for (int p = 0; p < shape.panels; ++p) {
      if (field > 0 && place == 0) {
        codes[p] = _mm512_srli_epi16(codes[p], (uint8_t)(shape.width * shape.places));
      }
      digits[p] = shape.width == 8 ? codes[p] : _mm512_and_si512(codes[p], mask);
    }
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      const __m512i quad = broadcast_quad(x[r] + 4 * field);
      UNROLL
      for (int p = 0; p < shape.panels; ++p) {
        __m512i *sum = &sums[sum_index(shape, chain, place, r, p)];
        *sum = _mm512_dpbusd_epi32(*sum, digits[p], quad);
      }
    }
  }
}

// totals = 2^width * totals + the sums of all chains and places
INLINE void add_sums(const __m512i sums[MOST_SUMS], shape shape, __m512i totals[MOST_PANELS * SUBBYTE_ROWS]) {
  UNROLL
  for (int i = 0; i < shape.rows * shape.panels; ++i) {
    totals[i] = _mm512_slli_epi32(totals[i], (uint8_t)shape.width);
    UNROLL
    for (int place = 0; place < shape.places; ++place) {
      UNROLL
      for (int chain = 0; chain < shape.chains; ++chain) {
        const __m512i sum = sums[sum_index(shape, chain, place, 0, 0) + i];
        totals[i] = _mm512_add_epi32(totals[i], _mm512_srai_epi32(sum, (uint8_t)(shape.width * place)));
      }
    }
  }
}

INLINE void step_blocks(const uint8_t *blocks[MOST_PANELS], const size_t block_bytes[MOST_PANELS], int count) {
  UNROLL
  for (int p = 0; p < count; ++p) {
    blocks[p] += block_bytes[p];
  }
}

INLINE void add_plane(const uint8_t *blocks[MOST_PANELS], const size_t block_bytes[MOST_PANELS],
                      const subbyte_inputs *inputs, shape shape, __m512i totals[MOST_PANELS * SUBBYTE_ROWS]) {
  __m512i sums[MOST_SUMS];
  UNROLL
  for (int i = 0; i < shape.chains * shape.places * shape.rows * shape.panels; ++i) {
    sums[i] = _mm512_setzero_si512();
  }
  const int32_t span = 32 / shape.width; // inputs of a block
  const int32_t whole = inputs->features - inputs->features % SUBBYTE_STRIDE;
  const int8_t *x[SUBBYTE_ROWS];
  int32_t first = 0;
  for (; first < whole; first += SUBBYTE_STRIDE) {
    UNROLL
    for (int block = 0; block < shape.width; ++block) {
      UNROLL
      for (int r = 0; r < shape.rows; ++r) {
        x[r] = inputs->x[r] + first + span * block;
      }
      add_block(blocks, x, shape, block % shape.chains, sums);
      step_blocks(blocks, block_bytes, shape.panels);
    }
  }
#pragma GCC unroll 1
  for (; first < inputs->features; first += span) {
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      x[r] = inputs->tail[r] + first - whole;
    }
    add_block(blocks, x, shape, 0, sums);
    step_blocks(blocks, block_bytes, shape.panels);
  }
  add_sums(sums, shape, totals);
}

INLINE void add_panels(const subbyte_panels *panels, int32_t first, const subbyte_inputs *inputs, int count, int rows,
                       int32_t *sums) {
  __m512i totals[MOST_PANELS * SUBBYTE_ROWS];
  UNROLL
  for (int i = 0; i < count * rows; ++i) {
    totals[i] = _mm512_setzero_si512();
  }
  UNROLL
  for (int plane = SUBBYTE_PLANES - 1; plane >= 0; --plane) { // the narrowest has the highest bits
    if (panels->planes[plane]) {
      const uint8_t *blocks[MOST_PANELS];
      size_t block_bytes[MOST_PANELS];
      UNROLL
      for (int p = 0; p < count; ++p) {
        blocks[p] = panels->planes[plane] + panels->steps[plane] * (size_t)(first + p);
        // All but the last are known to be whole.
        block_bytes[p] = p < count - 1 ? SUBBYTE_BLOCK_BYTES : 4 * (size_t)subbyte_panel_channels(panels, first + p);
      }
      add_plane(blocks, block_bytes, inputs, make_shape(8 >> plane, count, rows), totals);
    }
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int p = 0; p < count; ++p) {
      _mm512_storeu_si512(sums + SUBBYTE_TILE * r + SUBBYTE_PANEL * (first + p), totals[r * count + p]);
    }
  }
}

TARGET static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  int32_t panel = 0;
  if (inputs->rows == 1) {
    for (; panel + 4 <= panels->count; panel += 4) {
      add_panels(panels, panel, inputs, 4, 1, sums);
    }
    for (; panel + 2 <= panels->count; panel += 2) {
      add_panels(panels, panel, inputs, 2, 1, sums);
    }
    for (; panel < panels->count; ++panel) {
      add_panels(panels, panel, inputs, 1, 1, sums);
    }
    return;
  }
  for (; panel + 2 <= panels->count; panel += 2) {
    add_panels(panels, panel, inputs, 2, SUBBYTE_ROWS, sums);
  }
  for (; panel < panels->count; ++panel) {
    add_panels(panels, panel, inputs, 1, SUBBYTE_ROWS, sums);
  }
}

// The codes of a panel for the quad of inputs that starts with `k`, from all planes.
INLINE __m512i gather_codes(const uint8_t *const blocks[SUBBYTE_PLANES], size_t block_bytes, int bits, int k) {
  __m512i codes = _mm512_setzero_si512();
  int bit = 0;
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (bits & width) {
      const __m512i block = _mm512_loadu_si512(blocks[plane] + block_bytes * (size_t)(k * width / 32));
      const __m512i mask = _mm512_set1_epi8((char)((1 << width) - 1));
      const __m512i digits = _mm512_and_si512(_mm512_srli_epi16(block, (uint8_t)(k * width / 4 % 8)), mask);
      codes = _mm512_or_si512(codes, _mm512_slli_epi16(digits, (uint8_t)bit));
      bit += width;
    }
  }
  return codes;
}

// table[code], 16 entries at a time.
INLINE __m512i look_up(__m512i codes, int bits, const __m512i entries[16]) {
  if (bits <= 4) {
    return _mm512_shuffle_epi8(entries[0], codes);
  }
  const __m512i nibble = _mm512_set1_epi8(15), low = _mm512_and_si512(codes, nibble);
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
  __m512i values = _mm512_setzero_si512();
  UNROLL
  for (int i = 0; i < 1 << (bits - 4); ++i) {
    const __mmask64 chosen = _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8((char)i));
    values = _mm512_mask_shuffle_epi8(values, chosen, entries[i], low);
  }
  return values;
}

// One panel and some rows: all four, or one. Chains of sums that do not wait for each other hide the latency.
INLINE void add_codebook(const subbyte_panels *panels, int32_t panel, int bits, const __m512i entries[16],
                         const subbyte_inputs *inputs, int rows, int32_t *sums) {
  const int chains = SUBBYTE_ROWS / rows;
  const size_t block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel);
  const uint8_t *blocks[SUBBYTE_PLANES];
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    blocks[plane] = panels->planes[plane] ? panels->planes[plane] + panels->steps[plane] * (size_t)panel : NULL;
  }
  __m512i totals[SUBBYTE_ROWS];
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int chain = 0; chain < chains; ++chain) { // the table has 128 too much
      totals[r * chains + chain] = _mm512_set1_epi32(chain ? 0 : -128 * inputs->sums[r]);
    }
  }
  for (int32_t first = 0; first < inputs->features; first += SUBBYTE_STRIDE) {
    const int32_t rest = inputs->features - first;
    UNROLL
    for (int quad = 0; quad < SUBBYTE_STRIDE / 4; ++quad) {
      if (4 * quad < rest) {
        const __m512i values = look_up(gather_codes(blocks, block_bytes, bits, 4 * quad), bits, entries);
        UNROLL
        for (int r = 0; r < rows; ++r) {
          const int8_t *x = subbyte_stride(inputs, r, first);
          __m512i *total = &totals[r * chains + quad % chains];
          *total = _mm512_dpbusd_epi32(*total, values, broadcast_quad(x + 4 * quad));
        }
      }
    }
    for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) { // a stride has as many blocks as the plane has bits
      blocks[plane] = blocks[plane] ? blocks[plane] + block_bytes * (8 >> plane) : NULL;
    }
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int chain = 1; chain < chains; ++chain) {
      totals[r] = _mm512_add_epi32(totals[r], totals[chain]);
    }
    _mm512_storeu_si512(sums + SUBBYTE_TILE * r + SUBBYTE_PANEL * panel, totals[r]);
  }
}

INLINE void add_codebooks(const subbyte_panels *panels, int bits, const __m512i entries[16],
                          const subbyte_inputs *inputs, int32_t *sums) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    if (inputs->rows > 1) {
      add_codebook(panels, panel, bits, entries, inputs, SUBBYTE_ROWS, sums);
    } else {
      add_codebook(panels, panel, bits, entries, inputs, 1, sums);
    }
  }
}

TARGET static void codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  __m512i entries[16];
  for (int i = 0; i < 16; ++i) {
    const __m128i sixteen = _mm_loadu_si128((const __m128i *)(const void *)(panels->codebook + 16 * i));
    // Plus 128: the instruction takes unsigned weights.
    entries[i] = _mm512_broadcast_i32x4(_mm_xor_si128(sixteen, _mm_set1_epi8(-128)));
  }
  switch (panels->weight_bits) {
  case 1:
    add_codebooks(panels, 1, entries, inputs, sums);
    break;
  case 2:
    add_codebooks(panels, 2, entries, inputs, sums);
    break;
  case 3:
    add_codebooks(panels, 3, entries, inputs, sums);
    break;
  case 4:
    add_codebooks(panels, 4, entries, inputs, sums);
    break;
  case 5:
    add_codebooks(panels, 5, entries, inputs, sums);
    break;
  case 6:
    add_codebooks(panels, 6, entries, inputs, sums);
    break;
  case 7:
    add_codebooks(panels, 7, entries, inputs, sums);
    break;
  default:
    add_codebooks(panels, 8, entries, inputs, sums);
    break;
  }
}

TARGET static int32_t input_sum(const int8_t *x, int32_t features) {
  __m512i sum = _mm512_setzero_si512();
  const __m512i ones = _mm512_set1_epi8(1);
  for (int32_t k = 0; k < features; k += 64) {
    const int32_t rest = features - k;
    const __mmask64 mask = rest < 64 ? ((__mmask64)1 << rest) - 1 : ~(__mmask64)0;
    sum = _mm512_dpbusd_epi32(sum, ones, _mm512_maskz_loadu_epi8(mask, x + k));
  }
  return _mm512_reduce_add_epi32(sum);
}

TARGET static void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels,
                          const subbyte_inputs *inputs, const int32_t *sums, int8_t *output) {
  subbyte_finish_rows(header, layer, first, channels, inputs, sums, output);
}

const subbyte_isa subbyte_avx512vnni = {
    .name = "avx512vnni",
    .runs = runs_avx512vnni,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    .input_sum = input_sum,
    .finish = finish,
};

#endif
