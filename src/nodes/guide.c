// SPDX-License-Identifier: Apache-2.0
// guide.c - the guidance of one sampling run: estimates of the lists, and one answer out of them.
// Idea: at_guide_estimate is ComfyUI's calc_cond_batch, `guided` its cfg_function, and each kind of
// guider a few lines between the two.
// Easy to get wrong: at cfg 1 the negative list is not asked, and its estimate is zeros then, which
// hooks and cfg++ solvers without a negative prompt do see; only CFGGuider and PerpNegGuider run
// the hooks before guidance.
// Source: ComfyUI 0.3.64 comfy/samplers.py, comfy_extras/nodes_custom_sampler.py, nodes_perpneg.py;
// Armandpour et al. 2023 (Perp-Neg). Owns: see guide_impl.h.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/guide_impl.h"
#include "nodes/guide_sums.h"
#include "sample/guidance.h"

// --- estimates -----------------------------------------------------------------------------------
static at_tensor *mix2(at_ops *o, float a, const at_tensor *x, float b, const at_tensor *y)
{
    const float coef[2] = {a, b};
    return at_lincomb(o, 2, coef, (const at_tensor *const[]){x, y});
}

// acc[row .., rect] += x0 * weight
static void gather(at_ops *o, at_tensor *acc, const at_item *item, int64_t row, int64_t rows,
                   at_tensor *x0)
{
    const at_rect r = item->e->rect;
    at_tensor *mult = item->mult;

    if (mult && mult->shape[0] > 1) mult = at_narrow(o, mult, 0, row, rows);
    at_tensor *product = item->mult ? at_mul(o, x0, mult) : at_affine(o, x0, item->weight, 0);
    at_tensor *part = at_narrow(o, acc, 0, row, rows);
    part = at_narrow(o, at_narrow(o, part, 2, r.y, r.h), 3, r.x, r.w);
    at_binary(at_into(o, part), AT_ADD, part, product, AT_ACT_NONE);
}

// The only conditioning of its place, everywhere and for all latents at once: its x0 is the
// estimate.
static bool alone(const at_guide *g, const at_plan *p, const at_item *item)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_items; i++)
        n += p->items[i].place == item->place;
    return n == 1 && !p->masked[item->place] && item->weight > 0 && p->rows == g->shape[0];
}

// Estimates that are being put together.
typedef struct sums {
    at_guide *g;
    at_ops *o;
    const at_plan *p;
    at_tensor **acc; // one for each place
} sums;

static void take(void *ctx, const at_item *item, int64_t row, int64_t rows, at_tensor *x0)
{
    sums *s = ctx;
    at_tensor **to = &s->acc[item->place];

    if (alone(s->g, s->p, item)) {
        *to = x0;
        return;
    }
    if (!*to) *to = at_zeros(s->o, AT_F32, 4, s->g->shape);
    gather(s->o, *to, item, row, rows, x0);
}

static void tell_asked(at_guide *g)
{
    for (size_t i = 0; i < at_guide_hook_count(g); i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (h->ops->asked) h->ops->asked(h->self, g->runs[i]);
    }
}

// x as it comes: also of another height and width than before.
static at_status take_size(at_guide *g, const at_tensor *x)
{
    if (x->rank != 4 || x->shape[0] != g->shape[0] || x->shape[1] != g->shape[1])
        return at_fail(AT_EINVAL, "sampler: the latents changed their number or channels on the "
                                  "way");
    if (x->shape[2] == g->shape[2] && x->shape[3] == g->shape[3]) return AT_OK;
    return at_guide_resize(g, x->shape[2], x->shape[3]);
}

void at_guide_estimate(at_guide *g, at_ops *o, const at_tensor *x, float sigma, int n,
                       const at_list_id *list, const at_patches *patches, at_tensor **x0)
{
    at_tensor *acc[AT_GUIDE_LISTS] = {0};
    const at_plan *p = NULL;

    memset(x0, 0, (size_t)n * sizeof *x0);
    if (!x) {
        at_ops_poison(o, AT_EINVAL, "sampler: no picture to look at");
        return;
    }
    at_status st = take_size(g, x);
    if (st == AT_OK) st = at_guide_plan(g, n, list, sigma, &p);
    if (st != AT_OK) {
        at_ops_poison(o, st, "%s", at_error_text());
        return;
    }
    tell_asked(g);
    const at_tensor *scaled = at_model_input(o, &g->sampling, x, sigma);
    at_guide_units(g, o, p, x, scaled, sigma, patches ? patches : g->patches, take,
                   &(sums){g, o, p, acc});
    for (int i = 0; i < n && at_ops_status(o) == AT_OK; i++) {
        bool one = false;
        for (size_t k = 0; k < p->n_items; k++)
            one |= p->items[k].place == i && alone(g, p, &p->items[k]);
        if (!acc[i])
            x0[i] = at_zeros(o, AT_F32, 4, g->shape);
        else if (one)
            x0[i] = acc[i];
        else if (p->sum[i])
            x0[i] = at_binary(o, AT_DIV, acc[i], p->sum[i], AT_ACT_NONE);
        else
            x0[i] = at_affine(o, acc[i], 1.0f / p->weight[i], 0);
    }
}

