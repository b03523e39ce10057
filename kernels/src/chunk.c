// Chunks of a convolution: how many products of its weights fit in 16 bits.
#include "chunk.h"

#include "ops.h"
#include "window.h"

enum {
  LIMIT = INT16_MAX / 128, // of the magnitudes of weights whose products share 16 bits: inputs reach 128
};

// The inputs of a channel that take a product each: a quad, or of a depthwise convolution one.
static int32_t find_width(const subbyte_header *header) {
  return header->op == SUBBYTE_DEPTHWISE_CONV_2D ? 1 : SUBBYTE_QUAD;
}

// Inputs that lie one behind the other, and fill up whole quads.
static int32_t find_run(const subbyte_header *header) {
  return find_width(header) == 1 ? header->input_features : header->input_features / subbyte_count_runs(header);
}

// Where the sums of a panel stand: of each lane of every channel.
typedef struct lanes {
  int32_t sums[SUBBYTE_QUAD * SUBBYTE_PANEL];
  int32_t channels, width;
  int32_t run, place; // inputs of a run, and which one comes next
  int32_t done;       // of the chunk
} lanes;

static int32_t find_largest(const int32_t *values, int32_t count) {
  int32_t largest = 0;
  for (int32_t i = 0; i < count; ++i) {
    largest = values[i] > largest ? values[i] : largest;
  }
  return largest;
}

// Adds one input of some decoded weights. Returns the largest sum of a chunk that it completes, else 0.
static int32_t add_input(lanes *lanes, const int8_t *weights, int32_t chunk) {
  int32_t *sums = lanes->sums + SUBBYTE_PANEL * (lanes->place % lanes->width);
  for (int32_t c = 0; c < lanes->channels; ++c) {
    const int32_t weight = weights[SUBBYTE_QUAD * c];
    sums[c] += weight < 0 ? -weight : weight;
  }
  lanes->place = lanes->place + 1 == lanes->run ? 0 : lanes->place + 1;
  if (lanes->place % lanes->width != 0 || ++lanes->done < chunk) {
    return 0;
  }
  const int32_t largest = find_largest(lanes->sums, SUBBYTE_QUAD * SUBBYTE_PANEL);
  memset(lanes->sums, 0, sizeof lanes->sums);
  lanes->done = 0;
  return largest;
}

// The largest sum of magnitudes that a lane of the panel has in a chunk. Strides are decoded one by one.
static int32_t find_panel_sum(const subbyte_prepared *layer, subbyte_panels panels, int32_t panel, int32_t chunk) {
  const subbyte_header *header = &layer->header;
  const int32_t inputs = header->input_features;
  lanes lanes = {
      .channels = subbyte_panel_channels(&panels, panel), .width = find_width(header), .run = find_run(header)};
  int32_t largest = 0;
  for (int32_t first = 0; first < inputs; first += SUBBYTE_STRIDE) {
    const int32_t some = subbyte_smaller(inputs - first, SUBBYTE_STRIDE);
    int8_t weights[SUBBYTE_STRIDE * SUBBYTE_PANEL];
    int32_t start[SUBBYTE_PANEL];
    layer->isa->decode(&panels, panel, header->decode == SUBBYTE_LINEAR, some, weights, start);
    for (int32_t k = 0; k < some; ++k) {
      const int32_t at = SUBBYTE_QUAD_BYTES * (k / SUBBYTE_QUAD) + k % SUBBYTE_QUAD;
      const int32_t sum = add_input(&lanes, weights + at, chunk);
      largest = sum > largest ? sum : largest;
    }
    for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) { // as many blocks as bits
      if (panels.planes[plane]) {
        panels.planes[plane] += SUBBYTE_QUAD * lanes.channels * subbyte_plane_width(plane);
      }
    }
  }
  const int32_t rest = find_largest(lanes.sums, SUBBYTE_QUAD * SUBBYTE_PANEL);
  return rest > largest ? rest : largest;
}

// That of all panels, or a sum beyond `enough`.
static int32_t find_sum(const subbyte_prepared *layer, int32_t chunk, int32_t enough) {
  const subbyte_header *header = &layer->header; // of a depthwise convolution a panel takes the channels of 16 groups
  const int32_t channels = header->output_channels / (find_width(header) == 1 ? 1 : header->groups);
  int32_t largest = 0;
  for (int32_t first = 0; first < header->output_channels; first += channels) {
    const subbyte_panels panels = subbyte_find_panels(layer, first, channels);
    for (int32_t panel = 0; panel < panels.count && largest <= enough; ++panel) {
      const int32_t sum = find_panel_sum(layer, panels, panel, chunk);
      largest = sum > largest ? sum : largest;
    }
  }
  return largest;
}

// Products of a lane.
static int32_t count_products(const subbyte_header *header) {
  const int32_t run = find_run(header);
  return header->input_features / run * subbyte_divide_up(run, find_width(header));
}

static int32_t find_largest_weight(const subbyte_prepared *layer) {
  int32_t magnitudes[256];
  const int32_t count = 1 << layer->header.weight_bits;
  for (int32_t code = 0; code < count; ++code) {
    magnitudes[code] = layer->codebook[code] < 0 ? -layer->codebook[code] : layer->codebook[code];
  }
  return find_largest(magnitudes, count);
}

int32_t subbyte_safe_chunk(const subbyte_prepared *layer) {
  const int32_t all = count_products(&layer->header), largest = find_largest_weight(layer);
  const int32_t most = largest > 0 ? LIMIT / largest : all;
  return most < all ? subbyte_divide_up(all, subbyte_divide_up(all, most)) : all;
}

int32_t subbyte_find_chunk(const subbyte_prepared *layer) {
  const int32_t all = count_products(&layer->header), safe = subbyte_safe_chunk(layer);
  if (safe == all) {
    return safe;
  }
  int32_t chunks = subbyte_divide_up(find_sum(layer, all, INT32_MAX), LIMIT), chunk = all;
  for (chunks = chunks > 1 ? chunks : 1;; ++chunks) {
    chunk = subbyte_divide_up(all, chunks);
    if ((chunk < SUBBYTE_SHORT_CHUNK && chunk < all) || chunk <= safe) {
      return safe;
    }
    if (find_sum(layer, chunk, LIMIT) <= LIMIT) {
      return chunk;
    }
  }
}
