// Stands in for TensorFlow Lite for Microcontrollers' header of this name.
#ifndef STAND_IN_MICRO_CONTEXT_H
#define STAND_IN_MICRO_CONTEXT_H

#include "../common.h"

void MicroPrintf(const char *format, ...);

namespace tflite {

// Counts the tensors that were not given back.
class MicroContext {
public:
  explicit MicroContext(TfLiteContext *context) : context_(context) {
  }
  TfLiteTensor *AllocateTempInputTensor(const TfLiteNode *node, int index) {
    return Allocate(node->inputs->data[index]);
  }
  TfLiteTensor *AllocateTempOutputTensor(const TfLiteNode *node, int index) {
    return Allocate(node->outputs->data[index]);
  }
  void DeallocateTempTfLiteTensor(TfLiteTensor *) {
    --temporary;
  }

  static int temporary;

private:
  TfLiteTensor *Allocate(int index) {
    ++temporary;
    return &context_->tensors[index];
  }

  TfLiteContext *context_;
};

MicroContext *GetMicroContext(const TfLiteContext *context);

} // namespace tflite

#endif
