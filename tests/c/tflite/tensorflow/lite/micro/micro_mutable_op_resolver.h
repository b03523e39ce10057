// Stands in for TensorFlow Lite for Microcontrollers' header of this name.
#ifndef STAND_IN_MICRO_MUTABLE_OP_RESOLVER_H
#define STAND_IN_MICRO_MUTABLE_OP_RESOLVER_H

#include <map>
#include <string>

#include "kernels/kernel_util.h"

namespace tflite {

template <unsigned int count> class MicroMutableOpResolver {
public:
  TfLiteStatus AddCustom(const char *name, const TFLMRegistration *registration) {
    if (added.size() == count) {
      return kTfLiteError;
    }
    added[name] = *registration;
    return kTfLiteOk;
  }

  std::map<std::string, TFLMRegistration> added;
};

} // namespace tflite

#endif
