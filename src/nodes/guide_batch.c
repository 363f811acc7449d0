// SPDX-License-Identifier: Apache-2.0
// guide_batch.c - conditionings of one batch through the network, and their x0 back.
// Idea: everything the network is given is gathered row by row: `rows` latents for each
// conditioning, one conditioning after the other ("chunks"); what comes back is cut along the same
// lines.
// Easy to get wrong: text of one prompt serves every latent of the batch, text of several is taken
// in turn; lengths are brought to their least common multiple by repeating (see guide_plan.c).
// Source: ComfyUI 0.3.64 comfy/samplers.py (_calc_cond_batch), comfy/conds.py. Owns nothing.
#include "nodes/guide_impl.h"

#include "models/text_bias.h"
#include "nodes/boxes.h"
#include "sample/guidance.h"
#include "sample/sigmas.h"

// The conditionings of one forward.
typedef struct group {
    at_guide *g;
    at_ops *o;
    const at_item *items;
    size_t n;
    int64_t row, rows;
} group;

// Rows row .. row + rows of t repeated from its start; t itself where that is all of it.
static at_tensor *rows_of(const group *b, at_tensor *t)
{
    const at_tensor *part[AT_GUIDE_ROWS];
    int64_t have = t->shape[0];

    if (have >= b->row + b->rows)
        return have == b->rows ? t : at_narrow(b->o, t, 0, b->row, b->rows);
    if (have < 1) return at_ops_poison(b->o, AT_EINVAL, "sampler: a conditioning is empty");
    for (int64_t i = 0; i < b->rows; i++)
        part[i] = have == 1 ? t : at_narrow(b->o, t, 0, (b->row + i) % have, 1);
    return b->rows == 1 ? (at_tensor *)part[0] : at_concat(b->o, 0, (int)b->rows, part);
}

static at_tensor *cut(const group *b, at_tensor *t, const at_rect *r)
{
    if (t && t->shape[2] != r->h) t = at_narrow(b->o, t, 2, r->y, r->h);
    if (t && t->shape[3] != r->w) t = at_narrow(b->o, t, 3, r->x, r->w);
    return t;
}

static at_tensor *joined(const group *b, at_tensor *const *part)
{
    const at_tensor *parts[AT_GUIDE_ROWS];
    for (size_t i = 0; i < b->n; i++) {
        if (!part[i]) return NULL;
        parts[i] = part[i];
    }
    if (b->n == 1) return at_contiguous(b->o, part[0]);
    return at_concat(b->o, 0, (int)b->n, parts);
}

// x of every conditioning's part of the picture.
static at_tensor *pictures(const group *b, const at_tensor *x)
{
    at_tensor *part[AT_GUIDE_ROWS] = {0};
    for (size_t i = 0; i < b->n; i++)
        part[i] = cut(b, rows_of(b, (at_tensor *)x), &b->items[i].e->rect);
    return joined(b, part);
}

static at_tensor *concats(const group *b)
{
    at_tensor *part[AT_GUIDE_ROWS] = {0};
    if (!b->items[0].e->concat) return NULL;
    for (size_t i = 0; i < b->n; i++)
        part[i] = cut(b, rows_of(b, b->items[i].e->concat), &b->items[i].e->rect);
    return joined(b, part);
}

static int64_t common_multiple(int64_t a, int64_t b)
{
    int64_t x = a, y = b;
    while (y) {
        int64_t r = x % y;
        x = y;
        y = r;
    }
    return a / x * b;
}

static at_tensor *text_of(const at_item *i, bool control)
{
    return control && i->e->c.control_context ? i->e->c.control_context : i->e->c.context;
}

// Text of all, each repeated to a length that all divide.
static at_tensor *texts(const group *b, bool control)
{
    at_tensor *part[AT_GUIDE_ROWS] = {0};
    int64_t length = 1;

    for (size_t i = 0; i < b->n; i++)
        length = common_multiple(length, text_of(&b->items[i], control)->shape[1]);
    for (size_t i = 0; i < b->n; i++) {
        const at_tensor *same[64];
        at_tensor *t = text_of(&b->items[i], control);
        int64_t times = length / t->shape[1];
        if (times > (int64_t)AT_COUNT(same))
            return at_ops_poison(b->o, AT_EINVAL,
                                 "sampler: text of %lld tokens repeated %lld times",
                                 (long long)t->shape[1], (long long)times);
        for (int64_t k = 0; k < times; k++)
            same[k] = t;
        part[i] = rows_of(b, times == 1 ? t : at_concat(b->o, 1, (int)times, same));
    }
    return joined(b, part);
}

static at_tensor *pooled(const group *b)
{
    at_tensor *part[AT_GUIDE_ROWS] = {0};
    if (!b->items[0].e->vector) return NULL;
    for (size_t i = 0; i < b->n; i++)
        part[i] = rows_of(b, b->items[i].e->vector);
    return joined(b, part);
}

static at_tensor *reference(const group *b, size_t which)
{
    at_tensor *part[AT_GUIDE_ROWS] = {0};
    for (size_t i = 0; i < b->n; i++)
        part[i] = rows_of(b, b->items[i].e->refs[which]);
    return joined(b, part);
}

// --- hooks around the network --------------------------------------------------------------------
at_tensor *at_forward_next(at_ops *o, const at_forward *f)
{
    at_guide *g = f->guide;
    for (size_t i = f->next; i < at_guide_hook_count(g); i++) {
        const at_hook *h = at_guide_hook(g, i);
        if (!h->ops->forward) continue;
        at_forward inner = *f;
        inner.next = i + 1;
        // The result is a tensor of the scope: `inner` is borrowed for the call.
        // cppcheck-suppress returnDanglingLifetime
        return h->ops->forward(h->self, g->runs[i], o, &inner);
    }
    return at_model_forward(o, f->network, f->in);
}

