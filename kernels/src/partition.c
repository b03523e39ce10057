#include "partition.h"

#include <stdlib.h>

#include "../include/subbyte_op.h"
#include "arena.h"
#include "layout.h"
#include "parallel.h"

// One op. Everything is known once it is prepared, but for where the workspace and the tensors of others lie.
typedef struct op {
  int32_t kind;              // of layer
  int input, packed, output; // indices of its tensors; -1: the node does not have them
  int is_inner;              // its output is seen by this partition only, and lies in the workspace
  int source;                // the op of this partition that makes its input; -1: there is none
  subbyte_plan plan;         // and the layer
  size_t output_at;          // in the workspace, if the output is inner
  size_t scratch_at;
} op;

typedef struct partition {
  const subbyte_resources *resources;
  int workspace; // index of a tensor in the arena: inner outputs and scratch memory, each there while it is needed
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

static int find_source(const partition *self, int tensor) {
  for (int i = 0; i < self->op_count; ++i) {
    if (tensor >= 0 && self->ops[i].output == tensor) {
      return i;
    }
  }
  return -1;
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
  for (int i = 0; i < self->op_count; ++i) {
    self->ops[i].source = find_source(self, self->ops[i].input);
  }
  if (context->AddTensors(context, 1, &self->workspace) != kTfLiteOk) {
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
  const int32_t code_bytes = tensor->type == kTfLiteInt8 ? 1 : tensor->type == kTfLiteInt16 ? 2 : 0;
  return (subbyte_activation){code_bytes,
                              tensor->params.scale,
                              tensor->params.zero_point,
                              shape ? shape->data : NULL,
                              shape ? shape->size : 0,
                              tensor->bytes};
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

static TfLiteStatus prepare_op(TfLiteContext *context, op *op, int op_index, const subbyte_isa *isa) {
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
  const char *fault = subbyte_fit_op(&layer, op->kind, packed->data.data, packed->bytes, &x, &y, isa);
  if (fault == NULL && !is_writable(output)) {
    fault = "the output is not a tensor that can be written";
  }
  if (fault != NULL) {
    return report_misfit(context, op, op_index, packed, &x, output, fault);
  }
  op->plan = subbyte_plan_op(&layer, context->recommended_num_threads);
  return resize_output(context, &layer, &x, output);
}

// Where inner outputs and scratch memory lie in the workspace. Returns its size, SIZE_MAX without memory to work it
// out.
static size_t plan_workspace(TfLiteContext *context, partition *self) {
  const int32_t count = self->op_count;
  subbyte_tenant *tenants = calloc(2 * (size_t)count, sizeof *tenants); // outputs, then scratch memory
  if (tenants == NULL) {
    return SIZE_MAX;
  }
  for (int32_t i = 0; i < count; ++i) {
    const op *op = &self->ops[i];
    tenants[i] = (subbyte_tenant){op->is_inner ? context->tensors[op->output].bytes : 0, i, i, 0};
    tenants[count + i] = (subbyte_tenant){op->plan.scratch_bytes, i, i, 0};
    if (op->source >= 0) {
      tenants[op->source].last = i;
    }
  }
  const size_t bytes = subbyte_plan_arena(tenants, 2 * count);
  for (int32_t i = 0; i < count; ++i) {
    self->ops[i].output_at = tenants[i].offset;
    self->ops[i].scratch_at = tenants[count + i].offset;
  }
  free(tenants);
  return bytes;
}

// The workspace is the node's temporary, so that it gets its place in the arena.
static TfLiteStatus allocate_workspace(TfLiteContext *context, partition *self, TfLiteNode *node) {
  const size_t bytes = plan_workspace(context, self);
  TfLiteIntArray *shape = bytes <= INT32_MAX ? subbyte_create_int_array(1) : NULL;
  TfLiteIntArray *temporaries = subbyte_create_int_array(1);
  if (shape == NULL || temporaries == NULL) {
    free(shape);
    free(temporaries);
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  temporaries->size = bytes > 0;
  temporaries->data[0] = self->workspace;
  free(node->temporaries);
  node->temporaries = temporaries;
  shape->data[0] = (int)bytes;
  TfLiteTensor *workspace = &context->tensors[self->workspace];
  workspace->type = kTfLiteUInt8;
  workspace->allocation_type = kTfLiteArenaRw;
  return context->ResizeTensor(context, workspace, shape); // which takes over the shape
}

static TfLiteStatus prepare(TfLiteContext *context, TfLiteNode *node) {
  partition *self = node->user_data;
  if (self == NULL) {
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  int32_t threads = 1;
  for (int i = 0; i < self->op_count; ++i) {
    const TfLiteStatus status = prepare_op(context, &self->ops[i], i, self->resources->isa);
    if (status != kTfLiteOk) {
      return status;
    }
    threads = self->ops[i].plan.threads > threads ? self->ops[i].plan.threads : threads;
  }
  if (threads > 1) {
    subbyte_grow_pool(self->resources->pool, threads);
  }
  return allocate_workspace(context, self, node);
}

static int8_t *find_input(const TfLiteContext *context, const partition *self, const op *op, int8_t *workspace) {
  const int is_inner = op->source >= 0 && self->ops[op->source].is_inner;
  if (is_inner) {
    return workspace != NULL ? workspace + self->ops[op->source].output_at : NULL;
  }
  return context->tensors[op->input].data.int8;
}

static int8_t *find_output(const TfLiteContext *context, const op *op, int8_t *workspace) {
  if (op->is_inner) {
    return workspace != NULL ? workspace + op->output_at : NULL;
  }
  return context->tensors[op->output].data.int8;
}

static TfLiteStatus invoke(TfLiteContext *context, TfLiteNode *node) {
  const partition *self = node->user_data;
  int8_t *workspace = context->tensors[self->workspace].data.int8;
  for (int i = 0; i < self->op_count; ++i) {
    const op *op = &self->ops[i];
    const int8_t *input = find_input(context, self, op, workspace);
    int8_t *output = find_output(context, op, workspace);
    const int has_memory = input != NULL && output != NULL && (op->plan.scratch_bytes == 0 || workspace != NULL);
    if (!has_memory && context->tensors[op->input].bytes > 0) {
      return report(context, i, &context->tensors[op->output], "the runtime gave a tensor no memory");
    }
    int8_t *scratch = workspace != NULL ? workspace + op->scratch_at : NULL;
    subbyte_run_plan(&op->plan, input, output, scratch, self->resources->pool);
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
