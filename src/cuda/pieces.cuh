// SPDX-License-Identifier: Apache-2.0
// pieces.cuh - several pieces of eight elements at a time, their dtype known at run time only.
// Idea: what bounds these kernels is bytes in flight, so a thread asks for all pieces of all of its
// operands before it uses one. The dtype is a branch around an unrolled run of loads, not a template
// parameter: every thread takes the same side, and a kernel is compiled once and not once for each
// mixture of formats (nine for two operands, each with its registers and its compile time). To ask,
// only the element's size matters (fetch_pieces); what the bits mean is decided when they are there
// (as_floats).
// Easy to get wrong: a branch inside the run of loads would make each wait for the one before.
#ifndef AT_CUDA_PIECES_CUH
#define AT_CUDA_PIECES_CUH

#include "cuda/dtype.cuh"

enum { PIECE = 8 };

// Pieces at p + at, p + at + step, ..; those for which `have` has no bit are zero, and p + safe is
// read in their place: an address that is always there, so that no load hides behind a branch.
template <class T, int E>
__device__ inline void load_pieces_of(const T *p, int64_t at, int64_t step, int64_t safe,
                                      unsigned have, float (&x)[E][PIECE])
{
    vec<T, PIECE> raw[E];
#pragma unroll
    for (int e = 0; e < E; e++)
        raw[e] =
            *reinterpret_cast<const vec<T, PIECE> *>(p + (have >> e & 1 ? at + e * step : safe));
#pragma unroll
    for (int e = 0; e < E; e++)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            x[e][k] = have >> e & 1 ? to_f32(raw[e].v[k]) : 0.0f;
}

// Pieces as they lie in memory; `more` is the second half of four-byte elements.
template <int E> struct raw_pieces {
    uint4 first[E], more[E];
};

// Asks for the pieces; nothing waits for them here.
template <int E>
__device__ inline void fetch_pieces(const void *p, int dtype, int64_t at, int64_t step,
                                    int64_t safe, unsigned have, raw_pieces<E> &raw)
{
    if (dtype == AT_F32) {
#pragma unroll
        for (int e = 0; e < E; e++) {
            const uint4 *from =
                (const uint4 *)((const float *)p + (have >> e & 1 ? at + e * step : safe));
            raw.first[e] = from[0];
            raw.more[e] = from[1];
        }
    } else {
#pragma unroll
        for (int e = 0; e < E; e++)
            raw.first[e] =
                *(const uint4 *)((const f16 *)p + (have >> e & 1 ? at + e * step : safe));
    }
}

template <class T, int E>
__device__ inline void halves_to_floats(const raw_pieces<E> &raw, float (&x)[E][PIECE])
{
#pragma unroll
    for (int e = 0; e < E; e++) {
        const uint32_t word[4] = {raw.first[e].x, raw.first[e].y, raw.first[e].z, raw.first[e].w};
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            uint16_t bits = (uint16_t)(word[k / 2] >> (k % 2 * 16));
            T one;
            memcpy(&one, &bits, sizeof one);
            x[e][k] = to_f32(one);
        }
    }
}

// What was fetched; pieces that are not there are zero.
template <int E>
__device__ inline void as_floats(const raw_pieces<E> &raw, int dtype, unsigned have,
                                 float (&x)[E][PIECE])
{
    if (dtype == AT_F32) {
#pragma unroll
        for (int e = 0; e < E; e++) {
            const uint4 a = raw.first[e], b = raw.more[e];
            const uint32_t word[PIECE] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                memcpy(&x[e][k], &word[k], sizeof(float));
        }
    } else if (dtype == AT_BF16) {
        halves_to_floats<bf16>(raw, x);
    } else {
        halves_to_floats<f16>(raw, x);
    }
#pragma unroll
    for (int e = 0; e < E; e++)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            if (!(have >> e & 1)) x[e][k] = 0.0f;
}

template <int E>
__device__ inline void load_pieces(const void *p, int dtype, int64_t at, int64_t step, int64_t safe,
                                   unsigned have, float (&x)[E][PIECE])
{
    if (dtype == AT_BF16)
        load_pieces_of((const bf16 *)p, at, step, safe, have, x);
    else if (dtype == AT_F16)
        load_pieces_of((const f16 *)p, at, step, safe, have, x);
    else
        load_pieces_of((const float *)p, at, step, safe, have, x);
}

template <class T, int E>
__device__ inline void store_pieces_of(T *p, int64_t at, int64_t step, unsigned have,
                                       const float (&x)[E][PIECE])
{
#pragma unroll
    for (int e = 0; e < E; e++)
        if (have >> e & 1) store<T, PIECE>(p + at + e * step, x[e]);
}

template <int E>
__device__ inline void store_pieces(void *p, int dtype, int64_t at, int64_t step, unsigned have,
                                    const float (&x)[E][PIECE])
{
    if (dtype == AT_BF16)
        store_pieces_of((bf16 *)p, at, step, have, x);
    else if (dtype == AT_F16)
        store_pieces_of((f16 *)p, at, step, have, x);
    else
        store_pieces_of((float *)p, at, step, have, x);
}

// One element of any float, for what does not lie in pieces.
__device__ inline float one_at(const void *p, int dtype, int64_t i)
{
    return dtype == AT_F32    ? ((const float *)p)[i]
           : dtype == AT_BF16 ? to_f32(((const bf16 *)p)[i])
                              : to_f32(((const f16 *)p)[i]);
}

__device__ inline void put_at(void *p, int dtype, int64_t i, float x)
{
    if (dtype == AT_F32)
        ((float *)p)[i] = x;
    else if (dtype == AT_BF16)
        ((bf16 *)p)[i] = from_f32<bf16>(x);
    else
        ((f16 *)p)[i] = from_f32<f16>(x);
}

// Sum over a warp; every lane gets it.
__device__ inline float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

#endif
