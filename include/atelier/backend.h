// SPDX-License-Identifier: Apache-2.0
// backend.h - the plug-in seam: what a device must be able to do.
// Idea: one struct of typed slots per device kind. Plain C fills every CPU slot, faster twins overwrite
// it; an empty slot of another device falls back to a composite in ops/. A slot gets views whose shapes
// ops/ has already checked; it never allocates tensors and never waits for the host.
// Every slot: called on the thread that owns the device's stream; may not block on other threads but
// the pool; inputs and outputs do not overlap unless the slot says "in place"; returns AT_OK or records
// a message with at_fail.
// "any float" below: f32, bf16, f16, mixed freely between arguments; arithmetic and sums in f32.
#ifndef ATELIER_BACKEND_H
#define ATELIER_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "atelier/types.h"
#include "base/status.h"

// Exact equality is asked at load: a plug-in built against another header is refused.
#define AT_BACKEND_ABI 7

// A place where a backend may keep its own form of a weight (packed panels, dequantised bytes). Lives
// as long as the weight. Publish with compare-exchange: the loser frees its copy and takes the winner's.
typedef struct at_packed {
    _Atomic(void *) data;
    void (*free)(void *data); // set before data is published
} at_packed;

// Bytes that lie apart on the host: the same pieces of each of so many lines, behind each other.
enum { AT_PIECES = 4 };
typedef struct at_pieces {
    int64_t lines;
    size_t line; // bytes from one line to the next
    int n;
    struct {
        size_t at, bytes; // of a line
    } piece[AT_PIECES];
} at_pieces;

// A weight as a slot sees it: bytes as stored, times `scale` (1 unless ComfyUI's scaled fp8).
typedef struct at_wview {
    at_view v; // contiguous; data NULL means "absent" (no bias, no affine)
    float scale;
    at_packed *packed; // NULL: nothing may be cached
    bool mapped; // the bytes lie in a read-only file mapping: pages that a backend has packed may
                 // be given back to the system, and come again when they are read
    const char *name; // for traces; may be NULL
    const at_pieces *
        apart; // v.data is where the first line begins; NULL: the bytes follow each other. Only for
               // backends that say so (at_backend.pieces); lives as long as `packed`
} at_wview;

typedef enum at_act {
    AT_ACT_NONE = 0,
    AT_ACT_SILU,
    AT_ACT_GELU_TANH,
    AT_ACT_GELU_ERF,
    AT_ACT_QUICK_GELU, // x * sigmoid(1.702 x)
    AT_ACT_RELU,
    AT_ACT_TANH,
    AT_ACT_SIGMOID
} at_act;

// out[m,n] = act(sum_k x[m,k] * w[n,k] * scale + bias[n]); then, if gate: out *= gate[b,n]; then, if
// residual: out += residual[m,n].
//   x, out, residual  [batch, tokens, features] any float, features contiguous, other strides free
//   w                 [n, k] any storage format; bias [n]
//   gate              [batch, n] any float, stride free (0 over batch broadcasts)
// out may be the same view as residual (in place). Where x is bf16, w may be rounded to bf16 (here, in geglu and in
// conv2d). Where x and out are both f16 or both bf16, what lies between the sum, bias, act, gate, residual
// or the other half of geglu may be rounded to that format.
// A 16-bit out's GELU_TANH may take its tanh with an error of 2^-10.
// split (0: none; at_backend.splits says who can): columns [0, split) go to out, which is that wide, without act; the
// rest goes to out2 with act. Both have one dtype; gate and residual are absent.
// more (at_backend.joins says who can): weights [n_i, k] whose rows follow w's, so that n is the sum of all; bias, act,
// gate, residual and split are absent.
// int8 (here and below) is leave, not an order: a backend that is faster so may round w to 127 steps a row and
// x to 127 steps a row or block, and must sum the products exactly; where it gains nothing it computes in floats.
// fp8 likewise: w and x may be rounded to e4m3, each row over a scale of its own (its largest value becomes 448); the
// sums are f32, or what the device's matrix units keep.
// w8 (here and in geglu) is leave to keep w in 8 bits alone, e4m3 with a scale a row, and to widen it for each call.
// x_scale: x is e4m3, contiguous, and row i of all batches means its bytes times x_scale[i] (f32, contiguous), as norm
// writes it where at_backend.fp8_rows said yes for w's shape. Such an x, and w, may also be rounded to out's format.
typedef struct at_linear_args {
    at_view x, out;
    at_wview w, bias;
    at_act act;
    at_view residual, gate; // data NULL: absent
    int64_t split;
    int part; // of a split one: 0: both, 1: out alone, 2: out2 alone
    at_view out2;
    at_view x_scale;      // data NULL: x is floats
    const at_wview *more; // n_more of them
    int n_more;
    bool int8, fp8, w8;
} at_linear_args;

