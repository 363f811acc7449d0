// SPDX-License-Identifier: Apache-2.0
// tensor.c - tensors: windows on counted storages.
// Idea: every tensor is made by one function that takes a storage and a window; views add a
// reference to the storage and never copy. Owns: a storage owns its bytes (or runs the release hook
// of foreign memory) until its last window ends.
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct at_storage {
    atomic_int refs;
    at_device *device;
    void *data;
    size_t bytes;
    void (*release)(void *ctx); // foreign memory
    void *ctx;
    bool foreign;
};

static void storage_release(at_storage *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    if (!s->foreign) at_device_free(s->device, s->data, s->bytes);
    if (s->release) s->release(s->ctx);
    at_free(s);
}

const char *at_shape_text(at_dtype dtype, int rank, const int64_t *shape, char out[128])
{
    int n = snprintf(out, 128, "%s [", at_dtype_name(dtype));

    for (int i = 0; i < rank && n < 120; i++) {
        n += snprintf(out + n, 128 - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    if (n < 127) snprintf(out + n, 128 - (size_t)n, "]");
    return out;
}

// Elements and bytes of a shape, with every product checked.
static at_status measure(at_dtype dtype, int rank, const int64_t *shape, int64_t *count,
                         size_t *bytes)
{
    char text[128];
    int64_t n = 1, sum;

    if (rank < 0 || rank > AT_MAX_RANK) {
        return at_fail(AT_EINVAL, "a tensor of rank %d; 0 to %d are possible", rank, AT_MAX_RANK);
    }
    if (at_dtype_size(dtype) == 0) return at_fail(AT_EINVAL, "a tensor of dtype %d", (int)dtype);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) {
            return at_fail(AT_EINVAL, "%s: dimension %d is negative",
                           at_shape_text(dtype, rank, shape, text), i);
        }
        if (__builtin_mul_overflow(n, shape[i] ? shape[i] : 1, &n)) {
            return at_fail(AT_EINVAL, "%s: too many elements",
                           at_shape_text(dtype, rank, shape, text));
        }
    }
    if (__builtin_mul_overflow(n, (int64_t)at_dtype_size(dtype), &sum)) {
        return at_fail(AT_EINVAL, "%s: too many bytes", at_shape_text(dtype, rank, shape, text));
    }
    for (int i = 0; i < rank; i++) {
        if (shape[i] == 0) n = sum = 0;
    }
    *count = n;
    *bytes = (size_t)sum;
    return AT_OK;
}

static void contiguous_strides(int rank, const int64_t *shape, int64_t *stride)
{
    int64_t step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape[i] ? shape[i] : 1;
    }
}

// A tensor over `s`, whose reference it takes, also on failure.
static at_status window(at_storage *s, at_dtype dtype, int rank, const int64_t *shape,
                        const int64_t *stride, size_t offset, at_tensor **out)
{
    at_tensor *t = at_alloc(sizeof *t);

    if (!t) {
        storage_release(s);
        return at_fail(AT_ENOMEM, "no memory for a tensor's header");
    }
    *t = (at_tensor){.dtype = dtype, .rank = rank, .storage = s, .offset = offset};
    atomic_init(&t->refs, 1);
    for (int i = 0; i < rank; i++)
        t->shape[i] = shape[i];
    if (stride) {
        for (int i = 0; i < rank; i++)
            t->stride[i] = stride[i];
    } else {
        contiguous_strides(rank, shape, t->stride);
    }
    *out = t;
    return AT_OK;
}

static at_storage *storage_new(at_device *dev)
{
    at_storage *s = at_calloc(1, sizeof *s);

    if (!s) return NULL;
    atomic_init(&s->refs, 1);
    s->device = dev;
    return s;
}

at_status at_tensor_new(at_device *dev, at_dtype dtype, int rank, const int64_t *shape,
                        at_tensor **out)
{
    at_status st = AT_OK;
    at_storage *s = NULL;
    int64_t count;
    size_t bytes;
    char text[128];

    *out = NULL;
    st = measure(dtype, rank, shape, &count, &bytes);
    if (st != AT_OK) return st;
    s = storage_new(dev);
    if (!s) return at_fail(AT_ENOMEM, "no memory for a tensor's header");
    st = at_device_alloc(dev, bytes, &s->data);
    if (st != AT_OK) {
        at_free(s);
        return at_fail_context(st, "%s: ", at_shape_text(dtype, rank, shape, text));
    }
    s->bytes = bytes;
    return window(s, dtype, rank, shape, NULL, 0, out);
}

