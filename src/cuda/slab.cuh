// SPDX-License-Identifier: Apache-2.0
// slab.cuh - elementwise work cut into rows of pieces, for views that lie in pieces of eight.
// Idea: after nd.cuh has merged what lies alike, the last dimension is a row and the one before it
// counts rows; a thread owns one column of eight and walks several rows, asking for all of them
// first. No division is left but one per dimension beyond that. What is contiguous everywhere has no
// rows of its own and is cut into some; `count` then says where it ends.
// Easy to get wrong: a view that broadcasts inside a row (one element for all) is read by element.
#ifndef AT_CUDA_SLAB_CUH
#define AT_CUDA_SLAB_CUH

#include "cuda/nd.cuh"
#include "cuda/pieces.cuh"

struct slab {
    int rank; // dimensions outside of rows and row, on blockIdx.z
    int64_t shape[AT_MAX_RANK], stride[ND_VIEWS][AT_MAX_RANK];
    int64_t rows, row, count;
    int64_t step[ND_VIEWS]; // from row to row
    bool one[ND_VIEWS];     // a row of this view is one element
    unsigned threads;
    bool back; // from the last row to the first: what was written last is still in the L2 cache
};

// False if some view does not lie in pieces of `unit` elements; the caller then goes by element.
// Every size is divided by `unit`.. the caller's elements are then the pieces themselves if unit > 8.
static inline bool slab_make(slab *s, const nd_plan &p, int n, const void *const *data,
                             const size_t *size, int unit)
{
    *s = {};
    if (p.row % unit || p.row == 0 || p.rows == 0) return false;
    for (int v = 0; v < n; v++) {
        s->one[v] = p.inner[v] == 0;
        if (!s->one[v] && !nd_vectors(p, v, data[v], size[v], unit)) return false;
    }
    int64_t pieces = p.row / unit;
    s->threads = 128;
    if (p.rank == 0) { // one long row: cut
        int64_t cut = (int64_t)s->threads * unit;
        s->rows = (p.row + cut - 1) / cut;
        s->row = cut;
        s->count = p.row;
        for (int v = 0; v < n; v++)
            s->step[v] = s->one[v] ? 0 : cut;
        return true;
    }
    while (s->threads > 32 && s->threads / 2 >= pieces)
        s->threads /= 2;
    if (pieces > 128 && pieces <= 256) s->threads = (unsigned)((pieces + 31) / 32 * 32);
    s->rank = p.rank - 1;
    s->rows = p.shape[p.rank - 1];
    s->row = p.row;
    s->count = INT64_MAX;
    int64_t outer = 1;
    for (int v = 0; v < n; v++)
        s->step[v] = p.stride[v][p.rank - 1];
    for (int d = 0; d < s->rank; d++) {
        s->shape[d] = p.shape[d];
        outer *= p.shape[d];
        for (int v = 0; v < n; v++)
            s->stride[v][d] = p.stride[v][d];
    }
    int64_t columns = (pieces + s->threads - 1) / s->threads;
    return outer <= 65535 && columns <= 65535;
}

static inline dim3 slab_grid(const slab &s, int unit, int each)
{
    int64_t outer = 1;
    for (int d = 0; d < s.rank; d++)
        outer *= s.shape[d];
    int64_t columns = (s.row / unit + s.threads - 1) / s.threads;
    return dim3((unsigned)((s.rows + each - 1) / each), (unsigned)columns, (unsigned)outer);
}

// Where this thread stands: its first row, its column, and how many of its rows are there.
struct slab_at {
    int64_t row, column;
    unsigned have; // bit e: row + e is inside
};

template <int E> __device__ inline slab_at slab_here(const slab &s, int unit)
{
    slab_at at;
    at.row = (int64_t)(s.back ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * E;
    at.column = (blockIdx.y * (int64_t)blockDim.x + threadIdx.x) * unit;
    at.have = 0;
#pragma unroll
    for (int e = 0; e < E; e++)
        if (at.column < s.row && at.row + e < s.rows && (at.row + e) * s.row + at.column < s.count)
            at.have |= 1u << e;
    return at;
}

// Element offset of this thread's first row and of its column's piece.
__device__ inline int64_t slab_offset(const slab &s, int v, const slab_at &at)
{
    int64_t offset = at.row * s.step[v] + (s.one[v] ? 0 : at.column);
    unsigned r = blockIdx.z;
    for (int d = s.rank - 1; d >= 0; d--) {
        unsigned n = (unsigned)s.shape[d], q = r / n;
        offset += (r - q * n) * s.stride[v][d];
        r = q;
    }
    return offset;
}

// Asks for this thread's pieces of view v; of a view with one element a row, for that element.
template <int E>
__device__ inline void slab_fetch(const slab &s, int v, const void *p, int dtype, const slab_at &at,
                                  raw_pieces<E> &raw)
{
    int64_t offset = slab_offset(s, v, at);
    if (s.one[v]) {
#pragma unroll
        for (int e = 0; e < E; e++) {
            int64_t i = at.have >> e & 1 ? offset + e * s.step[v] : offset;
            raw.first[e].x = dtype == AT_F32 ? ((const uint32_t *)p)[i] : ((const uint16_t *)p)[i];
        }
    } else { // the first row is there, or none is and the caller has gone
        fetch_pieces<E>(p, dtype, offset, s.step[v], offset, at.have, raw);
    }
}

// What was fetched, as floats.
template <int E>
__device__ inline void slab_floats(const slab &s, int v, int dtype, const slab_at &at,
                                   raw_pieces<E> &raw, float (&x)[E][PIECE])
{
    if (s.one[v]) { // spread over the piece
#pragma unroll
        for (int e = 0; e < E; e++) {
            uint32_t one = raw.first[e].x;
            if (dtype != AT_F32) one |= one << 16;
            raw.first[e] = raw.more[e] = make_uint4(one, one, one, one);
        }
    }
    as_floats<E>(raw, dtype, at.have, x);
}

#endif
