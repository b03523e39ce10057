// Damages a packed layer again and again and runs whatever subbyte_check() lets through. Built with sanitizers: an
// access outside a buffer or undefined behaviour ends the process.
//
//   fuzz layer.bin rounds      prints "accepted rejected"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subbyte.h"

enum { MAX_BYTES = 1 << 20 };

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint32_t draw(uint32_t bound) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)((random_state >> 32) % bound);
}

// Some bytes of the header or of the whole take likely values: ends of ranges, powers of two, noise.
static void damage(uint8_t *bytes, size_t size) {
  static const uint8_t likely[] = {0, 1, 2, 3, 4, 8, 16, 64, 0x7f, 0x80, 0xff};
  const uint32_t changes = 1 + draw(4);
  for (uint32_t i = 0; i < changes; ++i) {
    const size_t range = draw(4) != 0 && size > sizeof(subbyte_header) ? sizeof(subbyte_header) : size;
    bytes[draw((uint32_t)range)] = draw(2) != 0 ? likely[draw(sizeof likely)] : (uint8_t)draw(256);
  }
}

// Cuts the layer or makes it longer; half of the time the header agrees.
static size_t resize(uint8_t *bytes, size_t size) {
  const size_t resized = draw((uint32_t)size + 130);
  if (resized > size) {
    memset(bytes + size, 0xff, resized - size);
  }
  if (draw(2) != 0 && resized >= sizeof(subbyte_header)) {
    const uint32_t total = (uint32_t)resized;
    memcpy(bytes + offsetof(subbyte_header, total_bytes), &total, sizeof total);
  }
  return resized;
}

// Runs every instruction set on exactly sized buffers.
static void run(const uint8_t *layer) {
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  int8_t *input = malloc((size_t)header.input_features), *output = malloc((size_t)header.output_channels);
  if (input == NULL || output == NULL) {
    abort();
  }
  for (int32_t k = 0; k < header.input_features; ++k) {
    input[k] = (int8_t)draw(256);
  }
  for (int32_t i = 0; subbyte_isa_at(i) != NULL; ++i) {
    if (subbyte_isa_runs(subbyte_isa_at(i))) {
      subbyte_fully_connected(layer, input, 1, output, subbyte_isa_at(i));
    }
  }
  free(input);
  free(output);
}

static int fuzz_once(const uint8_t *original, size_t size) {
  static uint8_t work[MAX_BYTES + 256];
  memcpy(work, original, size);
  size_t changed = draw(4) == 0 ? resize(work, size) : size;
  if (changed > 0 && draw(8) != 0) {
    damage(work, changed);
  }
  uint8_t *exact = malloc(changed + 1); // one more byte in front makes the layer unaligned
  if (exact == NULL) {
    abort();
  }
  memcpy(exact + 1, work, changed);
  const int accepted = subbyte_check(exact + 1, changed) == SUBBYTE_OK;
  if (accepted) {
    run(exact + 1);
  }
  free(exact);
  return accepted;
}

int main(int argc, char **argv) {
  static uint8_t original[MAX_BYTES];
  FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
  if (file == NULL) {
    fprintf(stderr, "usage: fuzz layer.bin rounds\n");
    return 2;
  }
  const size_t size = fread(original, 1, sizeof original, file);
  fclose(file);
  const int rounds = atoi(argv[2]);
  int accepted = 0;
  for (int i = 0; i < rounds; ++i) {
    accepted += fuzz_once(original, size);
  }
  printf("%d %d\n", accepted, rounds - accepted);
  return 0;
}
