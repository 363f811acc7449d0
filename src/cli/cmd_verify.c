// SPDX-License-Identifier: Apache-2.0
// cmd_verify.c - atelier verify: one component on given tensors, compared with expected ones.
#include <stdio.h>
#include <string.h>

#include "base/thread.h"
#include "cli/commands.h"
#include "engine/engine.h"
#include "engine/verify.h"

typedef struct verify_options {
    const char *device, *dtype;
    long threads;
    bool time;
} verify_options;

static const at_arg verify_args[] = {
    {"--device", "NAME", AT_ARG_TEXT, offsetof(verify_options, device), .help = "cpu"},
    {"--dtype", "TYPE", AT_ARG_CHOICE, offsetof(verify_options, dtype), .choices = "case|f32|bf16|fp16|fp8",
     .help = "compute type (default: the case's own)"},
    {"--threads", "N", AT_ARG_INT, offsetof(verify_options, threads), 1, 1024,
     .help = "CPU threads"},
    {"--time", NULL, AT_ARG_FLAG, offsetof(verify_options, time),
     .help = "also print seconds, block times and the rate of the linear layers"},
};

static void print_time(const at_verify_report *r)
{
    printf("time %.3f s", r->seconds);
    if (r->seconds_linear > 0)
        printf(", linear layers %.1f GFLOP at %.1f GFLOP/s", r->gflops_linear,
               r->gflops_linear / r->seconds_linear);
    putchar('\n');
    for (size_t i = 0; i < r->blocks; i++)
        printf("block %zu %.1f ms\n", i, r->block_seconds[i] * 1e3);
}

static at_status verify(void *options, const at_arg_list *operands)
{
    const verify_options *o = options;
    at_verify_options v = {0};
    size_t failed = 0;

    if (o->threads) at_threads_set((int)o->threads);
    if (o->dtype && strcmp(o->dtype, "case") != 0) v.dtype = o->dtype;
    at_status found = at_engine_device(o->device ? o->device : "cpu", &v.device);
    if (found != AT_OK) return found;
    for (size_t i = 0; i < operands->count; i++) {
        at_verify_report r = {0};
        at_status st = at_verify_case(operands->items[i], &v, &r);
        if (st != AT_OK) return st;
        if (operands->count > 1) printf("%s\n", operands->items[i]);
        at_verify_print(&r, stdout);
        if (o->time) print_time(&r);
        if (!r.pass) failed++;
        at_verify_report_free(&r);
    }
    if (failed)
        return at_fail(AT_EINTERNAL, "%zu of %zu cases differ from what is expected", failed,
                       operands->count);
    return AT_OK;
}

const at_command at_command_verify = {
    .name = "verify",
    .operands = "CASE_DIR...",
    .summary = "run one component on given tensors and compare with expected ones",
    .details = "A case is a folder with case.json, model.safetensors, inputs.safetensors and\n"
               "expected.safetensors; tests/golden/README.md describes them.",
    .args = verify_args,
    .n_args = sizeof verify_args / sizeof *verify_args,
    .options_size = sizeof(verify_options),
    .min_operands = 1,
    .max_operands = 10000,
    .run = verify,
};
