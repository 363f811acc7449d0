// SPDX-License-Identifier: Apache-2.0
// node_model_cfg.c - guidance by other rules than positive minus negative: RescaleCFG, RenormCFG,
// VideoLinearCFGGuidance, VideoTriangleCFGGuidance, PerpNeg, CFGZeroStar, CFGNorm, Epsilon Scaling,
// Mahiro.
// Idea: each rule is a function from estimates (x0) to an estimate.
// Easy to get wrong: RescaleCFG compares deviations of v, not of x0, so estimates are turned into v
// first; standard deviations are those of a sample (n - 1).
// Sources: ComfyUI 0.3.64 comfy_extras (behaviour); Lin et al. 2023, arXiv:2305.08891 (rescale);
// Fan et al. 2025, arXiv:2503.18886 (CFG-Zero*); Ning et al. 2023, arXiv:2308.15321 (epsilon
// scaling).
#include <math.h>

#include "base/mem.h"
#include "nodes/cfg_node.h"
#include "nodes/guide_sums.h"
#include "nodes/nodes.h"
#include "sample/guidance.h"

static at_tensor *plain(at_ops *o, const at_guided *d)
{
    return at_cfg(o, d->x0[0], d->x0[1], d->cfg);
}

// --- RescaleCFG ----------------------------------------------------------------------------------
typedef struct rescale {
    double multiplier;
} rescale;
// v of an estimate: (x / (s^2 + 1) - x0) sqrt(s^2 + 1) / s
static at_tensor *velocity(at_ops *o, const at_guided *d, const at_tensor *x0)
{
    double s = d->sigma, p = s * s + 1, r = sqrt(p) / s;
    return at_mix_2(o, r / p, d->x, -r, x0);
}
static at_tensor *rescale_cfg(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    const rescale *k = self;
    double s = d->sigma, p = s * s + 1, *own, *guided;
    at_tensor *cond = velocity(o, d, d->x0[0]), *uncond = velocity(o, d, d->x0[1]);
    at_tensor *v = at_cfg(o, cond, uncond, d->cfg), *out = NULL;

    if (!at_cfg_fits(o, d)) return NULL;
    own = at_calloc((size_t)d->x->shape[0], 2 * sizeof *own);
    if (!own) return at_ops_poison(o, AT_ENOMEM, "RescaleCFG: no memory");
    guided = own + d->x->shape[0];
    if (at_sum_deviations(o, cond, own) && at_sum_deviations(o, v, guided)) {
        for (int64_t i = 0; i < d->x->shape[0]; i++)
            own[i] = k->multiplier * (own[i] / guided[i]) + (1 - k->multiplier);
        out = at_mix_2(o, 1 / p, d->x, -s / sqrt(p), at_scale_items(o, v, own));
    }
    at_free(own);
    return out;
}
static const at_hook_ops rescale_ops = {.name = "RescaleCFG", .cfg = rescale_cfg};

typedef struct rescale_in {
    at_object *model;
    double multiplier;
} rescale_in;
static const at_in rescale_rows[] = {AT_ROW_LINK_BARE(rescale_in, model, "MODEL"),
                                     AT_ROW_FLOAT_STEP(rescale_in, multiplier, 0.7, 0, 1, 0.01)};
static at_status rescale_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const rescale_in *i = in;
    rescale k = {i->multiplier};
    return at_cfg_give(i->model, &rescale_ops, &k, sizeof k, &out[0]);
}
static const at_node node_rescale =
    AT_MODEL_NODE("RescaleCFG", "RescaleCFG", "advanced/model", "comfy_extras.nodes_model_advanced",
                  0, rescale_rows, rescale_in, at_model_outs, rescale_run);

// --- RenormCFG -----------------------------------------------------------------------------------
typedef struct renorm {
    double cfg_trunc, renorm_cfg;
} renorm;
// The guided estimate is not longer than `renorm_cfg` times the positive one; above sigma cfg_trunc
// the positive one stands alone.
static at_tensor *renorm_cfg(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    const renorm *k = self;
    double *own, *guided;
    at_tensor *out;

    if (!at_cfg_fits(o, d)) return NULL;
    if (!(d->sigma < (float)k->cfg_trunc)) return d->x0[0];
    out = plain(o, d);
    if (!(k->renorm_cfg > 0)) return out;
    own = at_calloc((size_t)d->x->shape[0], 2 * sizeof *own);
    if (!own) return at_ops_poison(o, AT_ENOMEM, "RenormCFG: no memory");
    guided = own + d->x->shape[0];
    bool ok = at_sum_dots(o, d->x0[0], d->x0[0], own) && at_sum_dots(o, out, out, guided);
    for (int64_t i = 0; ok && i < d->x->shape[0]; i++) {
        double most = sqrt(own[i]) * k->renorm_cfg, length = sqrt(guided[i]);
        own[i] = length >= most && length > 0 ? most / length : 1;
    }
    if (ok) out = at_scale_items(o, out, own);
    at_free(own);
    return ok ? out : NULL;
}
static const at_hook_ops renorm_ops = {.name = "RenormCFG", .cfg = renorm_cfg};

