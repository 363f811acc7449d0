// SPDX-License-Identifier: Apache-2.0
// guide_prepare.c - conditionings made ready for a run, as ComfyUI's process_conds does.
// Idea: areas become cells, masks get the latent's size, percents become sigmas, latents go through
// process_in and onto the device; then every list gets what the others have: an entry with an area
// gets an opposite one in each other list, ControlNets that ask for it go to the negative lists.
// Easy to get wrong: the order of the lists is the guider's (positive, third, negative), and
// mirrored entries are mirrored again; a mirror takes text and picture from the smallest entry
// around it and area, mask, strength, range and hooks from its model.
// Source: ComfyUI 0.3.64 comfy/samplers.py (behaviour). Owns: see guide_impl.h.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "nodes/guide_impl.h"
#include "sample/sigmas.h"

static void entry_clear(at_entry *e)
{
    for (size_t i = 0; e->refs && i < e->c.n_refs; i++)
        at_tensor_release(&e->refs[i]);
    at_free(e->refs);
    e->refs = NULL;
    at_cond_clear(&e->c);
    at_tensor_release(&e->mask);
    at_tensor_release(&e->mult_host);
    at_tensor_release(&e->mult);
    at_tensor_release(&e->concat);
    at_tensor_release(&e->vector);
}

void at_guide_unprepare(at_guide *g)
{
    for (int l = 0; l < AT_GUIDE_LISTS; l++) {
        for (size_t i = 0; i < g->lists[l].count; i++)
            entry_clear(&g->lists[l].items[i]);
        at_free(g->lists[l].items);
        g->lists[l] = (at_list){0};
    }
}

// --- areas, masks, ranges ------------------------------------------------------------------------
static int64_t cells(double v)
{
    return v > 1e9 ? 1000000000 : v < -1e9 ? -1000000000 : (int64_t)v;
}

static void resolve_area(const at_guide *g, at_entry *e)
{
    const at_area *a = &e->c.area;
    double h = (double)g->shape[2], w = (double)g->shape[3];

    if (a->kind == AT_AREA_NONE) return;
    e->has_area = true;
    if (a->kind == AT_AREA_CELLS)
        e->area = (at_rect){cells(a->h), cells(a->w), cells(a->y), cells(a->x)};
    else // Python's round is to even, as rint
        e->area = (at_rect){cells(fmax(1, rint(a->h * h))), cells(fmax(1, rint(a->w * w))),
                            cells(rint(a->y * h)), cells(rint(a->x * w))};
}

// The rectangle around everything that any mask of the batch has; at least 8 cells wide and high.
static void area_from_mask(at_entry *e)
{
    const float *p = at_tensor_data(e->mask);
    int64_t n = e->mask->shape[0], h = e->mask->shape[1], w = e->mask->shape[2];
    int64_t y0 = h, y1 = -1, x0 = w, x1 = -1;

    for (int64_t i = 0; i < n * h * w; i++) {
        if (p[i] == 0.0f) continue;
        int64_t y = i / w % h, x = i % w;
        if (y < y0) y0 = y;
        if (y > y1) y1 = y;
        if (x < x0) x0 = x;
        if (x > x1) x1 = x;
    }
    e->has_area = true;
    if (y1 < 0) {
        e->area = (at_rect){8, 8, 0, 0};
        return;
    }
    int64_t high = y1 - y0 + 1, wide = x1 - x0 + 1;
    e->area = (at_rect){high < 8 ? 8 : high, wide < 8 ? 8 : wide, y0, x0};
}

static at_status resolve_mask(const at_guide *g, at_entry *e)
{
    at_tensor *m = e->c.mask;
    at_status st = AT_OK;

    if (!m) return AT_OK;
    if (m->rank != 3)
        return at_fail(AT_EINVAL, "a conditioning's mask has %d dimensions, expected 3", m->rank);
    if (m->shape[1] == g->shape[2] && m->shape[2] == g->shape[3])
        e->mask = at_tensor_retain(m);
    else
        st = at_resize(m, AT_ORDER_NHW, g->shape[3], g->shape[2], AT_RESIZE_BILINEAR, false,
                       &e->mask);
    if (st == AT_OK && e->c.mask_bounds) area_from_mask(e);
    return st;
}

