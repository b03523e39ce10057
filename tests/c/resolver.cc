// One packed layer through the op that a resolver was given, for test_op_resolver.py. Compiled once for each runtime.
//
//   resolver OP PACKED INPUT INPUT_SHAPE OUTPUT_SHAPE INPUT_SCALE OUTPUT_SCALE CODE_BYTES     prints the outputs
//
// Shapes are lists such as 1,8,8,3. Inputs and outputs are int8, or int16 where codes have 2 bytes.
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>
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

static TfLiteIntArray parse_shape(const std::string &text) {
  TfLiteIntArray shape = {0, {}};
  std::istringstream list(text);
  for (std::string size; std::getline(list, size, ',');) {
    shape.data[shape.size++] = std::stoi(size);
  }
  return shape;
}

static std::vector<char> scratch;

int main(int, char **arguments) {
  std::vector<char> packed = read(arguments[2]), input = read(arguments[3]);
  TfLiteIntArray shapes[] = {parse_shape(arguments[4]), {1, {(int)packed.size()}}, parse_shape(arguments[5]), {0, {}}};
  const TfLiteIntArray expected = shapes[2];
  const size_t code_bytes = std::stoul(arguments[8]);
  const TfLiteType type = code_bytes == 2 ? kTfLiteInt16 : kTfLiteInt8;
  size_t outputs = code_bytes;
  for (int i = 0; i < expected.size; ++i) {
    outputs *= (size_t)expected.data[i];
  }
  std::vector<int8_t> output(outputs);
  TfLiteTensor tensors[4] = {};
  tensors[0] = {type, {}, &shapes[0], {std::stof(arguments[6]), 0}, kTfLiteArenaRw, input.size()};
  tensors[1] = {kTfLiteUInt8, {}, &shapes[1], {}, kTfLiteMmapRo, packed.size()};
  tensors[2] = {type, {}, &shapes[2], {std::stof(arguments[7]), 0}, kTfLiteArenaRw, output.size()};
  tensors[3].dims = &shapes[3];
  tensors[0].data.data = input.data();
  tensors[1].data.data = packed.data();
  tensors[2].data.data = output.data();
  TfLiteContext context = {};
  context.tensors = tensors;
  context.ResizeTensor = resize;
  context.ReportError = report;
  context.AllocatePersistentBuffer = [](TfLiteContext *, size_t bytes) { return malloc(bytes); };
  context.AddTensors = [](TfLiteContext *, int, int *first) { return *first = 3, kTfLiteOk; };
  context.RequestScratchBufferInArena = [](TfLiteContext *, size_t bytes, int *index) {
    scratch.resize(bytes);
    return *index = 0, kTfLiteOk;
  };
  context.GetScratchBuffer = [](TfLiteContext *, int) -> void * { return scratch.data(); };
  TfLiteIntArray inputs = {2, {0, 1}}, outputs_of_node = {1, {2}};
  TfLiteNode node = {&inputs, &outputs_of_node, nullptr, nullptr};
#if defined(MICRO)
  the_context = &context;
  for (int i = 0; i < 3; ++i) {
    eval[i].data = tensors[i].data;
  }
  tflite::MicroMutableOpResolver<3> resolver;
  if (subbyte::AddOps(resolver) != kTfLiteOk) {
    return 3;
  }
#else
  tflite::MutableOpResolver resolver;
  subbyte::AddOps(resolver);
#endif
  if (resolver.added.count(arguments[1]) == 0) {
    return 4;
  }
  const auto registration = resolver.added[arguments[1]];
  node.user_data = registration.init(&context, nullptr, 0);
  const TfLiteStatus prepared = registration.prepare(&context, &node);
#if defined(MICRO)
  if (tflite::MicroContext::temporary != 0) {
    return 5;
  }
#endif
  if (prepared != kTfLiteOk) {
    return 2;
  }
#if !defined(MICRO)
  scratch.resize(shapes[3].size > 0 ? (size_t)shapes[3].data[0] : 0);
  tensors[3].data.data = scratch.data();
#endif
  const bool is_expected = memcmp(&shapes[2], &expected, sizeof expected) == 0;
  if (!is_expected || registration.invoke(&context, &node) != kTfLiteOk) {
    return 6;
  }
#if !defined(MICRO)
  registration.free(&context, node.user_data);
#endif
  fwrite(output.data(), 1, output.size(), stdout);
  return 0;
}
