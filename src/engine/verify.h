// SPDX-License-Identifier: Apache-2.0
// verify.h - run one component on given tensors and compare with what another implementation got.
// Idea: a case is a folder (case.json, model, inputs, expected; tests/golden/README.md); the same
// cases prove every device, dtype and number of ranks.
// Owns: a report's rows belong to the report (at_verify_report_free).
#ifndef AT_ENGINE_VERIFY_H
#define AT_ENGINE_VERIFY_H

#include <stdio.h>

#include "base/status.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

typedef struct at_verify_options {
    at_device *device; // NULL: the CPU
    const char
        *dtype;  // NULL: the case's own; "f32", "bf16", "f16", "fp16", "fp8". Of networks alone.
    double rtol; // 0: the case's own, or what its computing in another type allows
    int repeat;  // evaluate a network so often and time the last; 0 and 1: once
    int ranks;   // 2 and more: a denoiser runs on so many threads that share its tokens or rows,
    bool layers; // or its layers (tp)
} at_verify_options;

// One expected tensor. rel_err = ||got - expected|| / ||expected|| in f64; infinite if the
// component did not make it, or made another number of elements.
typedef struct at_verify_row {
    char name[160];
    double rel_err, max_abs;
    bool pass;
} at_verify_row;

typedef struct at_verify_report {
    at_verify_row *rows;
    size_t count;
    bool pass;
    double seconds;                       // of the component alone, without reading files
    double gflops_linear, seconds_linear; // of its linear layers: GFLOP (not a rate) and time
    double gflops_conv, seconds_conv, gflops_attention, seconds_attention;
    double block_seconds[64]; // denoisers: the first blocks
    size_t blocks;
} at_verify_report;

// AT_OK also when tensors differ (see pass). Fails if the case cannot be read or run. opt may be
// NULL.
at_status at_verify_case(const char *case_dir, const at_verify_options *opt, at_verify_report *out);
void at_verify_report_free(at_verify_report *r);
// "NAME rel_err=1.234e-06 max_abs=5.678e-06 PASS", one line per row.
void at_verify_print(const at_verify_report *r, FILE *to);

#endif
