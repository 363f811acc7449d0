// SPDX-License-Identifier: Apache-2.0
// node_model_cfg_vector.c - guidance that looks at directions: APG, TCFG, Mahiro, PerpNeg, FreSca,
// LatentApplyOperationCFG.
// Idea: an estimate of one latent is one long vector; lengths, projections and angles are found in
// double on the host (guide_sums.h) and become factors of ops.
// Easy to get wrong: APG's running average lives as long as a sampling run and starts anew where
// the noise rises; FreSca's band is not symmetric (-f .. f - 1), so the filtered picture is the
// real part.
// Sources: ComfyUI 0.3.64 comfy_extras (behaviour); Sadat et al. 2024, arXiv:2410.02416 (APG); Kwon
// et al. 2025, arXiv:2503.18137 (TCFG); Huang et al. 2025, arXiv:2504.02154 (FreSca).
#include <math.h>

#include "base/mem.h"
#include "nodes/cfg_node.h"
#include "nodes/guide_sums.h"
#include "nodes/latent_operation.h"
#include "nodes/nodes.h"

static bool both_asked(const at_guided *d)
{
    return d->list[0] != AT_LIST_NONE && d->list[1] != AT_LIST_NONE;
}

// --- APG -----------------------------------------------------------------------------------------
typedef struct apg {
    double eta, norm_threshold, momentum;
} apg;
typedef struct apg_run {
    at_tensor *average;
    float sigma;
    bool started;
} apg_run;

static at_tensor *with_momentum(const apg *k, apg_run *r, at_ops *o, const at_guided *d,
                                at_tensor *guidance)
{
    if (r->started && d->sigma > r->sigma) at_tensor_release(&r->average);
    r->started = true;
    r->sigma = d->sigma;
    if (k->momentum == 0) return guidance;
    if (r->average) guidance = at_mix_2(o, k->momentum, r->average, 1, guidance);
    at_tensor *kept = guidance ? at_ops_keep(o, guidance) : NULL;
    at_tensor_release(&r->average);
    r->average = kept;
    return guidance;
}

static void apg_pre_cfg(void *self, void *run, at_ops *o, at_guided *d)
{
    const apg *k = self;
    int64_t n = d->x->shape[0];
    at_tensor *step = at_mix_2(o, 1, d->x0[0], -1, d->x0[1]);
    at_tensor *g = with_momentum(k, run, o, d, step);
    double *a, *b;

    if (!g || !at_cfg_fits(o, d)) return;
    a = at_calloc((size_t)n, 2 * sizeof *a);
    if (!a) {
        at_ops_poison(o, AT_ENOMEM, "APG: no memory");
        return;
    }
    b = a + n;
    if (k->norm_threshold > 0 && at_sum_dots(o, g, g, a)) {
        for (int64_t i = 0; i < n; i++) {
            double length = sqrt(a[i]);
            a[i] = length > k->norm_threshold ? k->norm_threshold / length : 1;
        }
        g = at_scale_items(o, g, a);
    }
    // Along the positive estimate, eta times; across it, as it is.
    if (at_sum_dots(o, g, d->x0[0], a) && at_sum_dots(o, d->x0[0], d->x0[0], b)) {
        for (int64_t i = 0; i < n; i++) {
            double length = fmax(sqrt(b[i]), 1e-12);
            a[i] = (k->eta - 1) * a[i] / (length * length);
        }
        at_tensor *along = at_scale_items(o, d->x0[0], a);
        at_tensor *sum = at_mix_3(o, 1, d->x0[1], 1, g, 1, along);
        d->x0[0] = at_mix_2(o, 1, sum, 1 / d->cfg, step);
    }
    at_free(a);
}
static void apg_end(void *self, void *run)
{
    (void)self;
    at_tensor_release(&((apg_run *)run)->average);
}
static const at_hook_ops apg_ops = {
    .name = "APG", .run_size = sizeof(apg_run), .end = apg_end, .pre_cfg = apg_pre_cfg};

