// Is this a packed layer that the kernels may trust? The only place that doubts the bytes.
#include "records.h"

enum { MAX_BIAS_SHIFT = 15 };

typedef struct span {
  uint64_t offset, bytes, alignment;
} span;

static int is_between(int32_t value, int32_t low, int32_t high) {
  return low <= value && value <= high;
}

static int is_finite(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}

static int has_known_values(const subbyte_header *h) {
  return is_between(h->op, SUBBYTE_FULLY_CONNECTED, SUBBYTE_DEPTHWISE_CONV_2D) &&
         is_between(h->decode, SUBBYTE_LINEAR, SUBBYTE_CODEBOOK) && h->layout == SUBBYTE_PANELS_OF_16_BY_4 &&
         is_between(h->activation_type, SUBBYTE_ACTIVATION_INT8, SUBBYTE_ACTIVATION_INT16) &&
         is_between(h->requantization, SUBBYTE_REQUANTIZE_FLOAT32, SUBBYTE_REQUANTIZE_FIXED_POINT) &&
         is_between(h->multiplier_type, SUBBYTE_MULTIPLIER_FLOAT32, SUBBYTE_MULTIPLIER_IN_BIAS) &&
         is_between(h->bias_type, SUBBYTE_BIAS_INT32, SUBBYTE_BIAS_INT16) &&
         is_between(h->padding, SUBBYTE_PADDING_VALID, SUBBYTE_PADDING_SAME) &&
         (h->accumulator_bits == 64 || h->accumulator_bits == 32 || h->accumulator_bits == 16) && h->reserved == 0;
}

static int is_int16(const subbyte_header *h) {
  return h->activation_type == SUBBYTE_ACTIVATION_INT16;
}

// What the format foresees and this library does not compute yet.
static int is_supported(const subbyte_header *h) {
  const int is_computed = is_int16(h) ? h->requantization == SUBBYTE_REQUANTIZE_FIXED_POINT &&
                                            h->accumulator_bits == 64 && h->op == SUBBYTE_FULLY_CONNECTED
                                      : h->requantization == SUBBYTE_REQUANTIZE_FLOAT32 && h->accumulator_bits == 32;
  return is_computed && h->scale_block == 0;
}

static int has_good_shape(const subbyte_header *h) {
  return is_between(h->input_features, 1, SUBBYTE_MAX_FEATURES) && h->output_channels >= 1;
}

static int is_fully_connected(const subbyte_header *h) {
  return h->input_channels == h->input_features && h->groups == 1 && h->kernel_height == 1 && h->kernel_width == 1 &&
         h->stride_height == 1 && h->stride_width == 1 && h->dilation_height == 1 && h->dilation_width == 1 &&
         h->padding == SUBBYTE_PADDING_VALID;
}

// The inputs of a window are those of every tap, of one group of channels; of a depthwise convolution every channel is
// a group.
static int is_convolution(const subbyte_header *h) {
  if (h->kernel_height < 1 || h->kernel_width < 1 || h->stride_height < 1 || h->stride_width < 1 ||
      h->dilation_height < 1 || h->dilation_width < 1 || h->input_channels < 1 || h->groups < 1 ||
      h->input_channels % h->groups != 0 || h->output_channels % h->groups != 0) {
    return 0;
  }
  const int64_t taps = (int64_t)h->kernel_height * h->kernel_width; // less than 2^32, so that the product has room
  return taps * (h->input_channels / h->groups) == h->input_features &&
         (h->op == SUBBYTE_CONV_2D || h->groups == h->input_channels);
}

static int has_good_geometry(const subbyte_header *h) {
  return h->op == SUBBYTE_FULLY_CONNECTED ? is_fully_connected(h) : is_convolution(h);
}

static int has_good_codes(const subbyte_header *h) {
  if (is_int16(h)) {
    return h->input_zero_point == 0 && h->output_zero_point == 0 && h->clamp_min <= h->clamp_max;
  }
  return is_between(h->input_zero_point, INT8_MIN, INT8_MAX) && is_between(h->output_zero_point, INT8_MIN, INT8_MAX) &&
         is_between(h->clamp_min, INT8_MIN, h->clamp_max) && h->clamp_max <= INT8_MAX;
}

static int has_good_activations(const subbyte_header *h) {
  return has_good_codes(h) && h->input_scale > 0 && is_finite(h->input_scale) && h->output_scale > 0 &&
         is_finite(h->output_scale);
}

static int is_in_bias(const subbyte_header *h) {
  return h->multiplier_type == SUBBYTE_MULTIPLIER_IN_BIAS;
}

