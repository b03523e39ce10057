// Convolutions. Where many positions share them, weights are decoded into bytes first, as many as a cache holds; else
// windows are gathered, and meet the packed weights.
#include "window.h"

enum {
  QUAD_BYTES = 4 * SUBBYTE_PANEL,
  FEW_POSITIONS = 8,      // do not pay for decoding
  MOST_WEIGHTS = 1 << 17, // bytes of decoded weights
};

// The inputs of a window of one group of channels.
typedef struct window {
  int32_t channels;  // of a pixel
  int32_t run, runs; // inputs of a run, and how many runs there are
  int32_t quads;     // of all runs
} window;

static window make_window(const subbyte_header *header) {
  window window = {.channels = header->input_channels / header->groups, .runs = subbyte_count_runs(header)};
  window.run = header->input_features / window.runs;
  window.quads = window.runs * subbyte_quads(window.run);
  return window;
}

// Where things lie in the scratch memory.
typedef struct layout {
  size_t strip;
  size_t patches;                 // for packed weights
  size_t weights, start, offsets; // for decoded ones
  size_t end;
  int32_t panels; // that are decoded at once; 0: the weights stay packed
} layout;

static int has_many_positions(const subbyte_image *image) {
  return image->batch >= FEW_POSITIONS || image->rows.output_size >= FEW_POSITIONS ||
         image->batch * image->rows.output_size * subbyte_smaller(image->columns.output_size, FEW_POSITIONS) >=
             FEW_POSITIONS;
}

static layout plan(const subbyte_header *header, const subbyte_image *image) {
  const window window = make_window(header);
  layout at = {.strip = 0};
  at.patches = at.weights = ((size_t)subbyte_strip_bytes(image, window.channels) + 63) / 64 * 64;
  at.end = at.patches + (window.runs > 1 ? SUBBYTE_ROWS * (size_t)header->input_features : 0);
  const size_t panel_bytes = QUAD_BYTES * (size_t)window.quads;
  if (SUBBYTE_DECODES && panel_bytes <= MOST_WEIGHTS && has_many_positions(image)) {
    const int32_t panels = subbyte_whole_panels(header->output_channels / header->groups) / SUBBYTE_PANEL;
    at.panels = subbyte_smaller(subbyte_smaller(panels, SUBBYTE_TILE_PANELS), (int32_t)(MOST_WEIGHTS / panel_bytes));
    at.start = at.weights + panel_bytes * (size_t)at.panels;
    at.offsets = at.start + sizeof(int32_t) * (size_t)(SUBBYTE_PANEL * at.panels);
    const size_t end = at.offsets + sizeof(int32_t) * (size_t)window.runs;
    at.end = end > at.end ? end : at.end;
  }
  return at;
}

// What a call computes with, for one group of channels.
typedef struct job {
  const subbyte_layer_view *view;
  const subbyte_image *image;
  window window;
  subbyte_slice slice;
  int32_t first, last;  // tiles
  int32_t channel, end; // output channels
  int8_t *output, *strip;
} job;

// The inputs of a window, one behind the other.
static void gather(const int8_t *x, const window *window, const subbyte_image *image, int8_t *patch) {
  const int32_t step = image->columns.dilation == 1 ? image->columns.kernel : 1;
  for (int32_t ky = 0; ky < image->rows.kernel; ++ky) {
    const int8_t *row = x + (ptrdiff_t)ky * image->columns.strip * window->channels;
    for (int32_t kx = 0; kx < image->columns.kernel; kx += step) {
      memcpy(patch, row + (ptrdiff_t)kx * image->columns.dilation * window->channels, (size_t)window->run);
      patch += window->run;
    }
  }
}

static void compute_packed(const job *job, int8_t *patches) {
  const subbyte_header *header = &job->view->header;
  for (int32_t index = job->first; index < job->last; ++index) {
    const subbyte_tile tile = subbyte_find_tile(job->image, index);
    const int32_t positions = tile.rows * tile.columns;
    subbyte_fill_strip(job->image, &tile, &job->slice, job->strip);
    for (int32_t position = 0; position < positions; position += SUBBYTE_ROWS) {
      const int32_t rows = subbyte_smaller(positions - position, SUBBYTE_ROWS);
      subbyte_windows windows;
      subbyte_inputs inputs;
      subbyte_set_windows(&windows, rows, job->image, &tile, position, job->strip, job->window.channels);
      for (int32_t r = 0; r < rows; ++r) {
        inputs.x[r] = windows.x[r];
        if (job->window.runs > 1) {
          int8_t *patch = patches + (ptrdiff_t)header->input_features * r;
          gather(windows.x[r], &job->window, job->image, patch);
          inputs.x[r] = patch;
        }
      }
      subbyte_set_rows(&inputs, rows, header->input_features, job->view->isa);
      subbyte_compute_channels(job->view, job->channel, job->end, &inputs,
                               job->output + (ptrdiff_t)header->output_channels * (tile.first + position));
    }
  }
}

