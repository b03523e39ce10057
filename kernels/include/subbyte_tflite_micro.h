// Registers packed layers with TensorFlow Lite for Microcontrollers.
//
//   tflite::MicroMutableOpResolver<4> resolver;
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
  subbyte_op op;
  int scratch; // index of its buffer in the arena
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
  const int32_t code_bytes = tensor.type == kTfLiteInt8 ? 1 : tensor.type == kTfLiteInt16 ? 2 : 0;
  return {code_bytes,        tensor.params.scale, tensor.params.zero_point,
          tensor.dims->data, tensor.dims->size,   tensor.bytes};
}

inline TfLiteStatus ReportMicro(const char *fault) {
  MicroPrintf("subbyte: %s", fault);
  return kTfLiteError;
}

inline void *InitMicro(TfLiteContext *context, const char *, size_t) {
  void *memory = context->AllocatePersistentBuffer(context, sizeof(MicroOpData));
  if (memory != nullptr) {
    *static_cast<MicroOpData *>(memory) = {subbyte_best_isa(), {}, -1};
  }
  return memory;
}

template <int kind> TfLiteStatus PrepareMicro(TfLiteContext *context, TfLiteNode *node) {
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
  const char *fault = subbyte_fit_op(&data->op, kind, packed.get()->data.data, packed.get()->bytes, &x, &y, data->isa);
  if (fault != nullptr) {
    return ReportMicro(fault);
  }
  size_t bytes = static_cast<size_t>(data->op.code_bytes);
  for (int32_t i = 0; i < x.rank; ++i) {
    bytes *= static_cast<size_t>(subbyte_output_dimension(&data->op, &x, i));
  }
  if (y.bytes != bytes) {
    return ReportMicro("the size of the output is not that of the layer");
  }
  if (data->op.scratch_bytes == 0) {
    return kTfLiteOk;
  }
  return context->RequestScratchBufferInArena(context, data->op.scratch_bytes, &data->scratch);
}

inline TfLiteStatus InvokeMicro(TfLiteContext *context, TfLiteNode *node) {
  const MicroOpData *data = static_cast<const MicroOpData *>(node->user_data);
  void *scratch = data->scratch >= 0 ? context->GetScratchBuffer(context, data->scratch) : nullptr;
  subbyte_run_op(&data->op, tflite::micro::GetEvalInput(context, node, 0)->data.data,
                 tflite::micro::GetEvalOutput(context, node, 0)->data.data, scratch);
  return kTfLiteOk;
}

} // namespace internal

// Takes three of the resolver's places.
template <unsigned int count> TfLiteStatus AddOps(tflite::MicroMutableOpResolver<count> &resolver) {
  // The resolver may keep the pointers.
  static const auto fully_connected = tflite::micro::RegisterOp(
      internal::InitMicro, internal::PrepareMicro<SUBBYTE_FULLY_CONNECTED>, internal::InvokeMicro);
  static const auto conv_2d =
      tflite::micro::RegisterOp(internal::InitMicro, internal::PrepareMicro<SUBBYTE_CONV_2D>, internal::InvokeMicro);
  static const auto depthwise_conv_2d = tflite::micro::RegisterOp(
      internal::InitMicro, internal::PrepareMicro<SUBBYTE_DEPTHWISE_CONV_2D>, internal::InvokeMicro);
  const bool is_added = resolver.AddCustom(SUBBYTE_FULLY_CONNECTED_NAME, &fully_connected) == kTfLiteOk &&
                        resolver.AddCustom(SUBBYTE_CONV_2D_NAME, &conv_2d) == kTfLiteOk &&
                        resolver.AddCustom(SUBBYTE_DEPTHWISE_CONV_2D_NAME, &depthwise_conv_2d) == kTfLiteOk;
  return is_added ? kTfLiteOk : kTfLiteError;
}

} // namespace subbyte

#endif