static void resolve_range(const at_guide *g, at_entry *e)
{
    e->start = (float)at_percent_to_sigma(&g->sampling, e->c.start_percent);
    e->end = (float)at_percent_to_sigma(&g->sampling, e->c.end_percent);
    if (e->c.start_percent == 0) e->start = INFINITY; // also without a range at all
}

// --- latents -------------------------------------------------------------------------------------
static at_status upload(const at_guide *g, const at_tensor *host, at_tensor **out)
{
    return at_tensor_from_host(g->device, AT_F32, host->rank, host->shape, at_tensor_data(host),
                               out);
}

static at_status process_refs(const at_guide *g, at_entry *e)
{
    at_status st = AT_OK;
    at_tensor *z = NULL;
    int channels = at_model_latent(g->net)->channels;

    if (!e->c.n_refs) return AT_OK;
    e->refs = at_calloc(e->c.n_refs, sizeof *e->refs);
    if (!e->refs) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for reference latents"));
    for (size_t i = 0; i < e->c.n_refs; i++) {
        const at_tensor *r = e->c.refs[i];
        if (r->rank != 4 || r->shape[1] != channels)
            AT_TRY(at_fail(AT_EINVAL,
                           "reference latent %zu has %lld channels, this model wants %d: it was "
                           "made by another kind of VAE",
                           i + 1, (long long)r->shape[1], channels));
        AT_TRY(at_tensor_from_host(at_device_cpu(), AT_F32, 4, r->shape, at_tensor_data(r), &z));
        at_guide_process_in(g, z);
        AT_TRY(upload(g, z, &e->refs[i]));
        at_tensor_release(&z);
    }
out:
    at_tensor_release(&z);
    return st;
}

static at_status process_concat(const at_guide *g, at_entry *e)
{
    at_tensor *host = NULL;
    at_status st = at_guide_concat(g, &e->c, &host);

    if (st == AT_OK && host) st = upload(g, host, &e->concat);
    at_tensor_release(&host);
    return st;
}

static at_status entry_make(const at_guide *g, const at_cond *c, bool negative, at_entry *e)
{
    at_status st = AT_OK;

    if (!at_cond_copy(&e->c, c)) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for a prompt"));
    if (!c->context)
        AT_TRY(at_fail(AT_EINVAL, "sampler: a conditioning has no text: encode a prompt first"));
    AT_TRY(at_tensor_bring(g->device, &e->c.context));
    AT_TRY(at_tensor_bring(g->device, &e->c.pooled));
    AT_TRY(at_tensor_bring(g->device, &e->c.control_context));
    e->in_negative = negative;
    resolve_area(g, e);
    AT_TRY(resolve_mask(g, e));
    resolve_range(g, e);
    AT_TRY(process_refs(g, e));
    AT_TRY(process_concat(g, e));
out:
    return st;
}

// --- what one list gives to another --------------------------------------------------------------
static at_tensor *again(at_tensor *t)
{
    return t ? at_tensor_retain(t) : NULL;
}

static bool inside(const at_rect *a, const at_rect *b)
{
    return a->y >= b->y && a->x >= b->x && a->y + a->h <= b->y + b->h && a->x + a->w <= b->x + b->w;
}

// The entry whose text stands for the rest of the list in area `a`: the smallest area around it, or
// the first without an area if that came first.
static const at_entry *around(const at_list *l, const at_rect *a)
{
    const at_entry *best = NULL;
    for (size_t i = 0; i < l->count; i++) {
        const at_entry *e = &l->items[i];
        if (!e->has_area) {
            if (!best) best = e;
        } else if (inside(a, &e->area)) {
            if (!best || !best->has_area || best->area.h * best->area.w > e->area.h * e->area.w)
                best = e;
        }
    }
    return best;
}

