// SPDX-License-Identifier: Apache-2.0
// bench_subject.c - what bench runs: one component with inputs, and one step of it. See bench_ranks.h.
#include "engine/bench_ranks.h"

#include "base/mem.h"
#include "sample/noise.h"

enum { RUN = 28, MAX_BATCH = AT_BENCH_BATCH };

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

static at_status prepare_denoiser(const at_bench_options *b, at_ops *o, at_store *s,
                                  at_bench_subject *u)
{
    int64_t n = b->batch, h = b->height / 8, w = b->width / 8;
    int64_t tokens = b->text_tokens ? b->text_tokens : b->shape->text_tokens;
    at_status st = u->model ? AT_OK : at_model_load(s, b->shape->name, &u->model);
    if (st != AT_OK) return st;
    int64_t width = at_model_text_width(u->model), vector = at_model_vector_width(u->model);
    u->x = random_tensor(o, 1, 4, (int64_t[]){n, at_model_latent(u->model)->channels, h, w});
    u->context = random_tensor(o, 2, 3, (int64_t[]){n, tokens, width});
    if (vector) u->pooled = random_tensor(o, 3, 2, (int64_t[]){n, vector});
    return AT_OK;
}

static at_status prepare_encoder(const at_bench_options *b, at_store *s, at_bench_subject *u)
{
    at_found found[4];
    if (!at_detect(s, found, 4)) return at_fail(AT_EINTERNAL, "bench: encoder not detected");
    at_status st = u->encoder ? AT_OK : at_encoder_load(s, &found[0], &u->encoder);
    if (st != AT_OK) return st;
    u->tokens = at_encoder_max_tokens(u->encoder) ? at_encoder_max_tokens(u->encoder)
                : b->text_tokens                  ? b->text_tokens
                                                  : b->shape->text_tokens;
    u->ids = at_calloc((size_t)(u->tokens * b->batch), sizeof *u->ids);
    if (!u->ids) return at_fail(AT_ENOMEM, "bench: no memory");
    for (int64_t i = 0; i < u->tokens * b->batch; i++)
        u->ids[i] = (int32_t)(17 * i % 30000);
    return AT_OK;
}

at_status at_bench_prepare(const at_bench_options *b, at_ops *o, at_store *s, at_bench_subject *u)
{
    at_status st = AT_OK;
    int64_t n = b->batch, h = b->height / 8, w = b->width / 8;
    u->batch = n;
    u->encode = b->shape->work == AT_BENCH_ENCODE;
    switch (b->shape->part) {
    case AT_PART_DENOISER: st = prepare_denoiser(b, o, s, u); break;
    case AT_PART_TEXT: st = prepare_encoder(b, s, u); break;
    case AT_PART_VAE:
        st = at_vae_load(s, b->shape->name, &u->vae);
        if (st != AT_OK) return st;
        u->x = u->encode ? random_tensor(o, 1, 4, (int64_t[]){n, 3, h * 8, w * 8})
                         : random_tensor(o, 1, 4, (int64_t[]){n, at_vae_channels(u->vae), h, w});
        break;
    default:
        return at_fail(AT_EUNSUPPORTED, "bench: %s is no denoiser, text encoder or VAE",
                       b->shape->name);
    }
    return st == AT_OK ? at_ops_status(o) : st;
}

void at_bench_subject_free(at_bench_subject *u)
{
    at_model_release(&u->model);
    at_encoder_release(&u->encoder);
    at_vae_release(&u->vae);
    at_free(u->ids);
    *u = (at_bench_subject){0};
}

// Step i of a run whose steps are known, as a sampler's are; of the pictures x.
static at_tensor *denoise(at_ops *o, at_bench_subject *u, int i, int64_t first, int64_t n)
{
    float steps[RUN], timestep[MAX_BATCH], guidance[MAX_BATCH];

    for (int k = 0; k < RUN; k++)
        steps[k] = 1.0f - (float)k / RUN;
    for (int64_t k = 0; k < n; k++) {
        timestep[k] = steps[i % RUN];
        guidance[k] = 3.5f;
    }
    at_model_in in = {.x = at_narrow(o, u->x, 0, first, n),
                      .timestep = timestep,
                      .steps = steps,
                      .n_steps = RUN,
                      .key = 1 + (uint64_t)first, // what is kept for one share is not for another
                      .context = at_narrow(o, u->context, 0, first, n),
                      .guidance = guidance};
    if (u->pooled) in.pooled = at_narrow(o, u->pooled, 0, first, n);
    return at_ops_status(o) == AT_OK ? at_model_forward(o, u->model, &in) : NULL;
}

// A share of the pictures on each rank of the first axis, as the halves of a guided step; then all to all.
static at_tensor *denoise_shares(at_ops *o, at_bench_subject *u, int i)
{
    at_comm *c = at_ops_mesh(o)->axis[AT_AXIS_CFG];
    int64_t n = u->batch / c->size;
    at_tensor *mine = denoise(o, u, i, n * c->rank, n), *all;

    if (!mine || c->size == 1) return mine;
    all = at_empty(o, mine->dtype, mine->rank,
                   (int64_t[]){u->batch, mine->shape[1], mine->shape[2], mine->shape[3]});
    at_device *d = at_ops_device(o);
    at_status st = !all ? at_ops_status(o) : c->on_device ? AT_OK : d->ops->synchronize(d);
    if (st == AT_OK)
        st =
            c->ops->all_gather(c, at_tensor_data(mine), at_tensor_data(all), at_tensor_bytes(mine));
    return st == AT_OK ? all : at_ops_poison(o, st, "%s", at_error_text());
}

at_status at_bench_forward(at_ops *o, at_bench_subject *u, int i, float *out, size_t bytes)
{
    at_tensor *t;
    at_status st = AT_OK;

    at_scope_begin(o);
    if (u->model) {
        t = denoise_shares(o, u, i);
    } else if (u->vae && u->encode) {
        t = at_vae_encode_raw(o, u->vae, u->x);
    } else if (u->vae) {
        t = at_vae_decode_raw(o, u->vae, u->x);
    } else {
        at_encode_in in = {.ids = u->ids, .batch = u->batch, .tokens = u->tokens, .eos = -1};
        t = at_encoder_forward(o, u->encoder, &in).hidden;
    }
    u->result = t ? at_tensor_count(t) : 0;
    if (out && t) {
        size_t need = (size_t)at_tensor_count(t) * sizeof *out;
        st = need <= bytes
                 ? at_tensor_to_host(t, AT_F32, out, need)
                 : at_fail(AT_EINTERNAL, "bench: %zu bytes of result in %zu", need, bytes);
    }
    at_scope_end(o, NULL);
    return st == AT_OK ? at_ops_status(o) : st;
}
