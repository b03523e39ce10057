// A packed layer as an op of a runtime: does it fit the tensors that the runtime has put around it?
#ifndef SUBBYTE_OP_H
#define SUBBYTE_OP_H

#include "subbyte.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SUBBYTE_OP_NAME "SubbyteFullyConnected"

// An activation tensor, as the runtime describes it.
typedef struct subbyte_activation {
  int is_int8;
  float scale;
  int32_t zero_point;
  const int *shape; // [..., K] or [..., N]
  int32_t rank;
  size_t bytes;
} subbyte_activation;

// What is wrong between the `bytes` bytes at `layer`, which are checked too, and the tensors around them: a sentence in
// static memory, or NULL. The shape and size of the output are not looked at. Sets `rows` and, for the runtime to set
// the shape of the output, `channels`, the last one of its dimensions; the others are those of the input.
const char *subbyte_find_op_fault(const void *layer, size_t bytes, const subbyte_activation *input,
                                  const subbyte_activation *output, int32_t *rows, int32_t *channels);

#ifdef __cplusplus
}
#endif
#endif
