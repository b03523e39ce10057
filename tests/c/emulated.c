// Functions of known result and length, for test_emulator.py to run. No C library, no other file.
#include <stdint.h>

int32_t load(const int8_t *x, int32_t index) {
  return x[index];
}

void store(int8_t *x, int32_t index, int32_t value) {
  x[index] = (int8_t)value;
}

// More arguments than any processor has registers for.
int32_t weigh(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g, int32_t h, int32_t i,
              int32_t j) {
  return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}

// Takes 4 * depth bytes of stack, and some more.
int32_t add_up(int32_t depth) {
  volatile int32_t values[depth];
  int32_t sum = 0;
  for (int32_t i = 0; i < depth; ++i) {
    values[i] = i;
  }
  for (int32_t i = 0; i < depth; ++i) {
    sum += values[i];
  }
  return sum;
}

void scale(const float *x, int32_t count, const float *factor, float *y) {
  for (int32_t i = 0; i < count; ++i) {
    y[i] = x[i] * *factor;
  }
}

// 1 + 3 * rounds + 1 instructions; in Thumb, some of 2 bytes and some of 4.
__asm__(".globl count_down\n"
#if defined(__aarch64__)
        "count_down:\n mov w1, w0\n 1: add w2, w2, #1\n subs w1, w1, #1\n b.ne 1b\n ret\n"
#elif defined(__thumb__)
        ".thumb_func\n count_down:\n mov.w r1, r0\n 1: add.w r2, r2, #1\n subs r1, r1, #1\n bne 1b\n bx lr\n"
#else
        "count_down:\n mov r1, r0\n 1: add r2, r2, #1\n subs r1, r1, #1\n bne 1b\n bx lr\n"
#endif
);

#if defined(__aarch64__)
// y[i] = sum of x[4 * i + j]^2 over j: the dot product instruction.
__asm__(".arch_extension dotprod\n.globl squares\n"
        "squares:\n ldr q0, [x0]\n movi v1.4s, #0\n sdot v1.4s, v0.16b, v0.16b\n str q1, [x1]\n ret\n");
#endif

void _start(void) {
}
