// One packed layer through the op that a resolver was given, for test_op_resolver.py. Compiled once for each runtime.
//
//   resolver PACKED INPUT ROWS CHANNELS INPUT_SCALE OUTPUT_SCALE     prints the int8 outputs
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#if defined(MICRO)
#include "subbyte_tflite_micro.h"
#else
#include "subbyte_tflite.h"
#endif

static TfLiteStatus resize(TfLiteContext *, TfLiteTensor *tensor, TfLiteIntArray *shape) {
  *tensor->dims = *shape;
  delete shape;
  return kTfLiteOk;
}

static void report(TfLiteContext *, const char *message, ...) {
  va_list arguments;
  va_start(arguments, message);
  vfprintf(stderr, message, arguments);
  va_end(arguments);
}

#if defined(MICRO)
static TfLiteContext *the_context;
int tflite::MicroContext::temporary = 0;

void MicroPrintf(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
}

tflite::MicroContext *tflite::GetMicroContext(const TfLiteContext *) {
  static MicroContext context(the_context);
  return &context;
}

TFLMRegistration tflite::micro::RegisterOp(void *(*init)(TfLiteContext *, const char *, size_t),
                                           TfLiteStatus (*prepare)(TfLiteContext *, TfLiteNode *),
                                           TfLiteStatus (*invoke)(TfLiteContext *, TfLiteNode *)) {
  return {init, prepare, invoke};
}

static TfLiteEvalTensor eval[3];

const TfLiteEvalTensor *tflite::micro::GetEvalInput(const TfLiteContext *, const TfLiteNode *node, int index) {
  return &eval[node->inputs->data[index]];
}

TfLiteEvalTensor *tflite::micro::GetEvalOutput(const TfLiteContext *, const TfLiteNode *node, int index) {
  return &eval[node->outputs->data[index]];
}
#endif

static std::vector<char> read(const char *path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int main(int, char **arguments) {
  std::vector<char> packed = read(arguments[1]), input = read(arguments[2]);
  const int rows = std::stoi(arguments[3]), channels = std::stoi(arguments[4]);
  std::vector<int8_t> output((size_t)rows * (size_t)channels);
  TfLiteIntArray shapes[] = {{2, {rows, (int)input.size() / rows}}, {1, {(int)packed.size()}}, {2, {rows, channels}}};
  TfLiteTensor tensors[3] = {};
  tensors[0] = {kTfLiteInt8, {}, &shapes[0], {std::stof(arguments[5]), 0}, kTfLiteArenaRw, input.size()};
  tensors[1] = {kTfLiteUInt8, {}, &shapes[1], {}, kTfLiteMmapRo, packed.size()};
  tensors[2] = {kTfLiteInt8, {}, &shapes[2], {std::stof(arguments[6]), 0}, kTfLiteArenaRw, output.size()};
  tensors[0].data.data = input.data();
  tensors[1].data.data = packed.data();
  tensors[2].data.data = output.data();
  TfLiteContext context = {tensors, resize, report, [](TfLiteContext *, size_t bytes) { return malloc(bytes); }};
  TfLiteIntArray inputs = {2, {0, 1}}, outputs = {1, {2}};
  TfLiteNode node = {&inputs, &outputs, nullptr};
#if defined(MICRO)
  the_context = &context;
  for (int i = 0; i < 3; ++i) {
    eval[i].data = tensors[i].data;
  }
  tflite::MicroMutableOpResolver<1> resolver;
  if (subbyte::AddOps(resolver) != kTfLiteOk) {
    return 3;
  }
#else
  tflite::MutableOpResolver resolver;
  subbyte::AddOps(resolver);
#endif
  if (strcmp(resolver.added_name, "SubbyteFullyConnected") != 0) {
    return 4;
  }
  node.user_data = resolver.added.init(&context, nullptr, 0);
  const TfLiteStatus prepared = resolver.added.prepare(&context, &node);
#if defined(MICRO)
  if (tflite::MicroContext::temporary != 0) {
    return 5;
  }
#endif
  if (prepared != kTfLiteOk) {
    return 2;
  }
  if (resolver.added.invoke(&context, &node) != kTfLiteOk || shapes[2].data[1] != channels) {
    return 6;
  }
#if !defined(MICRO)
  resolver.added.free(&context, node.user_data);
#endif
  fwrite(output.data(), 1, output.size(), stdout);
  return 0;
}
