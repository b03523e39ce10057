#include "window.h"

enum {
// Output positions of a tile. Many make more use of decoded weights and of a strip, which takes as much memory.
#if defined(__aarch64__)
  POSITIONS = 96, // by threes and by sixes
#elif UINTPTR_MAX > UINT32_MAX || defined(__ARM_NEON)
  POSITIONS = 64,
#else
  POSITIONS = 4,
#endif
  SLACK = SUBBYTE_BLOCK_BYTES, // that is read at once
};

static subbyte_axis make_axis(int32_t kernel, int32_t stride, int32_t dilation, int32_t size, int is_same) {
  subbyte_axis axis = {.kernel = kernel, .stride = stride, .dilation = dilation, .size = size};
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

static int32_t at_least_one(int32_t number) {
  return number > 0 ? number : 1;
}

subbyte_image subbyte_make_image(const subbyte_header *header, const int8_t *input, int32_t batch, int32_t height,
                                 int32_t width) {
  const int is_same = header->padding == SUBBYTE_PADDING_SAME;
  subbyte_image image = {
      .input = input,
      .batch = batch,
      .rows = make_axis(header->kernel_height, header->stride_height, header->dilation_height, height, is_same),
      .columns = make_axis(header->kernel_width, header->stride_width, header->dilation_width, width, is_same),
      .channels = header->input_channels,
      .padding = (int8_t)header->input_zero_point,
  };
  subbyte_axis *rows = &image.rows, *columns = &image.columns;
  columns->tile = at_least_one(subbyte_smaller(columns->output_size, POSITIONS));
  columns->strip = (columns->tile - 1) * columns->stride + (columns->kernel - 1) * columns->dilation + 1;
  // Rows of a strip are those of windows, which stand apart if they are dilated: then a tile has one row.
  rows->tile = rows->dilation > 1 ? 1 : at_least_one(subbyte_smaller(rows->output_size, POSITIONS / columns->tile));
  rows->strip = (rows->tile - 1) * rows->stride + rows->kernel;
  return image;
}

static int32_t count_axis(const subbyte_axis *axis) {
  return axis->output_size / axis->tile + (axis->output_size % axis->tile != 0);
}

int32_t subbyte_count_tiles(const subbyte_image *image) {
  return image->batch * count_axis(&image->rows) * count_axis(&image->columns);
}

subbyte_tile subbyte_find_tile(const subbyte_image *image, int32_t index) {
  const subbyte_axis *rows = &image->rows, *columns = &image->columns;
  const int32_t across = count_axis(columns), down = count_axis(rows), row = index / across;
  subbyte_tile tile = {.item = row / down, .top = row % down * rows->tile, .left = index % across * columns->tile};
  tile.rows = subbyte_smaller(rows->output_size - tile.top, rows->tile);
  tile.columns = subbyte_smaller(columns->output_size - tile.left, columns->tile);
  tile.first = (tile.item * rows->output_size + tile.top) * columns->output_size + tile.left;
  return tile;
}

uint64_t subbyte_strip_bytes(const subbyte_image *image, int32_t channels) {
  return (uint64_t)image->rows.strip * (uint64_t)image->columns.strip * (uint64_t)channels + SLACK;
}

static void copy_inputs(const int8_t *from, size_t bytes, const subbyte_slice *slice, int8_t *to) {
  if (slice->flip) {
    slice->flip_inputs(from, bytes, to);
  } else {
    memcpy(to, from, bytes);
  }
}

static int8_t *copy_pixels(const subbyte_image *image, const int8_t *from, int32_t pixels, const subbyte_slice *slice,
                           int8_t *to) {
  const int32_t count = slice->channels;
  if (count == image->channels && slice->multiplier == 1) {
    const size_t bytes = (size_t)pixels * (size_t)count;
    copy_inputs(from, bytes, slice, to);
    return to + bytes;
  }
  for (int32_t pixel = 0; pixel < pixels; ++pixel) {
    if (slice->multiplier == 1) {
      copy_inputs(from + slice->first, (size_t)count, slice, to);
    } else {
      for (int32_t c = 0; c < count; ++c) {
        to[c] = from[(slice->first + c) / slice->multiplier] ^ (int8_t)slice->flip;
      }
    }
    from += image->channels;
    to += count;
  }
  return to;
}

// `left` and on: where the strip's row starts in the input's.
static void fill_row(const subbyte_image *image, const int8_t *row, int32_t left, int32_t width,
                     const subbyte_slice *slice, int8_t *to) {
  const int32_t before = left < 0 ? subbyte_smaller(-left, width) : 0;
  const int32_t end = subbyte_smaller(image->columns.size - left, width), inside = end > before ? end - before : 0;
  const int padding = (uint8_t)image->padding ^ slice->flip;
  const size_t count = (size_t)slice->channels;
  memset(to, padding, (size_t)before * count);
  to = copy_pixels(image, row + (ptrdiff_t)(left + before) * image->channels, inside, slice,
                   to + (ptrdiff_t)((size_t)before * count));
  memset(to, padding, (size_t)(width - before - inside) * count);
}

void subbyte_fill_strip(const subbyte_image *image, const subbyte_tile *tile, const subbyte_slice *slice,
                        int8_t *strip) {
  const subbyte_axis *rows = &image->rows, *columns = &image->columns;
  const int32_t height = rows->strip - (rows->tile - tile->rows) * rows->stride;
  const int32_t width = columns->strip - (columns->tile - tile->columns) * columns->stride;
  const int32_t top = tile->top * rows->stride - rows->before, left = tile->left * columns->stride - columns->before;
  for (int32_t i = 0; i < height; ++i) {
    const int32_t y = top + i * rows->dilation;
    int8_t *to = strip + (ptrdiff_t)columns->strip * slice->channels * i;
    if (y < 0 || y >= rows->size) {
      memset(to, (uint8_t)image->padding ^ slice->flip, (size_t)width * (size_t)slice->channels);
    } else {
      const ptrdiff_t row = (ptrdiff_t)tile->item * rows->size + y;
      fill_row(image, image->input + row * columns->size * image->channels, left, width, slice, to);
    }
  }
}

void subbyte_find_positions(const subbyte_image *image, const subbyte_tile *tile, int32_t channels,
                            int32_t *positions) {
  for (int32_t row = 0; row < tile->rows; ++row) {
    for (int32_t column = 0; column < tile->columns; ++column) {
      *positions++ = (row * image->rows.stride * image->columns.strip + column * image->columns.stride) * channels;
    }
  }
}

void subbyte_set_windows(subbyte_windows *windows, int32_t rows, const subbyte_image *image, const subbyte_tile *tile,
                         int32_t position, const int8_t *strip, int32_t channels) {
  const ptrdiff_t right = (ptrdiff_t)image->columns.stride * channels;
  const ptrdiff_t down = (ptrdiff_t)image->rows.stride * image->columns.strip * channels;
  int32_t column = position % tile->columns;
  const int8_t *row = strip + position / tile->columns * down;
  windows->rows = rows;
  for (int32_t r = 0; r < rows; ++r) {
    windows->x[r] = row + column * right;
    if (++column == tile->columns) {
      column = 0;
      row += down;
    }
  }
}

void subbyte_find_taps(const subbyte_image *image, int32_t channels, int32_t step, int32_t *offsets) {
  for (int32_t ky = 0; ky < image->rows.kernel; ++ky) {
    for (int32_t kx = 0; kx < image->columns.kernel; kx += step) {
      *offsets++ = (ky * image->columns.strip + kx * image->columns.dilation) * channels;
    }
  }
}
