// SPDX-License-Identifier: Apache-2.0
// ops_private.h - what the doors of this floor share: the context and the steps every door takes.
// Idea: a door is  enter - check - make the output - call the slot - leave.  op_enter is false when
// the ops already failed or the job is cancelled; op_leave books the time and turns a failed slot
// to poison. Owns: see ops.h; everything made here goes to the innermost scope.
#ifndef AT_OPS_OPS_PRIVATE_H
#define AT_OPS_OPS_PRIVATE_H

#include "ops/ops.h"
#include "weight/cut.h"

// How keys and values of other rings are met: as their size says, or by a word of AT_OFF.
typedef enum ops_ring { OPS_RING_AUTO, OPS_RING_HOPS, OPS_RING_GATHERS } ops_ring;

enum {
    OPS_MAX_DEPTH = 64,
    OPS_ERROR_BYTES = 1024,
    OPS_MAX_RUNS = 8,
    OPS_MAX_RANKS = 256,
    OPS_HELD_PLACES = 8
};

struct at_ops {
    at_device *dev;
    const at_backend *be;
    at_dtype compute;
    bool int8, fp8, weights8;
    ops_ring ring;
    unsigned aside; // bits of at_beside
    enum { OPS_ASIDE_NONE, OPS_ASIDE_OPEN, OPS_ASIDE_BESIDE } aside_state;
    bool late; // AT_OFF=early: models do not send keys before the products that need none of them
    at_comm *comm; // all ranks
    at_mesh mesh;  // borrowed comms
    const at_sink *sink;

    at_status st; // the first failure
    char error[OPS_ERROR_BYTES];
    bool told; // it is another rank's, heard of in an exchange

    at_tensor **owned; // all scopes, one behind the other
    size_t count, cap;
    size_t marks[OPS_MAX_DEPTH]; // where each scope begins in `owned`
    int depth;                   // may exceed OPS_MAX_DEPTH: such scopes melt into the one outside

    at_tensor *into; // borrowed: where the next door puts its result (at_into)
    // Between at_split_tokens and at_gather_tokens: the whole lengths of what was split, which stand
    // behind each other in every rank's sequence.
    struct {
        bool open;
        int n;
        int64_t total[OPS_MAX_RUNS];
    } split;
    // What at_attention_ahead has sent: where it arrives, in the scope of that call; and what it was.
    struct {
        at_tensor *arrived;
        const void *q;
    } ahead;
    // Approximate ways (ops_held.c).
    struct {
        at_held *h; // borrowed
        bool displaced;
        int next;             // attention of this forward
        int64_t first, total; // of a part; total 0: all tokens
        at_comm *pending;     // what goes to the others' keys and values is under way
        int n_places;
        uint64_t places[OPS_HELD_PLACES];
    } held;
    at_ops_stats stats;
};

// One door being passed.
typedef struct op_pass {
    at_ops *o;
    const char *name; // "linear"
    double began;
    double *seconds; // where the time is booked
    at_tensor *into; // of at_into, until op_result has taken it
} op_pass;

// False (and the door returns NULL) when the ops failed before or the job is cancelled.
bool op_enter(op_pass *p, at_ops *o, const char *name, double *seconds);
// Books the time. On failure records "NAME: message" and returns NULL, else returns `result`.
at_tensor *op_leave(op_pass *p, at_status st, at_tensor *result);

// The argument `what` must exist and lie on the op device.
at_status op_takes(const op_pass *p, const char *what, const at_tensor *t);
// The same for those who also read fp8 rows (at_tensor_new_rows8).
at_status op_takes_rows(const op_pass *p, const char *what, const at_tensor *t);
// The weight must exist and have bytes; as a slot sees it: this rank's share of one that is cut.
at_status op_takes_weight(const op_pass *p, const char *what, const at_weight *w, at_wview *out);
// An optional weight of `n` elements (bias, affine); absent gives an absent view.
at_status op_takes_vector(const op_pass *p, const char *what, const at_weight *w, int64_t n,
                          at_wview *out);
// "double_blocks.0.img_attn.qkv.weight bf16 [9216, 3072]"
const char *op_weight_text(const at_weight *w, char out[256]);

// A fresh tensor in the innermost scope.
at_status op_make(at_ops *o, at_dtype dtype, int rank, const int64_t *shape, at_tensor **out);
// The door's result: what at_into gave if it has this shape, else a fresh tensor.
at_status op_result(op_pass *p, at_dtype dtype, int rank, const int64_t *shape, at_tensor **out);
// Put a reference under the innermost scope's care; on failure the reference is released.
at_status op_own(at_ops *o, at_tensor *t);
// The slot `fn` exists, else AT_EUNSUPPORTED.
static inline at_status op_has(const op_pass *p, bool slot)
{
    return slot ? AT_OK
                : at_fail(AT_EUNSUPPORTED, "the %s backend has no kernel for it", p->o->be->name);
}

// x with its last dimension contiguous; x itself if it already is.
at_status op_inner_contiguous(at_ops *o, const at_tensor *x, const at_tensor **out);
// x as [batch, tokens, features]: rank 2 gets a batch of 1.
at_view op_rows(const at_tensor *x);
// A [b or 1, n] modulation over `batch`: stride 0 when it broadcasts. Absent if t is NULL.
at_status op_takes_modulation(const op_pass *p, const char *what, const at_tensor *t, int64_t batch,
                              int64_t n, at_view *out);
