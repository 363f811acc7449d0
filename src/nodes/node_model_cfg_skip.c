// SPDX-License-Identifier: Apache-2.0
// node_model_cfg_skip.c - guidance that asks the network once more: SkipLayerGuidance*, PerpNeg;
// and DifferentialDiffusion, which moves the denoise mask.
// Idea: "skip" is a network patch that leaves blocks out; it is added for the further question
// alone.
// Easy to get wrong: layers are all runs of digits in the text; without any the model is returned
// as it is; SkipLayerGuidanceDiT asks only inside its range, ends included.
// Sources: ComfyUI 0.3.64 comfy_extras/nodes_slg.py, nodes_sd3.py, nodes_perpneg.py,
// nodes_differential_diffusion.py (behaviour); Levin & Fried 2023, arXiv:2306.00950.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/cfg_node.h"
#include "nodes/guide_impl.h"
#include "nodes/guide_sums.h"
#include "nodes/nodes.h"
#include "sample/sigmas.h"

// --- leaving blocks out --------------------------------------------------------------------------
enum { MAX_LAYERS = 64 };
typedef struct layers {
    int block[MAX_LAYERS];
    size_t count;
} layers;
typedef struct skipped {
    layers doubles, singles;
} skipped;

static at_status find_layers(const char *node, const char *text, layers *out)
{
    while (*text) {
        if (*text < '0' || *text > '9') {
            text++;
            continue;
        }
        int64_t n = 0;
        for (; *text >= '0' && *text <= '9'; text++)
            if (n < 1000000) n = n * 10 + (*text - '0');
        if (out->count == MAX_LAYERS)
            return at_fail(AT_EINVAL, "%s: more than %d layers", node, MAX_LAYERS);
        out->block[out->count++] = (int)n;
    }
    return AT_OK;
}

static bool has(const layers *l, int block)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->block[i] == block) return true;
    return false;
}
static bool skips(void *self, const at_site *s)
{
    const skipped *k = self;
    return (s->part == AT_SITE_DOUBLE && has(&k->doubles, s->block)) ||
           (s->part == AT_SITE_SINGLE && has(&k->singles, s->block));
}
static const at_patch_ops skip_patch = {.name = "SkipLayerGuidance", .skips = skips};

// --- SkipLayerGuidanceDiT, SkipLayerGuidanceSD3 --------------------------------------------------
typedef struct slg {
    const char *node;
    skipped skip;
    double scale, start, end, rescale;
} slg;
typedef struct slg_run {
    at_patches *patches;
    double from, to; // sigmas
} slg_run;

static at_status slg_begin(void *self, void *run, at_guide *g)
{
    const slg *k = self;
    slg_run *r = run;
    skipped *copy = at_alloc(sizeof *copy);

    r->from = at_percent_to_sigma(at_guide_sampling(g), k->start);
    r->to = at_percent_to_sigma(at_guide_sampling(g), k->end);
    if (!copy) return at_fail(AT_ENOMEM, "%s: no memory", k->node);
    *copy = k->skip;
    return at_patches_add(at_guide_patches(g), &skip_patch, copy, &r->patches);
}
static void slg_end(void *self, void *run)
{
    (void)self;
    at_patches_release(&((slg_run *)run)->patches);
}
static bool in_range(const slg_run *r, float sigma)
{
    return (double)sigma >= r->to && (double)sigma <= r->from;
}

static at_tensor *slg_post_cfg(void *self, void *run, at_ops *o, const at_guided *d)
{
    const slg *k = self;
    const slg_run *r = run;
    at_tensor *without = NULL;
    double own = 0, guided = 0;

    if (!(k->scale > 0) || !in_range(r, d->sigma)) return d->denoised;
    at_guide_estimate(d->guide, o, d->x, d->sigma, 1, &d->list[0], r->patches, &without);
    at_tensor *out = at_mix_3(o, 1, d->denoised, k->scale, d->x0[0], -k->scale, without);
    if (k->rescale == 0) return out;
    if (!out || !at_sum_deviation(o, d->x0[0], &own) || !at_sum_deviation(o, out, &guided))
        return NULL;
    return at_affine(o, out, (float)(k->rescale * (own / guided) + (1 - k->rescale)), 0);
}
static const at_hook_ops slg_ops = {.name = "SkipLayerGuidance",
                                    .run_size = sizeof(slg_run),
                                    .begin = slg_begin,
                                    .end = slg_end,
                                    .post_cfg = slg_post_cfg};

typedef struct slg_in {
    at_object *model;
    const char *double_layers, *single_layers, *layers;
    double scale, start_percent, end_percent, rescaling_scale;
} slg_in;
#define ROW_LAYERS(field)                                                                          \
    AT_ROW(slg_in, field, AT_IN_STRING, .sdef = "7, 8, 9", .flags = AT_INF_SINGLE_LINE)
