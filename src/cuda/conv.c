// SPDX-License-Identifier: Apache-2.0
// conv.c - NHWC convolution: 1x1 as a linear layer, the rest by cuDNN with what it cannot do behind it.
// Idea: where everything has one 16-bit format, the library adds residual and bias itself (conv_dnn.c) and
// doubles the picture for nothing. Activations, and mixtures of formats, are a kernel of ours over its sum:
// the sum is f32 where x or the result is, so that nothing is rounded twice.
// A convolution over a doubled picture has filters of its own (conv_rest.cu), summed once in f32.
// Easy to get wrong: the library writes a result without gaps and not over its residual; a bias that it
// adds has x's format.
// Owns nothing: weights' forms live with the weights, scratch is freed when the kernels are queued.
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cuda/conv.h"
#include "cuda/conv_slabs.h"
#include "cuda/linear.h"

// [b, h, w, c] as [b, h * w, c] where rows lie behind each other; false where they do not.
static bool flat(const at_view *v, at_view *out)
{
    *out = *v;
    if (v->shape[1] > 1 && v->shape[2] > 1 && v->stride[1] != v->shape[2] * v->stride[2])
        return false;
    out->rank = 3;
    out->shape[1] = v->shape[1] * v->shape[2];
    out->stride[1] = v->shape[2] > 1 ? v->stride[2] : v->stride[1];
    out->shape[2] = v->shape[3];
    out->stride[2] = v->stride[3];
    return true;
}

// A 1x1 convolution over flat views is a linear layer with all its epilogues.
static bool as_linear(const at_conv2d_args *a, at_linear_args *l)
{
    if (a->w.v.shape[2] != 1 || a->w.v.shape[3] != 1 || a->stride != 1 || a->upsample2x)
        return false;
    if (a->pad_top || a->pad_left || a->pad_bottom || a->pad_right) return false;
    *l = (at_linear_args){.w = a->w, .bias = a->bias, .act = a->act};
    if (!flat(&a->x, &l->x) || !flat(&a->out, &l->out)) return false;
    if (a->residual.data && !flat(&a->residual, &l->residual)) return false;
    l->w.v.rank = 2;
    return true;
}

enum { FEW = 32 }; // channels of pixels, latents and moments

typedef struct conv_call {
    at_view x, w, sum;
    void *own_w, *own_b, *sx, *so, *sp;
    const void *bias;
} conv_call;

static void drop(at_cuda *g, conv_call *c)
{
    at_cuda_free(g, c->own_w);
    at_cuda_free(g, c->own_b);
    at_cuda_free(g, c->sx);
    at_cuda_free(g, c->sp);
    at_cuda_free(g, c->so);
    *c = (conv_call){0};
}

static bool dense(const at_view *v)
{
    int64_t want = 1;
    for (int d = v->rank - 1; d >= 0; want *= v->shape[d], d--)
        if (v->shape[d] > 1 && v->stride[d] != want) return false;
    return (uintptr_t)v->data % 16 == 0;
}

// cuDNN reads x where it lies: channels contiguous, positive strides in pieces of 16 bytes where a
// dimension is walked at all.
static bool readable(const at_view *x)
{
    int64_t piece = 16 / (int64_t)at_cuda_size(x->dtype);
    if (x->stride[3] != 1 || (uintptr_t)x->data % 16) return false;
    if (dense(x)) return true;
    for (int d = 0; d < 3; d++)
        if (x->stride[d] <= 0 || x->stride[d] % piece) return false;
    return true;
}

