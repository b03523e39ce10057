// What the x86 variants share: which instructions the processor and the operating system allow.
#ifndef SUBBYTE_X86_H
#define SUBBYTE_X86_H

#include "finish_int16.h"

#if defined(SUBBYTE_X86)

#include <cpuid.h>
#include <immintrin.h>

// The registers that the operating system saves, as XCR0 lists them; 0 where there is no such list.
static inline unsigned subbyte_saved_registers(void) {
  unsigned eax, ebx, ecx, edx, state, high;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) {
    return 0;
  }
  __asm__("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
  return state;
}

// Whether the processor has all these features of CPUID leaf 7, and the operating system saves their registers.
//
// Not __builtin_cpu_supports: it needs a C library that not every linker brings.
static inline int subbyte_has(unsigned wanted_ebx, unsigned wanted_ecx, unsigned registers) {
  unsigned eax, ebx, ecx, edx;
  return (subbyte_saved_registers() & registers) == registers && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
         (ebx & wanted_ebx) == wanted_ebx && (ecx & wanted_ecx) == wanted_ecx;
}

enum { SUBBYTE_YMM = 0x06, SUBBYTE_ZMM = 0xe6 };

#endif
#endif
