// SPDX-License-Identifier: Apache-2.0
// bench.c - timing one component step by step.
#include "engine/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/trace_file.h"
#include "sample/noise.h"
#include "tensor/device_trace.h"

#define MAX_STEPS 1000

// What one step needs; exactly one of model, encoder, vae is set.
typedef struct subject {
    at_model *model;
    at_encoder *encoder;
    at_vae *vae;
    at_tensor *x, *context, *pooled;
    int32_t *ids;
    int64_t tokens;
} subject;

static at_tensor *random_tensor(at_ops *o, uint64_t seed, int rank, const int64_t *shape)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= shape[i];
    float *values = at_alloc((size_t)n * sizeof *values);
    if (!values)
        return at_ops_poison(o, AT_ENOMEM, "bench: no memory for %lld inputs", (long long)n);
    at_randn(seed, values, n);
    at_tensor *t = at_from_host(o, AT_F32, rank, shape, values);
    at_free(values);
    return t;
}

static at_status prepare(const at_bench_options *b, at_ops *o, at_store *s, subject *u)
{
    at_found found[4];
    at_status st = AT_OK;
    int64_t h = b->height / 8, w = b->width / 8;
    switch (b->shape->part) {
    case AT_PART_DENOISER:
        st = at_model_load(s, b->shape->name, &u->model);
        if (st != AT_OK) return st;
        u->x = random_tensor(o, 1, 4, (int64_t[]){1, at_model_latent(u->model)->channels, h, w});
        u->context =
            random_tensor(o, 2, 3, (int64_t[]){1, b->text_tokens, at_model_text_width(u->model)});
        if (at_model_vector_width(u->model))
            u->pooled = random_tensor(o, 3, 2, (int64_t[]){1, at_model_vector_width(u->model)});
        break;
    case AT_PART_VAE:
        st = at_vae_load(s, b->shape->name, &u->vae);
        if (st != AT_OK) return st;
        u->x = random_tensor(o, 1, 4, (int64_t[]){1, at_vae_channels(u->vae), h, w});
        break;
    case AT_PART_TEXT:
        if (!at_detect(s, found, 4)) return at_fail(AT_EINTERNAL, "bench: encoder not detected");
        st = at_encoder_load(s, &found[0], &u->encoder);
        if (st != AT_OK) return st;
        u->tokens =
            at_encoder_max_tokens(u->encoder) ? at_encoder_max_tokens(u->encoder) : b->text_tokens;
        u->ids = at_calloc((size_t)u->tokens, sizeof *u->ids);
        if (!u->ids) return at_fail(AT_ENOMEM, "bench: no memory");
        for (int64_t i = 0; i < u->tokens; i++)
            u->ids[i] = (int32_t)(17 * i % 30000);
        break;
    default:
        return at_fail(AT_EUNSUPPORTED, "bench: %s is no denoiser, text encoder or VAE",
                       b->shape->name);
    }
    return at_ops_status(o);
}

