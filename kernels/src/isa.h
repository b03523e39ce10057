// A variant: the loops of one instruction set, in three groups. A layer is computed by preparing its inputs, by sums of
// products, and by a finish that rounds them.
//
// A new variant is a file that defines a `const subbyte_isa`, its condition below and its line in isa.c. It fills every
// slot: with a loop of its own, or with the portable one.
#ifndef SUBBYTE_ISA_H
#define SUBBYTE_ISA_H

#include "layout.h"

enum {
  SUBBYTE_ROWS = 4,    // of input that share a decoded vector of weights
  SUBBYTE_WINDOWS = 8, // of a convolution that share a loaded one
  // Quads of a chunk of a convolution; shorter ones hold wherever they start.
  SUBBYTE_SHORT_CHUNK = 4,
// Panels that are computed at once. All that is kept on the stack for them takes about 10 KB, or 2 KB without vectors.
#if UINTPTR_MAX > UINT32_MAX || defined(__ARM_NEON)
  SUBBYTE_TILE_PANELS = 16,
  SUBBYTE_DEPTHWISE_PANELS = 4, // of a depthwise convolution: a register of 64 bytes
  SUBBYTE_DECODES = 1,          // there is memory for decoded weights
#else
  SUBBYTE_TILE_PANELS = 2,
  SUBBYTE_DEPTHWISE_PANELS = 2,
  SUBBYTE_DECODES = 0,
#endif
  SUBBYTE_TILE = SUBBYTE_TILE_PANELS * SUBBYTE_PANEL, // their output channels
  SUBBYTE_DEPTHWISE_TILE = SUBBYTE_DEPTHWISE_PANELS * SUBBYTE_PANEL,
};

// Rows of input. What does not fill a stride of 32 lies in the tail, with zeros behind it.
typedef struct subbyte_inputs {
  int32_t rows;                  // 1 to 4
  int32_t features;              // of each
  const int8_t *x[SUBBYTE_ROWS]; // where each starts; beyond `rows` this is a row that exists
  int8_t tail[SUBBYTE_ROWS][SUBBYTE_STRIDE];
  int32_t sums[SUBBYTE_ROWS]; // of the inputs of each row
} subbyte_inputs;

// The 32 inputs of a row that start with `first`, a multiple of 32.
static inline const int8_t *subbyte_stride(const subbyte_inputs *inputs, int32_t row, int32_t first) {
  const int whole = first + SUBBYTE_STRIDE <= inputs->features;
  return whole ? inputs->x[row] + first : inputs->tail[row];
}

// Weights: panels of 16 output channels that lie one behind the other. The last may have fewer.
typedef struct subbyte_panels {
  const uint8_t *planes[SUBBYTE_PLANES]; // of 8, 4, 2 and 1 bits: the blocks of the first panel; NULL for no such bits
  size_t steps[SUBBYTE_PLANES];          // bytes from a panel to the next
  int32_t count;                         // of panels: 1 to SUBBYTE_TILE_PANELS
  int32_t channels;                      // of all panels
  int32_t weight_bits;
  const int8_t *codebook; // 256 values, those of the codes first
} subbyte_panels;

// The channels of one panel. Its blocks have 4 bytes for each.
static inline int32_t subbyte_panel_channels(const subbyte_panels *panels, int32_t panel) {
  const int32_t rest = panels->channels - SUBBYTE_PANEL * panel;
  return rest < SUBBYTE_PANEL ? rest : SUBBYTE_PANEL;
}

// The code of channel `c` of one panel for input `k`.
static inline int32_t subbyte_load_code(const subbyte_panels *panels, int32_t panel, int32_t c, int32_t k) {
  const int32_t channels = subbyte_panel_channels(panels, panel);
  int32_t code = 0, bit = 0;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (panels->planes[plane]) {
      const int32_t width = subbyte_plane_width(plane), span = 32 / width, field = k % span / 4 * width;
      const uint8_t *blocks = panels->planes[plane] + panels->steps[plane] * (size_t)panel;
      const int32_t byte = blocks[4 * (k / span * channels + c) + k % 4];
      code |= (byte >> field & ((1 << width) - 1)) << bit;
      bit += width;
    }
  }
  return code;
}