// Data exchanges on one of the mesh's comms, after the device has caught up where the carrier wants that.
// A failure there is another rank's.
at_status op_all_gather(at_ops *o, at_comm *c, const void *send, void *recv, size_t bytes);
at_status op_exchange(at_ops *o, at_comm *c, const at_comm_part *send, const at_comm_part *recv);
at_status op_scatter_begin(at_ops *o, at_comm *c, const at_view *send, const at_view *recv);
at_status op_scatter_end(at_ops *o, at_comm *c);
at_status op_attention_ahead(const op_pass *p, const at_attention_args *a);
at_status op_scatter(at_ops *o, at_comm *c, const at_view *send,
                     const at_view *recv); // where c has it
at_status op_sum(at_ops *o, at_comm *c, float *inout, size_t count);
at_status op_sum_of(at_ops *o, at_comm *c, at_dtype dtype, void *inout,
                    size_t count); // where c has it
// Tokens of each rank in its sequence, as at_split_tokens has made it.
void op_split_counts(const at_ops *o, int64_t *counts);
// The same for the pixels of a map, rank by rank of the patch axis.
void op_row_counts(const at_ops *o, const at_row_run *run, int64_t *counts);
// A layer cut by columns (weight/cut.h): a's x, w and extras are set; out, of a->out, becomes the ranks' sum with them.
at_status op_linear_summed(const op_pass *p, at_linear_args *a, at_tensor *out);
// w's layer ends in a sum over the ranks of these ops.
bool op_sums(const at_ops *o, const at_weight *w);
// What may run beside other work here, once the mesh is known.
void op_aside_choose(at_ops *o);
// The slot, with its work counted.
at_status op_attention_slot(const op_pass *p, at_attention_args *a);
// The same for this rank's tokens of a sequence that is split: of pixels of a map if `run` is one.
at_status op_attention_split(const op_pass *p, at_attention_args *a, const at_row_run *run);
// The same on a mesh of stale degrees; and for a part of a sequence.
at_status op_attention_stale(const op_pass *p, at_attention_args *a, const at_row_run *run);
at_status op_attention_part(const op_pass *p, at_attention_args *a);
// Waits, in the stream, for what op_attention_stale has sent: before any other exchange.
at_status op_held_settle(at_ops *o);
// The layer of x and w is worth fp8, and these ops may.
bool op_may_fp8(const at_ops *o, const at_view *x, const at_wview *w);
// Layers of this weight's shape behind x [b, t, k] multiply in fp8, and the backend makes such rows for them.
bool op_gives_rows8(const at_ops *o, const at_view *x, const at_weight *then);
// The weight is wide enough to be kept in 8 bits, and these ops may.
bool op_may_w8(const at_ops *o, const at_wview *w);
// The scales of x where it is fp8 rows, else an absent view.
at_view op_scales(const at_tensor *x);
// The jobs of at_rope_all as a slot sees them (AT_ROPES at most), without empty ones.
at_status op_rope_jobs(const op_pass *p, int n, const at_rope_job *jobs, float eps, bool halves,
                       at_rope_args *a, int *many);
// A view narrowed along one dimension.
at_view op_part(at_view v, int dim, int64_t start, int64_t length);
// One f32 on the op device, shape [1].
at_status op_scalar(at_ops *o, float value, at_tensor **out);
// --- maps whose rows are shared out (ops_rows.c) ---
typedef struct op_span {
    int64_t lo, hi; // rows [lo, hi) of the whole map
} op_span;
// `out` holds the same rows as x (NULLs are fine).
void op_like(at_tensor *out, const at_tensor *x);
// *x, if it is a whole map where `like` is some rows of one, becomes the same rows.
at_status op_row_part(const op_pass *p, const at_tensor *like, const at_tensor **x);
// The label of x under the shape of `out`, a reshape of it. AT_EUNSUPPORTED where rows do not stay rows.
at_status op_reshaped_run(const at_tensor *x, at_tensor *out);
// op_result for this rank's rows [b, h, w, c] of a map. Where they lie behind each other it gets room for a row at either
// end, so that neighbours' rows can join them without a copy.
at_status op_run_result(op_pass *p, at_dtype dtype, const int64_t *shape, at_row_run run,
                        at_tensor **out);
// The rows needs[this rank] of the map of which x [b, h, w, c] is this rank's run; needs[i] is what rank i
// asks for in the same call.
at_status op_fetch_rows(const op_pass *p, const at_tensor *x, const op_span *needs,
                        at_tensor **out);
// This rank's share of a map of `rows`.
int64_t op_own_rows(const at_ops *o, int64_t rows);
// A convolution's numbers, without tensors; spec NULL: stride 1 and no padding.
at_conv2d_args op_conv_numbers(const at_conv_spec *spec);
// Rows of a convolution's result over a map of `rows`.
int64_t op_conv_rows(const at_conv2d_args *a, int64_t rows, int64_t kh);
// What a convolution over the run x reads for its own rows of the result; a's padding becomes what this
// rank must add to it, and the first *skip rows of what comes out are not of its run.
at_status op_conv_input(const op_pass *p, const at_tensor *x, int64_t kh, at_conv2d_args *a,
                        const at_tensor **in, int64_t *skip);
// Everybody's sums for the group norm of the run x (a->x, a->add and a->groups are set): fills a->parts
// and pixels[ranks of the patch axis].
at_status op_group_parts(const op_pass *p, const at_tensor *x, at_group_norm_args *a,
                         int64_t *pixels);

// First token and token count of rank `rank` when `total` tokens are shared out.
void op_share(int64_t total, int rank, int size, int64_t *first, int64_t *length);

#endif
