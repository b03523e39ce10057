// The fully connected layer: shapes, tails, zero points and rounding, around the loops of a variant.
#include "isa.h"
#include "requantize.h"

// Output channels between whose sums and codes nothing else is computed: panels that share the overhead of the rest.
enum { TILE = 8 * SUBBYTE_PANEL };

// One layer, one row of input.
typedef struct call {
  const subbyte_isa *isa;
  const uint8_t *layer;
  subbyte_header header;
  const int8_t *x;
  int32_t whole;               // inputs of x that make whole strides
  int8_t tail[SUBBYTE_STRIDE]; // the rest of x; zeros behind, which every row leaves alone
  uint32_t code_step;          // of a codebook: 1
  uint32_t code_offset_sum;    // code_offset * sum(x); of a codebook: 0
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

// sum(code * x): planes from the highest bits, which are in the narrowest, to the lowest.
static void linear_sums(const call *call, int32_t first, int32_t channels, int32_t sums[SUBBYTE_PANEL]) {
  const int32_t tail = call->header.input_features - call->whole;
  memset(sums, 0, SUBBYTE_PANEL * sizeof *sums);
  for (int32_t plane = SUBBYTE_PLANES - 1; plane >= 0; --plane) {
    if (!call->header.plane_offset[plane]) {
      continue;
    }
    if (call->header.weight_bits != subbyte_plane_width(plane)) {
      for (int32_t c = 0; c < channels; ++c) {
        sums[c] *= 1 << subbyte_plane_width(plane);
      }
    }
    subbyte_plane_sums *add = call->isa->plane_sums[plane];
    add = add ? add : subbyte_portable.plane_sums[plane];
    add(find_block(call, plane, first, channels, 0), channels, call->x, call->whole, sums);
    add(find_block(call, plane, first, channels, call->whole), channels, call->tail, tail, sums);
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

static void load_biases(const call *call, int32_t first, int32_t channels, int32_t biases[TILE]) {
  const subbyte_header *header = &call->header;
  const size_t width = subbyte_bias_bytes(header);
  const uint8_t *section = call->layer + header->bias_offset + width * (size_t)first;
  if (header->bias_type == SUBBYTE_BIAS_INT32) {
    memcpy(biases, section, width * (size_t)channels);
    return;
  }
  int16_t narrow[TILE];
  memcpy(narrow, section, width * (size_t)channels);
  for (int32_t c = 0; c < channels; ++c) {
    biases[c] = narrow[c];
  }
}

// From sum(code * x) to sum(weight * x) + bias. Unsigned arithmetic may wrap around on the way; the format check saw to
// it that the result stays in 32 bits, so it is exact.
static void finish_sums(const call *call, int32_t first, int32_t channels, int32_t sums[TILE]) {
  const uint32_t step = call->code_step, offset = call->code_offset_sum;
  const int32_t shift = call->header.bias_shift;
  int32_t biases[TILE];
  load_biases(call, first, channels, biases);
  if (step != 1) { // a multiplication of 32 bits is slow where vectors have none
    for (int32_t c = 0; c < channels; ++c) {
      sums[c] = (int32_t)(step * (uint32_t)sums[c]);
    }
  }
  for (int32_t c = 0; c < channels; ++c) {
    sums[c] = (int32_t)((uint32_t)sums[c] + offset + ((uint32_t)biases[c] << shift));
  }
}

static void load_multipliers(const call *call, int32_t first, int32_t channels, float multipliers[TILE]) {
  const subbyte_header *header = &call->header;
  const size_t width = subbyte_multiplier_bytes(header);
  const uint8_t *section = call->layer + header->multiplier_offset + width * (size_t)first;
  uint32_t bits[TILE];
  if (header->multiplier_type == SUBBYTE_MULTIPLIER_UFLOAT16) {
    uint16_t middle[TILE];
    memcpy(middle, section, width * (size_t)channels);
    for (int32_t c = 0; c < channels; ++c) {
      bits[c] = (uint32_t)middle[c] << 14;
    }
  } else {
    memcpy(bits, section, width * (size_t)channels);
  }
  memcpy(multipliers, bits, sizeof *bits * (size_t)channels);
}

static int32_t smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

static void compute_tile(const call *call, int32_t first, int32_t channels, int8_t *output) {
  int32_t sums[TILE];
  float multipliers[TILE];
  for (int32_t c = 0; c < channels; c += SUBBYTE_PANEL) {
    const int32_t panel = smaller(channels - c, SUBBYTE_PANEL);
    if (call->header.decode == SUBBYTE_LINEAR) {
      linear_sums(call, first + c, panel, sums + c);
    } else {
      codebook_sums(call, first + c, panel, sums + c);
    }
  }
  finish_sums(call, first, channels, sums);
  load_multipliers(call, first, channels, multipliers);
  subbyte_requantize(&call->header, channels, sums, multipliers, output + first);
}

void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                             const subbyte_isa *isa) {
  call call = {.isa = isa, .layer = layer, .header = subbyte_load_header(layer), .code_step = 1};
  if (call.header.decode == SUBBYTE_LINEAR) {
    call.code_step = (uint32_t)call.header.code_step;
  }
  const int32_t channels = call.header.output_channels;
  for (int32_t row = 0; row < rows; ++row) {
    set_row(&call, input + (size_t)row * (size_t)call.header.input_features);
    for (int32_t first = 0; first < channels; first += TILE) {
      compute_tile(&call, first, smaller(channels - first, TILE), output + (size_t)row * (size_t)channels);
    }
  }
}
