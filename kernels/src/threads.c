#define _POSIX_C_SOURCE 200809L // for a C11 compiler's headers to declare threads, signals and clocks
#include "threads.h"

#include <stdlib.h>

static void run_alone(subbyte_task *task, const void *work, int32_t parts) {
  for (int32_t part = 0; part < parts; ++part) {
    task(work, part, parts);
  }
}

#if defined(_WIN32)

// One thread: the caller.
struct subbyte_pool {
  int unused;
};

subbyte_pool *subbyte_create_pool(void) {
  return calloc(1, sizeof(subbyte_pool));
}

void subbyte_destroy_pool(subbyte_pool *pool) {
  free(pool);
}

void subbyte_grow_pool(subbyte_pool *pool, int32_t threads) {
  (void)pool;
  (void)threads;
}

void subbyte_run_parts(subbyte_pool *pool, int32_t threads, subbyte_task *task, const void *work, int32_t parts) {
  (void)pool;
  (void)threads;
  run_alone(task, work, parts);
}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

// A worker that finds nothing to do watches the door for this long before it sleeps: longer than the small ops between
// two wide layers take, and short beside the time between two frames of a stream.
enum { SPIN_NANOSECONDS = 100000, SPINS = 64 };

// The door that workers enter a job by, in one word, so that who enters and who is told to wait is settled by one
// atomic operation:
//   bits 0-7    workers inside
//   bits 8-15   free seats: workers that may still enter
//   bits 16-31  number of the job, by which a worker that has left it knows that it was there
static const unsigned INSIDE = 1, SEAT = 1 << 8, JOB = 1 << 16;

enum { MAX_WORKERS = SUBBYTE_MAX_THREADS - 1 }; // the door has room for 255

struct subbyte_pool {
  atomic_uint door;
  atomic_int next_part;
  // Written while the door is shut, read by workers inside.
  subbyte_task *task;
  const void *work;
  int32_t parts;

  atomic_bool stop;
  atomic_int sleepers;
  pthread_mutex_t lock; // of `wake`
  pthread_cond_t wake;

  atomic_flag taken; // by who computes in the pool or makes it grow: the owner of what follows
  pid_t process;     // in which the workers live
  int32_t worker_count;
  pthread_t workers[MAX_WORKERS];
};

static unsigned seats(unsigned door) {
  return door / SEAT % (JOB / SEAT);
}

static unsigned inside(unsigned door) {
  return door % SEAT;
}

static unsigned job(unsigned door) {
  return door / JOB;
}

// Leaves the processor's other thread alone for some cycles.
static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t read_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void take_parts(subbyte_pool *pool) {
  const int32_t parts = pool->parts;
  for (int32_t part; (part = atomic_fetch_add(&pool->next_part, 1)) < parts;) {
    pool->task(pool->work, part, parts);
  }
}

static bool may_go_on(subbyte_pool *pool, unsigned last_job) {
  const unsigned door = atomic_load(&pool->door);
  return (seats(door) > 0 && job(door) != last_job) || atomic_load(&pool->stop);
}

static void wait_for_job(subbyte_pool *pool, unsigned last_job) {
  const int64_t start = read_clock();
  do {
    for (int i = 0; i < SPINS; ++i) {
      if (may_go_on(pool, last_job)) {
        return;
      }
      relax();
    }
    sched_yield(); // to the caller, where it shares this processor
  } while (read_clock() - start < SPIN_NANOSECONDS);
  pthread_mutex_lock(&pool->lock);
  // Counted before the last look at the door, as the caller looks at the count after it has opened the door: one of
  // the two sees the other.
  atomic_fetch_add(&pool->sleepers, 1);
  while (!may_go_on(pool, last_job)) {
    pthread_cond_wait(&pool->wake, &pool->lock);
  }
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->lock);
}

static void *serve(void *argument) {
  subbyte_pool *pool = argument;
  unsigned last_job = 0;
  for (;;) {
    wait_for_job(pool, last_job);
    if (atomic_load(&pool->stop)) {
      return NULL;
    }
    unsigned door = atomic_load(&pool->door);
    while (seats(door) > 0 && job(door) != last_job) {
      if (atomic_compare_exchange_weak(&pool->door, &door, door - SEAT + INSIDE)) {
        last_job = job(door);
        take_parts(pool);
        atomic_fetch_sub(&pool->door, INSIDE);
        break;
      }
    }
  }
}

static void open_door(subbyte_pool *pool, unsigned free_seats) {
  unsigned next = (job(atomic_load(&pool->door)) + 1) % JOB;
  next += next == 0; // 0 is what a new worker takes for its last job
  atomic_store(&pool->door, next * JOB + free_seats * SEAT);
  if (atomic_load(&pool->sleepers) > 0) {
    pthread_mutex_lock(&pool->lock);
    for (unsigned i = 0; i < free_seats; ++i) {
      pthread_cond_signal(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
  }
}

// Who comes late stays outside. Who is inside has a part in hand, so the wait is at most as long as that part, unless
// there are more threads than processors.
static void shut_door(subbyte_pool *pool) {
  atomic_fetch_and(&pool->door, ~(JOB - SEAT));
  for (int i = 0; inside(atomic_load(&pool->door)) > 0; ++i) {
    if (i % SPINS) {
      relax();
    } else {
      sched_yield();
    }
  }
}

static int32_t smaller(int32_t left, int32_t right) {
  return left < right ? left : right;
}

static void run_together(subbyte_pool *pool, int32_t helpers, subbyte_task *task, const void *work, int32_t parts) {
  pool->task = task;
  pool->work = work;
  pool->parts = parts;
  atomic_store(&pool->next_part, 0);
  open_door(pool, (unsigned)helpers);
  take_parts(pool);
  shut_door(pool);
}

void subbyte_run_parts(subbyte_pool *pool, int32_t threads, subbyte_task *task, const void *work, int32_t parts) {
  if (threads < 2 || parts < 2 || atomic_flag_test_and_set(&pool->taken)) {
    run_alone(task, work, parts);
    return;
  }
  if (pool->worker_count > 0 && pool->process == getpid()) {
    run_together(pool, smaller(smaller(threads, parts) - 1, pool->worker_count), task, work, parts);
  } else {
    run_alone(task, work, parts);
  }
  atomic_flag_clear(&pool->taken);
}

subbyte_pool *subbyte_create_pool(void) {
  subbyte_pool *pool = calloc(1, sizeof *pool);
  if (pool != NULL) {
    atomic_init(&pool->door, 0);
    atomic_init(&pool->next_part, 0);
    atomic_init(&pool->stop, false);
    atomic_init(&pool->sleepers, 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    atomic_flag_clear(&pool->taken);
  }
  return pool;
}

void subbyte_grow_pool(subbyte_pool *pool, int32_t threads) {
  if (atomic_flag_test_and_set(&pool->taken)) {
    return;
  }
  const pid_t process = getpid();
  if (pool->worker_count == 0 || pool->process == process) {
    pool->process = process;
    sigset_t all, before; // signals are for the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->worker_count < smaller(threads - 1, MAX_WORKERS) &&
           pthread_create(&pool->workers[pool->worker_count], NULL, serve, pool) == 0) {
      ++pool->worker_count;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  atomic_flag_clear(&pool->taken);
}

void subbyte_destroy_pool(subbyte_pool *pool) {
  if (pool != NULL && pool->process == getpid()) {
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->worker_count; ++i) {
      pthread_join(pool->workers[i], NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
  }
  free(pool);
}

#endif
