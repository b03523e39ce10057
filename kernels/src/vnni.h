// The loops of the variants that multiply unsigned by signed bytes and add four products to a 32-bit sum (VNNI): sums
// from packed weights. Those from decoded ones are in vnni_decoded.h.
//
// The file that includes it defines, for its registers: TARGET, the attribute of its functions; `vector`; PARTS,
// MOST_VECTORS and MOST_SUMS; WIDE_WINDOWS, 1 where two panels by 8 windows have room; and the operations that are
// used here.
#ifndef SUBBYTE_VNNI_H
#define SUBBYTE_VNNI_H

#define INLINE static inline __attribute__((always_inline)) TARGET
// gcc unrolls these loops only if asked, and keeps an array in registers only if its loops are unrolled.
#define UNROLL _Pragma("GCC unroll 16")

enum {
  LANES = SUBBYTE_PANEL / PARTS,        // output channels of a vector, with a quad of inputs each
  WINDOW_PANELS = WIDE_WINDOWS ? 2 : 1, // at once
  MOST_TOTALS = WINDOW_PANELS * PARTS * SUBBYTE_WINDOWS,
};

// What is computed at once. All of it is constant to the compiler.
typedef struct shape {
  int width;   // of the plane
  int vectors; // they share the loaded inputs
  int rows;    // they share the digits
  int places;  // of digits in a byte that have sums of their own
  int chains;  // of sums, which take turns with the blocks: an addition need not wait for the last one
} shape;

// As many sums as there is room for, or 8 of each kind: then none waits for its last addition.
INLINE shape make_shape(int width, int vectors, int rows) {
  const int room = MOST_SUMS / (vectors * rows), places = 8 / width < room ? 8 / width : room;
  const int chains = vectors * rows < 4 ? (room < 8 ? room : 8) / places : 1;
  return (shape){width, vectors, rows, places, chains};
}

INLINE int sum_index(shape shape, int chain, int place, int row, int vector) {
  return ((chain * shape.places + place) * shape.rows + row) * shape.vectors + vector;
}

INLINE int32_t load_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, sizeof quad);
  return quad;
}

// A digit is not shifted down: it is multiplied where it stands in its byte, and the sum is shifted in the end, which
// is exact. No sum is larger than that of 8 bits, which fits (SUBBYTE_MAX_FEATURES).
INLINE void add_block(const uint8_t *const blocks[MOST_VECTORS], const int8_t *const x[SUBBYTE_ROWS], shape shape,
                      int chain, vector sums[MOST_SUMS]) {
  vector codes[MOST_VECTORS];
  UNROLL
  for (int v = 0; v < shape.vectors; ++v) {
    codes[v] = load(blocks[v]);
    __asm__("" : "+v"(codes[v])); // or gcc loads it anew for each mask
  }
  UNROLL
  for (int field = 0; field < 8 / shape.width; ++field) {
    const int place = field % shape.places;
    const vector mask = set_bytes(((1 << shape.width) - 1) << (shape.width * place));
    vector digits[MOST_VECTORS];
    UNROLL
    for (int v = 0; v < shape.vectors; ++v) {
      if (field > 0 && place == 0) {
        codes[v] = shift_bytes_right(codes[v], shape.width * shape.places);
      }
      digits[v] = shape.width == 8 ? codes[v] : and(codes[v], mask);
    }
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      const vector quad = set_sums(load_quad(x[r] + 4 * field));
      UNROLL
      for (int v = 0; v < shape.vectors; ++v) {
        vector *sum = &sums[sum_index(shape, chain, place, r, v)];
        *sum = add_products(*sum, digits[v], quad);
      }
    }
  }
}

// totals = 2^width * totals + the sums of all chains and places
INLINE void add_sums(const vector sums[MOST_SUMS], shape shape, vector totals[MOST_SUMS]) {
  UNROLL
  for (int i = 0; i < shape.rows * shape.vectors; ++i) {
    totals[i] = shift_sums_left(totals[i], shape.width);
    UNROLL
    for (int place = 0; place < shape.places; ++place) {
      UNROLL
      for (int chain = 0; chain < shape.chains; ++chain) {
        const vector sum = sums[sum_index(shape, chain, place, 0, 0) + i];
        totals[i] = add(totals[i], shift_sums_right(sum, shape.width * place));
      }
    }
  }
}

INLINE void step_blocks(const uint8_t *blocks[MOST_VECTORS], const size_t block_bytes[MOST_VECTORS], int vectors) {
  UNROLL
  for (int v = 0; v < vectors; ++v) {
    blocks[v] += block_bytes[v];
  }
}

