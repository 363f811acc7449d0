// SPDX-License-Identifier: Apache-2.0
// ceilings.h - what this machine does at best: the rates that a bench is measured against.
// Idea: one large, clean problem of each kind through our own ops, timed on the device; a model's floor is its
// work over these rates. Sizes follow what models have (4608 tokens of 24 heads, 512 channels).
// Easy to get wrong: a ceiling is what was reached here and now, not a datasheet's number; where a kernel of
// ours is slow at its clean problem too, the share flatters it. Owns nothing.
#ifndef AT_ENGINE_CEILINGS_H
#define AT_ENGINE_CEILINGS_H

#include "base/trace.h"
#include "tensor/device.h"

typedef struct at_ceilings {
    at_dtype compute;               // of activations in what follows
    double linear;                  // FLOP/s; weights in the same format
    double linear_fp8, linear_int8; // where products may be rounded so; 0: not measured
    double linear_sustained;        // the same layer for half a second on end, as power allows
    double attention_fp8;           // heads of 128, where all may be rounded so; 0: not measured
    double attention_wide, attention_narrow; // heads of 128 and of 64 channels
    double conv;                             // 3x3, 512 channels
    double copy;                             // bytes/s on the device, read and written ones counted
    double upload, download;                 // bytes/s between host and device; 0 on the CPU
} at_ceilings;

// Measure with activations of `compute`; fp8, int8: also products that may be rounded so. A second or two;
// nothing is left on the device.
at_status at_ceilings_measure(at_device *d, at_dtype compute, bool fp8, bool int8,
                              at_ceilings *out);

// The least time of a slice: its products at their ceiling or its bytes at the copy's, whichever is longer.
double at_ceilings_floor(const at_ceilings *c, const at_trace_slice *s);

#endif
