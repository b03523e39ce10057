// subbyte: layers with weights of 1 to 8 bits, computed straight from the packed bytes.
//
//   static const uint8_t layer[] = {...};                        // what PackedLayer.pack() wrote, for example in flash
//   subbyte_status status = subbyte_check(layer, sizeof layer);  // once
//   const subbyte_isa *isa = subbyte_best_isa();                 // once
//   subbyte_fully_connected(layer, input, 1, output, isa);       // int8 [1, K] -> int8 [1, N]
//
// Nothing here allocates, keeps state or needs more of a C library than memcpy, memset and strcmp. Every instruction
// set gives the same bits. The packed layer is defined in schemas/packed_layer.fbs and explained in docs/format.md.
#ifndef SUBBYTE_H
#define SUBBYTE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define SUBBYTE_STATIC_ASSERT static_assert
#else
#define SUBBYTE_STATIC_ASSERT _Static_assert
#endif

#if defined(_WIN32)
#define SUBBYTE_API __declspec(dllexport)
#elif defined(__GNUC__)
#define SUBBYTE_API __attribute__((visibility("default")))
#else
#define SUBBYTE_API
#endif

// The first bytes of a packed layer; the fields are documented in packed_layer.fbs.
typedef struct subbyte_header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint32_t total_bytes;

  uint8_t op;
  uint8_t weight_bits;
  uint8_t decode;
  uint8_t layout;
  uint8_t activation_type;
  uint8_t requantization;
  uint8_t multiplier_type;
  uint8_t bias_type;
  uint8_t bias_shift;
  uint8_t accumulator_bits;
  uint16_t scale_block;

  int32_t input_features;
  int32_t output_channels;
  int16_t code_offset;
  int16_t code_step;
  int16_t input_zero_point;
  int16_t output_zero_point;
  int16_t clamp_min;
  int16_t clamp_max;
  float input_scale;
  float output_scale;

  int32_t input_channels;
  int32_t groups;
  uint16_t kernel_height;
  uint16_t kernel_width;
  uint8_t stride_height;
  uint8_t stride_width;
  uint8_t dilation_height;
  uint8_t dilation_width;
  uint8_t padding;
  uint8_t multiplier_bits;
  uint8_t multiplier_shift;
  uint8_t reserved;

  uint32_t plane_offset[4];
  uint32_t multiplier_offset;
  uint32_t bias_offset;
  uint32_t codebook_offset;
} subbyte_header;

SUBBYTE_STATIC_ASSERT(sizeof(subbyte_header) == 100, "the compiler padded the header");
SUBBYTE_STATIC_ASSERT(offsetof(subbyte_header, op) == 12, "the compiler padded the header");
SUBBYTE_STATIC_ASSERT(offsetof(subbyte_header, input_features) == 24, "the compiler padded the header");
SUBBYTE_STATIC_ASSERT(offsetof(subbyte_header, input_channels) == 52, "the compiler padded the header");
SUBBYTE_STATIC_ASSERT(offsetof(subbyte_header, plane_offset) == 72, "the compiler padded the header");

enum {
  SUBBYTE_MAGIC = 0x42425553, // "SUBB"
  SUBBYTE_VERSION = 1,
  // Most inputs that one 32-bit sum takes: 255 * 128 * MAX < 2^31.
  SUBBYTE_MAX_FEATURES = 65793,
  SUBBYTE_IMAGE_ALIGNMENT = 64, // of the layers of an image to its start
};

// Largest sum of a layer with 16-bit activations, bias included: its product with 24 bits fits in 63.
#define SUBBYTE_MAX_INT16_SUM INT64_C(0x7fffffffff)

enum { SUBBYTE_FULLY_CONNECTED = 1, SUBBYTE_CONV_2D = 2, SUBBYTE_DEPTHWISE_CONV_2D = 3 };
enum { SUBBYTE_LINEAR = 1, SUBBYTE_CODEBOOK = 2 };
enum { SUBBYTE_PANELS_OF_16_BY_4 = 1 };
enum { SUBBYTE_ACTIVATION_INT8 = 1, SUBBYTE_ACTIVATION_INT16 = 2 };
enum { SUBBYTE_REQUANTIZE_FLOAT32 = 1, SUBBYTE_REQUANTIZE_FIXED_POINT = 2 };
enum { SUBBYTE_MULTIPLIER_FLOAT32 = 1, SUBBYTE_MULTIPLIER_UFLOAT16 = 2, SUBBYTE_MULTIPLIER_IN_BIAS = 3 };
enum { SUBBYTE_BIAS_INT32 = 1, SUBBYTE_BIAS_INT16 = 2 };
enum { SUBBYTE_PADDING_VALID = 0, SUBBYTE_PADDING_SAME = 1 };

// What subbyte_check() finds. subbyte_message() says it in words.
typedef enum subbyte_status {
  SUBBYTE_OK = 0,
  SUBBYTE_TOO_SHORT,
  SUBBYTE_WRONG_MAGIC,
  SUBBYTE_WRONG_VERSION,
  SUBBYTE_WRONG_SIZE,
  SUBBYTE_UNKNOWN_VALUE,
  SUBBYTE_UNSUPPORTED,
  SUBBYTE_BAD_BITS,
  SUBBYTE_BAD_SHAPE,
  SUBBYTE_BAD_GEOMETRY,
  SUBBYTE_BAD_ACTIVATION,
  SUBBYTE_BAD_DECODE,
  SUBBYTE_BAD_SECTION,
  SUBBYTE_BAD_MULTIPLIER,
  SUBBYTE_BAD_BIAS,
  SUBBYTE_BAD_CHAIN,
  SUBBYTE_STATUS_COUNT
} subbyte_status;

