// SPDX-License-Identifier: Apache-2.0
// edit_apply.c - one record with all its changes, in f32.
// Idea: keep * W first, then the change; a change that does not fit is warned about and left out, as
// ComfyUI does, because a LoRA with one odd layer still draws.
// DoRA (Liu et al. 2024, arXiv:2402.09353): the length of each row (or column) of W + change is set to
// what the file says. Easy to get wrong: with one length per output row, ComfyUI divides by the norm
// of the unchanged W; with one per input column, by that of the changed one.
// Owns: results are the caller's (at_matrix_free).
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "tensor/tensor.h"
#include "weight/edit_impl.h"

// --- DoRA ------------------------------------------------------------------------------------------
// Divisors: the norm of each row of `w`, or of each input column of `calc` [rows, columns, inner].
static void row_norms(const at_matrix *w, float *out)
{
    for (int64_t i = 0; i < w->rows; i++) {
        double sum = 0;
        for (int64_t c = 0; c < w->cols; c++)
            sum += (double)w->v[i * w->cols + c] * (double)w->v[i * w->cols + c];
        out[i] = (float)sqrt(sum);
    }
}

static at_status column_norms(const at_matrix *m, int64_t columns, float *out)
{
    int64_t inner = m->cols / columns;
    double *sums = at_calloc((size_t)columns, sizeof *sums);

    if (!sums) return at_fail(AT_ENOMEM, "no memory for %lld norms", (long long)columns);
    for (int64_t i = 0; i < m->rows; i++)
        for (int64_t c = 0; c < m->cols; c++)
            sums[c / inner] += (double)m->v[i * m->cols + c] * (double)m->v[i * m->cols + c];
    for (int64_t c = 0; c < columns; c++)
        out[c] = (float)sqrt(sums[c]);
    at_free(sums);
    return AT_OK;
}

// calc *= dora / (norm + eps), by rows or by columns.
static void set_lengths(at_matrix *calc, const float *dora, const float *norm, bool by_row,
                        int64_t inner)
{
    for (int64_t i = 0; i < calc->rows; i++)
        for (int64_t c = 0; c < calc->cols; c++) {
            int64_t at = by_row ? i : c / inner;
            calc->v[i * calc->cols + c] *= dora[at] / (norm[at] + FLT_EPSILON);
        }
}

// delta holds the change at `scale` 1 and is used up.
static at_status decompose(const at_edit *e, at_edit_window *w, at_matrix *delta, double scale)
{
    int64_t n = w->m.rows * w->m.cols, columns = w->rank > 1 ? w->shape[1] : 1;
    bool by_row = e->dora->rank > 0 && e->dora->shape[0] == w->m.rows;
    int64_t want = by_row ? w->m.rows : columns;
    at_matrix dora = {0}, norm = {0};
    float s = (float)e->strength;
    at_status st = AT_OK;

    if (at_weight_elements(e->dora) != want || columns < 1 || (by_row && e->dora->rank < 2))
        AT_TRY(at_fail(AT_EINVAL, "dora_scale has %lld lengths for %lld",
                       (long long)at_weight_elements(e->dora), (long long)want));
    AT_TRY(at_matrix_read(e->dora, &dora));
    AT_TRY(at_matrix_new(1, want, &norm));
    at_matrix_scale(delta->v, n, (float)scale);
    at_matrix_add(delta->v, w->m.v, n, 1); // now W + change
    if (by_row)
        row_norms(&w->m, norm.v);
    else
        AT_TRY(column_norms(delta, columns, norm.v));
    set_lengths(delta, dora.v, norm.v, by_row, w->m.cols / columns);
    if (e->strength == 1) {
        memcpy(w->m.v, delta->v, (size_t)n * sizeof *delta->v);
    } else {
        at_matrix_add(delta->v, w->m.v, n, -1);
        at_matrix_add(w->m.v, delta->v, n, s);
    }
out:
    at_matrix_free(&dora);
    at_matrix_free(&norm);
    return st;
}

// --- the kinds -------------------------------------------------------------------------------------
static at_status swap_halves(at_matrix *m)
{
    int64_t half = m->rows / 2 * m->cols;

    if (m->rows % 2) return at_fail(AT_EINVAL, "%lld rows have no halves", (long long)m->rows);
    for (int64_t i = 0; i < half; i++) {
        float t = m->v[i];
        m->v[i] = m->v[half + i];
        m->v[half + i] = t;
    }
    return AT_OK;
}

static at_status apply_adapter(const at_edit *e, at_edit_window *w)
{
    bool turns = e->kind == AT_EDIT_OFT || e->kind == AT_EDIT_BOFT;
    int64_t n = w->m.rows * w->m.cols;
    double scale = turns ? (e->has_alpha ? e->alpha : 0) : 1; // only DoRA looks at a turn's
    at_matrix delta = {0};
    at_status st = AT_OK;

    AT_TRY(turns ? at_edit_turn(e, w, &delta) : at_edit_delta(e, w, &delta, &scale));
    if (delta.rows * delta.cols != n)
        AT_TRY(at_fail(AT_EINVAL, "it changes %lld x %lld elements, the weight has %lld",
                       (long long)delta.rows, (long long)delta.cols, (long long)n));
    delta.rows = w->m.rows;
    delta.cols = w->m.cols;
    if (e->swap_halves) AT_TRY(swap_halves(&delta));
    if (e->dora)
        AT_TRY(decompose(e, w, &delta, scale));
    else
        at_matrix_add(w->m.v, delta.v, n, (float)(e->strength * (turns ? 1 : scale)));
out:
    at_matrix_free(&delta);
    return st;
}

