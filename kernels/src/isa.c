// The one list of instruction sets; choice, tests and benchmarks go by it.
#include "isa.h"

static const subbyte_isa *const isas[] = {
#if defined(SUBBYTE_X86)
    &subbyte_avx512vnni,
#if defined(SUBBYTE_AVXVNNI)
    &subbyte_avxvnni,
#endif
    &subbyte_avx2,
#elif defined(SUBBYTE_ARM64)
    &subbyte_neon_dotprod,
#endif
#if defined(SUBBYTE_NEON)
    &subbyte_neon,
#endif
#if defined(SUBBYTE_DSP)
    &subbyte_dsp,
#endif
    &subbyte_portable, // last: it runs everywhere and defines correct
};

enum { ISAS = sizeof isas / sizeof *isas };

const subbyte_isa *subbyte_isa_at(int32_t index) {
  return index >= 0 && index < ISAS ? isas[index] : NULL;
}

const subbyte_isa *subbyte_best_isa(void) {
  int32_t best = 0;
  while (!isas[best]->runs()) {
    ++best;
  }
  return isas[best];
}

const subbyte_isa *subbyte_find_isa(const char *name) {
  for (int32_t i = 0; i < ISAS; ++i) {
    if (strcmp(isas[i]->name, name) == 0) {
      return isas[i];
    }
  }
  return NULL;
}

const char *subbyte_isa_name(const subbyte_isa *isa) {
  return isa->name;
}

int subbyte_isa_runs(const subbyte_isa *isa) {
  return isa->runs();
}