static uint32_t load_word(const int8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

// Moves the weights of a panel, whose inputs are one behind the other, to where every run starts a quad. That is never
// further to the front, so the last one goes first.
static void spread_runs(const window *window, int8_t *weights) {
  const int32_t run_quads = subbyte_quads(window->run);
  for (int32_t quad = window->quads - 1; quad >= 0; --quad) {
    const int32_t done = quad % run_quads * 4, k = quad / run_quads * window->run + done, rest = window->run - done;
    const int shift = 8 * (k % 4);
    const uint32_t mask = rest < 4 ? (1u << 8 * rest) - 1 : ~0u;
    const int8_t *from = weights + (ptrdiff_t)QUAD_BYTES * (k / 4);
    const int needs_next = k % 4 + (rest < 4 ? rest : 4) > 4;
    for (int32_t c = 0; c < SUBBYTE_PANEL; ++c) {
      uint32_t word = load_word(from + 4 * c) >> shift;
      word |= needs_next ? load_word(from + QUAD_BYTES + 4 * c) << (32 - shift) : 0;
      word &= mask;
      memcpy(weights + (ptrdiff_t)QUAD_BYTES * quad + 4 * c, &word, sizeof word);
    }
  }
}

// Decodes the weights of the job's channels.
static void decode(const job *job, int8_t *weights, int32_t *start) {
  const subbyte_panels panels = subbyte_find_panels(job->view, job->channel, job->end - job->channel);
  for (int32_t panel = 0; panel < panels.count; ++panel) {
    subbyte_decode_panel(job->view, &panels, panel, weights, start + SUBBYTE_PANEL * panel);
    if (job->window.run % 4 != 0) {
      spread_runs(&job->window, weights);
    }
    weights += (ptrdiff_t)QUAD_BYTES * job->window.quads;
  }
}

static void compute_decoded(const job *job, int8_t *weights, int32_t *start, int32_t *offsets) {
  const subbyte_layer_view *view = job->view;
  const int32_t channels = job->end - job->channel, panels = subbyte_whole_panels(channels) / SUBBYTE_PANEL;
  subbyte_windows windows = {.offsets = offsets, .runs = job->window.runs, .quads = subbyte_quads(job->window.run)};
  subbyte_header header = view->header;
  header.decode = SUBBYTE_CODEBOOK; // the sums are of weights, no longer of codes
  subbyte_find_taps(job->image, job->window.channels,
                    job->image->columns.dilation == 1 ? job->image->columns.kernel : 1, offsets);
  decode(job, weights, start);
  for (int32_t index = job->first; index < job->last; ++index) {
    const subbyte_tile tile = subbyte_find_tile(job->image, index);
    const int32_t positions = tile.rows * tile.columns;
    subbyte_fill_strip(job->image, &tile, &job->slice, job->strip);
    for (int32_t position = 0; position < positions; position += SUBBYTE_WINDOWS) {
      int32_t sums[SUBBYTE_WINDOWS * SUBBYTE_TILE];
      const int32_t rows = subbyte_smaller(positions - position, SUBBYTE_WINDOWS);
      subbyte_set_windows(&windows, rows, job->image, &tile, position, job->strip, job->window.channels);
      view->isa->window_sums(weights, panels, &windows, start, sums);
      view->isa->finish(&header, view->bytes, job->channel, channels, rows, NULL, sums,
                        job->output + (ptrdiff_t)header.output_channels * (tile.first + position) + job->channel);
    }
  }
}

static int decodes(const layout *at, const subbyte_isa *isa) {
  return SUBBYTE_DECODES && at->panels > 0 && isa->window_sums != NULL;
}

static void compute_group(job *job, const layout *at, int32_t group, int8_t *memory) {
  const int32_t channels = job->view->header.output_channels / job->view->header.groups;
  job->slice.first = job->window.channels * group;
  job->channel = channels * group;
  const int32_t end = job->channel + channels;
  if (!decodes(at, job->view->isa)) {
    job->end = end;
    compute_packed(job, memory + at->patches);
    return;
  }
  job->slice.flip = job->view->isa->flip;
  job->slice.flip_inputs = job->view->isa->flip_inputs;
  for (; job->channel < end; job->channel = job->end) {
    job->end = subbyte_smaller(end, job->channel + SUBBYTE_PANEL * at->panels);
    compute_decoded(job, memory + at->weights, (int32_t *)(void *)(memory + at->start),
                    (int32_t *)(void *)(memory + at->offsets));
  }
}

static int is_pointwise(const subbyte_header *header) {
  return header->kernel_height == 1 && header->kernel_width == 1 && header->stride_height == 1 &&
         header->stride_width == 1;
}

// Rows and columns are one to windows of a pixel.
static subbyte_image make_image(const subbyte_header *header, const int8_t *input, int32_t batch, int32_t height,
                                int32_t width) {
  return is_pointwise(header) ? subbyte_make_image(header, input, 1, 1, batch * height * width)
                              : subbyte_make_image(header, input, batch, height, width);
}

void subbyte_conv_2d_output(const void *layer, int32_t height, int32_t width, int32_t *output_height,
                            int32_t *output_width) {
  const subbyte_header header = subbyte_load_header(layer);
  const subbyte_image image = subbyte_make_image(&header, NULL, 1, height, width);
  *output_height = image.rows.output_size;
  *output_width = image.columns.output_size;
}

size_t subbyte_conv_2d_scratch(const void *layer, int32_t batch, int32_t height, int32_t width) {
  const subbyte_header header = subbyte_load_header(layer);
  const subbyte_image image = make_image(&header, NULL, batch, height, width);
  const int is_depthwise = header.op == SUBBYTE_DEPTHWISE_CONV_2D;
  const int32_t channels = is_depthwise ? SUBBYTE_DEPTHWISE_TILE : header.input_channels / header.groups;
  if (subbyte_strip_bytes(&image, channels) > INT32_MAX) {
    return SIZE_MAX;
  }
  return (is_depthwise ? subbyte_depthwise_scratch(&header, &image) : plan(&header, &image).end) + 63;
}

// Where part `part` starts, if so many tiles are shared out.
static int32_t start_of(int32_t part, int32_t parts, int32_t tiles) {
  return tiles / parts * part + subbyte_smaller(part, tiles % parts);
}

// Scratch memory has room to start at a multiple of 64 bytes.
static int8_t *align(void *scratch) {
  return (int8_t *)scratch + (-(uintptr_t)scratch & 63);
}

// Windows of a pixel lie in the input as the rows of a fully connected layer do.
static void compute_pixels(const void *layer, const subbyte_header *header, const subbyte_image *image, int32_t first,
                           int32_t last, int8_t *output, const subbyte_isa *isa) {
  const subbyte_tile end = subbyte_find_tile(image, last - 1);
  const int32_t row = subbyte_find_tile(image, first).first, rows = end.first + end.columns - row;
  subbyte_fully_connected(layer, image->input + (ptrdiff_t)image->channels * row, rows,
                          output + (ptrdiff_t)header->output_channels * row, isa);
}

void subbyte_conv_2d_part(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                          int8_t *output, void *scratch, const subbyte_isa *isa, int32_t part, int32_t parts) {
  const subbyte_header header = subbyte_load_header(layer);
  const subbyte_image image = make_image(&header, input, batch, height, width);
  const int32_t tiles = subbyte_count_tiles(&image);
  const int32_t first = start_of(part, parts, tiles), last = start_of(part + 1, parts, tiles);
  if (first == last) {
    return;
  }
  const int is_depthwise = header.op == SUBBYTE_DEPTHWISE_CONV_2D;
  const layout at = is_depthwise ? (layout){0} : plan(&header, &image);
  if (is_pointwise(&header) && header.groups == 1 && !decodes(&at, isa)) {
    compute_pixels(layer, &header, &image, first, last, output, isa);
    return;
  }
  int8_t *const memory = align(scratch);
  subbyte_layer_view view;
  subbyte_view_layer(&view, layer, isa);
  subbyte_fill_codebook(&view);
  if (is_depthwise) {
    subbyte_compute_depthwise(&view, &image, first, last, output, memory);
    return;
  }
  job job = {.view = &view,
             .image = &image,
             .window = make_window(&header),
             .first = first,
             .last = last,
             .output = output,
             .strip = memory + at.strip};
  job.slice = (subbyte_slice){.channels = job.window.channels, .multiplier = 1};
  for (int32_t group = 0; group < header.groups; ++group) {
    compute_group(&job, &at, group, memory);
  }
}

void subbyte_conv_2d(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                     int8_t *output, void *scratch, const subbyte_isa *isa) {
  subbyte_conv_2d_part(layer, input, batch, height, width, output, scratch, isa, 0, 1);
}