const at_patches *at_guide_patches(const at_guide *g)
{
    return g->patches;
}
const at_model_sampling *at_guide_sampling(const at_guide *g)
{
    return &g->sampling;
}
const float *at_guide_sigmas(const at_guide *g, size_t *n)
{
    *n = g->n_sigmas;
    return g->sigmas;
}

// --- guidance ------------------------------------------------------------------------------------
static bool always_uncond(const at_guide *g)
{
    for (size_t i = 0; i < at_guide_hook_count(g); i++)
        if (at_guide_hook(g, i)->ops->always_uncond) return true;
    return false;
}

static void estimate_lists(at_ops *o, at_guided *d)
{
    at_guide *g = d->guide;
    for (size_t i = at_guide_hook_count(g); i-- > 0 && d->n == 2;) {
        const at_hook *h = at_guide_hook(g, i);
        if (!h->ops->estimate) continue;
        h->ops->estimate(h->self, g->runs[i], o, d);
        return;
    }
    at_guide_estimate(g, o, d->x, d->sigma, d->n, d->list, NULL, d->x0);
}

static void before(at_ops *o, at_guided *d)
{
    at_guide *g = d->guide;
    for (size_t i = 0; i < at_guide_hook_count(g) && at_ops_status(o) == AT_OK; i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (h->ops->pre_cfg) h->ops->pre_cfg(h->self, g->runs[i], o, d);
    }
}

static void after(at_ops *o, at_guided *d)
{
    at_guide *g = d->guide;
    for (size_t i = 0; i < at_guide_hook_count(g) && at_ops_status(o) == AT_OK; i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (h->ops->post_cfg) d->denoised = h->ops->post_cfg(h->self, g->runs[i], o, d);
    }
}

// cfg_function: x0[0] and x0[1] become one.
static void guided(at_ops *o, at_guided *d)
{
    at_guide *g = d->guide;
    const at_hook *own = NULL;
    size_t at = 0;

    if (at_ops_status(o) != AT_OK) return;
    for (size_t i = 0; i < at_guide_hook_count(g); i++)
        if (at_guide_hook(g, i)->ops->cfg) own = at_guide_hook(g, at = i);
    d->denoised =
        own ? own->ops->cfg(own->self, g->runs[at], o, d) : at_cfg(o, d->x0[0], d->x0[1], d->cfg);
    after(o, d);
}

static at_list_id if_present(const at_guide *g, at_list_id id)
{
    return g->lists[id].present ? id : AT_LIST_NONE;
}

static void answer_cfg(at_ops *o, at_guided *d, bool all)
{
    const at_guide *g = d->guide;
    d->n = 2;
    d->list[0] = AT_LIST_POSITIVE;
    d->list[1] = at_cfg_needs_uncond(d->cfg, all) ? if_present(g, AT_LIST_NEGATIVE) : AT_LIST_NONE;
    estimate_lists(o, d);
    before(o, d);
    guided(o, d);
}

// cfg2 from the negative prompt to cond2, then cfg from cond2 to the positive one; nested: the
// other way round.
static void answer_dual(at_ops *o, at_guided *d, bool all)
{
    at_guide *g = d->guide;
    bool nested = g->kind == AT_GUIDER_NESTED;
    bool negative = nested || at_cfg_needs_uncond(g->cfg2, all);
    bool third = negative || at_cfg_needs_uncond(g->cfg, all);
    at_list_id list[3] = {negative ? AT_LIST_NEGATIVE : AT_LIST_NONE,
                          third ? AT_LIST_THIRD : AT_LIST_NONE, AT_LIST_POSITIVE};
    at_tensor *x0[3];

    at_guide_estimate(g, o, d->x, d->sigma, 3, list, NULL, x0);
    d->n = 2;
    for (int i = 0; i < 2; i++) { // of the two that are guided between
        int from = nested ? 2 - i : 1 - i;
        d->list[i] = list[from];
        d->x0[i] = x0[from];
    }
    d->cfg = nested ? g->cfg : g->cfg2;
    guided(o, d);
    if (at_ops_status(o) != AT_OK) return;
    if (nested)
        d->denoised = at_cfg(o, d->denoised, x0[0], g->cfg2);
    else
        d->denoised = at_lincomb(o, 3, (const float[]){1, (float)g->cfg, -(float)g->cfg},
                                 (const at_tensor *const[]){d->denoised, x0[2], x0[1]});
}