// x in the arithmetic's format where the library can read it; doubled where asked, without a frame.
static at_status ready(at_cuda *g, const at_conv2d_args *a, at_dtype math, bool doubled,
                       conv_call *c)
{
    at_status st = AT_OK;
    c->x = a->x;
    if (a->x.dtype != math || !readable(&a->x)) {
        AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->x) * at_cuda_size(math), &c->sx));
        c->x = at_cuda_view(c->sx, math, 4, a->x.shape);
        AT_TRY(at_cuda_check(g, at_k_copy(g->stream, &a->x, &c->x), "conv: x without gaps"));
    }
    if (doubled) {
        int64_t shape[] = {a->x.shape[0], 2 * a->x.shape[1], 2 * a->x.shape[2], a->x.shape[3]};
        int64_t n = shape[0] * shape[1] * shape[2] * shape[3];
        AT_TRY(at_cuda_alloc(g, (size_t)n * at_cuda_size(math), &c->sp));
        at_view to = at_cuda_view(c->sp, math, 4, shape);
        AT_TRY(at_cuda_check(g, at_k_pad(g->stream, &c->x, &to, 0, 0, true), "conv: doubling x"));
        c->x = to;
    }
out:
    return st;
}

// Bias, activation and residual over the sum, into the result; `bias` is f32 here.
static at_status finish(at_cuda *g, const at_conv2d_args *a, const at_view *sum, const void *bias)
{
    at_status st = AT_OK;
    at_view b = {0}, wide;
    void *scratch = NULL;
    int64_t n = sum->shape[3];
    cudaError_t e = cudaSuccess;
    bool whole = dense(&a->out) && dense(sum) && (!a->residual.data || dense(&a->residual));
    at_cuda_served("own epilogue");
    if (whole && n % 8 == 0 && n <= 2048)
        return at_cuda_check(g,
                             at_k_conv_rest(g->stream, sum, bias,
                                            a->residual.data ? &a->residual : NULL, &a->out,
                                            (int)a->act),
                             "conv: bias and residual");
    // In steps, which meet in f32.
    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(sum) * sizeof(float), &scratch));
    wide = at_cuda_view(scratch, AT_F32, 4, sum->shape);
    if (bias) {
        b = at_cuda_view((void *)(uintptr_t)bias, AT_F32, 1, &n);
        e = at_k_binary(g->stream, sum, &b, &wide, AT_ADD, AT_ACT_NONE);
    } else {
        wide = *sum;
    }
    if (e == cudaSuccess && a->residual.data)
        e = at_k_binary(g->stream, &wide, &a->residual, &a->out, AT_ADD, (int)a->act);
    else if (e == cudaSuccess)
        e = at_k_unary(g->stream, &wide, &a->out, (int)a->act);
    AT_TRY(at_cuda_check(g, e, "conv: bias and residual"));
out:
    at_cuda_free(g, scratch);
    return st;
}

static at_cuda_conv_in call_of(const at_conv2d_args *a, const conv_call *c, const at_view *out)
{
    return (at_cuda_conv_in){.x = &c->x,
                             .w = &c->w,
                             .out = out,
                             .stride = a->stride,
                             .top = a->pad_top,
                             .left = a->pad_left,
                             .bottom = a->pad_bottom,
                             .right = a->pad_right};
}

// Scratch for a sum that a kernel goes on with: f32 unless everything has x's 16-bit format.
static at_status sum_of(at_cuda *g, const at_conv2d_args *a, conv_call *c)
{
    at_dtype t = a->out.dtype == a->x.dtype ? a->x.dtype : AT_F32;
    if (a->out.dtype == t && dense(&a->out) && a->residual.data != a->out.data) {
        c->sum = a->out;
        return AT_OK;
    }
    at_status st = at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * at_cuda_size(t), &c->so);
    if (st == AT_OK) c->sum = at_cuda_view(c->so, t, 4, a->out.shape);
    return st;
}

