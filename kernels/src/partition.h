// A run of consecutive ops of ours, which the runtime sees as one node.
#ifndef SUBBYTE_PARTITION_H
#define SUBBYTE_PARTITION_H

#include "../include/subbyte.h"
#include "tflite_abi.h"

// The node's implementation. The delegate's data_ is the `const subbyte_isa *` to compute with.
TfLiteRegistration subbyte_partition_registration(void);

// The runtime frees what it takes over with free(), so this is malloc(). NULL: out of memory.
TfLiteIntArray *subbyte_create_int_array(int size);

#endif
