#include "parallel.h"

#include "layout.h"

// Multiply-accumulates that are worth a thread. A layer of twice as many takes 7 microseconds on AVX-512 at 1 to 4 bits
// a weight, and 5 with two threads; slower instruction sets save more. If the other thread has to be woken first, that
// costs 10 microseconds, which five such layers win back.
static const double LEAST_WORK = 1 << 19;

// A multiplication of a depthwise convolution takes so many times as long.
static const double DEPTHWISE_WORK = 8;

enum {
  // Output positions of a convolution that are worth a part: each part decodes the weights anew.
  LEAST_POSITIONS = 64,
  // More parts than threads: one that comes late or is interrupted leaves its share to the others.
  PARTS_PER_THREAD = 2,
  // Rows of input that share a decoded vector of weights.
  ROW_GROUP = 4
};

typedef struct work {
  const subbyte_plan *plan;
  const int8_t *input;
  int8_t *output, *scratch;
  const subbyte_isa *isa;
} work;

static int32_t smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

static int32_t divide_up(int32_t number, int32_t by) {
  return number / by + (number % by != 0);
}

// Where a part starts if `count` things, in groups of `size`, are shared out; that of the next part is its end.
static int32_t start_of(int32_t part, int32_t parts, int32_t count, int32_t size) {
  const int64_t group = (int64_t)divide_up(count, size) * part / parts;
  return group * size < count ? (int32_t)group * size : count;
}

static void compute_channels(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  subbyte_fully_connected_channels(op->layer, work->input, op->rows, work->output, work->isa,
                                   start_of(part, parts, op->output_channels, SUBBYTE_PANEL),
                                   start_of(part + 1, parts, op->output_channels, SUBBYTE_PANEL));
}

static void compute_rows(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  const int32_t first = start_of(part, parts, op->rows, ROW_GROUP);
  const int32_t last = start_of(part + 1, parts, op->rows, ROW_GROUP);
  subbyte_fully_connected(op->layer, work->input + (ptrdiff_t)first * work->plan->features, last - first,
                          work->output + (ptrdiff_t)first * op->output_channels, work->isa);
}

static void compute_convolution(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  subbyte_conv_2d_part(op->layer, work->input, op->batch, op->height, op->width, work->output,
                       work->scratch + op->scratch_bytes * (size_t)part, work->isa, part, parts);
}

static void cut_fully_connected(subbyte_plan *plan) {
  const int32_t wanted = plan->threads * PARTS_PER_THREAD;
  const int32_t panels = divide_up(plan->op.output_channels, SUBBYTE_PANEL);
  const int32_t groups = divide_up(plan->op.rows, ROW_GROUP);
  // By channels, so that each weight is decoded by one thread, unless there are too few of them.
  plan->is_cut_by_rows = panels < wanted && panels < groups;
  plan->parts = smaller(wanted, plan->is_cut_by_rows ? groups : panels);
}

subbyte_plan subbyte_plan_op(const subbyte_op *op, int32_t threads) {
  subbyte_plan plan = {
      .op = *op,
      .features = subbyte_load_header(op->layer).input_features,
      .threads = 1,
      .parts = 1,
      .scratch_bytes = op->scratch_bytes,
  };
  const int is_dense = op->kind == SUBBYTE_FULLY_CONNECTED;
  const double positions = is_dense ? op->rows : (double)op->batch * op->output_height * op->output_width;
  double work = positions * plan.features * op->output_channels; // which no size overflows
  work *= op->kind == SUBBYTE_DEPTHWISE_CONV_2D ? DEPTHWISE_WORK : 1;
  threads = smaller(threads, SUBBYTE_MAX_THREADS);
  if (!is_dense) {
    threads = smaller(threads, (int32_t)(positions / (double)LEAST_POSITIONS));
  }
  for (double worth = 2 * LEAST_WORK; plan.threads < threads && work >= worth; worth += LEAST_WORK) {
    ++plan.threads;
  }
  if (plan.threads > 1 && is_dense) {
    cut_fully_connected(&plan);
  } else if (plan.threads > 1 && (uint64_t)op->scratch_bytes * (uint64_t)plan.threads <= INT32_MAX) {
    plan.parts = plan.threads;
    plan.scratch_bytes = op->scratch_bytes * (size_t)plan.parts;
  } else {
    plan.threads = 1;
  }
  return plan;
}

void subbyte_run_plan(const subbyte_plan *plan, const int8_t *input, int8_t *output, void *scratch,
                      const subbyte_isa *isa, subbyte_pool *pool) {
  if (plan->threads == 1) {
    subbyte_run_op(&plan->op, input, output, scratch, isa);
    return;
  }
  const work work = {plan, input, output, scratch, isa};
  subbyte_task *const compute_dense = plan->is_cut_by_rows ? compute_rows : compute_channels;
  subbyte_task *const compute = plan->op.kind == SUBBYTE_FULLY_CONNECTED ? compute_dense : compute_convolution;
  subbyte_run_parts(pool, plan->threads, compute, &work, plan->parts);
}
