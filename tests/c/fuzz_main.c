// Stands in for libFuzzer where a compiler does not have it: every file as it is, then damaged in the same ways on
// every run.
//
//   fuzz_layer rounds file...      prints how many of the inputs were layers, and how many were not
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20, LIKELY_HEADER = 104 };

extern unsigned long fuzz_layers_run;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint32_t draw(uint32_t bound) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)((random_state >> 32) % bound);
}

// Some bytes take likely values: ends of ranges, powers of two, noise. Three of four are in the header.
static void damage(uint8_t *bytes, uint32_t size) {
  static const uint8_t likely[] = {0, 1, 2, 3, 4, 8, 16, 64, 0x7f, 0x80, 0xff};
  const uint32_t changes = 1 + draw(4);
  for (uint32_t i = 0; i < changes; ++i) {
    const uint32_t reach = draw(4) != 0 && size > LIKELY_HEADER ? LIKELY_HEADER : size;
    bytes[draw(reach)] = draw(2) != 0 ? likely[draw(sizeof likely)] : (uint8_t)draw(256);
  }
}

// In exactly as much memory as it takes.
static void run(const uint8_t *bytes, size_t size) {
  uint8_t *exact = malloc(size);
  if (exact == NULL) {
    abort();
  }
  memcpy(exact, bytes, size);
  LLVMFuzzerTestOneInput(exact, size);
  free(exact);
}

static void run_file(const char *name, unsigned long rounds) {
  static uint8_t original[MAX_BYTES], damaged[MAX_BYTES];
  FILE *file = fopen(name, "rb");
  const size_t size = file != NULL ? fread(original, 1, sizeof original, file) : 0;
  if (size == 0) {
    fprintf(stderr, "cannot read %s\n", name);
    exit(2);
  }
  fclose(file);
  run(original, size);
  for (unsigned long i = 0; i < rounds; ++i) {
    memcpy(damaged, original, size);
    damage(damaged, (uint32_t)size);
    run(damaged, draw(8) != 0 ? size : draw((uint32_t)size) + 1);
  }
}

int main(int argc, char **argv) {
  const unsigned long rounds = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
  for (int i = 2; i < argc; ++i) {
    run_file(argv[i], rounds);
  }
  const unsigned long runs = argc > 2 ? (rounds + 1) * (unsigned long)(argc - 2) : 0;
  printf("%lu %lu\n", fuzz_layers_run, runs - fuzz_layers_run);
  return 0;
}
