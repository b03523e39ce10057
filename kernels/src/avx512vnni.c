// x86 with AVX-512 and VNNI: a block, 16 channels by 4 inputs, is one register.
#include "x86.h"

#if defined(SUBBYTE_X86)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define OPERATION static inline __attribute__((always_inline)) TARGET

typedef __m512i vector;
// Parts of a panel; what is computed at once, as the 32 registers have room.
enum { PARTS = 1, MOST_VECTORS = 4, MOST_SUMS = 16 };
#define WIDE_WINDOWS 1

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

OPERATION vector add_bytes(vector a, vector b) {
  return _mm512_add_epi8(a, b);
}

OPERATION vector negate(vector a) {
  return _mm512_sub_epi32(_mm512_setzero_si512(), a);
}

// a + 128 in unsigned bytes
OPERATION vector flip(vector a) {
  return _mm512_xor_si512(a, set_bytes(-128));
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

OPERATION vector zip_low_bytes(vector a, vector b) {
  return _mm512_unpacklo_epi8(a, b);
}

OPERATION vector zip_high_bytes(vector a, vector b) {
  return _mm512_unpackhi_epi8(a, b);
}

OPERATION vector zip_low_pairs(vector a, vector b) {
  return _mm512_unpacklo_epi16(a, b);
}

OPERATION vector zip_high_pairs(vector a, vector b) {
  return _mm512_unpackhi_epi16(a, b);
}

// Vector i gets quarter i of each.
OPERATION void transpose(const vector from[4], vector to[4]) {
  const vector low[2] = {_mm512_shuffle_i32x4(from[0], from[1], 0x44), _mm512_shuffle_i32x4(from[2], from[3], 0x44)};
  const vector high[2] = {_mm512_shuffle_i32x4(from[0], from[1], 0xee), _mm512_shuffle_i32x4(from[2], from[3], 0xee)};
  to[0] = _mm512_shuffle_i32x4(low[0], low[1], 0x88);
  to[1] = _mm512_shuffle_i32x4(low[0], low[1], 0xdd);
  to[2] = _mm512_shuffle_i32x4(high[0], high[1], 0x88);
  to[3] = _mm512_shuffle_i32x4(high[0], high[1], 0xdd);
}

#include "vnni_decoded.h"

static int runs(void) {
  return subbyte_has(bit_AVX512F | bit_AVX512BW | bit_AVX512VL, bit_AVX512VNNI, SUBBYTE_ZMM);
}

TARGET static void flip_inputs(const int8_t *from, size_t bytes, int8_t *to) {
  for (; bytes > 64; bytes -= 64, from += 64, to += 64) {
    _mm512_storeu_si512(to, flip(_mm512_loadu_si512(from)));
  }
  const __mmask64 mask = bytes ? ~(__mmask64)0 >> (64 - bytes) : 0;
  _mm512_mask_storeu_epi8(to, mask, flip(_mm512_maskz_loadu_epi8(mask, from)));
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

// What the finish of a row of some panels needs of the layer.
typedef struct finisher {
  __m512i biases[4];
  __m512 multipliers[4];
  __m512i step;
  __m512 largest;     // less the zero point
  __m512i zero_point; // in 16 bits
  __m512i smallest;   // in bytes
} finisher;

// The counts and masks that reading the records of a layer takes, in registers.
typedef struct record_reader {
  __m128i bias_down, bias_shift, multiplier_shift;
  __m512i multiplier_mask, multiplier_base;
} record_reader;

OPERATION record_reader make_reader(const subbyte_records *records) {
  return (record_reader){
      .bias_down = _mm_cvtsi32_si128(records->multiplier_bits),
      .bias_shift = _mm_cvtsi32_si128(records->bias_shift),
      .multiplier_shift = _mm_cvtsi32_si128(records->multiplier_shift),
      .multiplier_mask = _mm512_set1_epi32((int32_t)records->multiplier_mask),
      .multiplier_base = _mm512_set1_epi32((int32_t)records->multiplier_base),
  };
}

// Of the channels of a panel that are in the mask.
OPERATION void load_records(const subbyte_records *records, const record_reader *reader, int32_t channel,
                            __mmask16 mask, __m512i *biases, __m512 *multipliers) {
  const size_t c = (size_t)channel;
  if (records->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS) {
    const __m512i words = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, records->biases + 2 * c));
    const __m512i codes = _mm512_and_si512(words, reader->multiplier_mask);
    *biases = _mm512_sll_epi32(_mm512_sra_epi32(words, reader->bias_down), reader->bias_shift);
    *multipliers = _mm512_castsi512_ps(
        _mm512_add_epi32(reader->multiplier_base, _mm512_sll_epi32(codes, reader->multiplier_shift)));
    return;
  }
  const __m512i stored = records->bias_type == SUBBYTE_BIAS_INT16
                             ? _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, records->biases + 2 * c))
                             : _mm512_maskz_loadu_epi32(mask, records->biases + 4 * c);
  *biases = _mm512_sll_epi32(stored, reader->bias_shift);
  *multipliers = _mm512_castsi512_ps(
      records->multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16
          ? _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, records->multipliers + 2 * c)), 14)
          : _mm512_maskz_loadu_epi32(mask, records->multipliers + 4 * c));
}

