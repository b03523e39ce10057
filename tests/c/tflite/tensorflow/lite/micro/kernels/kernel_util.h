// Stands in for TensorFlow Lite for Microcontrollers' header of this name.
#ifndef STAND_IN_KERNEL_UTIL_H
#define STAND_IN_KERNEL_UTIL_H

#include "../../common.h"

struct TFLMRegistration {
  void *(*init)(TfLiteContext *context, const char *buffer, size_t length);
  TfLiteStatus (*prepare)(TfLiteContext *context, TfLiteNode *node);
  TfLiteStatus (*invoke)(TfLiteContext *context, TfLiteNode *node);
};

namespace tflite {
namespace micro {

TFLMRegistration RegisterOp(void *(*init)(TfLiteContext *context, const char *buffer, size_t length),
                            TfLiteStatus (*prepare)(TfLiteContext *context, TfLiteNode *node),
                            TfLiteStatus (*invoke)(TfLiteContext *context, TfLiteNode *node));
const TfLiteEvalTensor *GetEvalInput(const TfLiteContext *context, const TfLiteNode *node, int index);
TfLiteEvalTensor *GetEvalOutput(const TfLiteContext *context, const TfLiteNode *node, int index);

} // namespace micro
} // namespace tflite

#endif
