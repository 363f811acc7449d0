// SPDX-License-Identifier: Apache-2.0
// cpu_impl.h - what the files of the CPU backend share: reference slots, element access, loop
// shapes. Idea: a slot of the reference reads like its sentence in backend.h; everything about
// dtypes and strides is behind at_cpu_load / at_cpu_store and at_cpu_nd. Owns nothing. Any thread.
#ifndef AT_CPU_IMPL_H
#define AT_CPU_IMPL_H

#include <stdatomic.h>

#include "atelier/backend.h"

// --- the reference slots (plain C) ---------------------------------------------------------------
at_status at_cpu_ref_copy(void *stream, const at_view *src, const at_view *dst);
at_status at_cpu_ref_fill(void *stream, const at_view *dst, double value);
at_status at_cpu_ref_unary(void *stream, const at_view *x, const at_view *out, at_act act);
at_status at_cpu_ref_binary(void *stream, const at_binary_args *a);
at_status at_cpu_ref_gate_add(void *stream, const at_gate_add_args *a);
at_status at_cpu_ref_lincomb(void *stream, const at_lincomb_args *a);
at_status at_cpu_ref_linear(void *stream, const at_linear_args *a);
at_status at_cpu_ref_geglu(void *stream, const at_geglu_args *a);
at_status at_cpu_ref_attention(void *stream, const at_attention_args *a);
at_status at_cpu_ref_attention_merge(void *stream, const at_attention_merge_args *a);
at_status at_cpu_ref_norm(void *stream, const at_norm_args *a);
at_status at_cpu_ref_group_norm(void *stream, const at_group_norm_args *a);
at_status at_cpu_ref_group_stats(void *stream, const at_group_norm_args *a);
at_status at_cpu_ref_rope(void *stream, const at_rope_args *a);
at_status at_cpu_ref_conv2d(void *stream, const at_conv2d_args *a);
at_status at_cpu_ref_embedding(void *stream, const at_embedding_args *a);

// --- elements ------------------------------------------------------------------------------------
size_t at_cpu_dtype_bytes(at_dtype t);
// n elements from element index `first`, `stride` elements apart, as f32 / from f32.
void at_cpu_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                 int64_t n);
void at_cpu_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                  int64_t n);
// One element as f32, by element index from the view's start.
float at_cpu_get(const at_view *v, int64_t i);
float at_cpu_apply(float x, at_act act);

static inline void *at_cpu_at(const at_view *v, int64_t element)
{
    return (char *)v->data + element * (int64_t)at_cpu_dtype_bytes(v->dtype);
}

// The same view with 1s in front until it has `rank` dimensions.
at_view at_cpu_rank(const at_view *v, int rank);
// Stride of dimension d, 0 where the dimension has one element (so that 1 broadcasts).
static inline int64_t at_cpu_step(const at_view *v, int d)
{
    return v->shape[d] == 1 ? 0 : v->stride[d];
}

// --- moments of one group ------------------------------------------------------------------------
typedef struct at_cpu_spread {
    double mean, variance;
} at_cpu_spread;
// Those of the whole map, from what its parts said (a->parts; not all of them may be empty).
at_cpu_spread at_cpu_merge_parts(const at_group_norm_args *a, int64_t b, int64_t group);

// Log-sum-exp of query i of head `head` (counted through the batch), where it is wanted.
void at_cpu_give_lse(const at_attention_args *a, int64_t head, int64_t i, float max, float sum);

// --- loops over up to four views that broadcast to the first -------------------------------------
// Dimensions of 1 are dropped and neighbours that are
// laid out alike in all views are merged; the last dimension that stays is the row. Views align on
// the right, as numpy does.
#define AT_CPU_ND_VIEWS 4
typedef struct at_cpu_nd {
    int rank; // >= 1
    int views;
    int64_t shape[AT_MAX_RANK];
    int64_t stride[AT_CPU_ND_VIEWS][AT_MAX_RANK];
    int64_t rows, row; // rows of `row` elements
} at_cpu_nd;
void at_cpu_nd_init(at_cpu_nd *nd, int views, const at_view *const *v);
// Element offsets of row r in each view.
void at_cpu_nd_offsets(const at_cpu_nd *nd, int64_t r, int64_t off[AT_CPU_ND_VIEWS]);
// Call fn on pieces of at most AT_CPU_PIECE row elements, in parallel.
#define AT_CPU_PIECE 512
typedef void at_cpu_piece_fn(void *ctx, const int64_t off[AT_CPU_ND_VIEWS],
                             const int64_t step[AT_CPU_ND_VIEWS], int64_t n);
void at_cpu_nd_run(const at_cpu_nd *nd, at_cpu_piece_fn *fn, void *ctx);

// --- what twins keep beside a weight ------------------------------------------------------------
// The head of every packed block. `owner` says whose form it is (a table's address).
typedef struct at_cpu_packed {
    const void *owner;
    void (*free)(struct at_cpu_packed *self); // NULL: at_free
} at_cpu_packed;
// The published block if it is `owner`'s, else NULL. `slot` may be NULL.
void *at_cpu_packed_get(at_packed *slot, const void *owner);
// Publish; false if the slot is absent or taken: the block stays the caller's.
bool at_cpu_packed_put(at_packed *slot, at_cpu_packed *p);
// Packed copies of big weights share half of the machine's memory: take before packing, false if
// there is no room left.
bool at_cpu_packed_take(size_t bytes);
void at_cpu_packed_give_back(size_t bytes);
// A packed form was published: if the weight is mapped, its pages leave the process until somebody reads them again.
void at_cpu_packed_drop_source(const at_wview *w);

// --- scratch inside parallel ranges --------------------------------------------------------------
// A range function may not
// fail: it leaves a mark here and returns; the slot turns the mark into words.
typedef struct at_cpu_oom {
    atomic_bool hit;
} at_cpu_oom;
static inline void *at_cpu_scratch(at_cpu_oom *oom, void *p)
{
    if (!p) atomic_store_explicit(&oom->hit, true, memory_order_relaxed);
    return p;
}
at_status at_cpu_oom_status(at_cpu_oom *oom, const char *slot);

#endif
