// The variant in plain C, which defines correct. Written for compilers to vectorise.
#include "finish_int16.h"

static int runs_everywhere(void) {
  return 1;
}

// Preparing inputs

int32_t subbyte_portable_input_sum(const int8_t *x, int32_t features) {
  int32_t sum = 0;
  for (int32_t k = 0; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

void subbyte_portable_split(const int16_t *x, int32_t features, int8_t *high, int8_t *low) {
  for (int32_t k = 0; k < features; ++k) {
    high[k] = (int8_t)(x[k] >> 8);
    low[k] = (int8_t)(x[k] ^ 0x80); // less 128
  }
}

// Its instructions multiply signed bytes: there is nothing to flip.
void subbyte_portable_flip_inputs(const int8_t *from, size_t bytes, int8_t *to) {
  memcpy(to, from, bytes);
}

// Sums from packed weights

// sums[c] = 2^width * sums[c] + sum_k digit[c, k] * x[row, k] for one panel and one plane, whose `width` in bits is a
// constant to the compiler: the loop over channels, whose codes and sums are contiguous, vectorises.
static inline void add_plane(const uint8_t *blocks, int32_t width, int32_t channels, const subbyte_inputs *inputs,
                             int32_t row, int32_t *sums) {
  const uint32_t mask = (1u << width) - 1;
  for (int32_t c = 0; c < channels; ++c) {
    sums[c] = (int32_t)((uint32_t)sums[c] << width);
  }
  for (int32_t k = 0; k < inputs->features; k += 32 / width) { // of a block
    const int8_t *x = subbyte_stride(inputs, row, k - k % SUBBYTE_STRIDE) + k % SUBBYTE_STRIDE;
    for (int32_t field = 0; field < 8; field += width) {
      const int8_t *quad = x + SUBBYTE_QUAD * field / width;
      for (int32_t c = 0; c < channels; ++c) {
        uint32_t codes;
        memcpy(&codes, blocks + SUBBYTE_QUAD * c, sizeof codes);
        codes >>= field;
        sums[c] += (int32_t)(codes & mask) * quad[0] + (int32_t)(codes >> 8 & mask) * quad[1] +
                   (int32_t)(codes >> 16 & mask) * quad[2] + (int32_t)(codes >> 24 & mask) * quad[3];
      }
    }
    blocks += SUBBYTE_QUAD * channels;
  }
}

typedef void add_plane_function(const uint8_t *blocks, int32_t channels, const subbyte_inputs *inputs, int32_t row,
                                int32_t *sums);

static void add_plane_8(const uint8_t *blocks, int32_t channels, const subbyte_inputs *inputs, int32_t row,
                        int32_t *sums) {
  add_plane(blocks, 8, channels, inputs, row, sums);
}

static void add_plane_4(const uint8_t *blocks, int32_t channels, const subbyte_inputs *inputs, int32_t row,
                        int32_t *sums) {
  add_plane(blocks, 4, channels, inputs, row, sums);
}

static void add_plane_2(const uint8_t *blocks, int32_t channels, const subbyte_inputs *inputs, int32_t row,
                        int32_t *sums) {
  add_plane(blocks, 2, channels, inputs, row, sums);
}

static void add_plane_1(const uint8_t *blocks, int32_t channels, const subbyte_inputs *inputs, int32_t row,
                        int32_t *sums) {
  add_plane(blocks, 1, channels, inputs, row, sums);
}

void subbyte_portable_linear_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  static add_plane_function *const add[SUBBYTE_PLANES] = {add_plane_8, add_plane_4, add_plane_2, add_plane_1};
  for (int32_t row = 0; row < inputs->rows; ++row) {
    for (int32_t panel = 0; panel < panels->count; ++panel) {
      const int32_t channels = subbyte_panel_channels(panels, panel);
      int32_t *panel_sums = sums + SUBBYTE_TILE * row + SUBBYTE_PANEL * panel;
      memset(panel_sums, 0, sizeof *sums * SUBBYTE_PANEL);
      for (int32_t plane = SUBBYTE_PLANES - 1; plane >= 0; --plane) { // the narrowest has the highest bits
        if (panels->planes[plane]) {
          add[plane](panels->planes[plane] + panels->steps[plane] * (size_t)panel, channels, inputs, row, panel_sums);
        }
      }
    }
  }
}

void subbyte_portable_codebook_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums) {
  for (int32_t panel = 0; panel < panels->count; ++panel) {
    const int32_t channels = subbyte_panel_channels(panels, panel);
    for (int32_t row = 0; row < inputs->rows; ++row) {
      memset(sums + SUBBYTE_TILE * row + SUBBYTE_PANEL * panel, 0, sizeof *sums * SUBBYTE_PANEL);
    }
    for (int32_t k = 0; k < inputs->features; ++k) {
      for (int32_t c = 0; c < channels; ++c) {
        const int8_t weight = panels->codebook[subbyte_load_code(panels, panel, c, k)];
        for (int32_t row = 0; row < inputs->rows; ++row) {
          const int8_t x = subbyte_stride(inputs, row, k - k % SUBBYTE_STRIDE)[k % SUBBYTE_STRIDE];
          sums[SUBBYTE_TILE * row + SUBBYTE_PANEL * panel + c] += weight * x;
        }
      }
    }
  }
}

