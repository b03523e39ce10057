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
  int32_t rows;
};

inline subbyte_activation Describe(const TfLiteTensor &tensor) {
  return {tensor.type == kTfLiteInt8, tensor.params.scale, tensor.params.zero_point,
          tensor.dims->data,          tensor.dims->size,   tensor.bytes};
}

inline TfLiteStatus Report(TfLiteContext *context, const char *fault) {
  context->ReportError(context, "%s: %s", SUBBYTE_OP_NAME, fault);
  return kTfLiteError;
}

inline void *Init(TfLiteContext *, const char *, size_t) {
  return new OpData{subbyte_best_isa(), 0};
}

inline void Free(TfLiteContext *, void *data) {
  delete static_cast<OpData *>(data);
}

inline TfLiteStatus Prepare(TfLiteContext *context, TfLiteNode *node) {
  if (node->inputs->size != 2 || node->outputs->size != 1) {
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
  int32_t channels;
  OpData *data = static_cast<OpData *>(node->user_data);
  const char *fault = subbyte_find_op_fault(packed.data.raw_const, packed.bytes, &x, &y, &data->rows, &channels);
  if (fault != nullptr) {
    return Report(context, fault);
  }
  TfLiteIntArray *shape = TfLiteIntArrayCopy(input.dims);
  shape->data[shape->size - 1] = channels;
  return context->ResizeTensor(context, &output, shape);
}

inline TfLiteStatus Invoke(TfLiteContext *context, TfLiteNode *node) {
  const OpData *data = static_cast<const OpData *>(node->user_data);
  subbyte_fully_connected(context->tensors[node->inputs->data[1]].data.raw_const,
                          context->tensors[node->inputs->data[0]].data.int8, data->rows,
                          context->tensors[node->outputs->data[0]].data.int8, data->isa);
  return kTfLiteOk;
}

} // namespace internal

inline void AddOps(tflite::MutableOpResolver &resolver) {
  TfLiteRegistration registration{};
  registration.init = internal::Init;
  registration.free = internal::Free;
  registration.prepare = internal::Prepare;
  registration.invoke = internal::Invoke;
  resolver.AddCustom(SUBBYTE_OP_NAME, &registration); // which copies it
}

} // namespace subbyte

#endif
