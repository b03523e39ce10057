// Decodes weights into bytes, for windows that share them. Written for compilers to vectorise.
#include "compute.h"

enum { QUAD_BYTES = 4 * SUBBYTE_PANEL }; // of 16 channels

// codes = 2^width * codes + digits, for the quads of one plane, whose `width` is a constant to the compiler.
static inline void add_digits(const uint8_t *blocks, int width, int32_t channels, int32_t quads, uint8_t *codes) {
  const uint8_t mask = (uint8_t)((1 << width) - 1);
  for (int32_t quad = 0; quad < quads; quad += 8 / width) {
    for (int field = 0; field < 8 && quad + field / width < quads; field += width) {
      if (channels == SUBBYTE_PANEL) {
        for (int32_t i = 0; i < QUAD_BYTES; ++i) {
          codes[i] = (uint8_t)(codes[i] << width) | (blocks[i] >> field & mask);
        }
      } else {
        for (int32_t i = 0; i < 4 * channels; ++i) {
          codes[i] = (uint8_t)(codes[i] << width) | (blocks[i] >> field & mask);
        }
      }
      codes += QUAD_BYTES;
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
  memset(codes, 0, (size_t)QUAD_BYTES * (size_t)quads);
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
  const int32_t quads = inputs / 4 + (inputs % 4 != 0);
  uint8_t *codes = (uint8_t *)weights;
  find_codes(panels, panel, quads, codes);
  if (is_linear) {
    const uint8_t offset = (uint8_t)panels->codebook[0], step = (uint8_t)(panels->codebook[1] - panels->codebook[0]);
    for (int32_t i = 0; i < QUAD_BYTES * quads; ++i) {
      codes[i] = (uint8_t)(step * codes[i] + offset);
    }
  } else {
    for (int32_t i = 0; i < QUAD_BYTES * quads; ++i) {
      weights[i] = panels->codebook[codes[i]];
    }
  }
  for (int32_t k = inputs; k < 4 * quads; ++k) {
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      weights[QUAD_BYTES * (quads - 1) + 4 * c + k % 4] = 0;
    }
  }
  memset(start, 0, sizeof *start * SUBBYTE_PANEL);
}
