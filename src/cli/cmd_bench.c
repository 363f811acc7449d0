// SPDX-License-Identifier: Apache-2.0
// cmd_bench.c - atelier bench: how fast this machine runs a model, on random weights.
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "base/thread.h"
#include "base/trace.h"
#include "cli/bench_print.h"
#include "cli/bench_ways_print.h"
#include "cli/commands.h"
#include "cli/process_args.h"
#include "engine/engine.h"
#include "engine/plugins.h"
#include "engine/ranks.h"
#include "engine/world.h"

typedef struct bench_options {
    const char *arch, *device, *devices, *parallel, *dtype, *weights, *trace, *trace_level, *comm;
    at_process_options process;
    long width, height, size, batch, steps, tokens, doubles, singles, threads;
    bool json, kernels, first, ceilings;
} bench_options;

#define BLOCKS_HELP "blocks of the first kind (layers of an encoder); default: the true count"
static const at_arg bench_args[] = {
    {"--arch", "NAME", AT_ARG_TEXT, offsetof(bench_options, arch),
     .help =
         "flux1-dev, flux1-schnell, sd15, sd21, sdxl, sdxl-refiner, clip-l, t5-xxl, flux-vae or "
         "sd-vae (decoding; flux-vae-encode, sd-vae-encode) (default flux1-dev)"},
    {"--size", "N", AT_ARG_INT, offsetof(bench_options, size), 64, 8192,
     .help = "width and height (1024)"},
    {"--width", "N", AT_ARG_INT, offsetof(bench_options, width), 64, 8192, .help = "width alone"},
    {"--height", "N", AT_ARG_INT, offsetof(bench_options, height), 64, 8192,
     .help = "height alone"},
    {"--batch", "N", AT_ARG_INT, offsetof(bench_options, batch), 1, 64,
     .help = "pictures at once; a guided step (CFG) is a batch of 2 (1)"},
    {"--steps", "N", AT_ARG_INT, offsetof(bench_options, steps), 1, 1000,
     .help = "timed steps after those that warm up (3)"},
    {"--text-tokens", "N", AT_ARG_INT, offsetof(bench_options, tokens), 1, 4096,
     .help = "default: 512 for Flux.1 dev and T5, 256 for schnell, 77 elsewhere"},
    {"--double,--layers", "N", AT_ARG_INT, offsetof(bench_options, doubles), 0, 100,
     .help = BLOCKS_HELP},
    {"--single", "N", AT_ARG_INT, offsetof(bench_options, singles), 0, 100,
     .help = "single blocks; default: the true count"},
    {"--device", "NAME", AT_ARG_TEXT, offsetof(bench_options, device),
     .help = "auto (the first GPU, else the CPU), cpu, cuda or cuda:1"},
    {"--devices", "LIST", AT_ARG_TEXT, offsetof(bench_options, devices),
     .help = "several that share the work: cuda:0,cuda:1; or cuda for all; or cpu,cpu"},
    {"--parallel", "PLAN", AT_ARG_TEXT, offsetof(bench_options, parallel),
     .help = "how they do: ulysses=2 (default: as many as there are), cfg=2, cfg=2,ulysses=2; all: "
             "every way that a plan knows, predicted and measured"},
    {"--comm", "HOW", AT_ARG_CHOICE, offsetof(bench_options, comm), .choices = "auto|peer|nccl",
     .help = "how GPUs hand each other their parts"},
    AT_PROCESS_ARGS(bench_options, process),
    {"--dtype", "TYPE", AT_ARG_CHOICE, offsetof(bench_options, dtype),
     .choices = "auto|f32|bf16|fp16|int8|fp8",
     .help = "compute type (int8, fp8: auto, with wide layers rounded where that is faster)"},
    {"--weights", "TYPE", AT_ARG_CHOICE, offsetof(bench_options, weights),
     .choices = "f32|f16|bf16|fp8_e4m3|fp8_e5m2", .help = "storage type (bf16)"},
    {"--threads", "N", AT_ARG_INT, offsetof(bench_options, threads), 1, 1024,
     .help = "CPU threads"},
    {"--kernels", NULL, AT_ARG_FLAG, offsetof(bench_options, kernels),
     .help = "also a row for each kernel and shape"},
    {"--first", NULL, AT_ARG_FLAG, offsetof(bench_options, first),
     .help = "take the first step apart, by the host's clock: where start-up goes"},
    {"--trace", "FILE", AT_ARG_TEXT, offsetof(bench_options, trace),
     .help = "write some more steps for ui.perfetto.dev or chrome://tracing: of one device op by "
             "op, of several "
             "as they run, with a table of where each one's time goes"},
    {"--trace-level", "LEVEL", AT_ARG_CHOICE, offsetof(bench_options, trace_level),
     .choices = "ops|spans", .help = "of several devices: ops also takes those apart (spans)"},
    {"--ceilings", NULL, AT_ARG_FLAG, offsetof(bench_options, ceilings),
     .help = "only measure what this machine does at best: matmul, attention, conv, copies"},
    {"--json", NULL, AT_ARG_FLAG, offsetof(bench_options, json), .help = "one JSON object"},
};