// A panel, before the zero point. What is too large for a conversion would change its sign; what is too small does not.
OPERATION __m512i scale(const finisher *finisher, int panel, const int32_t *sums, int is_linear, __m512i offset) {
  __m512i sum = _mm512_loadu_si512(sums);
  sum = is_linear ? _mm512_add_epi32(_mm512_mullo_epi32(sum, finisher->step), offset) : sum;
  sum = _mm512_add_epi32(sum, finisher->biases[panel]);
  const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), finisher->multipliers[panel]);
  return _mm512_cvtps_epi32(_mm512_min_ps(value, finisher->largest));
}

// The codes of four vectors. Beyond 16 bits or 8 they saturate, which the clamp would do as well.
OPERATION __m512i narrow(const finisher *finisher, const __m512i scaled[4]) {
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(scaled[0], scaled[1]), finisher->zero_point);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(scaled[2], scaled[3]), finisher->zero_point);
  const __m512i codes = _mm512_max_epi8(_mm512_packs_epi16(low, high), finisher->smallest); // by quarters of each
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), codes);
}

OPERATION finisher make_finisher(const subbyte_epilogue *epilogue, const subbyte_records *records, int32_t channel,
                                 int panels, __mmask16 mask) {
  finisher finisher = {
      .step = _mm512_set1_epi32(epilogue->step),
      .largest = _mm512_set1_ps((float)(epilogue->clamp_max - epilogue->zero_point)),
      .zero_point = _mm512_set1_epi16((int16_t)epilogue->zero_point),
      .smallest = _mm512_set1_epi8((char)epilogue->clamp_min),
  };
  const record_reader reader = make_reader(records);
  UNROLL
  for (int panel = 0; panel < panels; ++panel) {
    const __mmask16 exist = panel < panels - 1 ? 0xffff : mask;
    load_records(records, &reader, channel + SUBBYTE_PANEL * panel, exist, &finisher.biases[panel],
                 &finisher.multipliers[panel]);
  }
  return finisher;
}

// What rows of sums become codes by.
typedef struct job {
  const subbyte_epilogue *epilogue;
  int is_linear; // a constant to the compiler: the sums are of codes
  int32_t rows;
  const int32_t *input_sums;
} job;

OPERATION __m512i offset_of(const job *job, int32_t row) {
  return _mm512_set1_epi32(job->is_linear ? job->epilogue->offset * job->input_sums[row] : 0);
}

