// SPDX-License-Identifier: Apache-2.0
// cudnn.h - the part of cuDNN 9's backend (graph) interface that we call, opened at run time.
// Source: NVIDIA cuDNN backend API reference (names and values are its binary interface).
// Owns: the library stays open for the life of the process.
#ifndef AT_CUDA_CUDNN_H
#define AT_CUDA_CUDNN_H

#include <cuda_runtime_api.h>
#include <stdint.h>

enum { // descriptors
    DNN_CONVOLUTION = 1,
    DNN_ENGINE = 2,
    DNN_ENGINECFG = 3,
    DNN_ENGINEHEUR = 4,
    DNN_PLAN = 5,
    DNN_OP_CONV = 10,
    DNN_OP_CONV_BACK = 12, // with respect to its input: a transposed convolution
    DNN_OP_POINTWISE = 13,
    DNN_GRAPH = 15,
    DNN_PACK = 16,
    DNN_TENSOR = 17,
    DNN_MATMUL = 18,
    DNN_OP_MATMUL = 19,
    DNN_REDUCTION = 21,
    DNN_OP_REDUCTION = 22,
    DNN_OP_SDPA = 41, // since 9.13
    DNN_POINTWISE = 0
};
enum { // attributes
    DNN_A_PW_MODE = 0,
    DNN_A_PW_PREC = 1,
    DNN_A_CONV_COMP = 100,
    DNN_A_CONV_MODE = 101,
    DNN_A_CONV_DILATIONS = 102,
    DNN_A_CONV_STRIDES = 103,
    DNN_A_CONV_POST_PAD = 104,
    DNN_A_CONV_PRE_PAD = 105,
    DNN_A_CONV_DIMS = 106,
    DNN_A_HEUR_MODE = 200,
    DNN_A_HEUR_GRAPH = 201,
    DNN_A_HEUR_RESULTS = 202,
    DNN_A_CONFIG_ENGINE = 300,
    DNN_A_PLAN_HANDLE = 400,
    DNN_A_PLAN_CONFIG = 401,
    DNN_A_PLAN_WORKSPACE = 402,
    DNN_A_OPCONV_ALPHA = 700,
    DNN_A_OPCONV_BETA = 701,
    DNN_A_OPCONV_DESC = 702,
    DNN_A_OPCONV_W = 703,
    DNN_A_OPCONV_X = 704,
    DNN_A_OPCONV_Y = 705,
    DNN_A_OPBACK_ALPHA = 706,
    DNN_A_OPBACK_BETA = 707,
    DNN_A_OPBACK_DESC = 708,
    DNN_A_OPBACK_W = 709,
    DNN_A_OPBACK_DX = 710,
    DNN_A_OPBACK_DY = 711,
    DNN_A_OPPW_DESC = 750,
    DNN_A_OPPW_X = 751,
    DNN_A_OPPW_B = 752,
    DNN_A_OPPW_Y = 753,
    DNN_A_GRAPH_HANDLE = 800,
    DNN_A_GRAPH_OPS = 801,
    DNN_A_TENSOR_ALIGN = 900,
    DNN_A_TENSOR_TYPE = 901,
    DNN_A_TENSOR_DIMS = 902,
    DNN_A_TENSOR_STRIDES = 903,
    DNN_A_TENSOR_UID = 906,
    DNN_A_TENSOR_VIRTUAL = 907,
    DNN_A_TENSOR_BY_VALUE = 908,
    DNN_A_PACK_UIDS = 1000,
    DNN_A_PACK_POINTERS = 1001,
    DNN_A_PACK_WORKSPACE = 1003,
    DNN_A_ENGINE_BEHAVIOR = 1305,
    DNN_A_MATMUL_COMP = 1500,
    DNN_A_OPMM_A = 1520,
    DNN_A_OPMM_B = 1521,
    DNN_A_OPMM_C = 1522,
    DNN_A_OPMM_DESC = 1523,
    DNN_A_RED_MODE = 1600,
    DNN_A_RED_COMP = 1601,
    DNN_A_OPRED_X = 1610,
    DNN_A_OPRED_Y = 1611,
    DNN_A_OPRED_DESC = 1612,
    DNN_A_SDPA_Q = 2800,
    DNN_A_SDPA_K = 2801,
    DNN_A_SDPA_V = 2802,
    DNN_A_SDPA_O = 2803,
    DNN_A_SDPA_STATS = 2804,
    DNN_A_SDPA_SCALE = 2805
};
enum { // types of attributes
    DNN_T_HANDLE = 0,
    DNN_T_DATA_TYPE = 1,
    DNN_T_BOOL = 2,
    DNN_T_INT64 = 3,
    DNN_T_FLOAT = 4,
    DNN_T_DOUBLE = 5,
    DNN_T_POINTER = 6,
    DNN_T_CONV_MODE = 7,
    DNN_T_HEUR_MODE = 8,
    DNN_T_PW_MODE = 14,
    DNN_T_DESC = 15,
    DNN_T_RED_MODE = 18,
    DNN_T_BEHAVIOR = 19
};
enum { DNN_FLOAT = 0, DNN_HALF = 2, DNN_BF16 = 9, DNN_E4M3 = 12 };
enum { DNN_HEUR_INSTANT = 0, DNN_HEUR_FALLBACK = 2, DNN_HEUR_A = 3 };
enum {
    DNN_PW_ADD = 0,
    DNN_PW_MUL = 1,
    DNN_PW_DIV = 6,
    DNN_PW_SUB = 9,
    DNN_PW_EXP = 13,
    DNN_PW_LOG = 15,
    DNN_PW_SWISH = 106
};
enum { DNN_RED_ADD = 0, DNN_RED_MAX = 3, DNN_RED_AMAX = 4 };
enum { DNN_CROSS_CORRELATION = 1 };
enum { DNN_BEHAVIOR_COMPILES = 0 }; // the engine compiles when a plan is made: 0.3 to 2 s

