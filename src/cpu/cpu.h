// SPDX-License-Identifier: Apache-2.0
// cpu.h - the CPU backend: plain C for every slot, faster twins where the processor has them.
// Idea: one struct of slots is filled with C and overwritten by what this CPU can do (as dav1d
// does); the C stays as the reference that every twin is checked against (tests/check).
// AT_OFF=avx2,avx512,avx512bf16,amx,onednn in the environment switches twins off, read once.
// Owns: one chosen table for the life of the process; the returned pointers are borrowed. Any
// thread.
#ifndef AT_CPU_CPU_H
#define AT_CPU_CPU_H

#include "atelier/backend.h"

// The fastest slots for this CPU; chosen on the first call.
const at_backend *at_cpu_backend(void);
// Plain C in every slot, whatever the CPU.
const at_backend *at_cpu_reference(void);
// "AMD EPYC, 2 threads, AVX2+FMA, oneDNN 2.6.3"
const char *at_cpu_describe(void);

// Every table that this CPU can run, for tests/check and bench: each is plain C with one set of
// twins put over it, whatever AT_OFF says; [0] is what at_cpu_backend chose.
#define AT_CPU_VARIANTS 8
typedef struct at_cpu_variant {
    const char *name; // "avx2", "onednn" ...
    const at_backend *table;
} at_cpu_variant;
int at_cpu_variants(at_cpu_variant out[AT_CPU_VARIANTS]);

#endif