static int has_good_records(const subbyte_header *h) {
  if (is_in_bias(h)) {
    return h->bias_type == SUBBYTE_BIAS_INT16 && h->multiplier_bits <= 15 && h->multiplier_shift <= 31;
  }
  return h->multiplier_bits == 0 && h->multiplier_shift == 0;
}

static int has_good_decode(const subbyte_header *h) {
  if (h->decode == SUBBYTE_CODEBOOK) {
    return h->codebook_offset != 0;
  }
  int32_t last = h->code_offset + h->code_step * ((1 << h->weight_bits) - 1);
  return h->codebook_offset == 0 && h->code_step >= 1 && h->code_offset >= INT8_MIN && last <= INT8_MAX;
}

static int is_inside(const subbyte_header *h, span section) {
  return section.offset >= sizeof *h && section.offset % section.alignment == 0 &&
         section.offset + section.bytes <= h->total_bytes;
}

static int has_good_plane(const subbyte_header *h, int32_t plane) {
  int32_t width = subbyte_plane_width(plane);
  uint64_t offset = h->plane_offset[plane];
  if (!(h->weight_bits & width)) {
    return offset == 0;
  }
  uint64_t channel_bytes = 4 * (uint64_t)subbyte_blocks(h->input_features, width);
  uint64_t bytes = channel_bytes * (uint64_t)h->output_channels;
  // The last block starts 4 bytes a channel of the last panel before the end, and 64 bytes may be read from there.
  const int32_t run = h->op == SUBBYTE_CONV_2D ? h->output_channels / h->groups : h->output_channels;
  uint64_t last_panel = ((uint64_t)run - 1) % SUBBYTE_PANEL + 1;
  return is_inside(h, (span){offset, bytes - 4 * last_panel + SUBBYTE_BLOCK_BYTES, SUBBYTE_BLOCK_BYTES});
}

static int has_good_sections(const subbyte_header *h) {
  for (int32_t plane = 0; plane < SUBBYTE_PLANES; ++plane) {
    if (!has_good_plane(h, plane)) {
      return 0;
    }
  }
  uint64_t channels = (uint64_t)h->output_channels;
  if (h->decode == SUBBYTE_CODEBOOK && !is_inside(h, (span){h->codebook_offset, 1u << h->weight_bits, 4})) {
    return 0;
  }
  const uint64_t multiplier_bytes = is_in_bias(h) ? 4 : subbyte_multiplier_bytes(h->multiplier_type) * channels;
  return is_inside(h, (span){h->multiplier_offset, multiplier_bytes, 4}) &&
         is_inside(h, (span){h->bias_offset, subbyte_bias_bytes(h->bias_type) * channels, 4});
}

