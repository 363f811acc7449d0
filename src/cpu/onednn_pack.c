// SPDX-License-Identifier: Apache-2.0
// onednn_pack.c - weights for oneDNN, packed once; and the slots that the library serves.
// Idea: a weight of any stored float format is first brought to the format that is multiplied (bf16, f32, or int8
// with a scale for each row), then into the kernel's layout in blocks of rows, and kept within a share of the
// machine's memory; the mapped pages it came from are given back.
// Owns: packed weights belong to the at_packed; the converted copy lives for one call.
#ifdef AT_HAVE_DNNL
#include "cpu/onednn_pack.h"

#include "base/mem.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include "cpu/int8.h"

enum { LEAST_K = 32 }; // shorter rows are not worth rounding

static const char owner; // its address marks our packed blocks

static void free_packed(at_cpu_packed *p)
{
    const at_dnnl_packed *w = (const at_dnnl_packed *)(void *)p;
    at_cpu_packed_give_back(w->block_bytes * w->blocks);
    at_free(p);
}

#if defined(__x86_64__)
static bool can_int8(void)
{
    return __builtin_cpu_supports("avx512vnni");
}
static bool can_bf16(void)
{
    return __builtin_cpu_supports("avx512bf16");
}
#else
static bool can_int8(void)
{
    return false;
}
static bool can_bf16(void)
{
    return false;
}
#endif

bool at_dnnl_choose(at_dtype x, const at_wview *w, bool int8, bool f32_too, at_dnnl_type *out)
{
    int64_t k = 1;

    for (int i = 1; i < w->v.rank; i++)
        k *= w->v.shape[i];
    if (!at_cpu_gemm_dtype(w->v.dtype)) return false;
    if (int8 && can_int8() && k >= LEAST_K) {
        *out = AT_DNNL_S8;
        return true;
    }
    *out = x == AT_BF16 ? AT_DNNL_BF16 : AT_DNNL_F32;
    return (x == AT_BF16 && (can_bf16() || f32_too)) || (x == AT_F32 && f32_too);
}

const at_dnnl_packed *at_dnnl_packed_get(at_packed *slot, at_dnnl_type type)
{
    const at_dnnl_packed *p = at_cpu_packed_get(slot, &owner);
    return p && p->type == type ? p : NULL;
}

// --- packing ------------------------------------------------------------------------------------
typedef struct pack_job {
    const at_cpu_kernels *t;
    const at_dnnl_kernel *kernel;
    const at_wview *w;
    at_dnnl_type type;
    int64_t rows, k; // of the weight
    char *plain;     // the converted weight; NULL: as stored
    float *scales;
    at_dnnl_packed *to;
    atomic_bool failed;
} pack_job;

static size_t type_bytes(at_dnnl_type t)
{
    return t == AT_DNNL_S8 ? 1 : t == AT_DNNL_BF16 ? 2 : 4;
}

static bool stored_as(at_dtype d, at_dnnl_type t)
{
    return (d == AT_F32 && t == AT_DNNL_F32) || (d == AT_BF16 && t == AT_DNNL_BF16);
}

static void convert_range(void *ctx, int64_t begin, int64_t end)
{
    pack_job *j = ctx;
    const at_view *v = &j->w->v;
    float row[1024];

    if (j->type == AT_DNNL_S8) {
        if (!at_cpu_q8_rows(j->t, AT_Q8_BYTES, j->plain + begin * j->k, j->scales + begin, v->data,
                            v->dtype, begin * j->k, j->k, end - begin, j->k))
            atomic_store(&j->failed, true);
        return;
    }
    for (int64_t i = begin * j->k; i < end * j->k; i += 1024) {
        int64_t n = at_most(1024, end * j->k - i);
        j->t->load(row, v->data, v->dtype, i, 1, n);
        j->t->store(j->plain, j->type == AT_DNNL_BF16 ? AT_BF16 : AT_F32, i, 1, row, n);
    }
}

