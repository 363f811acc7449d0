// SPDX-License-Identifier: Apache-2.0
// cmd_bench.c - atelier bench: how fast this machine runs a model, on random weights.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/thread.h"
#include "cli/commands.h"
#include "engine/bench.h"
#include "engine/engine.h"

typedef struct bench_options {
    const char *arch, *device, *dtype, *weights;
    long width, height, size, steps, tokens, doubles, singles, threads;
    bool json, kernels;
    const char *trace;
} bench_options;

#define BLOCKS_HELP "blocks of the first kind (layers of an encoder); default: the true count"
static const at_arg bench_args[] = {
    {"--arch", "NAME", AT_ARG_TEXT, offsetof(bench_options, arch),
     .help = "flux1-dev, flux1-schnell, sd15, sd21, sdxl, sdxl-refiner, clip-l, t5-xxl or "
             "flux-vae (default flux1-dev)"},
    {"--size", "N", AT_ARG_INT, offsetof(bench_options, size), 64, 8192,
     .help = "width and height (1024)"},
    {"--width", "N", AT_ARG_INT, offsetof(bench_options, width), 64, 8192, .help = "width alone"},
    {"--height", "N", AT_ARG_INT, offsetof(bench_options, height), 64, 8192,
     .help = "height alone"},
    {"--steps", "N", AT_ARG_INT, offsetof(bench_options, steps), 1, 1000,
     .help = "timed steps after one to warm up (3)"},
    {"--text-tokens", "N", AT_ARG_INT, offsetof(bench_options, tokens), 1, 4096, .help = "512"},
    {"--double,--layers", "N", AT_ARG_INT, offsetof(bench_options, doubles), 0, 100,
     .help = BLOCKS_HELP},
    {"--single", "N", AT_ARG_INT, offsetof(bench_options, singles), 0, 100,
     .help = "single blocks; default: the true count"},
    {"--device", "NAME", AT_ARG_TEXT, offsetof(bench_options, device),
     .help = "auto (the first GPU, else the CPU), cpu, cuda or cuda:1"},
    {"--dtype", "TYPE", AT_ARG_CHOICE, offsetof(bench_options, dtype),
     .choices = "auto|f32|bf16|int8", .help = "compute type"},
    {"--weights", "TYPE", AT_ARG_CHOICE, offsetof(bench_options, weights),
     .choices = "f32|f16|bf16|fp8_e4m3|fp8_e5m2", .help = "storage type (bf16)"},
    {"--threads", "N", AT_ARG_INT, offsetof(bench_options, threads), 1, 1024,
     .help = "CPU threads"},
    {"--kernels", NULL, AT_ARG_FLAG, offsetof(bench_options, kernels),
     .help = "also a row for each kernel and shape"},
    {"--trace", "FILE", AT_ARG_TEXT, offsetof(bench_options, trace),
     .help = "write two more steps, op by op, for ui.perfetto.dev"},
    {"--json", NULL, AT_ARG_FLAG, offsetof(bench_options, json), .help = "one JSON object"},
};

static void bench_defaults(void *options)
{
    *(bench_options *)options = (bench_options){.arch = "flux1-dev",
                                                .dtype = "auto",
                                                .weights = "bf16",
                                                .size = 1024,
                                                .steps = 3,
                                                .tokens = 512,
                                                .doubles = -1,
                                                .singles = -1};
}

static void print_class(const char *name, double flops, double seconds, double step, double ceiling)
{
    if (flops <= 0) return;
    printf("  %-10s %9.1f ms  %4.0f %%  %8.1f GFLOP/s  %4.0f %% of the ceiling\n", name,
           seconds * 1e3, 100 * seconds / step, flops / seconds / 1e9,
           100 * flops / seconds / ceiling);
}

// Work over time in the unit that bounds it.
static const char *rate_text(const at_trace_sum *s, char out[32])
{
    if (s->seconds <= 0)
        snprintf(out, 32, "-");
    else if (s->flops / s->seconds >= 1e12)
        snprintf(out, 32, "%.1f TFLOP/s", s->flops / s->seconds / 1e12);
    else if (s->flops > 0)
        snprintf(out, 32, "%.1f GFLOP/s", s->flops / s->seconds / 1e9);
    else
        snprintf(out, 32, "%.0f GB/s", s->bytes / s->seconds / 1e9);
    return out;
}

static void print_classes(const at_bench_report *r, bool kernels)
{
    double all = 0;
    char rate[32];

    for (int c = 0; c < AT_CLASSES; c++)
        all += r->classes[c].seconds;
    printf("  op by op   %9.2f ms on the device, without gaps\n", all * 1e3);
    for (int c = 0; c < AT_CLASSES; c++) {
        const at_trace_sum *s = &r->classes[c];
        if (s->calls > 0)
            printf("    %-9s %8.3f ms  %5.1f %%  %6.0f calls  %s\n", at_op_class_name(s->kind),
                   s->seconds * 1e3, 100 * s->seconds / all, s->calls, rate_text(s, rate));
    }
    for (size_t i = 0; kernels && i < r->n_kernels; i++) {
        const at_trace_sum *s = &r->kernels[i];
        printf("    %8.3f ms %5.1f %% %5.0f x %9.2f us  %14s  %s, %s  %s\n", s->seconds * 1e3,
               100 * s->seconds / all, s->calls, s->seconds / s->calls * 1e6, rate_text(s, rate),
               s->slot, s->kernel, s->detail);
    }
}

