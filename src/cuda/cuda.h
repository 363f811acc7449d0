// SPDX-License-Identifier: Apache-2.0
// cuda.h - one GPU of the plug-in: its stream, its memory, its libraries and their plan caches.
// Idea: libat_cuda.so is loaded at run time and links only the CUDA runtime (statically); cublasLt
// and cuDNN are opened by name, so a machine without them still runs on our own kernels, and a
// machine without a GPU never notices. Everything runs on one stream per device, in order: a tensor
// may be freed and its bytes handed out again while a kernel that reads it is still queued.
// Ownership: one at_cuda per device for the life of the process. One thread at a time.
#ifndef AT_CUDA_CUDA_H
#define AT_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "cuda/cublaslt.h"
#include "cuda/cudnn.h"
#include "cuda/kernels.h"
#include "cuda/residency.h"
#include "tensor/device.h"

typedef struct at_cuda_pool at_cuda_pool;
typedef struct at_cuda_plans at_cuda_plans;
typedef struct at_cuda_tuned at_cuda_tuned;
typedef struct at_cuda_uploader at_cuda_uploader;

typedef struct at_cuda {
    at_device dev; // first: the registry hands out &dev; dev.stream points back here
    int ordinal;
    int capability;     // 90 for sm_90
    atomic_bool opened; // at_cuda_open has made the rest
    cudaStream_t stream;
    at_cuda_pool *pool;
    const at_cublaslt *lt; // NULL: absent
    const at_cudnn *dnn;   // NULL: absent
    void *lt_handle, *dnn_handle;
    void *workspace; // of both libraries
    size_t workspace_bytes;
    at_cuda_plans *linear_plans, *attention_plans, *conv_plans, *joined_kinds;
    at_cuda_tuned *tuned;       // of linear_tune.c; NULL until the first plan
    at_cuda_uploader *uploader; // NULL before the first upload
    at_residency weights;
    unsigned long streaming; // 1 + the epoch in which weights of the model at work last left
    bool recording; // a CUDA graph is being captured: no host copies, no plan making, no waiting
    int recordings; // that live
    cudaEvent_t rounds[2]; // of throttle
    unsigned round;
    struct {                       // aside.c
        cudaStream_t stream, main; // the second one; the first one, while g->stream is the second
        void *workspace, *main_workspace;
        cudaEvent_t forked, joined;
    } aside;
    cudaEvent_t *marks; // of traces, AT_CUDA_MARKS of them; NULL before the first
} at_cuda;

// AT_OK, or AT_EDEVICE (AT_ENOMEM for cudaErrorMemoryAllocation) with "cuda:0: WHAT: reason".
at_status at_cuda_check(const at_cuda *g, cudaError_t e, const char *what);

// What the driver takes for a context, the code of our kernels and of those that the libraries load.
#define AT_CUDA_DRIVER_BYTES ((size_t)700 << 20)

// --- plugin.c: everything below needs it once; memory and waiting ask for it themselves ----------------
at_status at_cuda_open(at_cuda *g);

// --- memory.c ----------------------------------------------------------------------------------
// Blocks are kept by size and handed out again (stream order makes that safe); when the device is
// full, what is kept goes back first.
extern const at_device_ops at_cuda_device_ops;
at_status at_cuda_pool_new(at_cuda_pool **out);
at_status at_cuda_alloc(at_cuda *g, size_t bytes, void **out);
void at_cuda_free(at_cuda *g, void *p);
size_t at_cuda_pool_kept(at_cuda *g);           // bytes that nobody uses
void at_cuda_pool_trim(at_device *d, bool all); // at_device_ops.trim
// Fills all but weights, fixed, driver and pinned; what is in use is in tensors, weights too. out NULL: the highest marks
// begin anew.
void at_cuda_pool_holds(at_cuda *g, at_device_holds *out);
// From true to false what is freed waits, and is not handed out again.
void at_cuda_pool_keep_late(at_cuda *g, bool late);
bool at_cuda_pool_has(at_cuda *g, size_t bytes); // a kept block for exactly that
// While g->recording is set, blocks come from (and go back to) lists of their own, which take what
// they lack from the kept ones and give nothing back before the last recording is gone.
void at_cuda_pool_release_recorded(at_cuda *g);
// Host bytes to the device (upload.c); returns when the host bytes may be reused.
at_status at_cuda_upload(at_cuda *g, void *dst, const void *src, size_t bytes);

