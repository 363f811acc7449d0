// SPDX-License-Identifier: Apache-2.0
// weight_joined.c - several matrices as one, the rows of one behind the other: a form of weights.c.
// Idea: q, k and v of a small layer each fill half a device; their product in one fills it. The joined
// form is kept with the first weight and takes the place of the single ones.
// Easy to get wrong: the first weight may meet other partners later (a LoRA changes k alone), so a form is
// known by the serials of all weights in it, never by addresses, which come again.
// Owns: see weights.c.
#include <string.h>

#include "cuda/cuda.h"

enum { MOST = 3 }; // beside the first

typedef struct joined {
    at_wview first; // what weights.c sees; the rest is found behind it
    const at_wview *more;
    int n;
    at_dtype dtype;
} joined;

static at_status put(at_cuda *g, const at_view *stored, void *ctx)
{
    const at_view *out = ctx;
    return at_cuda_check(g, at_k_copy(g->stream, stored, out), "joining weights");
}

static at_status join(at_cuda *g, const at_wview *w, const at_view *stored, void *out)
{
    const joined *j = (const joined *)(const void *)w;
    at_view part = at_cuda_view(out, j->dtype, 2, w->v.shape);
    at_status st = put(g, stored, &part);
    for (int i = 0; i < j->n && st == AT_OK; i++) {
        char *next = (char *)part.data + (size_t)at_cuda_count(&part) * at_cuda_size(j->dtype);
        part = at_cuda_view(next, j->dtype, 2, j->more[i].v.shape);
        st = at_cuda_weight_stored(g, &j->more[i], put, &part);
    }
    return st;
}

// One number for each set of weights that was joined; 0: they cannot be.
static at_status kind_of(at_cuda *g, const at_wview *w, const at_wview *more, int n, at_dtype dtype,
                         int *kind)
{
    struct {
        uint64_t serial[1 + MOST];
        int64_t dtype;
    } key;

    *kind = 0;
    if (n > MOST) return AT_OK;
    memset(&key, 0, sizeof key);
    key.dtype = (int64_t)dtype;
    for (int i = -1; i < n; i++) {
        const at_wview *x = i < 0 ? w : &more[i];
        key.serial[i + 1] = at_cuda_weight_serial(x);
        if (!key.serial[i + 1] || x->v.shape[1] != w->v.shape[1] || x->scale < w->scale ||
            x->scale > w->scale || x->v.rank != 2)
            return AT_OK;
    }
    intptr_t known = (intptr_t)at_cuda_plans_find(g->joined_kinds, &key, sizeof key);
    if (!known) {
        known = AT_CUDA_FORM_JOINED + (intptr_t)at_cuda_plans_count(g->joined_kinds);
        at_status st = at_cuda_plans_add(g->joined_kinds, &key, sizeof key, (void *)known);
        if (st != AT_OK) return st;
    }
    *kind = (int)known;
    return AT_OK;
}

at_status at_cuda_weight_joined(at_cuda *g, const at_wview *w, const at_wview *more, int n,
                                at_dtype dtype, at_view *out, bool *fits)
{
    at_status st = AT_OK;
    joined j = {.first = *w, .more = more, .n = n, .dtype = dtype};
    void *data = NULL, *owned = NULL;
    int64_t shape[] = {w->v.shape[0], w->v.shape[1]};
    int kind = 0;

    *fits = false;
    AT_TRY(kind_of(g, w, more, n, dtype, &kind));
    // What streams is brought ahead one by one, each by its own name.
    if (!kind || at_cuda_weights_stream(g)) return AT_OK;
    for (int i = 0; i < n; i++)
        shape[0] += more[i].v.shape[0];
    AT_TRY(at_cuda_weight_made(g, &j.first, kind,
                               (size_t)(shape[0] * shape[1]) * at_cuda_size(dtype), join, &data,
                               &owned));
    *out = at_cuda_view(data, dtype, 2, shape);
    *fits = true;
out:
    return st;
}
