// SPDX-License-Identifier: Apache-2.0
// forecast.c - see forecast.h.
#include "models/forecast.h"

#include <math.h>
#include <string.h>

#include "par/comm_alone.h"

enum { RUN = 28, MOST = 64 };

typedef struct subject {
    at_model *model;
    at_vae *vae;
    const at_forecast_work *work;
} subject;

static void told(void *ctx, const at_alone_exchange *e)
{
    at_priced_when when = e->when == AT_ALONE_NOW     ? AT_MEET_NOW
                          : e->when == AT_ALONE_BEGIN ? AT_MEET_BEGIN
                                                      : AT_MEET_END;

    at_priced_meet(
        ctx, when,
        &(at_priced_meeting){.out = e->out, .in = e->in, .others = e->others, .sum = e->sum});
}

static void denoise(at_ops *o, const subject *s, int step)
{
    const at_forecast_work *w = s->work;
    float steps[RUN], now[MOST], guidance[MOST];
    int64_t b = w->batch, width = at_model_vector_width(s->model);

    for (int i = 0; i < RUN; i++)
        steps[i] = 1 - (float)i / RUN;
    for (int64_t i = 0; i < b; i++) {
        now[i] = steps[step];
        guidance[i] = 3.5f;
    }
    int64_t x[] = {b, at_model_channels(s->model), w->latent_h, w->latent_w};
    int64_t text[] = {b, w->text_tokens, at_model_text_width(s->model)};
    at_model_in in = {.x = at_zeros(o, AT_F32, 4, x),
                      .context = at_zeros(o, w->compute, 3, text),
                      .pooled = width ? at_zeros(o, w->compute, 2, (int64_t[]){b, width}) : NULL,
                      .timestep = now,
                      .guidance = guidance,
                      .steps = steps,
                      .n_steps = RUN,
                      .key = 1};
    if (at_ops_status(o) == AT_OK) at_model_forward(o, s->model, &in);
}

static void decode(at_ops *o, const subject *s)
{
    const at_forecast_work *w = s->work;
    int64_t x[] = {w->batch, at_vae_channels(s->vae), w->latent_h, w->latent_w};

    at_vae_decode_raw(o, s->vae, at_zeros(o, AT_F32, 4, x));
}

static at_status run_rank(const subject *s, at_priced *p, const at_degrees *degrees, int rank,
                          at_forecast *out)
{
    at_status st = AT_OK;
    at_mesh mesh = {0};
    at_ops *o = NULL;
    at_device *d = at_priced_device(p);

    AT_TRY(at_mesh_alone(degrees, rank, true, told, p, &mesh));
    at_ops_config config = {
        .device = d, .compute = s->work->compute, .mesh = &mesh, .fp8 = s->work->fp8};
    AT_TRY(at_ops_new(&config, &o));
    size_t before = atomic_load(&d->live_bytes);
    at_device_reset_peak(d);
    for (int i = 0; i < 2 && at_ops_status(o) == AT_OK; i++) {
        at_priced_clear(p);
        at_scope_begin(o);
        s->model ? denoise(o, s, i) : decode(o, s);
        at_scope_end(o, NULL);
    }
    AT_TRY(at_ops_status(o));
    at_priced_sum sum = at_priced_play(p);
    double bytes = (double)(atomic_load(&d->peak_bytes) - before);
    if (bytes > out->activations) out->activations = bytes;
    if (sum.seconds > out->sum.seconds) {
        out->sum = sum;
        out->rank = rank;
    }
out:
    at_ops_free(o);
    if (s->model) at_model_forget(s->model);
    at_mesh_alone_free(&mesh);
    return st;
}

// How much slower n chips at their limit are than one.
static double slower_by(const at_rates *r, int n)
{
    // How far the largest of n normal draws lies above the mean, in deviations.
    static const double largest[] = {0, 0, 0.564, 0.846, 1.029, 1.163, 1.267, 1.352, 1.424};
    double of = n <= 8 ? largest[n] : largest[8] + 0.5 * log(n / 8.0);

    return n < 2 ? 0 : r->together + r->spread * (of - largest[2]);
}

// Ranks differ in shares of tokens, heads and rows: the first has the most, an inner one has two neighbours.
static at_status run(const subject *s, const at_degrees *degrees, const at_rates *rates,
                     at_forecast *out)
{
    at_status st = AT_OK;
    at_priced *p = NULL;
    at_degrees one = *degrees;

    *out = (at_forecast){0};
    one.of[AT_AXIS_CFG] = 0;
    int n = at_degrees_ranks(&one);
    if (s->work->batch < 1 || s->work->batch > MOST)
        AT_TRY(at_fail(AT_EINVAL, "a batch of %lld; 1 to %d can be foreseen",
                       (long long)s->work->batch, MOST));
    AT_TRY(at_priced_new(rates, &p));
    AT_TRY(run_rank(s, p, &one, 0, out));
    if (n > 2) AT_TRY(run_rank(s, p, &one, n / 2, out));
    if (n > 1) AT_TRY(run_rank(s, p, &one, n - 1, out));
    // At the power limit chips differ, and the slowest sets the pace.
    if (out->sum.clock < rates->hertz) out->sum.seconds *= 1 + slower_by(rates, n);
out:
    at_priced_free(p);
    return st;
}

at_status at_forecast_denoiser(at_model *m, const at_forecast_work *work, const at_degrees *degrees,
                               const at_rates *rates, at_forecast *out)
{
    return run(&(subject){.model = m, .work = work}, degrees, rates, out);
}

at_status at_forecast_decoder(at_vae *v, const at_forecast_work *work, const at_degrees *degrees,
                              const at_rates *rates, at_forecast *out)
{
    return run(&(subject){.vae = v, .work = work}, degrees, rates, out);
}
