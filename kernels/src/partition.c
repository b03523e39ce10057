#include "partition.h"

#include <stdlib.h>

#include "../include/subbyte_op.h"
#include "layout.h"
#include "parallel.h"

// One op. Everything is known once it is prepared, but for where its activations lie.
typedef struct op {
  int32_t kind;              // of layer
  int input, packed, output; // indices of its tensors; -1: the node does not have them
  int is_inner;              // its output is seen by this partition only
  subbyte_plan plan;         // and the layer
} op;

typedef struct partition {
  const subbyte_resources *resources;
  int scratch; // index of a tensor in the arena, which all convolutions share in turn; -1: there are none
  int op_count;
  op ops[];
} partition;

TfLiteIntArray *subbyte_create_int_array(int size) {
  TfLiteIntArray *array = malloc(sizeof *array + sizeof(int) * (size_t)size);
  if (array != NULL) {
    array->size = size;
  }
  return array;
}

static int contains(const TfLiteIntArray *array, int value) {
  for (int i = 0; i < array->size; ++i) {
    if (array->data[i] == value) {
      return 1;
    }
  }
  return 0;
}

static const op no_op = {.input = -1, .packed = -1, .output = -1};

static op make_op(const TfLiteNode *node, const char *name, const TfLiteIntArray *partition_outputs) {
  if (node->inputs->size != 2 || node->outputs->size != 1) {
    return no_op;
  }
  const int output = node->outputs->data[0];
  return (op){.kind = subbyte_op_kind(name),
              .input = node->inputs->data[0],
              .packed = node->inputs->data[1],
              .output = output,
              .is_inner = !contains(partition_outputs, output)};
}

static int has_convolution(const partition *self) {
  for (int i = 0; i < self->op_count; ++i) {
    if (self->ops[i].kind != SUBBYTE_FULLY_CONNECTED) {
      return 1;
    }
  }
  return 0;
}

static void *init(TfLiteContext *context, const char *buffer, size_t length) {
  (void)length;
  const TfLiteDelegateParams *params = (const TfLiteDelegateParams *)(const void *)buffer;
  const TfLiteIntArray *nodes = params->nodes_to_replace;
  partition *self = malloc(sizeof *self + sizeof(op) * (size_t)nodes->size);
  if (self == NULL) {
    return NULL;
  }
  self->resources = params->delegate->data_;
  self->op_count = nodes->size;
  for (int i = 0; i < nodes->size; ++i) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    const TfLiteStatus status = context->GetNodeAndRegistration(context, nodes->data[i], &node, &registration);
    self->ops[i] = status == kTfLiteOk ? make_op(node, registration->custom_name, params->output_tensors) : no_op;
  }
  self->scratch = -1;
  if (has_convolution(self) && context->AddTensors(context, 1, &self->scratch) != kTfLiteOk) {
    free(self);
    return NULL;
  }
  return self;
}

static void destroy(TfLiteContext *context, void *self) {
  (void)context;
  free(self);
}

static TfLiteTensor *find_tensor(TfLiteContext *context, int index) {
  return index >= 0 && (size_t)index < context->tensors_size ? &context->tensors[index] : NULL;
}

static int is_writable(const TfLiteTensor *tensor) {
  const int type = (int)tensor->allocation_type;
  return type == kTfLiteArenaRw || type == kTfLiteArenaRwPersistent || type == kTfLiteDynamic || type == kTfLiteCustom;
}

static subbyte_activation describe(const TfLiteTensor *tensor) {
  const TfLiteIntArray *shape = tensor->dims;
  return (subbyte_activation){tensor->type == kTfLiteInt8, tensor->params.scale,    tensor->params.zero_point,
                              shape ? shape->data : NULL,  shape ? shape->size : 0, tensor->bytes};
}

static TfLiteStatus resize_output(TfLiteContext *context, const subbyte_op *layer, const subbyte_activation *input,
                                  TfLiteTensor *output) {
  TfLiteIntArray *shape = subbyte_create_int_array(input->rank);
  if (shape == NULL) {
    return kTfLiteError;
  }
  for (int i = 0; i < shape->size; ++i) {
    shape->data[i] = subbyte_output_dimension(layer, input, i);
  }
  return context->ResizeTensor(context, output, shape); // which takes over the shape
}

static TfLiteStatus report(TfLiteContext *context, int op_index, const TfLiteTensor *output, const char *fault) {
  const char *name = output != NULL && output->name != NULL ? output->name : "?";
  context->ReportError(context, "subbyte: layer %d, output \"%s\": %s", op_index, name, fault);
  return kTfLiteError;
}

// The last dimension that the input must have, or -1 where the packed layer is none of this kind.
static int32_t expect_last(const op *op, const TfLiteTensor *packed) {
  if (subbyte_check(packed->data.data, packed->bytes) != SUBBYTE_OK) {
    return -1;
  }
  const subbyte_header header = subbyte_load_header(packed->data.data);
  if (header.op != op->kind) {
    return -1;
  }
  return header.op == SUBBYTE_FULLY_CONNECTED ? header.input_features : header.input_channels;
}

