// SPDX-License-Identifier: Apache-2.0
// guide.c - model and conditionings as a denoiser: inputs scaled, x0 from the network's output, CFG.
#include "nodes/guide.h"

#include "sample/guidance.h"

#define MAX_BATCH 64

// One tensor repeated along the batch.
static at_tensor *repeat_batch(at_ops *o, const at_tensor *t, int64_t n)
{
    const at_tensor *parts[MAX_BATCH];
    if (!t || n == 1) return (at_tensor *)t;
    if (n > MAX_BATCH)
        return at_ops_poison(o, AT_EINVAL, "a batch of %lld is too large", (long long)n);
    for (int64_t i = 0; i < n; i++)
        parts[i] = t;
    return at_concat(o, 0, (int)n, parts);
}

static at_tensor *join(at_ops *o, const at_tensor *a, const at_tensor *b)
{
    if (!a || !b) return NULL;
    return at_concat(o, 0, 2, (const at_tensor *const[]){a, b});
}

// x0 under one conditioning, or under two at once (b != NULL, same shapes): *second gets b's.
static at_tensor *evaluate(at_ops *o, const at_guide *g, const at_tensor *x, float sigma,
                           const at_cond *a, const at_cond *b, at_tensor **second)
{
    int64_t n = x->shape[0], rows = b ? 2 * n : n;
    float t[2 * MAX_BATCH], guidance[2 * MAX_BATCH];
    if (n > MAX_BATCH)
        return at_ops_poison(o, AT_EINVAL, "a batch of %lld latents: %d is the most", (long long)n,
                             MAX_BATCH);
    float timestep = at_sigma_to_timestep(&g->sampling, sigma);
    for (int64_t i = 0; i < rows; i++) {
        const at_cond *c = i < n ? a : b;
        t[i] = timestep;
        guidance[i] = c->has_guidance ? c->guidance : 3.5f;
    }
    at_tensor *in = at_model_input(o, &g->sampling, x, sigma);
    at_tensor *context = repeat_batch(o, a->context, n);
    at_tensor *pooled = repeat_batch(o, a->pooled, n);
    if (b) {
        in = join(o, in, in);
        context = join(o, context, repeat_batch(o, b->context, n));
        pooled = a->pooled ? join(o, pooled, repeat_batch(o, b->pooled, n)) : NULL;
    }
    at_model_in mi = {
        .x = in, .timestep = t, .context = context, .pooled = pooled, .guidance = guidance};
    at_tensor *raw = at_model_forward(o, g->model, &mi);
    if (!raw) return NULL;
    if (!b) return at_model_x0(o, &g->sampling, x, raw, sigma);
    at_tensor *raw_b = at_contiguous(o, at_narrow(o, raw, 0, n, n));
    *second = at_model_x0(o, &g->sampling, x, raw_b, sigma);
    return at_model_x0(o, &g->sampling, x, at_contiguous(o, at_narrow(o, raw, 0, 0, n)), sigma);
}

static bool same_shapes(const at_cond *a, const at_cond *b)
{
    return a->context->shape[1] == b->context->shape[1] && (!a->pooled) == (!b->pooled);
}

// A cond is skipped outside its range of sigmas.
static bool active(const at_guide *g, const at_cond *c, float sigma)
{
    if (c->start_percent > 0.0f && sigma > at_percent_to_sigma(&g->sampling, c->start_percent))
        return false;
    if (c->end_percent < 1.0f && sigma < at_percent_to_sigma(&g->sampling, c->end_percent))
        return false;
    return true;
}

// The strength-weighted mean over a list (contract 5.5); zeros if none is active.
static at_tensor *evaluate_list(at_ops *o, const at_guide *g, const at_tensor *x, float sigma,
                                const at_obj_cond *list)
{
    at_tensor *sum = NULL;
    float weight = 0.0f;
    for (size_t i = 0; i < list->count; i++) {
        const at_cond *c = &list->items[i];
        if (!active(g, c, sigma)) continue;
        at_tensor *one = evaluate(o, g, x, sigma, c, NULL, NULL);
        float coef[2] = {c->strength, 1.0f};
        sum = at_lincomb(o, sum ? 2 : 1, coef, (const at_tensor *const[]){one, sum});
        weight += c->strength;
        if (!sum) return NULL;
    }
    if (!sum) return at_zeros(o, AT_F32, x->rank, x->shape);
    float inverse = weight != 0.0f ? 1.0f / weight : 0.0f;
    return at_lincomb(o, 1, &inverse, (const at_tensor *const[]){sum});
}

static at_denoised guide_call(void *ctx, at_ops *o, const at_tensor *x, float sigma,
                              bool want_uncond)
{
    const at_guide *g = ctx;
    at_denoised d = {0};
    bool need_uncond = g->negative && at_cfg_needs_uncond(g->cfg, want_uncond);
    at_tensor *cond = NULL, *uncond = NULL;

    at_scope_begin(o);
    if (need_uncond && g->positive->count == 1 && g->negative->count == 1 &&
        same_shapes(g->positive->items, g->negative->items) &&
        active(g, g->positive->items, sigma) && active(g, g->negative->items, sigma)) {
        cond = evaluate(o, g, x, sigma, g->positive->items, g->negative->items, &uncond);
    } else {
        cond = evaluate_list(o, g, x, sigma, g->positive);
        if (need_uncond) uncond = evaluate_list(o, g, x, sigma, g->negative);
    }
    at_tensor *out = need_uncond ? at_cfg(o, cond, uncond, g->cfg) : cond;
    // Without a negative prompt a cfg++ solver reads the conditioned estimate, as ComfyUI's hook does.
    if (want_uncond) d.uncond = uncond ? uncond : cond;
    at_tensor *kept = want_uncond ? at_ops_keep(o, d.uncond) : NULL;
    d.out = at_scope_end(o, out);
    if (kept) d.uncond = at_ops_adopt(o, kept);
    return d;
}

at_denoiser at_guide_denoiser(at_guide *g)
{
    g->sampling = *at_model_get_sampling(g->model);
    return (at_denoiser){.call = guide_call, .ctx = g, .sampling = &g->sampling};
}