typedef struct apg_in {
    at_object *model;
    double eta, norm_threshold, momentum;
} apg_in;
static const at_in apg_rows[] = {
    AT_ROW_LINK(apg_in, model, "MODEL"),
    AT_ROW_FLOAT_STEP(apg_in, eta, 1.0, -10, 10, 0.01),
    AT_ROW_FLOAT_STEP(apg_in, norm_threshold, 5.0, 0, 50, 0.1),
    AT_ROW_FLOAT_STEP(apg_in, momentum, 0.0, -5, 1, 0.01),
};
static at_status apg_node_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const apg_in *i = in;
    apg k = {i->eta, i->norm_threshold, i->momentum};
    return at_cfg_give(i->model, &apg_ops, &k, sizeof k, &out[0]);
}
static const at_node node_apg = AT_MODEL_NODE(
    "APG", "Adaptive Projected Guidance", "sampling/custom_sampling", "comfy_extras.nodes_apg",
    AT_NODE_V3, apg_rows, apg_in, at_model_outs, apg_node_run);

// --- TCFG ----------------------------------------------------------------------------------------
// The negative direction keeps what lies along the first singular vector of the two.
static void tcfg_pre_cfg(void *self, void *run, at_ops *o, at_guided *d)
{
    (void)self, (void)run;
    int64_t n = d->x->shape[0];

    if (!both_asked(d) || !at_cfg_fits(o, d)) return;
    at_tensor *c = at_mix_2(o, 1, d->x, -1, d->x0[0]), *u = at_mix_2(o, 1, d->x, -1, d->x0[1]);
    double *cc = at_calloc((size_t)n, 3 * sizeof *cc), *uu, *uc;
    if (!cc) {
        at_ops_poison(o, AT_ENOMEM, "TCFG: no memory");
        return;
    }
    uu = cc + n;
    uc = uu + n;
    if (at_sum_dots(o, c, c, cc) && at_sum_dots(o, u, u, uu) && at_sum_dots(o, u, c, uc)) {
        for (int64_t i = 0; i < n; i++) { // eigenvector (p, q) of the matrix of products
            double turn = 0.5 * atan2(2 * uc[i], uu[i] - cc[i]), p = cos(turn), q = sin(turn);
            uu[i] = p * p;
            uc[i] = p * q;
        }
        at_tensor *kept = at_add(o, at_scale_items(o, u, uu), at_scale_items(o, c, uc));
        d->x0[1] = at_mix_2(o, 1, d->x, -1, kept);
    }
    at_free(cc);
}
static const at_hook_ops tcfg_ops = {.name = "TCFG", .pre_cfg = tcfg_pre_cfg};

typedef struct model_in {
    at_object *model;
} model_in;
static const at_in model_rows[] = {AT_ROW_LINK(model_in, model, "MODEL")};
static at_status tcfg_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cfg_give(((const model_in *)in)->model, &tcfg_ops, NULL, 0, &out[0]);
}
static const at_node node_tcfg = {
    .class_type = "TCFG",
    .display = "Tangential Damping CFG",
    .category = "advanced/guidance",
    .description = "Takes from the negative prompt's direction what is tangential to the positive "
                   "one's (arXiv:2503.18137).",
    .python_module = "comfy_extras.nodes_tcfg",
    .flags = AT_NODE_V3,
    .in = model_rows,
    .n_in = 1,
    .out = at_patched_outs,
    .n_out = 1,
    .in_size = sizeof(model_in),
    .run = tcfg_run};