// A gated linear unit, out[m,j] = v * act(g) with v = x[m] . w[j] * scale + bias[j] and g the same with row n + j.
//   x [batch, tokens, k], out [batch, tokens, n] as in linear; w [2n, k], bias [2n] or absent
//   gate (at_backend.joins): the gate's weight [n, k] where w is the value's [n, k] alone; bias is absent then
typedef struct at_geglu_args {
    at_view x, out;
    at_view x_scale; // as in linear
    at_wview w, bias, gate;
    at_act act; // of the gate half: AT_ACT_GELU_ERF in Stable Diffusion
    bool int8, fp8, w8;
} at_geglu_args;

// Rotary embedding with an optional RMS norm of each head before it.
//   x, out  [b, t, h, d] d contiguous; in place allowed     weight [d] or absent
//   cos, sin [t, d/2] f32 contiguous (the first dimension may be [b*t] when angles differ per batch)
// pairs: false = neighbours (0,1)(2,3) as in FLUX; true = halves (i, i + d/2).
typedef struct at_rope_args {
    at_view x, out;
    at_wview weight;
    float eps;
    at_view cos, sin; // data NULL: norm only
    bool halves;
} at_rope_args;
#define AT_ROPES 4 // q and k of two streams

// Scaled dot product attention. q [b, tq, h, d], k and v [b, tk, h, d], out [b, tq, h, d]; d contiguous,
// all other strides free (q, k, v may be read in place from one qkv buffer). bias: [1 or b, h, tq, tk]
// f32 with any strides (T5's rows are windows on one line), added to scale * q.k, -inf masks; a row that
// is masked everywhere gives zeros. causal: key j is seen by query i if j <= i + (tk - tq). If q, k and v
// are bf16 or all f16, probabilities may be rounded to that format before they meet v.
// fp8 is leave again: where it is faster, q, k, v, probabilities and out may be rounded to e4m3, each times a power
// of two of the backend's choice; values beyond its range (at least +-112) saturate.
// turns (at_backend.turns): first rope of these n_turns, each in place and a run of tokens of q or of k, in their order,
// all tokens of both; what q and k hold afterwards is open. With turns, one sample and fp8, out_scale as in norm: out is
// e4m3, contiguous, and each token over a scale in out_scale [tq], of the backend's choice.
// lse: [b, h, tq] f32 contiguous takes log(sum(exp(score))) of every row, -inf where it sees nothing: what
// attention_merge wants. out is floats then, and without keys it is zeros.
typedef struct at_attention_args {
    at_view q, k, v, out;
    at_view bias; // data NULL: absent
    float scale;
    bool causal, fp8;
    const at_rope_args *turns;
    int n_turns;
    at_view out_scale; // data NULL: out is floats
    at_view lse;       // data NULL: not wanted
} at_attention_args;

// The same queries over two sets of keys become those over both (Liu et al. 2023, arXiv:2310.01889): each row is
// weighted by exp(its lse - the lse of both), in f32.
//   a, b, out      [batch, t, h, d] any float, d contiguous; out may be a
//   a_lse, b_lse   [batch, h, t] f32 contiguous; out_lse likewise, may be a_lse; data NULL: not wanted
// Rows that have seen nothing anywhere become zeros.
typedef struct at_attention_merge_args {
    at_view a, a_lse, b, b_lse, out, out_lse;
} at_attention_merge_args;

// Normalise the last dimension; then y = y * weight + bias; then y = y * (1 + mod_scale) + mod_shift.
//   x, out    [batch, tokens, dim] any float; weight, bias [dim]; mod_scale, mod_shift [batch, dim]
// rms: no mean is taken away (Zhang & Sennrich 2019). In place allowed.
// out_scale (at_backend.fp8_rows): out is e4m3, contiguous, each row over a scale of its own that goes to out_scale
// (f32 [batch * tokens], contiguous): its largest value becomes 448.
// y (at_backend.adds): x += gate * y first, which changes x; y like x, gate [batch, dim].
typedef struct at_norm_args {
    at_view x, out;
    at_view out_scale; // data NULL: out is floats
    at_wview weight, bias;
    at_view mod_scale, mod_shift; // data NULL: absent
    float eps;
    bool rms;
    at_view y, gate; // data NULL: absent, both or none
} at_norm_args;

// Group norm of x + add over [batch, pixels, channels] with channels contiguous (NHWC flattened), then act.
// In place allowed.
//   add [batch, channels] any float, channels contiguous, stride free (0 over batch broadcasts)
// One map cut over several devices: group_stats leaves what this part of it says, and group_norm takes what all
// parts said (`parts`, in place of measuring x):
//   parts [n, batch, groups, 2] f32 contiguous: mean, sum of squared distances from it; part_pixels[n] >= 0
typedef struct at_group_norm_args {
    at_view x, out;
    at_view add; // data NULL: absent
    at_wview weight, bias;
    int groups;
    float eps;
    at_act act;
    at_view parts; // data NULL: x is the whole map
    const int64_t *part_pixels;
} at_group_norm_args;