static const at_in slg_rows[] = {
    AT_ROW_LINK(slg_in, model, "MODEL"),
    ROW_LAYERS(double_layers),
    ROW_LAYERS(single_layers),
    AT_ROW_FLOAT_STEP(slg_in, scale, 3.0, 0, 10, 0.1),
    AT_ROW_FLOAT_STEP(slg_in, start_percent, 0.01, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(slg_in, end_percent, 0.15, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(slg_in, rescaling_scale, 0.0, 0, 10, 0.01),
};
static const at_in slg_sd3_rows[] = {
    AT_ROW_LINK(slg_in, model, "MODEL"),
    ROW_LAYERS(layers),
    AT_ROW_FLOAT_STEP(slg_in, scale, 3.0, 0, 10, 0.1),
    AT_ROW_FLOAT_STEP(slg_in, start_percent, 0.01, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(slg_in, end_percent, 0.15, 0, 1, 0.001),
};

static at_status slg_give(const char *node, const slg_in *i, const char *doubles,
                          const char *singles, const at_hook_ops *ops, at_value *out)
{
    at_status st = AT_OK;
    slg k = {.node = node,
             .scale = i->scale,
             .start = i->start_percent,
             .end = i->end_percent,
             .rescale = i->rescaling_scale};

    AT_TRY(find_layers(node, doubles, &k.skip.doubles));
    AT_TRY(find_layers(node, singles, &k.skip.singles));
    if (!k.skip.doubles.count && !k.skip.singles.count)
        *out = at_value_object(at_object_retain(i->model));
    else
        AT_TRY(at_cfg_give(i->model, ops, &k, sizeof k, out));
out:
    return st;
}
static at_status slg_node_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const slg_in *i = in;
    return slg_give("SkipLayerGuidanceDiT", i, i->double_layers, i->single_layers, &slg_ops, out);
}
static at_status slg_sd3_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const slg_in *i = in;
    return slg_give("SkipLayerGuidanceSD3", i, i->layers, "", &slg_ops, out);
}
#define WHERE      "advanced/guidance"
#define SLG_MODULE "comfy_extras.nodes_slg"
static const at_node node_slg =
    AT_MODEL_NODE("SkipLayerGuidanceDiT", NULL, WHERE, SLG_MODULE,
                  AT_NODE_V3 | AT_NODE_EXPERIMENTAL, slg_rows, slg_in, at_model_outs, slg_node_run);
static const at_node node_slg_sd3 = AT_MODEL_NODE(
    "SkipLayerGuidanceSD3", NULL, WHERE, "comfy_extras.nodes_sd3",
    AT_NODE_V3 | AT_NODE_EXPERIMENTAL, slg_sd3_rows, slg_in, at_model_outs, slg_sd3_run);

// --- SkipLayerGuidanceDiTSimple: only the negative prompt goes without ---------------------------
static void simple_estimate(void *self, void *run, at_ops *o, at_guided *d)
{
    (void)self;
    const slg_run *r = run;
    const at_list_id positive[2] = {d->list[0], AT_LIST_NONE};
    const at_list_id negative[2] = {AT_LIST_NONE, d->list[1]};
    at_tensor *x0[2];

    if (!in_range(r, d->sigma) || d->list[1] == AT_LIST_NONE) {
        at_guide_estimate(d->guide, o, d->x, d->sigma, d->n, d->list, NULL, d->x0);
        return;
    }
    at_guide_estimate(d->guide, o, d->x, d->sigma, 2, positive, NULL, x0);
    d->x0[0] = x0[0];
    at_guide_estimate(d->guide, o, d->x, d->sigma, 2, negative, r->patches, x0);
    d->x0[1] = x0[1];
}
static const at_hook_ops simple_ops = {.name = "SkipLayerGuidanceDiTSimple",
                                       .run_size = sizeof(slg_run),
                                       .begin = slg_begin,
                                       .end = slg_end,
                                       .estimate = simple_estimate};
static const at_in simple_rows[] = {
    AT_ROW_LINK(slg_in, model, "MODEL"),
    ROW_LAYERS(double_layers),
    ROW_LAYERS(single_layers),
    AT_ROW_FLOAT_STEP(slg_in, start_percent, 0.0, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(slg_in, end_percent, 1.0, 0, 1, 0.001),
};
static at_status simple_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const slg_in *i = in;
    return slg_give("SkipLayerGuidanceDiTSimple", i, i->double_layers, i->single_layers,
                    &simple_ops, out);
}
static const at_node node_simple = AT_MODEL_NODE("SkipLayerGuidanceDiTSimple", NULL, WHERE,
                                                 SLG_MODULE, AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                                 simple_rows, slg_in, at_model_outs, simple_run);

// --- PerpNeg -------------------------------------------------------------------------------------
typedef struct perp {
    at_object *empty; // counted
    double neg_scale;
} perp;
static const at_object *perp_third(void *self)
{
    return ((const perp *)self)->empty;
}
static void perp_free(void *self)
{
    at_object_release(((perp *)self)->empty);
    at_free(self);
}
static at_tensor *perp_cfg(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    const at_list_id third = AT_LIST_THIRD;
    at_tensor *empty = NULL;
    at_guide_estimate(d->guide, o, d->x, d->sigma, 1, &third, NULL, &empty);
    return at_guide_perpendicular(o, d->x0[0], d->x0[1], empty, d->cfg,
                                  ((const perp *)self)->neg_scale);
}
static const at_hook_ops perp_ops = {
    .name = "PerpNeg", .free = perp_free, .third = perp_third, .cfg = perp_cfg};

typedef struct perp_in {
    at_object *model, *empty_conditioning;
    double neg_scale;
} perp_in;
static const at_in perp_rows[] = {AT_ROW_LINK(perp_in, model, "MODEL"),
                                  AT_ROW_LINK(perp_in, empty_conditioning, "CONDITIONING"),
                                  AT_ROW_FLOAT_STEP(perp_in, neg_scale, 1.0, 0, 100, 0.01)};
static at_status perp_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const perp_in *i = in;
    perp *k = at_alloc(sizeof *k);
    at_object *o = NULL;

    if (!k) return at_fail(AT_ENOMEM, "PerpNeg: no memory");
    *k = (perp){at_object_retain(i->empty_conditioning), i->neg_scale};
    at_status st = at_obj_model_hook((const at_obj_model *)i->model, &perp_ops, k, &o);
    if (st == AT_OK) out[0] = at_value_object(o);
    return st;
}
static const at_node node_perp = AT_MODEL_NODE(
    "PerpNeg", "Perp-Neg (DEPRECATED by PerpNegGuider)", "_for_testing",
    "comfy_extras.nodes_perpneg", AT_NODE_V3 | AT_NODE_EXPERIMENTAL | AT_NODE_DEPRECATED, perp_rows,
    perp_in, at_model_outs, perp_run);

