// The loops that the Arm variants share. A variant defines, before it includes this:
//
//   FUNCTION, INLINE       that open functions of its instructions
//   sums                   of 4 channels and a row
//   clear(), multiply(), widen(), total()   of them
//   strides_until_widen()  how many strides of inputs they take
//   WHOLE_PANELS           and add_whole_panel(), where it has a loop for a row and a panel of 1, 2 or 4 bits
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

// Blocks of the planes of which a quad of inputs has bits.
typedef struct blocks {
  uint8x16_t planes[SUBBYTE_PLANES][VECTORS];
} blocks;

// Loads the blocks that start with that quad of a stride.
INLINE void load_blocks(const weights *weights, shape shape, int quad, blocks *blocks) {
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if ((shape.bits & width) && quad * width % 8 == 0) {
      const uint8_t *block = weights->planes[plane] + weights->block_bytes * (size_t)(quad * width / 8);
      UNROLL
      for (int v = 0; v < shape.vectors; ++v) {
        blocks->planes[plane][v] = vld1q_u8(block + 16 * v);
      }
    }
  }
}

// 4 channels by 4 inputs: byte 4 * c + i has the code of channel c and of input i of the quad.
INLINE uint8x16_t find_codes(const blocks *blocks, int bits, int vector, int quad) {
  uint8x16_t codes = vdupq_n_u8(0);
  int bit = 0;
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (bits & width) {
      const int from = quad * width % 8; // the digit's place in its byte
      const uint8x16_t bytes = blocks->planes[plane][vector];
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

// A call: 256 entries take all registers twice.
static __attribute__((noinline)) uint8x16_t look_up_many(uint8x16_t codes, int count, const uint8_t *codebook) {
  uint8x8_t low = vdup_n_u8(0), high = low;
#pragma GCC unroll 1
  for (int first = 0; first < count; first += 32) {
    const uint8x8x4_t entries = load_32(codebook + first);
    const uint8x16_t from = vsubq_u8(codes, vdupq_n_u8((uint8_t)first));
    low = vtbx4_u8(low, entries, vget_low_u8(from));
    high = vtbx4_u8(high, entries, vget_high_u8(from));
  }
  return vcombine_u8(low, high);
}

INLINE uint8x16_t look_up(uint8x16_t codes, int bits, const uint8_t *codebook) {
  if (bits > 5) {
    return look_up_many(codes, 1 << bits, codebook);
  }
  const uint8x8x4_t entries = load_32(codebook);
  return vcombine_u8(vtbl4_u8(entries, vget_low_u8(codes)), vtbl4_u8(entries, vget_high_u8(codes)));
}
#endif

// What is multiplied: values of the codebook, codes, 8-bit codes less 128, or 1-bit codes times -1.
INLINE int8x16_t find_factors(const blocks *blocks, const uint8_t *codebook, shape shape, int vector, int quad) {
  if (shape.bits == 1 && !shape.is_codebook) {
    return vreinterpretq_s8_u8(vtstq_u8(blocks->planes[3][vector], vdupq_n_u8((uint8_t)(1 << quad))));
  }
  uint8x16_t codes = find_codes(blocks, shape.bits, vector, quad);
  if (shape.is_codebook) {
    codes = look_up(codes, shape.bits, codebook);
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
  blocks blocks;
  UNROLL
  for (int quad = 0; quad < QUADS; ++quad) {
    if (4 * quad >= features) {
      break;
    }
    load_blocks(weights, shape, quad, &blocks);
    UNROLL
    for (int v = 0; v < shape.vectors; ++v) {
      const int8x16_t factors = find_factors(&blocks, weights->codebook, shape, v, quad);
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

INLINE void widen_all(sums sums[MOST_SUMS], shape shape) {
  UNROLL
  for (int i = 0; i < shape.vectors * shape.rows; ++i) {
    widen(&sums[i]);
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
  const int32_t most_strides = strides_until_widen(largest_factor(shape));
  int32_t strides = 0, rest = inputs->features;
#pragma GCC unroll 1
  for (; rest >= SUBBYTE_STRIDE; rest -= SUBBYTE_STRIDE) {
    add_stride(&weights, x, SUBBYTE_STRIDE, shape, sums);
    next_stride(&weights, x, shape);
    if (++strides == most_strides) {
      widen_all(sums, shape);
      strides = 0;
    }
  }
  if (rest > 0) {
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      x[r] = inputs->tail[row + r];
    }
    add_stride(&weights, x, rest, shape, sums);
  }
  widen_all(sums, shape);
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
  const int32_t channels = subbyte_panel_channels(panels, panel);
  for (int r = 0; r < shape.rows && channels < SUBBYTE_PANEL; ++r) {
    memset(to + SUBBYTE_TILE * r, 0, sizeof *to * SUBBYTE_PANEL); // what lies beyond the channels
  }
  for (int v = 0; CHANNELS * v < channels; v += shape.vectors) {
    add_channels(find_weights(panels, panel, v, shape), inputs, row, shape, to + CHANNELS * v);
  }
}

// One row. The last panel takes half the registers where they are enough.
INLINE void add_row(const subbyte_panels *panels, int32_t panel, const subbyte_inputs *inputs, int row, int bits,
                    int is_codebook, int32_t *to) {
#if defined(WHOLE_PANELS)
  const int plane = bits == 4 ? 1 : bits == 2 ? 2 : 3;
  if ((bits == 4 || bits == 2 || bits == 1) && !is_codebook && subbyte_panel_channels(panels, panel) == SUBBYTE_PANEL) {
    add_whole_panel(panels->planes[plane] + panels->steps[plane] * (size_t)panel, inputs, row, bits, to);
    return;
  }
#endif
  if (subbyte_panel_channels(panels, panel) <= CHANNELS * VECTORS / 2 && !is_codebook) {
    add_panel(panels, panel, inputs, row, (shape){bits, is_codebook, VECTORS / 2, 1}, to);
  } else {
    add_panel(panels, panel, inputs, row, (shape){bits, is_codebook, VECTORS, 1}, to);
  }
}

INLINE void add_panels(const subbyte_panels *panels, const subbyte_inputs *inputs, int bits, int is_codebook,
                       int32_t *to) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    for (int row = 0; row < inputs->rows;) {
      int32_t *row_to = to + SUBBYTE_TILE * row + SUBBYTE_PANEL * panel;
      if (inputs->rows - row > ROWS / 2) { // all at once take less time than more than half of them alone
        add_panel(panels, panel, inputs, row, (shape){bits, is_codebook, 1, ROWS}, row_to);
        row += ROWS;
      } else {
        add_row(panels, panel, inputs, row, bits, is_codebook, row_to);
        ++row;
      }
    }
  }
}

#if !defined(__aarch64__)

INLINE void multiply_bytes(sums *sums, int8x16_t factors, int8x16_t inputs) {
  sums->pairs[0] = vpadalq_s16(sums->pairs[0], vmull_s8(vget_low_s8(factors), vget_low_s8(inputs)));
  sums->pairs[1] = vpadalq_s16(sums->pairs[1], vmull_s8(vget_high_s8(factors), vget_high_s8(inputs)));
}

// Four taps of 16 channels: pairs of pairs bring the inputs of a channel together.
INLINE void add_taps(const int8_t *weights, const int8_t *const x[4], sums sums[4]) {
  const int8x16x2_t front = vzipq_s8(vld1q_s8(x[0]), vld1q_s8(x[1])), back = vzipq_s8(vld1q_s8(x[2]), vld1q_s8(x[3]));
  UNROLL
  for (int half = 0; half < 2; ++half) {
    const int16x8x2_t quads = vzipq_s16(vreinterpretq_s16_s8(front.val[half]), vreinterpretq_s16_s8(back.val[half]));
    UNROLL
    for (int i = 0; i < 2; ++i) {
      const int8x16_t factors = vld1q_s8(weights + SUBBYTE_DEPTHWISE_TILE * (2 * half + i));
      multiply_bytes(&sums[2 * half + i], factors, vreinterpretq_s8_s16(quads.val[i]));
    }
  }
}

FUNCTION void depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start, int32_t *to) {
  for (int32_t row = 0; row < windows->rows; ++row) {
    for (int32_t panel = 0; SUBBYTE_PANEL * panel < windows->channels; ++panel) {
      const int8_t *factors = weights + 16 * panel, *from = windows->x[row] + SUBBYTE_PANEL * panel;
      const int32_t *offsets = windows->offsets;
      sums sums[4];
      UNROLL
      for (int i = 0; i < 4; ++i) {
        clear(&sums[i]);
      }
      for (int32_t quad = 0; quad < windows->quads; ++quad) {
        const int8_t *const x[4] = {from + offsets[0], from + offsets[1], from + offsets[2], from + offsets[3]};
        add_taps(factors, x, sums);
        factors += 4 * SUBBYTE_DEPTHWISE_TILE;
        offsets += 4;
      }
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const int32_t c = SUBBYTE_PANEL * panel + 4 * i;
        vst1q_s32(to + SUBBYTE_TILE * row + c, vaddq_s32(total(&sums[i]), vld1q_s32(start + c)));
      }
    }
  }
}

#endif

// A function for each width, so that its loops know it.
#define BITS(bits)                                                                                                     \
  FUNCTION void linear_##bits(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {               \
    add_panels(panels, inputs, bits, 0, to);                                                                           \
  }                                                                                                                    \
  FUNCTION void codebook_##bits(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {             \
    add_panels(panels, inputs, bits, 1, to);                                                                           \
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

static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {
  static subbyte_sums *const add[] = {linear_1, linear_2, linear_3, linear_4, linear_5, linear_6, linear_7, linear_8};
  add[panels->weight_bits - 1](panels, inputs, to);
}

static void codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *to) {
  static subbyte_sums *const add[] = {codebook_1, codebook_2, codebook_3, codebook_4,
                                      codebook_5, codebook_6, codebook_7, codebook_8};
  add[panels->weight_bits - 1](panels, inputs, to);
}

#endif
