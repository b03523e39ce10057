// Convolutions: which inputs an output position sees.
#include "window.h"

static subbyte_axis make_axis(int32_t kernel, int32_t stride, int32_t dilation, int32_t size, int is_same) {
  subbyte_axis axis = {kernel, stride, dilation, size, 0, 0};
  const int64_t reach = (int64_t)(kernel - 1) * dilation + 1; // of the window
  if (is_same) {
    axis.output_size = size / stride + (size % stride != 0);
    const int64_t missing = ((int64_t)axis.output_size - 1) * stride + reach - size;
    axis.before = missing > 0 ? (int32_t)(missing / 2) : 0;
  } else {
    axis.output_size = size >= reach ? (size - (int32_t)reach) / stride + 1 : 0;
  }
  return axis;
}

static subbyte_axis make_rows(const subbyte_header *h, int32_t height) {
  return make_axis(h->kernel_height, h->stride_height, h->dilation_height, height, h->padding == SUBBYTE_PADDING_SAME);
}

static subbyte_axis make_columns(const subbyte_header *h, int32_t width) {
  return make_axis(h->kernel_width, h->stride_width, h->dilation_width, width, h->padding == SUBBYTE_PADDING_SAME);
}

// Where the input of tap 0 is, and that of one position.
static int32_t start_of(const subbyte_axis *axis, int32_t output) {
  return output * axis->stride - axis->before;
}

const int8_t *subbyte_find_row(const subbyte_image *image, int32_t item, int32_t y) {
  if (y < 0 || y >= image->rows.size) {
    return NULL;
  }
  return image->input + ((ptrdiff_t)item * image->rows.size + y) * image->columns.size * image->channels;
}

static int8_t *pad(const subbyte_image *image, int32_t inputs, int8_t *patch) {
  memset(patch, image->padding, (size_t)inputs);
  return patch + inputs;
}

// All channels of neighbouring pixels of a row, of which some may lie outside of the input.
static void copy_pixels(const subbyte_image *image, const int8_t *row, int32_t left, int8_t *patch) {
  const int32_t kernel = image->columns.kernel, channels = image->channels;
  const int32_t before = left < 0 ? subbyte_smaller(-left, kernel) : 0;
  const int32_t inside = subbyte_smaller(image->columns.size - left, kernel);
  patch = pad(image, before * channels, patch);
  if (inside > before) {
    const size_t bytes = (size_t)(inside - before) * (size_t)channels;
    memcpy(patch, row + (ptrdiff_t)(left + before) * channels, bytes);
    patch += bytes;
  }
  const int32_t copied = inside > before ? inside : before;
  pad(image, (kernel - copied) * channels, patch);
}

// Channels [first, first + count) of pixels of a row that stand apart.
static void pick_pixels(const subbyte_image *image, const int8_t *row, int32_t left, int32_t first, int32_t count,
                        int8_t *patch) {
  for (int32_t kx = 0; kx < image->columns.kernel; ++kx) {
    const int32_t x = left + kx * image->columns.dilation;
    if (x >= 0 && x < image->columns.size) {
      memcpy(patch, row + (ptrdiff_t)x * image->channels + first, (size_t)count);
    } else {
      memset(patch, image->padding, (size_t)count);
    }
    patch += count;
  }
}

// Channels [first, first + count) of every pixel that the window at (top, left) sees: [kernel_height, kernel_width,
// count].
static void gather(const subbyte_image *image, int32_t item, int32_t top, int32_t left, int32_t first, int32_t count,
                   int8_t *patch) {
  const int32_t row_inputs = image->columns.kernel * count;
  for (int32_t ky = 0; ky < image->rows.kernel; ++ky) {
    const int8_t *row = subbyte_find_row(image, item, top + ky * image->rows.dilation);
    if (row == NULL) {
      pad(image, row_inputs, patch);
    } else if (count == image->channels && image->columns.dilation == 1) {
      copy_pixels(image, row, left, patch);
    } else {
      pick_pixels(image, row, left, first, count, patch);
    }
    patch += row_inputs;
  }
}

