// An image of a model: packed layers one behind the other.
#include "layout.h"

// Whether a layer takes what the one before it gives: as many codes, of the same scale and zero point.
static int follows(const subbyte_header *before, const subbyte_header *layer) {
  return layer->input_features == before->output_channels && layer->input_zero_point == before->output_zero_point &&
         layer->input_scale == before->output_scale;
}

static int is_supported(const subbyte_header *layer) {
  return layer->op == SUBBYTE_FULLY_CONNECTED && layer->activation_type == SUBBYTE_ACTIVATION_INT8;
}

// Bytes of the layer at the start of `bytes` bytes. The check sees to it that they are a layer.
static size_t layer_bytes(const uint8_t *layer, size_t bytes) {
  if (bytes < sizeof(subbyte_header)) {
    return bytes;
  }
  const size_t own = subbyte_load_header(layer).total_bytes;
  return own < bytes ? own : bytes;
}

subbyte_status subbyte_find_layers(const void *image, size_t bytes, subbyte_layer *layers, int32_t most,
                                   int32_t *count) {
  subbyte_header before = {0};
  *count = 0;
  for (size_t at = 0; at < bytes || *count == 0;) {
    const uint8_t *layer = (const uint8_t *)image + at;
    const size_t own = layer_bytes(layer, bytes - at);
    const subbyte_status status = subbyte_check(layer, own);
    if (status != SUBBYTE_OK) {
      return status;
    }
    const subbyte_header header = subbyte_load_header(layer);
    if (*count == most || !is_supported(&header) || (*count > 0 && !follows(&before, &header))) {
      return SUBBYTE_BAD_CHAIN;
    }
    layers[(*count)++] = (subbyte_layer){layer, own, 1};
    before = header;
    const size_t rest = bytes - at - own, padding = ((size_t)0 - own) & (SUBBYTE_IMAGE_ALIGNMENT - 1);
    at += own + (padding < rest ? padding : rest);
  }
  return SUBBYTE_OK;
}
