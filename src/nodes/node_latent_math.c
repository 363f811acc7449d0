// SPDX-License-Identifier: Apache-2.0
// node_latent_math.c - LatentAdd, LatentSubtract, LatentMultiply, LatentInterpolate, LatentBlend.
// Idea: the second latent is brought to the first one's size, then numbers meet one by one.
// Easy to get wrong: LatentInterpolate's lengths are over channels, and ComfyUI divides [b, c, h, w] by
// [b, h, w] without an axis for the channels: with several items it works only where there are as many
// channels, and then channel c is measured by item c. Workflows see the same here.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_latent.py and nodes.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

#define MODULE "comfy_extras.nodes_latent"

typedef struct two_in {
    at_object *samples1, *samples2;
} two_in;
static const at_in two_rows[] = {AT_ROW_LINK(two_in, samples1, "LATENT"),
                                 AT_ROW_LINK(two_in, samples2, "LATENT")};

static at_status two_run(const char *node, const two_in *in,
                         float (*f)(const void *ctx, float a, float b), at_value *out)
{
    at_status st = AT_OK;
    const at_tensor *a = at_samples(in->samples1);
    at_tensor *b = NULL, *r = NULL;

    AT_TRY(at_latent_fit(node, a, at_samples(in->samples2), true, &b));
    AT_TRY(at_latent_zip(node, a, b, f, NULL, &r));
    st = at_latent_give(node, (const at_obj_latent *)in->samples1, r, out);
out:
    at_tensor_release(&b);
    return st;
}

static float plus(const void *ctx, float a, float b)
{
    (void)ctx;
    return a + b;
}
static float minus(const void *ctx, float a, float b)
{
    (void)ctx;
    return a - b;
}
static at_status add_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return two_run("LatentAdd", in, plus, out);
}
static at_status subtract_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return two_run("LatentSubtract", in, minus, out);
}
static const at_node node_add = AT_LATENT_NODE("LatentAdd", NULL, "latent/advanced", MODULE,
                                               AT_NODE_V3, two_rows, two_in, add_run);
static const at_node node_subtract = AT_LATENT_NODE(
    "LatentSubtract", NULL, "latent/advanced", MODULE, AT_NODE_V3, two_rows, two_in, subtract_run);

// --- LatentMultiply ----------------------------------------------------------------------------------
typedef struct multiply_in {
    at_object *samples;
    double multiplier;
} multiply_in;
static const at_in multiply_rows[] = {
    AT_ROW_LINK(multiply_in, samples, "LATENT"),
    AT_ROW_FLOAT_STEP(multiply_in, multiplier, 1.0, -10, 10, 0.01)};

static at_status multiply_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const multiply_in *i = in;
    const at_tensor *a = at_samples(i->samples);
    at_tensor *r = NULL;
    float k = (float)i->multiplier;

    at_status st = at_tensor_new(at_device_cpu(), AT_F32, a->rank, a->shape, &r);
    if (st != AT_OK) return st;
    const float *from = at_tensor_data(a);
    float *to = at_tensor_data(r);
    for (int64_t n = at_tensor_count(a), j = 0; j < n; j++)
        to[j] = from[j] * k;
    return at_latent_give("LatentMultiply", (const at_obj_latent *)i->samples, r, out);
}
static const at_node node_multiply =
    AT_LATENT_NODE("LatentMultiply", NULL, "latent/advanced", MODULE, AT_NODE_V3, multiply_rows,
                   multiply_in, multiply_run);

// --- LatentInterpolate -------------------------------------------------------------------------------
typedef struct interpolate_in {
    at_object *samples1, *samples2;
    double ratio;
} interpolate_in;
static const at_in interpolate_rows[] = {AT_ROW_LINK(interpolate_in, samples1, "LATENT"),
                                         AT_ROW_LINK(interpolate_in, samples2, "LATENT"),
                                         AT_ROW_FLOAT_STEP(interpolate_in, ratio, 1.0, 0, 1, 0.01)};

// Length over channels at every place of every item.
static void lengths(const float *x, int64_t b, int64_t c, int64_t plane, float *out)
{
    for (int64_t i = 0; i < b; i++)
        for (int64_t k = 0; k < plane; k++) {
            double sum = 0;
            for (int64_t j = 0; j < c; j++) {
                double v = (double)x[(i * c + j) * plane + k];
                sum += v * v;
            }
            out[i * plane + k] = (float)sqrt(sum);
        }
}

// torch.nan_to_num
static float tame(float v)
{
    if (isnan(v)) return 0.0f;
    return isinf(v) ? (v > 0 ? FLT_MAX : -FLT_MAX) : v;
}

