// Stands in for TensorFlow Lite for Microcontrollers' header of this name.
#ifndef STAND_IN_MICRO_MUTABLE_OP_RESOLVER_H
#define STAND_IN_MICRO_MUTABLE_OP_RESOLVER_H

#include "kernels/kernel_util.h"

namespace tflite {

template <unsigned int count> class MicroMutableOpResolver {
public:
  TfLiteStatus AddCustom(const char *name, const TFLMRegistration *registration) {
    added_name = name;
    added = *registration;
    return count > 0 ? kTfLiteOk : kTfLiteError;
  }

  const char *added_name = nullptr;
  TFLMRegistration added{};
};

} // namespace tflite

#endif
