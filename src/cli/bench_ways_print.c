// SPDX-License-Identifier: Apache-2.0
// bench_ways_print.c - see bench_ways_print.h.
#include "cli/bench_ways_print.h"

#include <jansson.h>
#include <stdio.h>

#include "base/mem.h"

static double percent(double a, double b)
{
    return b > 0 ? 100 * (a / b - 1) : 0;
}

static void print_way(const at_bench_way *w)
{
    char text[96];

    printf("  %-28s %10.2f %10.2f", at_degrees_text(&w->plan.degrees, text), 1e3 * w->plan.step,
           1e3 * w->calibrated);
    if (w->st != AT_OK) {
        printf("  failed: %s\n", w->why);
        return;
    }
    printf(" %10.2f %+7.1f %% %+7.1f %%", 1e3 * w->step, percent(w->plan.step, w->step),
           w->calibrated > 0 ? percent(w->calibrated, w->step) : 0);
    if (w->plan.ranks > 1) printf("  %.1e", w->difference);
    putchar('\n');
}

static void print_pick(const at_bench_ways *w, int picked, const char *who)
{
    char pick[96], best[96];

    if (picked < 0 || w->best < 0 || w->way[picked].st != AT_OK) return;
    printf("  %s takes %s: %.2f ms, %+.1f %% against the fastest (%s)\n", who,
           at_degrees_text(&w->way[picked].plan.degrees, pick), 1e3 * w->way[picked].step,
           percent(w->way[picked].step, w->way[w->best].step),
           at_degrees_text(&w->way[w->best].plan.degrees, best));
}

void at_bench_ways_print(const at_bench_options *b, const at_bench_ways *w)
{
    printf("%s, %d x %d, batch %d, compute %s%s, on %d of %s\n", b->shape->name, b->width,
           b->height, b->batch, at_dtype_name(b->compute), b->fp8 ? " and fp8" : "", b->ranks,
           b->device->description);
    printf("  %-28s %10s %10s %10s %9s %9s  %s\n", "ms a step", "predicted", "calibrated",
           "measured", "error", "calibr.", "difference from one rank");
    for (int i = 0; i < w->n; i++)
        print_way(&w->way[i]);
    print_pick(w, w->picked, "auto");
    print_pick(w, w->picked_calibrated, "auto that knows one device's step");
}

static json_t *way_json(const at_bench_way *w)
{
    char text[96];
    json_t *o =
        json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "parallel",
                  at_degrees_text(&w->plan.degrees, text), "ranks", w->plan.ranks, "predicted_ms",
                  1e3 * w->plan.step, "calibrated_ms", 1e3 * w->calibrated, "measured_ms",
                  1e3 * w->step, "difference", w->difference, "exchange_wait_ms",
                  1e3 * w->spent.waited, "exchange_send_ms", 1e3 * w->spent.moved);

    if (o && w->st != AT_OK) json_object_set_new(o, "error", json_string(w->why));
    return o;
}

static json_t *name_of(const at_bench_ways *w, int i)
{
    char text[96];

    return i < 0 ? json_null() : json_string(at_degrees_text(&w->way[i].plan.degrees, text));
}

at_status at_bench_ways_json(const at_bench_options *b, const at_bench_ways *w)
{
    json_t *list = json_array();

    for (int i = 0; i < w->n; i++)
        json_array_append_new(list, way_json(&w->way[i]));
    json_t *o = json_pack(
        "{s:s, s:i, s:i, s:i, s:s, s:b, s:o, s:o, s:o, s:o}", "arch", b->shape->name, "width",
        b->width, "height", b->height, "batch", b->batch, "compute", at_dtype_name(b->compute),
        "fp8", b->fp8, "auto", name_of(w, w->picked), "auto_calibrated",
        name_of(w, w->picked_calibrated), "fastest", name_of(w, w->best), "ways", list);
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    if (!text) return at_fail(AT_ENOMEM, "bench: no memory");
    puts(text);
    at_free(text);
    return AT_OK;
}
