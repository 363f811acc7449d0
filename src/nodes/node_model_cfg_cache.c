// SPDX-License-Identifier: Apache-2.0
// node_model_cfg_cache.c - steps that are guessed and not computed: EasyCache and LazyCache.
// Idea: the change of the network's output is taken for proportional to the change of its input; as
// long as the guessed change adds up to less than a threshold, the last difference between output
// and input is added again. EasyCache does so around the network for each conditioning, LazyCache
// around a whole step.
// Easy to get wrong: changes are measured on every 8th row and column of the first conditioning,
// their scale on the whole output of that forward; with concat channels the difference is to the
// last ones.
// Differs from ComfyUI 0.3.64: a forward of several conditionings adds to each its own difference
// (0.3.64 adds all to all, mended upstream in pull request 10376); one that was never seen is
// computed.
// Sources: ComfyUI 0.3.64 comfy_extras/nodes_easycache.py (behaviour); Zhou et al. 2025,
// arXiv:2507.02860.
// Owns: tensors and arrays live in the hook's block of a sampling run.
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "nodes/cfg_node.h"
#include "nodes/guide_sums.h"
#include "nodes/nodes.h"
#include "sample/sigmas.h"

enum { EVERY = 8, MAX_IDS = 64 };
typedef struct cache {
    const char *name;
    double threshold, start, end;
    bool verbose;
} cache;

// Values of every 8th row and column.
typedef struct sparse {
    float *v;
    int64_t n;
} sparse;

// A conditioning, and where its latents begin in the batch.
typedef struct part {
    size_t id;
    int64_t row;
} part;
static bool same_part(part a, part b)
{
    return a.id == b.id && a.row == b.row;
}

typedef struct cache_run {
    double from, to; // sigmas
    bool initial, skipping, has_rate, has_norm;
    part first; // the conditioning that decides
    double rate, sum, norm;
    sparse x, out;             // of the last computed step
    at_tensor *diff;           // LazyCache
    at_tensor *diffs[MAX_IDS]; // EasyCache, with the parts they belong to
    part ids[MAX_IDS];
    size_t n_ids;
    int64_t shape[3]; // of one latent; 0: not known yet
    int skipped;
} cache_run;

// --- measuring -----------------------------------------------------------------------------------
static bool take(at_ops *o, const at_tensor *t, sparse *out)
{
    float *all = at_sum_values(o, t);
    int64_t h = t ? t->shape[2] : 0, w = t ? t->shape[3] : 0, n = 0;

    if (!all || h < 1 || w < 1) {
        at_free(all);
        return false;
    }
    for (int64_t i = 0, count = at_tensor_count(t); i < count; i++)
        if (i % w % EVERY == 0 && i / w % h % EVERY == 0) all[n++] = all[i];
    at_free(out->v);
    *out = (sparse){all, n};
    return true;
}

static double change(const sparse *a, const sparse *b)
{
    double sum = 0;
    for (int64_t i = 0; i < a->n && i < b->n; i++)
        sum += fabs((double)a->v[i] - (double)b->v[i]);
    return a->n ? sum / (double)a->n : 0;
}

static bool mean_size(at_ops *o, const at_tensor *t, double *out)
{
    float *v = at_sum_values(o, t);
    double sum = 0;
    if (!v) return false;
    int64_t n = at_tensor_count(t);
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)v[i]);
    *out = n ? sum / (double)n : 0;
    at_free(v);
    return true;
}

static void forget(cache_run *r)
{
    at_free(r->x.v);
    at_free(r->out.v);
    at_tensor_release(&r->diff);
    for (size_t i = 0; i < r->n_ids; i++)
        at_tensor_release(&r->diffs[i]);
    r->x = r->out = (sparse){0};
    r->n_ids = 0;
    r->has_norm = false;
}

// A latent of another size begins anew; the rate is 0 then, and known.
static void check_shape(cache_run *r, const at_tensor *x)
{
    if (r->shape[0] && memcmp(r->shape, x->shape + 1, sizeof r->shape) != 0) {
        forget(r);
        r->initial = true;
        r->skipping = false;
        r->has_rate = true;
        r->rate = r->sum = 0;
    }
    memcpy(r->shape, x->shape + 1, sizeof r->shape);
}

static at_status begin(void *self, void *run, at_guide *g)
{
    const cache *k = self;
    cache_run *r = run;
    r->from = at_percent_to_sigma(at_guide_sampling(g), k->start);
    r->to = at_percent_to_sigma(at_guide_sampling(g), k->end);
    r->initial = true;
    return AT_OK;
}
static void end(void *self, void *run)
{
    const cache *k = self;
    cache_run *r = run;
    at_log(k->verbose ? AT_WARN : AT_INFO, "STEP-CACHE", "%s: %d steps were guessed", k->name,
           r->skipped);
    forget(r);
}

