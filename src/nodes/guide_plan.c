// SPDX-License-Identifier: Apache-2.0
// guide_plan.c - which conditionings hold, what is left for the defaults, and what runs together.
// Idea: a plan depends on the lists asked and on which entries hold at this sigma, so it is made
// when that changes and not in every step; the last few are kept (skip-layer hooks ask for several
// sets).
// Easy to get wrong: entries run together from the last to the first, as ComfyUI's do, so that
// patches see the negative prompt first; a default's weight is what all other entries of its list
// leave of 1.
// Source: ComfyUI 0.3.64 comfy/samplers.py (_calc_cond_batch, can_concat_cond,
// finalize_default_conds).
// Owns: the guide owns its plans.
#include <string.h>

#include "base/mem.h"
#include "nodes/guide_impl.h"

void at_plan_clear(at_plan *p)
{
    for (size_t i = 0; i < p->n_items; i++)
        at_tensor_release(&p->items[i].mult);
    for (int i = 0; i < AT_GUIDE_LISTS; i++)
        at_tensor_release(&p->sum[i]);
    at_free(p->items);
    at_free(p->batches);
    at_free(p->active);
    *p = (at_plan){0};
}

// --- who holds -----------------------------------------------------------------------------------
static bool holds(const at_entry *e, float sigma)
{
    return !(sigma > e->start) && !(sigma < e->end);
}

static void mark(const at_guide *g, float sigma, bool *active)
{
    for (int l = 0; l < AT_GUIDE_LISTS; l++)
        for (size_t i = 0; i < g->lists[l].count; i++)
            *active++ = holds(&g->lists[l].items[i], sigma);
}

static bool same_question(const at_guide *g, const at_plan *p, int n, const at_list_id *list,
                          const bool *active)
{
    return p->active && p->n == n && memcmp(p->list, list, sizeof *list * (size_t)n) == 0 &&
           memcmp(p->active, active, g->entries * sizeof *active) == 0;
}

static bool is_active(const at_guide *g, const at_plan *p, const at_entry *e)
{
    const bool *a = p->active;
    for (int l = 0; l < AT_GUIDE_LISTS; l++) {
        if (e >= g->lists[l].items && e < g->lists[l].items + g->lists[l].count)
            return a[e - g->lists[l].items];
        a += g->lists[l].count;
    }
    return false;
}

// --- weights -------------------------------------------------------------------------------------
// sum[cells] += sign * what e weighs, for every item of a batch of n.
static void add_weight(const at_guide *g, const at_entry *e, float sign, int64_t n, float *sum)
{
    int64_t h = g->shape[2], w = g->shape[3], have = e->mult_host ? e->mult_host->shape[0] : 1;
    const float *m = e->mult_host ? at_tensor_data(e->mult_host) : NULL;
    const at_rect r = e->rect;

    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < r.h; y++)
            for (int64_t x = 0; x < r.w; x++) {
                float k = m ? m[((i % have) * r.h + y) * r.w + x] : e->c.strength;
                sum[(i * h + y + r.y) * w + x + r.x] += sign * k;
            }
}

static at_status cells_of(const at_guide *g, int64_t n, float value, at_tensor **out)
{
    at_status st =
        at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, 1, g->shape[2], g->shape[3]}, out);
    if (st != AT_OK) return st;
    float *p = at_tensor_data(*out);
    for (int64_t i = 0, count = at_tensor_count(*out); i < count; i++)
        p[i] = value;
    return AT_OK;
}

static at_status upload(const at_guide *g, const at_tensor *host, at_tensor **out)
{
    return at_tensor_from_host(g->device, AT_F32, host->rank, host->shape, at_tensor_data(host),
                               out);
}

static void push(at_plan *p, const at_entry *e, int place, at_tensor *mult)
{
    p->items[p->n_items++] =
        (at_item){.e = e, .place = place, .mult = mult, .weight = e->c.strength};
}

// The entries of `place` that hold, and the largest batch among their weights.
static int64_t take_entries(const at_guide *g, at_plan *p, int place)
{
    int64_t n = 1;
    const at_list *l = &g->lists[p->list[place]];
    for (size_t i = 0; i < l->count; i++) {
        const at_entry *e = &l->items[i];
        if (e->c.is_default || !is_active(g, p, e)) continue;
        push(p, e, place, e->mult ? at_tensor_retain(e->mult) : NULL);
        if (!e->mult) continue;
        p->masked[place] = true;
        if (e->mult->shape[0] > n) n = e->mult->shape[0];
    }
    return n;
}