// *to says what `text` says, where and when `like` does. *to is fit for entry_clear in any case.
static at_status mirror(const at_entry *text, const at_entry *like, at_entry *to)
{
    *to = (at_entry){.id = like->id,
                     .in_negative = text->in_negative,
                     .has_area = like->has_area,
                     .area = like->area,
                     .start = like->start,
                     .end = like->end};
    if (!at_cond_copy(&to->c, &text->c)) return at_fail(AT_ENOMEM, "sampler: no memory");
    to->mask = again(like->mask);
    to->concat = again(text->concat);
    if (text->refs) {
        to->refs = at_calloc(text->c.n_refs, sizeof *to->refs);
        if (!to->refs) return at_fail(AT_ENOMEM, "sampler: no memory");
        for (size_t i = 0; i < text->c.n_refs; i++)
            to->refs[i] = at_tensor_retain(text->refs[i]);
    }
    to->c.strength = like->c.strength;
    to->c.mask_strength = like->c.mask_strength;
    to->c.is_default = like->c.is_default;
    to->c.control_to_uncond = like->c.control_to_uncond;
    at_cond_set_tensor(&to->c.mask, again(like->c.mask));
    at_cond_set_object(&to->c.control, at_object_retain(like->c.control));
    static const int taken[] = {AT_COND_GLIGEN, AT_COND_HOOKS};
    for (size_t i = 0; i < AT_COUNT(taken); i++)
        at_cond_set_object(&to->c.extra[taken[i]], at_object_retain(like->c.extra[taken[i]]));
    return AT_OK;
}

static at_status append(at_list *l, const at_entry *text, const at_entry *like)
{
    at_entry made, *grown;
    at_status st = mirror(text, like, &made);

    if (st == AT_OK) {
        grown = at_realloc(l->items, (l->count + 1) * sizeof *grown);
        if (grown) {
            l->items = grown;
            l->items[l->count++] = made;
            return AT_OK;
        }
        st = at_fail(AT_ENOMEM, "sampler: no memory for %zu conditionings", l->count + 1);
    }
    entry_clear(&made);
    return st;
}

static bool apart(const at_guide *g, int list)
{
    return list == AT_LIST_THIRD && g->third_apart;
}

static at_status mirror_areas(at_guide *g)
{
    at_status st = AT_OK;
    for (int k = 0; k < AT_GUIDE_LISTS; k++)
        for (size_t i = 0; i < g->lists[k].count && !apart(g, k); i++) {
            for (int kk = 0; kk < AT_GUIDE_LISTS; kk++) {
                const at_entry *e = &g->lists[k].items[i];
                at_list *l = &g->lists[kk];
                if (kk == k || !e->has_area || !l->present || apart(g, kk)) continue;
                const at_entry *text = around(l, &e->area);
                if (!text || (text->has_area && memcmp(&text->area, &e->area, sizeof e->area) == 0))
                    continue;
                AT_TRY(append(l, text, e));
            }
        }
out:
    return st;
}

// The object of kind `what` that an entry holds: its ControlNet, or GLIGEN boxes.
static at_object **held(at_entry *e, bool control)
{
    return control ? &e->c.control : &e->c.extra[AT_COND_GLIGEN];
}

// What whole-picture entries of the positive list have goes to whole-picture entries of `l`, in
// turn, unless one of these has such a thing of its own.
static at_status spread(at_list *positive, at_list *l, bool control)
{
    size_t givers = 0, takers = 0;

    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].has_area) continue;
        if (*held(&l->items[i], control)) return AT_OK;
        takers++;
    }
    for (size_t i = 0; i < positive->count; i++) {
        at_entry *p = &positive->items[i];
        if (p->has_area || !*held(p, control) || (control && !p->c.control_to_uncond)) continue;
        if (!takers)
            return at_fail(AT_EINVAL, "a ControlNet or GLIGEN applies to the whole picture, but "
                                      "every negative conditioning has an area");
        size_t nth = givers++ % takers;
        for (size_t k = 0; k < l->count; k++) {
            if (l->items[k].has_area || nth--) continue;
            at_cond_set_object(held(&l->items[k], control), at_object_retain(*held(p, control)));
            break;
        }
    }
    return AT_OK;
}