INLINE void add_plane(const uint8_t *blocks[MOST_VECTORS], const size_t block_bytes[MOST_VECTORS],
                      const subbyte_inputs *inputs, shape shape, vector totals[MOST_SUMS]) {
  vector sums[MOST_SUMS];
  UNROLL
  for (int i = 0; i < shape.chains * shape.places * shape.rows * shape.vectors; ++i) {
    sums[i] = set_sums(0);
  }
  const int32_t span = 32 / shape.width; // inputs of a block
  const int32_t whole = inputs->features - inputs->features % SUBBYTE_STRIDE;
  const int8_t *x[SUBBYTE_ROWS];
  int32_t first = 0;
  for (; first < whole; first += SUBBYTE_STRIDE) {
    UNROLL
    for (int block = 0; block < shape.width; ++block) {
      UNROLL
      for (int r = 0; r < shape.rows; ++r) {
        x[r] = inputs->x[r] + first + span * block;
      }
      add_block(blocks, x, shape, block % shape.chains, sums);
      step_blocks(blocks, block_bytes, shape.vectors);
    }
  }
#pragma GCC unroll 1
  for (; first < inputs->features; first += span) {
    UNROLL
    for (int r = 0; r < shape.rows; ++r) {
      x[r] = inputs->tail[r] + (first - whole);
    }
    add_block(blocks, x, shape, 0, sums);
    step_blocks(blocks, block_bytes, shape.vectors);
  }
  add_sums(sums, shape, totals);
}

INLINE void add_panels(const subbyte_panels *panels, int32_t first, const subbyte_inputs *inputs, int count, int rows,
                       int32_t *sums) {
  const int vectors = PARTS * count;
  vector totals[MOST_SUMS];
  UNROLL
  for (int i = 0; i < vectors * rows; ++i) {
    totals[i] = set_sums(0);
  }
  UNROLL
  for (int plane = SUBBYTE_PLANES - 1; plane >= 0; --plane) { // the narrowest has the highest bits
    if (panels->planes[plane]) {
      const uint8_t *blocks[MOST_VECTORS];
      size_t block_bytes[MOST_VECTORS];
      UNROLL
      for (int v = 0; v < vectors; ++v) {
        const int32_t panel = first + v / PARTS;
        blocks[v] = panels->planes[plane] + panels->steps[plane] * (size_t)panel + 4 * LANES * (v % PARTS);
        // All but the last are known to be whole.
        block_bytes[v] =
            v / PARTS < count - 1 ? SUBBYTE_BLOCK_BYTES : 4 * (size_t)subbyte_panel_channels(panels, panel);
      }
      add_plane(blocks, block_bytes, inputs, make_shape(8 >> plane, vectors, rows), totals);
    }
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int v = 0; v < vectors; ++v) {
      store(sums + SUBBYTE_TILE * r + SUBBYTE_PANEL * first + LANES * v, totals[r * vectors + v]);
    }
  }
}

// `most` panels at once, and the rest by halves.
INLINE void add_rows(const subbyte_panels *panels, const subbyte_inputs *inputs, int most, int rows, int32_t *sums) {
  int32_t panel = 0;
  for (; panel + most <= panels->count; panel += most) {
    add_panels(panels, panel, inputs, most, rows, sums);
  }
  if (most > 2 && panel + 2 <= panels->count) {
    add_panels(panels, panel, inputs, 2, rows, sums);
    panel += 2;
  }
  if (most > 1 && panel < panels->count) {
    add_panels(panels, panel, inputs, 1, rows, sums);
  }
}

TARGET static void linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  if (inputs->rows == 1) {
    add_rows(panels, inputs, MOST_VECTORS / PARTS, 1, sums);
  } else if (inputs->rows == 2) { // or one of 16 bits
    add_rows(panels, inputs, MOST_VECTORS / PARTS, 2, sums);
  } else {
    add_rows(panels, inputs, MOST_VECTORS / PARTS / 2, SUBBYTE_ROWS, sums);
  }
}

// The codes of a vector for the quad of inputs that starts with `k`, from all planes.
INLINE vector gather_codes(const uint8_t *const blocks[SUBBYTE_PLANES], size_t block_bytes, int part, int bits, int k) {
  vector codes = set_sums(0);
  int bit = 0;
  UNROLL
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    const int width = 8 >> plane;
    if (bits & width) {
      const vector block = load(blocks[plane] + block_bytes * (size_t)(k * width / 32) + 4 * LANES * part);
      const vector digits = and(shift_bytes_right(block, k * width / 4 % 8), set_bytes((1 << width) - 1));
      codes = or (codes, shift_bytes_left(digits, bit));
      bit += width;
    }
  }
  return codes;
}

