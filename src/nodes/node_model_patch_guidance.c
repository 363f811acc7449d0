// SPDX-License-Identifier: Apache-2.0
// node_model_patch_guidance.c - PerturbedAttentionGuidance and SelfAttentionGuidance.
// Idea: both ask the network once more per step with something spoilt (attention; a blurred
// estimate) and walk away from that answer, after the usual guidance.
// Easy to get wrong: the mask's proportions are found by a search among divisors, as ComfyUI's
// are; the blur reflects at the borders, so sides of 4 or less are left alone; with a blur of 0
// ComfyUI's kernel is 0 / 0, and so is this one.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_pag.py, nodes_sag.py (behaviour).
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"
#include "nodes/guide.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

static const at_out model_out[] = {AT_OUT("MODEL")};

static at_status give_hook(const at_object *model, const at_hook_ops *ops, const double *numbers,
                           size_t n, at_value *out)
{
    at_object *o = NULL;
    double *self = at_alloc(n * sizeof *self);
    if (!self) return at_fail(AT_ENOMEM, "%s: no memory for a model patch", ops->name);
    memcpy(self, numbers, n * sizeof *self);
    at_status st = at_obj_model_hook((const at_obj_model *)model, ops, self, &o);
    if (st == AT_OK) out[0] = at_value_object(o);
    return st;
}

// a + (b - c) * scale, all f32 [b, c, h, w].
static at_tensor *away(at_ops *o, const at_tensor *a, const at_tensor *b, const at_tensor *c,
                       double scale)
{
    if (!a || !b || !c) return NULL;
    return at_lincomb(o, 3, (float[]){1, (float)scale, -(float)scale},
                      (const at_tensor *[]){a, b, c});
}

// --- PerturbedAttentionGuidance -----------------------------------------------------------------
static at_tensor *pag_post(void *self, void *run, at_ops *o, const at_guided *d)
{
    double scale = *(const double *)self;
    at_patches *all = NULL;
    at_tensor *spoilt[AT_GUIDE_LISTS] = {0};

    (void)run;
    if (scale == 0) return d->denoised;
    at_status st = at_patches_add(at_guide_patches(d->guide), &at_patch_self_only, NULL, &all);
    if (st != AT_OK) return at_ops_poison(o, st, "%s", at_error_text());
    at_list_id list[] = {d->list[0]};
    at_guide_estimate(d->guide, o, d->x, d->sigma, 1, list, all, spoilt);
    at_patches_release(&all);
    return away(o, d->denoised, d->x0[0], spoilt[0], scale);
}
static const at_hook_ops pag_hook = {.name = "PerturbedAttentionGuidance", .post_cfg = pag_post};

typedef struct pag_in {
    at_object *model;
    double scale;
} pag_in;
static const at_in pag_rows[] = {
    AT_ROW_LINK(pag_in, model, "MODEL"),
    AT_ROW(pag_in, scale, AT_IN_FLOAT, .def = 3.0, .min = 0, .max = 100, .step = 0.01,
           .round = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_HAS_ROUND),
};
static at_status pag_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const pag_in *i = in;
    return give_hook(i->model, &pag_hook, &i->scale, 1, out);
}
static const at_node node_pag = {.class_type = "PerturbedAttentionGuidance",
                                 .category = "model_patches/unet",
                                 .python_module = "comfy_extras.nodes_pag",
                                 .in = pag_rows,
                                 .n_in = AT_COUNT(pag_rows),
                                 .out = model_out,
                                 .n_out = 1,
                                 .flags = AT_NODE_V3,
                                 .in_size = sizeof(pag_in),
                                 .run = pag_run};

// --- SelfAttentionGuidance ----------------------------------------------------------------------
enum { KERNEL = 9, BORDER = KERNEL / 2 };

static void kernel_of(double sigma, float k[KERNEL])
{
    float sum = 0;
    for (int i = 0; i < KERNEL; i++) {
        float x = (float)(i - BORDER) / (float)sigma;
        sum += k[i] = expf(-0.5f * (x * x));
    }
    for (int i = 0; i < KERNEL; i++)
        k[i] /= sum;
}

static int64_t mirror(int64_t i, int64_t n)
{
    return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
}

// One plane blurred into out; sides are longer than the border.
static void blur(const float *in, int64_t h, int64_t w, const float k[KERNEL], float *out)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
            float sum = 0;
            for (int dy = 0; dy < KERNEL; dy++) {
                const float *row = in + mirror(y + dy - BORDER, h) * w;
                for (int dx = 0; dx < KERNEL; dx++)
                    sum += k[dy] * k[dx] * row[mirror(x + dx - BORDER, w)];
            }
            out[y * w + x] = sum;
        }
}