// Is this step to be guessed? *input: how much x changed since the last computed step, or NaN.
static bool guess(const cache *k, cache_run *r, const sparse *x, double *input)
{
    if (r->x.v) *input = change(x, &r->x);
    if (!r->has_norm || !r->has_rate) return false;
    r->sum += r->rate * *input / r->norm;
    if (r->sum < k->threshold) return true;
    r->sum = 0;
    return false;
}

// What a computed step teaches.
static bool learn(at_ops *o, cache_run *r, sparse *x, const at_tensor *out,
                  const at_tensor *measured, double input)
{
    sparse now = {0};
    double norm = 0;
    if (!take(o, measured, &now) || !mean_size(o, out, &norm)) {
        at_free(now.v);
        return false;
    }
    if (r->has_norm && !isnan(input)) {
        r->rate = change(&now, &r->out) / input;
        r->has_rate = true;
    }
    at_free(r->x.v);
    at_free(r->out.v);
    r->x = *x;
    *x = (sparse){0};
    r->out = now;
    r->norm = norm;
    r->has_norm = true;
    return true;
}

// --- EasyCache -----------------------------------------------------------------------------------
static part part_at(const at_forward *f, int i)
{
    return (part){f->ids[i], f->row};
}
static int place_of(const at_forward *f, part p)
{
    for (int i = 0; i < f->in->chunks; i++)
        if (same_part(part_at(f, i), p)) return i;
    return -1;
}
static at_tensor **diff_of(cache_run *r, part p, bool make)
{
    for (size_t i = 0; i < r->n_ids; i++)
        if (same_part(r->ids[i], p)) return &r->diffs[i];
    if (!make || r->n_ids == MAX_IDS) return NULL;
    r->ids[r->n_ids] = p;
    r->diffs[r->n_ids] = NULL;
    return &r->diffs[r->n_ids++];
}
static at_tensor *chunk(at_ops *o, const at_tensor *t, int i, int chunks)
{
    int64_t rows = t ? t->shape[0] / chunks : 0;
    return at_contiguous(o, at_narrow(o, t, 0, i * rows, rows));
}
// What the network is given: x, and what is concatenated.
static const at_tensor *whole_input(at_ops *o, const at_model_in *in)
{
    if (!in->concat) return in->x;
    return at_concat(o, 1, 2, (const at_tensor *const[]){in->x, in->concat});
}
// As many channels of it as the output has, from the last ones.
static at_tensor *last_channels(at_ops *o, const at_tensor *x, int64_t channels)
{
    if (!x || x->shape[1] == channels) return (at_tensor *)x;
    return at_contiguous(o, at_narrow(o, x, 1, x->shape[1] - channels, channels));
}

// Input plus each conditioning's difference; NULL if one was never computed.
static at_tensor *reuse(cache_run *r, at_ops *o, const at_forward *f, const at_tensor *x)
{
    const at_tensor *sum[MAX_IDS];
    int n = f->in->chunks;
    if (n > MAX_IDS) return NULL;
    for (int i = 0; i < n; i++) {
        at_tensor **diff = diff_of(r, part_at(f, i), false);
        if (!diff || !*diff || (*diff)->shape[0] * n != x->shape[0]) return NULL;
        sum[i] = at_add(o, chunk(o, last_channels(o, x, (*diff)->shape[1]), i, n), *diff);
    }
    if (place_of(f, r->first) >= 0) r->skipped++;
    return n == 1 ? (at_tensor *)sum[0] : at_concat(o, 0, n, sum);
}

static void keep_diffs(cache_run *r, at_ops *o, const at_forward *f, const at_tensor *x,
                       const at_tensor *out)
{
    at_tensor *all = at_mix_2(o, 1, out, -1, last_channels(o, x, out->shape[1]));
    for (int i = 0; all && i < f->in->chunks; i++) {
        at_tensor **diff = diff_of(r, part_at(f, i), true);
        if (!diff) continue;
        at_tensor *kept = at_ops_keep(o, chunk(o, all, i, f->in->chunks));
        at_tensor_release(diff);
        *diff = kept;
    }
}

static at_tensor *compute(cache_run *r, at_ops *o, const at_forward *f, const at_tensor *x,
                          sparse *seen, double input)
{
    at_tensor *out = at_forward_next(o, f);
    int at = r->initial ? -1 : place_of(f, r->first);
    if (!out || at_ops_status(o) != AT_OK) return NULL;
    keep_diffs(r, o, f, x, out);
    if (at < 0) return out;
    if (!seen->v && !take(o, chunk(o, x, at, f->in->chunks), seen)) return NULL;
    return learn(o, r, seen, out, chunk(o, out, at, f->in->chunks), input) ? out : NULL;
}

