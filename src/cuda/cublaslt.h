// SPDX-License-Identifier: Apache-2.0
// cublaslt.h - the part of cuBLASLt's C interface that we call, opened at run time.
// Source: NVIDIA cuBLAS documentation, cublasLt API reference (names, values and layouts are its
// binary interface, stable since CUDA 11). Owns: the library stays open for the life of the process.
#ifndef AT_CUDA_CUBLASLT_H
#define AT_CUDA_CUBLASLT_H

#include <cuda_runtime_api.h>
#include <stdint.h>

enum { LT_OP_N = 0, LT_OP_T = 1 };
enum { LT_COMPUTE_32F = 68 };
enum { LT_R_32F = 0, LT_R_16F = 2, LT_R_16BF = 14, LT_R_8F_E4M3 = 28, LT_R_8F_E5M2 = 29 };
enum { // of a matmul descriptor
    LT_DESC_TRANSA = 3,
    LT_DESC_TRANSB = 4,
    LT_DESC_EPILOGUE = 7,
    LT_DESC_BIAS_POINTER = 8,
    LT_DESC_A_SCALE_POINTER = 17,
    LT_DESC_B_SCALE_POINTER = 18,
    LT_DESC_FAST_ACCUM = 25,
    LT_DESC_BIAS_DATA_TYPE = 26,
    LT_DESC_A_SCALE_MODE = 31,
    LT_DESC_B_SCALE_MODE = 32
};
enum { LT_SCALE_SCALAR = 0, LT_SCALE_OUTER_VEC = 3 };
enum { LT_LAYOUT_BATCH_COUNT = 5, LT_LAYOUT_BATCH_STRIDE = 6 };
enum {
    LT_PREF_WORKSPACE = 1,
    LT_PREF_REDUCTION = 3,
    LT_PREF_ALIGN_A = 5,
    LT_PREF_ALIGN_B = 6,
    LT_PREF_ALIGN_C = 7,
    LT_PREF_ALIGN_D = 8
};
enum { // of an algorithm
    LT_ALGO_TILE = 1,
    LT_ALGO_CUSTOM = 5,
    LT_ALGO_CLUSTER = 8
};
enum { LT_TILE_128X160 = 29, LT_CLUSTER_1X1 = 2, LT_CLUSTER_2X1 = 3, LT_CLUSTER_1X2 = 5 };
enum { LT_REDUCTION_COMPUTE_TYPE = 2 }; // a mask: partial sums are added up in f32
enum { LT_EPILOGUE_DEFAULT = 1, LT_EPILOGUE_BIAS = 4, LT_EPILOGUE_GELU = 32 };

typedef struct at_lt_algo {
    uint64_t data[8];
} at_lt_algo;
typedef struct at_lt_choice {
    at_lt_algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} at_lt_choice;

typedef struct at_cublaslt {
    int (*Create)(void **handle);
    int (*MatmulDescCreate)(void **desc, int compute, int scale_type);
    int (*MatmulDescDestroy)(void *desc);
    int (*MatmulDescSetAttribute)(void *desc, int attr, const void *buf, size_t bytes);
    int (*MatrixLayoutCreate)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*MatrixLayoutDestroy)(void *layout);
    int (*MatrixLayoutSetAttribute)(void *layout, int attr, const void *buf, size_t bytes);
    int (*MatmulPreferenceCreate)(void **pref);
    int (*MatmulPreferenceDestroy)(void *pref);
    int (*MatmulPreferenceSetAttribute)(void *pref, int attr, const void *buf, size_t bytes);
    int (*MatmulAlgoGetHeuristic)(void *handle, void *desc, void *a, void *b, void *c, void *d,
                                  void *pref, int wanted, at_lt_choice *out, int *count);
    int (*MatmulAlgoConfigSetAttribute)(at_lt_algo *algo, int attr, const void *buf, size_t bytes);
    int (*MatmulAlgoCheck)(void *handle, void *desc, void *a, void *b, void *c, void *d,
                           const at_lt_algo *algo, at_lt_choice *out);
    int (*Matmul)(void *handle, void *desc, const void *alpha, const void *a, void *la,
                  const void *b, void *lb, const void *beta, const void *c, void *lc, void *d,
                  void *ld, const at_lt_algo *algo, void *workspace, size_t bytes,
                  cudaStream_t stream);
    size_t (*GetVersion)(void);
} at_cublaslt;

// NULL (with a word in at_error_text) where the library is not found.
const at_cublaslt *at_cublaslt_open(void);

#endif
