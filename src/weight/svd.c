// SPDX-License-Identifier: Apache-2.0
// svd.c - see svd.h.
// Idea: a few more directions than asked for are followed through A and its transpose until they
// catch no more of it; what they see of A is small enough for Jacobi's rotations. U times the
// singular values is then A times V, so that nothing but V is ever rotated.
// Easy to get wrong: both half steps are made orthonormal, or f32 forgets every direction whose
// singular value is below a thousandth of the largest.
#include "weight/svd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"

enum {
    SPARE = 16,  // directions beyond the rank, and a quarter of it
    ROUNDS = 16, // through A and back, at most
    SWEEPS = 40, // of Jacobi, at most; ten are usual
    GRAIN = 1 << 14
};
#define SETTLED        1e-7  // of what is caught, more in one round
#define ORTHOGONAL     1e-11 // cosine between rows
#define CLAMP_QUANTILE 0.99f // ComfyUI's

static int64_t grain_of(int64_t length)
{
    return 1 + GRAIN / (1 + length);
}

// --- orthonormal rows ----------------------------------------------------------------------------
typedef struct project_job {
    float *rows;
    int64_t n, pivot;
} project_job;

static double dot(const float *x, const float *y, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

// Rows behind the pivot lose their part along it.
static void project_range(void *ctx, int64_t begin, int64_t end)
{
    const project_job *j = ctx;
    const float *p = j->rows + j->pivot * j->n;

    for (int64_t r = begin; r < end; r++) {
        float *y = j->rows + (j->pivot + 1 + r) * j->n;
        float s = (float)dot(p, y, j->n);
        for (int64_t i = 0; i < j->n; i++)
            y[i] -= s * p[i];
    }
}

// Gram and Schmidt, twice: the second pass mends what rounding left of the first. Zeros stay zeros.
static void orthonormal_rows(at_matrix *m)
{
    for (int pass = 0; pass < 2; pass++)
        for (int64_t r = 0; r < m->rows; r++) {
            float *p = m->v + r * m->cols;
            double length = sqrt(dot(p, p, m->cols));
            for (int64_t i = 0; i < m->cols && length > 0; i++)
                p[i] = (float)((double)p[i] / length);
            at_parallel_for(m->rows - r - 1, grain_of(m->cols), project_range,
                            &(project_job){m->v, m->cols, r});
        }
}

static at_status orthonormal_columns(at_matrix *m)
{
    at_matrix turned = {0};
    at_status st = AT_OK;

    AT_TRY(at_matrix_transpose(m, &turned));
    at_matrix_free(m);
    orthonormal_rows(&turned);
    AT_TRY(at_matrix_transpose(&turned, m));
out:
    at_matrix_free(&turned);
    return st;
}

// --- the range finder ----------------------------------------------------------------------------
static at_status random_columns(int64_t rows, int64_t cols, at_matrix *out)
{
    at_mt19937 r;
    at_status st = at_matrix_new(rows, cols, out);

    if (st != AT_OK) return st;
    at_mt_seed(&r, 0);
    at_mt_fill_f32(&r, out->v, rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        out->v[i] -= 0.5f;
    return AT_OK;
}

// `m` becomes a times it.
static at_status multiply_by(const at_matrix *a, at_matrix *m)
{
    at_matrix product = {0};
    at_status st = at_matrix_mul(a, m, &product);

    if (st != AT_OK) return st;
    at_matrix_free(m);
    *m = product;
    return AT_OK;
}

// seen [n, width]: the transpose of what `width` orthonormal directions see of a.
static at_status find_range(const at_matrix *a, int64_t width, at_matrix *seen)
{
    at_matrix turned = {0};
    double before = 0;
    at_status st = AT_OK;

    AT_TRY(at_matrix_transpose(a, &turned));
    AT_TRY(random_columns(a->cols, width, seen));
    for (int round = 0; round < ROUNDS; round++) {
        if (round) AT_TRY(orthonormal_columns(seen));
        AT_TRY(multiply_by(a, seen));
        AT_TRY(orthonormal_columns(seen));
        AT_TRY(multiply_by(&turned, seen));
        double caught = dot(seen->v, seen->v, seen->rows * seen->cols);
        if (round && caught - before <= SETTLED * caught) break;
        before = caught;
    }
out:
    at_matrix_free(&turned);
    return st;
}

// --- Jacobi: rows turned in pairs until all are orthogonal ---------------------------------------
typedef struct jacobi {
    double *rows;
    int64_t count, n, round;
    unsigned char *turned; // one for each pair of a round
} jacobi;

static bool turn_pair(double *p, double *q, int64_t n)
{
    double pp = 0, qq = 0, pq = 0;

    for (int64_t i = 0; i < n; i++) {
        pp += p[i] * p[i];
        qq += q[i] * q[i];
        pq += p[i] * q[i];
    }
    if (!(fabs(pq) > ORTHOGONAL * sqrt(pp) * sqrt(qq))) return false;
    double z = (qq - pp) / (2 * pq);
    double t = (z < 0 ? -1 : 1) / (fabs(z) + sqrt(1 + z * z));
    double c = 1 / sqrt(1 + t * t), s = c * t;
    for (int64_t i = 0; i < n; i++) {
        double x = p[i];
        p[i] = c * x - s * q[i];
        q[i] = s * x + c * q[i];
    }
    return true;
}

// Pair k of a round of a tournament: everybody meets everybody once in seats - 1 rounds.
static void turn_range(void *ctx, int64_t begin, int64_t end)
{
    const jacobi *j = ctx;
    int64_t seats = j->count + j->count % 2, moving = seats - 1;

    for (int64_t k = begin; k < end; k++) {
        int64_t a = k ? (j->round + k) % moving : moving;
        int64_t b = k ? (j->round + moving - k) % moving : j->round;
        if (a < j->count && b < j->count)
            j->turned[k] |= turn_pair(j->rows + a * j->n, j->rows + b * j->n, j->n);
    }
}

static at_status turn_all(double *rows, int64_t count, int64_t n)
{
    int64_t pairs = (count + 1) / 2;
    jacobi j = {.rows = rows, .count = count, .n = n, .turned = at_alloc((size_t)pairs)};
    bool again = count > 1;

    if (!j.turned) return at_fail(AT_ENOMEM, "no memory for %lld pairs", (long long)pairs);
    for (int sweep = 0; sweep < SWEEPS && again; sweep++) {
        memset(j.turned, 0, (size_t)pairs);
        for (j.round = 0; j.round < 2 * pairs - 1; j.round++)
            at_parallel_for(pairs, grain_of(n), turn_range, &j);
        again = memchr(j.turned, 1, (size_t)pairs) != NULL;
    }
    at_free(j.turned);
    return AT_OK;
}

// --- together ------------------------------------------------------------------------------------
typedef struct place {
    double length;
    int64_t row;
} place;

static int longest_first(const void *a, const void *b)
{
    const place *x = a, *y = b;

    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return (x->row > y->row) - (x->row < y->row);
}

// Directions for the singular values that are 0: any that are orthogonal to the others, for a clamp
// counts them. Nothing but zeros stays as it is.
static void complete(at_matrix *m, int64_t found)
{
    at_mt19937 r;

    if (found == 0 || found == m->rows) return;
    at_mt_seed(&r, 1);
    at_mt_fill_f32(&r, m->v + found * m->cols, (m->rows - found) * m->cols);
    for (int64_t i = found * m->cols; i < m->rows * m->cols; i++)
        m->v[i] -= 0.5f;
    orthonormal_rows(m);
}

// The `rank` longest of orthogonal rows, each of length 1.
static at_status longest_rows(const double *rows, int64_t count, int64_t n, int64_t rank,
                              at_matrix *out)
{
    place *at = at_calloc((size_t)count, sizeof *at);
    int64_t found = 0;
    at_status st = AT_OK;

    if (!at) AT_TRY(at_fail(AT_ENOMEM, "no memory for %lld rows", (long long)count));
    for (int64_t r = 0; r < count; r++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += rows[r * n + i] * rows[r * n + i];
        at[r] = (place){sqrt(sum), r};
    }
    qsort(at, (size_t)count, sizeof *at, longest_first);
    AT_TRY(at_matrix_new(rank, n, out));
    memset(out->v, 0, (size_t)(rank * n) * sizeof *out->v);
    for (; found < rank && at[found].length > 0; found++)
        for (int64_t i = 0; i < n; i++)
            out->v[found * n + i] = (float)(rows[at[found].row * n + i] / at[found].length);
    complete(out, found);
out:
    at_free(at);
    return st;
}

// seen [n, count] -> the `rank` first right singular vectors of what it was seen of.
static at_status right_vectors(const at_matrix *seen, int64_t rank, at_matrix *vt)
{
    int64_t n = seen->rows, count = seen->cols;
    size_t elements, bytes;
    double *rows = NULL;
    at_status st = AT_OK;

    if (at_mul_size((size_t)n, (size_t)count, &elements) &&
        at_mul_size(elements, sizeof *rows, &bytes))
        rows = at_alloc(bytes);
    if (!rows)
        AT_TRY(at_fail(AT_ENOMEM, "no memory to decompose %lld x %lld numbers", (long long)count,
                       (long long)n));
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < n; i++)
            rows[r * n + i] = (double)seen->v[i * count + r];
    AT_TRY(turn_all(rows, count, n));
    AT_TRY(longest_rows(rows, count, n, rank, vt));
out:
    at_free(rows);
    return st;
}

at_status at_matrix_svd(const at_matrix *a, int64_t rank, at_matrix *us, at_matrix *vt)
{
    int64_t small = a->rows < a->cols ? a->rows : a->cols;
    at_matrix seen = {0}, v = {0};
    at_status st = AT_OK;

    *us = *vt = (at_matrix){0};
    if (rank < 1 || rank > small)
        return at_fail(AT_EINVAL, "rank %lld of a matrix of %lld x %lld", (long long)rank,
                       (long long)a->rows, (long long)a->cols);
    int64_t width = rank + rank / 4 + SPARE;
    if (width > small / 2 && a->rows <= a->cols) // all rows: nothing to look for
        AT_TRY(at_matrix_transpose(a, &seen));
    else
        AT_TRY(find_range(a, width < small ? width : small, &seen));
    AT_TRY(right_vectors(&seen, rank, vt));
    AT_TRY(at_matrix_transpose(vt, &v));
    AT_TRY(at_matrix_mul(a, &v, us));
out:
    at_matrix_free(&seen);
    at_matrix_free(&v);
    if (st != AT_OK) at_matrix_free(vt);
    return st;
}

// --- the clamp -----------------------------------------------------------------------------------
static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void clamp(at_matrix *m, float low, float high)
{
    for (int64_t i = 0; i < m->rows * m->cols; i++)
        m->v[i] = fminf(fmaxf(m->v[i], low), high);
}

at_status at_lora_clamp(at_matrix *up, at_matrix *down)
{
    int64_t nu = up->rows * up->cols, nd = down->rows * down->cols, n = nu + nd;
    at_matrix all = {0};
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    AT_TRY(at_matrix_new(1, n, &all));
    if (nu) memcpy(all.v, up->v, (size_t)nu * sizeof *all.v);
    if (nd) memcpy(all.v + nu, down->v, (size_t)nd * sizeof *all.v);
    qsort(all.v, (size_t)n, sizeof *all.v, by_value);
    float at = CLAMP_QUANTILE * (float)(n - 1);
    int64_t below = (int64_t)floorf(at) < n - 1 ? (int64_t)floorf(at) : n - 1;
    int64_t above = below + 1 < n ? below + 1 : below;
    float high = all.v[below] + (at - (float)below) * (all.v[above] - all.v[below]);
    clamp(up, -high, high);
    clamp(down, -high, high);
out:
    at_matrix_free(&all);
    return st;
}
