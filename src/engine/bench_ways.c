// SPDX-License-Identifier: Apache-2.0
// bench_ways.c - see bench_ways.h.
// Easy to get wrong: one rank goes first, whatever the plan's order: its step is what the calibrated column knows.
#include "engine/bench_ways.h"

#include <stdio.h>
#include <string.h>

#include "engine/machine.h"
#include "models/forecast_ways.h"
#include "tensor/dtype.h"
#include "nodes/sample_task.h"

// A text encoder's layers, which tp cuts whole: products of their matrices, and attention.
static at_status encoder_task(const at_bench_options *b, at_store *s, at_par_task *out)
{
    at_status st = AT_OK;
    at_encoder *e = NULL;
    at_found found[4];
    double cells = 0, bytes = 0;

    if (!at_detect(s, found, 4)) AT_TRY(at_fail(AT_EINTERNAL, "bench: encoder not detected"));
    AT_TRY(at_encoder_load(s, &found[0], &e));
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);

        if (w->rank != 2 || !strstr(w->name, "layer") || strstr(w->name, "bias")) continue;
        cells += (double)w->shape[0] * (double)w->shape[1];
        bytes += (double)w->bytes;
    }
    double most = (double)at_encoder_max_tokens(e), asked = b->text_tokens;
    double tokens = (most > 0 ? most : asked > 0 ? asked : b->shape->text_tokens) * b->batch;
    double width = (double)at_encoder_width(e), layers = (double)at_encoder_layers(e);
    double attention = 4 * tokens * tokens / b->batch * width * layers;
    *out = (at_par_task){
        .flops = 2 * cells * tokens + attention,
        .weight_bytes = bytes,
        .conditionings = 1,
        .batch = 1,
        .steps = 1,
        .speed = at_sample_speed(b->device, b->compute, false),
        .hints = {.axes = 1u << AT_AXIS_TP,
                  .heads = (int64_t)width / 64,
                  .attention_flops = attention,
                  .tp_meetings = (int)(2 * layers),
                  .tp_bytes = 2 * layers * tokens * width * (double)at_dtype_size(b->compute),
                  .tp_flops = 2 * cells * tokens + attention,
                  .tp_weights = bytes,
                  .ops = (int)(12 * layers)}};
out:
    at_encoder_release(&e);
    return st;
}

typedef struct prices {
    at_model *model;
    at_forecasts *forecasts;
    at_par_pricer pricer;
} prices;

static at_status task_of(const at_bench_options *b, at_store *s, at_par_task *out)
{
    at_status st = AT_OK;
    at_model *m = NULL;
    int64_t tokens = b->text_tokens ? b->text_tokens : b->shape->text_tokens;

    if (b->shape->part == AT_PART_TEXT) return encoder_task(b, s, out);
    AT_TRY(at_model_load(s, b->shape->name, &m));
    at_model_cost c = at_model_estimate(m, 1, b->height / 8, b->width / 8, tokens, b->compute);
    *out = (at_par_task){.flops = c.flops,
                         .activation_bytes = c.activation_bytes,
                         .latent_bytes = (double)(b->height / 8) * (b->width / 8) *
                                         at_model_latent(m)->channels * sizeof(float),
                         .weight_bytes = c.weight_bytes,
                         .conditionings = 1,
                         .batch = b->batch,
                         .steps = 1,
                         .speed = at_sample_speed(b->device, b->compute, b->fp8),
                         .hints = c.share};
out:
    at_model_release(&m);
    return st;
}

static void measure(const at_bench_options *b, at_store *s, at_bench_way *w)
{
    at_bench_options with = *b;
    at_bench_report report;

    with.store = s;
    with.quick = true;
    with.trace = NULL;
    with.first = with.by_op = false;
    with.ranks = w->plan.ranks;
    with.degrees = w->plan.degrees;
    w->st = at_bench_run(&with, &report);
    if (w->st != AT_OK) {
        snprintf(w->why, sizeof w->why, "%s", at_error_text());
        return;
    }
    w->step = report.step;
    w->difference = report.difference;
    w->spent = report.ranks[0].spent;
}