// The value of each code, 16 entries of the codebook at a time.
INLINE vector look_up(vector codes, int bits, const vector entries[16]) {
  if (bits <= 4) {
    return shuffle(entries[0], codes);
  }
  const vector low = and(codes, set_bytes(15)), high = and(shift_bytes_right(codes, 4), set_bytes(15));
  vector values = set_sums(0);
#pragma GCC unroll 1
  for (int i = 0; i < 1 << (bits - 4); ++i) {
    values = or_if_equal(values, high, set_bytes(i), shuffle(entries[i], low));
  }
  return values;
}

INLINE void start_codebook(const subbyte_inputs *inputs, int rows, int chains, vector totals[SUBBYTE_ROWS * PARTS]) {
  UNROLL
  for (int i = 0; i < PARTS * rows * chains; ++i) { // the entries have 128 too much
    const int row = i / PARTS / chains, chain = i / PARTS % chains;
    totals[i] = set_sums(chain ? 0 : -128 * inputs->sums[row]);
  }
}

// One panel and some rows: all four, or one. Chains of sums that do not wait for each other hide the latency.
INLINE void add_codebook(const subbyte_panels *panels, int32_t panel, int bits, const vector entries[16],
                         const subbyte_inputs *inputs, int rows, int32_t *sums) {
  const int chains = SUBBYTE_ROWS / rows;
  const size_t block_bytes = 4 * (size_t)subbyte_panel_channels(panels, panel);
  const uint8_t *blocks[SUBBYTE_PLANES];
  for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    blocks[plane] = panels->planes[plane] ? panels->planes[plane] + panels->steps[plane] * (size_t)panel : NULL;
  }
  vector totals[SUBBYTE_ROWS * PARTS];
  start_codebook(inputs, rows, chains, totals);
  for (int32_t first = 0; first < inputs->features; first += SUBBYTE_STRIDE) {
    const int32_t rest = inputs->features - first;
    UNROLL
    for (int quad = 0; quad < SUBBYTE_STRIDE / 4; ++quad) {
      if (4 * quad < rest) {
        UNROLL
        for (int part = 0; part < PARTS; ++part) {
          const vector values = look_up(gather_codes(blocks, block_bytes, part, bits, 4 * quad), bits, entries);
          UNROLL
          for (int r = 0; r < rows; ++r) {
            const vector inputs_of_quad = set_sums(load_quad(subbyte_stride(inputs, r, first) + 4 * quad));
            vector *total = &totals[(r * chains + quad % chains) * PARTS + part];
            *total = add_products(*total, values, inputs_of_quad);
          }
        }
      }
    }
    for (int plane = 0; plane < SUBBYTE_PLANES; ++plane) { // a stride has as many blocks as the plane has bits
      blocks[plane] = blocks[plane] ? blocks[plane] + block_bytes * (8 >> plane) : NULL;
    }
  }
  UNROLL
  for (int r = 0; r < rows; ++r) {
    UNROLL
    for (int part = 0; part < PARTS; ++part) {
      vector total = totals[r * chains * PARTS + part];
      UNROLL
      for (int chain = 1; chain < chains; ++chain) {
        total = add(total, totals[(r * chains + chain) * PARTS + part]);
      }
      store(sums + SUBBYTE_TILE * r + SUBBYTE_PANEL * panel + LANES * part, total);
    }
  }
}

INLINE void add_codebooks(const subbyte_panels *panels, int bits, const vector entries[16],
                          const subbyte_inputs *inputs, int32_t *sums) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    if (inputs->rows > 1) {
      add_codebook(panels, panel, bits, entries, inputs, SUBBYTE_ROWS, sums);
    } else {
      add_codebook(panels, panel, bits, entries, inputs, 1, sums);
    }
  }
}

TARGET static void codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  vector entries[16];
  for (int i = 0; i < 16; ++i) { // plus 128: the instruction takes unsigned weights
    const __m128i sixteen = _mm_loadu_si128((const __m128i *)(const void *)(panels->codebook + 16 * i));
    entries[i] = repeat(_mm_xor_si128(sixteen, _mm_set1_epi8(-128)));
  }
#define ADD_CODEBOOKS_OF(bits)                                                                                         \
  case bits:                                                                                                           \
    add_codebooks(panels, bits, entries, inputs, sums);                                                                \
    break
  switch (panels->weight_bits) {
    ADD_CODEBOOKS_OF(1);
    ADD_CODEBOOKS_OF(2);
    ADD_CODEBOOKS_OF(3);
    ADD_CODEBOOKS_OF(4);
    ADD_CODEBOOKS_OF(5);
    ADD_CODEBOOKS_OF(6);
    ADD_CODEBOOKS_OF(7);
    ADD_CODEBOOKS_OF(8);
  }
}

#endif
