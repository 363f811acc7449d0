// SPDX-License-Identifier: Apache-2.0
// check.c - the check program: every slot, plain C against double and every twin against plain C.
//   check_ops [--op NAME] [--filter TEXT] [--variant NAME] [--bench] [--cpu] [--threads N]
//             [--device cuda:0 --plugin PATH/libat_cuda.so]
// --device runs the rows on another device's slots, judged by the same truth.
// --cpu measures processor time: with --threads 1 it is steady even on a busy machine.
// Idea: the table of ops is below, the rows are in check_*.c; --bench times the same calls.
// Exit status 0 only if every row passes.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "base/thread.h"
#include "check.h"
#include "check_device.h"
#include "cpu/cpu.h"

static const ck_op *const ops[] = {
    &ck_copy,          &ck_fill_op,         &ck_unary,     &ck_binary,    &ck_gate_add,
    &ck_lincomb,       &ck_linear,          &ck_attention, &ck_norm,      &ck_group_norm,
    &ck_rope,          &ck_ropes,           &ck_conv2d,    &ck_embedding, &ck_geglu,
    &ck_attention_lse, &ck_attention_merge,
};

typedef struct options {
    const char *op, *filter, *variant, *device, *plugin;
    bool bench;
    at_device *dev; // of --device
} options;

static clockid_t g_clock = CLOCK_MONOTONIC; // --cpu changes it

