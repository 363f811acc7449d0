// SPDX-License-Identifier: Apache-2.0
// forecast_ways.c - see forecast_ways.h.
#include "models/forecast_ways.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

typedef struct way {
    at_degrees degrees; // without cfg
    int64_t batch;
    bool possible;
    at_forecast forecast;
} way;

struct at_forecasts {
    at_model *model;
    at_forecast_work work;
    at_rates rates;
    way *list;
    size_t n, room;
    way spare; // the last one where there is no memory to keep it
};

at_status at_forecasts_new(at_model *m, const at_forecast_work *work, const at_rates *rates,
                           at_forecasts **out)
{
    *out = at_calloc(1, sizeof **out);
    if (!*out) return at_fail(AT_ENOMEM, "plan: no memory for forecasts");
    **out = (at_forecasts){.model = m, .work = *work, .rates = *rates};
    return AT_OK;
}

void at_forecasts_free(at_forecasts *f)
{
    if (!f) return;
    at_free(f->list);
    at_free(f);
}

static way *new_way(at_forecasts *f)
{
    if (f->n == f->room) {
        size_t room = f->room ? 2 * f->room : 32;
        way *grown = at_realloc(f->list, room * sizeof *grown);
        if (!grown) return &f->spare;
        f->list = grown;
        f->room = room;
    }
    return &f->list[f->n++];
}

const at_forecast *at_forecasts_find(at_forecasts *f, const at_degrees *degrees, int64_t batch)
{
    char text[96];
    at_degrees d = *degrees;

    d.of[AT_AXIS_CFG] = 0;
    for (size_t i = 0; i < f->n; i++)
        if (f->list[i].batch == batch && at_degrees_same(&f->list[i].degrees, &d))
            return f->list[i].possible ? &f->list[i].forecast : NULL;
    way *w = new_way(f);
    at_forecast_work work = f->work;
    work.batch = batch;
    *w = (way){.degrees = d, .batch = batch};
    at_status st = at_forecast_denoiser(f->model, &work, &d, &f->rates, &w->forecast);
    w->possible = st == AT_OK;
    if (st != AT_OK)
        at_log(AT_DEBUG, "FORECAST", "%s: %s", at_degrees_text(&d, text), at_error_text());
    return w->possible ? &w->forecast : NULL;
}

static at_par_word price(void *ctx, const at_degrees *degrees, int64_t units, at_par_price *out)
{
    const at_forecast *f = at_forecasts_find(ctx, degrees, units);

    if (!f) return AT_PAR_IMPOSSIBLE;
    *out = (at_par_price){.compute = f->sum.seconds - f->sum.exposed,
                          .exchange = f->sum.exposed,
                          .sent = f->sum.out,
                          .activations = f->activations};
    return AT_PAR_PRICED;
}

at_par_pricer at_forecasts_pricer(at_forecasts *f)
{
    return (at_par_pricer){.price = price, .ctx = f};
}