// --- graph.c: recordings of at_device_ops ---------------------------------------------------------
at_status at_cuda_record_begin(at_device *d);
at_status at_cuda_record_end(at_device *d, void **out);
at_status at_cuda_replay(at_device *d, void *recording);
void at_cuda_recording_free(at_device *d, void *recording);
at_status at_cuda_throttle(at_device *d);

// --- marks.c: for traces ------------------------------------------------------------------------
enum { AT_CUDA_MARKS = 4096 };
at_status at_cuda_mark(at_device *d, int i, bool ahead);
at_status at_cuda_elapsed(at_device *d, int from, int to, double *seconds);
// A slot tells what serves it, in words that live as long as the process ("cublasLt bf16 bias gelu"); several
// in one call are joined. A slot that tells nothing is "own SLOT".
void at_cuda_served(const char *kernel);
const char *at_cuda_kernel_name(const char *slot);

// --- aside.c: of at_device_ops ----------------------------------------------------------------------
at_status at_cuda_aside(at_device *d, at_aside step);

// --- wire.c: of at_device_ops ---------------------------------------------------------------------
extern const at_wire_ops at_cuda_wire_ops;
at_status at_cuda_link(at_device *a, at_device *b, at_wire_link *out); // links.c

// --- channel.c: of at_device_ops, over NCCL
extern const at_channel_ops at_cuda_channel_ops;

// --- facts.c: of at_device_ops --------------------------------------------------------------------
void at_cuda_facts(at_device *d, at_device_fact_fn *each, void *ctx);
at_status at_cuda_usage(at_device *d, at_device_usage *out);

// --- needs.c: of at_device_ops --------------------------------------------------------------------
void at_cuda_needs(at_device *d, at_needs_of slot, const void *args, at_needs *out);

// --- weights.c ---------------------------------------------------------------------------------
// The device form of a weight: `dtype` AT_DTYPE_COUNT keeps the stored format. `filter`: a
// convolution's [o, i, kh, kw] becomes [o, kh, kw, i]. Forms are made once and live with the weight.
// A weight without a packed slot gets a form that *owned tells the caller to free.
at_status at_cuda_weight(at_cuda *g, const at_wview *w, at_dtype dtype, bool filter, at_view *out,
                         void **owned);
// A matrix [n, k], k a multiple of 16, in fp8 (a file's own format, or e4m3) with an f32 scale a row.
at_status at_cuda_weight_rows8(at_cuda *g, const at_wview *w, at_view *out, const float **scales,
                               void **owned);
// A vector (bias, affine) in `dtype`; NULL data gives NULL.
at_status at_cuda_vector(at_cuda *g, const at_wview *w, at_dtype dtype, const void **out,
                         void **owned);

// What a slot makes of a weight for itself (quantised bytes with their scales, summed filters): `bytes` bytes that
// `form_of` fills from the stored bytes on the device, in stream order. `kind` (1, 2, ...) tells such forms
// apart: the rows stand here.
enum {
    AT_CUDA_FORM_FP8_ROWS = 1,
    AT_CUDA_FORM_PHASES_F16 = 2,
    AT_CUDA_FORM_PHASES_BF16 = 3,
    AT_CUDA_FORM_JOINED = 16 // and all above
};
typedef at_status at_cuda_make_form(at_cuda *g, const at_wview *w, const at_view *stored,
                                    void *out);
at_status at_cuda_weight_made(at_cuda *g, const at_wview *w, int kind, size_t bytes,
                              at_cuda_make_form *form_of, void **out, void **owned);