static at_tensor *easy_forward(void *self, void *run, at_ops *o, const at_forward *f)
{
    cache_run *r = run;
    double input = NAN, sigma = f->in->sigma;
    sparse seen = {0};
    at_tensor *out = NULL;

    if (!(sigma > r->to)) return at_forward_next(o, f);
    const at_tensor *x = whole_input(o, f->in);
    if (!x || at_ops_status(o) != AT_OK) return NULL;
    if (sigma <= r->from) {
        check_shape(r, x);
        if (r->skipping) out = reuse(r, o, f, x);
        if (out) return out;
        if (r->initial) r->first = part_at(f, 0);
        r->initial = false;
        int at = place_of(f, r->first);
        if (at >= 0 && !take(o, chunk(o, x, at, f->in->chunks), &seen)) return NULL;
        if (at >= 0 && guess(self, r, &seen, &input)) {
            r->skipping = true;
            out = reuse(r, o, f, x);
        }
    }
    if (!out) out = compute(r, o, f, x, &seen, input);
    at_free(seen.v);
    return out;
}
static void easy_asked(void *self, void *run)
{
    (void)self;
    ((cache_run *)run)->skipping = false;
}
static const at_hook_ops easy_ops = {.name = "EasyCache",
                                     .run_size = sizeof(cache_run),
                                     .begin = begin,
                                     .end = end,
                                     .asked = easy_asked,
                                     .forward = easy_forward};

// --- LazyCache -----------------------------------------------------------------------------------
// A guessed step has no negative estimate of its own: a cfg++ solver gets the guessed picture for
// it.
static at_predicted lazy_predict(void *self, void *run, at_ops *o, const at_predict *p)
{
    cache_run *r = run;
    double input = NAN, sigma = p->sigma;
    sparse seen = {0};
    at_predicted out = {0};

    if (!(sigma > r->to)) return at_predict_next(o, p);
    if (sigma <= r->from) {
        check_shape(r, p->x);
        if (!take(o, p->x, &seen)) return out;
        if (r->x.v && guess(self, r, &seen, &input) && r->diff) {
            at_free(seen.v);
            r->skipped++;
            out.out = at_add(o, p->x, r->diff);
            out.uncond = p->want_uncond ? out.out : NULL;
            return out;
        }
    }
    out = at_predict_next(o, p);
    if (out.out && (seen.v || take(o, p->x, &seen)) &&
        learn(o, r, &seen, out.out, out.out, input)) {
        at_tensor *diff = at_mix_2(o, 1, out.out, -1, p->x);
        diff = diff ? at_ops_keep(o, diff) : NULL;
        at_tensor_release(&r->diff);
        r->diff = diff;
    }
    at_free(seen.v);
    return out;
}
static const at_hook_ops lazy_ops = {.name = "LazyCache",
                                     .run_size = sizeof(cache_run),
                                     .begin = begin,
                                     .end = end,
                                     .predict = lazy_predict};

// --- nodes ---------------------------------------------------------------------------------------
typedef struct cache_in {
    at_object *model;
    double reuse_threshold, start_percent, end_percent;
    bool verbose;
} cache_in;
static const at_in cache_rows[] = {
    AT_ROW(cache_in, model, AT_IN_OBJECT, .type_name = "MODEL", .tip = "The model to speed up."),
    AT_ROW_FLOAT_STEP(cache_in, reuse_threshold, 0.2, 0, 3, 0.01),
    AT_ROW_FLOAT_STEP(cache_in, start_percent, 0.15, 0, 1, 0.01),
    AT_ROW_FLOAT_STEP(cache_in, end_percent, 0.95, 0, 1, 0.01),
    AT_ROW(cache_in, verbose, AT_IN_BOOL, .def = 0, .tip = "Whether to say more in the log."),
};
static at_status give(const cache_in *i, const at_hook_ops *ops, at_value *out)
{
    cache k = {ops->name, i->reuse_threshold, i->start_percent, i->end_percent, i->verbose};
    return at_cfg_give(i->model, ops, &k, sizeof k, out);
}
static at_status easy_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return give(in, &easy_ops, &out[0]);
}
static at_status lazy_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return give(in, &lazy_ops, &out[0]);
}
#define CACHE_NODE(cls, fn)                                                                        \
    AT_MODEL_NODE(cls, cls, "advanced/debug/model", "comfy_extras.nodes_easycache",                \
                  AT_NODE_V3 | AT_NODE_EXPERIMENTAL, cache_rows, cache_in, at_model_outs, fn)
static const at_node node_easy = CACHE_NODE("EasyCache", easy_run);
static const at_node node_lazy = CACHE_NODE("LazyCache", lazy_run);

const at_node *const at_nodes_model_cfg_cache[] = {&node_easy, &node_lazy, NULL};
