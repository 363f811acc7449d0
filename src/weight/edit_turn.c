// SPDX-License-Identifier: Apache-2.0
// edit_turn.c - adapters that rotate a weight's rows: OFT (Qiu et al. 2023, arXiv:2306.07280) and BOFT
// (Liu et al. 2023, arXiv:2311.06243).
// Idea: a block Q = B - B^T becomes the rotation R = (I + Q)(I - Q)^-1 (Cayley); what is added is
// R W - W. Behaviour: ComfyUI 0.3.64 comfy/weight_adapter/oft.py and boft.py.
// Easy to get wrong: alpha is not a scale but the largest norm that Q may have; the strength enters R
// and then multiplies the difference once more; OFT turns with R^T, BOFT with R; BOFT without an
// alpha does nothing in ComfyUI, and so it does nothing here.
// Owns: a result is the caller's (at_matrix_free).
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "weight/edit_impl.h"

enum { MAX_BLOCK = 4096 }; // rows of one block

// n rotations of b x b from as many blocks, in place.
static at_status rotations(at_matrix *blocks, int64_t n, int64_t b, double limit)
{
    size_t size = (size_t)(b * b);
    double *q = at_alloc(2 * size * sizeof *q), *inv = q ? q + size : NULL, norm = 0, shrink = 1;
    at_status st = AT_OK;

    if (!q) return at_fail(AT_ENOMEM, "no memory for blocks of %lld rows", (long long)b);
    for (int64_t k = 0; k < n; k++) { // Q of all blocks, and their common norm
        float *v = blocks->v + k * b * b;
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j <= i; j++) {
                float d = v[i * b + j] - v[j * b + i];
                v[i * b + j] = d;
                v[j * b + i] = -d;
                norm += 2.0 * (double)d * (double)d;
            }
    }
    norm = sqrt(norm) + 1e-8;
    if (limit > 0 && norm > limit) shrink = limit / norm;
    for (int64_t k = 0; k < n; k++) {
        float *v = blocks->v + k * b * b;
        for (int64_t i = 0; i < b * b; i++) {
            q[i] = (double)v[i] * shrink;
            inv[i] = (i % (b + 1) == 0 ? 1.0 : 0.0) - q[i];
        }
        AT_TRY(at_matrix_invert(inv, b));
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j < b; j++) {
                double sum = inv[i * b + j];
                for (int64_t c = 0; c < b; c++)
                    sum += q[i * b + c] * inv[c * b + j];
                v[i * b + j] = (float)sum;
            }
    }
out:
    at_free(q);
    return st;
}

// Blocks [.., n, b, b] of the file as rotations.
static at_status read_rotations(const at_edit *e, int rank, at_matrix *r, int64_t *n, int64_t *b)
{
    const at_weight *w = e->t[0];
    at_status st = AT_OK;

    if (!w || w->rank != rank || w->shape[rank - 1] != w->shape[rank - 2])
        AT_TRY(at_fail(AT_EINVAL, "oft_blocks are no square blocks"));
    *b = w->shape[rank - 1];
    if (*b < 1 || *b > MAX_BLOCK || at_weight_elements(w) < 1)
        AT_TRY(at_fail(AT_EINVAL, "oft_blocks of %lld rows", (long long)*b));
    *n = at_weight_elements(w) / (*b * *b);
    AT_TRY(at_matrix_read(w, r));
    AT_TRY(rotations(r, *n, *b, e->has_alpha ? e->alpha : 0));
out:
    return st;
}

static at_status oft(const at_edit *e, const at_edit_window *w, at_matrix *delta)
{
    at_matrix r = {0}, part = {0}, turned = {0};
    int64_t n = 0, b = 0, cols = w->m.cols;
    float s = (float)e->strength;
    at_status st = AT_OK;

    AT_TRY(read_rotations(e, 3, &r, &n, &b));
    if (n * b != w->m.rows)
        AT_TRY(at_fail(AT_EINVAL, "%lld blocks of %lld rows on %lld rows", (long long)n,
                       (long long)b, (long long)w->m.rows));
    AT_TRY(at_matrix_new(w->m.rows, cols, delta));
    for (int64_t k = 0; k < n; k++) { // (s R - s I)^T W
        at_matrix rk = {r.v + k * b * b, b, b}, wk = {w->m.v + k * b * cols, b, cols};
        for (int64_t i = 0; i < b * b; i++)
            rk.v[i] = rk.v[i] * s - (i % (b + 1) == 0 ? s : 0);
        AT_TRY(at_matrix_transpose(&rk, &turned));
        AT_TRY(at_matrix_mul(&turned, &wk, &part));
        memcpy(delta->v + k * b * cols, part.v, (size_t)(b * cols) * sizeof *part.v);
        at_matrix_free(&part);
        at_matrix_free(&turned);
    }
out:
    at_matrix_free(&r);
    at_matrix_free(&part);
    at_matrix_free(&turned);
    return st;
}