// An instruction set's loops. Opaque; `portable` exists everywhere.
typedef struct subbyte_isa subbyte_isa;

// Whether `bytes` bytes at `layer` are a packed layer that this library computes. Nothing outside them is read,
// whatever they hold. `layer` needs no alignment; 64 bytes are fastest.
SUBBYTE_API subbyte_status subbyte_check(const void *layer, size_t bytes);

// A sentence about `status`, in static memory.
SUBBYTE_API const char *subbyte_message(subbyte_status status);

// The first instruction set of the list that this processor runs. It asks the processor: call it once and keep the
// answer.
SUBBYTE_API const subbyte_isa *subbyte_best_isa(void);

// The instruction sets compiled in, best first, `portable` last; NULL for an index beyond the end.
SUBBYTE_API const subbyte_isa *subbyte_isa_at(int32_t index);

// The instruction set of that name if it is compiled in, else NULL.
SUBBYTE_API const subbyte_isa *subbyte_find_isa(const char *name);

SUBBYTE_API const char *subbyte_isa_name(const subbyte_isa *isa);

// Nonzero where this processor runs `isa`.
SUBBYTE_API int subbyte_isa_runs(const subbyte_isa *isa);

// output[r, n] = clamp(rint((sum_k weight[n, k] * input[r, k] + bias[n]) * multiplier[n]) + zero point)
//
// layer: passed subbyte_check(), has activations of 8 bits and is unchanged since.
// input: int8 [rows, K]; output: int8 [rows, N], not overlapping. isa: runs on this processor.
SUBBYTE_API void subbyte_fully_connected(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                         const subbyte_isa *isa);

// The same of a layer with 16-bit activations, rounded away from zero where it lies halfway; the products are exact.
//
// input: int16 [rows, K]; output: int16 [rows, N]. scratch: subbyte_fully_connected_int16_scratch() bytes, of no
// alignment. Nothing overlaps.
SUBBYTE_API void subbyte_fully_connected_int16(const void *layer, const int16_t *input, int32_t rows, int16_t *output,
                                               void *scratch, const subbyte_isa *isa);

// Bytes of scratch memory that subbyte_fully_connected_int16() works in: at most 4 for each of K.
SUBBYTE_API size_t subbyte_fully_connected_int16_scratch(const void *layer, int32_t rows);

// A convolution, int8 [batch, height, width, C] to int8 [batch, output_height, output_width, N], in the same
// arithmetic: the window at every output position is a row of K inputs. Also a depthwise one, of which output channel n
// reads input channel n * C / N alone. Padded inputs are the input's zero point, as in TensorFlow.
//
// layer, isa: as above. scratch: subbyte_conv_2d_scratch() bytes. Nothing overlaps.
SUBBYTE_API void subbyte_conv_2d(const void *layer, const int8_t *input, int32_t batch, int32_t height, int32_t width,
                                 int8_t *output, void *scratch, const subbyte_isa *isa);

// Bytes of scratch memory that subbyte_conv_2d() works in; they need no alignment. SIZE_MAX: no memory is large enough.
SUBBYTE_API size_t subbyte_conv_2d_scratch(const void *layer, int32_t batch, int32_t height, int32_t width);

// Computes one of `parts` parts of a convolution, for callers with several threads: each has scratch memory of its own.
SUBBYTE_API void subbyte_conv_2d_part(const void *layer, const int8_t *input, int32_t batch, int32_t height,
                                      int32_t width, int8_t *output, void *scratch, const subbyte_isa *isa,
                                      int32_t part, int32_t parts);

// The size of an output; 0 where the window is larger than the input.
SUBBYTE_API void subbyte_conv_2d_output(const void *layer, int32_t height, int32_t width, int32_t *output_height,
                                        int32_t *output_width);

// Output channels [first, last) of a fully connected layer only, for callers with several threads: `first` is a
// multiple of 16. `output` is still the whole [rows, N].
SUBBYTE_API void subbyte_fully_connected_channels(const void *layer, const int8_t *input, int32_t rows, int8_t *output,
                                                  const subbyte_isa *isa, int32_t first, int32_t last);

SUBBYTE_API void subbyte_fully_connected_int16_channels(const void *layer, const int16_t *input, int32_t rows,
                                                        int16_t *output, void *scratch, const subbyte_isa *isa,
                                                        int32_t first, int32_t last);

// A layer of a model for firmware: a table of these, each for what the one before gave. `convert-to-tflite --format=c`
// writes one, and subbyte_find_layers() fills one.
typedef struct subbyte_layer {
  const void *packed;
  size_t bytes;
  int32_t rows; // of its input
} subbyte_layer;

// Finds the layers of an image that `convert-to-tflite --format=bin` wrote, and checks each: fully connected, with
// 8-bit activations, for one row of what the layer before gives. Nothing outside the `bytes` bytes at `image` is read.
//
// Sets the first `*count` of `most` entries; they point into the image.
SUBBYTE_API subbyte_status subbyte_find_layers(const void *image, size_t bytes, subbyte_layer *layers, int32_t most,
                                               int32_t *count);

#ifdef __cplusplus
}
#endif
#endif
