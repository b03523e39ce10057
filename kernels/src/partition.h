// A run of consecutive ops of ours, which the runtime sees as one node.
#ifndef SUBBYTE_PARTITION_H
#define SUBBYTE_PARTITION_H

#include "../include/subbyte.h"
#include "tflite_abi.h"
#include "threads.h"

// What a delegate computes with; its data_.
typedef struct subbyte_resources {
  const subbyte_isa *isa;
  subbyte_pool *pool;
} subbyte_resources;

// The node's implementation.
TfLiteRegistration subbyte_partition_registration(void);

// The runtime frees what it takes over with free(), so this is malloc(). NULL: out of memory.
TfLiteIntArray *subbyte_create_int_array(int size);

#endif
