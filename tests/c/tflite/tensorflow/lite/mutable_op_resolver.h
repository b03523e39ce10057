// Stands in for TensorFlow Lite's header of this name, with the names and types that subbyte_tflite.h uses.
#ifndef STAND_IN_MUTABLE_OP_RESOLVER_H
#define STAND_IN_MUTABLE_OP_RESOLVER_H

#include <map>
#include <string>

#include "common.h"

struct TfLiteRegistration {
  void *(*init)(TfLiteContext *context, const char *buffer, size_t length);
  void (*free)(TfLiteContext *context, void *buffer);
  TfLiteStatus (*prepare)(TfLiteContext *context, TfLiteNode *node);
  TfLiteStatus (*invoke)(TfLiteContext *context, TfLiteNode *node);
};

namespace tflite {

class MutableOpResolver {
public:
  void AddCustom(const char *name, const TfLiteRegistration *registration, int version = 1) {
    added[name] = *registration;
    (void)version;
  }

  std::map<std::string, TfLiteRegistration> added;
};

} // namespace tflite

#endif