// Largest magnitude of a weight.
static int32_t largest_weight(const uint8_t *layer, const subbyte_header *h) {
  if (h->decode == SUBBYTE_LINEAR) {
    int32_t last = h->code_offset + h->code_step * ((1 << h->weight_bits) - 1);
    return -h->code_offset > last ? -h->code_offset : last;
  }
  int32_t largest = 0;
  for (int32_t code = 0; code < 1 << h->weight_bits; ++code) {
    int8_t weight;
    memcpy(&weight, layer + h->codebook_offset + code, 1);
    int32_t magnitude = weight < 0 ? -weight : weight;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// The sum and its bias must fit in 32 bits for every input; of 16-bit activations in 40.
static int has_good_biases(const uint8_t *layer, const subbyte_header *h) {
  const int64_t largest_sum = is_int16(h) ? SUBBYTE_MAX_INT16_SUM : INT32_MAX;
  const int64_t largest_input = is_int16(h) ? 32768 + 128 : 128; // and 128 more are in the bias
  const int64_t room = largest_sum - largest_input * h->input_features * largest_weight(layer, h);
  const subbyte_records records = subbyte_find_records(layer, h);
  for (int32_t channel = 0; channel < h->output_channels; ++channel) {
    int64_t bias = subbyte_bias(&records, channel);
    if (bias > room || bias < -room) {
      return 0;
    }
  }
  return 1;
}

// Whether a multiplier is from 0 to below 2^23; its sign, too, is 0.
static int is_int16_multiplier(float multiplier) {
  uint32_t bits;
  memcpy(&bits, &multiplier, sizeof bits);
  return bits >> 23 < 150;
}

static int has_good_multipliers(const uint8_t *layer, const subbyte_header *h) {
  const subbyte_records records = subbyte_find_records(layer, h);
  for (int32_t channel = 0; channel < h->output_channels; ++channel) {
    const float multiplier = subbyte_multiplier(&records, channel);
    if (!is_finite(multiplier) || (is_int16(h) && !is_int16_multiplier(multiplier))) {
      return 0;
    }
  }
  return 1;
}

static subbyte_status check_header(const subbyte_header *h, size_t bytes) {
  if (h->magic != SUBBYTE_MAGIC) {
    return SUBBYTE_WRONG_MAGIC;
  }
  if (h->version != SUBBYTE_VERSION || h->header_bytes != sizeof *h) {
    return SUBBYTE_WRONG_VERSION;
  }
  if (h->total_bytes != bytes) {
    return SUBBYTE_WRONG_SIZE;
  }
  if (!has_known_values(h)) {
    return SUBBYTE_UNKNOWN_VALUE;
  }
  if (!is_supported(h)) {
    return SUBBYTE_UNSUPPORTED;
  }
  if (!is_between(h->weight_bits, 1, 8)) {
    return SUBBYTE_BAD_BITS;
  }
  if (!has_good_shape(h)) {
    return SUBBYTE_BAD_SHAPE;
  }
  if (!has_good_geometry(h)) {
    return SUBBYTE_BAD_GEOMETRY;
  }
  if (!has_good_activations(h)) {
    return SUBBYTE_BAD_ACTIVATION;
  }
  if (!has_good_decode(h)) {
    return SUBBYTE_BAD_DECODE;
  }
  if (!has_good_records(h)) {
    return SUBBYTE_BAD_MULTIPLIER;
  }
  return has_good_sections(h) ? SUBBYTE_OK : SUBBYTE_BAD_SECTION;
}

subbyte_status subbyte_check(const void *layer, size_t bytes) {
  if (bytes < sizeof(subbyte_header)) {
    return SUBBYTE_TOO_SHORT;
  }
  subbyte_header header = subbyte_load_header(layer);
  subbyte_status status = check_header(&header, bytes);
  if (status != SUBBYTE_OK) {
    return status;
  }
  if (!has_good_multipliers(layer, &header)) {
    return SUBBYTE_BAD_MULTIPLIER;
  }
  if (header.bias_shift > MAX_BIAS_SHIFT || !has_good_biases(layer, &header)) {
    return SUBBYTE_BAD_BIAS;
  }
  return SUBBYTE_OK;
}

const char *subbyte_message(subbyte_status status) {
  static const char *const messages[SUBBYTE_STATUS_COUNT] = {
      [SUBBYTE_OK] = "a packed layer",
      [SUBBYTE_TOO_SHORT] = "too few bytes for a packed layer's header",
      [SUBBYTE_WRONG_MAGIC] = "not a packed layer: it does not start with \"SUBB\"",
      [SUBBYTE_WRONG_VERSION] = "a packed layer of another version than 1: convert the model again or update subbyte",
      [SUBBYTE_WRONG_SIZE] = "the packed layer's size is not the tensor's: the file was cut or changed",
      [SUBBYTE_UNKNOWN_VALUE] = "a field holds a value that version 1 does not know: update subbyte",
      [SUBBYTE_UNSUPPORTED] =
          "a packed layer of a kind that this kernel does not compute (16-bit activations: dense layers only): update "
          "subbyte",
      [SUBBYTE_BAD_BITS] = "weight_bits must be 1 to 8",
      [SUBBYTE_BAD_SHAPE] = "input_features must be 1 to 65793 and output_channels at least 1",
      [SUBBYTE_BAD_GEOMETRY] = "window, stride, dilation, groups and channels do not fit each other or the op",
      [SUBBYTE_BAD_ACTIVATION] =
          "zero points and clamp must be int8, or of 16-bit activations 0 and int16, with clamp_min "
          "<= clamp_max, scales positive",
      [SUBBYTE_BAD_DECODE] = "weights must be -128 to 127, by code_offset and a positive code_step or by a codebook",
      [SUBBYTE_BAD_SECTION] = "a section lies outside the tensor, is misaligned, missing, or there without need",
      [SUBBYTE_BAD_MULTIPLIER] =
          "a multiplier is not finite, or of 16-bit activations not from 0 to below 2^23, or it takes more bits of the "
          "biases than they have",
      [SUBBYTE_BAD_BIAS] =
          "a bias is so large that a sum may leave 32 bits (of 16-bit activations 40), or bias_shift is "
          "above 15",
      [SUBBYTE_BAD_CHAIN] =
          "the layers of an image must be fully connected with 8-bit activations, each for what the one before gives, "
          "and no more than there is room for",
  };
  const unsigned number = (unsigned)status;
  return number < SUBBYTE_STATUS_COUNT ? messages[number] : "unknown status";
}
