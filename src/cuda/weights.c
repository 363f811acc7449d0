// SPDX-License-Identifier: Apache-2.0
// weights.c - a weight's forms on the device.
// Idea: the weight's packed slot holds a short list of forms (stored bytes, converted to the
// arithmetic's format, filter layout, vectors in f32), each made once when first asked for; the list
// dies with the weight. A part of a weight has no slot: its form lives for one call.
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"
#include "cuda/rows8.h"

typedef struct form {
    struct form *next;
    at_dtype dtype;
    bool filter, rows8;
    size_t tail; // bytes behind the elements: scales of rows
    at_view view;
} form;

typedef struct forms {
    at_cuda *owner;
    form *first;
} forms;

at_view at_cuda_view(void *data, at_dtype dtype, int rank, const int64_t *shape)
{
    at_view v = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        v.shape[i] = shape[i];
        v.stride[i] = stride;
        stride *= shape[i] > 0 ? shape[i] : 1;
    }
    return v;
}

static void forms_free(void *data)
{
    forms *f = data;
    for (form *x = f->first, *next; x; x = next) {
        next = x->next;
        at_device_free(&f->owner->dev, x->view.data,
                       (size_t)at_cuda_count(&x->view) * at_cuda_size(x->view.dtype) + x->tail);
        at_free(x);
    }
    at_free(f);
}

// The weight's list on this device; NULL if it has no slot, or another device's list is there.
static forms *forms_of(at_cuda *g, at_packed *slot)
{
    if (!slot) return NULL;
    forms *f = atomic_load_explicit(&slot->data, memory_order_acquire);
    if (!f) {
        f = at_calloc(1, sizeof *f);
        if (!f) return NULL;
        f->owner = g;
        slot->free = forms_free;
        void *none = NULL;
        if (!atomic_compare_exchange_strong(&slot->data, &none, f)) {
            at_free(f);
            f = none;
        }
    }
    return f->owner == g ? f : NULL;
}

// Bytes as stored, on the device, in scratch.
static at_status upload(at_cuda *g, const at_view *v, void **out)
{
    size_t bytes = (size_t)at_cuda_count(v) * at_cuda_size(v->dtype);
    at_status st = at_device_alloc(&g->dev, bytes, out);
    if (st == AT_OK) st = at_cuda_upload(g, *out, v->data, bytes);
    return st;
}

// One form in fresh device memory.
static at_status make(at_cuda *g, const at_wview *w, at_dtype dtype, bool filter, at_view *out)
{
    at_status st = AT_OK;
    void *raw = NULL, *made = NULL;
    size_t stored = (size_t)at_cuda_count(&w->v) * at_cuda_size(w->v.dtype);
    size_t bytes = (size_t)at_cuda_count(&w->v) * at_cuda_size(dtype);
    int64_t shape[AT_MAX_RANK];

    memcpy(shape, w->v.shape, sizeof shape);
    if (filter) {
        shape[1] = w->v.shape[2];
        shape[2] = w->v.shape[3];
        shape[3] = w->v.shape[1];
    }
    AT_TRY(upload(g, &w->v, &raw));
    if (dtype == w->v.dtype && !filter) {
        *out = at_cuda_view(raw, dtype, w->v.rank, shape);
        raw = NULL;
        goto out;
    }
    AT_TRY(at_device_alloc(&g->dev, bytes, &made));
    at_view from = at_cuda_view(raw, w->v.dtype, w->v.rank, w->v.shape);
    *out = at_cuda_view(made, dtype, w->v.rank, shape);
    AT_TRY(at_cuda_check(
        g, filter ? at_k_filter(g->stream, &from, out) : at_k_copy(g->stream, &from, out),
        "converting a weight"));
    made = NULL;
out:
    at_device_free(&g->dev, raw, stored);
    at_device_free(&g->dev, made, bytes);
    return st;
}

// fp8 with a scale a row behind the elements. Files in fp8 keep their bytes.
static at_status make_rows8(at_cuda *g, const at_wview *w, at_view *out)
{
    at_status st = AT_OK;
    void *raw = NULL, *made = NULL;
    int64_t n = w->v.shape[0], k = w->v.shape[1], shape[] = {1, n, k};
    size_t stored = (size_t)(n * k) * at_cuda_size(w->v.dtype);
    size_t bytes = (size_t)(n * k) + (size_t)n * sizeof(float);
    bool fp8 = w->v.dtype == AT_F8E4M3 || w->v.dtype == AT_F8E5M2;
    cudaError_t e;

    AT_TRY(upload(g, &w->v, &raw));
    AT_TRY(at_device_alloc(&g->dev, bytes, &made));
    at_view from = at_cuda_view(raw, w->v.dtype, 3, shape);
    at_view scales = at_cuda_view((char *)made + n * k, AT_F32, 1, &n);
    if (fp8) {
        e = cudaMemcpyAsync(made, raw, stored, cudaMemcpyDeviceToDevice, g->stream);
        if (e == cudaSuccess) e = at_k_fill(g->stream, &scales, 1.0);
    } else {
        e = at_k_rows8(g->stream, &from, made, scales.data);
    }
    AT_TRY(at_cuda_check(g, e, "rounding a weight to fp8"));
    *out = at_cuda_view(made, fp8 ? w->v.dtype : AT_F8E4M3, 2, w->v.shape);
    made = NULL;
out:
    at_device_free(&g->dev, raw, stored);
    at_device_free(&g->dev, made, bytes);
    return st;
}

static at_status get(at_cuda *g, const at_wview *w, at_dtype dtype, bool filter, bool rows8,
                     at_view *out, void **owned)
{
    at_status st = AT_OK;
    forms *list = forms_of(g, w->packed);
    form *f = NULL;

    *owned = NULL;
    for (form *x = list ? list->first : NULL; x; x = x->next)
        if (x->dtype == dtype && x->filter == filter && x->rows8 == rows8) {
            *out = x->view;
            return AT_OK;
        }
    if (list) {
        f = at_calloc(1, sizeof *f);
        if (!f) return at_fail(AT_ENOMEM, "%s: no host memory for a weight", g->dev.name);
    }
    st = rows8 ? make_rows8(g, w, out) : make(g, w, dtype, filter, out);
    if (st != AT_OK) {
        at_free(f);
        return st;
    }
    if (!f) {
        *owned = out->data;
        return AT_OK;
    }
    *f = (form){.next = list->first,
                .dtype = dtype,
                .filter = filter,
                .rows8 = rows8,
                .tail = rows8 ? (size_t)out->shape[0] * sizeof(float) : 0,
                .view = *out};
    list->first = f;
    return AT_OK;
}

at_status at_cuda_weight(at_cuda *g, const at_wview *w, at_dtype dtype, bool filter, at_view *out,
                         void **owned)
{
    return get(g, w, dtype == AT_DTYPE_COUNT ? w->v.dtype : dtype, filter, false, out, owned);
}

at_status at_cuda_weight_rows8(at_cuda *g, const at_wview *w, at_view *out, const float **scales,
                               void **owned)
{
    at_status st = get(g, w, AT_F8E4M3, false, true, out, owned);
    if (st == AT_OK) *scales = (const float *)((char *)out->data + at_cuda_count(out));
    return st;
}

at_status at_cuda_vector(at_cuda *g, const at_wview *w, at_dtype dtype, const void **out,
                         void **owned)
{
    at_view v;
    *out = NULL;
    *owned = NULL;
    if (!w->v.data) return AT_OK;
    at_status st = get(g, w, dtype, false, false, &v, owned);
    if (st == AT_OK) *out = v.data;
    return st;
}
