// A variant: the leaf loops of one instruction set. It knows nothing of shapes, zero points, rounding or tails.
//
// A new one is a file that defines a `const subbyte_isa`, its condition below and its line in isa.c.
#ifndef SUBBYTE_ISA_H
#define SUBBYTE_ISA_H

#include "layout.h"

// sums[c] += sum_k digit[c, k] * x[k], for one panel and one plane.
//
// plane: the panel's blocks for these inputs. Whole blocks of 64 bytes may be read, also where `channels` < 16.
// channels: 1 to 16, block b starts at plane + b * 4 * channels.
// x: `features` inputs; readable, and zero beyond, up to the next multiple of 32.
// sums: 16 of them; those from `channels` on may take any value.
typedef void subbyte_plane_sums(const uint8_t *plane, int32_t channels, const int8_t *x, int32_t features,
                                int32_t sums[SUBBYTE_PANEL]);

// sums[c] += sum_k codebook[code[c, k]] * x[k], likewise, from all planes of the code; absent ones are NULL.
typedef void subbyte_codebook_sums(const uint8_t *const planes[SUBBYTE_PLANES], int32_t channels,
                                   const int8_t *codebook, const int8_t *x, int32_t features,
                                   int32_t sums[SUBBYTE_PANEL]);

struct subbyte_isa {
  const char *name;
  int (*runs)(void); // on this processor
  // An empty slot falls back to the portable one.
  subbyte_plane_sums *plane_sums[SUBBYTE_PLANES]; // of 8, 4, 2 and 1 bits
  subbyte_codebook_sums *codebook_sums;
};

#if defined(__x86_64__) && defined(__GNUC__)
#define SUBBYTE_AVX2
extern const subbyte_isa subbyte_avx2;
#endif

extern const subbyte_isa subbyte_portable;

#endif