// A number that this weight's forms have and no other's of the process; 0: it has no slot to keep forms in.
uint64_t at_cuda_weight_serial(const at_wview *w);
// A form of it is on the device, or on its way.
bool at_cuda_weight_here(at_cuda *g, const at_wview *w);
// `use` reads the stored bytes on the device, in stream order; they need not stay.
typedef at_status at_cuda_use_stored(at_cuda *g, const at_view *stored, void *ctx);
at_status at_cuda_weight_stored(at_cuda *g, const at_wview *w, at_cuda_use_stored *use, void *ctx);
// Rows of w, then of more[0 .. n): one matrix in `dtype`, kept with w. *fits false: they cannot be joined (a slot is
// missing, or scales or widths differ) and nothing was done.
at_status at_cuda_weight_joined(at_cuda *g, const at_wview *w, const at_wview *more, int n,
                                at_dtype dtype, at_view *out, bool *fits);
// at_device_ops.prefetch.
at_status at_cuda_prefetch(at_device *d, const at_wview *list, size_t n);
// at_device_ops.idle, .holds.
size_t at_cuda_weights_idle(at_device *d);
void at_cuda_holds(at_device *d, at_device_holds *out);
// Forms go until `bytes` are in the pool: residency.h says which. False: none may go.
bool at_cuda_weights_leave(at_cuda *g, size_t bytes);
// The model at work does not fit: parts of it have left while it ran.
bool at_cuda_weights_stream(const at_cuda *g);

// --- plans.c: what a library chose for a problem, by the problem's bytes --------------------------
at_status at_cuda_plans_new(at_cuda_plans **out);
void *at_cuda_plans_find(at_cuda_plans *p, const void *key, size_t bytes); // NULL: not there yet
size_t at_cuda_plans_count(const at_cuda_plans *p);
at_status at_cuda_plans_add(at_cuda_plans *p, const void *key, size_t bytes, void *plan);

// --- linear_tune.c: what timing chose, kept on disk for the next process -------------------------------
// The choice for a problem (hashes of both); false: there is none, or nothing may be kept (AT_OFF=tune).
bool at_cuda_choice_find(at_cuda *g, const void *problem, size_t bytes, uint64_t *choice);
void at_cuda_choice_keep(at_cuda *g, const void *problem, size_t bytes, uint64_t choice);

// --- group_norm_choice.c -------------------------------------------------------------------------
// What at_k_group_norm_in.held is to be; times both kernels where nobody knows.
bool at_cuda_group_norm_holds(at_cuda *g, const at_k_group_norm_in *a);

// --- the slots -----------------------------------------------------------------------------------
extern const at_backend at_cuda_backend;
at_status at_cuda_linear(void *stream, const at_linear_args *a);
at_status at_cuda_geglu(void *stream, const at_geglu_args *a);
bool at_cuda_fp8_rows(void *stream, int64_t n, int64_t k);
at_status at_cuda_attention(void *stream, const at_attention_args *a);
// Attention by two matmuls and a softmax of our own; *done false: cublasLt is absent or refuses.
at_status at_cuda_attention_matmul(at_cuda *g, const at_attention_args *a, bool *done);
// Attention in e4m3 where the caller and the chip allow it; *done false: not here.
at_status at_cuda_attention_fp8(at_cuda *g, const at_attention_args *a, bool *done);
at_status at_cuda_conv2d(void *stream, const at_conv2d_args *a);

static inline size_t at_cuda_size(at_dtype t)
{
    static const unsigned char sizes[AT_DTYPE_COUNT] = {4, 2, 2, 1, 1, 8, 1, 1, 2, 4, 8, 1};
    return sizes[t];
}
static inline int64_t at_cuda_count(const at_view *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->rank; i++)
        n *= v->shape[i];
    return n;
}
// A contiguous view over `data`.
at_view at_cuda_view(void *data, at_dtype dtype, int rank, const int64_t *shape);

#endif
