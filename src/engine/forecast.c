// SPDX-License-Identifier: Apache-2.0
// forecast.c - see forecast.h.
#include "engine/forecast.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "models/forecast_ways.h"

static at_forecast_work work_of(const at_bench_options *b)
{
    return (at_forecast_work){.batch = b->batch,
                              .latent_h = b->height / 8,
                              .latent_w = b->width / 8,
                              .text_tokens =
                                  b->text_tokens ? b->text_tokens : b->shape->text_tokens,
                              .compute = b->compute,
                              .fp8 = b->fp8};
}

static at_status store_of(const at_bench_options *b, at_store **out)
{
    at_status st = AT_OK;

    AT_TRY(at_store_new(b->shape->name, out));
    AT_TRY(b->shape->fill(*out, (at_fill_as){.dtype = b->storage, .zeros = true}, b->doubles,
                          b->singles));
out:
    if (st != AT_OK) at_store_release(out);
    return st;
}

// Fewer devices first, then the faster way.
static int by_ranks(const void *a, const void *b)
{
    const at_forecast_row *x = a, *y = b;

    if (x->plan.ranks != y->plan.ranks) return x->plan.ranks - y->plan.ranks;
    return (x->plan.step > y->plan.step) - (x->plan.step < y->plan.step);
}

// fp8 keeps wide layers' weights in a byte each (plan_memory.c counts a file's in the same way).
static double weights_of(const at_bench_options *b, double bytes)
{
    double size = (double)at_dtype_size(b->storage), kept = b->fp8 ? 1 : 2;

    return size > 0 ? bytes / size * kept : bytes;
}

static at_status denoiser_ways(const at_bench_options *b, at_store *s, const at_machine *machine,
                               at_forecast_table *out)
{
    enum { MANY = 256 };
    at_status st = AT_OK;
    at_model *m = NULL;
    at_forecasts *f = NULL;
    at_par_plan *plans = at_calloc(MANY, sizeof *plans);
    at_forecast_work work = work_of(b);

    if (!plans) AT_TRY(at_fail(AT_ENOMEM, "plan: no memory"));
    AT_TRY(at_model_load(s, b->shape->name, &m));
    AT_TRY(at_forecasts_new(m, &work, &machine->rates, &f));
    at_model_cost c =
        at_model_estimate(m, 1, work.latent_h, work.latent_w, work.text_tokens, b->compute);
    at_par_pricer pricer = at_forecasts_pricer(f);
    at_par_task task = {.flops = c.flops,
                        .latent_bytes = (double)(work.latent_h * work.latent_w) *
                                        at_model_latent(m)->channels * sizeof(float),
                        .weight_bytes = weights_of(b, c.weight_bytes),
                        .conditionings = 1,
                        .batch = b->batch,
                        .steps = 1,
                        .hints = c.share,
                        .pricer = &pricer};
    task.hints.tp_weights = weights_of(b, task.hints.tp_weights);
    at_par_site site = at_machine_site(machine, machine->devices);
    int n = at_par_plans(&task, &site, plans, MANY);
    out->automatic = plans[0].degrees;
    for (int i = 0; i < n && out->n < AT_FORECAST_ROWS; i++) {
        int cfg = plans[i].degrees.of[AT_AXIS_CFG];
        if (machine->devices % plans[i].ranks || (cfg > 1 && b->batch % cfg)) continue;
        const at_forecast *of =
            at_forecasts_find(f, &plans[i].degrees, b->batch / (cfg > 1 ? cfg : 1));
        if (of) out->row[out->n++] = (at_forecast_row){plans[i], *of};
    }
out:
    at_forecasts_free(f);
    at_model_release(&m);
    at_free(plans);
    return st;
}

static at_status decoder_ways(const at_bench_options *b, at_store *s, const at_machine *machine,
                              at_forecast_table *out)
{
    at_status st = AT_OK;
    at_vae *v = NULL;
    at_forecast_work work = work_of(b);

    AT_TRY(at_vae_load(s, b->shape->name, &v));
    for (int n = 1; n <= machine->devices && out->n < AT_FORECAST_ROWS; n++) {
        at_forecast_row *row = &out->row[out->n];
        if (machine->devices % n || n > work.latent_h) continue;
        *row = (at_forecast_row){.plan = {.ranks = n, .fits = true}};
        row->plan.degrees.of[AT_AXIS_PATCH] = n;
        AT_TRY(at_forecast_decoder(v, &work, &row->plan.degrees, &machine->rates, &row->forecast));
        row->plan.step = row->forecast.sum.seconds;
        row->plan.exchange = row->forecast.sum.exposed;
        row->plan.compute = row->plan.step - row->plan.exchange;
        row->plan.sent = row->forecast.sum.out;
        row->plan.bytes = row->forecast.activations;
        out->automatic = row->plan.degrees;
        out->n++;
    }
out:
    at_vae_release(&v);
    return st;
}

at_status at_forecast_ways(const at_bench_options *b, const at_machine *machine,
                           at_forecast_table *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    bool vae = b->shape->part == AT_PART_VAE;

    *out = (at_forecast_table){0};
    if ((!vae && b->shape->part != AT_PART_DENOISER) || b->shape->work == AT_BENCH_ENCODE)
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "plan: %s: only denoisers and decoding VAEs can be foreseen",
                       b->shape->name));
    AT_TRY(store_of(b, &s));
    AT_TRY(vae ? decoder_ways(b, s, machine, out) : denoiser_ways(b, s, machine, out));
    qsort(out->row, (size_t)out->n, sizeof *out->row, by_ranks);
    if (out->n) out->one = out->row[0].plan.step;
out:
    at_store_release(&s);
    return st;
}
