// Convolutions from decoded weights: where many positions share them, weights are decoded into bytes first.
#include "conv_2d.h"

enum {
  FEW_POSITIONS = 8,      // do not pay for decoding
  MOST_WEIGHTS = 1 << 17, // bytes of decoded weights
};

// Where things lie in the scratch memory.
typedef struct places {
  size_t weights, start, offsets, positions, end;
  int32_t panels; // that are decoded at once
} places;

static int has_many_positions(const subbyte_image *image) {
  return image->batch >= FEW_POSITIONS || image->rows.output_size >= FEW_POSITIONS ||
         image->batch * image->rows.output_size * subbyte_smaller(image->columns.output_size, FEW_POSITIONS) >=
             FEW_POSITIONS;
}

static places find_places(const subbyte_header *header, const subbyte_image *image, const subbyte_window *window,
                          size_t from) {
  const size_t panel_bytes = SUBBYTE_QUAD_BYTES * (size_t)window->quads;
  const int32_t panels = subbyte_whole_panels(header->output_channels / header->groups) / SUBBYTE_PANEL;
  places at = {.weights = from};
  at.panels = subbyte_smaller(subbyte_smaller(panels, SUBBYTE_TILE_PANELS), (int32_t)(MOST_WEIGHTS / panel_bytes));
  at.start = at.weights + panel_bytes * (size_t)at.panels;
  at.offsets = at.start + sizeof(int32_t) * (size_t)(SUBBYTE_PANEL * at.panels);
  at.positions = at.offsets + sizeof(int32_t) * (size_t)window->runs;
  at.end = at.positions + sizeof(int32_t) * (size_t)(image->rows.tile * image->columns.tile);
  return at;
}

size_t subbyte_decoded_scratch(const subbyte_header *header, const subbyte_image *image, const subbyte_window *window,
                               size_t from) {
  const int fits = SUBBYTE_QUAD_BYTES * (size_t)window->quads <= MOST_WEIGHTS;
  return SUBBYTE_DECODES && fits && has_many_positions(image) ? find_places(header, image, window, from).end : 0;
}

static uint32_t load_word(const int8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

// Moves the weights of a panel, whose inputs are one behind the other, to where every run starts a quad. That is never
// further to the front, so the last one goes first.
static void spread_runs(const subbyte_window *window, int8_t *weights) {
  const int32_t run_quads = subbyte_quads(window->run);
  for (int32_t quad = window->quads - 1; quad >= 0; --quad) {
    const int32_t done = quad % run_quads * 4, k = quad / run_quads * window->run + done, rest = window->run - done;
    const int shift = 8 * (k % 4);
    const uint32_t mask = rest < 4 ? (1u << 8 * rest) - 1 : ~0u;
    const int8_t *from = weights + (ptrdiff_t)SUBBYTE_QUAD_BYTES * (k / 4);
    const int needs_next = k % 4 + (rest < 4 ? rest : 4) > 4;
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      uint32_t word = load_word(from + 4 * c) >> shift;
      word |= needs_next ? load_word(from + SUBBYTE_QUAD_BYTES + 4 * c) << (32 - shift) : 0;
      word &= mask;
      memcpy(weights + (ptrdiff_t)SUBBYTE_QUAD_BYTES * quad + 4 * c, &word, sizeof word);
    }
  }
}

// Decodes the weights of the call's channels.
static void decode(const subbyte_convolution *call, int8_t *weights, int32_t *start) {
  const subbyte_panels panels = subbyte_find_panels(call->layer, call->channel, call->end - call->channel);
  for (int32_t panel = 0; panel < panels.count; ++panel) {
    subbyte_decode_panel(call->layer, &panels, panel, weights, start + SUBBYTE_PANEL * panel);
    if (call->window.run % 4 != 0) {
      spread_runs(&call->window, weights);
    }
    weights += (ptrdiff_t)SUBBYTE_QUAD_BYTES * call->window.quads;
  }
}

// Whether a strip would be nothing but a copy of the input, which ends where the last window does.
static int is_the_input(const subbyte_convolution *call) {
  const subbyte_image *image = call->image;
  return image->rows.output_size == 1 && image->columns.kernel == 1 && image->columns.stride == 1 &&
         image->rows.kernel == 1 && image->batch == 1 && call->window.channels == image->channels &&
         image->channels % SUBBYTE_QUAD == 0 && call->slice.flip == 0;
}

// The block's channels of all tiles of the call.
static void compute_channels(const subbyte_convolution *call, subbyte_block *block, int32_t *positions) {
  const int32_t channels = call->window.channels;
  for (int32_t index = call->first; index < call->last; ++index) {
    const subbyte_tile tile = subbyte_find_tile(call->image, index);
    if (is_the_input(call)) {
      block->strip = call->image->input + (ptrdiff_t)channels * tile.first;
    } else {
      subbyte_fill_strip(call->image, &tile, &call->slice, call->strip);
    }
    subbyte_find_positions(call->image, &tile, channels, positions);
    block->count = tile.rows * tile.columns;
    block->output = call->output + (ptrdiff_t)block->epilogue->output_channels * tile.first + call->channel;
    call->layer->isa->convolve(block);
  }
}

void subbyte_convolve_decoded(subbyte_convolution *call, int8_t *memory, size_t from) {
  const subbyte_image *image = call->image;
  const places at = find_places(&call->layer->header, image, &call->window, from);
  int8_t *const weights = memory + at.weights;
  int32_t *const start = (int32_t *)(void *)(memory + at.start), *const offsets = (void *)(memory + at.offsets);
  int32_t *const positions = (int32_t *)(void *)(memory + at.positions);
  const subbyte_epilogue epilogue = subbyte_epilogue_of_weights(call->layer);
  subbyte_block block = {.isa = call->layer->isa,
                         .epilogue = &epilogue,
                         .weights = weights,
                         .start = start,
                         .chunk = call->layer->chunk,
                         .strip = call->strip,
                         .positions = positions,
                         .offsets = offsets,
                         .runs = call->window.runs,
                         .quads = subbyte_quads(call->window.run)};
  const int32_t end = call->end;
  subbyte_find_taps(image, call->window.channels, image->columns.dilation == 1 ? image->columns.kernel : 1, offsets);
  for (; call->channel < end; call->channel = call->end) {
    call->end = subbyte_smaller(end, call->channel + SUBBYTE_PANEL * at.panels);
    decode(call, weights, start);
    block.first = call->channel;
    block.channels = call->end - call->channel;
    compute_channels(call, &block, positions);
  }
}
