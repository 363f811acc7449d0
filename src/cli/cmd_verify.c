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
    {"--device", "NAME", AT_ARG_TEXT, offsetof(verify_options, device),
     .help = "cpu (default), cuda or cuda:1"},
    {"--dtype", "TYPE", AT_ARG_CHOICE, offsetof(verify_options, dtype),
     .choices = "case|f32|bf16|fp16|fp8", .help = "compute type (default: the case's own)"},
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

typedef struct tally {
    size_t passed, differ, refused;
    double worst; // of the cases that passed
} tally;

// One case among others: what cannot run is told, and the next one runs.
static void verify_one(const verify_options *o, const at_verify_options *v, const char *dir,
                       tally *t)
{
    at_verify_report r = {0};

    printf("%s\n", dir);
    if (at_verify_case(dir, v, &r) != AT_OK) {
        printf("%s REFUSED\n", at_error_text());
        t->refused++;
        return;
    }
    at_verify_print(&r, stdout);
    if (o->time) print_time(&r);
    if (r.pass)
        t->passed++;
    else
        t->differ++;
    for (size_t i = 0; i < r.count && r.pass; i++)
        if (r.rows[i].rel_err > t->worst) t->worst = r.rows[i].rel_err;
    at_verify_report_free(&r);
}

static at_status verify_many(const verify_options *o, const at_verify_options *v,
                             const at_arg_list *cases)
{
    tally t = {0};

    for (size_t i = 0; i < cases->count; i++)
        verify_one(o, v, cases->items[i], &t);
    printf(
        "%zu cases on %s in %s: %zu pass (the farthest off by %.1e), %zu differ, %zu cannot run\n",
        cases->count, v->device->name, v->dtype ? v->dtype : "their own types", t.passed, t.worst,
        t.differ, t.refused);
    if (t.differ + t.refused == 0) return AT_OK;
    return at_fail(AT_EINTERNAL, "%zu of %zu cases differ from what is expected, %zu cannot run",
                   t.differ, cases->count, t.refused);
}

static at_status verify(void *options, const at_arg_list *operands)
{
    at_status st = AT_OK;
    const verify_options *o = options;
    at_verify_options v = {0};
    at_verify_report r = {0};

    if (o->threads) at_threads_set((int)o->threads);
    if (o->dtype && strcmp(o->dtype, "case") != 0) v.dtype = o->dtype;
    AT_TRY(at_engine_device(o->device ? o->device : "cpu", &v.device));
    if (operands->count > 1) return verify_many(o, &v, operands);
    AT_TRY(at_verify_case(operands->items[0], &v, &r));
    at_verify_print(&r, stdout);
    if (o->time) print_time(&r);
    if (!r.pass) st = at_fail(AT_EINTERNAL, "1 of 1 cases differ from what is expected");
    at_verify_report_free(&r);
out:
    return st;
}

const at_command at_command_verify = {
    .name = "verify",
    .operands = "CASE_DIR...",
    .summary = "run one component on given tensors and compare with expected ones",
    .details = "A case is a folder with case.json, model.safetensors, inputs.safetensors and\n"
               "expected.safetensors; tests/golden/README.md describes them. Networks compute in\n"
               "--dtype, with a tolerance of its own: bf16 and fp16 1e-2, fp8 1e-1, or what the\n"
               "case says (rtol_bf16).",
    .args = verify_args,
    .n_args = sizeof verify_args / sizeof *verify_args,
    .options_size = sizeof(verify_options),
    .min_operands = 1,
    .max_operands = 10000,
    .run = verify,
};