// t: the blend of the two directions; m1, m2, mt: lengths of the inputs and of t; all of b items.
static void blend_directions(const at_tensor *a, const at_tensor *b, float ratio, float rest,
                             const float *m1, const float *m2, float *t)
{
    int64_t items = a->shape[0], c = a->shape[1], plane = a->shape[2] * a->shape[3];
    const float *x = at_tensor_data(a), *y = at_tensor_data(b);
    for (int64_t i = 0; i < items * c; i++)
        for (int64_t k = 0, m = items > 1 ? i % c : 0; k < plane; k++) {
            int64_t at = i * plane + k;
            t[at] =
                tame(x[at] / m1[m * plane + k]) * ratio + tame(y[at] / m2[m * plane + k]) * rest;
        }
}

static at_status interpolate(const at_tensor *a, const at_tensor *b, double ratio, at_tensor **out)
{
    at_status st = AT_OK;
    int64_t items = a->shape[0], c = a->shape[1], plane = a->shape[2] * a->shape[3];
    float r = (float)ratio, rest = (float)(1.0 - ratio);
    at_tensor *made = NULL;
    float *m = NULL;

    if (b->shape[1] != c || (items > 1 && items != c))
        AT_TRY(at_fail(AT_EINVAL,
                       "LatentInterpolate: %lld items of %lld and %lld channels: one item, or as "
                       "many as channels, can be interpolated",
                       (long long)items, (long long)c, (long long)b->shape[1]));
    AT_TRY(at_latent_alloc("LatentInterpolate", a->shape, &made));
    m = at_calloc((size_t)(3 * items * plane), sizeof *m);
    if (!m)
        AT_TRY(at_fail(AT_ENOMEM, "LatentInterpolate: no memory for %lld lengths",
                       (long long)(3 * items * plane)));
    float *m2 = m + items * plane, *mt = m2 + items * plane, *t = at_tensor_data(made);
    lengths(at_tensor_data(a), items, c, plane, m);
    lengths(at_tensor_data(b), items, c, plane, m2);
    blend_directions(a, b, r, rest, m, m2, t);
    lengths(t, items, c, plane, mt);
    for (int64_t i = 0; i < items * c; i++)
        for (int64_t k = 0, at = (items > 1 ? i % c : 0) * plane; k < plane; k++, at++)
            t[i * plane + k] = tame(t[i * plane + k] / mt[at]) * (m[at] * r + m2[at] * rest);
    *out = made;
    made = NULL;
out:
    at_tensor_release(&made);
    at_free(m);
    return st;
}

static at_status interpolate_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const interpolate_in *i = in;
    const at_tensor *a = at_samples(i->samples1);
    at_tensor *b = NULL, *r = NULL;

    AT_TRY(at_latent_fit("LatentInterpolate", a, at_samples(i->samples2), true, &b));
    AT_TRY(interpolate(a, b, i->ratio, &r));
    st = at_latent_give("LatentInterpolate", (const at_obj_latent *)i->samples1, r, out);
out:
    at_tensor_release(&b);
    return st;
}
static const at_node node_interpolate =
    AT_LATENT_NODE("LatentInterpolate", NULL, "latent/advanced", MODULE, AT_NODE_V3,
                   interpolate_rows, interpolate_in, interpolate_run);

// --- LatentBlend -------------------------------------------------------------------------------------
typedef struct blend_in {
    at_object *samples1, *samples2;
    double blend_factor;
} blend_in;
static const at_in blend_rows[] = {
    AT_ROW_LINK_BARE(blend_in, samples1, "LATENT"), AT_ROW_LINK_BARE(blend_in, samples2, "LATENT"),
    AT_ROW(blend_in, blend_factor, AT_IN_FLOAT, .def = 0.5, .min = 0, .max = 1, .step = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP,
           .alt = AT_ALT_MIN | AT_ALT_MAX)};

static float mixed(const void *ctx, float a, float b)
{
    const double *factor = ctx;
    return a * (float)*factor + b * (float)(1 - *factor);
}

static at_status blend_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const blend_in *i = in;
    const at_tensor *a = at_samples(i->samples1), *b = at_samples(i->samples2);
    at_tensor *sized = NULL, *r = NULL;

    AT_TRY(at_latent_flat("LatentBlend", a));
    AT_TRY(at_latent_flat("LatentBlend", b));
    if (memcmp(a->shape, b->shape, 4 * sizeof(int64_t)) != 0)
        AT_TRY(
            at_resize(b, AT_ORDER_NCHW, a->shape[3], a->shape[2], AT_RESIZE_BICUBIC, true, &sized));
    AT_TRY(at_latent_zip("LatentBlend", a, sized ? sized : b, mixed, &i->blend_factor, &r));
    st = at_latent_give("LatentBlend", (const at_obj_latent *)i->samples1, r, out);
out:
    at_tensor_release(&sized);
    return st;
}
static const at_node node_blend = AT_LATENT_NODE("LatentBlend", "Latent Blend", "_for_testing",
                                                 "nodes", 0, blend_rows, blend_in, blend_run);

const at_node *const at_nodes_latent_math[] = {&node_add,         &node_subtract, &node_multiply,
                                               &node_interpolate, &node_blend,    NULL};
