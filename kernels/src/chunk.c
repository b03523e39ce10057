// Chunks of a convolution: how many quads in succession have products whose sums fit in 16 bits.
#include "chunk.h"

#include "window.h"

enum {
  LIMIT = INT16_MAX / 128, // of the magnitudes of weights whose products share 16 bits: inputs reach 128
};

// Where the sums of a panel stand: its quads' lanes of every channel, and which input comes next.
typedef struct lanes {
  int32_t sums[SUBBYTE_QUAD * SUBBYTE_PANEL];
  int32_t channels;
  int32_t run, place; // inputs of a run, and of which one comes next
  int32_t quads;      // of the chunk that are complete
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
  int32_t *sums = lanes->sums + SUBBYTE_PANEL * (lanes->place % SUBBYTE_QUAD);
  for (int32_t c = 0; c < lanes->channels; ++c) {
    const int32_t weight = weights[SUBBYTE_QUAD * c];
    sums[c] += weight < 0 ? -weight : weight;
  }
  lanes->place = lanes->place + 1 == lanes->run ? 0 : lanes->place + 1;
  if (lanes->place % SUBBYTE_QUAD != 0 || ++lanes->quads < chunk) {
    return 0;
  }
  const int32_t largest = find_largest(lanes->sums, SUBBYTE_QUAD * SUBBYTE_PANEL);
  memset(lanes->sums, 0, sizeof lanes->sums);
  lanes->quads = 0;
  return largest;
}

// The largest sum of magnitudes that a lane of the panel has in a chunk of so many quads. A stride is decoded at a
// time.
static int32_t find_panel_sum(const subbyte_prepared *layer, subbyte_panels panels, int32_t panel, int32_t chunk) {
  const int32_t inputs = layer->header.input_features;
  lanes lanes = {.channels = subbyte_panel_channels(&panels, panel),
                 .run = inputs / subbyte_count_runs(&layer->header)};
  int32_t largest = 0;
  for (int32_t first = 0; first < inputs; first += SUBBYTE_STRIDE) {
    const int32_t some = subbyte_smaller(inputs - first, SUBBYTE_STRIDE);
    int8_t weights[SUBBYTE_STRIDE * SUBBYTE_PANEL];
    int32_t start[SUBBYTE_PANEL];
    layer->isa->decode(&panels, panel, layer->header.decode == SUBBYTE_LINEAR, some, weights, start);
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
  const int32_t channels = layer->header.output_channels / layer->header.groups;
  int32_t largest = 0;
  for (int32_t first = 0; first < layer->header.output_channels; first += channels) {
    const subbyte_panels panels = subbyte_find_panels(layer, first, channels);
    for (int32_t panel = 0; panel < panels.count && largest <= enough; ++panel) {
      const int32_t sum = find_panel_sum(layer, panels, panel, chunk);
      largest = sum > largest ? sum : largest;
    }
  }
  return largest;
}

static int32_t divide_up(int32_t number, int32_t by) {
  return number / by + (number % by != 0);
}

static int32_t count_quads(const subbyte_prepared *layer) {
  const int32_t runs = subbyte_count_runs(&layer->header);
  return runs * subbyte_quads(layer->header.input_features / runs);
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
  const int32_t quads = count_quads(layer), largest = find_largest_weight(layer);
  const int32_t most = largest > 0 ? LIMIT / largest : quads;
  return most < quads ? divide_up(quads, divide_up(quads, most)) : quads;
}

int32_t subbyte_find_chunk(const subbyte_prepared *layer) {
  const int32_t quads = count_quads(layer), safe = subbyte_safe_chunk(layer);
  if (safe == quads) {
    return safe;
  }
  int32_t chunks = divide_up(find_sum(layer, quads, INT32_MAX), LIMIT), chunk = quads;
  for (chunks = chunks > 1 ? chunks : 1;; ++chunks) {
    chunk = divide_up(quads, chunks);
    if ((chunk < SUBBYTE_SHORT_CHUNK && chunk < quads) || chunk <= safe) {
      return safe;
    }
    if (find_sum(layer, chunk, LIMIT) <= LIMIT) {
      return chunk;
    }
  }
}
