// SPDX-License-Identifier: Apache-2.0
// linear.c - linear layers: one product of cublasLt, two for a split one, and what it cannot do behind it.
// Idea: bias, tanh-GELU and residual go into the product's epilogue; other activations and the gate are
// one kernel of ours over a product in x's 16-bit format (f32 where x or out is). What cublasLt refuses
// runs on our own plain kernel. With leave, x and the weight go into the product as fp8 rows (rows8.h).
// Easy to get wrong: the operands must share a format, so the weight takes x's; the scale of a scaled
// weight is alpha, the bias stays unscaled; a slice of the weight's rows slices the bias too.
#include "cuda/linear.h"

#include <stdlib.h>

#include "base/str.h"
#include "cuda/gated.h"
#include "cuda/rows8.h"

// A layer's operands on the device, shared by its products.
typedef struct operands {
    at_view x, w;
    const float *x_rows, *w_rows; // fp8: their scales
    void *scratch_x, *own_w, *own_b;
} operands;

// One product with its rest: rows [first, first + out's width) of the weight.
typedef struct part {
    at_view out;
    int64_t first;
    at_act act;
    at_view residual, gate;
} part;

static void drop(at_cuda *g, operands *o)
{
    at_cuda_free(g, o->scratch_x);
    at_cuda_free(g, o->own_w);
    at_cuda_free(g, o->own_b);
    *o = (operands){0};
}

// x in the arithmetic's format; *scratch is what the caller frees.
static at_status meet(at_cuda *g, const at_view *x, at_dtype dtype, at_view *out, void **scratch)
{
    *out = *x;
    if (x->dtype == dtype && x->stride[2] == 1) return AT_OK;
    at_status st = at_cuda_alloc(g, (size_t)at_cuda_count(x) * at_cuda_size(dtype), scratch);
    if (st != AT_OK) return st;
    *out = at_cuda_view(*scratch, dtype, 3, x->shape);
    return at_cuda_check(g, at_k_copy(g->stream, x, out), "linear: converting x");
}

// Ada multiplies fp8 with one scale a tensor, Hopper with scales along both outer sides from cublasLt 12.9 on.
static bool has_fp8(const at_cuda *g)
{
    return g->lt && g->capability >= 89;
}
static bool scales_rows(const at_cuda *g)
{
    static int off = -1; // asked once: fp8 products as on chips without scales a row
    if (off < 0) off = at_has_word(getenv("AT_OFF"), "rowscales");
    return g->capability == 90 && g->lt->GetVersion() >= 120900 && !off;
}

bool at_cuda_fp8_rows(void *stream, int64_t n, int64_t k)
{
    const at_cuda *g = stream;
    return has_fp8(g) && n % 16 == 0 && k % 16 == 0 && k > 0 && k <= AT_NORM8_WIDEST;
}

// The kernels of rows8.h can make and widen such rows of the weight.
static bool keeps_rows8(const at_linear_args *a)
{
    int64_t k = a->w.v.shape[1];
    bool readable = a->w.v.dtype == AT_F32 || a->w.v.dtype == AT_BF16 || a->w.v.dtype == AT_F16 ||
                    a->w.v.dtype == AT_F8E4M3 || a->w.v.dtype == AT_F8E5M2;
    return readable && k % 16 == 0 && k > 0 && k <= AT_ROWS8_WIDEST;
}

static bool fits_fp8(const at_cuda *g, const at_linear_args *a)
{
    int64_t n = a->w.v.shape[0];
    bool rows = a->x_scale.data || (a->x.dtype == a->out.dtype && a->x.stride[2] == 1);
    return a->fp8 && has_fp8(g) && keeps_rows8(a) && n % 16 == 0 && a->split % 16 == 0 &&
           a->out.dtype != AT_F32 && rows;
}