typedef struct renorm_in {
    at_object *model;
    double cfg_trunc, renorm_cfg;
} renorm_in;
static const at_in renorm_rows[] = {
    AT_ROW_LINK(renorm_in, model, "MODEL"),
    AT_ROW(renorm_in, cfg_trunc, AT_IN_FLOAT, .def = 100, .min = 0, .max = 100, .step = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP, .alt = AT_ALT_DEF),
    AT_ROW_FLOAT_STEP(renorm_in, renorm_cfg, 1.0, 0, 100, 0.01),
};
static at_status renorm_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const renorm_in *i = in;
    renorm k = {i->cfg_trunc, i->renorm_cfg};
    return at_cfg_give(i->model, &renorm_ops, &k, sizeof k, &out[0]);
}
static const at_node node_renorm =
    AT_MODEL_NODE("RenormCFG", NULL, "advanced/model", "comfy_extras.nodes_lumina2", AT_NODE_V3,
                  renorm_rows, renorm_in, at_model_outs, renorm_run);

// --- guidance that grows along the batch ---------------------------------------------------------
typedef struct along {
    double min_cfg;
    bool triangle;
} along;
static at_tensor *along_cfg(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    const along *k = self;
    int64_t n = d->x->shape[0];
    at_tensor *out = NULL;

    if (!at_cfg_fits(o, d)) return NULL;
    double *scale = at_calloc((size_t)n, sizeof *scale);
    if (!scale) return at_ops_poison(o, AT_ENOMEM, "guidance: no memory");
    for (int64_t i = 0; i < n; i++) {
        double at = n > 1 ? (double)i / (double)(n - 1) : 0;
        if (k->triangle) at = 2 * fabs(at - floor(at + 0.5));
        scale[i] = k->min_cfg + at * (d->cfg - k->min_cfg);
    }
    at_tensor *step = at_mix_2(o, 1, d->x0[0], -1, d->x0[1]);
    out = at_add(o, at_scale_items(o, step, scale), d->x0[1]);
    at_free(scale);
    return out;
}
static const at_hook_ops along_ops = {.name = "VideoCFGGuidance", .cfg = along_cfg};

typedef struct along_in {
    at_object *model;
    double min_cfg;
} along_in;
static const at_in along_rows[] = {
    AT_ROW_LINK_BARE(along_in, model, "MODEL"),
    AT_ROW(along_in, min_cfg, AT_IN_FLOAT, .def = 1.0, .min = 0, .max = 100, .step = 0.5,
           .round = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_HAS_ROUND),
};
static at_status linear_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    along k = {((const along_in *)in)->min_cfg, false};
    return at_cfg_give(((const along_in *)in)->model, &along_ops, &k, sizeof k, &out[0]);
}
static at_status triangle_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    along k = {((const along_in *)in)->min_cfg, true};
    return at_cfg_give(((const along_in *)in)->model, &along_ops, &k, sizeof k, &out[0]);
}
#define VIDEO        "sampling/video_models"
#define VIDEO_MODULE "comfy_extras.nodes_video_model"
static const at_node node_linear =
    AT_MODEL_NODE("VideoLinearCFGGuidance", "VideoLinearCFGGuidance", VIDEO, VIDEO_MODULE, 0,
                  along_rows, along_in, at_model_outs, linear_run);
static const at_node node_triangle =
    AT_MODEL_NODE("VideoTriangleCFGGuidance", "VideoTriangleCFGGuidance", VIDEO, VIDEO_MODULE, 0,
                  along_rows, along_in, at_model_outs, triangle_run);

// --- CFGZeroStar ---------------------------------------------------------------------------------
// The negative direction is scaled to the length that the positive one has along it.
static at_tensor *zero_star(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)self, (void)run;
    at_tensor *out = NULL, *pos = at_mix_2(o, 1, d->x, -1, d->x0[0]);
    at_tensor *neg = at_mix_2(o, 1, d->x, -1, d->x0[1]);

    if (!at_cfg_fits(o, d)) return NULL;
    double *dot = at_calloc((size_t)d->x->shape[0], 2 * sizeof *dot), *norm;
    if (!dot) return at_ops_poison(o, AT_ENOMEM, "CFGZeroStar: no memory");
    norm = dot + d->x->shape[0];
    if (at_sum_dots(o, pos, neg, dot) && at_sum_dots(o, neg, neg, norm)) {
        for (int64_t i = 0; i < d->x->shape[0]; i++)
            dot[i] = (d->cfg - 1) * (1 - dot[i] / (norm[i] + 1e-8));
        out = at_add(o, at_scale_items(o, d->x0[1], dot), d->denoised);
    }
    at_free(dot);
    return out;
}
static const at_hook_ops zero_star_ops = {.name = "CFGZeroStar", .post_cfg = zero_star};