at_status at_tensor_wrap(void *data, at_dtype dtype, int rank, const int64_t *shape,
                         void (*release)(void *ctx), void *ctx, at_tensor **out)
{
    at_status st;
    at_storage *s;
    int64_t count;
    size_t bytes;

    *out = NULL;
    st = measure(dtype, rank, shape, &count, &bytes);
    if (st != AT_OK) return st;
    s = storage_new(at_device_cpu());
    if (!s) return at_fail(AT_ENOMEM, "no memory for a tensor's header");
    s->foreign = true;
    s->data = data;
    s->bytes = bytes;
    st = window(s, dtype, rank, shape, NULL, 0, out);
    if (st != AT_OK) return st; // the hook was not set yet: the memory stays the caller's
    s->release = release;
    s->ctx = ctx;
    return AT_OK;
}

at_status at_tensor_from_host(at_device *dev, at_dtype dtype, int rank, const int64_t *shape,
                              const void *bytes, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *t = NULL;

    *out = NULL;
    AT_TRY(at_tensor_new(dev, dtype, rank, shape, &t));
    AT_TRY(dev->ops->from_host(dev, at_tensor_data(t), bytes, at_tensor_bytes(t)));
    *out = t;
    t = NULL;
out:
    at_tensor_release(&t);
    return st;
}

at_tensor *at_tensor_retain(const at_tensor *t)
{
    at_tensor *same = (at_tensor *)(uintptr_t)t; // counting is not a change of the contents

    if (same) atomic_fetch_add_explicit(&same->refs, 1, memory_order_relaxed);
    return same;
}

void at_tensor_release(at_tensor **t)
{
    at_tensor *dead = *t;

    *t = NULL;
    if (!dead || atomic_fetch_sub_explicit(&dead->refs, 1, memory_order_acq_rel) != 1) return;
    storage_release(dead->storage);
    at_tensor_release(&dead->row_scale);
    at_free(dead);
}

at_status at_tensor_new_rows8(at_device *dev, int rank, const int64_t *shape, at_tensor **out)
{
    at_tensor *t = NULL;
    int64_t rows = 1;
    at_status st = at_tensor_new(dev, AT_F8E4M3, rank, shape, &t);
    for (int i = 0; i + 1 < rank; i++)
        rows *= shape[i];
    if (st == AT_OK) st = at_tensor_new(dev, AT_F32, 1, &rows, &t->row_scale);
    if (st != AT_OK) at_tensor_release(&t);
    *out = t;
    return st;
}

// --- views -----------------------------------------------------------------------------------
static at_status share(const at_tensor *t, int rank, const int64_t *shape, const int64_t *stride,
                       size_t offset, at_tensor **out)
{
    atomic_fetch_add_explicit(&t->storage->refs, 1, memory_order_relaxed);
    return window(t->storage, t->dtype, rank, shape, stride, offset, out);
}

at_status at_tensor_view(const at_tensor *t, int rank, const int64_t *shape, const int64_t *stride,
                         int64_t offset, at_tensor **out)
{
    int64_t size = (int64_t)at_dtype_size(t->dtype), low = 0, high = 0, first, count;
    size_t bytes;
    char text[128];
    at_status st;

    *out = NULL;
    st = measure(t->dtype, rank, shape, &count, &bytes);
    if (st != AT_OK) return st;
    first = (int64_t)t->offset / size;
    if (__builtin_add_overflow(first, offset, &first)) goto outside;
    low = high = first;
    for (int i = 0; i < rank && count > 0; i++) {
        int64_t reach;

        if (__builtin_mul_overflow(shape[i] - 1, stride[i], &reach)) goto outside;
        if (__builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high)) {
            goto outside;
        }
    }
    if (low < 0 || high > (int64_t)t->storage->bytes / size - (count > 0)) goto outside;
    return share(t, rank, shape, stride, (size_t)(first * size), out);
outside:
    return at_fail(AT_EINVAL, "a view %s at element %lld leaves its storage of %zu bytes",
                   at_shape_text(t->dtype, rank, shape, text), (long long)offset,
                   t->storage->bytes);
}

