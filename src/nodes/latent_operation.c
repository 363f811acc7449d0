// SPDX-License-Identifier: Apache-2.0
// latent_operation.c - the operations' arithmetic: tone mapping and sharpening of a latent's lengths.
// Idea: a place's channels are a vector; both operations work on its length and keep its direction, or
// sharpen the directions and keep the length.
#include "nodes/latent_operation.h"

#include <math.h>

#include "base/mem.h"

static void operation_free(at_object *self)
{
    at_free(self);
}
static const at_object_type operation_type = {"LATENT_OPERATION", operation_free};

at_object *at_obj_latent_operation_new(const at_latent_operation *op)
{
    at_obj_latent_operation *o = at_calloc(1, sizeof *o);
    if (!o) return NULL;
    atomic_init(&o->base.refs, 1);
    o->base.type = &operation_type;
    o->op = *op;
    return &o->base;
}

// Length over channels at every place of one item, plus a little.
static void lengths(const float *x, int64_t c, int64_t plane, float little, float *out)
{
    for (int64_t k = 0; k < plane; k++) {
        double sum = 0;
        for (int64_t j = 0; j < c; j++)
            sum += (double)x[j * plane + k] * (double)x[j * plane + k];
        out[k] = (float)sqrt(sum) + little;
    }
}

// Reinhard's curve over the lengths, with a white point five deviations above their mean.
static void tonemap(const at_latent_operation *op, const float *x, int64_t c, int64_t plane,
                    float *length, float *out)
{
    double sum = 0, squares = 0;
    lengths(x, c, plane, 1e-10f, length);
    for (int64_t k = 0; k < plane; k++)
        sum += (double)length[k];
    float mean = (float)(sum / (double)plane);
    for (int64_t k = 0; k < plane; k++)
        squares += ((double)length[k] - (double)mean) * ((double)length[k] - (double)mean);
    float std = (float)sqrt(squares / (double)(plane - 1)); // one place: 0 / 0, as in torch
    float top = (std * 5 + mean) * (float)op->multiplier, inverse = 1.0f / top;
    for (int64_t k = 0; k < plane; k++) {
        float m = length[k] * inverse, mapped = m / (m + 1.0f) * top;
        for (int64_t j = 0; j < c; j++)
            out[j * plane + k] = x[j * plane + k] / length[k] * mapped;
    }
}

// A kernel that subtracts the blurred neighbourhood; its sum is 1.
static void sharpen_kernel(const at_latent_operation *op, float *kernel)
{
    int n = 2 * op->radius + 1;
    double sum = 0, changed = 0;
    for (int i = 0; i < n * n; i++) {
        double y = -1 + 2.0 * (i / n) / (n - 1), x = -1 + 2.0 * (i % n) / (n - 1);
        double g = exp(-(x * x + y * y) / (2 * op->sigma * op->sigma));
        kernel[i] = (float)g;
        sum += g;
    }
    for (int i = 0; i < n * n; i++) {
        kernel[i] = kernel[i] / (float)sum * (float)(op->alpha * -10);
        changed += (double)kernel[i];
    }
    int centre = op->radius * n + op->radius;
    kernel[centre] = kernel[centre] - (float)changed + 1.0f;
}

static int64_t reflect(int64_t i, int64_t n)
{
    return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
}

static void sharpen_plane(const float *x, const float *length, int64_t h, int64_t w, int radius,
                          const float *kernel, float *out)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t k = 0; k < w; k++) {
            const float *weight = kernel;
            double sum = 0;
            for (int64_t dy = -radius; dy <= radius; dy++)
                for (int64_t dx = -radius; dx <= radius; dx++) {
                    int64_t at = reflect(y + dy, h) * w + reflect(k + dx, w);
                    sum += (double)*weight++ * (double)(x[at] / length[at]);
                }
            out[y * w + k] = length[y * w + k] * (float)sum;
        }
}

static at_status sharpen(const at_latent_operation *op, const int64_t shape[4], const float *x,
                         float *length, float *out)
{
    int64_t c = shape[1], h = shape[2], w = shape[3], plane = h * w;
    int n = 2 * op->radius + 1;
    if (op->radius < 1 || op->radius >= h || op->radius >= w)
        return at_fail(
            AT_EINVAL,
            "sharpen_radius %d needs a latent of more places a side, this is %lld x %lld",
            op->radius, (long long)w, (long long)h);
    float *kernel = at_calloc((size_t)n * (size_t)n, sizeof *kernel);
    if (!kernel) return at_fail(AT_ENOMEM, "sharpen: no memory for a kernel of %d", n);
    sharpen_kernel(op, kernel);
    for (int64_t i = 0; i < shape[0]; i++) {
        lengths(x + i * c * plane, c, plane, 1e-6f, length);
        for (int64_t j = 0; j < c; j++)
            sharpen_plane(x + (i * c + j) * plane, length, h, w, op->radius, kernel,
                          out + (i * c + j) * plane);
    }
    at_free(kernel);
    return AT_OK;
}

at_status at_latent_operate(const at_latent_operation *op, const int64_t shape[4], const float *x,
                            float *out)
{
    at_status st = AT_OK;
    int64_t plane = shape[2] * shape[3], item = shape[1] * plane;
    float *length = at_calloc((size_t)(plane > 0 ? plane : 1), sizeof *length);
    if (!length) return at_fail(AT_ENOMEM, "latent operation: no memory");
    switch (op->kind) {
    case AT_LATENT_TONEMAP_REINHARD:
        for (int64_t i = 0; i < shape[0]; i++)
            tonemap(op, x + i * item, shape[1], plane, length, out + i * item);
        break;
    case AT_LATENT_SHARPEN: st = sharpen(op, shape, x, length, out); break;
    }
    at_free(length);
    return st;
}

at_tensor *at_latent_operation_apply(at_ops *o, const at_latent_operation *op, const at_tensor *x)
{
    at_status st = AT_OK;
    at_tensor *result = NULL;
    if (!x || at_ops_status(o) != AT_OK) return NULL;
    if (x->rank != 4)
        return at_ops_poison(o, AT_EINVAL, "latent operation: %d dimensions, expected 4", x->rank);
    size_t n = (size_t)at_tensor_count(x);
    float *host = at_calloc(2 * n + 1, sizeof *host);
    if (!host) AT_TRY(at_fail(AT_ENOMEM, "latent operation: no memory for %zu values", 2 * n));
    const at_tensor *flat = at_contiguous(o, x);
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_to_host(flat, AT_F32, host, n * sizeof *host));
    AT_TRY(at_latent_operate(op, x->shape, host, host + n));
    result = at_from_host(o, AT_F32, 4, x->shape, host + n);
out:
    at_free(host);
    if (st != AT_OK && at_ops_status(o) == AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    return result;
}
