// Arm M-class with the DSP extension: SMLAD adds two products of 16 bits to a sum of 32.
#include "finish.h"

#if defined(SUBBYTE_DSP)

#include <arm_acle.h>

#define INLINE static inline __attribute__((always_inline))
// Compilers that are told to be small unroll these loops only if asked.
#define UNROLL _Pragma("GCC unroll 16")

enum {
  CHANNELS = 2,               // of output at once: they share the loaded inputs
  QUADS = SUBBYTE_STRIDE / 4, // of a stride
  CHUNK = 4 * SUBBYTE_STRIDE, // inputs that are widened at once
};

// Part of the processor that the program is compiled for.
static int runs_dsp(void) {
  return 1;
}

// Four inputs of 16 bits.
typedef struct quad {
  int16x2_t even, odd; // inputs 0 and 2, 1 and 3
} quad;

// Not by memcpy, which is a call where the compiler is told that there is no C library.
INLINE uint32_t load_word(const void *bytes) {
  uint32_t word;
  __builtin_memcpy(&word, bytes, sizeof word);
  return word;
}

INLINE uint32_t repeat_byte(int byte) {
  return 0x01010101u * (uint32_t)byte;
}

// Keeps a mask in a register: beside it, but not beside a constant, AND takes an operand that it shifts.
INLINE uint32_t in_register(uint32_t mask) {
  __asm__("" : "+r"(mask));
  return mask;
}

// The blocks of a stride of which the layer has less: zeros stand for those beyond its last, which are not read.
typedef struct last_blocks {
  uint32_t words[8][CHANNELS];
} last_blocks;

static void copy_blocks(const uint8_t *blocks, size_t block_bytes, int32_t features, int width, last_blocks *last) {
  const int count = (int)subbyte_blocks(features, width);
  for (int block = 0; block < width; ++block) {
    const int exists = block < count;
    for (int c = 0; c < CHANNELS; ++c) {
      last->words[block][c] = exists ? load_word(blocks + 4 * c) : 0;
    }
    blocks += exists ? block_bytes : 0;
  }
}

// sums[c] += 2^bit * sum_k digit[c, k] * x[k] for the channels of a panel and some inputs, from one that starts a
// stride on. `width` is a constant to the compiler.
INLINE void add_plane(const uint8_t *panel, int width, int32_t channels, int bit, const quad *x, int32_t features,
                      int32_t *sums) {
  const uint32_t mask = in_register(((1u << width) - 1) * 0x00010001u);
  for (int32_t channel = 0; channel < channels; channel += CHANNELS) {
    const uint8_t *blocks = panel + 4 * channel;
    size_t block_bytes = 4 * (size_t)channels;
    last_blocks last;
    const quad *inputs = x;
    int32_t products[CHANNELS] = {0};
#pragma GCC unroll 1
    for (int32_t rest = features; rest > 0; rest -= SUBBYTE_STRIDE) {
      if (rest < SUBBYTE_STRIDE) {
        copy_blocks(blocks, block_bytes, rest, width, &last);
        blocks = (const uint8_t *)last.words;
        block_bytes = sizeof last.words[0];
      }
      uint32_t words[CHANNELS] = {0};
      UNROLL
      for (int q = 0; q < QUADS; ++q) {
        const int field = q * width % 8;
        UNROLL
        for (int c = 0; c < CHANNELS; ++c) {
          if (field == 0) {
            words[c] = load_word(blocks + 4 * c);
          }
          products[c] = __smlad((int16x2_t)(words[c] >> field & mask), inputs->even, products[c]);
          products[c] = __smlad((int16x2_t)(words[c] >> (field + 8) & mask), inputs->odd, products[c]);
        }
        ++inputs;
        blocks += field + width == 8 ? block_bytes : 0;
      }
    }
    UNROLL
    for (int c = 0; c < CHANNELS; ++c) {
      sums[channel + c] += products[c] * (1 << bit);
    }
  }
}

typedef void add_plane_function(const uint8_t *panel, int32_t channels, int bit, const quad *x, int32_t features,
                                int32_t *sums);

// A function for each width, so that its loops know it.
#define WIDTH(width)                                                                                                   \
  static void add_plane_##width(const uint8_t *panel, int32_t channels, int bit, const quad *x, int32_t features,      \
                                int32_t *sums) {                                                                       \
    add_plane(panel, width, channels, bit, x, features, sums);                                                         \
  }
WIDTH(8)
WIDTH(4)
WIDTH(2)
WIDTH(1)
#undef WIDTH

// A panel, from an input on that starts a stride.
typedef struct weights {
  const uint8_t *planes[SUBBYTE_PLANES];
  int32_t channels;
  const int8_t *codebook;
} weights;