// --- Mahiro --------------------------------------------------------------------------------------
static double signed_root(double v)
{
    return v < 0 ? -sqrt(-v) : sqrt(v);
}
// Mean over all cells of the cosine between the roots of both, along channels.
static bool likeness(at_ops *o, const at_tensor *a, const at_tensor *b, double *out)
{
    float *p = at_sum_values(o, a), *q = at_sum_values(o, b);
    int64_t n = a ? a->shape[0] : 0, c = a ? a->shape[1] : 0;
    int64_t plane = a ? a->shape[2] * a->shape[3] : 0;
    double sum = 0;

    for (int64_t i = 0; p && q && i < n * plane; i++) {
        double aa = 0, bb = 0, ab = 0;
        for (int64_t k = 0; k < c; k++) {
            int64_t at = (i / plane * c + k) * plane + i % plane;
            double x = signed_root((double)p[at]), y = signed_root((double)q[at]);
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
        sum += ab / (fmax(sqrt(aa), 1e-8) * fmax(sqrt(bb), 1e-8));
    }
    *out = n * plane > 0 ? sum / (double)(n * plane) : 0;
    bool ok = p && q;
    at_free(p);
    at_free(q);
    return ok;
}
static at_tensor *mahiro(void *self, void *run, at_ops *o, const at_guided *d)
{
    (void)self, (void)run;
    double like = 0;
    at_tensor *merge = at_mix_2(o, d->cfg / 2, d->x0[0], 0.5, d->denoised);

    if (!likeness(o, at_affine(o, d->x0[1], (float)d->cfg, 0), merge, &like)) return NULL;
    double k = 2 * (like + 1);
    return at_mix_2(o, k / 4, d->denoised, (4 - k) / 4 * d->cfg, d->x0[0]);
}
static const at_hook_ops mahiro_ops = {.name = "Mahiro", .post_cfg = mahiro};
static at_status mahiro_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cfg_give(((const model_in *)in)->model, &mahiro_ops, NULL, 0, &out[0]);
}
static const at_node node_mahiro = {
    .class_type = "Mahiro",
    .display = "Mahiro is so cute that she deserves a better guidance function!! "
               "(\xe3\x80\x82\xe3\x83\xbb\xcf\x89\xe3\x83\xbb\xe3\x80\x82)",
    .category = "_for_testing",
    .description = "Follows the direction of the positive prompt more, the difference from the "
                   "negative one less.",
    .python_module = "comfy_extras.nodes_mahiro",
    .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
    .in = model_rows,
    .n_in = 1,
    .out = at_patched_outs,
    .n_out = 1,
    .in_size = sizeof(model_in),
    .run = mahiro_run};

// --- FreSca --------------------------------------------------------------------------------------
typedef struct fresca {
    double scale_low, scale_high;
    int64_t freq_cutoff;
} fresca;

// Row n of the projection of n points on frequencies -f .. f - 1: [n][n] of cosines and of sines.
static void band(int64_t n, int64_t f, double *re, double *im)
{
    for (int64_t d = 0; d < n; d++) { // it depends on the distance alone
        double c = 0, s = 0;
        for (int64_t k = -f; k < f; k++) {
            double a = 2 * 3.14159265358979323846 * (double)(k * d % n) / (double)n;
            c += cos(a);
            s += sin(a);
        }
        re[d] = c / (double)n;
        im[d] = s / (double)n;
    }
}

// Real part of the low band of one plane: rows first, then columns, both complex.
static void low_band(const float *x, int64_t h, int64_t w, const double *k, double *tmp, float *out)
{
    const double *hr = k, *hi = hr + h, *wr = hi + h, *wi = wr + w;
    double *tr = tmp, *ti = tmp + h * w;

    for (int64_t y = 0; y < h; y++)
        for (int64_t i = 0; i < w; i++) {
            double r = 0, m = 0;
            for (int64_t j = 0; j < w; j++) {
                int64_t d = (i - j + w) % w;
                r += wr[d] * (double)x[y * w + j];
                m += wi[d] * (double)x[y * w + j];
            }
            tr[y * w + i] = r;
            ti[y * w + i] = m;
        }
    for (int64_t i = 0; i < h; i++)
        for (int64_t c = 0; c < w; c++) {
            double r = 0;
            for (int64_t j = 0; j < h; j++) {
                int64_t d = (i - j + h) % h;
                r += hr[d] * tr[j * w + c] - hi[d] * ti[j * w + c];
            }
            out[i * w + c] = (float)r;
        }
}

static at_tensor *low_pass(at_ops *o, const at_tensor *t, int64_t cutoff)
{
    if (!t) return NULL;
    int64_t h = t->shape[2], w = t->shape[3], planes = t->shape[0] * t->shape[1];
    int64_t fh = cutoff < h / 2 ? cutoff : h / 2, fw = cutoff < w / 2 ? cutoff : w / 2;
    float *x = at_sum_values(o, t), *y = at_calloc((size_t)(planes * h * w), sizeof *y);
    double *k = at_calloc((size_t)(2 * (h + w) + 2 * h * w), sizeof *k);
    at_tensor *out = NULL;

    if (!y || !k) at_ops_poison(o, AT_ENOMEM, "FreSca: no memory");
    if (x && y && k) {
        band(h, fh, k, k + h);
        band(w, fw, k + 2 * h, k + 2 * h + w);
        for (int64_t i = 0; i < planes; i++)
            low_band(x + i * h * w, h, w, k, k + 2 * (h + w), y + i * h * w);
        out = at_from_host(o, AT_F32, 4, t->shape, y);
    }
    at_free(x);
    at_free(y);
    at_free(k);
    return out;
}

