// SPDX-License-Identifier: Apache-2.0
// kernels.h - our own kernels as C functions: each launches on a stream and returns the launch's status.
// Idea: the slots of backend.h in C check and prepare; what is left for a kernel is a plain struct of
// device addresses. Views are backend.h's; "float" is f32, bf16 or f16, mixed freely.
// Owns nothing. May be called while a CUDA graph is captured: no allocation, no waiting.
#ifndef AT_CUDA_KERNELS_H
#define AT_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "atelier/types.h"

#ifdef __cplusplus
extern "C" {
#endif

// dst = src with conversion between any two dtypes, any strides (src may have strides 0).
cudaError_t at_k_copy(cudaStream_t s, const at_view *src, const at_view *dst);
cudaError_t at_k_fill(cudaStream_t s, const at_view *dst, double value);
// out = act(x), any strides, floats.
cudaError_t at_k_unary(cudaStream_t s, const at_view *x, const at_view *out, int act);
// out = act_a(a) op b with numpy broadcasting; op as at_binary_op.
cudaError_t at_k_binary(cudaStream_t s, const at_view *a, const at_view *b, const at_view *out,
                        int op, int act_a);
// out = x + gate * (act(y)); gate [b, n] with row stride; x NULL data: nothing added; gate NULL data: 1.
cudaError_t at_k_gate_add(cudaStream_t s, const at_view *x, const at_view *y, const at_view *gate,
                          const at_view *out, int act);
// out[m, j] = y[m, j] * act(y[m, n + j]); y [b, t, 2n]
cudaError_t at_k_geglu(cudaStream_t s, const at_view *y, const at_view *out, int act);
typedef struct at_k_lincomb_in {
    int n;
    float coef[8];
    at_view in[8], out;
} at_k_lincomb_in;
cudaError_t at_k_lincomb(cudaStream_t s, const at_k_lincomb_in *a);
// out[i, :] = table[ids[i], :] * scale; table [rows, dim] in any storage float format.
cudaError_t at_k_embedding(cudaStream_t s, const at_view *table, float scale, const at_view *ids,
                           const at_view *out);

// Last dimension of [b, t, d]; weight, bias f32 [d] or NULL; mod [b, d] with data NULL if absent.
// y with data: x += gate * y first, in place, with gate [b, d]. scales: out is e4m3 [b * t, d], contiguous,
// each row over its scale.
typedef struct at_k_norm_in {
    at_view x, out, mod_scale, mod_shift;
    const float *weight, *bias;
    float eps;
    bool rms;
    at_view y, gate;
    float *scales;
} at_k_norm_in;
cudaError_t at_k_norm(cudaStream_t s, const at_k_norm_in *a);

// Group norm of x + add over [b, pixels, c]; add [b or 1, c] any float, data NULL: absent. `partial` has
// at_k_group_norm_scratch(..) bytes, aligned to 16.
typedef struct at_k_group_norm_in {
    at_view x, add, out;
    const float *weight, *bias;
    float *partial;
    int groups, act;
    float eps;
    at_view parts; // as at_group_norm_args has them; at most AT_K_GROUP_PARTS
    const int64_t *part_pixels;
    bool held; // out of registers where they hold the map (group_norm_held.h)
} at_k_group_norm_in;
enum { AT_K_GROUP_PARTS = 256 };
size_t at_k_group_norm_scratch(int64_t batch, int64_t pixels, int64_t channels, int groups);
cudaError_t at_k_group_norm(cudaStream_t s, const at_k_group_norm_in *a);
// out [b, groups, 2] f32: mean and squared distances of x + add.
cudaError_t at_k_group_stats(cudaStream_t s, const at_k_group_norm_in *a);

// x, out [b, t, h, d]; weight f32 [d] or NULL; cos, sin [t or b * t, d / 2] f32 or NULL. Where x lies in pieces of
// eight and d is eight times a power of two, out may be e4m3 of value * factor, saturating.
typedef struct at_k_rope_in {
    at_view x, out;
    const float *weight, *cosines, *sines;
    float eps, factor;
    bool halves, per_batch;
} at_k_rope_in;
// n of them in one launch, of the same d and pairing.
#define AT_K_ROPES 5
cudaError_t at_k_rope(cudaStream_t s, const at_k_rope_in *a, int n);

// The reference attention: f32 sums, one pass over the keys, any head size up to 512.
typedef struct at_k_attention_in {
    at_view q, k, v, out, bias;
    float scale;
    bool causal;
    float *lse; // [b, h, tq]: as at_attention_args has it; NULL: not wanted
} at_k_attention_in;
cudaError_t at_k_attention(cudaStream_t s, const at_k_attention_in *a);
// The same on tensor cores (flash.cu), for what `suits`: 16-bit q, k and v of one format in words of 16 bytes,
// heads up to 256 in steps of 8, a scale above zero; out like q or f32.
bool at_k_flash_suits(const at_k_attention_in *a);
cudaError_t at_k_flash(cudaStream_t s, const at_k_attention_in *a);
// As at_attention_merge_args has it.
typedef struct at_k_merge_in {
    at_view a, b, out;
    const float *a_lse, *b_lse;
    float *out_lse; // NULL: not wanted
} at_k_merge_in;
cudaError_t at_k_attention_merge(cudaStream_t s, const at_k_merge_in *a);

// Rows of scores to probabilities times `times`, in place: row i of head h lies at scores + h * head_pitch +
// i * pitch (floats, the pitch a multiple of 4) and becomes `keys` elements of `dtype` at the same address.
// Row 0 sees `seen` keys and every later one a key more if causal; a row that sees nothing becomes zeros.
typedef struct at_k_softmax_in {
    float *scores;
    int64_t rows, heads, keys, pitch, head_pitch, seen;
    const float *bias;      // of row 0 and head 0, or NULL
    int64_t bias_stride[3]; // of a head, a row, a key
    float times;
    at_dtype dtype;
    bool causal;
    float *
        lse; // of row 0 and head 0, rows beside each other: log of the sum of exp; NULL: not wanted
    int64_t lse_stride; // of a head
} at_k_softmax_in;
cudaError_t at_k_softmax(cudaStream_t s, const at_k_softmax_in *a);

// The reference matmul: out[m, n] = sum_k x[m, k] w[n, k] * scale + bias[n], f32 sums, any formats.
cudaError_t at_k_linear(cudaStream_t s, const at_view *x, const at_view *w, float scale,
                        const float *bias, const at_view *out);

// NHWC windows for convolution: dst [b, h + top + bottom, w + left + right, c] with a zero frame; with
// twice, each pixel of src stands 2x2.
cudaError_t at_k_pad(cudaStream_t s, const at_view *src, const at_view *dst, int top, int left,
                     bool twice);
// out = act(sum + bias) + residual, all [.., c] without gaps, c % 8 == 0 and at most 2048; sum may be out,
// residual NULL for none, bias f32 or NULL. Any floats.
cudaError_t at_k_conv_rest(cudaStream_t s, const at_view *sum, const float *bias,
                           const at_view *residual, const at_view *out, int act);
// out [b * oh * ow, kh * kw * c] = the window of each result, zeros beyond x; x [b, h, w, c] of a 16-bit
// format, c and strides in pieces of eight, aligned to 16 bytes.
cudaError_t at_k_conv_windows(cudaStream_t s, const at_view *x, void *out, int kh, int kw, int oh,
                              int ow, int stride, int top, int left);
// The filters of a 3x3 convolution over a doubled picture: [o, i, 3, 3] in any format ->
// [i, 4, 4, o] for a transposed convolution with stride 2.
cudaError_t at_k_conv_phases(cudaStream_t s, const at_view *w, void *out, at_dtype dtype);
// Weights [o, i, kh, kw] -> [o, kh, kw, i] with conversion.
cudaError_t at_k_filter(cudaStream_t s, const at_view *src, const at_view *dst);
// The reference convolution, as backend.h's conv2d without act and residual; w [o, kh, kw, i].
typedef struct at_k_conv_in {
    at_view x, w, out;
    const float *bias;
    float scale;
    int stride, top, left;
    bool twice;
} at_k_conv_in;
cudaError_t at_k_conv(cudaStream_t s, const at_k_conv_in *a);
// 3x3 with stride 1 to at most four channels from a 16-bit x whose pieces of eight channels are aligned; w of
// x's format, scale 1, not doubled; out f32 or of x's format.
bool at_k_conv_few_fits(const at_view *x, const at_view *out);
cudaError_t at_k_conv_few(cudaStream_t s, const at_k_conv_in *a);
// 3x3 with stride 1 from at most 16 channels in f32 to any multiple of eight; w f32, scale 1, not doubled.
bool at_k_conv_from_few_fits(const at_view *x, const at_view *out);
cudaError_t at_k_conv_from_few(cudaStream_t s, const at_k_conv_in *a);

#ifdef __cplusplus
}
#endif
#endif
