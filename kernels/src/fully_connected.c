// The fully connected layer: shapes, tails, zero points and rounding, around the loops of a variant.
#include "isa.h"
#include "requantize.h"

// One layer, one row of input.
typedef struct call {
  const subbyte_isa *isa;
  const uint8_t *layer;
  subbyte_header header;
  const int8_t *x;
  int32_t whole;               // inputs of x that make whole strides
  int8_t tail[SUBBYTE_STRIDE]; // the rest of x, with zeros behind
  uint32_t code_offset_sum;    // code_offset * sum(x)
} call;

static int32_t sum_inputs(const int8_t *x, int32_t features) {
  int32_t sum = 0;
  for (int32_t k = 0; k < features; ++k) {
    sum += x[k];
  }
  return sum;
}

static void set_row(call *call, const int8_t *x) {
  const int32_t features = call->header.input_features;
  call->x = x;
  call->whole = features - features % SUBBYTE_STRIDE;
  memset(call->tail, 0, sizeof call->tail);
  memcpy(call->tail, x + call->whole, (size_t)(features - call->whole));
  if (call->header.decode == SUBBYTE_LINEAR) {
    call->code_offset_sum = (uint32_t)(call->header.code_offset * sum_inputs(x, features));
  }
}

// Where the block of `input` lies for the panel that starts at output channel `first`.
static const uint8_t *find_block(const call *call, int32_t plane, int32_t first, int32_t channels, int32_t input) {
  const int32_t width = subbyte_plane_width(plane);
  const size_t panel = (size_t)first * subbyte_blocks(call->header.input_features, width);
  const size_t block = (size_t)channels * subbyte_blocks(input, width);
  return call->layer + call->header.plane_offset[plane] + 4 * (panel + block);
}

// Totals wrap around in unsigned arithmetic on the way; the final sum fits in 32 bits, so it is exact.
static void linear_sums(const call *call, int32_t first, int32_t channels, int32_t sums[SUBBYTE_PANEL]) {
  const int32_t tail = call->header.input_features - call->whole;
  uint32_t totals[SUBBYTE_PANEL] = {0};
  int32_t code_bit = 0;
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (!call->header.plane_offset[plane]) {
      continue;
    }
    subbyte_plane_sums *add = call->isa->plane_sums[plane];
    add = add ? add : subbyte_portable.plane_sums[plane];
    memset(sums, 0, SUBBYTE_PANEL * sizeof *sums);
    add(find_block(call, plane, first, channels, 0), channels, call->x, call->whole, sums);
    add(find_block(call, plane, first, channels, call->whole), channels, call->tail, tail, sums);
    for (int32_t c = 0; c < channels; ++c) {
      totals[c] += (uint32_t)sums[c] << code_bit;
    }
    code_bit += subbyte_plane_width(plane);
  }
  for (int32_t c = 0; c < channels; ++c) {
    sums[c] = (int32_t)((uint32_t)call->header.code_step * totals[c] + call->code_offset_sum);
  }
}

static void codebook_sums(const call *call, int32_t first, int32_t channels, int32_t sums[SUBBYTE_PANEL]) {
  const int32_t starts[2] = {0, call->whole};
  const int32_t counts[2] = {call->whole, call->header.input_features - call->whole};
  const int8_t *const inputs[2] = {call->x, call->tail};
  const int8_t *codebook = (const int8_t *)call->layer + call->header.codebook_offset;
  subbyte_codebook_sums *add = call->isa->codebook_sums;
  add = add ? add : subbyte_portable.codebook_sums;
  memset(sums, 0, SUBBYTE_PANEL * sizeof *sums);
  for (int32_t part = 0; part < 2; ++part) {
    const uint8_t *planes[SUBBYTE_PLANES] = {NULL};
    for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
      if (call->header.plane_offset[plane]) {
        planes[plane] = find_block(call, plane, first, channels, starts[part]);
      }
    }
    add(planes, channels, codebook, inputs[part], counts[part], sums);
  }
}

static void compute_panel(const call *call, int32_t first, int8_t *output) {
  const subbyte_header *header = &call->header;
  const int32_t left = header->output_channels - first;
  const int32_t channels = left < SUBBYTE_PANEL ? left : SUBBYTE_PANEL;
  int32_t sums[SUBBYTE_PANEL];
  if (header->decode == SUBBYTE_LINEAR) {
    linear_sums(call, first, channels, sums);
  } else {
    codebook_sums(call, first, channels, sums);
  }
  for (int32_t c = 0; c < channels; ++c) {
    const int32_t sum = sums[c] + (int32_t)subbyte_load_bias(call->layer, header, first + c);
    const float multiplier = subbyte_load_multiplier(call->layer, header, first + c);
    output[first + c] =
        subbyte_requantize(sum, multiplier, header->output_zero_point, header->clamp_min, header->clamp_max);
  }
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  call call = {.isa = isa, .layer = layer, .header = subbyte_load_header(layer)};
  for (int32_t row = 0; row < rows; ++row) {
    set_row(&call, input + (size_t)row * (size_t)call.header.input_features);
    for (int32_t first = 0; first < call.header.output_channels; first += SUBBYTE_PANEL) {
      compute_panel(&call, first, output + (size_t)row * (size_t)call.header.output_channels);
    }
  }
}
