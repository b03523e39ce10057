// The part of TensorFlow Lite's C interface for delegates that the plug-in uses.
//
// The wheels ship no headers, so the structs are declared here. The runtime calls them "semi-ABI stable": fields are
// only appended. tests/wheels.py runs the plug-in in wheels from tflite-runtime 2.14 to ai-edge-litert 2.3. Set
// -DTFLITE_INCLUDE_DIR=... for CMake to use the official headers instead.
#ifndef SUBBYTE_TFLITE_ABI_H
#define SUBBYTE_TFLITE_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(SUBBYTE_OFFICIAL_TFLITE_HEADERS)

#if __has_include("tflite/c/common.h")
#include "tflite/c/common.h"
#else
#include "tensorflow/lite/c/common.h"
#endif

#else

// A registration travels by value. Newer runtimes read more fields than older ones, hence the spare bytes of zeros
// below; they do no harm where a large struct travels by reference or before nothing else on the stack: every 64-bit
// ABI.
_Static_assert(sizeof(void *) == 8, "a 32-bit runtime needs its official headers: set TFLITE_INCLUDE_DIR");

typedef enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;

typedef enum TfLiteType { kTfLiteUInt8 = 3, kTfLiteInt16 = 7, kTfLiteInt8 = 9 } TfLiteType;

typedef enum TfLiteAllocationType {
  kTfLiteMmapRo = 1,
  kTfLiteArenaRw = 2,
  kTfLiteArenaRwPersistent = 3,
  kTfLiteDynamic = 4,
  kTfLiteCustom = 6
} TfLiteAllocationType;

enum { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };

typedef struct TfLiteIntArray {
  int size;
  int data[];
} TfLiteIntArray;

typedef struct TfLiteQuantizationParams {
  float scale;
  int32_t zero_point;
} TfLiteQuantizationParams;

typedef union TfLitePtrUnion {
  int8_t *int8;
  void *data;
} TfLitePtrUnion;

typedef struct TfLiteDelegate TfLiteDelegate;
typedef struct TfLiteContext TfLiteContext;

typedef struct TfLiteTensor {
  TfLiteType type;
  TfLitePtrUnion data;
  TfLiteIntArray *dims;
  TfLiteQuantizationParams params; // of a tensor with one scale
  TfLiteAllocationType allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  TfLiteDelegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  void *sparsity;
  const TfLiteIntArray *dims_signature;
} TfLiteTensor;

typedef struct TfLiteNode {
  TfLiteIntArray *inputs;
  TfLiteIntArray *outputs;
  TfLiteIntArray *intermediates;
  TfLiteIntArray *temporaries;
  void *user_data;
} TfLiteNode; // the runtime's struct goes on; it is only seen through a pointer

typedef struct TfLiteDelegateParams {
  TfLiteDelegate *delegate;
  TfLiteIntArray *nodes_to_replace;
  TfLiteIntArray *input_tensors;
  TfLiteIntArray *output_tensors;
} TfLiteDelegateParams;

typedef struct TfLiteRegistration {
  void *(*init)(TfLiteContext *context, const char *buffer, size_t length);
  void (*free)(TfLiteContext *context, void *buffer);
  TfLiteStatus (*prepare)(TfLiteContext *context, TfLiteNode *node);
  TfLiteStatus (*invoke)(TfLiteContext *context, TfLiteNode *node);
  const char *(*profiling_string)(const TfLiteContext *context, const TfLiteNode *node);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  uint64_t spare[32];
} TfLiteRegistration;

struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext *context, TfLiteIntArray **execution_plan);
  TfLiteTensor *tensors;
  void *impl_;
  TfLiteStatus (*ResizeTensor)(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *new_size);
  void (*ReportError)(TfLiteContext *context, const char *message, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext *context, int tensors_to_add, int *first_new_tensor_index);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext *context, int node_index, TfLiteNode **node,
                                         TfLiteRegistration **registration);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext *context, TfLiteRegistration registration,
                                                        const TfLiteIntArray *nodes_to_replace,
                                                        TfLiteDelegate *delegate);
  int recommended_num_threads; // the interpreter's num_threads; -1: not set
}; // the runtime's struct goes on; it is only seen through a pointer

struct TfLiteDelegate {
  void *data_;
  TfLiteStatus (*Prepare)(TfLiteContext *context, TfLiteDelegate *delegate);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext *context, TfLiteDelegate *delegate, int buffer_handle,
                                       TfLiteTensor *tensor);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext *context, TfLiteDelegate *delegate, int buffer_handle,
                                     TfLiteTensor *tensor);
  void (*FreeBufferHandle)(TfLiteContext *context, TfLiteDelegate *delegate, int *buffer_handle);
  int64_t flags;
  uint64_t spare[32];
};

#endif
#endif
