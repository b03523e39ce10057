// Registers packed layers with TensorFlow Lite for Microcontrollers.
//
//   tflite::MicroMutableOpResolver<2> resolver;
//   resolver.AddReshape();
//   subbyte::AddOps(resolver);
//
// Needs the headers of TensorFlow Lite for Microcontrollers, and the library of subbyte.h. A model of packed layers
// alone runs without it: see `convert-to-tflite --format=c`.
#ifndef SUBBYTE_TFLITE_MICRO_H
#define SUBBYTE_TFLITE_MICRO_H

#include "subbyte_op.h"
#include "tensorflow/lite/micro/kernels/kernel_util.h"
#include "tensorflow/lite/micro/micro_context.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace subbyte {
namespace internal {

struct MicroOpData {
  const subbyte_isa *isa;
  int32_t rows;
};

// A tensor of a node, given back to the arena when it goes.
class TempTensor {
public:
  TempTensor(tflite::MicroContext *context, TfLiteTensor *tensor) : context_(context), tensor_(tensor) {
  }
  ~TempTensor() {
    if (tensor_ != nullptr) {
      context_->DeallocateTempTfLiteTensor(tensor_);
    }
  }
  TempTensor(const TempTensor &) = delete;
  TempTensor &operator=(const TempTensor &) = delete;

  const TfLiteTensor *get() const {
    return tensor_;
  }

private:
  tflite::MicroContext *context_;
  TfLiteTensor *tensor_;
};

inline subbyte_activation DescribeMicro(const TfLiteTensor &tensor) {
  return {tensor.type == kTfLiteInt8, tensor.params.scale, tensor.params.zero_point,
          tensor.dims->data,          tensor.dims->size,   tensor.bytes};
}

inline TfLiteStatus ReportMicro(const char *fault) {
  MicroPrintf("%s: %s", SUBBYTE_OP_NAME, fault);
  return kTfLiteError;
}

inline void *InitMicro(TfLiteContext *context, const char *, size_t) {
  void *memory = context->AllocatePersistentBuffer(context, sizeof(MicroOpData));
  if (memory != nullptr) {
    *static_cast<MicroOpData *>(memory) = {subbyte_best_isa(), 0};
  }
  return memory;
}

inline TfLiteStatus PrepareMicro(TfLiteContext *context, TfLiteNode *node) {
  MicroOpData *data = static_cast<MicroOpData *>(node->user_data);
  if (data == nullptr || node->inputs->size != 2 || node->outputs->size != 1) {
    return ReportMicro("the op needs memory, two inputs, x and the packed layer, and one output");
  }
  tflite::MicroContext *micro = tflite::GetMicroContext(context);
  const TempTensor input(micro, micro->AllocateTempInputTensor(node, 0));
  const TempTensor packed(micro, micro->AllocateTempInputTensor(node, 1));
  const TempTensor output(micro, micro->AllocateTempOutputTensor(node, 0));
  if (input.get() == nullptr || packed.get() == nullptr || output.get() == nullptr) {
    return ReportMicro("a tensor is missing");
  }
  if (packed.get()->type != kTfLiteUInt8 || packed.get()->allocation_type != kTfLiteMmapRo) {
    return ReportMicro("the second input must be the packed layer: a constant uint8 tensor");
  }
  const subbyte_activation x = DescribeMicro(*input.get()), y = DescribeMicro(*output.get());
  int32_t channels;
  const char *fault =
      subbyte_find_op_fault(packed.get()->data.data, packed.get()->bytes, &x, &y, &data->rows, &channels);
  if (fault == nullptr && y.bytes != (size_t)data->rows * (size_t)channels) {
    fault = "the size of the output is not that of the layer";
  }
  return fault == nullptr ? kTfLiteOk : ReportMicro(fault);
}

inline TfLiteStatus InvokeMicro(TfLiteContext *context, TfLiteNode *node) {
  const MicroOpData *data = static_cast<const MicroOpData *>(node->user_data);
  subbyte_fully_connected(tflite::micro::GetEvalInput(context, node, 1)->data.data,
                          tflite::micro::GetEvalInput(context, node, 0)->data.int8, data->rows,
                          tflite::micro::GetEvalOutput(context, node, 0)->data.int8, data->isa);
  return kTfLiteOk;
}

} // namespace internal

template <unsigned int count> TfLiteStatus AddOps(tflite::MicroMutableOpResolver<count> &resolver) {
  // The resolver may keep the pointer.
  static const auto registration =
      tflite::micro::RegisterOp(internal::InitMicro, internal::PrepareMicro, internal::InvokeMicro);
  return resolver.AddCustom(SUBBYTE_OP_NAME, &registration);
}

} // namespace subbyte

#endif
