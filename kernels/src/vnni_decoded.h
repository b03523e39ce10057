// What vnni.h has for packed weights, for decoded ones: decoding a panel, and the windows that share it.
#ifndef SUBBYTE_VNNI_DECODED_H
#define SUBBYTE_VNNI_DECODED_H

#include "vnni.h"

// The value of each code of a linear layer: that of its low digit and what its high digit adds.
INLINE vector add_digits(vector codes, int bits, vector low, vector high) {
  const vector value = shuffle(low, bits > 4 ? and(codes, set_bytes(15)) : codes);
  return bits > 4 ? add_bytes(value, shuffle(high, and(shift_bytes_right(codes, 4), set_bytes(15)))) : value;
}

INLINE void decode_panel(const subbyte_panels *panels, int32_t panel, int bits, int is_linear, int32_t inputs,
                         int8_t *weights, int32_t *start) {
  const size_t block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel);
  const int high_digits = bits > 4 ? 1 << (bits - 4) : 1;
  int8_t steps[16] = {0};
  vector entries[16];
  for (int i = 0; i < high_digits; ++i) {
    entries[i] = repeat(_mm_loadu_si128((const __m128i *)(const void *)(panels->codebook + 16 * i)));
    steps[i] = (int8_t)(panels->codebook[16 * i] - panels->codebook[0]);
  }
  const vector high = repeat(_mm_loadu_si128((const __m128i *)(const void *)steps));
  const uint8_t *blocks[SUBBYTE_PLANES];
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    blocks[plane] = panels->planes[plane] ? panels->planes[plane] + panels->steps[plane] * (size_t)panel : NULL;
  }
  vector sums[PARTS];
  for (int part = 0; part < PARTS; ++part) {
    sums[part] = set_sums(0);
  }
  const int32_t last = inputs % 4 ? (1 << 8 * (inputs % 4)) - 1 : -1; // what there is of the last quad
  for (int32_t first = 0; first < inputs; first += SUBBYTE_STRIDE) {
    UNROLL
    for (int quad = 0; quad < SUBBYTE_STRIDE / 4; ++quad) {
      const int32_t rest = inputs - first - 4 * quad;
      if (rest > 0) {
        const vector mask = set_sums(rest > 4 ? -1 : last);
        UNROLL
        for (int part = 0; part < PARTS; ++part) {
          const vector codes = gather_codes(blocks, block_bytes, part, bits, 4 * quad);
          const vector values = is_linear ? add_digits(codes, bits, entries[0], high) : look_up(codes, bits, entries);
          const vector masked = and(values, mask);
          sums[part] = add_products(sums[part], set_bytes(1), masked);
          store((int32_t *)(void *)(weights + SUBBYTE_BLOCK_BYTES * quad) + LANES * part, masked);
        }
      }
    }
    weights += SUBBYTE_BLOCK_BYTES * SUBBYTE_STRIDE / 4;
    for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) { // a stride has as many blocks as the plane has bits
      blocks[plane] = blocks[plane] ? blocks[plane] + block_bytes * (8 >> plane) : NULL;
    }
  }
  for (int part = 0; part < PARTS; ++part) {
    store(start + LANES * part, negate(shift_sums_left(sums[part], 7))); // times 128
  }
}

TARGET static void decode(const subbyte_panels *panels, int32_t panel, int is_linear, int32_t inputs, int8_t *weights,
                          int32_t *start) {
#define DECODE_BITS(bits)                                                                                              \
  case bits:                                                                                                           \
    if (is_linear) {                                                                                                   \
      decode_panel(panels, panel, bits, 1, inputs, weights, start);                                                    \
    } else {                                                                                                           \
      decode_panel(panels, panel, bits, 0, inputs, weights, start);                                                    \
    }                                                                                                                  \
    break
  switch (panels->weight_bits) {
    DECODE_BITS(1);
    DECODE_BITS(2);
    DECODE_BITS(3);
    DECODE_BITS(4);
    DECODE_BITS(5);
    DECODE_BITS(6);
    DECODE_BITS(7);
    DECODE_BITS(8);
  }
}

// What the windows of a shape take from one quad of inputs on.
INLINE void add_quad(const int8_t *weights, size_t panel_bytes, const int8_t *const x[SUBBYTE_WINDOWS], ptrdiff_t k,
                     int vectors, int rows, vector totals[MOST_TOTALS]) {
  vector digits[WINDOW_PANELS * PARTS];
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    digits[v] = load((const uint8_t *)weights + panel_bytes * (size_t)(v / PARTS) + 4 * LANES * (v % PARTS));
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    const vector quad = set_sums(load_quad(x[r] + k));
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      totals[r * vectors + v] = add_products(totals[r * vectors + v], quad, digits[v]);
    }
  }
}

