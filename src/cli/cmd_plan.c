// SPDX-License-Identifier: Apache-2.0
// cmd_plan.c - atelier plan: check a workflow and tell what it will cost, without running it.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/plan_arch.h"
#include "cli/plan_places.h"
#include "cli/workflow_file.h"
#include "cli/workflow_check.h"
#include "engine/plan.h"

typedef struct plan_options {
    at_common_options common;
    at_arg_list sets;
    at_plan_arch_options arch;
} plan_options;

static const at_arg plan_args[] = {
    {"--set", "NODE.INPUT=VALUE", AT_ARG_LIST, offsetof(plan_options, sets),
     .help = "change an input first, as in `atelier run`"},
    {"--arch", "NAME", AT_ARG_TEXT, offsetof(plan_options, arch.arch),
     .help =
         "no workflow: one step of this architecture (as bench has it), on any number of devices"},
    {"--like", "MACHINE", AT_ARG_TEXT, offsetof(plan_options, arch.like),
     .help = "with --arch: h200, h200-x8 (so many), here (the GPUs of this machine), or a file as "
             "in docs/machines (h200)"},
    {"--size", "N", AT_ARG_INT, offsetof(plan_options, arch.size), 64, 8192,
     .help = "with --arch: width and height (1024)"},
    {"--width", "N", AT_ARG_INT, offsetof(plan_options, arch.width), 64, 8192,
     .help = "width alone"},
    {"--height", "N", AT_ARG_INT, offsetof(plan_options, arch.height), 64, 8192,
     .help = "height alone"},
    {"--batch", "N", AT_ARG_INT, offsetof(plan_options, arch.batch), 1, 64,
     .help = "with --arch: pictures at once; a guided step (CFG) is a batch of 2 (1)"},
    {"--text-tokens", "N", AT_ARG_INT, offsetof(plan_options, arch.tokens), 1, 4096,
     .help = "with --arch: as in bench"},
    {"--describe", NULL, AT_ARG_FLAG, offsetof(plan_options, arch.describe),
     .help = "print the description of --like, every rate in it, as a file may have it"},
    {"--json", NULL, AT_ARG_FLAG, offsetof(plan_options, arch.json),
     .help = "with --arch: one JSON object"},
    AT_COMMON_ARGS(plan_options, common),
};

// How the devices may share a sampler's steps, the choice first.
static void print_ways(const at_plan_sampler *s, const at_env *env)
{
    enum { SHOWN = 6 };
    at_par_plan ways[SHOWN];
    at_par_task t = at_plan_task(s);
    char text[96];

    if (s->cost.flops <= 0) return;
    int n = at_par_plans(&t, &env->ranks.site, ways, SHOWN);
    printf("    on %d devices   %-24s %9s %9s %9s\n", env->ranks.n,
           env->ranks.automatic ? "chosen, then others" : "what a plan would say", "ms/step",
           "compute", "exchange");
    for (int i = 0; i < n; i++)
        printf("      %-34s %9.2f %9.2f %9.2f%s\n", at_degrees_text(&ways[i].degrees, text),
               1e3 * ways[i].step, 1e3 * ways[i].compute, 1e3 * ways[i].exchange,
               ways[i].fits ? "" : "  weights stream");
}

static void print_plan(const at_plan *p, const at_env *env)
{
    char bytes[16];
    double total = 0;
    printf("valid: %zu nodes\n\nmodels\n", p->node_count);
    for (size_t i = 0; i < p->model_count; i++) {
        const at_plan_model *m = &p->models[i];
        at_human_bytes(m->bytes, bytes);
        total += m->bytes;
        printf("  node %-4s %-24s %-32s %10s  %.2f B parameters\n", m->node, m->architecture,
               m->file, bytes, m->parameters / 1e9);
    }
    at_human_bytes(total, bytes);
    printf("  %-63s %10s\n\nsampling\n", "all files", bytes);
    for (size_t i = 0; i < p->sampler_count; i++) {
        const at_plan_sampler *s = &p->samplers[i];
        int64_t steps = s->steps ? s->steps : 1;
        at_human_bytes(s->cost.activation_bytes, bytes);
        printf("  node %-4s %s on %s\n", s->node, s->class_type, s->model_file);
        printf("    picture        %lld x %lld, batch %lld\n", (long long)s->width,
               (long long)s->height, (long long)(s->batch ? s->batch : 1));
        printf("    steps          %lld%s\n", (long long)s->steps,
               s->guided ? ", positive and negative in one batch" : "");
        printf("    work a step    %.2f TFLOP\n", s->cost.flops / 1e12);
        printf("    work in all    %.1f TFLOP\n", s->cost.flops * (double)steps / 1e12);
        printf("    activations    %s\n", bytes);
        if (env->ranks.n > 1) print_ways(s, env);
    }
}