// The butterfly: rows in groups of 2k trade (g, k) for (k, g), or back.
static void shuffle(const float *from, float *to, int64_t rows, int64_t cols, int64_t k, bool back)
{
    for (int64_t row = 0; row < rows; row++) {
        int64_t group = row / (2 * k), in = row % (2 * k), other = in % k * 2 + in / k;
        int64_t mixed = group * 2 * k + other;
        memcpy(to + (back ? row : mixed) * cols, from + (back ? mixed : row) * cols,
               (size_t)cols * sizeof *to);
    }
}

// One stage: blocks of b rows each turned by its own R.
static at_status stage(const at_matrix *r, float *rows, float *scratch, int64_t n, int64_t b,
                       int64_t cols, int64_t k)
{
    at_matrix part = {0};
    at_status st = AT_OK;

    shuffle(rows, scratch, n * b, cols, k, false);
    for (int64_t i = 0; i < n; i++) {
        at_matrix ri = {r->v + i * b * b, b, b}, x = {scratch + i * b * cols, b, cols};
        AT_TRY(at_matrix_mul(&ri, &x, &part));
        memcpy(x.v, part.v, (size_t)(b * cols) * sizeof *part.v);
        at_matrix_free(&part);
    }
    shuffle(scratch, rows, n * b, cols, k, true);
out:
    return st;
}

static at_status rescale(const at_weight *by, at_matrix *m)
{
    at_matrix f = {0};
    at_status st = at_matrix_read(by, &f);

    if (st == AT_OK && f.rows * f.cols != m->rows && f.rows * f.cols != 1)
        st = at_fail(AT_EINVAL, "rescale has %lld numbers for %lld rows",
                     (long long)(f.rows * f.cols), (long long)m->rows);
    for (int64_t i = 0; st == AT_OK && i < m->rows; i++)
        for (int64_t c = 0; c < m->cols; c++)
            m->v[i * m->cols + c] *= f.v[f.rows * f.cols == 1 ? 0 : i];
    at_matrix_free(&f);
    return st;
}

static at_status boft(const at_edit *e, const at_edit_window *w, at_matrix *delta)
{
    at_matrix r = {0}, scratch = {0};
    int64_t all = 0, b = 0, cols = w->m.cols, n, stages, k;
    float s = (float)e->strength;
    at_status st = AT_OK;

    if (!e->has_alpha) AT_TRY(at_fail(AT_EINVAL, "BOFT without an alpha"));
    AT_TRY(read_rotations(e, 4, &r, &all, &b));
    stages = e->t[0]->shape[0];
    n = e->t[0]->shape[1];
    if (n * b != w->m.rows || b % 2 || stages > 32)
        AT_TRY(at_fail(AT_EINVAL, "%lld blocks of %lld rows on %lld rows", (long long)n,
                       (long long)b, (long long)w->m.rows));
    for (int64_t i = 0; i < all * b * b && e->strength != 1; i++)
        r.v[i] = r.v[i] * s + (i % (b * b) % (b + 1) == 0 ? 1 - s : 0);
    AT_TRY(at_matrix_new(w->m.rows, cols, delta));
    AT_TRY(at_matrix_new(w->m.rows, cols, &scratch));
    memcpy(delta->v, w->m.v, (size_t)(w->m.rows * cols) * sizeof *delta->v);
    k = b / 2;
    for (int64_t i = 0; i < stages; i++, k *= 2) {
        at_matrix ri = {r.v + i * n * b * b, n * b, b};
        if (w->m.rows % (2 * k))
            AT_TRY(at_fail(AT_EINVAL, "stage %lld of BOFT does not divide %lld rows", (long long)i,
                           (long long)w->m.rows));
        AT_TRY(stage(&ri, delta->v, scratch.v, n, b, cols, k));
    }
    if (e->t[1]) AT_TRY(rescale(e->t[1], delta));
    at_matrix_add(delta->v, w->m.v, w->m.rows * cols, -1);
out:
    at_matrix_free(&r);
    at_matrix_free(&scratch);
    return st;
}

at_status at_edit_turn(const at_edit *e, const at_edit_window *w, at_matrix *delta)
{
    *delta = (at_matrix){0};
    return e->kind == AT_EDIT_OFT ? oft(e, w, delta) : boft(e, w, delta);
}