typedef struct model_in {
    at_object *model;
} model_in;
static const at_in model_rows[] = {AT_ROW_LINK(model_in, model, "MODEL")};
static at_status zero_star_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cfg_give(((const model_in *)in)->model, &zero_star_ops, NULL, 0, &out[0]);
}
static const at_node node_zero_star =
    AT_MODEL_NODE("CFGZeroStar", NULL, "advanced/guidance", "comfy_extras.nodes_cfg", AT_NODE_V3,
                  model_rows, model_in, at_patched_outs, zero_star_run);

// --- CFGNorm -------------------------------------------------------------------------------------
typedef struct norm {
    double strength;
} norm;
// In every cell, the guided estimate is at most as long as the positive one.
static at_tensor *cfg_norm(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    float *own = at_sum_values(o, d->x0[0]), *out = at_sum_values(o, d->denoised);
    int64_t c = d->x->shape[1], plane = d->x->shape[2] * d->x->shape[3];
    at_tensor *t = NULL;

    for (int64_t i = 0; own && out && i < d->x->shape[0] * plane; i++) {
        int64_t at = i / plane * c * plane + i % plane;
        double a = 0, b = 0;
        for (int64_t k = 0; k < c; k++) {
            a += (double)own[at + k * plane] * (double)own[at + k * plane];
            b += (double)out[at + k * plane] * (double)out[at + k * plane];
        }
        double scale = sqrt(a) / (sqrt(b) + 1e-8);
        for (int64_t k = 0; k < c; k++)
            out[at + k * plane] *=
                (float)((scale > 1 ? 1 : scale) * ((const norm *)self)->strength);
    }
    if (own && out) t = at_from_host(o, AT_F32, 4, d->x->shape, out);
    at_free(own);
    at_free(out);
    return t;
}
static const at_hook_ops norm_ops = {.name = "CFGNorm", .post_cfg = cfg_norm};

typedef struct norm_in {
    at_object *model;
    double strength;
} norm_in;
static const at_in norm_rows[] = {AT_ROW_LINK(norm_in, model, "MODEL"),
                                  AT_ROW_FLOAT_STEP(norm_in, strength, 1.0, 0, 100, 0.01)};
static at_status norm_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    norm k = {((const norm_in *)in)->strength};
    return at_cfg_give(((const norm_in *)in)->model, &norm_ops, &k, sizeof k, &out[0]);
}
static const at_node node_norm =
    AT_MODEL_NODE("CFGNorm", NULL, "advanced/guidance", "comfy_extras.nodes_cfg",
                  AT_NODE_V3 | AT_NODE_EXPERIMENTAL, norm_rows, norm_in, at_patched_outs, norm_run);

// --- Epsilon Scaling -----------------------------------------------------------------------------
typedef struct epsilon {
    double factor;
} epsilon;
static at_tensor *epsilon_scaling(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)run;
    double k = 1 / ((const epsilon *)self)->factor;
    return at_mix_2(o, 1 - k, d->x, k, d->denoised);
}
static const at_hook_ops epsilon_ops = {.name = "Epsilon Scaling", .post_cfg = epsilon_scaling};

typedef struct epsilon_in {
    at_object *model;
    double scaling_factor;
} epsilon_in;
static const at_in epsilon_rows[] = {
    AT_ROW_LINK(epsilon_in, model, "MODEL"),
    AT_ROW(epsilon_in, scaling_factor, AT_IN_FLOAT, .def = 1.005, .min = 0.5, .max = 1.5,
           .step = 0.001, .display = "number",
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP),
};
static at_status epsilon_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const epsilon_in *i = in;
    epsilon k = {i->scaling_factor == 0 ? 1e-9 : i->scaling_factor};
    return at_cfg_give(i->model, &epsilon_ops, &k, sizeof k, &out[0]);
}
static const at_node node_epsilon =
    AT_MODEL_NODE("Epsilon Scaling", NULL, "model_patches/unet", "comfy_extras.nodes_eps",
                  AT_NODE_V3, epsilon_rows, epsilon_in, at_model_outs, epsilon_run);

const at_node *const at_nodes_model_cfg[] = {
    &node_rescale,   &node_renorm, &node_linear,  &node_triangle,
    &node_zero_star, &node_norm,   &node_epsilon, NULL};