// Step i of a run whose steps are known, as a sampler's are.
static at_status step(at_ops *o, subject *u, int i)
{
    enum { RUN = 28 };
    float steps[RUN];
    at_scope_begin(o);
    if (u->model) {
        for (int k = 0; k < RUN; k++)
            steps[k] = 1.0f - (float)k / RUN;
        at_model_in in = {.x = u->x,
                          .timestep = &steps[i % RUN],
                          .steps = steps,
                          .n_steps = RUN,
                          .key = 1,
                          .context = u->context,
                          .pooled = u->pooled,
                          .guidance = (float[]){3.5f}};
        at_model_forward(o, u->model, &in);
    } else if (u->vae) {
        at_vae_decode_raw(o, u->vae, u->x);
    } else {
        at_encode_in in = {.ids = u->ids, .batch = 1, .tokens = u->tokens, .eos = -1};
        at_encoder_forward(o, u->encoder, &in);
    }
    at_scope_end(o, NULL);
    return at_ops_status(o);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

// A device works behind the host's back: a time is taken when it has caught up.
static at_status caught_up(const at_bench_options *b)
{
    return b->device->ops->synchronize(b->device);
}

// One large linear layer with this storage and compute type: what the machine can do at best.
static at_status measure_ceiling(const at_bench_options *b, at_ops *o, double *flops)
{
    enum { M = 2048, N = 3072, K = 3072, RUNS = 5 };
    at_status st = AT_OK;
    at_store *s = NULL;
    double seconds[RUNS];

    AT_TRY(at_store_new("ceiling", &s));
    AT_TRY(at_bench_add_matrix(s, "w", b->storage, N, K));
    at_scope_begin(o);
    at_tensor *x = at_cast(o, random_tensor(o, 4, 3, (int64_t[]){1, M, K}), b->compute);
    for (int i = 0; i <= RUNS; i++) {
        double start = at_now();
        at_scope_begin(o);
        at_linear(o, x, at_store_find(s, "w"), NULL, NULL);
        at_scope_end(o, NULL);
        AT_TRY(caught_up(b));
        if (i) seconds[i - 1] = at_now() - start;
    }
    at_scope_end(o, NULL);
    AT_TRY(at_ops_status(o));
    *flops = 2.0 * M * N * K / median(seconds, RUNS);
out:
    at_store_release(&s);
    return st;
}

static void take_stats(at_ops *o, int steps, at_bench_report *r)
{
    at_ops_stats s;
    at_ops_stats_get(o, &s);
    r->linear_flops = s.flops_linear / steps;
    r->linear_seconds = s.seconds_linear / steps;
    r->attention_flops = s.flops_attention / steps;
    r->attention_seconds = s.seconds_attention / steps;
    r->conv_flops = s.flops_conv / steps;
    r->conv_seconds = s.seconds_conv / steps;
    r->other_seconds = s.seconds_other / steps;
}

static void per_step(at_trace_sum *rows, size_t n, int steps)
{
    for (size_t i = 0; i < n; i++) {
        rows[i].calls /= steps;
        rows[i].seconds /= steps;
        rows[i].host_seconds /= steps;
        rows[i].flops /= steps;
        rows[i].bytes /= steps;
    }
}

// A few more steps op by op, with ops of their own: these see the wrapped slots.
static at_status trace(const at_bench_options *b, const at_ops_config *config, subject *u,
                       at_bench_report *r)
{
    enum { STEPS = 2 };
    at_status st = AT_OK;
    at_ops *o = NULL;

    at_device_trace_start(AT_TRACE_OPS);
    st = at_ops_new(config, &o);
    for (int i = 0; i < STEPS && st == AT_OK; i++) {
        double began = at_trace_begin();
        st = step(o, u, i);
        at_trace_end(began, "step", "step %d", i + 1);
        if (st == AT_OK) st = caught_up(b);
    }
    at_status stopped = at_device_trace_stop();
    if (st == AT_OK) st = stopped;
    at_ops_free(o);
    if (st != AT_OK) return st;
    r->traced_steps = STEPS;
    at_trace_by_class(r->classes);
    per_step(r->classes, AT_CLASSES, STEPS);
    r->n_kernels = at_trace_by_kernel(true, r->kernels, AT_BENCH_KERNELS);
    if (r->n_kernels > AT_BENCH_KERNELS) r->n_kernels = AT_BENCH_KERNELS;
    per_step(r->kernels, r->n_kernels, STEPS);
    return b->trace ? at_trace_write(b->trace) : AT_OK;
}

at_status at_bench_run(const at_bench_options *b, at_bench_report *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_store *s = NULL;
    subject u = {0};
    double times[MAX_STEPS];
    int steps = b->steps < 1 ? 1 : b->steps > MAX_STEPS ? MAX_STEPS : b->steps;

    *out = (at_bench_report){0};
    at_mem_reset_peak();
    double start = at_now();
    at_ops_config config = {.device = b->device, .compute = b->compute, .int8 = b->int8};
    AT_TRY(at_ops_new(&config, &o));
    AT_TRY(at_store_new(b->shape->name, &s));
    AT_TRY(b->shape->fill(s, b->storage, b->doubles, b->singles));
    AT_TRY(prepare(b, o, s, &u));
    out->load_seconds = at_now() - start;

    start = at_now();
    AT_TRY(step(o, &u, 0));
    AT_TRY(caught_up(b));
    out->first_step = at_now() - start;
    start = at_now(); // a device that records does it now
    if (b->device->ops->record_begin) AT_TRY(step(o, &u, 1));
    if (b->device->ops->record_begin) AT_TRY(step(o, &u, 2));
    AT_TRY(caught_up(b));
    if (b->device->ops->record_begin) out->settle = at_now() - start;
    at_ops_stats_reset(o);
    for (int i = 0; i < steps; i++) {
        start = at_now();
        AT_TRY(step(o, &u, i + 1));
        AT_TRY(caught_up(b));
        times[i] = at_now() - start;
    }
    take_stats(o, steps, out);
    out->step = median(times, (size_t)steps);
    if (u.model && !b->device->ops->record_begin) // a replay has no blocks
        out->block_count =
            at_model_block_seconds(out->blocks, sizeof out->blocks / sizeof *out->blocks);
    out->peak_bytes = at_mem_get_stats().peak_bytes;
    if (b->trace || b->device->ops->mark) AT_TRY(trace(b, &config, &u, out));
    AT_TRY(measure_ceiling(b, o, &out->ceiling));
out:
    at_ops_free(o);
    at_model_release(&u.model);
    at_encoder_release(&u.encoder);
    at_vae_release(&u.vae);
    at_free(u.ids);
    at_store_release(&s);
    return st;
}