// Operands as rows of fp8.
static at_status load_fp8(at_cuda *g, const at_linear_args *a, operands *o)
{
    at_status st = AT_OK;
    int64_t rows = a->x.shape[0] * a->x.shape[1], k = a->x.shape[2];
    size_t bytes = (size_t)(rows * k);

    AT_TRY(at_cuda_weight_rows8(g, &a->w, &o->w, &o->w_rows, &o->own_w));
    if (a->x_scale.data) {
        o->x = a->x;
        o->x_rows = a->x_scale.data;
        return AT_OK;
    }
    AT_TRY(at_cuda_alloc(g, bytes + (size_t)rows * sizeof(float), &o->scratch_x));
    float *scales = (void *)((char *)o->scratch_x + bytes);
    AT_TRY(at_cuda_check(g, at_k_rows8(g->stream, &a->x, o->scratch_x, scales), "fp8 rows"));
    o->x = at_cuda_view(o->scratch_x, AT_F8E4M3, 3, a->x.shape);
    o->x_rows = scales;
out:
    return st;
}

// fp8 rows that no fp8 product takes: floats of the result's format again.
static at_status widen(at_cuda *g, const at_linear_args *a, at_linear_args *out, void **scratch)
{
    at_status st = AT_OK;
    at_dtype t = a->out.dtype;

    *out = *a;
    if (!a->x_scale.data) return AT_OK;
    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->x) * at_cuda_size(t), scratch));
    out->x = at_cuda_view(*scratch, t, 3, a->x.shape);
    out->x_scale.data = NULL;
    AT_TRY(at_cuda_check(g, at_k_rows8_floats(g->stream, &a->x, a->x_scale.data, &out->x),
                         "floats of fp8 rows"));
out:
    return st;
}

// A weight that is kept in 8 bits, in x's format for this call.
static at_status widen_weight(at_cuda *g, const at_linear_args *a, operands *o)
{
    at_status st = AT_OK;
    at_view kept;
    const float *scales = NULL;
    void *own = NULL;

    AT_TRY(at_cuda_weight_rows8(g, &a->w, &kept, &scales, &own));
    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&kept) * at_cuda_size(a->x.dtype), &o->own_w));
    o->w = at_cuda_view(o->own_w, a->x.dtype, 2, kept.shape);
    AT_TRY(
        at_cuda_check(g, at_k_rows8_floats(g->stream, &kept, scales, &o->w), "floats of fp8 rows"));
out:
    at_cuda_free(g, own);
    return st;
}

// Operands in x's format.
static at_status load_floats(at_cuda *g, const at_linear_args *a, operands *o)
{
    at_status st = AT_OK;
    if (!g->lt || a->w.v.shape[1] == 0) return AT_OK; // run_plain takes them as they are
    AT_TRY(meet(g, &a->x, a->x.dtype, &o->x, &o->scratch_x));
    if (a->w8 && keeps_rows8(a))
        AT_TRY(widen_weight(g, a, o));
    else
        AT_TRY(at_cuda_weight(g, &a->w, a->x.dtype, false, &o->w, &o->own_w));
out:
    return st;
}

static at_view rows_of(const at_view *w, int64_t first, int64_t rows)
{
    at_view v = *w;
    v.data = (char *)v.data + first * v.stride[0] * (int64_t)at_cuda_size(v.dtype);
    v.shape[0] = rows;
    return v;
}

// The output without activation, gate and residual by our own kernel, for what cublasLt refuses.
static at_status run_plain(at_cuda *g, const at_linear_args *a, int64_t first, const at_view *out)
{
    at_status st = AT_OK;
    at_view dw;
    const void *db = NULL;
    void *own_w = NULL, *own_b = NULL;
    at_cuda_served("own linear");
    AT_TRY(at_cuda_weight(g, &a->w, AT_DTYPE_COUNT, false, &dw, &own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &db, &own_b));
    dw = rows_of(&dw, first, out->shape[2]);
    AT_TRY(at_cuda_check(
        g,
        at_k_linear(g->stream, &a->x, &dw, a->w.scale, db ? (const float *)db + first : NULL, out),
        "linear"));
out:
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    return st;
}

// What the epilogue cannot do is one more kernel.
static bool needs_more(const part *p, at_dtype math)
{
    return p->gate.data || (p->act != AT_ACT_NONE && p->act != AT_ACT_GELU_TANH) ||
           (p->act != AT_ACT_NONE && p->residual.data) ||
           (math == AT_F32 && p->out.dtype != AT_F32) ||
           (math != AT_F32 && p->out.dtype != AT_F32 && p->out.dtype != math) ||
           (p->residual.data && p->residual.dtype != p->out.dtype);
}

