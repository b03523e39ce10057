// Convolutions: which way computes one. Where many positions share them, weights are decoded into bytes first; else
// windows are gathered, and meet the packed weights.
#include "conv_2d.h"

#include "chunk.h"
#include "depthwise.h"
#include "fully_connected.h"

static subbyte_window make_window(const subbyte_header *header) {
  subbyte_window window = {.channels = header->input_channels / header->groups, .runs = subbyte_count_runs(header)};
  window.run = header->input_features / window.runs;
  window.quads = window.runs * subbyte_quads(window.run);
  return window;
}

static int is_pointwise(const subbyte_header *header) {
  return header->kernel_height == 1 && header->kernel_width == 1 && header->stride_height == 1 &&
         header->stride_width == 1;
}

static int is_depthwise(const subbyte_header *header) {
  return header->op == SUBBYTE_DEPTHWISE_CONV_2D;
}

// Whether loops ask for the chunks of its weights.
static int has_chunks(const subbyte_prepared *layer) {
  return SUBBYTE_DECODES && (is_depthwise(&layer->header) ? layer->isa->has_depthwise_chunks : layer->isa->has_chunks);
}

// Rows and columns are one to windows of a pixel.
static subbyte_image make_image(const subbyte_header *header, const int8_t *input, int32_t batch, int32_t height,
                                int32_t width) {
  return is_pointwise(header) ? subbyte_make_image(header, input, 1, 1, batch * height * width)
                              : subbyte_make_image(header, input, batch, height, width);
}

// The strip comes first in the scratch memory.
static size_t strip_end(const subbyte_image *image, const subbyte_window *window) {
  return ((size_t)subbyte_strip_bytes(image, window->channels) + 63) / 64 * 64;
}

static size_t scratch_bytes(const subbyte_header *header, int32_t batch, int32_t height, int32_t width) {
  const subbyte_image image = make_image(header, NULL, batch, height, width);
  const subbyte_window window = make_window(header);
  if (subbyte_strip_bytes(&image, is_depthwise(header) ? SUBBYTE_DEPTHWISE_TILE : window.channels) > INT32_MAX) {
    return SIZE_MAX;
  }
  size_t bytes;
  if (is_depthwise(header)) {
    bytes = subbyte_depthwise_scratch(header, &image);
  } else {
    const size_t from = strip_end(&image, &window), packed = subbyte_packed_scratch(header, &window, from);
    const size_t decoded = subbyte_decoded_scratch(header, &image, &window, from);
    bytes = decoded > packed ? decoded : packed;
  }
  return bytes + 63;
}

// Scratch memory has room to start at a multiple of 64 bytes.
static int8_t *align(void *scratch) {
  return (int8_t *)scratch + (-(uintptr_t)scratch & 63);
}

// Windows of a pixel lie in the input as the rows of a fully connected layer do.
static void compute_pixels(const subbyte_convolution *call) {
  const subbyte_image *image = call->image;
  const subbyte_tile end = subbyte_find_tile(image, call->last - 1);
  const int32_t row = subbyte_find_tile(image, call->first).first, rows = end.first + end.columns - row;
  const int32_t channels = call->layer->header.output_channels;
  subbyte_compute_dense(call->layer, image->input + (ptrdiff_t)image->channels * row, rows,
                        call->output + (ptrdiff_t)channels * row, NULL, 0, channels);
}

static void compute_groups(subbyte_convolution *call, int decodes, int8_t *memory) {
  const subbyte_prepared *layer = call->layer;
  const size_t from = strip_end(call->image, &call->window);
  const int32_t channels = layer->header.output_channels / layer->header.groups;
  call->strip = memory;
  call->slice = (subbyte_slice){.channels = call->window.channels, .multiplier = 1};
  if (decodes) {
    call->slice.flip = layer->isa->flip;
    call->slice.flip_inputs = layer->isa->flip_inputs;
  }
  for (int32_t group = 0; group < layer->header.groups; ++group) {
    call->slice.first = call->window.channels * group;
    call->channel = channels * group;
    call->end = call->channel + channels;
    if (decodes) {
      subbyte_convolve_decoded(call, memory, from);
    } else {
      subbyte_convolve_packed(call, memory, from);
    }
  }
}