typedef struct at_cudnn {
    int (*Create)(void **handle);
    int (*SetStream)(void *handle, cudaStream_t stream);
    size_t (*GetVersion)(void);
    const char *(*GetErrorString)(int status);
    void (*GetLastErrorString)(char *text, size_t bytes);
    int (*BackendCreateDescriptor)(int type, void **desc);
    int (*BackendDestroyDescriptor)(void *desc);
    int (*BackendSetAttribute)(void *desc, int name, int type, int64_t count, const void *values);
    int (*BackendGetAttribute)(void *desc, int name, int type, int64_t wanted, int64_t *count,
                               void *values);
    int (*BackendFinalize)(void *desc);
    int (*BackendExecute)(void *handle, void *plan, void *pack);
} at_cudnn;

// NULL (with a word in at_error_text) where the library is not found.
const at_cudnn *at_cudnn_open(void);

// --- graphs of few operations (cudnn_graph.c) ----------------------------------------------------
// A finished plan: the tensors' uids in the order in which at_dnn_run wants their addresses.
#define AT_DNN_TENSORS 14
typedef struct at_dnn_plan {
    void *plan;
    size_t workspace;
    int64_t uids[AT_DNN_TENSORS];
    int n;
} at_dnn_plan;

// Descriptors of one graph while it is built; freed together.
typedef struct at_dnn_build {
    const at_cudnn *dnn;
    void *all[128];
    int n;
    int status; // the first failure; later calls do nothing
} at_dnn_build;
void *at_dnn_desc(at_dnn_build *b, int type);
void at_dnn_set(at_dnn_build *b, void *desc, int name, int type, int64_t count, const void *values);
void at_dnn_set_i64(at_dnn_build *b, void *desc, int name, int64_t value);
void at_dnn_set_desc(at_dnn_build *b, void *desc, int name, void *value);
void at_dnn_finish(at_dnn_build *b, void *desc);
// dims and strides of `rank` places; uid names it; virtual tensors live inside the graph.
void *at_dnn_tensor(at_dnn_build *b, int64_t uid, int type, int rank, const int64_t *dims,
                    const int64_t *strides, int is_virtual, int by_value);
// Graph, heuristics, plan. 0, or cuDNN's status: nobody can run it. Frees all descriptors.
int at_dnn_plan_make(at_dnn_build *b, void *handle, void *const *ops, int n_ops, at_dnn_plan *out);
// Up to `max` plans that need no compiling and at most `workspace` bytes, the library's best guess first;
// if there are none, the first that finalises at all. Returns how many. Frees all descriptors.
int at_dnn_plans_make(at_dnn_build *b, void *handle, void *const *ops, int n_ops, size_t workspace,
                      at_dnn_plan *out, int max);
void at_dnn_plan_drop(const at_cudnn *dnn, at_dnn_plan *p);
void at_dnn_build_drop(at_dnn_build *b);
int at_dnn_run(const at_cudnn *dnn, void *handle, const at_dnn_plan *p, void *const *addresses,
               void *workspace);

#endif
