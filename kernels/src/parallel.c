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

static int8_t *scratch_of(const work *work, int32_t part) {
  return work->scratch + work->plan->op.scratch_bytes * (size_t)part;
}

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

// Channels [first, last) of `rows` rows from `row` on.
static void compute_dense(const work *work, int32_t part, int32_t row, int32_t rows, int32_t first, int32_t last) {
  const subbyte_op *op = &work->plan->op;
  const int8_t *input = work->input + (ptrdiff_t)op->code_bytes * work->plan->features * row;
  int8_t *output = work->output + (ptrdiff_t)op->code_bytes * op->output_channels * row;
  if (op->code_bytes == 2) {
    subbyte_fully_connected_int16_channels(op->layer, (const int16_t *)(const void *)input, rows,
                                           (int16_t *)(void *)output, scratch_of(work, part), work->isa, first, last);
  } else {
    subbyte_fully_connected_channels(op->layer, input, rows, output, work->isa, first, last);
  }
}

static void compute_channels(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  compute_dense(work, part, 0, op->rows, start_of(part, parts, op->output_channels, SUBBYTE_PANEL),
                start_of(part + 1, parts, op->output_channels, SUBBYTE_PANEL));
}

static void compute_rows(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  const int32_t first = start_of(part, parts, op->rows, ROW_GROUP);
  const int32_t last = start_of(part + 1, parts, op->rows, ROW_GROUP);
  compute_dense(work, part, first, last - first, 0, op->output_channels);
}

static void compute_convolution(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_op *op = &work->plan->op;
  subbyte_conv_2d_part(op->layer, work->input, op->batch, op->height, op->width, work->output, scratch_of(work, part),
                       work->isa, part, parts);
}

static void cut(subbyte_plan *plan) {
  if (plan->op.kind != SUBBYTE_FULLY_CONNECTED) {
    plan->parts = plan->threads;
    return;
  }
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
  };
  const int is_dense = op->kind == SUBBYTE_FULLY_CONNECTED;
  const double positions = is_dense ? op->rows : (double)op->batch * op->output_height * op->output_width;
  double work = positions * plan.features * op->output_channels; // which no size overflows
  work *= op->code_bytes;                                        // a row of 16 bits is two of bytes
  work *= op->kind == SUBBYTE_DEPTHWISE_CONV_2D ? DEPTHWISE_WORK : 1;
  threads = smaller(threads, SUBBYTE_MAX_THREADS);
  if (!is_dense) {
    threads = smaller(threads, (int32_t)(positions / (double)LEAST_POSITIONS));
  }
  for (double worth = 2 * LEAST_WORK; plan.threads < threads && work >= worth; worth += LEAST_WORK) {
    ++plan.threads;
  }
  if (plan.threads > 1) {
    cut(&plan);
  }
  if ((uint64_t)op->scratch_bytes * (uint64_t)plan.parts > INT32_MAX) {
    plan.threads = plan.parts = 1;
  }
  plan.scratch_bytes = op->scratch_bytes * (size_t)plan.parts;
  return plan;
}

void subbyte_run_plan(const subbyte_plan *plan, const void *input, void *output, void *scratch, const subbyte_isa *isa,
                      subbyte_pool *pool) {
  if (plan->threads == 1) {
    subbyte_run_op(&plan->op, input, output, scratch, isa);
    return;
  }
  const work work = {plan, input, output, scratch, isa};
  subbyte_task *const compute_part = plan->is_cut_by_rows ? compute_rows : compute_channels;
  subbyte_task *const compute = plan->op.kind == SUBBYTE_FULLY_CONNECTED ? compute_part : compute_convolution;
  subbyte_run_parts(pool, plan->threads, compute, &work, plan->parts);
}
