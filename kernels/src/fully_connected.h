// Fully connected layers, with 8 and with 16-bit activations: their row of the op table.
#ifndef SUBBYTE_FULLY_CONNECTED_H
#define SUBBYTE_FULLY_CONNECTED_H

#include "ops.h"

// Sets the rows of [..., K]. Returns what is wrong, or NULL.
const char *subbyte_fit_dense(subbyte_op *op, const subbyte_activation *input);

// Tells in how many parts the op is best cut, at most `wanted`: by channels or by rows.
int32_t subbyte_cut_dense(const subbyte_op *op, int32_t wanted);

void subbyte_run_dense(const subbyte_op *op, const void *input, void *output, void *scratch, int32_t part,
                       int32_t parts);

// Bytes of scratch memory for rows of 16 bits.
size_t subbyte_dense_scratch(const subbyte_header *header, int32_t rows);

// Output channels [first, last) of all rows.
void subbyte_compute_dense(const subbyte_prepared *layer, const void *input, int32_t rows, void *output, void *scratch,
                           int32_t first, int32_t last);

#endif