// Sums from decoded weights

// codes = 2^width * codes + digits, for the quads of one plane, whose `width` is a constant to the compiler.
static inline void add_digits(const uint8_t *blocks, int width, int32_t channels, int32_t quads, uint8_t *codes) {
  const uint8_t mask = (uint8_t)((1 << width) - 1);
  for (int32_t quad = 0; quad < quads; quad += 8 / width) {
    for (int field = 0; field < 8 && quad + field / width < quads; field += width) {
      if (channels == SUBBYTE_PANEL) {
        for (int32_t i = 0; i < SUBBYTE_QUAD_BYTES; ++i) {
          codes[i] = (uint8_t)(codes[i] << width) | (blocks[i] >> field & mask);
        }
      } else {
        for (int32_t i = 0; i < 4 * channels; ++i) {
          codes[i] = (uint8_t)(codes[i] << width) | (blocks[i] >> field & mask);
        }
      }
      codes += SUBBYTE_QUAD_BYTES;
    }
    blocks += 4 * channels;
  }
}

static void find_codes(const subbyte_panels *panels, int32_t panel, int32_t quads, uint8_t *codes) {
  const int32_t channels = subbyte_panel_channels(panels, panel);
  const uint8_t *planes[SUBBYTE_PLANES];
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    planes[plane] = panels->planes[plane] ? panels->planes[plane] + panels->steps[plane] * (size_t)panel : NULL;
  }
  memset(codes, 0, (size_t)SUBBYTE_QUAD_BYTES * (size_t)quads);
  if (planes[3]) { // the narrowest plane has the highest bits
    add_digits(planes[3], 1, channels, quads, codes);
  }
  if (planes[2]) {
    add_digits(planes[2], 2, channels, quads, codes);
  }
  if (planes[1]) {
    add_digits(planes[1], 4, channels, quads, codes);
  }
  if (planes[0]) {
    add_digits(planes[0], 8, channels, quads, codes);
  }
}

void subbyte_portable_decode(const subbyte_panels *panels, int32_t panel, int is_linear, int32_t inputs,
                             int8_t *weights, int32_t *start) {
  const int32_t quads = subbyte_quads(inputs);
  uint8_t *codes = (uint8_t *)weights;
  find_codes(panels, panel, quads, codes);
  if (is_linear) {
    const uint8_t offset = (uint8_t)panels->codebook[0], step = (uint8_t)(panels->codebook[1] - panels->codebook[0]);
    for (int32_t i = 0; i < SUBBYTE_QUAD_BYTES * quads; ++i) {
      codes[i] = (uint8_t)(step * codes[i] + offset);
    }
  } else {
    for (int32_t i = 0; i < SUBBYTE_QUAD_BYTES * quads; ++i) {
      weights[i] = panels->codebook[codes[i]];
    }
  }
  for (int32_t k = inputs; k < 4 * quads; ++k) {
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      weights[SUBBYTE_QUAD_BYTES * (quads - 1) + 4 * c + k % 4] = 0;
    }
  }
  memset(start, 0, sizeof *start * SUBBYTE_PANEL);
}