static double now(void)
{
    struct timespec t;
    clock_gettime(g_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct tally {
    int rows, failed;
} tally;

static void restore(ck_run *r)
{
    for (int i = 0; i < r->n; i++)
        memcpy(r->t[i].block, r->t[i].pristine, r->t[i].bytes);
}

// Inputs untouched, guard bytes and gaps of the output untouched. Returns what is wrong or NULL.
static const char *intact(const ck_run *r)
{
    for (int i = 0; i < r->n; i++) {
        const ck_tensor *t = &r->t[i];
        if (t->also_written) continue;
        for (size_t k = 0; k < t->bytes; k++) {
            if (i == 0 && t->owned[k]) continue;
            if (t->block[k] != t->pristine[k])
                return i == 0 ? "wrote outside the output" : "changed an input";
        }
    }
    return NULL;
}

static bool agrees(double got, double want, double tolerance)
{
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
    if (got == want) return true;
    if (isinf(want)) return false; // its tolerance would be infinite
    return fabs(got - want) <= tolerance;
}

// What one of element i's bytes means, where the output is fp8 rows.
static double unit_of(const ck_run *r, int64_t i)
{
    const at_view *o = &r->t[0].v;
    return r->scales.data ? ck_value(&r->scales, i / o->shape[o->rank - 1]) : 1;
}

// Compare the output with `want` (truth, or plain C's values).
static bool compare(const ck_run *r, const char *who, const char *row, const double *want,
                    double factor)
{
    const at_view *o = &r->t[0].v;
    double worst = 0;
    int64_t bad = 0, at = 0, n = ck_count(o);

    for (int64_t i = 0; i < n; i++) {
        double unit = unit_of(r, i);
        double got = ck_value(o, ck_offset(o, i)) * unit;
        double tol = ck_store_error(o->dtype) * fabs(r->truth[i]) + r->op->sum * r->mag[i];
        tol = (tol + (o->dtype <= AT_F64 ? ck_least_error(o->dtype) * unit : 0)) * factor;
        if (agrees(got, want[i], tol)) continue;
        bad++;
        if (!(fabs(got - want[i]) / (tol + 1e-300) <= worst)) {
            worst = fabs(got - want[i]) / (tol + 1e-300);
            at = i;
        }
    }
    if (!bad) return true;
    printf("FAIL %s %s [%s]: %lld of %lld wrong, worst at %lld: got %.9g, want %.9g, %.3g "
           "tolerances\n",
           r->op->name, row, who, (long long)bad, (long long)n, (long long)at,
           ck_value(o, ck_offset(o, at)), want[at], worst);
    return false;
}

static bool run_once(ck_run *r, const char *who, const char *row, const at_backend *b)
{
    const char *wrong;

    restore(r);
    if (r->op->call(b, r) != AT_OK) {
        printf("FAIL %s %s [%s]: %s\n", r->op->name, row, who, at_error_text());
        return false;
    }
    wrong = intact(r);
    if (wrong) printf("FAIL %s %s [%s]: %s\n", r->op->name, row, who, wrong);
    return !wrong;
}

static bool same_slot(const ck_op *op, const at_backend *a, const at_backend *b)
{
    return memcmp((const char *)a + op->slot, (const char *)b + op->slot, sizeof(void (*)(void))) ==
           0;
}

static bool wanted(const options *opt, const char *variant)
{
    return !opt->variant || strcmp(opt->variant, variant) == 0;
}

// A twin runs twice: the second time on the weight it packed the first time.
static bool judge_twin(const ck_run *r, const char *row, const char *who, const double *plain)
{
    if (r->op->exact) return compare(r, who, row, plain, 0);
    return compare(r, who, row, r->truth, 1) &&
           compare(r, who, row, plain, 2); // both sides may err
}

// A twin runs twice: the second time on the weight it packed the first time.
static bool check_twin(ck_run *r, const char *row, const at_cpu_variant *v, const double *plain)
{
    bool ok = run_once(r, v->name, row, v->table) && judge_twin(r, row, v->name, plain);

    if (ok && atomic_load(&r->packed.data))
        ok = run_once(r, v->name, row, v->table) && judge_twin(r, row, v->name, plain);
    ck_forget_packed(r);
    return ok;
}

// The row on another device: twice, the second time on the weight's form that the first made.
static bool check_on_device(ck_run *r, const char *row, at_device *dev)
{
    ck_mirror m;
    bool ok = true;

    r->truth = calloc((size_t)ck_count(&r->t[0].v) + 1, sizeof *r->truth);
    r->mag = calloc((size_t)ck_count(&r->t[0].v) + 1, sizeof *r->mag);
    if (!r->truth || !r->mag || !ck_mirror_make(&m, dev, r)) exit(2);
    r->op->truth(r);
    for (int i = 0; i < 2 && ok; i++) {
        const char *wrong = NULL;
        restore(r);
        ok = ck_mirror_run(&m) == AT_OK;
        if (!ok)
            printf("FAIL %s %s [%s]: %s\n", r->op->name, row, dev->name, at_error_text());
        else if ((wrong = intact(r)))
            printf("FAIL %s %s [%s]: %s\n", r->op->name, row, dev->name, wrong);
        ok = ok && !wrong && compare(r, dev->name, row, r->truth, 1);
    }
    ck_mirror_drop(&m);
    return ok;
}

static void bench_on_device(ck_run *r, const char *row, at_device *dev)
{
    ck_mirror m;
    double work = r->flops > 0 ? r->flops : r->bytes;
    if (!ck_mirror_make(&m, dev, r)) return;
    double ms = ck_mirror_time(&m);
    printf("%-10s %-52s %s %9.4f ms %9.1f %s\n", r->op->name, row, dev->name, ms, work / ms * 1e-6,
           r->flops > 0 ? "GFLOP/s" : "GB/s");
    ck_mirror_drop(&m);
}

static bool check_row(ck_run *r, const char *row, const options *opt)
{
    const at_view *o = &r->t[0].v;
    int64_t n = ck_count(o);
    double *plain = calloc((size_t)n + 1, sizeof *plain);
    at_cpu_variant variants[AT_CPU_VARIANTS];
    int count = at_cpu_variants(variants);
    bool ok;

    r->truth = calloc((size_t)n + 1, sizeof *r->truth);
    r->mag = calloc((size_t)n + 1, sizeof *r->mag);
    if (!plain || !r->truth || !r->mag) exit(2);
    r->op->truth(r);
    ok = run_once(r, "plain", row, at_cpu_reference()) && compare(r, "plain", row, r->truth, 1);
    ck_forget_packed(r);
    for (int64_t i = 0; i < n; i++)
        plain[i] = ck_value(o, ck_offset(o, i)) * unit_of(r, i);
    for (int i = 0; i < count; i++) {
        if (same_slot(r->op, variants[i].table, at_cpu_reference())) continue;
        if (wanted(opt, variants[i].name)) ok &= check_twin(r, row, &variants[i], plain);
    }
    free(plain);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median of up to 9 calls, or of as many as fit into a second.
static double median_time(ck_run *r, const at_backend *b, double budget)
{
    double t[9], start = now();
    int n = 0;

    if (r->op->call(b, r) != AT_OK) return NAN; // packs, warms up
    if (now() - start > budget) return now() - start;
    while (n < 9 && (n < 3 || now() - start < budget)) {
        double t0 = now();
        int reps = 0;
        do {
            r->op->call(b, r);
            reps++;
        } while (now() - t0 < 2e-3);
        t[n++] = (now() - t0) / reps;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

static void bench_row(ck_run *r, const char *row, const options *opt)
{
    at_cpu_variant variants[AT_CPU_VARIANTS];
    int count = at_cpu_variants(variants);
    double plain = NAN, work = r->flops > 0 ? r->flops : r->bytes;

    if (wanted(opt, "plain") && work < 20e9) plain = median_time(r, at_cpu_reference(), 0.5);
    printf("%-10s %-52s", r->op->name, row);
    if (plain == plain) printf(" plain %9.3f ms %7.2f", plain * 1e3, work / plain * 1e-9);
    ck_forget_packed(r);
    for (int i = 0; i < count; i++) {
        double t;
        if (same_slot(r->op, variants[i].table, at_cpu_reference())) continue;
        if (!wanted(opt, variants[i].name)) continue;
        t = median_time(r, variants[i].table, 2.0);
        printf(" | %s %9.3f ms %7.2f", variants[i].name, t * 1e3, work / t * 1e-9);
        if (plain == plain) printf(" x%.1f", plain / t);
        ck_forget_packed(r);
    }
    printf(" %s\n", r->flops > 0 ? "GFLOP/s" : "GB/s");
    fflush(stdout);
}

static void run_op(const ck_op *op, const options *opt, tally *sum)
{
    for (int row = 0; row < op->rows; row++) {
        char text[160];
        ck_run r = {.op = op};

        op->label(row, text);
        if (opt->filter && !strstr(text, opt->filter)) continue;
        if (op->bench_only(row) != opt->bench) continue;
        ck_random((uint64_t)row + 1);
        op->build(&r, row);
        for (int i = 0; i < r.n; i++)
            memcpy(r.t[i].pristine, r.t[i].block, r.t[i].bytes);
        if (opt->bench && opt->dev) {
            bench_on_device(&r, text, opt->dev);
        } else if (opt->bench) {
            bench_row(&r, text, opt);
        } else if (opt->dev) {
            sum->failed += !check_on_device(&r, text, opt->dev);
        } else {
            sum->failed += !check_row(&r, text, opt);
        }
        sum->rows++;
        ck_run_free(&r);
    }
}

static bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char **to = strcmp(argv[i], "--op") == 0        ? &o->op
                          : strcmp(argv[i], "--filter") == 0  ? &o->filter
                          : strcmp(argv[i], "--variant") == 0 ? &o->variant
                          : strcmp(argv[i], "--device") == 0  ? &o->device
                          : strcmp(argv[i], "--plugin") == 0  ? &o->plugin
                                                              : NULL;
        if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if (strcmp(argv[i], "--cpu") == 0) {
            g_clock = CLOCK_PROCESS_CPUTIME_ID;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            at_threads_set(atoi(argv[++i]));
        } else if (to && i + 1 < argc) {
            *to = argv[++i];
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    options opt = {0};
    tally sum = {0};

    if (!parse(argc, argv, &opt)) {
        fprintf(stderr,
                "usage: check_ops [--op NAME] [--filter TEXT] [--variant NAME] [--bench] [--cpu] "
                "[--threads N] [--device NAME --plugin FILE]\n");
        return 2;
    }
    printf("%s\n", at_cpu_describe());
    if (opt.device) {
        opt.dev = ck_device_open(opt.plugin ? opt.plugin : "libat_cuda.so", opt.device);
        if (!opt.dev) return 2;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (opt.op && strcmp(opt.op, ops[i]->name) != 0) continue;
        run_op(ops[i], &opt, &sum);
    }
    printf("%d rows, %d failed\n", sum.rows, sum.failed);
    return sum.failed || !sum.rows ? 1 : 0;
}