typedef void add_weights(const weights *weights, const quad *x, int32_t features, int32_t *sums);

// Plane by plane: to put the codes together before the multiplication takes no fewer instructions, since the words of
// several planes do not fit in the registers.
static void add_linear(const weights *weights, const quad *x, int32_t features, int32_t *sums) {
  static add_plane_function *const add[SUBBYTE_PLANES] = {add_plane_8, add_plane_4, add_plane_2, add_plane_1};
  int bit = 0;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (weights->planes[plane]) {
      add[plane](weights->planes[plane], weights->channels, bit, x, features, sums);
      bit += subbyte_plane_width(plane);
    }
  }
}

// codes[q] = 2^width * codes[q] + digits, a byte each, for one channel and a stride; steps over its blocks.
INLINE void add_digits(const uint8_t **blocks, size_t block_bytes, int width, int32_t features, uint32_t codes[QUADS]) {
  const uint32_t mask = in_register(repeat_byte((1 << width) - 1));
  uint32_t word = 0;
  UNROLL
  for (int q = 0; q < QUADS; ++q) {
    const int field = q * width % 8;
    if (field == 0) {
      if (4 * q >= features) {
        break;
      }
      word = load_word(*blocks);
      *blocks += block_bytes;
    }
    codes[q] = codes[q] << width | (word >> field & mask);
  }
}

// Not inlined: that leaves the registers to the look-ups.
__attribute__((noinline)) static void find_codes(const uint8_t *blocks[SUBBYTE_PLANES], size_t block_bytes,
                                                 int32_t features, uint32_t codes[QUADS]) {
  UNROLL
  for (int q = 0; q < QUADS; ++q) {
    codes[q] = 0;
  }
  if (blocks[3]) { // the narrowest plane has the highest bits
    add_digits(&blocks[3], block_bytes, 1, features, codes);
  }
  if (blocks[2]) {
    add_digits(&blocks[2], block_bytes, 2, features, codes);
  }
  if (blocks[1]) {
    add_digits(&blocks[1], block_bytes, 4, features, codes);
  }
  if (blocks[0]) {
    add_digits(&blocks[0], block_bytes, 8, features, codes);
  }
}

// The values of a stride's codes times its inputs.
static int32_t look_up(const int8_t *codebook, const uint32_t codes[QUADS], const quad *x, int32_t sum) {
  UNROLL
  for (int q = 0; q < QUADS; ++q) {
    const uint32_t code = codes[q];
    sum += codebook[code & 255] * (int16_t)x->even;
    sum += codebook[code >> 8 & 255] * (int16_t)x->odd;
    sum += codebook[code >> 16 & 255] * (x->even >> 16);
    sum += codebook[code >> 24] * (x->odd >> 16);
    ++x;
  }
  return sum;
}

static void add_codebook(const weights *weights, const quad *x, int32_t features, int32_t *sums) {
  const size_t block_bytes = 4 * (size_t)weights->channels;
  for (int32_t channel = 0; channel < weights->channels; ++channel) {
    const uint8_t *blocks[SUBBYTE_PLANES];
    for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
      blocks[plane] = weights->planes[plane] ? weights->planes[plane] + 4 * channel : NULL;
    }
    for (int32_t k = 0; k < features; k += SUBBYTE_STRIDE) {
      uint32_t codes[QUADS];
      find_codes(blocks, block_bytes, features - k, codes);
      sums[channel] = look_up(weights->codebook, codes, x + k / 4, sums[channel]);
    }
  }
}

// A panel's weights from input `first` on.
static weights find_weights(const subbyte_panels *panels, int32_t panel, int32_t first) {
  weights weights = {.channels = subbyte_panel_channels(panels, panel), .codebook = panels->codebook};
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int32_t block = first / SUBBYTE_STRIDE * subbyte_plane_width(plane); // a stride has as many as bits
    const size_t at = panels->steps[plane] * (size_t)panel + 4 * (size_t)(weights.channels * block);
    weights.planes[plane] = panels->planes[plane] ? panels->planes[plane] + at : NULL;
  }
  return weights;
}

// Widens the inputs of a row from `first` on; what is behind the last is 0.
static void widen(const subbyte_inputs *inputs, int32_t row, int32_t first, int32_t features, quad *to) {
  for (int32_t k = 0; k < features; k += SUBBYTE_STRIDE) {
    const int8_t *x = subbyte_stride(inputs, row, first + k);
    for (int q = 0; q < QUADS; ++q) {
      const uint32_t bytes = load_word(x + 4 * q);
      *to++ = (quad){__sxtb16((int8x4_t)bytes), __sxtb16((int8x4_t)(bytes >> 8))};
    }
  }
}

