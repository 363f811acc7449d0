// SPDX-License-Identifier: Apache-2.0
// nd.cuh - loops over strided views of up to four tensors that broadcast to the first.
// Idea: on the host, dimensions of one are dropped and neighbours that lie alike in every view are
// merged; what is left is a row (the last dimension) and an odometer over the rest. On the device
// one thread handles a piece of a row.
#ifndef AT_CUDA_ND_CUH
#define AT_CUDA_ND_CUH

#include "atelier/types.h"

#define ND_VIEWS 4
struct nd_plan {
    int rank;    // outer dimensions
    int64_t rows, row;
    int64_t shape[AT_MAX_RANK];
    int64_t stride[ND_VIEWS][AT_MAX_RANK];
    int64_t inner[ND_VIEWS]; // stride inside a row
};

// views[0] gives the shape; the others align on the right and broadcast where they have one element.
static inline nd_plan nd_make(int n, const at_view *const *views)
{
    nd_plan p = {};
    int64_t shape[AT_MAX_RANK], stride[ND_VIEWS][AT_MAX_RANK];
    int rank = 0;
    const at_view *lead = views[0];
    for (int d = 0; d < lead->rank; d++) {
        if (lead->shape[d] == 1) continue;
        shape[rank] = lead->shape[d];
        for (int v = 0; v < n; v++) {
            int at = d - (lead->rank - views[v]->rank);
            stride[v][rank] = at < 0 || views[v]->shape[at] == 1 ? 0 : views[v]->stride[at];
        }
        rank++;
    }
    for (int d = rank - 2; d >= 0; d--) { // merge d with d + 1
        bool alike = true;
        for (int v = 0; v < n; v++)
            alike = alike && stride[v][d] == stride[v][d + 1] * shape[d + 1];
        if (!alike) continue;
        shape[d] *= shape[d + 1];
        for (int v = 0; v < n; v++)
            stride[v][d] = stride[v][d + 1];
        for (int e = d + 1; e < rank - 1; e++) {
            shape[e] = shape[e + 1];
            for (int v = 0; v < n; v++)
                stride[v][e] = stride[v][e + 1];
        }
        rank--;
    }
    p.row = rank ? shape[rank - 1] : 1;
    p.rank = rank ? rank - 1 : 0;
    p.rows = 1;
    for (int v = 0; v < n; v++)
        p.inner[v] = rank ? stride[v][rank - 1] : 0;
    for (int d = 0; d < p.rank; d++) {
        p.shape[d] = shape[d];
        p.rows *= shape[d];
        for (int v = 0; v < n; v++)
            p.stride[v][d] = stride[v][d];
    }
    return p;
}

// Element offset of row r in view v.
__device__ inline int64_t nd_offset(const nd_plan &p, int v, int64_t r)
{
    int64_t at = 0;
    for (int d = p.rank - 1; d >= 0; d--) {
        int64_t q = r / p.shape[d];
        at += (r - q * p.shape[d]) * p.stride[v][d];
        r = q;
    }
    return at;
}

// True if pieces of `n` elements at row starts are aligned in this view and lie side by side.
static inline bool nd_vectors(const nd_plan &p, int v, const void *data, size_t size, int n)
{
    if (p.inner[v] != 1 || p.row % n || (uintptr_t)data % (size * (size_t)n > 16 ? 16 : size * (size_t)n))
        return false;
    for (int d = 0; d < p.rank; d++)
        if (p.stride[v][d] % n) return false;
    return true;
}

#endif
