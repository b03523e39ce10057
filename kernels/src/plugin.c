// The TFLite plug-in: an external delegate that claims our custom ops and leaves every other op to the runtime.
#include <stdlib.h>
#include <string.h>

#include "../include/subbyte_op.h"
#include "partition.h"

#define ISA_VARIABLE "SUBBYTE_ISA"

enum { CUSTOM_BUILTIN_CODE = 32 }; // of every custom op

static int is_ours(const TfLiteRegistration *registration) {
  return registration->builtin_code == CUSTOM_BUILTIN_CODE && registration->custom_name != NULL &&
         subbyte_op_kind(registration->custom_name) != 0;
}

// Sets `claimed` to the nodes of the plan that are ours; it has room for the whole plan.
static TfLiteStatus find_ours(TfLiteContext *context, const TfLiteIntArray *plan, TfLiteIntArray *claimed) {
  claimed->size = 0;
  for (int i = 0; i < plan->size; ++i) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    const TfLiteStatus status = context->GetNodeAndRegistration(context, plan->data[i], &node, &registration);
    if (status != kTfLiteOk) {
      return status;
    }
    if (is_ours(registration)) {
      claimed->data[claimed->size++] = plan->data[i];
    }
  }
  return kTfLiteOk;
}

// Marks a node's tensors in `seen`. Returns whether one that it writes had been marked: by an earlier node, or as an
// input of its own.
static int writes_what_was_read(const TfLiteNode *node, char *read, size_t tensors) {
  for (int i = 0; i < node->inputs->size; ++i) {
    const int input = node->inputs->data[i];
    if (input >= 0 && (size_t)input < tensors) {
      read[input] = 1;
    }
  }
  for (int i = 0; i < node->outputs->size; ++i) {
    const int output = node->outputs->data[i];
    if (output >= 0 && (size_t)output < tensors && read[output]) {
      return 1;
    }
  }
  return 0;
}

// A plan that lists every op behind those whose outputs it reads, as the file format demands, has no cycles. Runtimes
// look for the order themselves once a delegate claims a node, and some of them never return from a cycle.
static TfLiteStatus check_order(TfLiteContext *context, const TfLiteIntArray *plan) {
  char *read = calloc(context->tensors_size, 1);
  if (read == NULL) {
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  TfLiteStatus status = kTfLiteOk;
  for (int i = 0; i < plan->size && status == kTfLiteOk; ++i) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    status = context->GetNodeAndRegistration(context, plan->data[i], &node, &registration);
    if (status == kTfLiteOk && writes_what_was_read(node, read, context->tensors_size)) {
      context->ReportError(context, "subbyte: op %d writes a tensor that was read before: the model is damaged", i);
      status = kTfLiteError;
    }
  }
  free(read);
  return status;
}

static TfLiteStatus claim_ours(TfLiteContext *context, TfLiteDelegate *delegate) {
  TfLiteIntArray *plan;
  TfLiteStatus status = context->GetExecutionPlan(context, &plan);
  if (status != kTfLiteOk) {
    return status;
  }
  TfLiteIntArray *claimed = subbyte_create_int_array(plan->size);
  if (claimed == NULL) {
    context->ReportError(context, "subbyte: out of memory");
    return kTfLiteError;
  }
  status = find_ours(context, plan, claimed);
  if (status == kTfLiteOk && claimed->size > 0) {
    status = check_order(context, plan);
    if (status == kTfLiteOk) {
      status =
          context->ReplaceNodeSubsetsWithDelegateKernels(context, subbyte_partition_registration(), claimed, delegate);
    }
  }
  free(claimed);
  return status;
}

static const subbyte_isa *choose_isa(void (*report_error)(const char *)) {
  const char *name = getenv(ISA_VARIABLE);
  if (name == NULL || *name == '\0') {
    return subbyte_best_isa();
  }
  const subbyte_isa *isa = subbyte_find_isa(name);
  if (isa != NULL && subbyte_isa_runs(isa)) {
    return isa;
  }
  if (report_error != NULL) {
    report_error(ISA_VARIABLE " names an instruction set that this build or this processor does not have: ");
    report_error(name);
  }
  return NULL;
}

static TfLiteDelegate *create_delegate(const subbyte_isa *isa) {
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  subbyte_resources *resources = malloc(sizeof *resources);
  subbyte_pool *pool = subbyte_create_pool();
  if (delegate == NULL || resources == NULL || pool == NULL) {
    free(delegate);
    free(resources);
    subbyte_destroy_pool(pool);
    return NULL;
  }
  *resources = (subbyte_resources){isa, pool};
  delegate->data_ = resources;
  delegate->Prepare = claim_ours;
  // Without it the runtime prepares the graph before it asks us, and fails on the unresolved custom op.
  delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return delegate;
}

// The two functions that the runtime looks up, as its external_delegate_interface.h declares them.
SUBBYTE_API TfLiteDelegate *tflite_plugin_create_delegate(const char *const *options_keys,
                                                          const char *const *options_values, size_t num_options,
                                                          void (*report_error)(const char *));
SUBBYTE_API void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate);

SUBBYTE_API TfLiteDelegate *tflite_plugin_create_delegate(const char *const *options_keys,
                                                          const char *const *options_values, size_t num_options,
                                                          void (*report_error)(const char *)) {
  (void)options_values;
  if (num_options > 0) {
    if (report_error != NULL) {
      report_error("the subbyte delegate takes no options; unknown: ");
      report_error(options_keys[0]);
    }
    return NULL;
  }
  const subbyte_isa *isa = choose_isa(report_error);
  return isa != NULL ? create_delegate(isa) : NULL;
}

SUBBYTE_API void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  if (delegate != NULL) {
    const subbyte_resources *resources = delegate->data_;
    subbyte_destroy_pool(resources->pool);
    free(delegate->data_);
    free(delegate);
  }
}