static const char *human(double bytes, char out[16])
{
    at_human_bytes(bytes, out);
    return out;
}

// "bf16 22.2 GiB, f32 0.1 GiB"
static void stored_text(const at_plan_part *part, char *out, size_t size)
{
    size_t at = 0;
    char bytes[16];
    *out = 0;
    for (int t = 0; t < AT_DTYPE_COUNT && at < size; t++)
        if (part->stored[t] > 0)
            at += (size_t)snprintf(out + at, size - at, "%s%s %s", at ? ", " : "",
                                   at_dtype_name((at_dtype)t), human(part->stored[t], bytes));
}

static void print_memory(const at_plan *p, at_device *d)
{
    uint64_t rest = 0, all = 0;
    char a[16], b[16], stored[160];

    printf("\nmemory\n");
    for (size_t i = 0; i < p->part_count; i++) {
        const at_plan_part *part = &p->parts[i];
        stored_text(part, stored, sizeof stored);
        printf("  %-24s on %s in %s%s: weights %s (file: %s), activations %s\n",
               at_arch_title(part->found.arch), part->how.device->name,
               at_dtype_name(part->how.compute), part->how.fp8 ? " and fp8" : "",
               human(part->weights, a), stored,
               part->activations > 0 ? human(part->activations, b) : "unknown");
    }
    printf("  peak %s with every model kept, %s with one at a time", human(p->peak_kept, a),
           human(p->peak_alone, b));
    if (p->lasting > 0) printf(", %s of it for the driver and libraries", human(p->lasting, a));
    putchar('\n');
    if (p->peak_coming > 1.005 * p->peak_kept)
        printf("  while files come, where there is room, %s\n", human(p->peak_coming, a));
    if (d->ops->memory(d, &rest, &all) != AT_OK) return;
    printf("  %s has %s, %s of it free%s\n", d->name, human((double)all, a), human((double)rest, b),
           p->peak_kept < (double)rest    ? ""
           : p->peak_alone < (double)rest ? ": models take turns"
           : d->host                      ? ": the system will page"
                                          : ": weights stream");
}

static at_status plan(void *options, const at_arg_list *operands)
{
    at_status st = AT_OK;
    plan_options *o = options;
    at_engine *e = NULL;
    at_graph *g = NULL;
    char *text = NULL;
    size_t bytes = 0;
    at_plan p = {0};

    if (o->arch.describe && !o->arch.arch && !operands->count)
        return at_plan_arch(&o->arch, o->common.dtype);
    if ((o->arch.arch != NULL) == (operands->count == 1))
        AT_TRY(at_fail(AT_EUSAGE, "plan: give a workflow, or --arch; not both"));
    if (o->arch.arch) return at_plan_arch(&o->arch, o->common.dtype);
    AT_TRY(at_workflow_read(operands->items[0], &text, &bytes));
    AT_TRY(at_common_open(&o->common, &e));
    AT_TRY(at_workflow_check(e, operands->items[0], text, bytes, &o->sets, &g));
    AT_TRY(at_plan_make(e, g, at_env_compute(at_engine_env(e)), &p));
    print_plan(&p, at_engine_env(e));
    print_memory(&p, at_engine_env(e)->device);
    at_plan_places_print(e, &p);
out:
    at_plan_free(&p);
    at_graph_free(g);
    at_engine_close(e);
    at_free(text);
    return st;
}

static void plan_defaults(void *options)
{
    ((plan_options *)options)->arch = (at_plan_arch_options){.size = 1024, .batch = 1};
}

const at_command at_command_plan = {
    .name = "plan",
    .operands = "[WORKFLOW.json]",
    .summary = "check a workflow and tell its models, work and memory, without running it",
    .details = "Example: atelier plan --arch flux1-dev --size 2048 --like h200-x8",
    .args = plan_args,
    .n_args = sizeof plan_args / sizeof *plan_args,
    .options_size = sizeof(plan_options),
    .max_operands = 1,
    .defaults = plan_defaults,
    .run = plan,
};