// Residuals of the ControlNets that all of the batch share.
static void steer(const group *b, at_model_in *in, int64_t all, at_control *control)
{
    const at_object *chain = b->items[0].e->c.control;
    at_guide *g = b->g;

    if (!chain) return;
    if (!g->control) {
        at_status st = at_control_run_new(g->net, &g->control);
        if (st != AT_OK) {
            at_ops_poison(b->o, st, "%s", at_error_text());
            return;
        }
    }
    at_tensor *own = b->items[0].e->c.control_context ? texts(b, true) : NULL;
    if (at_control_run_residuals(g->control, b->o, (const at_obj_control *)chain, in, own, b->row,
                                 all, control))
        in->control = control;
}

// The patches with those of an entry behind them (GLIGEN's boxes, a bias on its text), counted in
// *own.
static at_status put_own(const group *b, at_model_in *in, at_patches **own)
{
    at_status st = AT_OK;
    const at_cond *c = &b->items[0].e->c;
    at_patches *more = NULL;

    if (!in->x) return AT_OK;
    if (c->extra[AT_COND_GLIGEN]) {
        AT_TRY(at_boxes_patch(c->extra[AT_COND_GLIGEN], in->x->shape[2], in->x->shape[3],
                              in->patches, own));
        in->patches = *own;
    }
    if (c->attn_bias) {
        AT_TRY(at_text_bias_patch(c->attn_bias, in->patches, &more));
        at_patches_release(own);
        in->patches = *own = more;
    }
out:
    return st;
}

// Names who is in the batch, and in which order (FNV-1a): guidance, text and pooled text follow from it. An entry and
// its mirror in another list have one id and two texts: their places in memory tell them apart.
static uint64_t key_of(const group *b)
{
    uint64_t h = 0xcbf29ce484222325u;
    const uint64_t facts[] = {b->g->run, (uint64_t)b->row, (uint64_t)b->rows, b->n};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        h = (h ^ facts[i]) * 0x100000001b3u;
    for (size_t i = 0; i < b->n; i++)
        h = (h ^ (uint64_t)(uintptr_t)b->items[i].e) * 0x100000001b3u;
    return h ? h : 1;
}

// all: latents of the whole batch, of which this may be a part.
static at_tensor *run(const group *b, at_model_in *in, int64_t all, float *timestep,
                      float *guidance)
{
    int kinds[AT_GUIDE_ROWS];
    size_t ids[AT_GUIDE_ROWS], n_refs = b->items[0].e->c.n_refs;
    const at_tensor *refs[AT_GUIDE_ROWS];
    at_control control = {0};
    float t = at_sigma_to_timestep(&b->g->sampling, in->sigma);

    for (size_t i = 0; i < b->n; i++) {
        const at_cond *c = &b->items[i].e->c;
        kinds[i] = b->items[i].place;
        ids[i] = b->items[i].e->id;
        for (int64_t k = 0; k < b->rows; k++) {
            timestep[(int64_t)i * b->rows + k] = t;
            guidance[(int64_t)i * b->rows + k] = c->has_guidance ? c->guidance : 3.5f;
        }
    }
    if (n_refs > AT_GUIDE_ROWS)
        return at_ops_poison(b->o, AT_EINVAL, "sampler: %zu reference latents, %d are the most",
                             n_refs, AT_GUIDE_ROWS);
    for (size_t i = 0; i < n_refs; i++)
        refs[i] = reference(b, i);
    in->steps = b->g->timesteps;
    in->n_steps = b->g->n_steps;
    in->key = key_of(b);
    in->refs = n_refs ? refs : NULL;
    in->n_refs = n_refs;
    in->ref_method = b->items[0].e->c.ref_method;
    in->kinds = kinds;
    in->chunks = (int)b->n;
    at_model *net = NULL;
    if (at_ops_status(b->o) == AT_OK) {
        steer(b, in, all, &control);
        net = at_guide_network(b->g, b->o, b->items[0].e->c.extra[AT_COND_HOOKS], in->sigma);
    }
    at_tensor *out = NULL;
    if (net)
        out = at_forward_next(
            b->o,
            &(at_forward){.guide = b->g, .in = in, .ids = ids, .row = b->row, .network = net});
    in->refs = NULL; // these live no longer than this call
    in->kinds = NULL;
    in->control = NULL;
    return out;
}

void at_guide_forward(at_guide *g, at_ops *o, const at_plan *p, const at_batch *batch,
                      const at_tensor *x, const at_tensor *scaled, float sigma,
                      const at_patches *patches, int64_t row, int64_t rows, at_tensor **x0)
{
    group b = {g, o, p->items + batch->first, batch->count, row, rows};
    float timestep[AT_GUIDE_ROWS], guidance[AT_GUIDE_ROWS];
    at_model_in in = {.x = pictures(&b, scaled),
                      .timestep = timestep,
                      .context = texts(&b, false),
                      .pooled = pooled(&b),
                      .guidance = guidance,
                      .no_guidance = b.items[0].e->c.guidance_off,
                      .concat = concats(&b),
                      .patches = patches,
                      .sigma = sigma};
    at_patches *own = NULL;
    at_status st = put_own(&b, &in, &own);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    at_tensor *raw = run(&b, &in, x->shape[0], timestep, guidance);
    at_patches_release(&own);

    for (size_t i = 0; i < b.n; i++) {
        at_tensor *of = cut(&b, rows_of(&b, (at_tensor *)x), &b.items[i].e->rect);
        at_tensor *part = raw ? at_narrow(o, raw, 0, (int64_t)i * rows, rows) : NULL;
        x0[i] = at_model_x0(o, &g->sampling, at_contiguous(o, of), at_contiguous(o, part), sigma);
    }
}
