// The TFLite plug-in: an external delegate that claims our custom ops and leaves every other op to the runtime.
#include <stdlib.h>
#include <string.h>

#include "partition.h"

#define CUSTOM_OP_NAME "SubbyteFullyConnected"
#define ISA_VARIABLE "SUBBYTE_ISA"

enum { CUSTOM_BUILTIN_CODE = 32 }; // of every custom op

static int is_ours(const TfLiteRegistration *registration) {
  return registration->builtin_code == CUSTOM_BUILTIN_CODE && registration->custom_name != NULL &&
         strcmp(registration->custom_name, CUSTOM_OP_NAME) == 0;
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
    status =
        context->ReplaceNodeSubsetsWithDelegateKernels(context, subbyte_partition_registration(), claimed, delegate);
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
  TfLiteDelegate *delegate = isa != NULL ? calloc(1, sizeof *delegate) : NULL;
  if (delegate != NULL) {
    delegate->data_ = (void *)isa;
    delegate->Prepare = claim_ours;
    // Without it the runtime prepares the graph before it asks us, and fails on the unresolved custom op.
    delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  }
  return delegate;
}

SUBBYTE_API void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  free(delegate);
}
