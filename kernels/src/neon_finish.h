// subbyte_finish_int8() for NEON: conversions that round to even and saturate do at once what plain C does in steps.
#ifndef SUBBYTE_NEON_FINISH_H
#define SUBBYTE_NEON_FINISH_H

#if defined(__aarch64__)

// What the finish of a row needs of the layer.
typedef struct finisher {
  int32x4_t step, offset, bias_shift;
  // Of multipliers in the biases:
  int32x4_t bias_down, multiplier_shift;
  uint32x4_t multiplier_mask, multiplier_base;
  int16x8_t zero_point;
  int8x16_t clamp_min, clamp_max;
} finisher;

INLINE int32x4_t load_biases(const finisher *finisher, const subbyte_records *records, int from) {
  if (records->bias_type == SUBBYTE_BIAS_INT32) {
    return vreinterpretq_s32_u8(vld1q_u8(records->biases + 4 * from));
  }
  const int32x4_t words = vmovl_s16(vreinterpret_s16_u8(vld1_u8(records->biases + 2 * from)));
  return records->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS ? vshlq_s32(words, finisher->bias_down) : words;
}

INLINE float32x4_t load_multipliers(const finisher *finisher, const subbyte_records *records, int from) {
  if (records->multiplier_type == SUBBYTE_MULTIPLIER_FLOAT32) {
    return vreinterpretq_f32_u8(vld1q_u8(records->multipliers + 4 * from));
  }
  const uint16x4_t words = vreinterpret_u16_u8(vld1_u8(records->multipliers + 2 * from));
  if (records->multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16) {
    return vreinterpretq_f32_u32(vshll_n_u16(words, 14));
  }
  const uint32x4_t codes = vandq_u32(vmovl_u16(words), finisher->multiplier_mask);
  return vreinterpretq_f32_u32(vaddq_u32(finisher->multiplier_base, vshlq_u32(codes, finisher->multiplier_shift)));
}

// The biases of 4 channels, and what their row adds.
INLINE int32x4_t find_start(const finisher *finisher, const subbyte_records *records, int from) {
  return vaddq_s32(finisher->offset, vshlq_s32(load_biases(finisher, records, from), finisher->bias_shift));
}

// Codes of a panel. Beyond 16 bits or 8 they saturate, which the clamp would do as well.
INLINE int8x16_t round_panel(const finisher *finisher, const int32x4_t sums[4], const float32x4_t multipliers[4]) {
  int32x4_t scaled[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    scaled[v] = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[v]), multipliers[v]));
  }
  const int16x8_t low = vqmovn_high_s32(vqmovn_s32(scaled[0]), scaled[1]);
  const int16x8_t high = vqmovn_high_s32(vqmovn_s32(scaled[2]), scaled[3]);
  const int8x16_t codes =
      vqmovn_high_s16(vqmovn_s16(vqaddq_s16(low, finisher->zero_point)), vqaddq_s16(high, finisher->zero_point));
  return vminq_s8(vmaxq_s8(codes, finisher->clamp_min), finisher->clamp_max);
}

INLINE int8x16_t finish_panel(const finisher *finisher, const int32_t *sums, const subbyte_records *records) {
  int32x4_t totals[4];
  float32x4_t multipliers[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    totals[v] = vmlaq_s32(find_start(finisher, records, 4 * v), vld1q_s32(sums + 4 * v), finisher->step);
    multipliers[v] = load_multipliers(finisher, records, 4 * v);
  }
  return round_panel(finisher, totals, multipliers);
}

// Records of up to 16 channels with room behind them, copied to `biases` and `multipliers`.
INLINE subbyte_records copy_records(const subbyte_records *records, size_t channels, uint8_t biases[4 * SUBBYTE_PANEL],
                                    uint8_t multipliers[4 * SUBBYTE_PANEL]) {
  subbyte_records copy = *records;
  memset(biases, 0, 4 * SUBBYTE_PANEL);
  memset(multipliers, 0, 4 * SUBBYTE_PANEL);
  memcpy(biases, records->biases, channels * subbyte_bias_bytes(records->bias_type));
  memcpy(multipliers, records->multipliers, channels * subbyte_multiplier_bytes(records->multiplier_type));
  copy.biases = biases;
  copy.multipliers = multipliers;
  return copy;
}