// Defaults get what the items from `first` on leave; sum becomes the sum of all weights.
static at_status take_defaults(const at_guide *g, at_plan *p, int place, size_t first, int64_t n,
                               float *sum)
{
    at_status st = AT_OK;
    at_tensor *rest = NULL;
    float most = 0;
    size_t last = p->n_items;
    const at_list *l = &g->lists[p->list[place]];

    AT_TRY(cells_of(g, n, 1.0f, &rest));
    float *r = at_tensor_data(rest);
    for (size_t i = first; i < last; i++)
        add_weight(g, p->items[i].e, -1.0f, n, r);
    for (int64_t i = 0; i < at_tensor_count(rest); i++) {
        if (r[i] < 0) r[i] = 0;
        if (r[i] > most) most = r[i];
    }
    for (size_t i = 0; i < l->count && most > 0; i++) {
        const at_entry *e = &l->items[i];
        at_tensor *mult = NULL;
        if (!e->c.is_default || !is_active(g, p, e)) continue;
        if (e->rect.h != g->shape[2] || e->rect.w != g->shape[3])
            AT_TRY(at_fail(AT_EINVAL, "a default conditioning cannot have an area of its own"));
        AT_TRY(upload(g, rest, &mult));
        push(p, e, place, mult);
        p->masked[place] = true;
        for (int64_t k = 0; k < at_tensor_count(rest); k++)
            sum[k] += r[k];
    }
out:
    at_tensor_release(&rest);
    return st;
}

static const float nothing = 1e-37f; // where nobody weighs anything the estimate is 0

static at_status weigh(at_guide *g, at_plan *p, int place)
{
    at_status st = AT_OK;
    at_tensor *sum = NULL;
    size_t first = p->n_items;
    int64_t n = take_entries(g, p, place);
    bool defaults = false;

    p->weight[place] = nothing;
    for (size_t i = first; i < p->n_items; i++)
        p->weight[place] += p->items[i].weight;
    for (size_t i = 0; i < g->lists[p->list[place]].count; i++)
        defaults |= g->lists[p->list[place]].items[i].c.is_default;
    if (!p->masked[place] && !defaults) return AT_OK;
    AT_TRY(cells_of(g, n, nothing, &sum));
    for (size_t i = first; i < p->n_items; i++)
        add_weight(g, p->items[i].e, 1.0f, n, at_tensor_data(sum));
    if (defaults) AT_TRY(take_defaults(g, p, place, first, n, at_tensor_data(sum)));
    if (p->masked[place]) AT_TRY(upload(g, sum, &p->sum[place]));
out:
    at_tensor_release(&sum);
    return st;
}

// --- what runs together --------------------------------------------------------------------------
static bool same_shape(const at_tensor *a, const at_tensor *b)
{
    if (!a || !b) return !a && !b;
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0;
}

// Text that differs in length is repeated to a common length where that changes nothing and is
// cheap.
static bool same_text(const at_guide *g, const at_tensor *a, const at_tensor *b)
{
    if (!a || !b) return !a && !b;
    if (a->rank != 3 || b->rank != 3 || a->shape[2] != b->shape[2]) return false;
    int64_t s = a->shape[1], t = b->shape[1], x = s, y = t;
    if (s == t) return true;
    if (!at_model_text_repeats(g->net) || s < 1 || t < 1) return false;
    while (y) {
        int64_t r = x % y;
        x = y;
        y = r;
    }
    return (s > t ? s : t) / x <= 4; // their least common multiple against the shorter
}

static bool same_refs(const at_entry *a, const at_entry *b)
{
    if (a->c.n_refs != b->c.n_refs || (a->c.n_refs && a->c.ref_method != b->c.ref_method))
        return false;
    for (size_t i = 0; i < a->c.n_refs; i++)
        if (!same_shape(a->refs[i], b->refs[i])) return false;
    return true;
}

static bool together(const at_guide *g, const at_entry *a, const at_entry *b)
{
    if (a == b) return true;
    return a->rect.h == b->rect.h && a->rect.w == b->rect.w && a->c.control == b->c.control &&
           a->c.extra[AT_COND_HOOKS] == b->c.extra[AT_COND_HOOKS] && !a->c.extra[AT_COND_GLIGEN] &&
           !b->c.extra[AT_COND_GLIGEN] && same_text(g, a->c.context, b->c.context) &&
           same_text(g, a->c.control_context, b->c.control_context) &&
           (!a->vector) == (!b->vector) &&
           (!a->vector || a->vector->shape[1] == b->vector->shape[1]) &&
           same_shape(a->concat, b->concat) && a->c.guidance_off == b->c.guidance_off &&
           a->c.attn_bias == b->c.attn_bias && same_refs(a, b);
}

// Bytes that one forward of `rows` rows of this entry's size needs beside the weights.
static double need(const at_guide *g, const at_entry *e, int64_t rows)
{
    at_model_cost c =
        at_model_estimate(g->net, rows, e->rect.h, e->rect.w, e->c.context->shape[1], g->compute);
    return c.activation_bytes * 1.5;
}