// The same where they lie one behind the other in the input already, else NULL.
static const int8_t *find_in_place(const subbyte_image *image, int32_t item, int32_t top, int32_t left, int32_t count) {
  const subbyte_axis *columns = &image->columns;
  const int is_run = columns->kernel == 1 || (columns->dilation == 1 && count == image->channels);
  const int is_inside = left >= 0 && left + columns->kernel <= columns->size;
  return image->rows.kernel == 1 && is_run && is_inside ? subbyte_find_row(image, item, top) : NULL;
}

subbyte_window subbyte_find_window(const subbyte_image *image, int32_t position) {
  const int32_t row = position / image->columns.output_size;
  return (subbyte_window){row / image->rows.output_size, start_of(&image->rows, row % image->rows.output_size),
                          start_of(&image->columns, position % image->columns.output_size)};
}

subbyte_image subbyte_make_image(const subbyte_header *header, const int8_t *input, int32_t height, int32_t width) {
  return (subbyte_image){input, make_rows(header, height), make_columns(header, width), header->input_channels,
                         (int8_t)header->input_zero_point};
}

void subbyte_conv_2d_output(const void *layer, int32_t height, int32_t width, int32_t *output_height,
                            int32_t *output_width) {
  const subbyte_header header = subbyte_load_header(layer);
  *output_height = make_rows(&header, height).output_size;
  *output_width = make_columns(&header, width).output_size;
}

size_t subbyte_conv_2d_scratch(const void *layer) {
  const subbyte_header header = subbyte_load_header(layer);
  if (header.op == SUBBYTE_DEPTHWISE_CONV_2D) {
    return subbyte_depthwise_scratch(&header);
  }
  return SUBBYTE_ROWS * (size_t)header.input_features;
}

// Up to four windows of one group of channels.
static void compute_windows(const subbyte_layer_view *view, const subbyte_image *image, int32_t position, int32_t count,
                            int32_t group, int8_t *output, int8_t *scratch) {
  const subbyte_header *header = &view->header;
  const int32_t features = header->input_features, channels = header->output_channels / header->groups;
  const int32_t group_inputs = image->channels / header->groups;
  subbyte_inputs inputs;
  for (int32_t r = 0; r < count; ++r) {
    const subbyte_window window = subbyte_find_window(image, position + r);
    const int8_t *row = find_in_place(image, window.item, window.top, window.left, group_inputs);
    if (row != NULL) {
      inputs.x[r] = row + (ptrdiff_t)window.left * image->channels + (ptrdiff_t)group_inputs * group;
    } else {
      int8_t *patch = scratch + (ptrdiff_t)features * r;
      gather(image, window.item, window.top, window.left, group_inputs * group, group_inputs, patch);
      inputs.x[r] = patch;
    }
  }
  subbyte_set_rows(&inputs, count, features, view->isa);
  subbyte_compute_channels(view, channels * group, channels * (group + 1), &inputs,
                           output + (ptrdiff_t)header->output_channels * position);
}

void subbyte_conv_2d(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                     int8_t *output, void *scratch, const subbyte_isa *isa) {
  subbyte_layer_view view;
  subbyte_view_layer(&view, layer, isa);
  const subbyte_image image = subbyte_make_image(&view.header, input, height, width);
  const int32_t positions = batch * image.rows.output_size * image.columns.output_size;
  if (view.header.op == SUBBYTE_DEPTHWISE_CONV_2D) {
    subbyte_compute_depthwise(&view, &image, 0, positions, output, scratch);
    return;
  }
  for (int32_t position = 0; position < positions; position += SUBBYTE_ROWS) {
    for (int32_t group = 0; group < view.header.groups; ++group) {
      compute_windows(&view, &image, position, subbyte_smaller(positions - position, SUBBYTE_ROWS), group, output,
                      scratch);
    }
  }
}