static void pack_range(void *ctx, int64_t begin, int64_t end)
{
    pack_job *j = ctx;
    const char *from = j->plain ? j->plain : j->w->v.data;
    size_t step = (size_t)(j->rows / (int64_t)j->to->blocks * j->k) * type_bytes(j->type);
    bool ok = at_dnnl_ready();

    for (int64_t i = begin; ok && i < end; i++)
        ok = at_dnnl_pack(j->kernel, from + (size_t)i * step,
                          j->to->data + (size_t)i * j->to->block_bytes);
    if (!ok) atomic_store(&j->failed, true);
}

// Fill j->to from the weight.
static bool fill(pack_job *j)
{
    if (!stored_as(j->w->v.dtype, j->type)) {
        j->plain = at_alloc((size_t)(j->rows * j->k) * type_bytes(j->type));
        if (!j->plain) return false;
        at_parallel_for(j->rows, 1 + 16384 / (j->k + 1), convert_range, j);
    }
    at_parallel_for((int64_t)j->to->blocks, 1, pack_range, j);
    at_free(j->plain);
    return !atomic_load(&j->failed);
}

const at_dnnl_packed *at_dnnl_pack_weight(const at_cpu_kernels *t, const at_dnnl_kernel *k,
                                          at_dnnl_type type, const at_wview *w, size_t blocks)
{
    size_t bytes = (at_dnnl_weight_bytes(k) + AT_ALIGN - 1) / AT_ALIGN * AT_ALIGN;
    pack_job j = {.t = t, .kernel = k, .w = w, .type = type, .rows = w->v.shape[0], .k = 1};
    size_t tail = type == AT_DNNL_S8 ? (size_t)j.rows * sizeof(float) : 0;
    at_dnnl_packed *p;

    for (int i = 1; i < w->v.rank; i++)
        j.k *= w->v.shape[i];
    if (!w->packed || atomic_load(&w->packed->data)) return NULL;
    if (!at_cpu_packed_take(bytes * blocks)) return NULL;
    p = at_alloc(sizeof *p + bytes * blocks + tail);
    if (p) {
        j.scales = (float *)(void *)(p->data + bytes * blocks);
        *p = (at_dnnl_packed){.head = {&owner, free_packed},
                              .layout = k->layout,
                              .type = type,
                              .block_bytes = bytes,
                              .blocks = blocks,
                              .scales = tail ? j.scales : NULL};
        j.to = p;
        if (fill(&j) && at_cpu_packed_put(w->packed, &p->head)) {
            at_cpu_packed_drop_source(w);
            return p;
        }
    }
    at_cpu_packed_give_back(bytes * blocks);
    at_free(p);
    return at_dnnl_packed_get(w->packed, type); // somebody else may have been first
}

// --- slots --------------------------------------------------------------------------------------
#define SLOT(name, args, work, f32_too)                                                            \
    static at_status name(void *stream, const args *a)                                             \
    {                                                                                              \
        (void)stream;                                                                              \
        return work(a, f32_too);                                                                   \
    }
SLOT(linear_some, at_linear_args, at_dnnl_linear, false)
SLOT(linear_all, at_linear_args, at_dnnl_linear, true)
SLOT(geglu_some, at_geglu_args, at_dnnl_geglu, false)
SLOT(geglu_all, at_geglu_args, at_dnnl_geglu, true)
SLOT(conv2d_some, at_conv2d_args, at_dnnl_conv2d, false)
SLOT(conv2d_all, at_conv2d_args, at_dnnl_conv2d, true)

void at_cpu_use_onednn(at_backend *b)
{
    b->linear = linear_some;
    b->geglu = geglu_some;
    b->conv2d = conv2d_some;
}

void at_cpu_use_onednn_all(at_backend *b)
{
    b->linear = linear_all;
    b->geglu = geglu_all;
    b->conv2d = conv2d_all;
}
#endif
