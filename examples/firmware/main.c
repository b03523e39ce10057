// Runs the model that `convert-to-tflite --format=c --output=model.c` wrote: from flash, in two buffers, with no heap.
#include "model.h"

static int8_t buffers[2][MODEL_BUFFER_BYTES];
static const subbyte_isa *isa;

// Once, before anything else.
subbyte_status model_init(void) {
  isa = subbyte_best_isa();
  subbyte_status status = SUBBYTE_OK;
  for (int32_t i = 0; i < MODEL_LAYERS && status == SUBBYTE_OK; ++i) {
    status = subbyte_check(model_layers[i].packed, model_layers[i].bytes);
  }
  return status;
}

// features: int8 [MODEL_INPUTS]; scores: int8 [MODEL_OUTPUTS].
void model_run(const int8_t *features, int8_t *scores) {
  for (int32_t i = 0; i < MODEL_LAYERS; ++i) {
    int8_t *output = i + 1 < MODEL_LAYERS ? buffers[i % 2] : scores;
    subbyte_fully_connected(model_layers[i].packed, features, model_layers[i].rows, output, isa);
    features = output;
  }
}

int main(void) {
  static int8_t features[MODEL_INPUTS]; // to be filled from a sensor
  int8_t scores[MODEL_OUTPUTS];
  if (model_init() != SUBBYTE_OK) {
    return -1;
  }
  model_run(features, scores);
  return scores[0];
}
