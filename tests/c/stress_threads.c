// Several callers with a pool each, and two that share one, compute plans and compare with one thread. Built with
// ThreadSanitizer: a data race ends the process.
//
//   stress_threads rounds < layers      layers: each the uint32 number of its bytes, and its bytes
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/src/parallel.h"

enum { MAX_LAYERS = 16, CALLERS = 3 };

static void *layers[MAX_LAYERS];
static int layer_count, rounds;
static subbyte_pool *shared_pool;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) {
    fail("out of memory");
  }
  return memory;
}

static void read_layers(void) {
  uint32_t bytes;
  while (layer_count < MAX_LAYERS && fread(&bytes, sizeof bytes, 1, stdin) == 1) {
    void *layer = allocate(bytes);
    if (fread(layer, 1, bytes, stdin) != bytes || subbyte_check(layer, bytes) != SUBBYTE_OK) {
      fail("not a layer");
    }
    layers[layer_count++] = layer;
  }
}

// Waits, sometimes for so long that the pool's threads fall asleep.
static void pause_for(int turn) {
  volatile int sink = 0;
  for (int i = 0; i < (turn % 8 == 0 ? 300000 : 300); ++i) {
    sink += i;
  }
}

static void compute(const void *layer, int32_t rows, int32_t threads, subbyte_pool *pool) {
  const subbyte_isa *isa = subbyte_best_isa();
  subbyte_header header;
  memcpy(&header, layer, sizeof header);
  const int shape[] = {rows, header.input_features};
  const subbyte_activation x = {
      1, header.input_scale, header.input_zero_point, shape, 2, (size_t)rows * (size_t)header.input_features};
  const subbyte_activation y = {1, header.output_scale, header.output_zero_point, NULL, 0, 0};
  subbyte_op op;
  if (subbyte_fit_op(&op, header.op, layer, header.total_bytes, &x, &y, isa) != NULL) {
    fail("a layer does not fit its own tensors");
  }
  const subbyte_plan plan = subbyte_plan_op(&op, threads);
  const size_t inputs = (size_t)rows * (size_t)header.input_features;
  const size_t outputs = (size_t)rows * (size_t)header.output_channels;
  int8_t *input = allocate(inputs), *expected = allocate(outputs), *output = allocate(outputs);
  for (size_t i = 0; i < inputs; ++i) {
    input[i] = (int8_t)(i * 89 + inputs);
  }
  memset(output, 85, outputs);
  subbyte_fully_connected(layer, input, rows, expected, isa);
  subbyte_grow_pool(pool, plan.threads);
  subbyte_run_plan(&plan, input, output, NULL, pool);
  if (memcmp(output, expected, outputs) != 0) {
    fail("threads give other numbers");
  }
  free(input);
  free(expected);
  free(output);
}

static void *call(void *argument) {
  const int caller = *(const int *)argument;
  subbyte_pool *own = subbyte_create_pool();
  for (int i = 0; i < rounds; ++i) {
    subbyte_pool *pool = caller > 0 ? shared_pool : own;
    compute(layers[(i + caller) % layer_count], i % 7 == 6 ? 9 : 1, 1 + (i + caller) % 4, pool);
    pause_for(i + caller);
    if (i % 8 == 7) { // destroyed right after use
      subbyte_destroy_pool(own);
      own = subbyte_create_pool();
    }
  }
  subbyte_destroy_pool(own);
  return NULL;
}

int main(int argc, char **argv) {
  rounds = argc == 2 ? atoi(argv[1]) : 0;
  read_layers();
  shared_pool = subbyte_create_pool();
  if (rounds <= 0 || layer_count == 0 || shared_pool == NULL) {
    fail("usage: stress_threads rounds < layers");
  }
  pthread_t threads[CALLERS];
  int numbers[CALLERS];
  for (int i = 0; i < CALLERS; ++i) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, call, &numbers[i]) != 0) {
      fail("no thread");
    }
  }
  for (int i = 0; i < CALLERS; ++i) {
    pthread_join(threads[i], NULL);
  }
  subbyte_destroy_pool(shared_pool);
  for (int i = 0; i < layer_count; ++i) {
    free(layers[i]);
  }
  return 0;
}