// The whole layer in one call of the library: everything in one 16-bit format, no activation.
static at_status whole_layer(at_cuda *g, const at_conv2d_args *a, bool *done)
{
    at_status st = AT_OK;
    conv_call c = {0};
    at_dtype math = a->x.dtype;

    *done = false;
    if (math == AT_F32 || a->out.dtype != math || a->act != AT_ACT_NONE || !dense(&a->out))
        return AT_OK;
    if (a->residual.data && (!a->bias.v.data || a->residual.dtype != math || !dense(&a->residual) ||
                             a->residual.data == a->out.data))
        return AT_OK;
    AT_TRY(at_cuda_weight(g, &a->w, math, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, math, &c.bias, &c.own_b));
    AT_TRY(ready(g, a, math, a->upsample2x, &c));
    at_cuda_conv_in in = call_of(a, &c, &a->out);
    in.bias = c.bias;
    if (a->residual.data) in.residual = &a->residual;
    AT_TRY(at_cuda_conv_dnn(g, &in, done));
    if (*done)
        at_cuda_served(a->residual.data ? "cudnn conv res bias"
                       : c.bias         ? "cudnn conv bias"
                                        : "cudnn conv");
out:
    drop(g, &c);
    return st;
}

// Layers that are products over their windows. Few pixels under many weights: what counts is reading the weights once at
// full speed, which matmuls that split their sums over the chip do and the library's convolutions do not. And 16 bits into
// a few f32 channels (moments), which the library has in f32 alone, at 0.4 to 8 TFLOP/s.
static bool by_windows(const at_cuda *g, const at_conv2d_args *a)
{
    int64_t pixels = a->out.shape[0] * a->out.shape[1] * a->out.shape[2];
    int64_t k = at_cuda_count(&a->w.v) / a->w.v.shape[0];
    bool wider = a->out.dtype == AT_F32 && a->out.shape[3] <= FEW && !a->residual.data;
    if (!g->lt || a->x.dtype == AT_F32 || a->act != AT_ACT_NONE || a->upsample2x) return false;
    if (a->x.shape[3] % 8 || a->out.shape[3] % 8 || !dense(&a->out)) return false;
    if (wider) return k >= 512 && a->w.scale == 1.0f;
    if (a->out.dtype != a->x.dtype || pixels > 256 || k < 2048) return false;
    return !a->residual.data || (a->residual.dtype == a->x.dtype && dense(&a->residual));
}

enum { WINDOWS_BYTES = 16 << 20 }; // stays in the L2 cache of a large chip

// Rows [first, first + rows) of the result (of all pictures, or of the one there is): their windows side by side in
// c->sp, then one product.
static at_status windows_of(at_cuda *g, const at_conv2d_args *a, const conv_call *c, int64_t first,
                            int64_t rows, bool *done)
{
    at_status st = AT_OK;
    at_dtype t = a->x.dtype;
    const int64_t *o = a->out.shape, *w = a->w.v.shape;
    int64_t m = o[0] * rows * o[2], k = w[1] * w[2] * w[3], skip = first * o[2] * o[3];

    AT_TRY(at_cuda_check(g,
                         at_k_conv_windows(g->stream, &c->x, c->sp, (int)w[2], (int)w[3], (int)rows,
                                           (int)o[2], a->stride,
                                           a->pad_top - (int)first * a->stride, a->pad_left),
                         "conv: windows"));
    at_cuda_product p = {
        .x = at_cuda_view(c->sp, t, 3, (int64_t[]){1, m, k}),
        .w = at_cuda_view(c->w.data, t, 2, (int64_t[]){w[0], k}),
        .out = at_cuda_view((char *)a->out.data + (size_t)skip * at_cuda_size(a->out.dtype),
                            a->out.dtype, 3, (int64_t[]){1, m, w[0]}),
        .bias = c->bias,
        .scale = a->w.scale};
    if (a->residual.data)
        p.residual = at_cuda_view(a->residual.data, t, 3, (int64_t[]){1, m, w[0]});
    AT_TRY(at_cuda_product_run(g, &p, done));
out:
    return st;
}

