// What a processor can do at most: how fast it reads, and at what clock it runs.
#include <stddef.h>
#include <stdint.h>

typedef uint64_t vector __attribute__((vector_size(64)));

// The sum of `count` words, `passes` times over. words: aligned to 64 bytes; count: a multiple of 32.
uint64_t read_words(const uint64_t *words, size_t count, size_t passes) {
  const vector *at = (const vector *)(const void *)words;
  vector a = {0}, b = {0}, c = {0}, d = {0}; // several, so that no addition waits for the one before it
  for (size_t pass = 0; pass < passes; ++pass) {
    for (size_t i = 0; i < count / 8; i += 4) {
      a += at[i];
      b += at[i + 1];
      c += at[i + 2];
      d += at[i + 3];
    }
  }
  a += b + (c + d);
  uint64_t sum = 0;
  for (int lane = 0; lane < 8; ++lane) {
    sum += a[lane];
  }
  return sum;
}

// Adds `count` times to one number: a cycle each on any processor that runs a whole loop's overhead beside it.
uint64_t add_in_sequence(uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i) {
    sum += i;
    __asm__ volatile("" : "+r"(sum)); // or the compiler computes the sum in one go
  }
  return sum;
}
