// subbyte_finish_rows() for NEON: conversions that round to even and saturate do at once what plain C does in steps.
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

// What is known of the records when the loop is compiled.
typedef struct record_types {
  int bias, multiplier;
} record_types;

INLINE int32x4_t load_biases(const finisher *finisher, const uint8_t *biases, record_types types, int from) {
  if (types.bias == SUBBYTE_BIAS_INT32) {
    return vreinterpretq_s32_u8(vld1q_u8(biases + 4 * from));
  }
  const int32x4_t words = vmovl_s16(vreinterpret_s16_u8(vld1_u8(biases + 2 * from)));
  return types.multiplier == SUBBYTE_MULTIPLIER_IN_BIAS ? vshlq_s32(words, finisher->bias_down) : words;
}

INLINE float32x4_t load_multipliers(const finisher *finisher, const uint8_t *multipliers, record_types types,
                                    int from) {
  if (types.multiplier == SUBBYTE_MULTIPLIER_FLOAT32) {
    return vreinterpretq_f32_u8(vld1q_u8(multipliers + 4 * from));
  }
  const uint16x4_t words = vreinterpret_u16_u8(vld1_u8(multipliers + 2 * from));
  if (types.multiplier == SUBBYTE_MULTIPLIER_UFLOAT16) {
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
INLINE int8x16_t finish_panel(const finisher *finisher, const int32_t *sums, const uint8_t *biases,
                              const uint8_t *multipliers, record_types types) {
  int32x4_t scaled[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    scaled[v] = scale(finisher, vld1q_s32(sums + 4 * v), load_biases(finisher, biases, types, 4 * v),
                      load_multipliers(finisher, multipliers, types, 4 * v));
  }
  const int16x8_t low = vcombine_s16(vqmovn_s32(scaled[0]), vqmovn_s32(scaled[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(scaled[2]), vqmovn_s32(scaled[3]));
  const int8x16_t codes = vcombine_s8(vqmovn_s16(vqaddq_s16(low, finisher->zero_point)),
                                      vqmovn_s16(vqaddq_s16(high, finisher->zero_point)));
  return vminq_s8(vmaxq_s8(codes, finisher->clamp_min), finisher->clamp_max);
}

INLINE void finish_row(const finisher *finisher, const uint8_t *biases, const uint8_t *multipliers, record_types types,
                       int32_t channels, const int32_t *sums, int8_t *output) {
  const int bias_bytes = types.bias == SUBBYTE_BIAS_INT16 ? 2 : 4;
  const int multiplier_bytes = types.multiplier == SUBBYTE_MULTIPLIER_FLOAT32 ? 4 : 2;
  int32_t c = 0;
  for (; c + SUBBYTE_PANEL <= channels; c += SUBBYTE_PANEL) {
    vst1q_s8(output + c,
             finish_panel(finisher, sums + c, biases + bias_bytes * c, multipliers + multiplier_bytes * c, types));
  }
  if (c < channels) {
    uint8_t last_biases[4 * SUBBYTE_PANEL] = {0}, last_multipliers[4 * SUBBYTE_PANEL] = {0};
    int8_t codes[SUBBYTE_PANEL];
    const size_t rest = (size_t)(channels - c);
    memcpy(last_biases, biases + bias_bytes * c, rest * (size_t)bias_bytes);
    memcpy(last_multipliers, multipliers + multiplier_bytes * c, rest * (size_t)multiplier_bytes);
    vst1q_s8(codes, finish_panel(finisher, sums + c, last_biases, last_multipliers, types));
    memcpy(output + c, codes, rest);
  }
}

FUNCTION void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels, int32_t rows,
                     const int32_t *input_sums, const int32_t *sums, int8_t *output) {
  const record_types types = {header->bias_type, header->multiplier_type};
  const uint8_t *biases = layer + header->bias_offset + subbyte_bias_bytes(header) * (size_t)first;
  const uint8_t *multipliers =
      layer + subbyte_first_multiplier(header) + subbyte_multiplier_bytes(header) * (size_t)first;
  const int is_linear = header->decode == SUBBYTE_LINEAR;
  const record_types in_bias = {SUBBYTE_BIAS_INT16, SUBBYTE_MULTIPLIER_IN_BIAS};
  const record_types narrow = {SUBBYTE_BIAS_INT16, SUBBYTE_MULTIPLIER_UFLOAT16};
  finisher finisher = {
      .step = vdupq_n_s32(is_linear ? header->code_step : 1),
      .bias_shift = vdupq_n_s32(header->bias_shift),
      .bias_down = vdupq_n_s32(-header->multiplier_bits),
      .multiplier_shift = vdupq_n_s32(header->multiplier_shift),
      .multiplier_mask = vdupq_n_u32(subbyte_multiplier_mask(header)),
      .multiplier_base = vdupq_n_u32(subbyte_multiplier_base(layer, header)),
      .zero_point = vdupq_n_s16(header->output_zero_point),
      .clamp_min = vdupq_n_s8((int8_t)header->clamp_min),
      .clamp_max = vdupq_n_s8((int8_t)header->clamp_max),
  };
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t *row_sums = sums + (ptrdiff_t)SUBBYTE_TILE * row;
    int8_t *to = output + (ptrdiff_t)header->output_channels * row;
    finisher.offset = vdupq_n_s32(is_linear ? header->code_offset * input_sums[row] : 0);
    if (types.multiplier == in_bias.multiplier) { // as what we train has
      finish_row(&finisher, biases, multipliers, in_bias, channels, row_sums, to);
    } else if (types.bias == narrow.bias && types.multiplier == narrow.multiplier) { // likewise
      finish_row(&finisher, biases, multipliers, narrow, channels, row_sums, to);
    } else {
      finish_row(&finisher, biases, multipliers, types, channels, row_sums, to);
    }
  }
}

#else

static void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels, int32_t rows,
                   const int32_t *input_sums, const int32_t *sums, int8_t *output) {
  subbyte_finish_rows(header, layer, first, channels, rows, input_sums, sums, output);
}

#endif
#endif