static bool same_shape(const at_weight *t, const at_edit_window *w)
{
    if (t->rank != w->rank) return false;
    for (int i = 0; i < t->rank; i++)
        if (t->shape[i] != w->shape[i]) return false;
    return true;
}

// m less the record as its file has it: where another model went from there.
static at_status less_base(const at_edit_window *w, at_matrix *m)
{
    at_matrix base = {0};
    at_status st = AT_OK;

    if (!same_shape(w->base, w))
        AT_TRY(at_fail(AT_EINVAL, "it is a part of %s, or has grown", w->base->name));
    AT_TRY(at_matrix_read(w->base, &base));
    at_matrix_add(m->v, base.v, m->rows * m->cols, -1);
out:
    at_matrix_free(&base);
    return st;
}

// A tensor of the weight's own shape is added, or stands in its place.
static at_status apply_whole(const at_edit *e, at_edit_window *w)
{
    const at_weight *t = e->t[0];
    at_matrix m = {0};
    char text[128];
    at_status st = AT_OK;

    if (e->strength == 0 && e->kind != AT_EDIT_SET) return AT_OK;
    if (!same_shape(t, w))
        AT_TRY(at_fail(AT_EINVAL, "%s %s has another shape", t->name,
                       at_shape_text(t->dtype, t->rank, t->shape, text)));
    bool models = e->kind == AT_EDIT_MERGE || e->kind == AT_EDIT_TOWARD;
    AT_TRY(models ? at_edits_read(t, &m) : at_matrix_read(t, &m));
    if (e->kind == AT_EDIT_TOWARD) AT_TRY(less_base(w, &m));
    if (e->swap_halves) AT_TRY(swap_halves(&m));
    if (e->kind == AT_EDIT_SET)
        memcpy(w->m.v, m.v, (size_t)(m.rows * m.cols) * sizeof *m.v);
    else
        at_matrix_add(w->m.v, m.v, m.rows * m.cols, (float)e->strength);
out:
    at_matrix_free(&m);
    return st;
}

// Copy [shape] into zeros of [to], corner to corner.
static at_status grow(at_edit_window *w, at_matrix *m, const int64_t *to)
{
    at_matrix big = {0};
    int64_t rest = 1, at[AT_MAX_RANK] = {0}, n = m->rows * m->cols;
    at_status st = AT_OK;

    for (int i = 1; i < w->rank; i++)
        rest *= to[i];
    AT_TRY(at_matrix_new(to[0], rest, &big));
    memset(big.v, 0, (size_t)(big.rows * big.cols) * sizeof *big.v);
    for (int64_t i = 0; i < n; i++) {
        int64_t off = 0;
        for (int d = 0; d < w->rank; d++)
            off = off * to[d] + at[d];
        big.v[off] = m->v[i];
        for (int d = w->rank - 1; d >= 0 && ++at[d] == w->shape[d]; d--)
            at[d] = 0;
    }
    memcpy(w->shape, to, (size_t)w->rank * sizeof *to);
    at_matrix_free(m);
    *m = big;
out:
    return st;
}

// `shape` is the whole weight's, m its values; both change when the weight grows.
static at_status apply(const at_edit *e, at_edit_window *whole, at_matrix *m)
{
    bool simple = e->kind == AT_EDIT_DIFF || e->kind == AT_EDIT_SET || e->kind == AT_EDIT_MERGE ||
                  e->kind == AT_EDIT_TOWARD;
    at_edit_window w;
    at_status st = AT_OK;

    if (e->grow_rank) {
        if (e->grow_rank != whole->rank)
            AT_TRY(at_fail(AT_EINVAL, "reshape_weight has %d dimensions, the weight %d",
                           e->grow_rank, whole->rank));
        AT_TRY(grow(whole, m, e->grow));
    }
    w = *whole;
    w.m = *m;
    if (e->rows) {
        if (e->first < 0 || e->rows > w.m.rows || e->first > w.m.rows - e->rows)
            AT_TRY(at_fail(AT_EINVAL, "rows [%lld, +%lld) of %lld", (long long)e->first,
                           (long long)e->rows, (long long)w.m.rows));
        w.m.v += e->first * w.m.cols;
        w.m.rows = w.shape[0] = e->rows;
    }
    if (e->keep != 1) at_matrix_scale(w.m.v, w.m.rows * w.m.cols, (float)e->keep);
    AT_TRY(simple ? apply_whole(e, &w) : apply_adapter(e, &w));
out:
    return st;
}

at_status at_edit_list(const at_weight *base, const at_edit *const *list, size_t n, at_matrix *out)
{
    at_edit_window whole = {.rank = base->rank, .base = base};
    at_status st = AT_OK;

    memcpy(whole.shape, base->shape, sizeof whole.shape);
    AT_TRY(at_matrix_read(base, out));
    for (size_t i = 0; i < n; i++) {
        st = apply(list[i], &whole, out);
        if (st != AT_EINVAL) AT_TRY(st);
        if (st == AT_EINVAL)
            at_log(AT_WARN, "LORA-SHAPE", "%s is not changed: %s", base->name, at_error_text());
        st = AT_OK;
    }
out:
    if (st != AT_OK) at_matrix_free(out);
    return st;
}

at_status at_edits_read(const at_weight *w, at_matrix *out)
{
    const at_edit *const *list = NULL;
    const at_weight *base = w;
    size_t n = at_edits_of(w, &list, &base);

    return n ? at_edit_list(base, list, n, out) : at_matrix_read(w, out);
}
