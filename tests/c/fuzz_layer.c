// The fuzz target: bytes that subbyte_check() accepts are computed by every instruction set that runs here, which must
// all give the same output. For libFuzzer (make fuzz) or fuzz_main.c, and always with sanitizers, which end the process
// at an access outside a buffer or at undefined behaviour.
//
// The bytes: rows - 1 (of an image: height - 1), misalignment, number of input bytes (uint16, little-endian), layer,
// input bytes. Fewer input bytes than the layer takes are repeated. tests/fuzz_kernels.py writes such bytes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subbyte.h"

enum {
  PREFIX = 4,
  PARTS = 3,
  MAX_ROWS = 9,
  ALIGNMENT = 64,
  PANEL = 16,
  IMAGE_WIDTH = 5,
  MAX_IMAGE = 1 << 20,
  MAX_SCRATCH = 1 << 26
};

// How often bytes were a layer, for fuzz_main.c.
extern unsigned long fuzz_layers_run;
unsigned long fuzz_layers_run = 0;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) {
    abort();
  }
  return memory;
}

static void expect_equal(const int8_t *output, const int8_t *expected, size_t bytes, const subbyte_isa *isa) {
  if (memcmp(output, expected, bytes) != 0) {
    fprintf(stderr, "%s differs from portable\n", subbyte_isa_name(isa));
    abort();
  }
}

// At once, and by channels in two parts.
static void compare(const uint8_t *layer, const subbyte_isa *isa, const int8_t *input, int32_t rows, int32_t channels,
                    const int8_t *expected) {
  const size_t bytes = (size_t)rows * (size_t)channels;
  const int32_t middle = channels / 2 / PANEL * PANEL;
  int8_t *output = allocate(bytes);
  memset(output, ~expected[0], bytes);
  subbyte_fully_connected(layer, input, rows, output, isa);
  expect_equal(output, expected, bytes, isa);
  memset(output, ~expected[0], bytes);
  subbyte_fully_connected_channels(layer, input, rows, output, isa, middle, channels);
  subbyte_fully_connected_channels(layer, input, rows, output, isa, 0, middle);
  expect_equal(output, expected, bytes, isa);
  free(output);
}

static void run(const uint8_t *layer, int32_t rows, const uint8_t *values, size_t value_count) {
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  const size_t inputs = (size_t)rows * (size_t)header.input_features;
  int8_t *input = allocate(inputs), *expected = allocate((size_t)rows * (size_t)header.output_channels);
  for (size_t i = 0; i < inputs; ++i) {
    input[i] = value_count > 0 ? (int8_t)values[i % value_count] : 127;
  }
  subbyte_fully_connected(layer, input, rows, expected, subbyte_find_isa("portable"));
  for (int32_t i = 0; subbyte_isa_at(i) != NULL; ++i) {
    if (subbyte_isa_runs(subbyte_isa_at(i))) {
      compare(layer, subbyte_isa_at(i), input, rows, header.output_channels, expected);
    }
  }
  free(input);
  free(expected);
  ++fuzz_layers_run;
}

// A fully connected layer with 16-bit activations, at once and by channels in two parts.
static void run_int16(const uint8_t *layer, int32_t rows, const uint8_t *values, size_t value_count) {
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  const size_t input_bytes = sizeof(int16_t) * (size_t)rows * (size_t)header.input_features;
  const size_t output_bytes = sizeof(int16_t) * (size_t)rows * (size_t)header.output_channels;
  const int32_t middle = header.output_channels / 2 / PANEL * PANEL;
  int8_t *input = allocate(input_bytes), *expected = allocate(output_bytes), *output = allocate(output_bytes);
  const int16_t *codes = (const int16_t *)(const void *)input;
  int16_t *to = (int16_t *)(void *)output;
  void *scratch = allocate(subbyte_fully_connected_int16_scratch(layer, rows));
  for (size_t i = 0; i < input_bytes; ++i) {
    input[i] = value_count > 0 ? (int8_t)values[i % value_count] : 127;
  }
  subbyte_fully_connected_int16(layer, codes, rows, (int16_t *)(void *)expected, scratch, subbyte_find_isa("portable"));
  for (int32_t i = 0; subbyte_isa_at(i) != NULL; ++i) {
    const subbyte_isa *isa = subbyte_isa_at(i);
    if (subbyte_isa_runs(isa)) {
      memset(output, ~expected[0], output_bytes);
      subbyte_fully_connected_int16(layer, codes, rows, to, scratch, isa);
      expect_equal(output, expected, output_bytes, isa);
      memset(output, ~expected[0], output_bytes);
      subbyte_fully_connected_int16_channels(layer, codes, rows, to, scratch, isa, middle, header.output_channels);
      subbyte_fully_connected_int16_channels(layer, codes, rows, to, scratch, isa, 0, middle);
      expect_equal(output, expected, output_bytes, isa);
    }
  }
  free(input);
  free(expected);
  free(output);
  free(scratch);
  ++fuzz_layers_run;
}