// sums[SUBBYTE_TILE * r + c] = sum_k value(code[c, k]) * x[r, k], for channel c of the panels.
//
// 64 bytes of a shorter block may be read. All 16 sums of a panel are written, those beyond its channels with any
// value; so may be those of rows beyond `rows`.
typedef void subbyte_sums(const subbyte_panels *panels, const subbyte_inputs *inputs, int32_t *sums);

// weights[k / 4, c, k % 4] = codebook[code[c, k]] for one of the panels; 0 for what fills up the last quad of its
// inputs. Of 16 channels those that the panel lacks may be anything.
//
// start[c]: where the sums of these weights start, to take off what the flip adds: -flip * sum_k weights[c, k].
typedef void subbyte_decode(const subbyte_panels *panels, int32_t panel, int is_linear, int32_t inputs, int8_t *weights,
                            int32_t *start);

// to[i] = from[i] ^ flip
typedef void subbyte_flip(const int8_t *from, size_t bytes, int8_t *to);

// Windows of a convolution: inputs of each lie in runs, at the same offsets from where it starts.
//
// A variant whose instruction multiplies unsigned inputs has a `flip` of 128: it gets x ^ 128, which is x + 128.
typedef struct subbyte_windows {
  int32_t rows;                     // 1 to 8: windows
  const int8_t *x[SUBBYTE_WINDOWS]; // where each starts
  const int32_t *offsets;           // of the runs; of a depthwise convolution, of its taps
  int32_t runs, quads;              // quads of inputs of a run; of a depthwise convolution, of taps
  int32_t channels;                 // of a depthwise convolution; sums beyond may be anything
} subbyte_windows;

// sums[SUBBYTE_TILE * r + c] = start[c] + sum_k weights[c / 16, k / 4, c % 16, k % 4] * x[r, k], for the channels of
// some whole panels. All runs, of 4 * quads inputs each, are one behind the other in k.
typedef void subbyte_window_sums(const int8_t *weights, int32_t panels, const subbyte_windows *windows,
                                 const int32_t *start, int32_t *sums);

// Positions of a convolution, which lie one behind the other in the output, and the decoded panels that they meet.
typedef struct subbyte_block {
  const subbyte_isa *isa;
  const subbyte_epilogue *epilogue; // of sums of weights
  const int8_t *weights;            // as subbyte_window_sums or subbyte_depthwise_sums has them, or by taps
  const int32_t *start;
  int32_t first, channels;  // of the output, at most a tile
  int32_t is_depthwise;     // then SUBBYTE_DEPTHWISE_TILE channels at most
  int32_t chunk;            // see subbyte_prepared
  const int8_t *strip;      // behind the last quad of a run nothing may be read
  int32_t count;            // of positions
  const int32_t *positions; // where the window of each starts in the strip
  const int32_t *offsets;   // of the runs from there
  int32_t runs, quads;      // quads of inputs of a run; of a depthwise convolution, taps and quads of taps
  int8_t *output;           // channel `first` of the first position
} subbyte_block;

// Sums of a block, rounded.
typedef void subbyte_convolve(const subbyte_block *block);

// sums[SUBBYTE_TILE * r + c] = start[c] + sum_k weight[k, c] * x[r, k, c], for the SUBBYTE_DEPTHWISE_TILE channels at
// every tap. The weights lie where unpacking the bytes of four taps, two by two, brings their inputs: [k / 4, c % 16 /
// 4, c / 16, c % 4, k % 4].
typedef void subbyte_depthwise_sums(const int8_t *weights, const subbyte_windows *windows, const int32_t *start,
                                    int32_t *sums);

// The sum of some inputs.
typedef int32_t subbyte_input_sum(const int8_t *x, int32_t features);