static at_status in_windows(at_cuda *g, const at_conv2d_args *a, bool *done)
{
    at_status st = AT_OK;
    conv_call c = {0};
    at_dtype t = a->x.dtype;
    const int64_t *o = a->out.shape;
    int64_t row =
                o[0] * o[2] * (at_cuda_count(&a->w.v) / a->w.v.shape[0]) * (int64_t)at_cuda_size(t),
            rows = o[1];

    *done = false;
    if (o[0] == 1 && row * rows > WINDOWS_BYTES)
        rows = row < WINDOWS_BYTES ? WINDOWS_BYTES / row : 1;
    AT_TRY(at_cuda_weight(g, &a->w, t, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, a->out.dtype, &c.bias, &c.own_b));
    AT_TRY(ready(g, a, t, false, &c));
    AT_TRY(at_cuda_alloc(g, (size_t)(row * rows), &c.sp));
    for (int64_t at = 0; at < o[1]; at += rows) {
        AT_TRY(windows_of(g, a, &c, at, rows < o[1] - at ? rows : o[1] - at, done));
        if (!*done) break;
    }
    if (*done) at_cuda_served("own windows");
out:
    drop(g, &c);
    return st;
}

// A 3x3 convolution over a doubled picture that the library has as a transposed one.
static bool in_phases(const at_conv2d_args *a)
{
    return a->upsample2x && a->x.dtype != AT_F32 && a->out.dtype == a->x.dtype && a->stride == 1 &&
           a->w.v.shape[2] == 3 && a->w.v.shape[3] == 3 && a->pad_top == 1 && a->pad_left == 1 &&
           a->pad_bottom == 1 && a->pad_right == 1 && a->x.shape[3] % 8 == 0 &&
           a->out.shape[3] % 8 == 0;
}

static at_status phases_f16(at_cuda *g, const at_wview *w, const at_view *stored, void *out)
{
    (void)w;
    return at_cuda_check(g, at_k_conv_phases(g->stream, stored, out, AT_F16),
                         "conv: summing filters");
}

static at_status phases_bf16(at_cuda *g, const at_wview *w, const at_view *stored, void *out)
{
    (void)w;
    return at_cuda_check(g, at_k_conv_phases(g->stream, stored, out, AT_BF16),
                         "conv: summing filters");
}

static at_status phase_weight(at_cuda *g, const at_conv2d_args *a, conv_call *c)
{
    bool half = a->x.dtype == AT_F16;
    int64_t cout = a->w.v.shape[0], cin = a->w.v.shape[1], shape[] = {cin, 4, 4, cout};
    void *data = NULL;
    at_status st = at_cuda_weight_made(
        g, &a->w, half ? AT_CUDA_FORM_PHASES_F16 : AT_CUDA_FORM_PHASES_BF16,
        (size_t)(cin * 16 * cout) * 2, half ? phases_f16 : phases_bf16, &data, &c->own_w);
    if (st == AT_OK) c->w = at_cuda_view(data, a->x.dtype, 4, shape);
    return st;
}

// The library's sum, then our kernel.
static at_status in_two(at_cuda *g, const at_conv2d_args *a, bool phases, bool *done)
{
    at_status st = AT_OK;
    conv_call c = {0};
    // The library has no compiled kernel from 16 bits to f32; where it would compile one for little work,
    // all is f32.
    bool wider = a->x.dtype != AT_F32 && a->out.dtype != a->x.dtype && a->out.shape[3] <= FEW;
    at_dtype math = wider ? AT_F32 : a->x.dtype;

    if (phases)
        AT_TRY(phase_weight(g, a, &c));
    else
        AT_TRY(at_cuda_weight(g, &a->w, math, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &c.bias, &c.own_b));
    AT_TRY(ready(g, a, math, a->upsample2x && !phases, &c));
    AT_TRY(sum_of(g, a, &c));
    at_cuda_conv_in in = call_of(a, &c, &c.sum);
    in.up = phases;
    AT_TRY(at_cuda_conv_dnn(g, &in, done));
    if (!*done) goto out;
    at_cuda_served(phases ? "cudnn conv in phases" : "cudnn conv");
    AT_TRY(finish(g, a, &c.sum, c.bias));
out:
    drop(g, &c);
    return st;
}