void subbyte_portable_window_sums(const int8_t *weights, int32_t panels, const subbyte_windows *windows,
                                  const int32_t *start, int32_t *sums) {
  for (int32_t row = 0; row < windows->rows; ++row) {
    const int8_t *quads = weights;
    for (int32_t panel = 0; panel < panels; ++panel) {
      int32_t *to = sums + SUBBYTE_TILE * row + SUBBYTE_PANEL * panel;
      memcpy(to, start + SUBBYTE_PANEL * panel, sizeof *to * SUBBYTE_PANEL);
      for (int32_t quad = 0; quad < windows->runs * windows->quads; ++quad, quads += SUBBYTE_QUAD_BYTES) {
        const int8_t *x =
            windows->x[row] + windows->offsets[quad / windows->quads] + SUBBYTE_QUAD * (quad % windows->quads);
        for (int32_t i = 0; i < SUBBYTE_QUAD_BYTES; ++i) {
          to[i / SUBBYTE_QUAD] += quads[i] * x[i % SUBBYTE_QUAD];
        }
      }
    }
  }
}

void subbyte_portable_convolve(const subbyte_block *block) {
  const subbyte_epilogue *epilogue = block->epilogue;
  const subbyte_isa *isa = block->isa;
  const int32_t most = block->is_depthwise ? (int32_t)SUBBYTE_ROWS : (int32_t)SUBBYTE_WINDOWS;
  subbyte_windows windows = {
      .offsets = block->offsets, .runs = block->runs, .quads = block->quads, .channels = block->channels};
  for (int32_t position = 0; position < block->count; position += most) {
    int32_t sums[SUBBYTE_WINDOWS * SUBBYTE_TILE];
    windows.rows = subbyte_smaller(block->count - position, most);
    for (int32_t row = 0; row < windows.rows; ++row) {
      windows.x[row] = block->strip + block->positions[position + row];
    }
    if (block->is_depthwise) {
      isa->depthwise_sums(block->weights, &windows, block->start, sums);
    } else {
      isa->window_sums(block->weights, subbyte_whole_panels(block->channels) / SUBBYTE_PANEL, &windows, block->start,
                       sums);
    }
    isa->finish[epilogue->rule](epilogue, block->first, block->channels, windows.rows, NULL, sums,
                                block->output + (ptrdiff_t)epilogue->output_channels * position);
  }
}

void subbyte_portable_depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start,
                                     int32_t *sums) {
  const int32_t whole = subbyte_whole_panels(windows->channels);
  for (int32_t row = 0; row < windows->rows; ++row, sums += SUBBYTE_TILE) {
    memcpy(sums, start, sizeof *sums * (size_t)whole);
    for (int32_t tap = 0; tap < SUBBYTE_QUAD * windows->quads; ++tap) {
      const int8_t *x = windows->x[row] + windows->offsets[tap];
      for (int32_t c = 0; c < whole; c += SUBBYTE_QUAD) { // whose weights are neighbours
        const int32_t at =
            (tap / SUBBYTE_QUAD * SUBBYTE_QUAD + c % SUBBYTE_PANEL / SUBBYTE_QUAD) * SUBBYTE_DEPTHWISE_TILE +
            c / SUBBYTE_PANEL * 16;
        for (int32_t i = 0; i < SUBBYTE_QUAD; ++i) {
          sums[c + i] += weights[at + SUBBYTE_QUAD * i + tap % SUBBYTE_QUAD] * x[c + i];
        }
      }
    }
  }
}

// Finish

void subbyte_portable_finish_int8(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                                  const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int8(epilogue, first, channels, rows, input_sums, sums, output);
}

void subbyte_portable_finish_int16(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                                   const int32_t *input_sums, const int32_t *sums, void *output) {
  subbyte_finish_int16(epilogue, first, channels, rows, input_sums, sums, output);
}

const subbyte_isa subbyte_portable = {
    .name = "portable",
    .runs = runs_everywhere,
    .input_sum = subbyte_portable_input_sum,
    .split = subbyte_portable_split,
    .linear_sums = subbyte_portable_linear_sums,
    .codebook_sums = subbyte_portable_codebook_sums,
    SUBBYTE_PORTABLE_DECODING,
    .depthwise_sums = subbyte_portable_depthwise_sums,
    .finish = {[SUBBYTE_REQUANTIZE_FLOAT32] = subbyte_portable_finish_int8,
               [SUBBYTE_REQUANTIZE_FIXED_POINT] = subbyte_portable_finish_int16},
};
