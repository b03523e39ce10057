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

enum { MOST_PANELS = 4, MOST_TOTALS = 16 };

// What the inner loop adds up: one panel and one row have a sum for each place that a digit has in its byte.
//
// A digit is not shifted down: it is multiplied where it stands and its sum is shifted in the end, which is exact. The
// largest such sum is that of 8 bits: less than 2^31 (SUBBYTE_MAX_FEATURES).
typedef struct shape {
  int width;  // of the plane
  int panels; // at once: they share the loaded inputs
  int rows;   // at once: they share the digits
  int places; // of digits between two shifts of the byte
} shape;

INLINE __m512i broadcast_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}

INLINE void add_block(const uint8_t *plane, size_t step, const int8_t *const x[SUBBYTE_ROWS], shape shape,
                      __m512i places[MOST_TOTALS]) {
  __m512i codes[MOST_PANELS];
  UNROLL
  for (int p = 0; p < shape.panels; ++p) {
    codes[p] = _mm512_loadu_si512(plane + step * (size_t)p);
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
        __m512i *sum = &places[(place * shape.rows + r) * shape.panels + p];
        *sum = _mm512_dpbusd_epi32(*sum, digits[p], quad);
      }
    }
  }
}

// totals = 2^width * totals + sum_k digit[k] * x[k]
INLINE void add_plane(const uint8_t *plane, size_t step, size_t block_bytes, const subbyte_inputs *inputs, shape shape,
                      __m512i totals[MOST_PANELS * SUBBYTE_ROWS]) {
  __m512i places[MOST_TOTALS];
  UNROLL
  for (int i = 0; i < shape.places * shape.rows * shape.panels; ++i) {
    places[i] = _mm512_setzero_si512();
  }
  const int32_t span = 32 / shape.width, whole = inputs->features - inputs->features % SUBBYTE_STRIDE;
  const int8_t *x[SUBBYTE_ROWS];
  int32_t first = 0;
  for (; first < whole; first += SUBBYTE_STRIDE) {
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      x[r] = inputs->x + (ptrdiff_t)(r < inputs->rows ? r : 0) * inputs->features + first;
    }
    UNROLL
    for (int block = 0; block < shape.width; ++block) {
      add_block(plane, step, x, shape, places);
      plane += block_bytes;
      UNROLL
      for (int r = 0; r < shape.rows; ++r) {
        x[r] += span;
      }
    }
  }
  UNROLL
  for (int r = 0; r < shape.rows; ++r) {
    x[r] = inputs->tail[r];
  }
#pragma GCC unroll 1
  for (; first < inputs->features; first += span) {
    add_block(plane, step, x, shape, places);
    plane += block_bytes;
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      x[r] += span;
    }
  }
  const int lanes = shape.rows * shape.panels;
  UNROLL
  for (int i = 0; i < lanes; ++i) {
    totals[i] = _mm512_slli_epi32(totals[i], (uint8_t)shape.width);
    UNROLL
    for (int place = 0; place < shape.places; ++place) {
      const __m512i sum = _mm512_srai_epi32(places[place * lanes + i], (uint8_t)(shape.width * place));
      totals[i] = _mm512_add_epi32(totals[i], sum);
    }
  }
}

INLINE void add_panels(const subbyte_panels *panels, int32_t first, const subbyte_inputs *inputs, int panel_count,
                       int rows, int32_t *sums) {
  __m512i totals[MOST_PANELS * SUBBYTE_ROWS];
  UNROLL
  for (int i = 0; i < panel_count * rows; ++i) {
    totals[i] = _mm512_setzero_si512();
  }
  const size_t block_bytes = 4 * (size_t)panels->channels;
  for (int plane = SUBBYTE_PLANES - 1; plane >= 0; --plane) { // the narrowest has the highest bits
    if (panels->planes[plane]) {
      const size_t step = panels->steps[plane];
      const uint8_t *blocks = panels->planes[plane] + step * (size_t)first;
      // Places as the registers have room.
      const int room = MOST_TOTALS / (panel_count * rows);
#define ADD(bits)                                                                                                      \
  add_plane(blocks, step, block_bytes, inputs, (shape){bits, panel_count, rows, room < 8 / bits ? room : 8 / bits},    \
            totals)
      switch (plane) {
      case 0:
        ADD(8);
        break;
      case 1:
        ADD(4);
        break;
      case 2:
        ADD(2);
        break;
      default:
        ADD(1);
        break;
      }
    }
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int p = 0; p < panel_count; ++p) {
      _mm512_storeu_si512(sums + SUBBYTE_TILE * r + SUBBYTE_PANEL * (first + p), totals[r * panel_count + p]);
    }
  }
}

TARGET static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  int32_t panel = 0;
  if (inputs->rows > 1) {
    for (; panel + 2 <= panels->count; panel += 2) {
      add_panels(panels, panel, inputs, 2, SUBBYTE_ROWS, sums);
    }
    for (; panel < panels->count; ++panel) {
      add_panels(panels, panel, inputs, 1, SUBBYTE_ROWS, sums);
    }
  }
  for (; panel + 4 <= panels->count; panel += 4) {
    add_panels(panels, panel, inputs, 4, 1, sums);
  }
  for (; panel < panels->count; ++panel) {
    add_panels(panels, panel, inputs, 1, 1, sums);
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
    .codebook_sums = subbyte_portable_codebook_sums,
    .input_sum = input_sum,
    .finish = finish,
};

#endif
