// SPDX-License-Identifier: Apache-2.0
// main.c - runs golden cases:
//   verify_cases [--dtype D] [--rtol R] [--ranks N] [--tp] [--repeat N] [--time] CASE_DIR...
// One line per compared tensor; exits 0 only if all pass.
// Owns nothing beyond a call.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "engine/verify.h"

static void print_rate(const char *name, double gflop, double seconds)
{
    if (seconds > 0 && gflop > 0)
        printf(", %s %.1f GFLOP at %.1f GFLOP/s", name, gflop, gflop / seconds);
}

static void print_times(const at_verify_report *r)
{
    printf("  time %.4f s", r->seconds);
    print_rate("linear", r->gflops_linear, r->seconds_linear);
    print_rate("conv", r->gflops_conv, r->seconds_conv);
    print_rate("attention", r->gflops_attention, r->seconds_attention);
    for (size_t i = 0; i < r->blocks; i++)
        printf(", block %zu %.4f s", i, r->block_seconds[i]);
    printf("\n");
}

static int run_case(const char *dir, const at_verify_options *opt, int times)
{
    at_verify_report r;
    at_status st = at_verify_case(dir, opt, &r);
    if (st != AT_OK) {
        printf("%s: %s FAIL\n", dir, at_error_text());
        return 1;
    }
    printf("%s\n", dir);
    at_verify_print(&r, stdout);
    if (times) print_times(&r);
    int bad = !r.pass;
    at_verify_report_free(&r);
    return bad;
}

int main(int argc, char **argv)
{
    at_verify_options opt = {0};
    int bad = 0, ran = 0, times = 0;

    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dtype") == 0 && i + 1 < argc) {
            opt.dtype = argv[++i];
        } else if (strcmp(argv[i], "--rtol") == 0 && i + 1 < argc) {
            opt.rtol = atof(argv[++i]);
        } else if (strcmp(argv[i], "--repeat") == 0 && i + 1 < argc) {
            opt.repeat = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--ranks") == 0 && i + 1 < argc) {
            opt.ranks = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--tp") == 0) {
            opt.layers = true;
        } else if (strcmp(argv[i], "--time") == 0) {
            times = 1;
        } else {
            bad |= run_case(argv[i], &opt, times);
            ran++;
        }
    }
    if (!ran)
        fprintf(stderr,
                "usage: verify_cases [--dtype D] [--rtol R] [--ranks N] [--tp] [--repeat N] "
                "[--time] CASE_DIR...\n");
    return bad || !ran ? 1 : 0;
}
