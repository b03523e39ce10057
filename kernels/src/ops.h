// The op table: what each kind of op is called, whether it fits its tensors, and how a part of it is run.
//
// A new op is a row in ops.c and a file with its functions.
#ifndef SUBBYTE_OPS_H
#define SUBBYTE_OPS_H

#include "../include/subbyte_op.h"
#include "prepared.h"

typedef struct subbyte_op_row {
  const char *name;
  int32_t kind;   // SUBBYTE_FULLY_CONNECTED, ...
  int32_t inputs; // tensors, the packed layer among them
  // Sets the sizes of `op`, scratch memory included. Returns what is wrong with the input, or NULL.
  const char *(*fit)(subbyte_op *op, const subbyte_activation *input);
  // Tells in how many parts the op is best cut, at most `wanted`; each has scratch memory of its own.
  int32_t (*cut)(const subbyte_op *op, int32_t wanted);
  void (*run)(const subbyte_op *op, const void *input, void *output, void *scratch, int32_t part, int32_t parts);
  int32_t cost;            // of a multiplication, in those of a fully connected layer
  int32_t least_positions; // of the output that are worth a part; 0: any
  int32_t parts_per_thread;
} subbyte_op_row;

// The row of a kind of op.
const subbyte_op_row *subbyte_find_op(int32_t kind);

// What follows stands here, and not in ops.c, so that a program with one kind of layer links no other.

// The product of some dimensions, or -1 where it has more than 31 bits.
static inline int32_t subbyte_multiply(const int *shape, int32_t rank) {
  int64_t product = 1;
  for (int32_t i = 0; i < rank; ++i) {
    product *= shape[i];
    if (product < 0 || product > INT32_MAX) {
      return -1;
    }
  }
  return (int32_t)product;
}

static inline int32_t subbyte_divide_up(int32_t number, int32_t by) {
  return number / by + (number % by != 0);
}

// The place where part `part` starts if `count` things are shared out. Divisions of 64 bits would ask for a C library.
static inline int32_t subbyte_share(int32_t part, int32_t parts, int32_t count) {
  return count / parts * part + subbyte_smaller(part, count % parts);
}

#endif