static void print_host_classes(const at_bench_report *r)
{
    print_class("linear", r->linear_flops, r->linear_seconds, r->step, r->ceiling);
    print_class("attention", r->attention_flops, r->attention_seconds, r->step, r->ceiling);
    print_class("conv", r->conv_flops, r->conv_seconds, r->step, r->ceiling);
    printf("  %-10s %9.1f ms  %4.0f %%\n", "other", r->other_seconds * 1e3,
           100 * r->other_seconds / r->step);
}

static void print_report(const at_bench_options *b, const at_bench_report *r, bool kernels)
{
    char peak[16];
    double flops = r->linear_flops + r->attention_flops + r->conv_flops;
    at_human_bytes((double)r->peak_bytes, peak);
    printf("%s (%s)\n", b->shape->name, b->shape->title);
    printf("  device     %s, %s\n", b->device->name, b->device->description);
    printf("  run        %d x %d, %d text tokens, weights %s, compute %s%s\n", b->width, b->height,
           b->text_tokens, at_dtype_name(b->storage), at_dtype_name(b->compute),
           b->int8 ? ", int8 where faster" : "");
    printf("  ceiling    %9.1f GFLOP/s, one 2048x3072x3072 linear layer, same types, same run\n",
           r->ceiling / 1e9);
    printf("  step       %9.1f ms median of %d (first %.1f ms), %.1f GFLOP/s, %.2f TFLOP of work\n",
           r->step * 1e3, b->steps, r->first_step * 1e3, flops / r->step / 1e9, flops / 1e12);
    if (r->settle > 0)
        printf("  recording  %9.1f ms for the second and third step\n", r->settle * 1e3);
    if (!r->traced_steps) print_host_classes(r);
    if (r->traced_steps) print_classes(r, kernels);
    for (size_t i = 0; i < r->block_count && !kernels; i++)
        printf("  block %-4zu %9.1f ms\n", i, r->blocks[i] * 1e3);
    printf("  memory     %s at the highest, weights made in %.1f s\n", peak, r->load_seconds);
}

static at_status print_json(const at_bench_options *b, const at_bench_report *r)
{
    json_t *blocks = json_array();
    for (size_t i = 0; i < r->block_count; i++)
        json_array_append_new(blocks, json_real(r->blocks[i] * 1e3));
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
        "s:f, s:I, s:o}",
        "arch", b->shape->name, "device", b->device->name, "chip", b->device->description,
        "weights", at_dtype_name(b->storage), "compute", at_dtype_name(b->compute), "width",
        b->width, "height", b->height, "steps", b->steps, "step_ms", r->step * 1e3, "first_step_ms",
        r->first_step * 1e3, "ceiling_gflops", r->ceiling / 1e9, "linear_gflop",
        r->linear_flops / 1e9, "linear_ms", r->linear_seconds * 1e3, "attention_gflop",
        r->attention_flops / 1e9, "attention_ms", r->attention_seconds * 1e3, "conv_gflop",
        r->conv_flops / 1e9, "conv_ms", r->conv_seconds * 1e3, "other_ms", r->other_seconds * 1e3,
        "peak_bytes", (json_int_t)r->peak_bytes, "block_ms", blocks);
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    if (!text) return at_fail(AT_ENOMEM, "bench: no memory");
    puts(text);
    at_free(text);
    return AT_OK;
}

static at_status bench(void *options, const at_arg_list *operands)
{
    (void)operands;
    const bench_options *o = options;
    at_bench_report report;
    at_env env = {.dtype = AT_DTYPE_COUNT};
    at_bench_options b = {.shape = at_bench_shape_find(o->arch),
                          .width = (int)(o->width ? o->width : o->size),
                          .height = (int)(o->height ? o->height : o->size),
                          .steps = (int)o->steps,
                          .trace = o->trace,
                          .text_tokens = (int)o->tokens,
                          .doubles = (int)o->doubles,
                          .singles = (int)o->singles};

    if (o->threads) at_threads_set((int)o->threads);
    at_engine_setup_devices();
    if (!b.shape)
        return at_fail(AT_EUSAGE,
                       "--arch %s: known are flux1-dev, flux1-schnell, sd15, sd21, "
                       "sdxl, sdxl-refiner, clip-l, t5-xxl, "
                       "flux-vae",
                       o->arch);
    at_status found = at_engine_device(o->device, &b.device);
    if (found != AT_OK) return found;
    env.device = b.device;
    b.int8 = strcmp(o->dtype, "int8") == 0;
    if (b.int8 || strcmp(o->dtype, "auto") == 0)
        b.compute = at_env_compute(&env);
    else
        at_dtype_parse(o->dtype, &b.compute);
    if (!at_dtype_parse(o->weights, &b.storage))
        return at_fail(AT_EUSAGE, "--weights %s: not a type", o->weights);
    at_status st = at_bench_run(&b, &report);
    if (st != AT_OK) return st;
    if (o->json) return print_json(&b, &report);
    print_report(&b, &report, o->kernels);
    return AT_OK;
}

const at_command at_command_bench = {
    .name = "bench",
    .summary = "time a model on random weights of its true shape",
    .details = "Example: atelier bench --arch flux1-dev --size 1024 --double 1 --single 1",
    .args = bench_args,
    .n_args = sizeof bench_args / sizeof *bench_args,
    .options_size = sizeof(bench_options),
    .defaults = bench_defaults,
    .run = bench,
};