// 2D convolution, NHWC in and out, weight [cout, cin, kh, kw] as stored (torch).
//   x [b, h, w, cin], out [b, oh, ow, cout], residual like out or absent; channels contiguous
//   out = act(conv(x) + bias) + residual.  upsample2x: x is read as if each pixel stood 2x2; where x has
//   16 bits, taps that meet the same pixel of it may be summed and the sum rounded to x's format. Where x
//   and out have one 16-bit format, conv(x), the bias, and what lies between bias and residual may be
//   rounded to it.
typedef struct at_conv2d_args {
    at_view x, out;
    at_wview w, bias;
    int stride, pad_top, pad_left, pad_bottom, pad_right;
    bool upsample2x;
    at_act act;
    at_view residual;
    bool int8;
} at_conv2d_args;

typedef enum at_binary_op { AT_ADD, AT_SUB, AT_MUL, AT_DIV } at_binary_op;

// out = act_a(a) op b, elementwise, numpy broadcasting by zero strides. In place on a allowed.
typedef struct at_binary_args {
    at_view a, b, out;
    at_binary_op op;
    at_act act_a;
} at_binary_args;

// out = x + gate * y with gate [batch, dim] over [batch, tokens, dim]. In place on x allowed.
typedef struct at_gate_add_args {
    at_view x, y, gate, out;
} at_gate_add_args;

// out = sum_i coef[i] * in[i], any float, all contiguous with the same count, summed in that order in f32; the samplers'
// only arithmetic, and the sums of ranks that share layers.
#define AT_LINCOMB_MAX 8
typedef struct at_lincomb_args {
    int n;
    float coef[AT_LINCOMB_MAX];
    at_view in[AT_LINCOMB_MAX];
    at_view out; // may be one of in
} at_lincomb_args;

// Rows of a table: out[i, :] = table[ids[i], :] * scale. ids i32 in range (ops/ checked on the host).
typedef struct at_embedding_args {
    at_wview table;
    at_view ids, out; // ids [n], out [n, dim]
} at_embedding_args;

typedef struct at_backend {
    int abi;          // AT_BACKEND_ABI
    const char *name; // "cpu", "cuda"
    // Strided copy with conversion between any two dtypes (to integers: truncation; to bool: != 0).
    at_status (*copy)(void *stream, const at_view *src, const at_view *dst);
    at_status (*fill)(void *stream, const at_view *dst, double value);
    at_status (*unary)(void *stream, const at_view *x, const at_view *out, at_act act);
    at_status (*binary)(void *stream, const at_binary_args *a);
    at_status (*gate_add)(void *stream, const at_gate_add_args *a);
    at_status (*lincomb)(void *stream, const at_lincomb_args *a);
    at_status (*linear)(void *stream, const at_linear_args *a);
    bool splits; // linear knows split and out2; for others ops/ makes two steps of it
    bool joins;  // linear knows more, geglu knows gate
    bool adds;   // norm knows y and gate
    bool turns;  // attention knows turns
    bool pieces; // weights may lie apart on the host
    // True where a linear with w [n, k] gains from x in fp8 rows, which norm then writes. NULL: never.
    bool (*fp8_rows)(void *stream, int64_t n, int64_t k);
    at_status (*attention)(void *stream, const at_attention_args *a);
    // NULL: attention knows no lse, and tokens that are split meet all keys at once.
    at_status (*attention_merge)(void *stream, const at_attention_merge_args *a);
    at_status (*norm)(void *stream, const at_norm_args *a);
    at_status (*group_norm)(void *stream, const at_group_norm_args *a);
    // x, add and groups as there; out [batch, groups, 2] f32 contiguous. NULL: maps stay whole.
    at_status (*group_stats)(void *stream, const at_group_norm_args *a);
    at_status (*rope)(void *stream, const at_rope_args *a);
    // n of them (1 to AT_ROPES, one head size and pairing) in one go; NULL: one after the other.
    at_status (*ropes)(void *stream, const at_rope_args *a, int n);
    at_status (*conv2d)(void *stream, const at_conv2d_args *a);
    at_status (*embedding)(void *stream, const at_embedding_args *a);
    at_status (*geglu)(void *stream, const at_geglu_args *a);
    // What served this thread's last call of a slot ("cublasLt bf16 bias gelu"), for traces and bench: the
    // table's row where that is fixed. NULL: no such slot. The text stays until the next call. May be NULL.
    const char *(*kernel_name)(const char *slot);
} at_backend;

#endif
