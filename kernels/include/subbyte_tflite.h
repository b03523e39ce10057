// Registers packed layers with TensorFlow Lite in C++, where the op is compiled in rather than loaded as a delegate.
//
//   tflite::ops::builtin::BuiltinOpResolver resolver;
//   subbyte::AddOps(resolver);
//
// Needs TensorFlow Lite's headers, and the library of subbyte.h. The delegate does the same from outside, and several
// layers on several threads; use one of the two.
#ifndef SUBBYTE_TFLITE_H
#define SUBBYTE_TFLITE_H

#if __has_include("tflite/mutable_op_resolver.h")
#include "tflite/mutable_op_resolver.h"
#else
#include "tensorflow/lite/mutable_op_resolver.h"
#endif

#include "subbyte_op.h"

namespace subbyte {
namespace internal {

struct OpData {
  const subbyte_isa *isa;
  subbyte_op op;
  int scratch; // index of its tensor
};

inline subbyte_activation Describe(const TfLiteTensor &tensor) {
  const int32_t code_bytes = tensor.type == kTfLiteInt8 ? 1 : tensor.type == kTfLiteInt16 ? 2 : 0;
  return {code_bytes,        tensor.params.scale, tensor.params.zero_point,
          tensor.dims->data, tensor.dims->size,   tensor.bytes};
}

inline TfLiteStatus Report(TfLiteContext *context, const char *fault) {
  context->ReportError(context, "subbyte: %s", fault);
  return kTfLiteError;
}

inline void *Init(TfLiteContext *context, const char *, size_t) {
  OpData *data = new OpData{subbyte_best_isa(), {}, -1};
  context->AddTensors(context, 1, &data->scratch);
  return data;
}

inline void Free(TfLiteContext *, void *data) {
  delete static_cast<OpData *>(data);
}

inline TfLiteStatus PlanScratch(TfLiteContext *context, TfLiteNode *node, const OpData &data) {
  if (data.op.scratch_bytes == 0) {
    return kTfLiteOk;
  }
  TfLiteIntArrayFree(node->temporaries);
  node->temporaries = TfLiteIntArrayCreate(1);
  node->temporaries->data[0] = data.scratch;
  TfLiteTensor &scratch = context->tensors[data.scratch];
  scratch.type = kTfLiteUInt8;
  scratch.allocation_type = kTfLiteArenaRw;
  TfLiteIntArray *shape = TfLiteIntArrayCreate(1);
  shape->data[0] = static_cast<int>(data.op.scratch_bytes);
  return context->ResizeTensor(context, &scratch, shape);
}

template <int kind> TfLiteStatus Prepare(TfLiteContext *context, TfLiteNode *node) {
  OpData *data = static_cast<OpData *>(node->user_data);
  if (node->inputs->size != 2 || node->outputs->size != 1 || data->scratch < 0) {
    return Report(context, "the op needs two inputs, x and the packed layer, and one output");
  }
  for (int index : {node->inputs->data[0], node->inputs->data[1], node->outputs->data[0]}) {
    if (index < 0) {
      return Report(context, "a tensor is missing");
    }
  }
  const TfLiteTensor &input = context->tensors[node->inputs->data[0]];
  const TfLiteTensor &packed = context->tensors[node->inputs->data[1]];
  TfLiteTensor &output = context->tensors[node->outputs->data[0]];
  if (packed.type != kTfLiteUInt8 || packed.allocation_type != kTfLiteMmapRo) {
    return Report(context, "the second input must be the packed layer: a constant uint8 tensor");
  }
  const subbyte_activation x = Describe(input), y = Describe(output);
  const char *fault = subbyte_fit_op(&data->op, kind, packed.data.raw_const, packed.bytes, &x, &y, data->isa);
  if (fault != nullptr) {
    return Report(context, fault);
  }
  TfLiteIntArray *shape = TfLiteIntArrayCopy(input.dims);
  for (int i = 0; i < shape->size; ++i) {
    shape->data[i] = subbyte_output_dimension(&data->op, &x, i);
  }
  if (context->ResizeTensor(context, &output, shape) != kTfLiteOk) {
    return kTfLiteError;
  }
  return PlanScratch(context, node, *data);
}

inline TfLiteStatus Invoke(TfLiteContext *context, TfLiteNode *node) {
  const OpData *data = static_cast<const OpData *>(node->user_data);
  subbyte_run_op(&data->op, context->tensors[node->inputs->data[0]].data.raw,
                 context->tensors[node->outputs->data[0]].data.raw, context->tensors[data->scratch].data.raw);
  return kTfLiteOk;
}

template <int kind> void AddOp(tflite::MutableOpResolver &resolver, const char *name) {
  TfLiteRegistration registration{};
  registration.init = Init;
  registration.free = Free;
  registration.prepare = Prepare<kind>;
  registration.invoke = Invoke;
  resolver.AddCustom(name, &registration); // which copies it
}

} // namespace internal

inline void AddOps(tflite::MutableOpResolver &resolver) {
  internal::AddOp<SUBBYTE_FULLY_CONNECTED>(resolver, SUBBYTE_FULLY_CONNECTED_NAME);
  internal::AddOp<SUBBYTE_CONV_2D>(resolver, SUBBYTE_CONV_2D_NAME);
  internal::AddOp<SUBBYTE_DEPTHWISE_CONV_2D>(resolver, SUBBYTE_DEPTHWISE_CONV_2D_NAME);
}

} // namespace subbyte

#endif
