// A pool of threads that share the work of one layer. Part of the plug-in; the core knows of no threads.
#ifndef SUBBYTE_THREADS_H
#define SUBBYTE_THREADS_H

#include <stdint.h>

enum { SUBBYTE_MAX_THREADS = 64 };

typedef struct subbyte_pool subbyte_pool;

// A task does one of the `parts` parts of some work. Parts may run at the same time.
typedef void subbyte_task(const void *work, int32_t part, int32_t parts);

// A pool without threads. NULL: out of memory.
subbyte_pool *subbyte_create_pool(void);

// Ends the pool's threads and waits for them. Nothing may be running in the pool. NULL: nothing.
void subbyte_destroy_pool(subbyte_pool *pool);

// Starts threads until there are `threads`, 64 at most, the caller of subbyte_run_parts() being one of them, unless the
// system gives no more or the pool is in use. subbyte_run_parts() works in any case.
void subbyte_grow_pool(subbyte_pool *pool, int32_t threads);

// Runs all parts on at most `threads` threads and returns when they are done; allocates nothing. Who comes while
// another thread uses the pool computes all parts itself; so does a process forked after the pool has grown, as threads
// are not forked.
void subbyte_run_parts(subbyte_pool *pool, int32_t threads, subbyte_task *task, const void *work, int32_t parts);

#endif
