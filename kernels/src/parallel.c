#include "parallel.h"

#include "layout.h"

// Multiply-accumulates that are worth a thread. A layer of twice as many takes 7 microseconds on AVX-512 at 1 to 4 bits
// a weight, and 5 with two threads; slower instruction sets save more. If the other thread has to be woken first, that
// costs 10 microseconds, which five such layers win back.
static const double LEAST_WORK = 1 << 19;

enum {
  // More parts than threads: one that comes late or is interrupted leaves its share to the others.
  PARTS_PER_THREAD = 2,
  // Rows of input that share a decoded vector of weights.
  ROW_GROUP = 4
};

typedef struct work {
  const subbyte_plan *plan;
  const int8_t *input;
  int8_t *output;
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
  const subbyte_plan *plan = work->plan;
  subbyte_fully_connected_channels(plan->layer, work->input, plan->rows, work->output, work->isa,
                                   start_of(part, parts, plan->channels, SUBBYTE_PANEL),
                                   start_of(part + 1, parts, plan->channels, SUBBYTE_PANEL));
}

static void compute_rows(const void *shared, int32_t part, int32_t parts) {
  const work *work = shared;
  const subbyte_plan *plan = work->plan;
  const int32_t first = start_of(part, parts, plan->rows, ROW_GROUP);
  const int32_t last = start_of(part + 1, parts, plan->rows, ROW_GROUP);
  subbyte_fully_connected(plan->layer, work->input + (ptrdiff_t)first * plan->features, last - first,
                          work->output + (ptrdiff_t)first * plan->channels, work->isa);
}

subbyte_plan subbyte_plan_layer(const void *layer, int32_t rows, int32_t threads) {
  const subbyte_header header = subbyte_load_header(layer);
  subbyte_plan plan = {layer, rows, header.input_features, header.output_channels, 1, 1, 0};
  const double work = (double)plan.features * plan.channels * rows; // which no size overflows
  threads = smaller(threads, SUBBYTE_MAX_THREADS);
  for (double worth = 2 * LEAST_WORK; plan.threads < threads && work >= worth; worth += LEAST_WORK) {
    ++plan.threads;
  }
  if (plan.threads > 1) {
    const int32_t wanted = plan.threads * PARTS_PER_THREAD;
    const int32_t panels = divide_up(plan.channels, SUBBYTE_PANEL), groups = divide_up(rows, ROW_GROUP);
    // By channels, so that each weight is decoded by one thread, unless there are too few of them.
    plan.is_cut_by_rows = panels < wanted && panels < groups;
    plan.parts = smaller(wanted, plan.is_cut_by_rows ? groups : panels);
  }
  return plan;
}

void subbyte_run_plan(const subbyte_plan *plan, const int8_t *input, int8_t *output, const subbyte_isa *isa,
                      subbyte_pool *pool) {
  const work work = {plan, input, output, isa};
  subbyte_run_parts(pool, plan->threads, plan->is_cut_by_rows ? compute_rows : compute_channels, &work, plan->parts);
}