static TfLiteStatus report_misfit(TfLiteContext *context, const op *op, int op_index, const TfLiteTensor *packed,
                                  const subbyte_activation *input, const TfLiteTensor *output, const char *fault) {
  const int32_t last = expect_last(op, packed);
  const int has_last = input->rank > 0 && input->shape[input->rank - 1] == last;
  if (last < 0 || has_last) {
    return report(context, op_index, output, fault);
  }
  context->ReportError(context, "subbyte: layer %d, output \"%s\": %s (the input must be [..., %d])", op_index,
                       output->name != NULL ? output->name : "?", fault, (int)last);
  return kTfLiteError;
}

static TfLiteStatus prepare_op(TfLiteContext *context, op *op, int op_index) {
  const TfLiteTensor *input = find_tensor(context, op->input), *packed = find_tensor(context, op->packed);
  TfLiteTensor *output = find_tensor(context, op->output);
  if (input == NULL || packed == NULL || output == NULL) {
    return report(context, op_index, output, "the op needs two inputs, x and the packed layer, and one output");
  }
  if (packed->type != kTfLiteUInt8 || packed->allocation_type != kTfLiteMmapRo || packed->data.data == NULL) {
    return report(context, op_index, output, "the second input must be the packed layer: a constant uint8 tensor");
  }
  const subbyte_activation x = describe(input), y = describe(output);
  subbyte_op layer;
  const char *fault = subbyte_fit_op(&layer, op->kind, packed->data.data, packed->bytes, &x, &y);
  if (fault == NULL && !is_writable(output)) {
    fault = "the output is not a tensor that can be written";
  }
  if (fault != NULL) {
    return report_misfit(context, op, op_index, packed, &x, output, fault);
  }
  op->plan = subbyte_plan_op(&layer, context->recommended_num_threads);
  return resize_output(context, &layer, &x, output);
}

// The runtime plans memory for what goes in and out of the partition only. Tensors in between become the node's
// temporaries, so that they get their place in the arena too.
static TfLiteStatus plan_inner_tensors(TfLiteContext *context, const partition *self, TfLiteNode *node) {
  TfLiteIntArray *temporaries = subbyte_create_int_array(self->op_count + 1);
  if (temporaries == NULL) {
    return kTfLiteError;
  }
  temporaries->size = 0;
  if (self->scratch >= 0) {
    temporaries->data[temporaries->size++] = self->scratch;
  }
  for (int i = 0; i < self->op_count; ++i) {
    const int output = self->ops[i].output;
    if (self->ops[i].is_inner && context->tensors[output].allocation_type == kTfLiteArenaRw) {
      temporaries->data[temporaries->size++] = output;
    }
  }
  free(node->temporaries);
  node->temporaries = temporaries;
  return kTfLiteOk;
}

// The scratch memory is as large as the largest convolution needs.
static TfLiteStatus plan_scratch(TfLiteContext *context, const partition *self) {
  if (self->scratch < 0) {
    return kTfLiteOk;
  }
  size_t bytes = 0;
  for (int i = 0; i < self->op_count; ++i) {
    bytes = self->ops[i].plan.scratch_bytes > bytes ? self->ops[i].plan.scratch_bytes : bytes;
  }
  TfLiteIntArray *shape = bytes <= INT32_MAX ? subbyte_create_int_array(1) : NULL;
  if (shape == NULL) {
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  shape->data[0] = (int)bytes;
  TfLiteTensor *scratch = &context->tensors[self->scratch];
  scratch->type = kTfLiteUInt8;
  scratch->allocation_type = kTfLiteArenaRw;
  return context->ResizeTensor(context, scratch, shape); // which takes over the shape
}

static TfLiteStatus prepare(TfLiteContext *context, TfLiteNode *node) {
  partition *self = node->user_data;
  if (self == NULL) {
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  int32_t threads = 1;
  for (int i = 0; i < self->op_count; ++i) {
    const TfLiteStatus status = prepare_op(context, &self->ops[i], i);
    if (status != kTfLiteOk) {
      return status;
    }
    threads = self->ops[i].plan.threads > threads ? self->ops[i].plan.threads : threads;
  }
  if (threads > 1) {
    subbyte_grow_pool(self->resources->pool, threads);
  }
  if (plan_scratch(context, self) != kTfLiteOk) {
    return kTfLiteError;
  }
  return plan_inner_tensors(context, self, node);
}

static TfLiteStatus invoke(TfLiteContext *context, TfLiteNode *node) {
  const partition *self = node->user_data;
  const subbyte_resources *resources = self->resources;
  void *scratch = self->scratch >= 0 ? context->tensors[self->scratch].data.data : NULL;
  for (int i = 0; i < self->op_count; ++i) {
    const op *op = &self->ops[i];
    const TfLiteTensor *input = &context->tensors[op->input], *output = &context->tensors[op->output];
    const int has_memory =
        input->data.data != NULL && output->data.data != NULL && (op->plan.scratch_bytes == 0 || scratch != NULL);
    if (input->bytes > 0 && !has_memory) {
      return report(context, i, output, "the runtime gave a tensor no memory");
    }
    subbyte_run_plan(&op->plan, input->data.int8, output->data.int8, scratch, resources->isa, resources->pool);
  }
  return kTfLiteOk;
}

TfLiteRegistration subbyte_partition_registration(void) {
  return (TfLiteRegistration){.init = init,
                              .free = destroy,
                              .prepare = prepare,
                              .invoke = invoke,
                              .custom_name = "SubbyteDelegate",
                              .version = 1};
}