// A sum that another kernel goes on with: f32 unless everything around it has one 16-bit format.
static at_status sum_of(at_cuda *g, const part *p, at_dtype x, at_view *sum, void **scratch)
{
    at_dtype t = p->out.dtype == x ? x : AT_F32;
    at_status st = at_cuda_alloc(g, (size_t)at_cuda_count(&p->out) * at_cuda_size(t), scratch);
    if (st == AT_OK) *sum = at_cuda_view(*scratch, t, 3, p->out.shape);
    return st;
}

// An fp8 product of bytes, sized and finished by our own kernel.
static at_status run_bytes(at_cuda *g, const at_linear_args *a, const operands *o, const part *p,
                           bool *refused)
{
    at_status st = AT_OK;
    void *scratch = NULL, *own = NULL;
    const void *bias = NULL;
    bool done = false;
    at_dtype t = p->out.dtype == AT_BF16 ? AT_BF16 : AT_F32; // f16 would overflow
    at_cuda_product c = {.x = o->x, .scale = 1};

    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&p->out) * at_cuda_size(t), &scratch));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &bias, &own));
    c.out = at_cuda_view(scratch, t, 3, p->out.shape);
    c.w = rows_of(&o->w, p->first, p->out.shape[2]);
    AT_TRY(at_cuda_product_run(g, &c, &done));
    *refused = !done;
    if (!done) goto out;
    at_k_scaled_in in = {.y = c.out,
                         .out = p->out,
                         .gate = p->gate,
                         .residual = p->residual,
                         .x_rows = o->x_rows,
                         .w_rows = o->w_rows + p->first,
                         .bias = bias ? (const float *)bias + p->first : NULL,
                         .bias_dtype = AT_F32,
                         .act = (int)p->act,
                         .scale = a->w.scale};
    at_cuda_served("own scales");
    AT_TRY(at_cuda_check(g, at_k_linear_scaled(g->stream, &in), "linear"));
out:
    at_cuda_free(g, scratch);
    at_cuda_free(g, own);
    return st;
}

// *refused: nothing was done, the library has no such fp8 product.
static at_status run_part(at_cuda *g, const at_linear_args *a, operands *o, const part *p,
                          bool *refused)
{
    at_status st = AT_OK;
    void *scratch = NULL;
    bool library = g->lt && a->w.v.shape[1] > 0, done = false;
    at_dtype math =
        o->x_rows ? p->out.dtype : a->x.dtype; // sums of fp8 rows are floats of the result's format
    bool more =
        library ? needs_more(p, math) : p->act != AT_ACT_NONE || p->gate.data || p->residual.data;
    at_cuda_product c = {.x = o->x, .scale = a->w.scale, .out = p->out};

    *refused = false;
    if (at_cuda_count(&p->out) == 0) return AT_OK;
    if (o->x_rows && !scales_rows(g)) return run_bytes(g, a, o, p, refused);
    if (more) AT_TRY(sum_of(g, p, math, &c.out, &scratch));
    if (library) {
        at_cuda_free(g, o->own_b);
        o->own_b = NULL;
        AT_TRY(at_cuda_vector(g, &a->bias, c.out.dtype, &c.bias, &o->own_b));
        if (c.bias) c.bias = (const char *)c.bias + (size_t)p->first * at_cuda_size(c.out.dtype);
        c.w = rows_of(&o->w, p->first, p->out.shape[2]);
        c.x_rows = o->x_rows;
        c.w_rows = o->w_rows ? o->w_rows + p->first : NULL;
        c.gelu = !more && p->act == AT_ACT_GELU_TANH;
        if (!more) c.residual = p->residual;
        AT_TRY(at_cuda_product_run(g, &c, &done));
    }
    *refused = !done && o->x_rows;
    if (*refused) goto out;
    if (!done) {
        if (!more && (p->act != AT_ACT_NONE || p->residual.data)) {
            more = true;
            AT_TRY(sum_of(g, p, math, &c.out, &scratch));
        }
        AT_TRY(run_plain(g, a, p->first, &c.out));
    }
    if (more) at_cuda_served("own epilogue");
    if (more)
        AT_TRY(at_cuda_check(
            g, at_k_gate_add(g->stream, &p->residual, &c.out, &p->gate, &p->out, (int)p->act),
            "linear"));
out:
    at_cuda_free(g, scratch);
    return st;
}