// To or from a handful of channels: kernels of ours.
static at_status by_few(at_cuda *g, const at_conv2d_args *a, bool *done)
{
    at_status st = AT_OK;
    conv_call c = {0};
    bool to = at_k_conv_few_fits(&a->x, &a->out),
         from = at_k_conv_from_few_fits(&a->x, &a->out) && a->out.dtype != AT_F32;

    *done = false;
    if (a->w.v.shape[2] != 3 || a->w.v.shape[3] != 3 || a->stride != 1 || a->upsample2x ||
        a->w.scale != 1.0f || a->act != AT_ACT_NONE || a->residual.data || (!to && !from))
        return AT_OK;
    AT_TRY(at_cuda_weight(g, &a->w, a->x.dtype, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &c.bias, &c.own_b));
    at_k_conv_in in = {.x = a->x,
                       .w = c.w,
                       .out = a->out,
                       .bias = c.bias,
                       .scale = 1.0f,
                       .stride = 1,
                       .top = a->pad_top,
                       .left = a->pad_left};
    at_cuda_served(to ? "own conv to few" : "own conv from few");
    AT_TRY(at_cuda_check(g, to ? at_k_conv_few(g->stream, &in) : at_k_conv_from_few(g->stream, &in),
                         "conv"));
    *done = true;
out:
    drop(g, &c);
    return st;
}

static at_status by_own(at_cuda *g, const at_conv2d_args *a)
{
    at_status st = AT_OK;
    conv_call c = {0};

    AT_TRY(at_cuda_weight(g, &a->w, a->x.dtype, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &c.bias, &c.own_b));
    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * sizeof(float), &c.so));
    c.sum = at_cuda_view(c.so, AT_F32, 4, a->out.shape);
    at_k_conv_in in = {.x = a->x,
                       .w = c.w,
                       .out = c.sum,
                       .scale = a->w.scale,
                       .stride = a->stride,
                       .top = a->pad_top,
                       .left = a->pad_left,
                       .twice = a->upsample2x};
    at_cuda_served("own conv");
    AT_TRY(at_cuda_check(g, at_k_conv(g->stream, &in), "conv"));
    AT_TRY(finish(g, a, &c.sum, c.bias));
out:
    drop(g, &c);
    return st;
}

static at_status at_once(void *stream, const at_conv2d_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_linear_args l;
    bool done = false;

    if (as_linear(a, &l)) return at_cuda_linear(stream, &l);
    AT_TRY(by_few(g, a, &done));
    if (!done && by_windows(g, a)) AT_TRY(in_windows(g, a, &done));
    if (!done && g->dnn && a->w.scale == 1.0f) {
        if (in_phases(a)) AT_TRY(in_two(g, a, true, &done));
        if (!done) AT_TRY(whole_layer(g, a, &done));
        if (!done) AT_TRY(in_two(g, a, false, &done));
    }
    if (!done) AT_TRY(by_own(g, a));
out:
    return st;
}

static at_status scratch(void *stream, size_t bytes, void **out)
{
    return at_cuda_alloc(stream, bytes, out);
}

static void drop_scratch(void *stream, void *data)
{
    at_cuda_free(stream, data);
}

static at_status copy(void *stream, const at_view *from, const at_view *to)
{
    at_cuda *g = stream;
    return at_cuda_check(g, at_k_copy(g->stream, from, to), "conv: a slab of a doubled picture");
}

// cuDNN counts elements to 2^31, with the frame that it may add; cublasLt takes more, but 3072 x 3072 pixels of 256 channels
// through a 1x1 filter took it longer than anybody waits. AT_OFF=maps makes slabs of all, for check rows.
enum { MOST = 1 << 30, LITTLE = 1 << 10 };

at_status at_cuda_conv2d(void *stream, const at_conv2d_args *a)
{
    static const at_conv_hands hands = {at_once, scratch, drop_scratch, copy};
    static int off = -1;
    at_cuda *g = stream;

    if (off < 0) off = at_has_word(getenv("AT_OFF"), "maps");
    if (at_cuda_count(&a->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (at_conv_is_large(a, off ? LITTLE : MOST))
        return at_conv_in_slabs(stream, a, off ? LITTLE : MOST / 2, &hands);
    return at_once(stream, a);
}