// --- all together --------------------------------------------------------------------------------
static at_status make_lists(at_guide *g, const at_obj_cond *const source[AT_GUIDE_LISTS])
{
    at_status st = AT_OK;
    size_t id = 0;

    for (int l = 0; l < AT_GUIDE_LISTS; l++) {
        if (!source[l]) continue;
        at_list *to = &g->lists[l];
        to->present = true;
        to->items = at_calloc(source[l]->count + 1, sizeof *to->items);
        if (!to->items) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the conditionings"));
        for (size_t i = 0; i < source[l]->count; i++) {
            to->items[to->count++].id = id++;
            AT_TRY(entry_make(g, &source[l]->items[i], l != AT_LIST_POSITIVE, &to->items[i]));
        }
    }
out:
    return st;
}

// The part of the picture: ComfyUI narrows where an area ends outside and fails where it begins
// there.
static at_status fit_rect(const at_guide *g, at_entry *e)
{
    at_rect r = e->has_area ? e->area : (at_rect){g->shape[2], g->shape[3], 0, 0};
    int64_t h = g->shape[2], w = g->shape[3];

    if (r.y < 0 || r.x < 0 || r.y >= h || r.x >= w || r.h < 1 || r.w < 1)
        return at_fail(AT_EINVAL,
                       "a conditioning's area of %lld x %lld at (%lld, %lld) lies outside the "
                       "latent of %lld x %lld (one cell is %d pixels)",
                       (long long)r.w, (long long)r.h, (long long)r.x, (long long)r.y, (long long)w,
                       (long long)h, at_model_latent(g->net)->downscale);
    if (r.h > h - r.y) r.h = h - r.y;
    if (r.w > w - r.x) r.w = w - r.x;
    e->rect = r;
    return AT_OK;
}

at_status at_guide_prepare(at_guide *g, at_ops *o, const at_obj_cond *const source[AT_GUIDE_LISTS])
{
    at_status st = AT_OK;
    at_list *positive = &g->lists[AT_LIST_POSITIVE];

    AT_TRY(make_lists(g, source));
    AT_TRY(mirror_areas(g));
    for (int l = 0; l < AT_GUIDE_LISTS; l++) {
        if (l == AT_LIST_POSITIVE || !g->lists[l].present || apart(g, l)) continue;
        AT_TRY(spread(positive, &g->lists[l], true));
        AT_TRY(spread(positive, &g->lists[l], false));
    }
    for (int l = 0; l < AT_GUIDE_LISTS; l++) {
        g->entries += g->lists[l].count;
        for (size_t i = 0; i < g->lists[l].count; i++) {
            AT_TRY(fit_rect(g, &g->lists[l].items[i]));
            AT_TRY(at_guide_mult(g, &g->lists[l].items[i]));
            AT_TRY(at_guide_vector(g, o, &g->lists[l].items[i]));
        }
    }
out:
    return st;
}

// --- another size --------------------------------------------------------------------------------
// A tensor of the first size still serves an entry whose area lies inside it: it is cut there.
static bool serves(const at_entry *e, const at_tensor *t)
{
    int64_t h = t->shape[t->rank - 2], w = t->shape[t->rank - 1];
    return e->has_area && e->rect.y + e->rect.h <= h && e->rect.x + e->rect.w <= w;
}

static at_status refit(const at_guide *g, at_entry *e)
{
    at_status st = fit_rect(g, e);
    const char *what = NULL;

    if (st != AT_OK) return st;
    if (e->mask && !serves(e, e->mask)) what = "a conditioning's mask";
    if (e->concat && !serves(e, e->concat)) what = "the picture that the model reads beside it";
    if (what)
        return at_fail(AT_EINVAL,
                       "sampler: the latent became %lld x %lld on the way, but %s keeps the size "
                       "it began with; sample at one size, or leave it out",
                       (long long)g->shape[3], (long long)g->shape[2], what);
    at_tensor_release(&e->mult_host);
    at_tensor_release(&e->mult);
    return at_guide_mult(g, e);
}

at_status at_guide_resize(at_guide *g, int64_t h, int64_t w)
{
    at_status st = AT_OK;

    g->shape[2] = h;
    g->shape[3] = w;
    for (size_t i = 0; i < AT_GUIDE_PLANS; i++)
        at_plan_clear(&g->plans[i]);
    for (int l = 0; l < AT_GUIDE_LISTS; l++)
        for (size_t i = 0; i < g->lists[l].count; i++)
            AT_TRY(refit(g, &g->lists[l].items[i]));
out:
    return st;
}
