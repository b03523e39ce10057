// A packed layer as an op of a runtime: does it fit the tensors that the runtime has put around it, and running it.
#ifndef SUBBYTE_OP_H
#define SUBBYTE_OP_H

#include "subbyte_prepared.h"

#ifdef __cplusplus
extern "C" {
#endif

// The names of the custom ops; see subbyte_op_kind().
#define SUBBYTE_FULLY_CONNECTED_NAME "SubbyteFullyConnected"
#define SUBBYTE_CONV_2D_NAME "SubbyteConv2D"
#define SUBBYTE_DEPTHWISE_CONV_2D_NAME "SubbyteDepthwiseConv2D"

// An activation tensor, as the runtime describes it.
typedef struct subbyte_activation {
  int32_t code_bytes; // 1: int8; 2: int16; 0: another type
  float scale;
  int32_t zero_point;
  const int *shape; // [..., K] and [..., N], or [batch, height, width, channels]
  int32_t rank;
  size_t bytes;
} subbyte_activation;

// A layer that fits its tensors, ready to run for as long as they keep their shapes.
typedef struct subbyte_op {
  subbyte_prepared layer;
  int32_t code_bytes;           // of inputs and outputs: 1 or 2
  int32_t positions;            // rows of a fully connected layer's input, or pixels of a convolution's output
  int32_t batch, height, width; // of a convolution's input
  int32_t output_height, output_width, output_channels;
  size_t scratch_bytes; // that running it needs
} subbyte_op;

// The kind of layer that a custom op of this name has, or 0 for a name that is not ours.
SUBBYTE_API int32_t subbyte_op_kind(const char *name);

// What is wrong between the `bytes` bytes at `layer`, which are checked too, and the tensors around them: a sentence in
// static memory, or NULL. The shape and size of the output are not looked at. Sets `op`, to be run by `isa`.
SUBBYTE_API const char *subbyte_fit_op(subbyte_op *op, int32_t kind, const void *layer, size_t bytes,
                                       const subbyte_activation *input, const subbyte_activation *output,
                                       const subbyte_isa *isa);

// The output has the input's rank and this size in each dimension.
SUBBYTE_API int32_t subbyte_output_dimension(const subbyte_op *op, const subbyte_activation *input, int32_t dimension);

// input, output: int8 or int16, as the op's activations are.
SUBBYTE_API void subbyte_run_op(const subbyte_op *op, const void *input, void *output, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