// What one forward may take: what is free, and what weights that nobody uses now would leave, less the model's own
// weights, which may be among either. A fifth of the device where they do not fit: then they stream.
static double memory_of(const at_guide *g)
{
    const at_device_ops *ops = g->device->ops;
    uint64_t free_bytes = 0, total = 0;
    if (g->memory > 0) return g->memory;
    if (ops->memory(g->device, &free_bytes, &total) != AT_OK || !free_bytes)
        return 1e300; // unknown: as much as it takes
    if (!ops->idle) return (double)free_bytes;
    double own = at_model_estimate(g->net, 1, 1, 1, 1, g->compute).weight_bytes;
    if (g->device->weight_bytes && own > (double)g->device->weight_bytes)
        own = (double)g->device->weight_bytes;
    double room = (double)free_bytes + (double)ops->idle(g->device) - own;
    return room > (double)total / 5 ? room : (double)total / 5;
}

// One item into its place in `sorted`, together with what fits it; `left` shrinks.
static size_t make_batch(const at_guide *g, at_plan *p, at_item *left, size_t n, at_item *sorted,
                         double memory, at_batch *b)
{
    at_item first = left[0];
    size_t fits = 0, most;
    for (size_t i = 0; i < n; i++)
        fits += together(g, left[i].e, first.e);
    if (g->spread > 1) fits = 1; // each is a rank's
    most = fits;
    for (size_t i = 1; i <= fits; i++) {
        most = fits / i;
        if ((int64_t)most * p->rows <= AT_GUIDE_ROWS &&
            need(g, first.e, (int64_t)most * p->rows) < memory)
            break;
        most = 1;
    }
    b->count = 0;
    for (size_t i = n; i-- > 0 && b->count < most;) { // from the last to the first
        if (!together(g, left[i].e, first.e)) continue;
        sorted[b->count++] = left[i];
        memmove(left + i, left + i + 1, (--n - i) * sizeof *left);
    }
    return n;
}

static at_status make_batches(const at_guide *g, at_plan *p)
{
    double memory = memory_of(g);
    at_item *sorted = at_calloc(p->n_items + 1, sizeof *sorted);
    size_t done = 0, left = p->n_items;

    p->batches = at_calloc(p->n_items + 1, sizeof *p->batches);
    if (!sorted || !p->batches) {
        at_free(sorted);
        return at_fail(AT_ENOMEM, "sampler: no memory for a plan");
    }
    // The batch of latents goes by parts if one conditioning alone is too much.
    p->rows = g->shape[0] < AT_GUIDE_ROWS ? g->shape[0] : AT_GUIDE_ROWS;
    for (size_t i = 0; i < p->n_items; i++)
        while (p->rows > 1 && need(g, p->items[i].e, p->rows) >= memory)
            p->rows = (p->rows + 1) / 2;
    if (g->spread > 1) p->rows = at_guide_unit_rows(g, p->n_items, p->rows);
    while (left) {
        at_batch *b = &p->batches[p->n_batches++];
        b->first = done;
        left = make_batch(g, p, p->items, left, sorted + done, memory, b);
        done += b->count;
    }
    at_free(p->items);
    p->items = sorted;
    return AT_OK;
}

static at_status make(at_guide *g, at_plan *p, int n, const at_list_id *list, float sigma)
{
    at_status st = AT_OK;

    p->n = n;
    memcpy(p->list, list, sizeof *list * (size_t)n);
    p->active = at_calloc(g->entries + 1, sizeof *p->active);
    p->items = at_calloc(g->entries * (size_t)n + 1, sizeof *p->items);
    if (!p->active || !p->items) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for a plan"));
    mark(g, sigma, p->active);
    for (int i = 0; i < n; i++)
        if (list[i] != AT_LIST_NONE) AT_TRY(weigh(g, p, i));
    AT_TRY(make_batches(g, p));
out:
    return st;
}

at_status at_guide_plan(at_guide *g, int n, const at_list_id *list, float sigma,
                        const at_plan **out)
{
    bool *active = at_calloc(g->entries + 1, sizeof *active);

    *out = NULL;
    if (!active) return at_fail(AT_ENOMEM, "sampler: no memory for a plan");
    mark(g, sigma, active);
    for (size_t i = 0; i < AT_GUIDE_PLANS && !*out; i++)
        if (same_question(g, &g->plans[i], n, list, active)) *out = &g->plans[i];
    at_free(active);
    if (*out) return AT_OK;
    at_plan *p = &g->plans[g->next_plan++ % AT_GUIDE_PLANS];
    at_plan_clear(p);
    at_status st = make(g, p, n, list, sigma);
    if (st == AT_OK)
        *out = p;
    else
        at_plan_clear(p);
    return st;
}