static void compute_part(const subbyte_prepared *layer, const subbyte_image *image, int8_t *output, void *scratch,
                         int32_t part, int32_t parts) {
  const subbyte_header *header = &layer->header;
  const int32_t tiles = subbyte_count_tiles(image);
  subbyte_convolution call = {.layer = layer,
                              .image = image,
                              .window = make_window(header),
                              .first = subbyte_share(part, parts, tiles),
                              .last = subbyte_share(part + 1, parts, tiles),
                              .output = output};
  if (call.first == call.last) {
    return;
  }
  if (is_depthwise(header)) {
    subbyte_compute_depthwise(layer, image, call.first, call.last, output, align(scratch));
    return;
  }
  const int decodes = layer->isa->prefers_decoded && subbyte_decoded_scratch(header, image, &call.window, 0) > 0;
  if (is_pointwise(header) && header->groups == 1 && !decodes) {
    compute_pixels(&call);
  } else {
    compute_groups(&call, decodes, align(scratch));
  }
}

const char *subbyte_fit_conv_2d(subbyte_op *op, const subbyte_activation *input) {
  const subbyte_header *header = &op->layer.header;
  const char *const fault = "the input of a convolution must be [batch, height, width, the layer's channels]";
  if (input->rank != 4 || input->shape[3] != header->input_channels) {
    return fault;
  }
  const int32_t inputs = subbyte_multiply(input->shape, 4);
  if (inputs < 0 || input->bytes != (size_t)inputs) {
    return fault;
  }
  op->batch = input->shape[0];
  op->height = input->shape[1];
  op->width = input->shape[2];
  const subbyte_image image = subbyte_make_image(header, NULL, 1, op->height, op->width);
  op->output_height = image.rows.output_size;
  op->output_width = image.columns.output_size;
  if (inputs > 0 && (op->output_height == 0 || op->output_width == 0)) {
    return "the window of the convolution is larger than its input";
  }
  const int sizes[] = {op->batch, op->output_height, op->output_width, op->output_channels};
  if (subbyte_multiply(sizes, 4) < 0) {
    return "the output of the convolution is too large";
  }
  op->positions = op->batch * op->output_height * op->output_width;
  op->scratch_bytes = scratch_bytes(header, op->batch, op->height, op->width);
  op->layer.chunk = has_chunks(&op->layer) ? subbyte_find_chunk(&op->layer) : 0;
  return op->scratch_bytes <= INT32_MAX ? NULL : "the window of the convolution takes too much memory";
}

int32_t subbyte_cut_conv_2d(const subbyte_op *op, int32_t wanted) {
  (void)op;
  return wanted;
}

void subbyte_run_conv_2d(const subbyte_op *op, const void *input, void *output, void *scratch, int32_t part,
                         int32_t parts) {
  const subbyte_image image = make_image(&op->layer.header, input, op->batch, op->height, op->width);
  compute_part(&op->layer, &image, output, scratch, part, parts);
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
  return scratch_bytes(&header, batch, height, width);
}

void subbyte_conv_2d_part(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                          int8_t *output, void *scratch, const subbyte_isa *isa, int32_t part, int32_t parts) {
  subbyte_prepared prepared;
  subbyte_prepare(&prepared, layer, isa);
  prepared.chunk = has_chunks(&prepared) ? subbyte_safe_chunk(&prepared) : 0; // finding longer ones would pay only once
  const subbyte_image image = make_image(&prepared.header, input, batch, height, width);
  compute_part(&prepared, &image, output, scratch, part, parts);
}

void subbyte_conv_2d(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                     int8_t *output, void *scratch, const subbyte_isa *isa) {
  subbyte_conv_2d_part(layer, input, batch, height, width, output, scratch, isa, 0, 1);
}
