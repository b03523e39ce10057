// Stands in for both runtimes' tensorflow/lite/c/common.h.
#ifndef STAND_IN_COMMON_H
#define STAND_IN_COMMON_H

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteUInt8 = 3, kTfLiteInt16 = 7, kTfLiteInt8 = 9 };
enum TfLiteAllocationType { kTfLiteMmapRo = 1, kTfLiteArenaRw = 2 };

struct TfLiteIntArray {
  int size;
  int data[4];
};

inline TfLiteIntArray *TfLiteIntArrayCreate(int size) {
  return new TfLiteIntArray{size, {}};
}

inline void TfLiteIntArrayFree(TfLiteIntArray *array) {
  delete array;
}

inline TfLiteIntArray *TfLiteIntArrayCopy(const TfLiteIntArray *source) {
  return new TfLiteIntArray(*source);
}

struct TfLiteQuantizationParams {
  float scale;
  int32_t zero_point;
};

union TfLitePtrUnion {
  int8_t *int8;
  char *raw;
  const char *raw_const;
  void *data;
};

struct TfLiteTensor {
  TfLiteType type;
  TfLitePtrUnion data;
  TfLiteIntArray *dims;
  TfLiteQuantizationParams params;
  TfLiteAllocationType allocation_type;
  size_t bytes;
};

struct TfLiteEvalTensor {
  TfLitePtrUnion data;
};

struct TfLiteNode {
  TfLiteIntArray *inputs, *outputs, *temporaries;
  void *user_data;
};

struct TfLiteContext {
  TfLiteTensor *tensors;
  TfLiteStatus (*ResizeTensor)(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *shape);
  void (*ReportError)(TfLiteContext *context, const char *message, ...);
  void *(*AllocatePersistentBuffer)(TfLiteContext *context, size_t bytes);
  TfLiteStatus (*AddTensors)(TfLiteContext *context, int count, int *first);
  TfLiteStatus (*RequestScratchBufferInArena)(TfLiteContext *context, size_t bytes, int *index);
  void *(*GetScratchBuffer)(TfLiteContext *context, int index);
};

#endif
