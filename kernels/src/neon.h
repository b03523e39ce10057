// The loops that the Arm variants share. A variant defines, before it includes this:
//
//   INLINE                 for functions of its instructions
//   sums                   of 4 channels and a row
//   clear(), multiply(), widen(), total()   of them
//   strides_until_widen()  how many strides of inputs they take
//   VECTORS, ROWS          how many it has registers for: VECTORS of 4 channels and one row, or a vector and ROWS
#ifndef SUBBYTE_NEON_H
#define SUBBYTE_NEON_H

enum { CHANNELS = 4, QUADS = SUBBYTE_STRIDE / 4, MOST_SUMS = VECTORS > ROWS ? (int)VECTORS : (int)ROWS };

// What the compiler knows of a loop.
typedef struct shape {
  int bits; // of a weight
  int is_codebook;
  int vectors; // of 4 channels, at once: they share the inputs
  int rows;    // at once: they share the decoded weights
} shape;

// Where the weights of a stride lie: the 16 bytes of the first 4 channels, in the first block of each plane.
typedef struct weights {
  const uint8_t *planes[SUBBYTE_PLANES];
  size_t block_bytes;
  const uint8_t *codebook;
} weights;

// 4 channels by 4 inputs: byte 4 * c + i has the code of channel c and of input i of the quad.
INLINE uint8x16_t load_codes(const weights *weights, int bits, int vector, int quad) {
  uint8x16_t codes = vdupq_n_u8(0);
  int bit = 0;
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (bits & width) {
      const int from = quad * width % 8; // the digit's place in its byte
      const uint8x16_t bytes =
          vld1q_u8(weights->planes[plane] + weights->block_bytes * (size_t)(quad * width / 8) + 16 * vector);
      const uint8x16_t digits = from > bit ? bytes >> (from - bit) : bytes << (bit - from);
      const uint8x16_t mask = vdupq_n_u8((uint8_t)(((1 << width) - 1) << bit));
      codes = bit == 0 ? vandq_u8(digits, mask) : vbslq_u8(mask, digits, codes);
      bit += width;
    }
  }
  return codes;
}

// codebook[code]
#if defined(__aarch64__)
INLINE uint8x16_t look_up(uint8x16_t codes, int bits, const uint8_t *codebook) {
  if (bits <= 4) {
    return vqtbl1q_u8(vld1q_u8(codebook), codes);
  }
  if (bits == 5) {
    return vqtbl2q_u8(vld1q_u8_x2(codebook), codes);
  }
  uint8x16_t values = vqtbl4q_u8(vld1q_u8_x4(codebook), codes);
  UNROLL
  for (int first = 64; first < 1 << bits; first += 64) {
    values = vqtbx4q_u8(values, vld1q_u8_x4(codebook + first), vsubq_u8(codes, vdupq_n_u8((uint8_t)first)));
  }
  return values;
}
#else
INLINE uint8x8x4_t load_32(const uint8_t *codebook) {
  return (uint8x8x4_t){{vld1_u8(codebook), vld1_u8(codebook + 8), vld1_u8(codebook + 16), vld1_u8(codebook + 24)}};
}

INLINE uint8x8_t look_up_half(uint8x8_t codes, int bits, const uint8_t *codebook) {
  uint8x8_t values = vtbl4_u8(load_32(codebook), codes);
  UNROLL
  for (int first = 32; first < 1 << bits; first += 32) {
    values = vtbx4_u8(values, load_32(codebook + first), vsub_u8(codes, vdup_n_u8((uint8_t)first)));
  }
  return values;
}

INLINE uint8x16_t look_up(uint8x16_t codes, int bits, const uint8_t *codebook) {
  return vcombine_u8(look_up_half(vget_low_u8(codes), bits, codebook),
                     look_up_half(vget_high_u8(codes), bits, codebook));
}
#endif

// What is multiplied: values of the codebook, codes, 8-bit codes less 128, or 1-bit codes times -1.
INLINE int8x16_t load_factors(const weights *weights, shape shape, int vector, int quad) {
  if (shape.bits == 1 && !shape.is_codebook) {
    return vreinterpretq_s8_u8(vtstq_u8(vld1q_u8(weights->planes[3] + 16 * vector), vdupq_n_u8((uint8_t)(1 << quad))));
  }
  uint8x16_t codes = load_codes(weights, shape.bits, vector, quad);
  if (shape.is_codebook) {
    codes = look_up(codes, shape.bits, weights->codebook);
  } else if (shape.bits == 8) {
    codes = veorq_u8(codes, vdupq_n_u8(128));
  }
  return vreinterpretq_s8_u8(codes);
}

// The largest magnitude of a factor.
static inline int largest_factor(shape shape) {
  return shape.bits == 8 || shape.is_codebook ? 128 : (1 << shape.bits) - 1;
}

// What the products of the factors lack of the sums of the layer.
INLINE int32x4_t correct(int32x4_t total, shape shape, int32_t input_sum) {
  if (shape.is_codebook) {
    return total;
  }
  if (shape.bits == 1) {
    return vnegq_s32(total);
  }
  return shape.bits == 8 ? vaddq_s32(total, vdupq_n_s32((int32_t)(128u * (uint32_t)input_sum))) : total;
}

