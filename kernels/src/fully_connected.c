// The fully connected layer: which weights meet which inputs.
//
// A row of 16-bit inputs x = 256 * high + low + 128 is two rows of bytes, which meet the weights as any others do:
// sum(w * x) = 256 * sum(w * high) + sum(w * low) + 128 * sum(w). The packer put the last of these into the bias.
#include "fully_connected.h"

// Output channels and rows of the output.
typedef struct range {
  int32_t first, last;
} range;

// Points `inputs` at `rows` rows from `row` on. Rows of 16 bits are split into `scratch` first.
static void prepare_rows(const subbyte_prepared *layer, const int8_t *input, int32_t row, int32_t rows, int8_t *scratch,
                         subbyte_inputs *inputs) {
  const int32_t features = layer->header.input_features, code_bytes = subbyte_code_bytes(&layer->header);
  for (int32_t r = 0; r < rows; ++r) {
    const int8_t *x = input + (ptrdiff_t)code_bytes * features * (row + r);
    if (code_bytes == 1) {
      inputs->x[r] = x;
    } else {
      int8_t *high = scratch + (ptrdiff_t)2 * features * r, *low = high + features;
      layer->isa->split((const int16_t *)(const void *)x, features, high, low);
      inputs->x[2 * r] = high;
      inputs->x[2 * r + 1] = low;
    }
  }
  subbyte_set_rows(inputs, code_bytes * rows, features, layer->isa);
}

static void compute(const subbyte_prepared *layer, const int8_t *input, range rows, range channels, int8_t *output,
                    int8_t *scratch) {
  const int32_t code_bytes = subbyte_code_bytes(&layer->header), most = SUBBYTE_ROWS / code_bytes;
  const ptrdiff_t row_bytes = (ptrdiff_t)code_bytes * layer->header.output_channels;
  // Few rows are taken once; of many, a tile of weights at a time, which stays in the cache while they pass.
  const int32_t step = rows.last - rows.first <= most ? channels.last - channels.first : SUBBYTE_TILE;
  for (int32_t tile = channels.first; tile < channels.last; tile += step) {
    for (int32_t row = rows.first; row < rows.last; row += most) {
      subbyte_inputs inputs;
      prepare_rows(layer, input, row, subbyte_smaller(rows.last - row, most), scratch, &inputs);
      subbyte_compute_channels(layer, tile, subbyte_smaller(channels.last, tile + step), &inputs,
                               output + row_bytes * row);
    }
  }
}

size_t subbyte_dense_scratch(const subbyte_header *header, int32_t rows) {
  const int32_t code_bytes = subbyte_code_bytes(header);
  return code_bytes == 1 ? 0 : 2 * (size_t)subbyte_smaller(rows, SUBBYTE_ROWS / 2) * (size_t)header->input_features;
}

void subbyte_compute_dense(const subbyte_prepared *layer, const void *input, int32_t rows, void *output, void *scratch,
                           int32_t first, int32_t last) {
  compute(layer, input, (range){0, rows}, (range){first, last}, output, scratch);
}

// The place where a part starts if `count` things, in groups of `size`, are shared out; it ends where the next starts.
static int32_t start_of(int32_t part, int32_t parts, int32_t count, int32_t size) {
  const int32_t groups = subbyte_divide_up(count, size), group = subbyte_share(part, parts, groups);
  return group < groups ? group * size : count;
}

static range range_of(int32_t part, int32_t parts, int32_t count, int32_t size) {
  return (range){start_of(part, parts, count, size), start_of(part + 1, parts, count, size)};
}

int32_t subbyte_cut_dense(const subbyte_op *op, int32_t wanted) {
  const int32_t panels = subbyte_divide_up(op->output_channels, SUBBYTE_PANEL);
  const int32_t groups = subbyte_divide_up(op->positions, SUBBYTE_ROWS);
  // By channels, so that each weight is decoded by one thread, unless there are too few of them.
  return subbyte_smaller(wanted, panels < wanted && panels < groups ? groups : panels);
}

void subbyte_run_dense(const subbyte_op *op, const void *input, void *output, void *scratch, int32_t part,
                       int32_t parts) {
  const int32_t panels = subbyte_divide_up(op->output_channels, SUBBYTE_PANEL);
  const range all_rows = {0, op->positions}, all_channels = {0, op->output_channels};
  const int is_cut_by_rows = parts > panels;
  compute(&op->layer, input, is_cut_by_rows ? range_of(part, parts, op->positions, SUBBYTE_ROWS) : all_rows,
          is_cut_by_rows ? all_channels : range_of(part, parts, op->output_channels, SUBBYTE_PANEL), output, scratch);
}

const char *subbyte_fit_dense(subbyte_op *op, const subbyte_activation *input) {
  const subbyte_header *header = &op->layer.header;
  const char *const fault = "the last dimension of the input is not the layer's number of inputs";
  if (input->rank < 1 || input->shape[input->rank - 1] != header->input_features) {
    return fault;
  }
  op->positions = subbyte_multiply(input->shape, input->rank - 1);
  const size_t row_bytes = (size_t)op->code_bytes * (size_t)header->input_features;
  if (op->positions < 0 || input->bytes != (size_t)op->positions * row_bytes) {
    return fault;
  }
  op->scratch_bytes = subbyte_dense_scratch(header, op->positions);
  return NULL;
}

void subbyte_fully_connected_channels(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                      const subbyte_isa *isa, int32_t first, int32_t last) {
  subbyte_prepared prepared;
  subbyte_prepare(&prepared, layer, isa);
  subbyte_compute_dense(&prepared, input, rows, output, NULL, first, last);
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  subbyte_fully_connected_channels(layer, input, rows, output, isa, 0, subbyte_load_header(layer).output_channels);
}

size_t subbyte_fully_connected_int16_scratch(const void *layer, int32_t rows) {
  const subbyte_header header = subbyte_load_header(layer);
  return subbyte_dense_scratch(&header, rows);
}

void subbyte_fully_connected_int16_channels(const void *layer, const int16_t *input, int32_t rows, int16_t *output,
                                            void *scratch, const subbyte_isa *isa, int32_t first, int32_t last) {
  subbyte_prepared prepared;
  subbyte_prepare(&prepared, layer, isa);
  subbyte_compute_dense(&prepared, input, rows, output, scratch, first, last);
}

void subbyte_fully_connected_int16(const void *layer, const int16_t *input, int32_t rows, int16_t *output,
                                   void *scratch, const subbyte_isa *isa) {
  subbyte_fully_connected_int16_channels(layer, input, rows, output, scratch, isa, 0,
                                         subbyte_load_header(layer).output_channels);
}