// How many rows `tokens` tokens of a picture h x w have: the divisor next to their share, 0 if the
// search ends without one.
static int64_t rows_of(int64_t tokens, int64_t h, int64_t w)
{
    int64_t guess = (int64_t)rint(sqrt((double)h / (double)w * (double)tokens));
    int64_t far = (int64_t)floor(sqrt((double)tokens) / 2);
    for (int64_t i = 0; i < far; i++) {
        int64_t down = guess - i > 1 ? guess - i : 1;
        if (guess + i > 0 && tokens % (guess + i) == 0) return guess + i;
        if (tokens % down == 0) return down;
    }
    return 0;
}

// The estimate, blurred where the attention map is above 1, in place of x0 [b, c, h, w].
static at_status degrade(const at_attention_map *m, double sigma, const int64_t shape[4], float *x0)
{
    at_status st = AT_OK;
    int64_t b = shape[0], c = shape[1], h = shape[2], w = shape[3];
    int64_t rows = m->seen ? rows_of(m->tokens, h, w) : 0, cols = rows ? m->tokens / rows : 0;
    float k[KERNEL], *plane = at_alloc((size_t)(h * w) * sizeof *plane);

    if (!plane) AT_TRY(at_fail(AT_ENOMEM, "SelfAttentionGuidance: no memory for a blur"));
    if (!rows || m->batch != b)
        AT_TRY(
            at_fail(AT_EUNSUPPORTED,
                    "SelfAttentionGuidance: %s; it needs a UNet with attention in its middle and a "
                    "negative prompt",
                    m->seen ? "the attention map does not fit the picture"
                            : "no attention of the negative prompt was seen"));
    kernel_of(sigma, k);
    float sy = (float)rows / (float)h, sx = (float)cols / (float)w;
    for (int64_t i = 0; i < b * c; i++) {
        float *x = x0 + i * h * w;
        const float *seen = m->seen + i / c * m->tokens;
        blur(x, h, w, k, plane);
        for (int64_t p = 0; p < h * w; p++) {
            int64_t y = (int64_t)((float)(p / w) * sy), at = (int64_t)((float)(p % w) * sx);
            float mask =
                seen[(y < rows ? y : rows - 1) * cols + (at < cols ? at : cols - 1)] > 1.0f;
            x[p] = plane[p] * mask + x[p] * (1 - mask);
        }
    }
out:
    at_free(plane);
    return st;
}

static at_tensor *sag_post(void *self, void *run, at_ops *o, const at_guided *d)
{
    const double *numbers = self; // scale, blur
    const at_tensor *x0 = d->x0[1];
    at_tensor *again[AT_GUIDE_LISTS] = {0};

    if (!d->denoised || !x0) return NULL;
    if (x0->shape[2] <= BORDER || x0->shape[3] <= BORDER) return d->denoised;
    float *values = at_patch_read(o, x0, "SelfAttentionGuidance");
    if (!values) return NULL;
    at_status st = degrade(run, numbers[1], x0->shape, values);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    at_tensor *degraded = at_patch_give(o, AT_F32, 4, x0->shape, values);
    at_free(values);
    if (!degraded) return NULL;
    at_tensor *x = away(o, degraded, d->x, x0, 1);
    at_list_id list[] = {d->list[1]};
    at_guide_estimate(d->guide, o, x, d->sigma, 1, list, NULL, again);
    return away(o, d->denoised, degraded, again[0], numbers[0]);
}

static void sag_end(void *self, void *run)
{
    (void)self;
    at_attention_map_clear(run);
}
static const at_hook_ops sag_hook = {.name = "SelfAttentionGuidance",
                                     .always_uncond = true,
                                     .run_size = sizeof(at_attention_map),
                                     .end = sag_end,
                                     .patch = &at_patch_attention_map,
                                     .post_cfg = sag_post};

typedef struct sag_in {
    at_object *model;
    double scale, blur_sigma;
} sag_in;
static const at_in sag_rows[] = {
    AT_ROW_LINK(sag_in, model, "MODEL"),
    AT_ROW_FLOAT_STEP(sag_in, scale, 0.5, -2, 5, 0.01),
    AT_ROW_FLOAT_STEP(sag_in, blur_sigma, 2.0, 0, 10, 0.1),
};
static at_status sag_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const sag_in *i = in;
    return give_hook(i->model, &sag_hook, (const double[]){i->scale, i->blur_sigma}, 2, out);
}
static const at_node node_sag = {.class_type = "SelfAttentionGuidance",
                                 .display = "Self-Attention Guidance",
                                 .category = "_for_testing",
                                 .python_module = "comfy_extras.nodes_sag",
                                 .in = sag_rows,
                                 .n_in = AT_COUNT(sag_rows),
                                 .out = model_out,
                                 .n_out = 1,
                                 .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                 .in_size = sizeof(sag_in),
                                 .run = sag_run};

const at_node *const at_nodes_model_patch_guidance[] = {&node_pag, &node_sag, NULL};
