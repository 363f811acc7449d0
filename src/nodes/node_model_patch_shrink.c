// SPDX-License-Identifier: Apache-2.0
// node_model_patch_shrink.c - PatchModelAddDownscale: Kohya's Deep Shrink, the deep part of a UNet
// at a smaller size for the first steps.
// Idea: input block `block` hands on a smaller map while sigma lies in start >= sigma >= end; the
// output half brings the map back to its skip's size. The patch is here and not in models/,
// because resizing pictures is a floor that models/ does not see.
// Easy to get wrong: sizes round half to even, as Python does; the way back asks about heights
// alone.
// Source: behaviour of ComfyUI 0.3.64 comfy_extras/nodes_model_downscale.py.
#include <math.h>

#include "base/mem.h"
#include "image/resize.h"
#include "models/patch_host.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "sample/sigmas.h"

typedef struct shrinker {
    int64_t block;
    double factor, start, end;
    bool after_skip; // the skip keeps its size
    at_resize_how down, up;
} shrinker;

static void free_values(void *values)
{
    at_free(values);
}

// x [b, h, w, c] at another size, in its own dtype.
static at_tensor *resized(at_ops *o, const at_tensor *x, int64_t h, int64_t w, at_resize_how how)
{
    at_status st = AT_OK;
    float *values = at_patch_read(o, x, "PatchModelAddDownscale");
    at_tensor *from = NULL, *to = NULL, *out = NULL;

    if (!values) return NULL;
    AT_TRY(at_tensor_wrap(values, AT_F32, 4, x->shape, free_values, values, &from));
    values = NULL;
    AT_TRY(at_resize(from, AT_ORDER_NHWC, w, h, how, false, &to));
    out = at_patch_give(o, x->dtype, 4, to->shape, at_tensor_data(to));
out:
    at_free(values);
    at_tensor_release(&from);
    at_tensor_release(&to);
    return st == AT_OK ? out : at_ops_poison(o, st, "PatchModelAddDownscale: %s", at_error_text());
}

static at_tensor *shrink(const shrinker *d, at_ops *o, const at_site *s, at_tensor *x)
{
    double sigma = (double)s->in->sigma;
    if (!x || s->block != d->block || sigma > d->start || sigma < d->end) return x;
    double factor = 1.0 / d->factor;
    return resized(o, x, (int64_t)rint((double)x->shape[1] * factor),
                   (int64_t)rint((double)x->shape[2] * factor), d->down);
}

static at_tensor *before_skip(void *self, at_ops *o, const at_site *s, at_tensor *x)
{
    const shrinker *d = self;
    return d->after_skip ? x : shrink(d, o, s, x);
}

static at_tensor *after_skip(void *self, at_ops *o, const at_site *s, at_tensor *x)
{
    const shrinker *d = self;
    return d->after_skip ? shrink(d, o, s, x) : x;
}

static void join(void *self, at_ops *o, const at_site *s, at_tensor **x, at_tensor **skip)
{
    const shrinker *d = self;
    (void)s;
    if (!*x || !*skip || (*x)->shape[1] == (*skip)->shape[1]) return;
    *x = resized(o, *x, (*skip)->shape[1], (*skip)->shape[2], d->up);
}

static const at_patch_ops shrink_patch = {.name = "PatchModelAddDownscale",
                                          .before_skip = before_skip,
                                          .after_skip = after_skip,
                                          .join = join};

// --- the node -----------------------------------------------------------------------------------
typedef struct shrink_in {
    at_object *model;
    int64_t block_number;
    double downscale_factor, start_percent, end_percent;
    bool downscale_after_skip;
    const char *downscale_method, *upscale_method;
} shrink_in;
static const char *const methods[] = {"bicubic", "nearest-exact", "bilinear",
                                      "area",    "bislerp",       NULL};
static const at_in shrink_rows[] = {
    AT_ROW_LINK_BARE(shrink_in, model, "MODEL"),
    AT_ROW_INT_STEP(shrink_in, block_number, 3, 1, 32, 1),
    AT_ROW_FLOAT_STEP(shrink_in, downscale_factor, 2.0, 0.1, 9.0, 0.001),
    AT_ROW_FLOAT_STEP(shrink_in, start_percent, 0.0, 0.0, 1.0, 0.001),
    AT_ROW_FLOAT_STEP(shrink_in, end_percent, 0.35, 0.0, 1.0, 0.001),
    AT_ROW(shrink_in, downscale_after_skip, AT_IN_BOOL, .def = 1),
    AT_ROW(shrink_in, downscale_method, AT_IN_COMBO, .choices = methods,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW(shrink_in, upscale_method, AT_IN_COMBO, .choices = methods, .flags = AT_INF_NO_OPTIONS),
};
static const at_out shrink_out[] = {AT_OUT("MODEL")};

static at_status shrink_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const shrink_in *i = in;
    const at_obj_model *model = (const at_obj_model *)i->model;
    const at_model_sampling *ms = at_model_get_sampling(model->model);
    shrinker d = {.block = i->block_number, .after_skip = i->downscale_after_skip};

    (void)c;
    if (!(i->downscale_factor > 0))
        AT_TRY(at_fail(AT_EINVAL, "PatchModelAddDownscale: downscale_factor is %g; it must be > 0",
                       i->downscale_factor));
    d.factor = i->downscale_factor;
    d.start = at_percent_to_sigma(ms, i->start_percent);
    d.end = at_percent_to_sigma(ms, i->end_percent);
    AT_TRY(at_resize_how_of(i->downscale_method, &d.down));
    AT_TRY(at_resize_how_of(i->upscale_method, &d.up));
    shrinker *self = at_alloc(sizeof *self);
    if (!self) AT_TRY(at_fail(AT_ENOMEM, "PatchModelAddDownscale: no memory"));
    *self = d;
    at_object *o = NULL;
    AT_TRY(at_obj_model_patch(model, &shrink_patch, self, &o));
    out[0] = at_value_object(o);
out:
    return st;
}
static const at_node node_shrink = {.class_type = "PatchModelAddDownscale",
                                    .display = "PatchModelAddDownscale (Kohya Deep Shrink)",
                                    .category = "model_patches/unet",
                                    .python_module = "comfy_extras.nodes_model_downscale",
                                    .in = shrink_rows,
                                    .n_in = AT_COUNT(shrink_rows),
                                    .out = shrink_out,
                                    .n_out = 1,
                                    .flags = AT_NODE_V3,
                                    .in_size = sizeof(shrink_in),
                                    .run = shrink_run};

const at_node *const at_nodes_model_patch_shrink[] = {&node_shrink, NULL};
