// SPDX-License-Identifier: Apache-2.0
// ops.h - the only doors to arithmetic.
// Idea: a model's forward reads like the paper. Each door checks shapes, makes the output in the op
// scope, exchanges shards when there are several ranks, and calls the device's slot.
// Errors are sticky: the first failure stays in the at_ops, its result is NULL ("poison"), every
// door given a NULL tensor or a failed at_ops returns NULL and does nothing; the caller asks once,
// at the end, with at_ops_status.
// On several ranks a failure also breaks the exchanges of the others, so that none waits for a rank
// that does nothing any more; they meet again in at_ops_vote, which every rank calls once per step
// whatever happened before, and where all learn the reason.
// Ownership: every returned tensor belongs to the innermost open scope of the at_ops and dies with
// it, unless at_ops_keep hands it to the caller. Inputs are borrowed. One at_ops, one thread, one
// rank.
#ifndef AT_OPS_OPS_H
#define AT_OPS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sink.h"
#include "base/status.h"
#include "par/comm.h"
#include "par/mesh.h"
#include "tensor/tensor.h"
#include "weight/store.h"

typedef struct at_ops at_ops;

typedef struct at_ops_config {
    at_device *device;   // NULL: the CPU
    at_dtype compute;    // dtype of activations: AT_F32 or AT_BF16 (AT_F16 on devices that can)
    at_comm *comm;       // NULL: one rank; with it alone tokens are shared by all
    const at_mesh *mesh; // in place of comm; its comms outlive the ops. NULL: none
    const at_sink *sink; // cancel is read at every door; may be NULL
    bool int8;           // wide linear layers and convolutions may multiply in int8 (backend.h)
    bool fp8;            // wide linear layers may multiply in fp8 (backend.h)
    bool weights8;       // weights of wide linear layers may be kept in fp8 alone, to save memory
} at_ops_config;

at_status at_ops_new(const at_ops_config *config, at_ops **out);
void at_ops_free(at_ops *o); // NULL is fine; releases all scopes

