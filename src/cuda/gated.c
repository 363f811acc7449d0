// SPDX-License-Identifier: Apache-2.0
// gated.c - who takes a gated linear unit in one kernel: 16-bit floats on compute capability 9.0.
// Idea: the kernel (gated_90a.cu) wants plain matrices of one format; weights come as for any linear layer. What it
// does not suit is a product of the library's and a pass over it (linear.c).
// Owns nothing: weights belong to weights.c, what it had to make for a call is freed at its end.
#include "cuda/gated.h"

#include <stdlib.h>

#include "base/str.h"
#include "cuda/gated_90a.h"

// [batch, tokens, k] as one matrix: rows at one distance.
static bool flat(const at_view *v, int64_t *row)
{
    *row = v->shape[1] > 1 ? v->stride[1] : v->stride[0];
    return v->stride[2] == 1 && *row >= v->shape[2] &&
           (v->shape[0] == 1 || v->shape[1] == 1 || v->stride[0] == v->shape[1] * v->stride[1]);
}

static bool wanted(const at_cuda *g, const at_geglu_args *a)
{
    static int on = -1; // on trial
    if (on < 0) on = at_has_word(getenv("AT_ON"), "gated");
    return on && g->capability == 90 && !a->x_scale.data && !a->fp8 && !a->w8 &&
           a->x.dtype == a->out.dtype && (a->x.dtype == AT_F16 || a->x.dtype == AT_BF16);
}

at_status at_cuda_gated(at_cuda *g, const at_geglu_args *a, bool *done)
{
    at_status st = AT_OK;
    void *own_w = NULL, *own_b = NULL;
    at_view w = {0};
    bool fits = true;
    at_k_gated_in in = {.x = a->x.data,
                        .out = a->out.data,
                        .m = a->x.shape[0] * a->x.shape[1],
                        .n = a->out.shape[2],
                        .k = a->x.shape[2],
                        .scale = a->w.scale,
                        .dtype = a->x.dtype,
                        .act = (int)a->act};

    *done = false;
    if (!wanted(g, a) || !flat(&a->x, &in.x_row) || !flat(&a->out, &in.out_row)) return AT_OK;
    in.w_row = in.k;
    in.w = in.x; // an address that suits: the weight's is known when it is there
    if (!at_k_gated_suits(&in)) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (a->gate.v.data)
        AT_TRY(at_cuda_weight_joined(g, &a->w, &a->gate, 1, in.dtype, &w, &fits));
    else
        AT_TRY(at_cuda_weight(g, &a->w, in.dtype, false, &w, &own_w));
    if (!fits) goto out;
    AT_TRY(at_cuda_vector(g, &a->bias, in.dtype, &in.bias, &own_b));
    in.w = w.data;
    in.w_row = w.stride[0];
    if (w.stride[1] != 1 || !at_k_gated_suits(&in)) goto out;
    cudaError_t e = at_k_gated(g->stream, &in);
    *done = e == cudaSuccess;
    if (*done)
        at_cuda_served("own gated wgmma");
    else
        (void)cudaGetLastError(); // an older driver: the product and the pass
out:
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    return st;
}
