// SPDX-License-Identifier: Apache-2.0
// edit_delta.c - what low-rank adapters add to a weight.
// Idea: every kind is a small product of f32 matrices, reshaped to the weight.
//   LoRA   up down; with a 3x3 core `mid`, up (mid x down)      Hu et al. 2021, arXiv:2106.09685
//   LoHa   (a1 b1) o (a2 b2), with cores t1, t2                 Hyeon-Woo et al. 2021, arXiv:2108.06098
//   LoKr   kron(w1, w2), each whole or a product                Yeh et al. 2023, arXiv:2309.14859
//   GLoRA  W a1 a2 + b1 b2, or the older order                  Chavan et al. 2023, arXiv:2306.07967
// scale is alpha / rank where the file has an alpha. Behaviour: ComfyUI 0.3.64 comfy/weight_adapter.
// Easy to get wrong: LoKr divides by a rank only if one of its factors is a product, and then by the
// second's; old GLoRA files are told from new ones by their shapes.
// Owns: a result is the caller's (at_matrix_free).
#include <string.h>

#include "base/mem.h"
#include "weight/edit_impl.h"

static int64_t dim(const at_weight *w, int i)
{
    return i < w->rank ? w->shape[i] : 1;
}

// Elements of a tensor behind its first two dimensions: a convolution's window.
static int64_t inner_of(const at_weight *w)
{
    int64_t n = 1;

    for (int i = 2; i < w->rank; i++)
        n *= w->shape[i];
    return n;
}

static at_status read_flat(const at_weight *w, const char *what, at_matrix *out)
{
    if (!w) return at_fail(AT_EINVAL, "%s is missing", what);
    if (w->rank < 2 || at_weight_elements(w) < 1)
        return at_fail(AT_EINVAL, "%s (%s) is no matrix", what, w->name);
    return at_matrix_read(w, out);
}

// The product of two tensors of the file, as matrices.
static at_status multiply(const at_weight *a, const at_weight *b, at_matrix *out)
{
    at_matrix x = {0}, y = {0};
    at_status st = AT_OK;

    *out = (at_matrix){0};
    AT_TRY(read_flat(a, "a factor", &x));
    AT_TRY(read_flat(b, "a factor", &y));
    AT_TRY(at_matrix_mul(&x, &y, out));
out:
    at_matrix_free(&x);
    at_matrix_free(&y);
    return st;
}

// core [i, j, kh, kw], b [j, r] -> [i, r * kh * kw]
static at_status core_times(const at_weight *core, const at_weight *b, at_matrix *out)
{
    at_matrix t = {0}, y = {0};
    at_status st = AT_OK;

    *out = (at_matrix){0};
    AT_TRY(read_flat(core, "the core", &t));
    AT_TRY(read_flat(b, "a factor", &y));
    AT_TRY(at_matrix_core(&t, inner_of(core), &y, out));
out:
    at_matrix_free(&t);
    at_matrix_free(&y);
    return st;
}

// core [i, j, kh, kw], b [j, r], a [i, p] -> [p, r * kh * kw]
static at_status tucker(const at_weight *core, const at_weight *b, const at_weight *a,
                        at_matrix *out)
{
    at_matrix part = {0}, x = {0}, xt = {0};
    at_status st = AT_OK;

    *out = (at_matrix){0};
    AT_TRY(core_times(core, b, &part));
    AT_TRY(read_flat(a, "a factor", &x));
    AT_TRY(at_matrix_transpose(&x, &xt));
    AT_TRY(at_matrix_mul(&xt, &part, out));
out:
    at_matrix_free(&part);
    at_matrix_free(&x);
    at_matrix_free(&xt);
    return st;
}

// Refuse a product that is not as large as the weight before memory is asked for it.
static at_status fits(const at_edit_window *w, int64_t rows, int64_t cols, int64_t inner)
{
    int64_t n;

    if (!__builtin_mul_overflow(rows, cols, &n) && !__builtin_mul_overflow(n, inner, &n) &&
        n == w->m.rows * w->m.cols)
        return AT_OK;
    return at_fail(AT_EINVAL, "it changes %lld x %lld x %lld elements, the weight has %lld",
                   (long long)rows, (long long)cols, (long long)inner,
                   (long long)(w->m.rows * w->m.cols));
}

