#include "parallel.h"

#include "ops.h"

// Multiply-accumulates that are worth a thread. A layer of twice as many takes 7 microseconds on AVX-512 at 1 to 4 bits
// a weight, and 5 with two threads; slower instruction sets save more. If the other thread has to be woken first, that
// costs 10 microseconds, which five such layers win back.
static const double LEAST_WORK = 1 << 19;

typedef struct work {
  const subbyte_plan *plan;
  const void *input;
  void *output;
  int8_t *scratch;
} work;

static void run_part(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  int8_t *const scratch = work->scratch == NULL ? NULL : work->scratch + op->scratch_bytes * (size_t)part;
  subbyte_find_op(op->layer.header.op)->run(op, work->input, work->output, scratch, part, parts);
}

subbyte_plan subbyte_plan_op(const subbyte_op *op, int32_t threads) {
  const subbyte_op_row *row = subbyte_find_op(op->layer.header.op);
  subbyte_plan plan = {.op = *op, .threads = 1, .parts = 1};
  double work =
      (double)op->positions * op->layer.header.input_features * op->output_channels; // which does not overflow
  work *= op->code_bytes * row->cost;                                                // a row of 16 bits is two of bytes
  threads = subbyte_smaller(threads, SUBBYTE_MAX_THREADS);
  if (row->least_positions > 0) {
    threads = subbyte_smaller(threads, op->positions / row->least_positions);
  }
  for (double worth = 2 * LEAST_WORK; plan.threads < threads && work >= worth; worth += LEAST_WORK) {
    ++plan.threads;
  }
  if (plan.threads > 1) {
    plan.parts = row->cut(op, plan.threads * row->parts_per_thread);
  }
  if ((uint64_t)op->scratch_bytes * (uint64_t)plan.parts > INT32_MAX) {
    plan.threads = plan.parts = 1;
  }
  plan.scratch_bytes = op->scratch_bytes * (size_t)plan.parts;
  return plan;
}

void subbyte_run_plan(const subbyte_plan *plan, const void *input, void *output, void *scratch, subbyte_pool *pool) {
  if (plan->threads == 1) {
    subbyte_run_op(&plan->op, input, output, scratch);
    return;
  }
  const work work = {plan, input, output, scratch};
  subbyte_run_parts(pool, plan->threads, run_part, &work, plan->parts);
}