// Adds the products of a stride, or of as many of its quads as have an input.
INLINE void add_stride(const weights *weights, const int8_t *const x[SUBBYTE_ROWS], int32_t features, shape shape,
                       sums sums[MOST_SUMS]) {
  UNROLL
  for (int quad = 0; quad < QUADS; ++quad) {
    if (4 * quad >= features) {
      break;
    }
    UNROLL
    for (int v = 0; v < shape.vectors; ++v) {
      const int8x16_t factors = load_factors(weights, shape, v, quad);
      UNROLL
      for (int r = 0; r < shape.rows; ++r) {
        multiply(&sums[v * shape.rows + r], factors, x[r], quad, largest_factor(shape));
      }
    }
  }
}

INLINE void next_stride(weights *weights, const int8_t *x[SUBBYTE_ROWS], shape shape) {
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (shape.bits & width) {
      weights->planes[plane] += weights->block_bytes * (size_t)width; // as many blocks as bits
    }
  }
  UNROLL
  for (int r = 0; r < shape.rows; ++r) {
    x[r] += SUBBYTE_STRIDE;
  }
}

// Writes the sums of some channels, those of the first row to `to`.
INLINE void add_channels(weights weights, const subbyte_inputs *inputs, int row, shape shape, int32_t *to) {
  sums sums[MOST_SUMS];
  const int8_t *x[SUBBYTE_ROWS] = {NULL};
  UNROLL
  for (int i = 0; i < shape.vectors * shape.rows; ++i) {
    clear(&sums[i]);
  }
  UNROLL
  for (int r = 0; r < shape.rows; ++r) {
    x[r] = inputs->x[row + r];
  }
  const int32_t strides = strides_until_widen(largest_factor(shape));
  int32_t rest = inputs->features;
  while (rest > 0) {
    int32_t stride = 0;
#pragma GCC unroll 1
    for (; stride < strides && rest >= SUBBYTE_STRIDE; ++stride, rest -= SUBBYTE_STRIDE) {
      add_stride(&weights, x, SUBBYTE_STRIDE, shape, sums);
      next_stride(&weights, x, shape);
    }
    if (stride < strides && rest > 0) {
      UNROLL
      for (int r = 0; r < shape.rows; ++r) {
        x[r] = inputs->tail[row + r];
      }
      add_stride(&weights, x, rest, shape, sums);
      rest = 0;
    }
    UNROLL
    for (int i = 0; i < shape.vectors * shape.rows; ++i) {
      widen(&sums[i]);
    }
  }
  UNROLL
  for (int r = 0; r < shape.rows; ++r) {
    const int32_t input_sum = row + r < inputs->rows ? inputs->sums[row + r] : 0;
    UNROLL
    for (int v = 0; v < shape.vectors; ++v) {
      vst1q_s32(to + SUBBYTE_TILE * r + CHANNELS * v, correct(total(&sums[v * shape.rows + r]), shape, input_sum));
    }
  }
}

// The weights of a panel from one of its vectors of 4 channels on.
INLINE weights find_weights(const subbyte_panels *panels, int32_t panel, int vector, shape shape) {
  weights weights = {
      .block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel),
      .codebook = (const uint8_t *)panels->codebook,
  };
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (shape.bits & 8 >> plane) {
      weights.planes[plane] = panels->planes[plane] + panels->steps[plane] * (size_t)panel + 16 * vector;
    }
  }
  return weights;
}

INLINE void add_panel(const subbyte_panels *panels, int32_t panel, const subbyte_inputs *inputs, int row, shape shape,
                      int32_t *to) {
  for (int v = 0; CHANNELS * v < subbyte_panel_channels(panels, panel); v += shape.vectors) {
    add_channels(find_weights(panels, panel, v, shape), inputs, row, shape, to + CHANNELS * v);
  }
}

INLINE void add_panels(const subbyte_panels *panels, const subbyte_inputs *inputs, int bits, int is_codebook,
                       int32_t *to) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    int32_t *panel_to = to + SUBBYTE_PANEL * panel;
    for (int row = 0; row < inputs->rows;) {
      if (inputs->rows - row > ROWS / 2) { // all at once take less time than more than half of them alone
        add_panel(panels, panel, inputs, row, (shape){bits, is_codebook, 1, ROWS}, panel_to + SUBBYTE_TILE * row);
        row += ROWS;
      } else {
        add_panel(panels, panel, inputs, row, (shape){bits, is_codebook, VECTORS, 1}, panel_to + SUBBYTE_TILE * row);
        ++row;
      }
    }
  }
}

// A function for each width, so that the loops know it.
INLINE void add_bits(const subbyte_panels *panels, const subbyte_inputs *inputs, int is_codebook, int32_t *to) {
  switch (panels->weight_bits) {
#define BITS(bits)                                                                                                     \
  case bits:                                                                                                           \
    add_panels(panels, inputs, bits, is_codebook, to);                                                                 \
    break;
    BITS(1)
    BITS(2)
    BITS(3)
    BITS(4)
    BITS(5)
    BITS(6)
    BITS(7)
    BITS(8)
#undef BITS
  default:
    break;
  }
}

#endif