// Columns of a tensor as a matrix.
static int64_t columns(const at_weight *t)
{
    return dim(t, 0) > 0 ? at_weight_elements(t) / dim(t, 0) : 0;
}

static double over_rank(const at_edit *e, int64_t rank)
{
    return e->has_alpha && rank > 0 ? e->alpha / (double)rank : 1.0;
}

static at_status lora(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale)
{
    const at_weight *up = e->t[0], *down = e->t[1], *mid = e->t[2];
    at_matrix x = {0}, y = {0};
    at_status st = AT_OK;

    AT_TRY(read_flat(up, "lora_up", &x));
    if (!down || down->rank < 2) AT_TRY(at_fail(AT_EINVAL, "lora_down is missing or no matrix"));
    *scale = over_rank(e, dim(down, 0));
    if (!mid)
        AT_TRY(read_flat(down, "lora_down", &y));
    else if (mid->rank < 4 || dim(mid, 0) != dim(down, 0) || inner_of(down) != 1)
        AT_TRY(at_fail(AT_EINVAL, "lora_mid does not fit lora_down"));
    else
        AT_TRY(core_times(mid, down, &y));
    AT_TRY(fits(w, x.rows, y.cols, 1));
    AT_TRY(at_matrix_mul(&x, &y, delta));
out:
    at_matrix_free(&x);
    at_matrix_free(&y);
    return st;
}

static at_status loha(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale)
{
    const at_weight *const *t = e->t;
    at_matrix m2 = {0};
    at_status st = AT_OK;

    if (!t[0] || !t[1] || !t[2] || !t[3] || (t[4] && !t[5]))
        AT_TRY(at_fail(AT_EINVAL, "one of its hada tensors is missing"));
    *scale = over_rank(e, dim(t[1], 0));
    AT_TRY(t[4] ? fits(w, dim(t[0], 1), columns(t[1]), inner_of(t[4]))
                : fits(w, dim(t[0], 0), columns(t[1]), 1));
    AT_TRY(t[4] ? tucker(t[4], t[1], t[0], delta) : multiply(t[0], t[1], delta));
    AT_TRY(t[4] ? tucker(t[5], t[3], t[2], &m2) : multiply(t[2], t[3], &m2));
    if (delta->rows != m2.rows || delta->cols != m2.cols)
        AT_TRY(at_fail(AT_EINVAL, "its two products differ in shape"));
    for (int64_t i = 0; i < m2.rows * m2.cols; i++)
        delta->v[i] *= m2.v[i];
out:
    at_matrix_free(&m2);
    return st;
}

// kron of w1 [a, b] and w2 [c, d, inner] -> [a * c, b * d * inner]
static at_status kron(const at_edit_window *w, const at_matrix *w1, const at_matrix *w2,
                      int64_t inner, at_matrix *out)
{
    int64_t rows, cols;

    if (inner < 1 || __builtin_mul_overflow(w1->rows, w2->rows, &rows) ||
        __builtin_mul_overflow(w1->cols, w2->cols, &cols))
        return at_fail(AT_EINVAL, "its factors are too large");
    at_status st = fits(w, rows, cols, 1);
    if (st == AT_OK) st = at_matrix_new(rows, cols, out);
    if (st != AT_OK) return st;
    float *y = out->v;
    for (int64_t a = 0; a < w1->rows; a++)
        for (int64_t c = 0; c < w2->rows; c++)
            for (int64_t b = 0; b < w1->cols; b++)
                for (int64_t d = 0; d < w2->cols; d++)
                    *y++ = w1->v[a * w1->cols + b] * w2->v[c * w2->cols + d];
    return AT_OK;
}