// high[k] = x[k] >> 8, low[k] = (x[k] & 255) - 128: a row of 16-bit inputs as two rows of bytes.
typedef void subbyte_split(const int16_t *x, int32_t features, int8_t *high, int8_t *low);

// Sums to the codes of output channels [first, first + channels), at most a tile, of some rows.
//
// input_sums: of each row of inputs; NULL where the epilogue has no offset. output: int8 or int16, as the rule says,
// where the first channel of row 0 is.
typedef void subbyte_finish(const subbyte_epilogue *epilogue, int32_t first, int32_t channels, int32_t rows,
                            const int32_t *input_sums, const int32_t *sums, void *output);

struct subbyte_isa {
  // Prepare inputs.
  subbyte_input_sum *input_sum;
  subbyte_split *split;
  subbyte_flip *flip_inputs;
  // Sums: from packed weights, and from decoded ones.
  subbyte_sums *linear_sums, *codebook_sums;
  subbyte_decode *decode;
  subbyte_window_sums *window_sums; // unused where `convolve` does without
  subbyte_convolve *convolve;
  subbyte_depthwise_sums *depthwise_sums; // likewise
  // Finish, by rule.
  subbyte_finish *finish[SUBBYTE_REQUANTIZE_FIXED_POINT + 1];

  int (*runs)(void); // on this processor
  const char *name;
  uint8_t flip;            // of the inputs that meet decoded weights, and what `decode` takes off for it
  uint8_t prefers_decoded; // convolutions decode a panel for many positions, where there is memory for it
  uint8_t has_chunks;      // `convolve` adds up products in 16 bits
  // It does so for a depthwise convolution, and takes weights as [k, SUBBYTE_DEPTHWISE_TILE].
  uint8_t has_depthwise_chunks;
};

#if defined(__x86_64__) && defined(__GNUC__)
#define SUBBYTE_X86
extern const subbyte_isa subbyte_avx512vnni, subbyte_avx2;
#if defined(__clang__) || __GNUC__ >= 11
#define SUBBYTE_AVXVNNI
extern const subbyte_isa subbyte_avxvnni;
#endif
#elif defined(__aarch64__) && defined(__GNUC__)
#define SUBBYTE_ARM64
extern const subbyte_isa subbyte_neon_dotprod;
#endif

// On 32-bit Arm if all of the program may use it: -mfpu=neon, or Android.
#if defined(__ARM_NEON) && defined(__GNUC__)
#define SUBBYTE_NEON
extern const subbyte_isa subbyte_neon;
#endif

// Of the M class from Cortex-M4 on: the compiler's -mcpu decides whether all of the program may use it.
#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_NEON) && defined(__GNUC__)
#define SUBBYTE_DSP
extern const subbyte_isa subbyte_dsp;
#endif

extern const subbyte_isa subbyte_portable;
subbyte_input_sum subbyte_portable_input_sum;
subbyte_split subbyte_portable_split;
subbyte_flip subbyte_portable_flip_inputs;
subbyte_sums subbyte_portable_linear_sums, subbyte_portable_codebook_sums;
subbyte_decode subbyte_portable_decode;
subbyte_window_sums subbyte_portable_window_sums;
subbyte_convolve subbyte_portable_convolve; // by the other slots
subbyte_depthwise_sums subbyte_portable_depthwise_sums;
subbyte_finish subbyte_portable_finish_int8, subbyte_portable_finish_int16;

// The slots of a variant that decodes no weights itself: its convolutions meet the packed ones.
#define SUBBYTE_PORTABLE_DECODING                                                                                      \
  .flip_inputs = subbyte_portable_flip_inputs, .decode = subbyte_portable_decode,                                      \
  .window_sums = subbyte_portable_window_sums, .convolve = subbyte_portable_convolve

// What the sums of codes lack of those of weights, for a row: offset * sum of inputs.
static inline int32_t subbyte_input_offset(const subbyte_epilogue *epilogue, const int32_t *input_sums, int32_t row) {
  return epilogue->offset != 0 ? epilogue->offset * input_sums[row] : 0;
}

#endif
