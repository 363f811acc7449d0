// SPDX-License-Identifier: Apache-2.0
// plan_arch.c - see plan_arch.h.
#include "cli/plan_arch.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "engine/forecast.h"

static at_status bench_of(const at_plan_arch_options *o, const char *dtype, at_bench_options *b)
{
    bool fp8 = dtype && strcmp(dtype, "fp8") == 0, open = !dtype || strcmp(dtype, "auto") == 0;

    *b = (at_bench_options){.shape = at_bench_shape_find(o->arch),
                            .storage = AT_BF16,
                            .compute = AT_BF16,
                            .fp8 = fp8,
                            .batch = (int)o->batch,
                            .width = (int)(o->width ? o->width : o->size),
                            .height = (int)(o->height ? o->height : o->size),
                            .text_tokens = (int)o->tokens,
                            .doubles = -1,
                            .singles = -1};
    if (!b->shape)
        return at_fail(AT_EUSAGE, "plan: --arch %s is not known; `atelier bench --help` lists them",
                       o->arch);
    if (open || fp8) {
        if (b->shape->f16) b->compute = AT_F16;
    } else if (!at_dtype_parse(strcmp(dtype, "fp16") == 0 ? "f16" : dtype, &b->compute) ||
               at_dtype_size(b->compute) != 2) {
        return at_fail(AT_EUSAGE,
                       "plan: --arch with --dtype %s: bf16, fp16 and fp8 can be foreseen", dtype);
    }
    return AT_OK;
}

static void print_row(const at_forecast_table *t, const at_forecast_row *r)
{
    const at_priced_sum *s = &r->forecast.sum;
    char text[96];

    printf("  %2d %-28s %8.2f %5.2fx %9.2f %9.2f %8.2f %8.2f %8.2f %5.0f %8.1f %7.1f%s%s\n",
           r->plan.ranks, at_degrees_text(&r->plan.degrees, text), 1e3 * r->plan.step,
           t->one / r->plan.step, 1e3 * s->kind[AT_COST_LINEAR], 1e3 * s->kind[AT_COST_ATTENTION],
           1e3 * s->kind[AT_COST_CONV], 1e3 * s->kind[AT_COST_PASS], 1e3 * r->plan.exchange,
           s->clock / 1e6, r->plan.sent / 1e6, r->plan.bytes / 0x1p30,
           r->plan.fits ? "" : "  weights stream",
           at_degrees_same(&r->plan.degrees, &t->automatic) ? "  auto" : "");
}

static void print_table(const at_bench_options *b, const at_machine *m, const at_forecast_table *t)
{
    printf("%s, %d x %d, batch %d, compute %s%s, on %s: foreseen, nothing was run\n",
           b->shape->name, b->width, b->height, b->batch, at_dtype_name(b->compute),
           b->fp8 ? " and fp8" : "", m->name);
    printf("  devices, plan %26s %6s %9s %9s %8s %8s %8s %5s %8s %7s\n", "ms/step", "", "products",
           "attention", "convs", "passes", "waits", "MHz", "MB sent", "GiB");
    for (int i = 0; i < t->n; i++)
        print_row(t, &t->row[i]);
}

static json_t *row_json(const at_forecast_row *r)
{
    const at_priced_sum *s = &r->forecast.sum;
    char text[96];

    return json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:b}",
                     "parallel", at_degrees_text(&r->plan.degrees, text), "ranks", r->plan.ranks,
                     "ms", 1e3 * r->plan.step, "products_ms", 1e3 * s->kind[AT_COST_LINEAR],
                     "attention_ms", 1e3 * s->kind[AT_COST_ATTENTION], "convs_ms",
                     1e3 * s->kind[AT_COST_CONV], "passes_ms", 1e3 * s->kind[AT_COST_PASS],
                     "exchange_ms", 1e3 * r->plan.exchange, "mhz", s->clock / 1e6, "sent_bytes",
                     r->plan.sent, "bytes", r->plan.bytes, "ops", s->ops, "exchanges", s->meetings,
                     "fits", r->plan.fits);
}

static at_status print_json(const at_bench_options *b, const at_machine *m,
                            const at_forecast_table *t)
{
    char text[96];
    json_t *list = json_array();

    for (int i = 0; i < t->n; i++)
        json_array_append_new(list, row_json(&t->row[i]));
    json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:s, s:b, s:s, s:o}", "arch", b->shape->name,
                          "machine", m->name, "width", b->width, "height", b->height, "batch",
                          b->batch, "compute", at_dtype_name(b->compute), "fp8", b->fp8, "auto",
                          at_degrees_text(&t->automatic, text), "ways", list);
    char *out = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    if (!out) return at_fail(AT_ENOMEM, "plan: no memory");
    puts(out);
    at_free(out);
    return AT_OK;
}

static at_status describe(const at_machine *m)
{
    char *text = at_machine_text(m);

    if (!text) return at_fail(AT_ENOMEM, "plan: no memory");
    puts(text);
    at_free(text);
    return AT_OK;
}

at_status at_plan_arch(const at_plan_arch_options *o, const char *dtype)
{
    at_status st = AT_OK;
    at_machine machine;
    at_bench_options b;
    at_forecast_table *t = at_calloc(1, sizeof *t);

    if (!t) AT_TRY(at_fail(AT_ENOMEM, "plan: no memory"));
    at_engine_setup_devices();
    AT_TRY(at_machine_find(o->like ? o->like : "h200", &machine));
    if (o->describe) {
        AT_TRY(describe(&machine));
        goto out;
    }
    AT_TRY(bench_of(o, dtype, &b));
    AT_TRY(at_forecast_ways(&b, &machine, t));
    if (o->json)
        AT_TRY(print_json(&b, &machine, t));
    else
        print_table(&b, &machine, t);
out:
    at_free(t);
    return st;
}