// Some windows and panels. The inputs are the unsigned factors, so the weights are not. Few sums become chains that
// take turns with the quads: an addition need not wait for the last one.
INLINE void add_windows(const int8_t *weights, const subbyte_windows *windows, int32_t row, int panels, int rows,
                        const int32_t *start, int32_t *sums) {
  const int vectors = PARTS * panels, count = vectors * rows, chains = count < 4 ? 4 / count : 1;
  const size_t panel_bytes = (size_t)SUBBYTE_BLOCK_BYTES * (size_t)windows->runs * (size_t)windows->quads;
  vector totals[MOST_TOTALS];
  UNROLL
  for (int i = 0; i < chains * count; ++i) {
    totals[i] = i < count ? load((const uint8_t *)(start + LANES * (i % vectors))) : set_sums(0);
  }
  const ptrdiff_t run_bytes = 4 * (ptrdiff_t)windows->quads;
#pragma GCC unroll 1
  for (int32_t run = 0; run < windows->runs; ++run) {
    const int8_t *x[SUBBYTE_WINDOWS];
    UNROLL
    for (int r = 0; r < rows; ++r) {
      x[r] = windows->x[row + r] + windows->offsets[run];
    }
    ptrdiff_t k = 0;
#pragma GCC unroll 1
    for (; k + 4 * chains <= run_bytes; k += 4 * chains) {
      UNROLL
      for (int chain = 0; chain < chains; ++chain) {
        add_quad(weights, panel_bytes, x, k + 4 * chain, vectors, rows, totals + count * chain);
        weights += SUBBYTE_BLOCK_BYTES;
      }
    }
    for (; chains > 1 && k < run_bytes; k += 4) {
      add_quad(weights, panel_bytes, x, k, vectors, rows, totals);
      weights += SUBBYTE_BLOCK_BYTES;
    }
  }
  UNROLL
  for (int i = 0; i < count; ++i) {
    UNROLL
    for (int chain = 1; chain < chains; ++chain) {
      totals[i] = add(totals[i], totals[count * chain + i]);
    }
    store(sums + SUBBYTE_TILE * (i / vectors) + LANES * (i % vectors), totals[i]);
  }
}

// Functions of their own: that leaves the registers to their pointers.
#define WINDOWS(panels, rows)                                                                                          \
  TARGET __attribute__((noinline)) static void add_windows_##panels##_##rows(                                          \
      const int8_t *weights, const subbyte_windows *windows, int32_t row, const int32_t *start, int32_t *sums) {       \
    add_windows(weights, windows, row, panels, rows, start, sums);                                                     \
  }
WINDOWS(1, 1)
WINDOWS(1, 2)
WINDOWS(1, 4)
#if WIDE_WINDOWS
WINDOWS(1, 8)
WINDOWS(2, 1)
WINDOWS(2, 2)
WINDOWS(2, 4)
WINDOWS(2, 8)
#endif

typedef void add_windows_function(const int8_t *weights, const subbyte_windows *windows, int32_t row,
                                  const int32_t *start, int32_t *sums);

TARGET static void window_sums(const int8_t *weights, int32_t panels, const subbyte_windows *windows,
                               const int32_t *start, int32_t *sums) {
#if WIDE_WINDOWS
  static add_windows_function *const add[2][4] = {{add_windows_1_1, add_windows_1_2, add_windows_1_4, add_windows_1_8},
                                                  {add_windows_2_1, add_windows_2_2, add_windows_2_4, add_windows_2_8}};
  int some = 3;
#else
  static add_windows_function *const add[1][3] = {{add_windows_1_1, add_windows_1_2, add_windows_1_4}};
  int some = 2;
#endif
  const ptrdiff_t panel_bytes = (ptrdiff_t)SUBBYTE_BLOCK_BYTES * windows->runs * windows->quads;
  for (int32_t row = 0; row < windows->rows; row += 1 << some) {
    while (row + (1 << some) > windows->rows) {
      --some;
    }
    int32_t *to = sums + SUBBYTE_TILE * row;
    for (int32_t panel = 0, most; panel < panels; panel += most) {
      most = panels - panel < WINDOW_PANELS ? 1 : WINDOW_PANELS;
      add[most - 1][some](weights + panel_bytes * panel, windows, row, start + SUBBYTE_PANEL * panel,
                          to + SUBBYTE_PANEL * panel);
    }
  }
}

// Four taps of the channels of a vector of bytes.
INLINE void add_taps(const int8_t *weights, const int8_t *const x[4], vector totals[4]) {
  vector taps[4];
  UNROLL
  for (int i = 0; i < 4; ++i) {
    taps[i] = load((const uint8_t *)x[i]);
  }
  const vector low[2] = {zip_low_bytes(taps[0], taps[1]), zip_low_bytes(taps[2], taps[3])};
  const vector high[2] = {zip_high_bytes(taps[0], taps[1]), zip_high_bytes(taps[2], taps[3])};
  const vector by_channel[4] = {zip_low_pairs(low[0], low[1]), zip_high_pairs(low[0], low[1]),
                                zip_low_pairs(high[0], high[1]), zip_high_pairs(high[0], high[1])};
  UNROLL
  for (int i = 0; i < 4; ++i) { // of each 16 channels 4
    totals[i] = add_products(totals[i], by_channel[i], load((const uint8_t *)weights + SUBBYTE_DEPTHWISE_TILE * i));
  }
}

TARGET static void depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start,
                                  int32_t *sums) {
  enum { BYTES = 4 * LANES };
  for (int32_t row = 0; row < windows->rows; ++row) {
    UNROLL
    for (int part = 0; part < PARTS; ++part) {
      if (BYTES * part >= windows->channels) {
        break;
      }
      const int8_t *digits = weights + BYTES * part;
      vector totals[4];
      UNROLL
      for (int i = 0; i < 4; ++i) {
        totals[i] = set_sums(0);
      }
      for (int32_t quad = 0; quad < windows->quads; ++quad) {
        const int8_t *x[4];
        UNROLL
        for (int i = 0; i < 4; ++i) {
          x[i] = windows->x[row] + windows->offsets[4 * quad + i] + BYTES * part;
        }
        add_taps(digits, x, totals);
        digits += 4 * SUBBYTE_DEPTHWISE_TILE;
      }
      vector in_order[4];
      transpose(totals, in_order);
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const int32_t c = BYTES * part + LANES * i;
        store(sums + SUBBYTE_TILE * row + c, add(in_order[i], load((const uint8_t *)(start + c))));
      }
    }
  }
}

#endif
