// SPDX-License-Identifier: Apache-2.0
// weight_rows8.c - a matrix in fp8 with a scale a row, as one of the forms of weights.c.
// Idea: the scales stand behind the elements. Files in fp8 keep their bytes, with scales of 1 (the
// weight's own scale stays with the caller, as for every form).
// Owns: see weights.c.
#include "cuda/cuda.h"
#include "cuda/rows8.h"

static bool is_fp8(at_dtype t)
{
    return t == AT_F8E4M3 || t == AT_F8E5M2;
}

static at_status make_rows8(at_cuda *g, const at_wview *w, const at_view *stored, void *out)
{
    int64_t n = w->v.shape[0], k = w->v.shape[1], shape[] = {1, n, k};
    at_view from = at_cuda_view(stored->data, stored->dtype, 3, shape);
    at_view scales = at_cuda_view((char *)out + n * k, AT_F32, 1, &n);
    cudaError_t e;

    if (is_fp8(stored->dtype)) {
        e = cudaMemcpyAsync(out, stored->data, (size_t)(n * k), cudaMemcpyDeviceToDevice,
                            g->stream);
        if (e == cudaSuccess) e = at_k_fill(g->stream, &scales, 1.0);
    } else {
        e = at_k_rows8(g->stream, &from, out, scales.data);
    }
    return at_cuda_check(g, e, "rounding a weight to fp8");
}

at_status at_cuda_weight_rows8(at_cuda *g, const at_wview *w, at_view *out, const float **scales,
                               void **owned)
{
    int64_t n = w->v.shape[0], k = w->v.shape[1];
    size_t bytes = (size_t)(n * k) + (size_t)n * sizeof(float);
    void *data = NULL;
    at_status st =
        at_cuda_weight_made(g, w, AT_CUDA_FORM_FP8_ROWS, bytes, make_rows8, &data, owned);
    if (st != AT_OK) return st;
    *out = at_cuda_view(data, is_fp8(w->v.dtype) ? w->v.dtype : AT_F8E4M3, 2, w->v.shape);
    *scales = (const float *)(void *)((char *)data + n * k);
    return AT_OK;
}
