// The variant in plain C, which defines correct. Written for compilers to vectorise.
#include "finish.h"

enum { QUAD = 4 }; // inputs side by side in a block, one byte each

static int runs_everywhere(void) {
  return 1;
}

static int32_t input_sum(const int8_t *x, int32_t features) {
  int32_t sum = 0;
  for (int32_t k = 0; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

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
      const int8_t *quad = x + QUAD * field / width;
      for (int32_t c = 0; c < channels; ++c) {
        uint32_t codes;
        memcpy(&codes, blocks + QUAD * c, sizeof codes);
        codes >>= field;
        sums[c] += (int32_t)(codes & mask) * quad[0] + (int32_t)(codes >> 8 & mask) * quad[1] +
                   (int32_t)(codes >> 16 & mask) * quad[2] + (int32_t)(codes >> 24 & mask) * quad[3];
      }
    }
    blocks += QUAD * channels;
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

void subbyte_portable_depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start,
                                     int32_t *sums) {
  const int32_t whole = subbyte_whole_panels(windows->channels);
  for (int32_t row = 0; row < windows->rows; ++row, sums += SUBBYTE_TILE) {
    memcpy(sums, start, sizeof *sums * (size_t)whole);
    for (int32_t tap = 0; tap < QUAD * windows->quads; ++tap) {
      const int8_t *x = windows->x[row] + windows->offsets[tap];
      for (int32_t c = 0; c < whole; c += QUAD) { // whose weights are neighbours
        const int32_t at =
            (tap / QUAD * QUAD + c % SUBBYTE_PANEL / QUAD) * SUBBYTE_DEPTHWISE_TILE + c / SUBBYTE_PANEL * 16;
        for (int32_t i = 0; i < QUAD; ++i) {
          sums[c + i] += weights[at + QUAD * i + tap % QUAD] * x[c + i];
        }
      }
    }
  }
}

static void finish(const subbyte_header *header, const uint8_t *layer, int32_t first, int32_t channels, int32_t rows,
                   const int32_t *input_sums, const int32_t *sums, int8_t *output) {
  subbyte_finish_rows(header, layer, first, channels, rows, input_sums, sums, output);
}

const subbyte_isa subbyte_portable = {
    .name = "portable",
    .runs = runs_everywhere,
    .linear_sums = subbyte_portable_linear_sums,
    .codebook_sums = subbyte_portable_codebook_sums,
    .depthwise_sums = subbyte_portable_depthwise_sums,
    .input_sum = input_sum,
    .finish = finish,
};