// Three or four panels, row by row; of the last the channels in the mask exist.
OPERATION void finish_some(const job *job, const subbyte_records *records, int32_t channel, int panels, __mmask16 mask,
                           const int32_t *sums, int8_t *output) {
  const finisher finisher = make_finisher(job->epilogue, records, channel, panels, mask);
  const __mmask64 bytes =
      (__mmask64)mask << SUBBYTE_PANEL * (panels - 1) | (((__mmask64)1 << SUBBYTE_PANEL * (panels - 1)) - 1);
  for (int32_t row = 0; row < job->rows; ++row) {
    const __m512i offset = offset_of(job, row);
    __m512i scaled[4];
    UNROLL
    for (int panel = 0; panel < 4; ++panel) {
      scaled[panel] =
          panel < panels ? scale(&finisher, panel, sums + SUBBYTE_PANEL * panel, job->is_linear, offset) : scaled[0];
    }
    _mm512_mask_storeu_epi8(output, bytes, narrow(&finisher, scaled));
    sums += SUBBYTE_TILE;
    output += job->epilogue->output_channels;
  }
}

// The channels of one panel that are in the mask, four rows at once.
OPERATION void finish_one(const job *job, const subbyte_records *records, int32_t channel, __mmask16 mask,
                          const int32_t *sums, int8_t *output) {
  const finisher finisher = make_finisher(job->epilogue, records, channel, 1, mask);
  for (int32_t row = 0; row < job->rows; row += 4) {
    __m512i scaled[4];
    UNROLL
    for (int32_t i = 0; i < 4; ++i) {
      const int32_t from = row + i < job->rows ? row + i : row;
      scaled[i] = scale(&finisher, 0, sums + SUBBYTE_TILE * from, job->is_linear, offset_of(job, from));
    }
    const __m512i codes = narrow(&finisher, scaled);
    const __m128i quarters[4] = {_mm512_castsi512_si128(codes), _mm512_extracti32x4_epi32(codes, 1),
                                 _mm512_extracti32x4_epi32(codes, 2), _mm512_extracti32x4_epi32(codes, 3)};
    UNROLL
    for (int32_t i = 0; i < 4; ++i) {
      if (row + i < job->rows) {
        _mm_mask_storeu_epi8(output + (ptrdiff_t)job->epilogue->output_channels * (row + i), mask, quarters[i]);
      }
    }
  }
}

OPERATION void finish_channels(const job *job, const subbyte_records *records, int32_t channels, const int32_t *sums,
                               int8_t *output) {
  const int32_t last = (channels - 1) % SUBBYTE_PANEL + 1; // of the last panel
  const __mmask16 mask = (__mmask16)((1 << last) - 1);
  int32_t c = 0;
  for (; channels - c > 3 * SUBBYTE_PANEL; c += 4 * SUBBYTE_PANEL) {
    finish_some(job, records, c, 4, channels - c > 4 * SUBBYTE_PANEL ? 0xffff : mask, sums + c, output + c);
  }
  if (channels - c > 2 * SUBBYTE_PANEL) {
    finish_some(job, records, c, 3, mask, sums + c, output + c);
    return;
  }
  for (; c < channels; c += SUBBYTE_PANEL) {
    finish_one(job, records, c, channels - c > SUBBYTE_PANEL ? 0xffff : mask, sums + c, output + c);
  }
}

TARGET static void finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                               const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_records records = subbyte_records_from(&epilogue->records, first);
  job job = {epilogue, 0, rows, input_sums};
  if (epilogue->offset == 0 && epilogue->step == 1) {
    finish_channels(&job, &records, channels, sums, output);
    return;
  }
  job.is_linear = 1;
  if (records.multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS) { // as what we train has
    records.multiplier_type = SUBBYTE_MULTIPLIER_IN_BIAS;
    finish_channels(&job, &records, channels, sums, output);
  } else {
    finish_channels(&job, &records, channels, sums, output);
  }
}

TARGET static void finish_int16(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                                const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int16(epilogue, first, channels, rows, input_sums, sums, output);
}

const subbyte_isa subbyte_avx512vnni = {
    .name = "avx512vnni",
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