// --- DifferentialDiffusion -----------------------------------------------------------------------
typedef struct differential {
    float strength;
} differential;
typedef struct differential_run {
    const at_model_sampling *sampling;
    float from, to; // timesteps of the schedule's ends
} differential_run;

static at_status differential_begin(void *self, void *run, at_guide *g)
{
    (void)self;
    differential_run *r = run;
    size_t n = 0;
    const float *s = at_guide_sigmas(g, &n);
    r->sampling = at_guide_sampling(g);
    float last = at_sigma_min(r->sampling);
    if (n && s[n - 1] > last) last = s[n - 1];
    r->from = at_sigma_to_timestep(r->sampling, n ? s[0] : last);
    r->to = at_sigma_to_timestep(r->sampling, last);
    return AT_OK;
}

// A cell is painted from the step on at which its mask reaches what is left of the way.
static at_tensor *differential_mask(void *self, void *run, at_ops *o, const at_tensor *mask,
                                    float sigma)
{
    const differential_run *r = run;
    float share = ((const differential *)self)->strength;
    float now = at_sigma_to_timestep(r->sampling, sigma);
    float threshold = (now - r->to) / (r->from - r->to);
    int64_t n = at_tensor_count(mask);
    const float *from = at_tensor_data(mask);
    float *to = at_alloc((size_t)n * sizeof *to);

    if (!to) return at_ops_poison(o, AT_ENOMEM, "DifferentialDiffusion: no memory");
    for (int64_t i = 0; i < n; i++) {
        float hard = from[i] >= threshold ? 1.0f : 0.0f;
        to[i] = share != 0 && share < 1 ? share * hard + (1 - share) * from[i] : hard;
    }
    at_tensor *t = at_from_host(o, AT_F32, mask->rank, mask->shape, to);
    at_free(to);
    return t;
}
static const at_hook_ops differential_ops = {.name = "DifferentialDiffusion",
                                             .run_size = sizeof(differential_run),
                                             .begin = differential_begin,
                                             .mask = differential_mask};

typedef struct differential_in {
    at_object *model;
    double strength;
} differential_in;
static const at_in differential_rows[] = {
    AT_ROW_LINK(differential_in, model, "MODEL"),
    AT_ROW(differential_in, strength, AT_IN_FLOAT, .def = 1.0, .min = 0, .max = 1, .step = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_OPTIONAL),
};
static at_status differential_node_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const differential_in *i = in;
    differential k = {(float)i->strength};
    return at_cfg_give(i->model, &differential_ops, &k, sizeof k, &out[0]);
}
static const at_node node_differential =
    AT_MODEL_NODE("DifferentialDiffusion", "Differential Diffusion", "_for_testing",
                  "comfy_extras.nodes_differential_diffusion", AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                  differential_rows, differential_in, at_model_outs, differential_node_run);

const at_node *const at_nodes_model_cfg_skip[] = {&node_slg,  &node_slg_sd3,      &node_simple,
                                                  &node_perp, &node_differential, NULL};
