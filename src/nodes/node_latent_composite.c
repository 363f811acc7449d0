// SPDX-License-Identifier: Apache-2.0
// node_latent_composite.c - LatentComposite, LatentCompositeMasked: one latent pasted into another.
// Idea: both find the rectangle that the two share, then mix place by place.
// Easy to get wrong: the feather of LatentComposite multiplies where two edges meet, grows only from edges
// that lie inside the target, and a feather wider than the source wraps around as Python's slices do.
// Source: ComfyUI 0.3.64, behaviour of nodes.py and comfy_extras/nodes_mask.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <string.h>

#include "base/mem.h"
#include "image/paste.h"

#define PIXELS 8 // per latent place, in these nodes' widgets

// A new LATENT's samples: a copy of `t`.
static at_status copied(const at_tensor *t, at_tensor **out)
{
    return at_tensor_from_host(at_device_cpu(), AT_F32, t->rank, t->shape, at_tensor_data(t), out);
}

// A place `at` pixels away, in latent places, rounded down.
static int64_t places(int64_t at)
{
    return (at - (at % PIXELS + PIXELS) % PIXELS) / PIXELS;
}

// --- LatentComposite ---------------------------------------------------------------------------------
typedef struct composite_in {
    at_object *samples_to, *samples_from;
    int64_t x, y, feather;
} composite_in;
static const at_in composite_rows[] = {AT_ROW_LINK_BARE(composite_in, samples_to, "LATENT"),
                                       AT_ROW_LINK_BARE(composite_in, samples_from, "LATENT"),
                                       AT_ROW_INT_STEP(composite_in, x, 0, 0, 16384, 8),
                                       AT_ROW_INT_STEP(composite_in, y, 0, 0, 16384, 8),
                                       AT_ROW_INT_STEP(composite_in, feather, 0, 0, 16384, 8)};

// Weight of place i among n along one side, growing over `feather` places from a free edge.
static void ramp(float *weight, int64_t n, int64_t feather, bool low, bool high)
{
    for (int64_t i = 0; i < n; i++)
        weight[i] = 1.0f;
    for (int64_t t = 0; t < feather && t < 2 * n; t++) {
        float w = (float)(1.0 / (double)feather * (double)(t + 1));
        int64_t first;
        if (low && at_slice(t, t + 1, n, &first)) weight[first] *= w;
        if (high && at_slice(n - 1 - t, n - t, n, &first)) weight[first] *= w;
    }
}

// The part of a side of `from` that lands on a side of `to`; false if the two do not meet there in a way
// that Python's slices allow.
static bool landing(int64_t at, int64_t from, int64_t to, int64_t *count)
{
    int64_t first, taken = at_slice(0, to - at, from, &first);
    *count = at_slice(at, at + from, to, &first);
    return taken == *count || taken == 1;
}

static void paste(const at_tensor *from, at_tensor *to, int64_t y, int64_t x, int64_t h, int64_t w,
                  const float *wy, const float *wx)
{
    int64_t fh = from->shape[2], fw = from->shape[3], th = to->shape[2], tw = to->shape[3];
    for (int64_t i = 0; i < to->shape[0] * to->shape[1]; i++) {
        int64_t n = i / to->shape[1] % from->shape[0], c = i % to->shape[1] % from->shape[1];
        const float *p = (const float *)at_tensor_data(from) + (n * from->shape[1] + c) * fh * fw;
        float *q = (float *)at_tensor_data(to) + i * th * tw;
        for (int64_t r = 0; r < h; r++)
            for (int64_t k = 0; k < w; k++) {
                float m = wy ? wy[r] * wx[k] : 1.0f, *place = &q[(y + r) * tw + x + k];
                *place = wy ? p[r * fw + k] * m + *place * (1.0f - m) : p[r * fw + k];
            }
    }
}

static at_status composite_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const composite_in *i = in;
    const at_tensor *from = at_samples(i->samples_from), *to = at_samples(i->samples_to);
    int64_t x = places(at_int_of(i->x)), y = places(at_int_of(i->y)), h = 0, w = 0;
    int64_t feather = places(at_int_of(i->feather));
    at_tensor *r = NULL;
    float *weights = NULL;

    AT_TRY(at_latent_flat("LatentComposite", from));
    AT_TRY(at_latent_flat("LatentComposite", to));
    bool meets = x >= 0 && y >= 0 && landing(x, from->shape[3], to->shape[3], &w) &&
                 landing(y, from->shape[2], to->shape[2], &h);
    for (int k = 0; k < 2; k++)
        if (from->shape[k] != to->shape[k] && from->shape[k] != 1) meets = false;
    if (!meets) {
        char a[128], b[128];
        AT_TRY(at_fail(AT_EINVAL, "LatentComposite: %s does not go into %s at %lld, %lld",
                       at_shape_text(from->dtype, from->rank, from->shape, a),
                       at_shape_text(to->dtype, to->rank, to->shape, b), (long long)x,
                       (long long)y));
    }
    AT_TRY(copied(to, &r));
    if (feather > 0) {
        weights = at_calloc((size_t)(h + w + 1), sizeof *weights);
        if (!weights) AT_TRY(at_fail(AT_ENOMEM, "LatentComposite: no memory for the feather"));
        ramp(weights, h, feather, y != 0, y + h < to->shape[2]);
        ramp(weights + h, w, feather, x != 0, x + w < to->shape[3]);
    }
    paste(from, r, y, x, h, w, weights, weights ? weights + h : NULL);
    st = at_latent_give("LatentComposite", (const at_obj_latent *)i->samples_to, r, out);
    r = NULL;
out:
    at_tensor_release(&r);
    at_free(weights);
    return st;
}
static const at_node node_composite =
    AT_LATENT_NODE("LatentComposite", "Latent Composite", "latent", "nodes", 0, composite_rows,
                   composite_in, composite_run);

// --- LatentCompositeMasked ---------------------------------------------------------------------------
typedef struct masked_in {
    at_object *destination, *source;
    int64_t x, y;
    bool resize_source;
    at_object *mask;
} masked_in;
static const at_in masked_rows[] = {
    AT_ROW_LINK_BARE(masked_in, destination, "LATENT"),
    AT_ROW_LINK_BARE(masked_in, source, "LATENT"),
    AT_ROW_INT_STEP(masked_in, x, 0, 0, 16384, 8),
    AT_ROW_INT_STEP(masked_in, y, 0, 0, 16384, 8),
    AT_ROW(masked_in, resize_source, AT_IN_BOOL, .def = 0),
    AT_ROW_OBJECT(masked_in, mask, "MASK", .flags = AT_INF_OPTIONAL | AT_INF_NO_OPTIONS)};

static at_status masked_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const masked_in *i = in;
    at_tensor *r = NULL;
    at_paste_spec how = {.x = at_int_of(i->x),
                         .y = at_int_of(i->y),
                         .unit = PIXELS,
                         .mask = i->mask ? ((const at_obj_image *)i->mask)->pixels : NULL,
                         .resize = i->resize_source};
    at_status st =
        at_paste(at_samples(i->destination), at_samples(i->source), AT_ORDER_NCHW, &how, &r);
    if (st != AT_OK) return st;
    return at_latent_give("LatentCompositeMasked", (const at_obj_latent *)i->destination, r, out);
}
static const at_node node_masked =
    AT_LATENT_NODE("LatentCompositeMasked", "LatentCompositeMasked", "latent",
                   "comfy_extras.nodes_mask", 0, masked_rows, masked_in, masked_run);

const at_node *const at_nodes_latent_composite[] = {&node_composite, &node_masked, NULL};