at_status at_ops_status(const at_ops *o); // the first failure (its text is current), AT_OK if none
// Record a failure (if none is there yet) and return NULL, so that a forward can say
// `return at_ops_poison(o, AT_EINVAL, "...")`.
at_tensor *at_ops_poison(at_ops *o, at_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
at_status at_ops_clear(at_ops *o); // forget the failure and return it; its text is current again
at_device *at_ops_device(const at_ops *o);
at_dtype at_ops_compute(const at_ops *o);
int at_ops_leave(const at_ops *o); // bits for each leave to round that the config gave
at_comm *at_ops_comm(const at_ops *o);
const at_sink *at_ops_sink(const at_ops *o);

// Scopes nest. at_scope_end releases everything made since the matching begin, except `keep` (may
// be NULL), which moves to the scope outside. Returns keep.
void at_scope_begin(at_ops *o);
at_tensor *at_scope_end(at_ops *o, at_tensor *keep);
// One more reference, owned by the caller (at_tensor_release). NULL stays NULL.
at_tensor *at_ops_keep(at_ops *o, at_tensor *t);
// Put a caller's reference under the scope's care; returns t.
at_tensor *at_ops_adopt(at_ops *o, at_tensor *t);

// --- making and moving -----------------------------------------------------------------------
at_tensor *at_empty(at_ops *o, at_dtype dtype, int rank, const int64_t *shape);
// A map [b, h, w, c] for at_into: where `like` is one rank's rows, with room for rows of others at its ends, so that what
// reads it next need not copy it.
at_tensor *at_empty_rows(at_ops *o, at_dtype dtype, const int64_t *shape, const at_tensor *like);
at_tensor *at_zeros(at_ops *o, at_dtype dtype, int rank, const int64_t *shape);
at_tensor *at_from_host(at_ops *o, at_dtype dtype, int rank, const int64_t *shape,
                        const void *bytes);
at_tensor *at_cast(at_ops *o, const at_tensor *x, at_dtype dtype); // x itself if it has the dtype
at_tensor *at_contiguous(at_ops *o, const at_tensor *x);           // x itself if it already is
// A weight's elements as a tensor of `dtype` (dequantised), for small tables.
at_tensor *at_weight_tensor(at_ops *o, const at_weight *w, at_dtype dtype);

// The next door on `o` writes its result into `out`, a tensor or view of the result's shape (last
// dimension contiguous, any float), and returns `out`: at_linear(at_into(o, part), x, w, b, NULL).
// Linear, geglu, attention, norm, group norm, rope, conv2d, embedding, unary and binary can; other doors
// refuse. `out` may be the residual of a linear, the x of a norm, rope or unary, or the a of a binary (in place).
// NULL does nothing. Beside at_into(...) no other argument may pass a door: the order is free.
at_ops *at_into(at_ops *o, at_tensor *out);

// --- views (no copies) -----------------------------------------------------------------------
// One dimension may be -1. Copies only where no strides over the old bytes give the new shape.
at_tensor *at_reshape(at_ops *o, const at_tensor *x, int rank, const int64_t *shape);
at_tensor *at_permute(at_ops *o, const at_tensor *x, const int *order);
at_tensor *at_narrow(at_ops *o, const at_tensor *x, int dim, int64_t start, int64_t length);

// --- elementwise -----------------------------------------------------------------------------
at_tensor *at_unary(at_ops *o, const at_tensor *x, at_act act);
// act_a(a) op b with numpy broadcasting; the result has a's dtype.
at_tensor *at_binary(at_ops *o, at_binary_op op, const at_tensor *a, const at_tensor *b,
                     at_act act_a);
at_tensor *at_add(at_ops *o, const at_tensor *a, const at_tensor *b);
at_tensor *at_mul(at_ops *o, const at_tensor *a, const at_tensor *b);
// x * mul + add
at_tensor *at_affine(at_ops *o, const at_tensor *x, float mul, float add);
// x + gate * y; x, y [b, t, d], gate [b or 1, d]
at_tensor *at_gate_add(at_ops *o, const at_tensor *x, const at_tensor *y, const at_tensor *gate);
// sum of coef[i] * in[i], n <= AT_LINCOMB_MAX, same shapes; f32 in, f32 out.
at_tensor *at_lincomb(at_ops *o, int n, const float *coef, const at_tensor *const *in);
at_tensor *at_concat(at_ops *o, int dim, int n, const at_tensor *const *in);
// The mean over dimension 1, which stays as 1: x [b, t, d] -> [b, 1, d] of x's dtype, summed in f32.
at_tensor *at_mean_tokens(at_ops *o, const at_tensor *x);

// --- layers ----------------------------------------------------------------------------------
// Extras of a linear layer; a zeroed struct means none.
typedef struct at_linear_extra {
    at_act act;
    const at_tensor *residual; // [b, t, n]
    const at_tensor *gate;     // [b or 1, n]
    bool precise;              // stays in floats where others may be rounded to int8 or fp8
} at_linear_extra;
// x [.., k] rank 2 or 3, w [n, k], bias [n] or NULL; result [.., n] in the compute dtype.
at_tensor *at_linear(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                     const at_linear_extra *extra);
// Rows [first, first + rows) of w only (a fused qkv, a LoRA's part); bias likewise. A backend cannot
// keep a packed form of a part: where all rows are wanted sooner or later, take at_linear and views.
at_tensor *at_linear_rows(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                          int64_t first, int64_t rows, const at_linear_extra *extra);

// Two results of one layer: columns [0, split) as they are, the rest with `act` into `rest`, a tensor or view
// [.., n - split] of the compute dtype. Returns the former [.., split], which may be a view of something wider.
at_tensor *at_linear_split(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                           int64_t split, at_act act, at_tensor *rest);

// Several layers of the same x side by side, w[i] [n_i, k] without bias: [.., sum of n_i] in the compute dtype.
enum { AT_BESIDE_MAX = 4 };
at_tensor *at_linear_beside(at_ops *o, const at_tensor *x, int n, const at_weight *const *w);

// A gated unit: x [.., k], w [2n, k], bias [2n] or NULL -> (x w1 + b1) * act(x w2 + b2) [.., n] in the compute
// dtype, where w1, b1 are the first n rows (GEGLU with AT_ACT_GELU_ERF: Shazeer 2020, arXiv:2002.05202).
at_tensor *at_geglu(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                    at_act act);
// The same with a weight [n, k] for each half: (x value) * act(x gate).
at_tensor *at_geglu_apart(at_ops *o, const at_tensor *x, const at_weight *value,
                          const at_weight *gate, at_act act);

// The two halves of at_linear_split, one behind the other with the same arguments; the first gives its result.
at_tensor *at_linear_first(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                           int64_t split, at_act act, at_tensor *rest);
void at_linear_rest(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                    int64_t split, at_act act, at_tensor *rest);

// q [b, tq, h, d], k, v [b, tk, h, d] -> [b, tq, h * d]. scale 0 means 1/sqrt(d).
// bias [1|b, h, tq, tk] f32 or NULL. Splits heads over ranks when tokens are split.
at_tensor *at_attention(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                        const at_tensor *bias, float scale, bool causal);

typedef struct at_norm_spec {
    const at_weight *weight, *bias;         // NULL: none
    const at_tensor *mod_scale, *mod_shift; // [b or 1, d] or NULL: y * (1 + scale) + shift
    float eps;
    bool rms;
    // The result is read by linear layers of this weight's shape and by nothing else: where they multiply in
    // fp8 it may come as such rows (at_tensor_new_rows8). NULL: floats.
    const at_weight *then;
} at_norm_spec;
at_tensor *at_norm(at_ops *o, const at_tensor *x, const at_norm_spec *spec); // x [b, t, d]
// x += gate * y in place (y like x, gate [b or 1, d]), and the norm of that. Where at_ops_add_norms says so it
// is one pass; elsewhere a linear layer's own gate and residual are the better way.
at_tensor *at_add_norm(at_ops *o, at_tensor *x, const at_tensor *y, const at_tensor *gate,
                       const at_norm_spec *spec);
bool at_ops_add_norms(const at_ops *o);

// x [b, h, w, c] -> the same; act after the affine.
at_tensor *at_group_norm(at_ops *o, const at_tensor *x, const at_weight *weight,
                         const at_weight *bias, int groups, float eps, at_act act);
// The group norm of x + add with add [b or 1, c] or NULL, in one pass over x.
at_tensor *at_add_group_norm(at_ops *o, const at_tensor *x, const at_tensor *add,
                             const at_weight *weight, const at_weight *bias, int groups, float eps,
                             at_act act);

// Rotary tables for tokens with positions on several axes: cos and sin [t, sum(axes)/2] f32.
//   ids [t, n_axes] f32 on the host, axes[i] = even channel count of axis i,
//   angle = id * theta^(-2j/axis) computed in f64 as FLUX does. Results are on the op device.
typedef struct at_rope_table {
    at_tensor *cos, *sin;
} at_rope_table;
at_rope_table at_rope_make(at_ops *o, int64_t tokens, int n_axes, const int *axes, const float *ids,
                           double theta);
// RMS-normalise each head with `weight` (NULL: no norm), then rotate (table NULL: no rotation).
// x [b, t, h, d]
at_tensor *at_rope(at_ops *o, const at_tensor *x, const at_weight *weight, float eps,
                   const at_rope_table *table, bool halves);
// The same in place for up to AT_ROPES tensors of one head size, which a device may do in one go: q and
// k, of one stream or two.
typedef struct at_rope_job {
    at_tensor *x;
    const at_weight *weight;
    const at_rope_table *table;
} at_rope_job;
void at_rope_all(at_ops *o, int n, const at_rope_job *jobs, float eps, bool halves);
// at_rope_all, then at_attention without bias. The jobs are runs of tokens of q, then of k, all of them, in their order;
// what q and k hold afterwards is open: a device may rotate on the way into another format. `then` as in at_norm_spec;
// parts of the result's tokens may be taken.
at_tensor *at_attention_turned(at_ops *o, int n, const at_rope_job *jobs, float eps, bool halves,
                               const at_tensor *q, const at_tensor *k, const at_tensor *v,
                               const at_weight *then);

typedef struct at_conv_spec {
    int stride; // 0 means 1
    int pad_top, pad_left, pad_bottom, pad_right;
    bool upsample2x;
    at_act act;
    const at_tensor *residual;
} at_conv_spec;
// x [b, h, w, cin], weight [cout, cin, kh, kw] -> [b, oh, ow, cout]
at_tensor *at_conv2d(at_ops *o, const at_tensor *x, const at_weight *weight, const at_weight *bias,
                     const at_conv_spec *spec);

// The shape that at_conv2d gives (on several ranks: of this rank's rows), for those who bring the result with
// at_into. False, and the ops failed, if there is none; false too for NULLs.
bool at_conv2d_shape(at_ops *o, const at_tensor *x, const at_weight *weight,
                     const at_conv_spec *spec, int64_t out[4]);

// ids: n host integers, each checked against the table: AT_EINVAL. Result [1, n, dim].
at_tensor *at_embedding(at_ops *o, const at_weight *table, const int32_t *ids, int64_t n);

// Sinusoidal embedding of b host values: [b, dim] f32; cos first if `cos_first` (FLUX, SD).
at_tensor *at_timestep_embedding(at_ops *o, const float *t, int64_t b, int dim, double max_period,
                                 bool cos_first);

// --- several ranks ---------------------------------------------------------------------------
// This rank's share of the token dimension (dim 1), and the whole again. Identity on one rank.
// Shares are runs of tokens in rank order; the first total % n ranks hold one token more. From the
// first split to the next gather at_attention takes its q, k and v for this rank's sequence: the shares of all
// that was split since, behind each other; and attends over all ranks' tokens (no bias, not causal). Outside it
// works on what it is given.
at_tensor *at_split_tokens(at_ops *o, const at_tensor *x);
at_tensor *at_gather_tokens(at_ops *o, const at_tensor *x, int64_t total);
// The end of a sequence that nobody gathers: the next split begins a new one.
void at_end_tokens(at_ops *o);
// The share alone, of what goes beside the sequence (tables, residuals).
at_tensor *at_share_tokens(at_ops *o, const at_tensor *x);
// A flat buffer [n] of runs, one for each rank along an axis in their order, lengths[i] elements each: this
// rank's is filled, and the others' are filled in. Returns the buffer.
at_tensor *at_gather_runs(at_ops *o, at_axis axis, at_tensor *buffer, const int64_t *lengths);
int at_ops_token_ranks(const at_ops *o); // who share the tokens
// True where tokens that are split travel beside other work. Then at_attention_ahead sends q, k and v on
// their way, and the next at_attention, in the same scope, takes the same three, which nobody changes meanwhile.
bool at_ops_goes_ahead(const at_ops *o);
bool at_ops_queries_later(
    const at_ops *o); // q does not travel, and may be made behind at_attention_ahead
void at_attention_ahead(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v);
const at_mesh *at_ops_mesh(const at_ops *o);

// --- work beside work ------------------------------------------------------------------------
// What doors do from begin to end may run together with what they do from end to join; neither reads what the other
// writes, and none of it exchanges but the attention over split tokens from end to join. begin: whether there is such
// a thing here and now; end and join take its answer, and come whatever fails in between.
typedef enum at_beside {
    AT_BESIDE_KEYS = 1,   // attention over two blocks of keys
    AT_BESIDE_STREAM = 2, // a short stream of tokens beside a long one
    AT_BESIDE_MLP = 4     // an MLP beside the attention of the same block
} at_beside;
bool at_ops_has_aside(const at_ops *o, at_beside what);
bool at_aside_begin(at_ops *o, at_beside what);
void at_aside_end(at_ops *o, bool begun);
void at_aside_join(at_ops *o, bool begun);
// This rank's rows of a map [b, h, w, c] along the mesh's patch axis, and the whole again: identities on one
// rank. Runs of rows in rank order; what doors make of such a map holds the matching rows, convolutions and
// group norms look across, attention over split keys reads them all, and a whole map that is added to a
// split one gives its part.
at_tensor *at_split_rows(at_ops *o, const at_tensor *x);
at_tensor *at_gather_rows(at_ops *o, const at_tensor *x);
int64_t
at_map_rows(const at_tensor *x); // of the whole map: dimension 1, or what it was before the split
// The layers of weights that may be cut (weight/cut.h) are shared along the mesh's tp axis: one cut by rows gives this
// rank's features, and one cut by columns takes them and gives the sum, the same on all ranks. How many of `heads`
// heads, of a `width` of free units and of w's rows are this rank's:
int64_t at_ops_own_heads(const at_ops *o, int64_t heads);
int64_t at_ops_own_units(const at_ops *o, int64_t width);
int64_t at_ops_own_features(const at_ops *o, const at_weight *w);
// This rank's heads of x, which has all of them along `dim`; and all ranks' of x [b, t, own, d], [b, t, heads, d].
at_tensor *at_share_heads(at_ops *o, const at_tensor *x, int dim);
at_tensor *at_gather_heads(at_ops *o, const at_tensor *x, int64_t heads);
// --- approximate ways (ops_held.c) ---
// Keys and values of the attentions of a forward, kept for the next one: the caller's.
typedef struct at_held at_held;
at_held *at_held_new(void);
void at_held_free(at_held *h); // NULL is fine
// From here on attention over tokens that are shared, on a mesh of stale degrees or in parts, keeps keys and values
// in h (borrowed; NULL: it keeps none). displaced: of tokens that are not at hand it takes those it kept; else it
// works exactly.
void at_ops_hold(at_ops *o, at_held *h, bool displaced);
bool at_ops_displaced(const at_ops *o);
void at_ops_hold_first(at_ops *o); // the next attention is a forward's first
// The next attention is a forward's first, and its q, k and v are the tokens from `first` on of a sequence of
// `total`; total 0: no more parts.
void at_ops_hold_part(at_ops *o, int64_t first, int64_t total);
// A number from 0 on for everybody who asks with another name in the life of these ops; -1: too many have.
int at_ops_held_place(at_ops *o, uint64_t name);
// This rank's run [*first, *first + *n) of `blocks` along the mesh's pipe.
void at_ops_own_blocks(const at_ops *o, int blocks, int *first, int *n);
// What this rank gives goes to the next one of the pipe, and what the one before gives comes; NULL: nothing. All call it.
void at_pass_on(at_ops *o, at_tensor *give, at_tensor *take);
// x of the last rank of the pipe becomes x of all.
void at_from_last(at_ops *o, at_tensor *x);
bool at_ops_meets(const at_ops *o); // a forward has exchanges with other ranks in it
// The smallest number (0 or more) of the ranks that meet in this one's forward, for the host's decisions; with
// none, `mine`. 0 after a failure.
int at_ops_agree(at_ops *o, int mine);
// Vote at the end of a step: the first failure of any rank, AT_ECANCELLED if one was cancelled.
at_status at_ops_vote(at_ops *o);

// --- looking ---------------------------------------------------------------------------------
// Counts of the forward passes so far: what bench divides by time.
typedef struct at_ops_stats {
    double flops_linear, flops_attention, flops_conv; // multiply and add are two
    double seconds_linear, seconds_attention, seconds_conv, seconds_other;
    uint64_t calls;
} at_ops_stats;
void at_ops_stats_get(const at_ops *o, at_ops_stats *out);
void at_ops_stats_reset(at_ops *o);
void at_ops_stats_set(at_ops *o, const at_ops_stats *s);
void at_ops_stats_add(at_ops *o,
                      const at_ops_stats *s); // work that was done without passing the doors

#endif
