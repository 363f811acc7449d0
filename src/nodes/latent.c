// SPDX-License-Identifier: Apache-2.0
// latent.c - see latent.h.
#include "nodes/latent.h"

#include <string.h>

#include "base/mem.h"

const at_out at_latent_out[1] = {AT_OUT("LATENT")};

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

int64_t at_slice(int64_t start, int64_t stop, int64_t length, int64_t *first)
{
    if (start < 0) start += length;
    if (stop < 0) stop += length;
    *first = clamp(start, 0, length);
    stop = clamp(stop, *first, length);
    return stop - *first;
}

at_status at_latent_flat(const char *node, const at_tensor *t)
{
    if (t->rank == 4) return AT_OK;
    return at_fail(AT_EINVAL, "%s: the latent has %d dimensions, a picture's has 4", node, t->rank);
}

at_status at_latent_alloc(const char *node, const int64_t shape[4], at_tensor **out)
{
    for (int i = 0; i < 4; i++)
        if (shape[i] < 1)
            return at_fail(AT_EINVAL, "%s: a latent of %lld x %lld x %lld x %lld holds nothing",
                           node, (long long)shape[0], (long long)shape[1], (long long)shape[2],
                           (long long)shape[3]);
    return at_tensor_new(at_device_cpu(), AT_F32, 4, shape, out);
}

at_status at_latent_give(const char *node, const at_obj_latent *like, at_tensor *samples,
                         at_value *out)
{
    int64_t had = like->samples->shape[0], has = samples->shape[0];
    if (like->batch_index && had != has) {
        at_tensor_release(&samples);
        return at_fail(AT_EINVAL, "%s: %lld latents with batch indices for %lld", node,
                       (long long)has, (long long)had);
    }
    return at_give(out, at_obj_latent_with(like, samples), node);
}

at_status at_latent_repeat(const at_tensor *t, int64_t n, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *r = NULL;
    int64_t shape[AT_MAX_RANK];

    if (t->shape[0] == n) {
        *out = at_tensor_retain(t);
        return AT_OK;
    }
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = n;
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, t->rank, shape, &r));
    size_t item = at_tensor_bytes(t) / (size_t)t->shape[0];
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)at_tensor_data(r) + (size_t)i * item,
               (const char *)at_tensor_data(t) + (size_t)(i % t->shape[0]) * item, item);
    *out = r;
out:
    return st;
}

at_status at_latent_fit(const char *node, const at_tensor *like, const at_tensor *t, bool repeat,
                        at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *sized = NULL;

    AT_TRY(at_latent_flat(node, like));
    AT_TRY(at_latent_flat(node, t));
    if (memcmp(like->shape + 1, t->shape + 1, 3 * sizeof(int64_t)) != 0)
        AT_TRY(at_resize(t, AT_ORDER_NCHW, like->shape[3], like->shape[2], AT_RESIZE_BILINEAR, true,
                         &sized));
    else
        sized = at_tensor_retain(t);
    if (repeat) {
        AT_TRY(at_latent_repeat(sized, like->shape[0], out));
    } else {
        *out = sized;
        sized = NULL;
    }
out:
    at_tensor_release(&sized);
    return st;
}

// The common size of two latents: in a batch or in channels, one may be 1.
static at_status common_shape(const char *node, const at_tensor *a, const at_tensor *b,
                              int64_t shape[4])
{
    for (int i = 0; i < 4; i++) {
        bool free = i < 2 && (a->shape[i] == 1 || b->shape[i] == 1);
        shape[i] = a->shape[i] > b->shape[i] ? a->shape[i] : b->shape[i];
        if (a->shape[i] == b->shape[i] || free) continue;
        char at[128], bt[128];
        return at_fail(AT_EINVAL, "%s: %s and %s do not fit each other", node,
                       at_shape_text(a->dtype, a->rank, a->shape, at),
                       at_shape_text(b->dtype, b->rank, b->shape, bt));
    }
    return AT_OK;
}

at_status at_latent_zip(const char *node, const at_tensor *a, const at_tensor *b,
                        float (*f)(const void *ctx, float a, float b), const void *ctx,
                        at_tensor **out)
{
    at_status st = AT_OK;
    int64_t shape[4];
    at_tensor *r = NULL;

    AT_TRY(at_latent_flat(node, a));
    AT_TRY(at_latent_flat(node, b));
    AT_TRY(common_shape(node, a, b, shape));
    AT_TRY(at_latent_alloc(node, shape, &r));
    int64_t plane = shape[2] * shape[3];
    float *to = at_tensor_data(r);
    for (int64_t i = 0; i < shape[0] * shape[1]; i++, to += plane) {
        int64_t n = i / shape[1], c = i % shape[1];
        int64_t ap = n % a->shape[0] * a->shape[1] + c % a->shape[1];
        int64_t bp = n % b->shape[0] * b->shape[1] + c % b->shape[1];
        const float *x = (const float *)at_tensor_data(a) + ap * plane;
        const float *y = (const float *)at_tensor_data(b) + bp * plane;
        for (int64_t k = 0; k < plane; k++)
            to[k] = f(ctx, x[k], y[k]);
    }
    *out = r;
out:
    return st;
}

at_status at_latent_parts(const char *node, at_tensor *samples, const at_tensor *mask,
                          int64_t *index, at_value *out)
{
    at_object *o = at_obj_latent_new(samples);
    if (!o) {
        at_free(index);
        return at_fail(AT_ENOMEM, "%s: no memory for the result", node);
    }
    at_obj_latent *l = (at_obj_latent *)o;
    if (mask) l->noise_mask = at_tensor_retain(mask);
    l->batch_index = index;
    *out = at_value_object(o);
    return AT_OK;
}

at_status at_latent_index(const char *node, int64_t n, int64_t **out)
{
    *out = at_calloc((size_t)(n > 0 ? n : 1), sizeof **out);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for %lld indices", node, (long long)n);
}

int64_t at_latent_draw(const at_obj_latent *l, int64_t i, int64_t first)
{
    return l->batch_index ? l->batch_index[i] : first + i;
}