static void bench_defaults(void *options)
{
    *(bench_options *)options = (bench_options){.arch = "flux1-dev",
                                                .dtype = "auto",
                                                .weights = "bf16",
                                                .trace_level = "spans",
                                                .size = 1024,
                                                .batch = 1,
                                                .steps = 3,
                                                .doubles = -1,
                                                .singles = -1};
}

static at_status pick_types(const bench_options *o, at_bench_options *b)
{
    at_env env = {.dtype = AT_DTYPE_COUNT, .device = b->device};

    b->int8 = strcmp(o->dtype, "int8") == 0;
    b->fp8 = strcmp(o->dtype, "fp8") == 0;
    if (b->int8 || b->fp8 || strcmp(o->dtype, "auto") == 0)
        b->compute = at_env_compute_for(&env, b->shape->f16);
    else
        at_dtype_parse(o->dtype, &b->compute);
    if (!at_dtype_parse(o->weights, &b->storage))
        return at_fail(AT_EUSAGE, "--weights %s: not a type", o->weights);
    return AT_OK;
}

static at_status add_device(const char *name, size_t n, at_bench_options *b)
{
    char text[32];
    int before = b->ranks;

    snprintf(text, sizeof text, "%.*s", (int)(n < 31 ? n : 31), name);
    for (int i = 0; i < at_device_count(); i++) {
        at_device *d = at_device_at(i);
        bool all = strcmp(text, "cuda") == 0 && !d->host;

        if (!all && strcmp(text, d->name) != 0) continue;
        if (b->ranks == AT_BENCH_RANKS)
            return at_fail(AT_EUSAGE, "--devices: more than %d", AT_BENCH_RANKS);
        b->devices[b->ranks++] = d;
        if (!all) return AT_OK;
    }
    return b->ranks > before
               ? AT_OK
               : at_fail(AT_EUSAGE, "--devices: there is no %s (%s)", text, at_plugins_reason());
}

static bool all_ways(const bench_options *o)
{
    return o->parallel && strcmp(o->parallel, "all") == 0;
}

// The devices of --devices and how they share the work.
static at_status pick_ranks(const bench_options *o, at_bench_options *b)
{
    at_status st = AT_OK;

    if (!o->devices) return o->parallel ? at_fail(AT_EUSAGE, "--parallel needs --devices") : AT_OK;
    at_plugins_load();
    for (const char *at = o->devices; *at;) {
        size_t n = strcspn(at, ",");

        AT_TRY(add_device(at, n, b));
        at += n + (at[n] == ',');
    }
    b->degrees.of[AT_AXIS_ULYSSES] = b->ranks;
    b->device = b->devices[0];
    if (all_ways(o)) goto out;
    if (o->parallel) AT_TRY(at_degrees_parse(o->parallel, &b->degrees));
    if (at_degrees_ranks(&b->degrees) != b->ranks)
        AT_TRY(at_fail(AT_EUSAGE, "--parallel %s is for %d devices, and --devices has %d",
                       o->parallel, at_degrees_ranks(&b->degrees), b->ranks));
out:
    return st;
}