static void fresca_pre_cfg(void *self, void *run, at_ops *o, at_guided *d)
{
    (void)run;
    const fresca *k = self;
    if (!both_asked(d)) return;
    at_tensor *step = at_mix_2(o, 1, d->x0[0], -1, d->x0[1]);
    at_tensor *low = low_pass(o, step, k->freq_cutoff);
    d->x0[0] = at_mix_3(o, k->scale_high, step, k->scale_low - k->scale_high, low, 1, d->x0[1]);
}
static const at_hook_ops fresca_ops = {.name = "FreSca", .pre_cfg = fresca_pre_cfg};

typedef struct fresca_in {
    at_object *model;
    double scale_low, scale_high;
    int64_t freq_cutoff;
} fresca_in;
#define ROW_SCALE(field, d)                                                                        \
    AT_ROW(fresca_in, field, AT_IN_FLOAT, .def = d, .min = 0, .max = 10, .step = 0.01,             \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP,                             \
           .alt = AT_ALT_MIN | AT_ALT_MAX)
static const at_in fresca_rows[] = {
    AT_ROW_LINK(fresca_in, model, "MODEL"),
    ROW_SCALE(scale_low, 1.0),
    ROW_SCALE(scale_high, 1.25),
    AT_ROW_INT_STEP(fresca_in, freq_cutoff, 20, 1, 10000, 1),
};
static at_status fresca_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const fresca_in *i = in;
    fresca k = {i->scale_low, i->scale_high, i->freq_cutoff < 0 ? 0 : i->freq_cutoff};
    return at_cfg_give(i->model, &fresca_ops, &k, sizeof k, &out[0]);
}
static const at_node node_fresca = {.class_type = "FreSca",
                                    .display = "FreSca",
                                    .category = "_for_testing",
                                    .description =
                                        "Scales low and high frequencies of the guidance "
                                        "apart.",
                                    .python_module = "comfy_extras.nodes_fresca",
                                    .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                    .in = fresca_rows,
                                    .n_in = AT_COUNT(fresca_rows),
                                    .out = at_model_outs,
                                    .n_out = 1,
                                    .in_size = sizeof(fresca_in),
                                    .run = fresca_run};

// --- LatentApplyOperationCFG ---------------------------------------------------------------------
static void operate_pre_cfg(void *self, void *run, at_ops *o, at_guided *d)
{
    (void)run;
    const at_latent_operation *op = self;
    if (d->n != 2) {
        d->x0[0] = at_latent_operation_apply(o, op, d->x0[0]);
        return;
    }
    at_tensor *step = at_mix_2(o, 1, d->x0[0], -1, d->x0[1]);
    d->x0[0] = at_add(o, at_latent_operation_apply(o, op, step), d->x0[1]);
}
static const at_hook_ops operate_ops = {.name = "LatentApplyOperationCFG",
                                        .pre_cfg = operate_pre_cfg};

typedef struct operate_in {
    at_object *model, *operation;
} operate_in;
static const at_in operate_rows[] = {AT_ROW_LINK(operate_in, model, "MODEL"),
                                     AT_ROW_LINK(operate_in, operation, "LATENT_OPERATION")};
static at_status operate_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const operate_in *i = in;
    const at_latent_operation *op = &((const at_obj_latent_operation *)i->operation)->op;
    return at_cfg_give(i->model, &operate_ops, op, sizeof *op, &out[0]);
}
static const at_node node_operate = AT_MODEL_NODE(
    "LatentApplyOperationCFG", NULL, "latent/advanced/operations", "comfy_extras.nodes_latent",
    AT_NODE_V3 | AT_NODE_EXPERIMENTAL, operate_rows, operate_in, at_model_outs, operate_run);

const at_node *const at_nodes_model_cfg_vector[] = {&node_apg,    &node_tcfg,    &node_mahiro,
                                                    &node_fresca, &node_operate, NULL};
