// subbyte_finish_rows() for NEON: conversions that round to even and saturate do at once what plain C does in steps.
#ifndef SUBBYTE_NEON_FINISH_H
#define SUBBYTE_NEON_FINISH_H

#if defined(__aarch64__)

// What the finish of a row needs of the layer.
typedef struct finisher {
  int32x4_t step, offset, bias_shift;
  int16x8_t zero_point;
  int8x16_t clamp_min, clamp_max;
} finisher;

INLINE int32x4_t load_biases(const uint8_t *biases, int type, int from) {
  return type == SUBBYTE_BIAS_INT16 ? vmovl_s16(vreinterpret_s16_u8(vld1_u8(biases + 2 * from)))
                                    : vreinterpretq_s32_u8(vld1q_u8(biases + 4 * from));
}

INLINE float32x4_t load_multipliers(const uint8_t *multipliers, int type, int from) {
  return type == SUBBYTE_MULTIPLIER_UFLOAT16
             ? vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(multipliers + 2 * from)), 14))
             : vreinterpretq_f32_u8(vld1q_u8(multipliers + 4 * from));
}

// 4 channels, before the zero point.
INLINE int32x4_t scale(const finisher *finisher, int32x4_t sums, int32x4_t biases, float32x4_t multipliers) {
  const int32x4_t start = vaddq_s32(finisher->offset, vshlq_s32(biases, finisher->bias_shift));
  return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(vmlaq_s32(start, sums, finisher->step)), multipliers));
}

// Codes of a panel. Beyond 16 bits or 8 they saturate, which the clamp would do as well.
INLINE int8x16_t finish_panel(const finisher *finisher, const int32_t *sums, const uint8_t *biases, int bias_type,
                              const uint8_t *multipliers, int multiplier_type) {
  int32x4_t scaled[4];
  UNROLL
  for (int v = 0; v < 4; ++v) {
    scaled[v] = scale(finisher, vld1q_s32(sums + 4 * v), load_biases(biases, bias_type, 4 * v),
                      load_multipliers(multipliers, multiplier_type, 4 * v));
  }
  const int16x8_t low = vcombine_s16(vqmovn_s32(scaled[0]), vqmovn_s32(scaled[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(scaled[2]), vqmovn_s32(scaled[3]));
  const int8x16_t codes = vcombine_s8(vqmovn_s16(vqaddq_s16(low, finisher->zero_point)),
                                      vqmovn_s16(vqaddq_s16(high, finisher->zero_point)));
  return vminq_s8(vmaxq_s8(codes, finisher->clamp_min), finisher->clamp_max);
}

INLINE void finish_row(const finisher *finisher, const uint8_t *biases, int bias_type, const uint8_t *multipliers,
                       int multiplier_type, int32_t channels, const int32_t *sums, int8_t *output) {
  const int bias_bytes = bias_type == SUBBYTE_BIAS_INT16 ? 2 : 4;
  const int multiplier_bytes = multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16 ? 2 : 4;
  int32_t c = 0;
  for (; c + SUBBYTE_PANEL <= channels; c += SUBBYTE_PANEL) {
    vst1q_s8(output + c, finish_panel(finisher, sums + c, biases + bias_bytes * c, bias_type,
                                      multipliers + multiplier_bytes * c, multiplier_type));
  }
  if (c < channels) {
    uint8_t last_biases[4 * SUBBYTE_PANEL] = {0}, last_multipliers[4 * SUBBYTE_PANEL] = {0};
    int8_t codes[SUBBYTE_PANEL];
    const size_t rest = (size_t)(channels - c);
    memcpy(last_biases, biases + bias_bytes * c, rest * (size_t)bias_bytes);
    memcpy(last_multipliers, multipliers + multiplier_bytes * c, rest * (size_t)multiplier_bytes);
    vst1q_s8(codes, finish_panel(finisher, sums + c, last_biases, bias_type, last_multipliers, multiplier_type));
    memcpy(output + c, codes, rest);
  }
}

FUNCTION void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels, int32_t rows,
                     const int32_t *input_sums, const int32_t *sums, int8_t *output) {
  const int bias_type = header->bias_type, multiplier_type = header->multiplier_type;
  const uint8_t *biases = layer + header->bias_offset + subbyte_bias_bytes(header) * (size_t)first;
  const uint8_t *multipliers = layer + header->multiplier_offset + subbyte_multiplier_bytes(header) * (size_t)first;
  const int is_linear = header->decode == SUBBYTE_LINEAR;
  finisher finisher = {
      .step = vdupq_n_s32(is_linear ? header->code_step : 1),
      .bias_shift = vdupq_n_s32(header->bias_shift),
      .zero_point = vdupq_n_s16(header->output_zero_point),
      .clamp_min = vdupq_n_s8((int8_t)header->clamp_min),
      .clamp_max = vdupq_n_s8((int8_t)header->clamp_max),
  };
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t *row_sums = sums + (ptrdiff_t)SUBBYTE_TILE * row;
    int8_t *to = output + (ptrdiff_t)header->output_channels * row;
    finisher.offset = vdupq_n_s32(is_linear ? header->code_offset * input_sums[row] : 0);
    if (bias_type == SUBBYTE_BIAS_INT16 && multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16) { // as what we train has
      finish_row(&finisher, biases, SUBBYTE_BIAS_INT16, multipliers, SUBBYTE_MULTIPLIER_UFLOAT16, channels, row_sums,
                 to);
    } else {
      finish_row(&finisher, biases, bias_type, multipliers, multiplier_type, channels, row_sums, to);
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