static int find(const at_bench_ways *ways, const at_degrees *d)
{
    for (int i = 0; i < ways->n; i++)
        if (at_degrees_same(&ways->way[i].plan.degrees, d)) return i;
    return -1;
}

// What the plan says once it knows what one device takes.
static void calibrate(const at_par_task *task, const at_par_site *site, at_bench_ways *ways)
{
    at_par_task t = *task;
    at_par_plan plans[AT_BENCH_WAYS];
    int one = find(ways, &(at_degrees){0});

    if (one < 0 || ways->way[one].st != AT_OK) return;
    t.known = &(at_par_known){.step = ways->way[one].step};
    t.n_known = 1;
    int n = at_par_plans(&t, site, plans, AT_BENCH_WAYS);
    for (int i = 0; i < n; i++) {
        int k = find(ways, &plans[i].degrees);
        if (k >= 0) ways->way[k].calibrated = plans[i].step;
    }
    t.pricer = NULL; // runs choose by the formulas
    (void)at_par_plans(&t, site, plans, 1);
    ways->picked_calibrated = find(ways, &plans[0].degrees);
}

// A bench deals equal shares along cfg, and devices left over are no way of their own.
static bool tried(const at_bench_options *b, const at_par_plan *p)
{
    int cfg = p->degrees.of[AT_AXIS_CFG];

    return b->ranks % p->ranks == 0 && (cfg < 2 || b->batch % cfg == 0);
}

// Forecasts in the formulas' place, where this chip's rates are known.
static at_status price(const at_bench_options *b, const at_par_site *site, at_store *s,
                       at_par_task *task, prices *p)
{
    at_status st = AT_OK;
    at_machine here;
    at_forecast_work work = {.latent_h = b->height / 8,
                             .latent_w = b->width / 8,
                             .text_tokens = b->text_tokens ? b->text_tokens : b->shape->text_tokens,
                             .compute = b->compute,
                             .fp8 = b->fp8};

    if (b->shape->part != AT_PART_DENOISER || !at_machine_here(b->device, site, &here))
        return AT_OK;
    AT_TRY(at_model_load(s, b->shape->name, &p->model));
    AT_TRY(at_forecasts_new(p->model, &work, &here.rates, &p->forecasts));
    p->pricer = at_forecasts_pricer(p->forecasts);
    task->pricer = &p->pricer;
out:
    return st;
}

at_status at_bench_ways_run(const at_bench_options *b, const at_par_site *site, at_bench_ways *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_par_task task;
    at_par_plan plans[AT_BENCH_WAYS];
    prices p = {0};
    at_par_plan picked;

    *out = (at_bench_ways){.picked = -1, .picked_calibrated = -1, .best = -1};
    if (b->shape->part == AT_PART_VAE)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "bench: there is no plan for %s: it has one way, patch=%d",
                       b->shape->name, b->ranks));
    AT_TRY(at_bench_store(b, &s));
    AT_TRY(task_of(b, s, &task));
    (void)at_par_plans(&task, site, &picked, 1); // runs choose by the formulas
    AT_TRY(price(b, site, s, &task, &p));
    int n = at_par_plans(&task, site, plans, AT_BENCH_WAYS);
    for (int i = 0; i < n; i++)
        if (tried(b, &plans[i])) out->way[out->n++].plan = plans[i];
    out->picked = find(out, &picked.degrees);
    int one = find(out, &(at_degrees){0});
    if (one >= 0) measure(b, s, &out->way[one]);
    for (int i = 0; i < out->n; i++)
        if (i != one) measure(b, s, &out->way[i]);
    for (int i = 0; i < out->n; i++)
        if (out->way[i].st == AT_OK &&
            (out->best < 0 || out->way[i].step < out->way[out->best].step))
            out->best = i;
    calibrate(&task, site, out);
out:
    at_forecasts_free(p.forecasts);
    at_model_release(&p.model);
    at_store_release(&s);
    return st;
}
