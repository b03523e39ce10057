#include "partition.h"

#include <stdlib.h>

#include "layout.h"
#include "parallel.h"

// One op. Everything is known once it is prepared, but for where its activations lie.
typedef struct op {
  int input, packed, output; // indices of its tensors; -1: the node does not have them
  int is_inner;              // its output is seen by this partition only
  subbyte_plan plan;
} op;

typedef struct partition {
  const subbyte_resources *resources;
  int op_count;
  op ops[];
} partition;

// The tensors of one op while it is prepared.
typedef struct tensors {
  TfLiteTensor *input, *packed, *output;
  subbyte_header header;
} tensors;

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

static op make_op(const TfLiteNode *node, const TfLiteIntArray *partition_outputs) {
  if (node->inputs->size != 2 || node->outputs->size != 1) {
    return no_op;
  }
  const int output = node->outputs->data[0];
  return (op){.input = node->inputs->data[0],
              .packed = node->inputs->data[1],
              .output = output,
              .is_inner = !contains(partition_outputs, output)};
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
    self->ops[i] = status == kTfLiteOk ? make_op(node, params->output_tensors) : no_op;
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

static int has_values(const TfLiteTensor *tensor, float scale, int32_t zero_point) {
  return tensor->params.scale == scale && tensor->params.zero_point == zero_point;
}

static int is_writable(const TfLiteTensor *tensor) {
  const int type = (int)tensor->allocation_type;
  return type == kTfLiteArenaRw || type == kTfLiteArenaRwPersistent || type == kTfLiteDynamic || type == kTfLiteCustom;
}

// What is wrong with the packed tensor, or NULL. Fills t->header.
static const char *find_packed_fault(tensors *t) {
  if (t->packed->type != kTfLiteUInt8 || t->packed->allocation_type != kTfLiteMmapRo || t->packed->data.data == NULL) {
    return "the second input must be the packed layer: a constant uint8 tensor";
  }
  const subbyte_status status = subbyte_check(t->packed->data.data, t->packed->bytes);
  if (status != SUBBYTE_OK) {
    return subbyte_message(status);
  }
  t->header = subbyte_load_header(t->packed->data.data);
  return NULL;
}

// What is wrong between the packed layer and the tensors around it, or NULL.
static const char *find_activation_fault(const tensors *t) {
  if (t->input->type != kTfLiteInt8 || t->output->type != kTfLiteInt8) {
    return "the first input and the output must be int8";
  }
  if (!has_values(t->input, t->header.input_scale, t->header.input_zero_point)) {
    return "the input's scale and zero point are not those the layer was packed for: convert the model again";
  }
  if (!has_values(t->output, t->header.output_scale, t->header.output_zero_point)) {
    return "the output's scale and zero point are not those the layer was packed for: convert the model again";
  }
  if (!is_writable(t->output)) {
    return "the output is not a tensor that can be written";
  }
  return NULL;
}

// Rows of an input [..., K], or -1 where it is none.
static int32_t count_rows(const tensors *t) {
  const TfLiteIntArray *shape = t->input->dims;
  if (shape == NULL || shape->size < 1 || shape->data[shape->size - 1] != t->header.input_features) {
    return -1;
  }
  int64_t rows = 1;
  for (int i = 0; i < shape->size - 1; ++i) {
    rows *= shape->data[i];
    if (rows < 0 || rows > INT32_MAX) {
      return -1;
    }
  }
  return t->input->bytes == (size_t)rows * (size_t)t->header.input_features ? (int32_t)rows : -1;
}

static TfLiteStatus resize_output(TfLiteContext *context, const tensors *t) {
  TfLiteIntArray *shape = subbyte_create_int_array(t->input->dims->size);
  if (shape == NULL) {
    return kTfLiteError;
  }
  memcpy(shape->data, t->input->dims->data, sizeof(int) * (size_t)shape->size);
  shape->data[shape->size - 1] = t->header.output_channels;
  return context->ResizeTensor(context, t->output, shape); // which takes over the shape
}

static TfLiteStatus report(TfLiteContext *context, int op_index, const TfLiteTensor *output, const char *fault) {
  const char *name = output != NULL && output->name != NULL ? output->name : "?";
  context->ReportError(context, "subbyte: layer %d, output \"%s\": %s", op_index, name, fault);
  return kTfLiteError;
}

static TfLiteStatus prepare_op(TfLiteContext *context, op *op, int op_index) {
  tensors t = {
      find_tensor(context, op->input), find_tensor(context, op->packed), find_tensor(context, op->output), {0}};
  if (t.input == NULL || t.packed == NULL || t.output == NULL) {
    return report(context, op_index, t.output, "the op needs two inputs, x and the packed layer, and one output");
  }
  const char *fault = find_packed_fault(&t);
  fault = fault != NULL ? fault : find_activation_fault(&t);
  if (fault != NULL) {
    return report(context, op_index, t.output, fault);
  }
  const int32_t rows = count_rows(&t);
  if (rows < 0) {
    context->ReportError(context, "subbyte: layer %d, output \"%s\": the input must be [..., %d], the layer's inputs",
                         op_index, t.output->name, (int)t.header.input_features);
    return kTfLiteError;
  }
  op->plan = subbyte_plan_layer(t.packed->data.data, rows, context->recommended_num_threads);
  return resize_output(context, &t);
}

// The runtime plans memory for what goes in and out of the partition only. Tensors in between become the node's
// temporaries, so that they get their place in the arena too.
static TfLiteStatus plan_inner_tensors(TfLiteContext *context, const partition *self, TfLiteNode *node) {
  TfLiteIntArray *temporaries = subbyte_create_int_array(self->op_count);
  if (temporaries == NULL) {
    return kTfLiteError;
  }
  temporaries->size = 0;
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
  return plan_inner_tensors(context, self, node);
}

static TfLiteStatus invoke(TfLiteContext *context, TfLiteNode *node) {
  const partition *self = node->user_data;
  for (int i = 0; i < self->op_count; ++i) {
    const op *op = &self->ops[i];
    const TfLiteTensor *input = &context->tensors[op->input], *output = &context->tensors[op->output];
    if (op->plan.rows > 0 && (input->data.data == NULL || output->data.data == NULL)) {
      return report(context, i, output, "the runtime gave a tensor no memory");
    }
    subbyte_run_plan(&op->plan, input->data.int8, output->data.int8, self->resources->isa, self->resources->pool);
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