// The negative direction counts only as far as it is not the positive one's. Where the positive
// prompt is the empty one there is no such direction, and nothing is taken away.
at_tensor *at_guide_perpendicular(at_ops *o, const at_tensor *positive, const at_tensor *negative,
                                  const at_tensor *empty, double cfg, double neg_scale)
{
    at_tensor *pos = mix2(o, 1, positive, -1, empty), *neg = mix2(o, 1, negative, -1, empty);
    double dot = 0, norm = 0;

    if (!at_sum_dot(o, neg, pos, &dot) || !at_sum_dot(o, pos, pos, &norm)) return NULL;
    float along = norm > 0 ? (float)(dot / norm) : 0;
    at_tensor *perp = mix2(o, 1, neg, -along, pos);
    return at_lincomb(o, 3, (const float[]){1, (float)cfg, (float)(-cfg * neg_scale)},
                      (const at_tensor *const[]){empty, pos, perp});
}

static void answer_perp_neg(at_ops *o, at_guided *d, bool all)
{
    at_guide *g = d->guide;
    bool negative = all || g->cfg2 != 0;
    bool empty = negative || at_cfg_needs_uncond(g->cfg, all);

    d->n = 3;
    d->list[0] = AT_LIST_POSITIVE;
    d->list[1] = negative ? AT_LIST_NEGATIVE : AT_LIST_NONE;
    d->list[2] = empty ? AT_LIST_THIRD : AT_LIST_NONE;
    at_guide_estimate(g, o, d->x, d->sigma, 3, d->list, NULL, d->x0);
    before(o, d);
    if (at_ops_status(o) != AT_OK) return;
    d->denoised = at_guide_perpendicular(o, d->x0[0], d->x0[1], d->x0[2], g->cfg, g->cfg2);
    after(o, d);
}

at_predicted at_predict_next(at_ops *o, const at_predict *p)
{
    at_guide *g = p->guide;
    for (size_t i = p->next; i < at_guide_hook_count(g); i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (!h->ops->predict) continue;
        at_predict inner = *p;
        inner.next = i + 1;
        return h->ops->predict(h->self, g->runs[i], o, &inner);
    }
    at_guided d = {.guide = g, .x = p->x, .sigma = p->sigma, .cfg = g->cfg};
    bool all = p->want_uncond || always_uncond(g);
    switch (g->kind) {
    case AT_GUIDER_CFG: answer_cfg(o, &d, all); break;
    case AT_GUIDER_DUAL:
    case AT_GUIDER_NESTED: answer_dual(o, &d, all); break;
    case AT_GUIDER_PERP_NEG: answer_perp_neg(o, &d, all); break;
    }
    return (at_predicted){d.denoised, p->want_uncond ? d.x0[1] : NULL};
}

static at_denoised guide_call(void *ctx, at_ops *o, const at_tensor *x, float sigma,
                              bool want_uncond)
{
    at_denoised d = {0};
    at_device *dev = at_ops_device(o);
    at_status st = dev->ops->throttle ? dev->ops->throttle(dev) : AT_OK;
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    at_scope_begin(o);
    at_predict p = {.guide = ctx, .x = x, .sigma = sigma, .want_uncond = want_uncond};
    at_predicted r = at_predict_next(o, &p);
    at_tensor *kept = at_ops_status(o) == AT_OK ? at_ops_keep(o, r.uncond) : NULL;
    d.out = at_scope_end(o, r.out);
    if (kept) d.uncond = at_ops_adopt(o, kept);
    return d;
}

at_denoiser at_guide_denoiser(at_guide *g)
{
    return (at_denoiser){.call = guide_call, .ctx = g, .sampling = &g->sampling};
}

// --- the denoise mask ----------------------------------------------------------------------------
static size_t mask_hook(const at_guide *g)
{
    for (size_t i = at_guide_hook_count(g); i-- > 0;)
        if (at_guide_hook(g, i)->ops->mask) return i;
    return SIZE_MAX;
}

bool at_guide_moves_mask(const at_guide *g)
{
    return g->mask && mask_hook(g) != SIZE_MAX;
}

at_tensor *at_guide_mask(void *guide, at_ops *o, float sigma)
{
    at_guide *g = guide;
    size_t i = mask_hook(g);
    const at_hook *h = at_guide_hook(g, i);
    return h->ops->mask(h->self, g->runs[i], o, g->mask, sigma);
}