static at_status run_parts(at_cuda *g, const at_linear_args *a, operands *o, bool *refused)
{
    const part whole = {.out = a->out, .act = a->act, .residual = a->residual, .gate = a->gate};
    const part first = {.out = a->out};
    const part rest = {.out = a->out2, .first = a->split, .act = a->act};

    if (!a->split) return run_part(g, a, o, &whole, refused);
    at_status st = AT_OK;
    if (a->part != 2) st = run_part(g, a, o, &first, refused);
    if (a->part == 1) return st;
    return st == AT_OK && (a->part == 2 || !*refused) ? run_part(g, a, o, &rest, refused) : st;
}

// Layers side by side, one after the other into their columns.
static at_status one_by_one(at_cuda *g, const at_linear_args *a)
{
    at_status st = AT_OK;
    int64_t at = 0;
    for (int i = -1; i < a->n_more && st == AT_OK; i++) {
        at_linear_args one = *a;
        one.w = i < 0 ? a->w : a->more[i];
        one.n_more = 0;
        one.out.shape[2] = one.w.v.shape[0];
        one.out.data = (char *)a->out.data + (size_t)at * at_cuda_size(a->out.dtype);
        at += one.out.shape[2];
        st = at_cuda_linear(g, &one);
    }
    return st;
}

// Layers side by side in one product, where their weights can be one.
static at_status side_by_side(at_cuda *g, const at_linear_args *a)
{
    at_status st = AT_OK;
    void *scratch = NULL;
    bool fits = false, done = false;
    at_cuda_product c = {.scale = a->w.scale, .out = a->out};

    if (!g->lt || a->fp8 || a->w8 || a->x_scale.data || a->x.dtype != a->out.dtype)
        return one_by_one(g, a);
    AT_TRY(at_cuda_weight_joined(g, &a->w, a->more, a->n_more, a->x.dtype, &c.w, &fits));
    if (fits) {
        AT_TRY(meet(g, &a->x, a->x.dtype, &c.x, &scratch));
        AT_TRY(at_cuda_product_run(g, &c, &done));
    }
    if (!done) AT_TRY(one_by_one(g, a));
out:
    at_cuda_free(g, scratch);
    return st;
}

at_status at_cuda_linear(void *stream, const at_linear_args *given)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_linear_args a;
    operands o = {0};
    void *wide = NULL;
    bool refused = true;

    if (at_cuda_count(&given->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (given->n_more) return side_by_side(g, given);
    if (fits_fp8(g, given)) {
        AT_TRY(load_fp8(g, given, &o));
        AT_TRY(run_parts(g, given, &o, &refused));
    }
    if (refused) {
        drop(g, &o);
        AT_TRY(widen(g, given, &a, &wide));
        AT_TRY(load_floats(g, &a, &o));
        AT_TRY(run_parts(g, &a, &o, &refused));
    }
out:
    drop(g, &o);
    at_cuda_free(g, wide);
    return st;
}

at_status at_cuda_geglu(void *stream, const at_geglu_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    void *wide = NULL;
    bool apart = a->gate.v.data != NULL;
    int64_t shape[] = {a->out.shape[0], a->out.shape[1], a->w.v.shape[0] * (apart ? 2 : 1)};
    at_dtype t = a->x_scale.data || a->x.dtype == a->out.dtype ? a->out.dtype : AT_F32;

    bool done = false;
    if (at_cuda_count(&a->out) == 0) return AT_OK;
    AT_TRY(at_cuda_gated(g, a, &done));
    if (done) return AT_OK;
    AT_TRY(at_cuda_alloc(g, (size_t)(shape[0] * shape[1] * shape[2]) * at_cuda_size(t), &wide));
    at_linear_args l = {.x = a->x,
                        .out = at_cuda_view(wide, t, 3, shape),
                        .w = a->w,
                        .bias = a->bias,
                        .x_scale = a->x_scale,
                        .more = apart ? &a->gate : NULL,
                        .n_more = apart,
                        .w8 = a->w8,
                        .fp8 = a->fp8};
    AT_TRY(at_cuda_linear(stream, &l));
    at_cuda_served("own geglu");
    AT_TRY(at_cuda_check(g, at_k_geglu(g->stream, &l.out, &a->out, (int)a->act), "geglu"));
out:
    at_cuda_free(g, wide);
    return st;
}