INLINE void finish_row(const finisher *finisher, const subbyte_records *records, int32_t channels, const int32_t *sums,
                       int8_t *output) {
  int32_t c = 0;
  for (; c + SUBBYTE_PANEL <= channels; c += SUBBYTE_PANEL) {
    const subbyte_records panel = subbyte_records_from(records, c);
    vst1q_s8(output + c, finish_panel(finisher, sums + c, &panel));
  }
  if (c < channels) {
    uint8_t biases[4 * SUBBYTE_PANEL], multipliers[4 * SUBBYTE_PANEL];
    int8_t codes[SUBBYTE_PANEL];
    const size_t rest = (size_t)(channels - c);
    const subbyte_records panel = subbyte_records_from(records, c);
    const subbyte_records last = copy_records(&panel, rest, biases, multipliers);
    vst1q_s8(codes, finish_panel(finisher, sums + c, &last));
    memcpy(output + c, codes, rest);
  }
}

// Its offset is that of a row without one.
INLINE finisher make_finisher(const subbyte_epilogue *epilogue) {
  const subbyte_records *records = &epilogue->records;
  return (finisher){
      .step = vdupq_n_s32(epilogue->step),
      .offset = vdupq_n_s32(0),
      .bias_shift = vdupq_n_s32(records->bias_shift),
      .bias_down = vdupq_n_s32(-records->multiplier_bits),
      .multiplier_shift = vdupq_n_s32(records->multiplier_shift),
      .multiplier_mask = vdupq_n_u32(records->multiplier_mask),
      .multiplier_base = vdupq_n_u32(records->multiplier_base),
      .zero_point = vdupq_n_s16((int16_t)epilogue->zero_point),
      .clamp_min = vdupq_n_s8((int8_t)epilogue->clamp_min),
      .clamp_max = vdupq_n_s8((int8_t)epilogue->clamp_max),
  };
}

// What the windows of a convolution and a panel need.
typedef struct job {
  const subbyte_block *block;
  const int8_t *weights, *strip;
  int8_t *to; // the first channel of the first position
  int32_t channels;
  finisher finisher;
  int32_t biases[SUBBYTE_PANEL];
  float multipliers[SUBBYTE_PANEL];
} job;

INLINE void store_codes(int8x16_t codes, int32_t channels, int8_t *to) {
  if (channels == SUBBYTE_PANEL) {
    vst1q_s8(to, codes);
  } else if (channels == SUBBYTE_PANEL / 2) {
    vst1_s8(to, vget_low_s8(codes));
  } else {
    int8_t each[SUBBYTE_PANEL];
    vst1q_s8(each, codes);
    for (int32_t c = 0; c < channels; ++c) {
      to[c] = each[c];
    }
  }
}

FUNCTION void finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                          const int32_t *input_sums, const int32_t *sums, void *output) {
  const subbyte_records records = subbyte_records_from(&epilogue->records, first);
  finisher finisher = make_finisher(epilogue);
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t *row_sums = sums + (ptrdiff_t)SUBBYTE_TILE * row;
    int8_t *to = (int8_t *)output + (ptrdiff_t)epilogue->output_channels * row;
    finisher.offset = vdupq_n_s32(subbyte_input_offset(epilogue, input_sums, row));
    SUBBYTE_WITH_KNOWN_TYPES(&records, known, finish_row(&finisher, &known, channels, row_sums, to));
  }
}

#else

static void finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                        const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int8(epilogue, first, channels, rows, input_sums, sums, output);
}

#endif
#endif