static at_status lokr(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale)
{
    const at_weight *const *t = e->t; // w1, w2, w1_a, w1_b, w2_a, w2_b, t2
    at_matrix w1 = {0}, w2 = {0};
    at_status st = AT_OK;
    int64_t inner = 1;

    *scale = 1;
    if ((!t[0] && (!t[2] || !t[3])) || (!t[1] && (!t[4] || !t[5])))
        AT_TRY(at_fail(AT_EINVAL, "one of its lokr tensors is missing"));
    AT_TRY(t[0] ? read_flat(t[0], "lokr_w1", &w1) : multiply(t[2], t[3], &w1));
    if (!t[0]) *scale = over_rank(e, dim(t[3], 0));
    if (t[1]) {
        AT_TRY(read_flat(t[1], "lokr_w2", &w2));
        inner = inner_of(t[1]);
    } else {
        *scale = over_rank(e, dim(t[5], 0));
        AT_TRY(t[6] ? tucker(t[6], t[5], t[4], &w2) : multiply(t[4], t[5], &w2));
        if (t[6]) inner = inner_of(t[6]);
    }
    AT_TRY(kron(w, &w1, &w2, inner, delta));
out:
    at_matrix_free(&w1);
    at_matrix_free(&w2);
    return st;
}

// --- GLoRA -----------------------------------------------------------------------------------------
typedef struct glora_form {
    bool old;
    int64_t rank;
} glora_form;

static glora_form glora_shapes(const at_weight *const *t, const at_edit_window *w)
{
    const at_weight *a1 = t[0], *a2 = t[1], *b1 = t[2], *b2 = t[3];
    glora_form f = {0};

    if (dim(b2, 1) == dim(b1, 0) && dim(b1, 0) == dim(a1, 0) && dim(a1, 0) == dim(a2, 1))
        f = (glora_form){true, dim(a1, 0)};
    if (dim(b2, 0) == dim(b1, 1) && dim(b1, 1) == dim(a1, 1) && dim(a1, 1) == dim(a2, 0)) {
        bool square = w->rank > 1 && w->shape[0] == w->shape[1];
        if (!(f.old && dim(a2, 0) == w->shape[0] && square)) f = (glora_form){false, dim(a2, 0)};
    }
    return f;
}

// (W x) y, over the input channels of a convolution in the new form, over all columns in the old.
static at_status through(const at_edit_window *w, bool old, const at_weight *x, const at_weight *y,
                         at_matrix *out)
{
    at_matrix a = {0}, b = {0}, part = {0};
    int64_t inner = 1;
    at_status st = AT_OK;

    for (int i = 2; i < w->rank && !old; i++)
        inner *= w->shape[i];
    AT_TRY(read_flat(x, "a factor", &a));
    AT_TRY(read_flat(y, "a factor", &b));
    AT_TRY(at_matrix_core(&w->m, inner, &a, &part));
    AT_TRY(at_matrix_core(&part, inner, &b, out));
out:
    at_matrix_free(&a);
    at_matrix_free(&b);
    at_matrix_free(&part);
    return st;
}

static at_status glora(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale)
{
    const at_weight *const *t = e->t;
    at_matrix b = {0};
    at_status st = AT_OK;

    if (!t[0] || !t[1] || !t[2] || !t[3])
        AT_TRY(at_fail(AT_EINVAL, "one of its glora tensors is missing"));
    glora_form f = glora_shapes(t, w);
    if (!f.rank) AT_TRY(at_fail(AT_EINVAL, "its glora tensors share no rank"));
    *scale = over_rank(e, f.rank);
    AT_TRY(through(w, f.old, t[f.old ? 1 : 0], t[f.old ? 0 : 1], delta));
    AT_TRY(f.old ? multiply(t[3], t[2], &b) : multiply(t[2], t[3], &b));
    if (b.rows * b.cols != delta->rows * delta->cols)
        AT_TRY(at_fail(AT_EINVAL, "its b tensors do not fit the weight"));
    at_matrix_add(delta->v, b.v, b.rows * b.cols, 1);
out:
    at_matrix_free(&b);
    return st;
}

at_status at_edit_delta(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale)
{
    *delta = (at_matrix){0};
    switch (e->kind) {
    case AT_EDIT_LORA: return lora(e, w, delta, scale);
    case AT_EDIT_LOHA: return loha(e, w, delta, scale);
    case AT_EDIT_LOKR: return lokr(e, w, delta, scale);
    case AT_EDIT_GLORA: return glora(e, w, delta, scale);
    default: return at_fail(AT_EINTERNAL, "an edit of kind %d has no factors", (int)e->kind);
    }
}