// A convolution of an image of 1 to 9 by 5 pixels, at once and in parts.
static void run_convolution(const uint8_t *layer, int32_t height, const uint8_t *values, size_t value_count) {
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  int32_t output_height, output_width;
  subbyte_conv_2d_output(layer, height, IMAGE_WIDTH, &output_height, &output_width);
  const size_t inputs = (size_t)height * IMAGE_WIDTH * (size_t)header.input_channels;
  const size_t outputs = (size_t)output_height * (size_t)output_width * (size_t)header.output_channels;
  const size_t scratch_bytes = subbyte_conv_2d_scratch(layer, 1, height, IMAGE_WIDTH);
  if (outputs == 0 || inputs > MAX_IMAGE || outputs > MAX_IMAGE || scratch_bytes > MAX_SCRATCH) {
    return;
  }
  int8_t *input = allocate(inputs), *expected = allocate(outputs), *output = allocate(outputs);
  void *scratch = allocate(scratch_bytes);
  for (size_t i = 0; i < inputs; ++i) {
    input[i] = value_count > 0 ? (int8_t)values[i % value_count] : 127;
  }
  subbyte_conv_2d(layer, input, 1, height, IMAGE_WIDTH, expected, scratch, subbyte_find_isa("portable"));
  for (int32_t i = 0; subbyte_isa_at(i) != NULL; ++i) {
    if (subbyte_isa_runs(subbyte_isa_at(i))) {
      memset(output, ~expected[0], outputs);
      subbyte_conv_2d(layer, input, 1, height, IMAGE_WIDTH, output, scratch, subbyte_isa_at(i));
      expect_equal(output, expected, outputs, subbyte_isa_at(i));
      memset(output, ~expected[0], outputs);
      for (int32_t part = 0; part < PARTS; ++part) {
        subbyte_conv_2d_part(layer, input, 1, height, IMAGE_WIDTH, output, scratch, subbyte_isa_at(i), part, PARTS);
      }
      expect_equal(output, expected, outputs, subbyte_isa_at(i));
    }
  }
  free(input);
  free(expected);
  free(output);
  free(scratch);
  ++fuzz_layers_run;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < PREFIX) {
    return 0;
  }
  const size_t misalignment = data[1] % ALIGNMENT, rest = size - PREFIX, asked = data[2] + 256u * data[3];
  const size_t value_count = asked < rest ? asked : rest, bytes = rest - value_count;
  uint8_t *memory = allocate(misalignment + bytes); // which ends where the layer ends
  uint8_t *layer = memory + misalignment;
  memcpy(layer, data + PREFIX, bytes);
  if (subbyte_check(layer, bytes) == SUBBYTE_OK) {
    const int is_dense = layer[offsetof(subbyte_header, op)] == SUBBYTE_FULLY_CONNECTED;
    const int is_int16 = layer[offsetof(subbyte_header, activation_type)] == SUBBYTE_ACTIVATION_INT16;
    (is_int16   ? run_int16
     : is_dense ? run
                : run_convolution)(layer, data[0] % MAX_ROWS + 1, data + size - value_count, value_count);
  }
  free(memory);
  return 0;
}