// --- opening -------------------------------------------------------------------------------------
static at_status begin_hooks(at_guide *g)
{
    at_status st = AT_OK;
    at_patches *more = NULL;
    size_t n = at_guide_hook_count(g);

    g->runs = at_calloc(n + 1, sizeof *g->runs);
    if (!g->runs) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory"));
    for (size_t i = 0; i < n; i++) {
        const at_hook_ops *ops = at_guide_hook(g, i)->ops;
        g->runs[i] = at_calloc(1, ops->run_size + 1);
        if (!g->runs[i]) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a run", ops->name));
        if (ops->patch) {
            AT_TRY(at_patches_add(g->patches, ops->patch, g->runs[i], &more));
            at_patches_release(&g->patches);
            g->patches = more;
        }
    }
    for (g->begun = 0; g->begun < n;) {
        const at_hook *h = at_guide_hook(g, g->begun++);
        if (h->ops->begin) AT_TRY(h->ops->begin(h->self, g->runs[g->begun - 1], g));
    }
out:
    return st;
}

// A hook's own prompt stands where the guider has none.
static at_status take_third(at_guide *g, const at_obj_cond *lists[AT_GUIDE_LISTS])
{
    for (size_t i = 0; i < at_guide_hook_count(g); i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (!h->ops->third) continue;
        if (g->kind != AT_GUIDER_CFG)
            return at_fail(
                AT_EUNSUPPORTED,
                "%s changes CFGGuider and KSampler; this guider has three prompts already",
                h->ops->name);
        lists[AT_LIST_THIRD] = (const at_obj_cond *)h->ops->third(h->self);
        g->third_apart = true;
    }
    return AT_OK;
}

void at_guide_close(at_guide *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->begun; i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (h->ops->end) h->ops->end(h->self, g->runs[i]);
    }
    at_patches_release(&g->patches);
    for (size_t i = 0; g->runs && i < at_guide_hook_count(g); i++)
        at_free(g->runs[i]);
    at_free(g->runs);
    for (size_t i = 0; i < AT_GUIDE_PLANS; i++)
        at_plan_clear(&g->plans[i]);
    at_control_run_free(g->control);
    at_guide_networks_free(g);
    at_guide_unprepare(g);
    at_free(g->timesteps);
    at_free(g);
}

// The evaluations to come, as far as sigmas tell: at the last, which is 0, nothing is asked.
static at_status list_timesteps(at_guide *g)
{
    static _Atomic uint64_t runs;
    g->run = ++runs;
    if (g->n_sigmas && g->sigmas[g->n_sigmas - 1] == 0) g->n_steps = g->n_sigmas - 1;
    g->timesteps = at_calloc(g->n_steps + 1, sizeof *g->timesteps);
    if (!g->timesteps) return at_fail(AT_ENOMEM, "sampler: no memory");
    for (size_t i = 0; i < g->n_steps; i++)
        g->timesteps[i] = at_sigma_to_timestep(&g->sampling, g->sigmas[i]);
    return AT_OK;
}

at_status at_guide_open(at_ops *o, const at_guide_config *config, at_guide **out)
{
    at_status st = AT_OK;
    at_guide *g = at_calloc(1, sizeof *g);
    const at_obj_cond *lists[AT_GUIDE_LISTS] = {[AT_LIST_POSITIVE] = config->positive,
                                                [AT_LIST_THIRD] = config->third,
                                                [AT_LIST_NEGATIVE] = config->negative};

    *out = NULL;
    if (!g) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory"));
    g->model = config->model;
    g->net = config->model->model;
    g->sampling = *at_model_get_sampling(g->net);
    g->kind = config->kind;
    g->cfg = config->cfg;
    g->cfg2 = config->cfg2;
    memcpy(g->shape, config->shape, sizeof g->shape);
    g->latent = config->latent;
    g->mask = config->mask;
    g->sigmas = config->sigmas;
    g->n_steps = g->n_sigmas = config->n_sigmas;
    g->memory = config->memory;
    g->seed = config->seed;
    g->noised = config->noised;
    g->batch_index = config->batch_index;
    g->device = at_ops_device(o);
    g->compute = at_ops_compute(o);
    g->patches = at_patches_retain(config->model->patches);
    if (g->kind != AT_GUIDER_CFG && (!config->third || !config->negative))
        AT_TRY(at_fail(AT_EINVAL, "this guider needs three prompts"));
    AT_TRY(list_timesteps(g));
    AT_TRY(take_third(g, lists));
    AT_TRY(at_guide_prepare(g, o, lists));
    AT_TRY(begin_hooks(g));
    g->spread = at_guide_spread(g, o);
    *out = g;
    g = NULL;
out:
    at_guide_close(g);
    return st;
}
