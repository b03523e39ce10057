// A row of input and a whole panel, for 64-bit Arm without dot product, where a weight's bits lie in one plane: each
// byte of the panel's blocks is loaded once, and its digits are multiplied where they are.
#ifndef SUBBYTE_NEON_DENSE_H
#define SUBBYTE_NEON_DENSE_H

// Digits at their place in a byte, which are codes; of 1 bit, codes times -1.
INLINE int8x16_t find_digits(uint8x16_t bytes, int bits, int quad) {
  if (bits == 1) {
    return vreinterpretq_s8_u8(vtstq_u8(bytes, vdupq_n_u8((uint8_t)(1 << quad))));
  }
  const uint8x16_t digits = quad > 0 ? bytes >> (bits * quad) : bytes;
  const int is_last = bits * (quad + 1) == 8;
  return vreinterpretq_s8_u8(is_last ? digits : vandq_u8(digits, vdupq_n_u8((uint8_t)((1 << bits) - 1))));
}

// A block: 4 bytes of each channel, and its inputs.
INLINE void add_block(const uint8_t **block, const int8_t **x, int bits, int16x8_t products[8]) {
  const uint8x16x4_t bytes = vld1q_u8_x4(*block);
  *block += SUBBYTE_BLOCK_BYTES;
  UNROLL
  for (int quad = 0; quad < 8 / bits; ++quad) {
    int32_t lanes;
    __builtin_memcpy(&lanes, *x, sizeof lanes);
    *x += SUBBYTE_QUAD;
    __asm__("" : "+r"(*x)); // a pointer that the load moves on
    int8x16_t inputs = vreinterpretq_s8_s32(vdupq_n_s32(lanes));
    __asm__("" : "+w"(inputs)); // else clang loads half of it, and moves the upper half of the digits down
    UNROLL
    for (int v = 0; v < 4; ++v) {
      const int8x16_t digits = find_digits(bytes.val[v], bits, quad);
      products[2 * v] = vmlal_s8(products[2 * v], vget_low_s8(digits), vget_low_s8(inputs));
      products[2 * v + 1] = vmlal_high_s8(products[2 * v + 1], digits, inputs);
    }
  }
}

// Adds as many blocks at once as have products that fit in 16 bits: 17 of 4 bits, 85 of 2, 255 of 1.
INLINE void add_blocks(const uint8_t **block, const int8_t *x, int32_t blocks, int bits, int32x4_t pairs[8]) {
  const int32_t most = INT16_MAX / (128 * ((1 << bits) - 1)) / (8 / bits);
#pragma GCC unroll 1
  for (int32_t some; blocks > 0; blocks -= some) {
    int16x8_t products[8];
    UNROLL
    for (int i = 0; i < 8; ++i) {
      products[i] = vdupq_n_s16(0);
    }
    some = subbyte_smaller(blocks, most);
#pragma GCC unroll 1
    for (int32_t rest = some; rest > 0; --rest) {
      add_block(block, &x, bits, products);
    }
    UNROLL
    for (int i = 0; i < 8; ++i) {
      pairs[i] = vpadalq_s16(pairs[i], products[i]);
    }
  }
}

// Writes the sums of the panel's codes, whose width is one of a plane below 8 bits.
INLINE void add_whole_panel(const uint8_t *block, const subbyte_inputs *inputs, int row, int bits, int32_t *to) {
  const int32_t strides = inputs->features / SUBBYTE_STRIDE;
  int32x4_t pairs[8];
  UNROLL
  for (int i = 0; i < 8; ++i) {
    pairs[i] = vdupq_n_s32(0);
  }
  add_blocks(&block, inputs->x[row], strides * bits, bits, pairs);
  add_blocks(&block, inputs->tail[row], (int32_t)subbyte_blocks(inputs->features % SUBBYTE_STRIDE, bits), bits, pairs);
  UNROLL
  for (int v = 0; v < 4; ++v) {
    const int32x4_t total = vpaddq_s32(pairs[2 * v], pairs[2 * v + 1]);
    vst1q_s32(to + 4 * v, bits == 1 ? vnegq_s32(total) : total);
  }
}

#endif
