// SPDX-License-Identifier: Apache-2.0
// tensor_map.cu - matrices as the chip's own copies want them told: the driver's function by its name.
// Idea: the driver is no library to link with (the program starts without one), so the runtime is asked for it once.
// Owns nothing.
#include "cuda/tensor_map.h"

#include <cuda_runtime.h>

namespace
{

typedef CUresult (*encode_tiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                 const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                 const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

encode_tiled ask()
{
    void *f = NULL;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                     cudaEnableDefault, &found);
#else
    cudaError_t e =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &f, cudaEnableDefault, &found);
#endif
    if (e != cudaSuccess) (void)cudaGetLastError();
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? (encode_tiled)f : NULL;
}

bool encode(CUtensorMap *out, const void *data, at_dtype dtype, int rank, const cuuint64_t *shape,
            const cuuint64_t *strides, const cuuint32_t *box)
{
    static const encode_tiled f = ask();
    static const cuuint32_t ones[] = {1, 1, 1, 1};
    CUtensorMapDataType type =
        dtype == AT_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return f &&
           f(out, type, (cuuint32_t)rank, const_cast<void *>(data), shape, strides, box, ones,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

} // namespace

extern "C" bool at_tensor_map(CUtensorMap *out, const void *data, at_dtype dtype, int64_t rows,
                              int64_t columns, int64_t row, int box)
{
    const cuuint64_t shape[] = {(cuuint64_t)columns, (cuuint64_t)rows},
                     strides[] = {(cuuint64_t)row * 2};
    const cuuint32_t boxes[] = {64, (cuuint32_t)box};
    return encode(out, data, dtype, 2, shape, strides, boxes);
}

extern "C" bool at_tensor_map_heads(CUtensorMap *out, const at_view *v, int box)
{
    // A dimension of one may say any stride; the driver wants a plausible one.
    cuuint64_t shape[4], strides[3];
    static const int order[] = {3, 2, 1, 0}; // dim, heads, tokens, batch
    for (int i = 0; i < 4; i++)
        shape[i] = (cuuint64_t)v->shape[order[i]];
    for (int i = 1; i < 4; i++)
        strides[i - 1] =
            shape[i] == 1 ? (shape[0] * 2 + 15) / 16 * 16 : (cuuint64_t)v->stride[order[i]] * 2;
    const cuuint32_t boxes[] = {64, 1, (cuuint32_t)box, 1};
    return encode(out, v->data, v->dtype, 4, shape, strides, boxes);
}