static void add_row(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t row, add_weights *add,
                    int32_t *sums) {
  memset(sums, 0, sizeof *sums * SUBBYTE_TILE);
  for (int32_t first = 0; first < inputs->features; first += CHUNK) {
    const int32_t rest = inputs->features - first, features = rest < CHUNK ? rest : CHUNK;
    quad x[CHUNK / 4];
    widen(inputs, row, first, features, x);
    for (int32_t panel = 0; panel < panels->count; ++panel) {
      const weights weights = find_weights(panels, panel, first);
      add(&weights, x, features, sums + SUBBYTE_PANEL * panel);
    }
  }
}

static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  for (int32_t row = 0; row < inputs->rows; ++row) {
    add_row(panels, inputs, row, add_linear, sums + SUBBYTE_TILE * row);
  }
}

static void codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  for (int32_t row = 0; row < inputs->rows; ++row) {
    add_row(panels, inputs, row, add_codebook, sums + SUBBYTE_TILE * row);
  }
}

// The bytes of two words, widened to 16 bits, as pairs of one byte of each: bytes 0 and 2, or those of words that were
// shifted by 8.
INLINE void pair_bytes(uint32_t first, uint32_t second, int16x2_t *byte_0, int16x2_t *byte_2) {
  const uint32_t a = (uint32_t)__sxtb16((int8x4_t)first), b = (uint32_t)__sxtb16((int8x4_t)second);
  *byte_0 = (int16x2_t)((a & 0xffff) | b << 16);
  *byte_2 = (int16x2_t)(a >> 16 | (b & 0xffff0000));
}

// Four taps of four channels.
INLINE void add_taps(const int8_t *weights, const int8_t *const x[4], int32_t sums[4]) {
  const uint32_t taps[4] = {load_word(x[0]), load_word(x[1]), load_word(x[2]), load_word(x[3])};
  int16x2_t even[4], odd[4]; // of taps 0 and 2, 1 and 3: of each channel
  pair_bytes(taps[0], taps[2], &even[0], &even[2]);
  pair_bytes(taps[0] >> 8, taps[2] >> 8, &even[1], &even[3]);
  pair_bytes(taps[1], taps[3], &odd[0], &odd[2]);
  pair_bytes(taps[1] >> 8, taps[3] >> 8, &odd[1], &odd[3]);
  UNROLL
  for (int c = 0; c < 4; ++c) {
    const uint32_t word = load_word(weights + 4 * c);
    sums[c] = __smlad(__sxtb16((int8x4_t)word), even[c], sums[c]);
    sums[c] = __smlad(__sxtb16((int8x4_t)(word >> 8)), odd[c], sums[c]);
  }
}

static void depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start, int32_t *sums) {
  for (int32_t row = 0; row < windows->rows; ++row, sums += SUBBYTE_TILE) {
    for (int32_t c = 0; c < windows->channels; c += 4) {
      const int8_t *factors = weights + c % SUBBYTE_PANEL / 4 * SUBBYTE_DEPTHWISE_TILE + c / SUBBYTE_PANEL * 16;
      const int8_t *from = windows->x[row] + c;
      const int32_t *offsets = windows->offsets;
      int32_t totals[4] = {start[c], start[c + 1], start[c + 2], start[c + 3]};
      for (int32_t quad = 0; quad < windows->quads; ++quad) {
        const int8_t *const x[4] = {from + offsets[0], from + offsets[1], from + offsets[2], from + offsets[3]};
        add_taps(factors, x, totals);
        factors += 4 * SUBBYTE_DEPTHWISE_TILE;
        offsets += 4;
      }
      UNROLL
      for (int i = 0; i < 4; ++i) {
        sums[c + i] = totals[i];
      }
    }
  }
}

// As unsigned bytes the inputs are larger by 128; USADA8 adds up the distances of four from 0.
static int32_t input_sum(const int8_t *x, int32_t features) {
  uint32_t sum = 0;
  int32_t k = 0;
  for (; k + 4 <= features; k += 4) {
    sum = __usada8(load_word(x + k) ^ repeat_byte(128), 0, sum);
  }
  int32_t total = (int32_t)sum - 128 * k;
  for (; k < features; ++k) {
    total += x[k];
  }
  return total;
}

const subbyte_isa subbyte_dsp = {
    .name = "dsp",
    .runs = runs_dsp,
    .linear_sums = linear_sums,
    .codebook_sums = codebook_sums,
    SUBBYTE_PORTABLE_DECODING,
    .depthwise_sums = depthwise_sums,
    .input_sum = input_sum,
    .split = subbyte_portable_split,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = subbyte_portable_finish_int8,
               [SUBBYTE_REQUANTIZE_FIXED_POINT] = subbyte_portable_finish_int16},
};

#endif
