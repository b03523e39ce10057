// Decoded weights for 64-bit Arm, by the loads and look-ups of neon.h.
#ifndef SUBBYTE_NEON_DECODE_H
#define SUBBYTE_NEON_DECODE_H

// A quad of inputs four times.
INLINE int8x16_t load_quad(const int8_t *x) {
  int32_t lanes;
  __builtin_memcpy(&lanes, x, sizeof lanes); // on bare metal memcpy() alone may be a call
  return vreinterpretq_s8_s32(vdupq_n_s32(lanes));
}

// The weights of 4 channels for a quad. Up to 4 bits a table has them all, evenly spaced or not.
INLINE int8x16_t find_values(const blocks *blocks, const subbyte_panels *panels, int bits, int is_linear, int vector,
                             int quad) {
  const uint8x16_t codes = find_codes(blocks, bits, vector, quad);
  const int8_t *codebook = panels->codebook;
  if (is_linear && bits > 4) {
    const int8x16_t step = vdupq_n_s8((int8_t)(codebook[1] - codebook[0]));
    return vmlaq_s8(vdupq_n_s8(codebook[0]), vreinterpretq_s8_u8(codes), step);
  }
  return vreinterpretq_s8_u8(look_up(codes, bits, (const uint8_t *)codebook));
}

INLINE void decode_panel(const subbyte_panels *panels, int32_t panel, int bits, int is_linear, int32_t inputs,
                         int8_t *to) {
  const shape shape = {bits, 1, VECTORS, 1};
  weights weights = find_weights(panels, panel, 0, shape);
  const int8_t *x[SUBBYTE_ROWS] = {NULL};
#pragma GCC unroll 1
  for (int32_t rest = inputs; rest > 0; rest -= SUBBYTE_STRIDE, to += QUADS * SUBBYTE_QUAD_BYTES) {
    blocks blocks;
    UNROLL
    for (int quad = 0; quad < QUADS; ++quad) {
      if (4 * quad >= rest) {
        break;
      }
      load_blocks(&weights, shape, quad, &blocks);
      UNROLL
      for (int v = 0; v < VECTORS; ++v) {
        vst1q_s8(to + SUBBYTE_QUAD_BYTES * quad + 16 * v, find_values(&blocks, panels, bits, is_linear, v, quad));
      }
    }
    next_stride(&weights, x, shape);
  }
}

// Of the last quad what is behind the inputs is 0.
static void clear_rest(int32_t inputs, int8_t *weights) {
  int8_t *quad = weights + (ptrdiff_t)SUBBYTE_QUAD_BYTES * (inputs / 4);
  const uint32x4_t mask = vdupq_n_u32((1u << 8 * (inputs % 4)) - 1);
  for (int v = 0; v < SUBBYTE_PANEL / 4; ++v) {
    vst1q_s8(quad + 16 * v, vandq_s8(vld1q_s8(quad + 16 * v), vreinterpretq_s8_u32(mask)));
  }
}

#define BITS(bits)                                                                                                     \
  FUNCTION void decode_linear_##bits(const subbyte_panels *panels, int32_t panel, int32_t inputs, int8_t *weights) {   \
    decode_panel(panels, panel, bits, 1, inputs, weights);                                                             \
  }                                                                                                                    \
  FUNCTION void decode_codebook_##bits(const subbyte_panels *panels, int32_t panel, int32_t inputs, int8_t *weights) { \
    decode_panel(panels, panel, bits, 0, inputs, weights);                                                             \
  }
BITS(1)
BITS(2)
BITS(3)
BITS(4)
BITS(5)
BITS(6)
BITS(7)
BITS(8)
#undef BITS

static void decode(const subbyte_panels *panels, int32_t panel, int is_linear, int32_t inputs, int8_t *weights,
                   int32_t *start) {
  typedef void decode_function(const subbyte_panels *, int32_t, int32_t, int8_t *);
  static decode_function *const decode_bits[2][8] = {
      {decode_codebook_1, decode_codebook_2, decode_codebook_3, decode_codebook_4, decode_codebook_5, decode_codebook_6,
       decode_codebook_7, decode_codebook_8},
      {decode_linear_1, decode_linear_2, decode_linear_3, decode_linear_4, decode_linear_5, decode_linear_6,
       decode_linear_7, decode_linear_8}};
  decode_bits[is_linear != 0][panels->weight_bits - 1](panels, panel, inputs, weights);
  if (inputs % 4 != 0) {
    clear_rest(inputs, weights);
  }
  memset(start, 0, sizeof *start * SUBBYTE_PANEL);
}

#endif