at_status at_tensor_reshape(const at_tensor *t, int rank, const int64_t *shape, at_tensor **out)
{
    char from[128], to[128];
    int64_t count;
    size_t bytes;
    at_status st;

    *out = NULL;
    st = measure(t->dtype, rank, shape, &count, &bytes);
    if (st != AT_OK) return st;
    if (count != at_tensor_count(t)) {
        return at_fail(AT_EINVAL, "reshape: %s has not as many elements as %s",
                       at_shape_text(t->dtype, t->rank, t->shape, from),
                       at_shape_text(t->dtype, rank, shape, to));
    }
    if (!at_tensor_contiguous(t)) {
        return at_fail(AT_EINVAL, "reshape: %s is not contiguous",
                       at_shape_text(t->dtype, t->rank, t->shape, from));
    }
    return share(t, rank, shape, NULL, t->offset, out);
}

at_status at_tensor_narrow(const at_tensor *t, int dim, int64_t start, int64_t length,
                           at_tensor **out)
{
    int64_t shape[AT_MAX_RANK] = {0};
    size_t skip;
    char text[128];

    *out = NULL;
    if (dim < 0 || dim >= t->rank) {
        return at_fail(AT_EINVAL, "narrow: %s has no dimension %d",
                       at_shape_text(t->dtype, t->rank, t->shape, text), dim);
    }
    if (start < 0 || length < 0 || start > t->shape[dim] || length > t->shape[dim] - start) {
        return at_fail(AT_EINVAL, "narrow: %s: [%lld, +%lld) leaves dimension %d",
                       at_shape_text(t->dtype, t->rank, t->shape, text), (long long)start,
                       (long long)length, dim);
    }
    memcpy(shape, t->shape, sizeof shape);
    shape[dim] = length;
    // An empty part keeps the old address: nothing is read there.
    skip = length ? (size_t)(start * t->stride[dim]) * at_dtype_size(t->dtype) : 0;
    at_status st = share(t, t->rank, shape, t->stride, t->offset + skip, out);
    if (st == AT_OK && at_tensor_rows8_part(t, dim))
        st = at_tensor_narrow(t->row_scale, 0, start, length, &(*out)->row_scale);
    if (st != AT_OK) at_tensor_release(out);
    return st;
}

at_status at_tensor_permute(const at_tensor *t, const int *order, at_tensor **out)
{
    int64_t shape[AT_MAX_RANK] = {0}, stride[AT_MAX_RANK] = {0};
    unsigned seen = 0;

    *out = NULL;
    for (int i = 0; i < t->rank; i++) {
        if (order[i] < 0 || order[i] >= t->rank || (seen & (1u << order[i]))) {
            return at_fail(AT_EINVAL, "permute: entry %d of the order is %d, rank %d", i, order[i],
                           t->rank);
        }
        seen |= 1u << order[i];
        shape[i] = t->shape[order[i]];
        stride[i] = t->stride[order[i]];
    }
    return share(t, t->rank, shape, stride, t->offset, out);
}

// --- facts -----------------------------------------------------------------------------------
void *at_tensor_data(const at_tensor *t)
{
    return (char *)t->storage->data + t->offset;
}

at_view at_tensor_as_view(const at_tensor *t)
{
    at_view v = {.data = at_tensor_data(t), .dtype = t->dtype, .rank = t->rank};

    memcpy(v.shape, t->shape, sizeof v.shape);
    memcpy(v.stride, t->stride, sizeof v.stride);
    return v;
}

at_device *at_tensor_device(const at_tensor *t)
{
    return t->storage->device;
}

static int64_t count_of(int rank, const int64_t *shape)
{
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= shape[i];
    return n;
}

static bool packed(int rank, const int64_t *shape, const int64_t *stride)
{
    int64_t step = 1;

    if (count_of(rank, shape) == 0) return true;
    for (int i = rank - 1; i >= 0; i--) {
        if (shape[i] != 1 && stride[i] != step) return false;
        step *= shape[i];
    }
    return true;
}

int64_t at_tensor_count(const at_tensor *t)
{
    return count_of(t->rank, t->shape);
}

size_t at_tensor_bytes(const at_tensor *t)
{
    return (size_t)at_tensor_count(t) * at_dtype_size(t->dtype);
}

bool at_tensor_contiguous(const at_tensor *t)
{
    return packed(t->rank, t->shape, t->stride);
}

bool at_view_contiguous(const at_view *v)
{
    return packed(v->rank, v->shape, v->stride);
}

int64_t at_view_count(const at_view *v)
{
    return count_of(v->rank, v->shape);
}