// This process is one rank of several.
static at_status join(const bench_options *o, const at_processes *who, const char *device,
                      at_bench_options *b)
{
    at_status st = AT_OK;

    AT_TRY(at_engine_device(device, &b->device));
    b->ranks = who->ranks;
    for (int i = 0; i < b->ranks; i++)
        b->devices[i] = b->device;
    b->degrees.of[AT_AXIS_ULYSSES] = b->ranks;
    if (all_ways(o))
        AT_TRY(at_fail(AT_EUSAGE, "--parallel all is for the GPUs of one process: --devices"));
    if (o->parallel) AT_TRY(at_degrees_parse(o->parallel, &b->degrees));
    if (at_degrees_ranks(&b->degrees) != b->ranks)
        AT_TRY(at_fail(AT_EUSAGE, "--parallel %s is for %d ranks, and there are %d processes",
                       o->parallel, at_degrees_ranks(&b->degrees), b->ranks));
    AT_TRY(at_world_across(who, o->comm, b->device, &b->world));
out:
    return st;
}

// By itself, by threads, or by processes.
static at_status gather(const bench_options *o, at_str *job, at_process_group **others,
                        char name[32], at_bench_options *b)
{
    at_status st = AT_OK;
    const char *device = o->device, *devices = o->devices;
    at_processes who;

    at_str_printf(job, "bench|%s|%d|%d|%ld|%ld|%ld|%ld|%ld|%s|%s|%s|%d|%s", o->arch, b->width,
                  b->height, o->batch, o->steps, o->tokens, o->doubles, o->singles,
                  o->parallel ? o->parallel : "", o->dtype, o->weights, o->first,
                  o->trace ? o->trace_level : "");
    at_trace_expect(o->trace != NULL);
    AT_TRY(at_processes_begin(&o->process, at_str_text(job), &who, others));
    AT_TRY(at_processes_device(&o->process, &who, &device, &devices, name));
    at_trace_set_home(who.rank);
    if (who.ranks > 1)
        AT_TRY(join(o, &who, device, b));
    else
        AT_TRY(pick_ranks(o, b));
    if (!b->ranks) AT_TRY(at_engine_device(device, &b->device));
out:
    return st;
}

// Every way that a plan knows for these devices, predicted and measured.
static at_status bench_ways(const bench_options *o, at_bench_options *b)
{
    at_status st = AT_OK;
    at_engine_config config = {.devices = o->devices, .parallel = "auto"};
    at_env env = {.device = b->device};
    at_bench_ways ways;

    AT_TRY(at_engine_ranks(&config, &env));
    AT_TRY(at_bench_ways_run(b, &env.ranks.site, &ways));
    if (o->json)
        st = at_bench_ways_json(b, &ways);
    else
        at_bench_ways_print(b, &ways);
out:
    at_par_memory_free(env.ranks.known);
    return st;
}

static at_status bench(void *options, const at_arg_list *operands)
{
    (void)operands;
    at_status st = AT_OK;
    const bench_options *o = options;
    at_str job = {0};
    at_process_group *others = NULL;
    char name[32];
    at_bench_report report;
    at_bench_options b = {.shape = at_bench_shape_find(o->arch),
                          .batch = (int)o->batch,
                          .width = (int)(o->width ? o->width : o->size),
                          .height = (int)(o->height ? o->height : o->size),
                          .steps = (int)o->steps,
                          .text_tokens = (int)o->tokens,
                          .doubles = (int)o->doubles,
                          .singles = (int)o->singles,
                          .by_op = o->kernels,
                          .first = o->first,
                          .comm = o->comm,
                          .trace = o->trace,
                          .trace_ops = strcmp(o->trace_level, "ops") == 0};

    if (o->threads) at_threads_set((int)o->threads);
    at_engine_setup_devices();
    if (!b.shape)
        AT_TRY(at_fail(AT_EUSAGE,
                       "--arch %s: known are flux1-dev, flux1-schnell, sd15, sd21, sdxl, "
                       "sdxl-refiner, clip-l, t5-xxl, flux-vae, flux-vae-encode, sd-vae and "
                       "sd-vae-encode",
                       o->arch));
    AT_TRY(gather(o, &job, &others, name, &b));
    if (o->ceilings) AT_TRY(at_ceilings_print(b.device, o->json));
    if (o->ceilings) goto out;
    AT_TRY(pick_types(o, &b));
    if (all_ways(o)) {
        AT_TRY(bench_ways(o, &b));
        goto out;
    }
    AT_TRY(at_bench_run(&b, &report));
    if (b.world && b.world->rank) goto out; // rank 0 speaks for all
    if (o->json)
        AT_TRY(at_bench_print_json(&b, &report, o->kernels));
    else
        at_bench_print(&b, &report, o->kernels);
out:
    at_comm_free(b.world);
    at_str_free(&job);
    return at_process_group_end(others, st);
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
