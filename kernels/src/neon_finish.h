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

// 4 channels, before the zero point.
INLINE int32x4_t scale(const finisher *finisher, int32x4_t sums, int32x4_t biases, float32x4_t multipliers) {
  const int32x4_t start = vaddq_s32(finisher->offset, vshlq_s32(biases, finisher->bias_shift));
  return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(vmlaq_s32(start, sums, finisher->step)), multipliers));
}

// Codes of a panel. Beyond 16 bits or 8 they saturate, which the clamp would do as well.
INLINE int8x16_t finish_panel(const finisher *finisher, const int32_t *sums, const subbyte_records *records) {
  int32x4_t scaled[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    scaled[v] = scale(finisher, vld1q_s32(sums + 4 * v), load_biases(finisher, records, 4 * v),
                      load_multipliers(finisher, records, 4 * v));
  }
  const int16x8_t low = vcombine_s16(vqmovn_s32(scaled[0]), vqmovn_s32(scaled[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(scaled[2]), vqmovn_s32(scaled[3]));
  const int8x16_t codes = vcombine_s8(vqmovn_s16(vqaddq_s16(low, finisher->zero_point)),
                                      vqmovn_s16(vqaddq_s16(high, finisher->zero_point)));
  return vminq_s8(vmaxq_s8(codes, finisher->clamp_min), finisher->clamp_max);
}

INLINE void finish_row(const finisher *finisher, const subbyte_records *records, int32_t channels, const int32_t *sums,
                       int8_t *output) {
  int32_t c = 0;
  for (; c + SUBBYTE_PANEL <= channels; c += SUBBYTE_PANEL) {
    const subbyte_records panel = subbyte_records_from(records, c);
    vst1q_s8(output + c, finish_panel(finisher, sums + c, &panel));
  }
  if (c < channels) {
    uint8_t biases[4 * SUBBYTE_PANEL] = {0}, multipliers[4 * SUBBYTE_PANEL] = {0};
    int8_t codes[SUBBYTE_PANEL];
    const size_t rest = (size_t)(channels - c);
    subbyte_records last = subbyte_records_from(records, c);
    memcpy(biases, last.biases, rest * subbyte_bias_bytes(last.bias_type));
    memcpy(multipliers, last.multipliers, rest * subbyte_multiplier_bytes(last.multiplier_type));
    last.biases = biases;
    last.multipliers = multipliers;
    vst1q_s8(codes, finish_panel(finisher, sums + c, &last));
    memcpy(output + c, codes, rest);
  }
}

FUNCTION void finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                          const int32_t *input_sums, const int32_t *sums, void *output) {
  const subbyte_records records = subbyte_records_from(&epilogue->records, first);
  finisher finisher = {
      .step = vdupq_n_s32(epilogue->step),
      .bias_shift = vdupq_n_s32(records.bias_shift),
      .bias_down = vdupq_n_s32(-records.multiplier_bits),
      .multiplier_shift = vdupq_n_s32(records.multiplier_shift),
      .multiplier_mask = vdupq_n_u32(records.multiplier_mask),
      .multiplier_base = vdupq_n_u32(records.multiplier_base),
      .zero_point = vdupq_n_s16((int16_t)epilogue->zero_point),
      .clamp_min = vdupq_n_s8((int8_t)epilogue->clamp_min),
      .clamp_max = vdupq_n_s8((int8_t)epilogue->clamp_max),
  };
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
