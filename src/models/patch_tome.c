// SPDX-License-Identifier: Apache-2.0
// patch_tome.c - token merging on the first level of a UNet.
// Idea: in every 2 x 2 square one token, drawn at random, stays; of all others the `r` that are
// most like a staying one join it. Queries of a group become their mean, and its answer is given
// to all. Where each token went is one number per token, so merging and its reverse are two small
// loops.
// Easy to get wrong: squares are drawn row by row from torch's default generator, one word each;
// the likeness is that of the tokens that queries are projected from; sides of odd length leave
// tokens outside all squares, which may only join.
// Source: the paper, and the behaviour of ComfyUI 0.3.64 comfy_extras/nodes_tomesd.py.
// Owns: an at_tome's row table, until the next attention or at_tome_clear.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "models/models.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"

// One matching under way. Tokens are [n, c] of one picture.
typedef struct match {
    int64_t n, c, stay, join; // stay + join = n
    int32_t *staying, *joining;
    float *columns; // unit vectors of the staying tokens, [c, stay]
    float *unit;    // of all tokens, [n, c]
    float *best;    // of each joining token: its greatest likeness
    int32_t *to;    // and to which staying token
    int32_t *order;
} match;

static void match_free(match *m)
{
    at_free(m->staying);
    at_free(m->joining);
    at_free(m->columns);
    at_free(m->unit);
    at_free(m->best);
    at_free(m->to);
    at_free(m->order);
}

static bool match_alloc(match *m)
{
    m->staying = at_alloc((size_t)m->stay * sizeof *m->staying);
    m->joining = at_alloc((size_t)m->join * sizeof *m->joining);
    m->columns = at_alloc((size_t)(m->c * m->stay) * sizeof *m->columns);
    m->unit = at_alloc((size_t)(m->c * m->n) * sizeof *m->unit);
    m->best = at_alloc((size_t)m->join * sizeof *m->best);
    m->to = at_alloc((size_t)m->join * sizeof *m->to);
    m->order = at_alloc((size_t)m->join * sizeof *m->order);
    return m->staying && m->joining && m->columns && m->unit && m->best && m->to && m->order;
}

// Which tokens stay, drawn for a map of h x w.
static bool draw(at_tome *t, match *m, int64_t h, int64_t w)
{
    int64_t joined = 0, stayed = 0;
    bool *stays = at_calloc((size_t)m->n, sizeof *stays);
    if (!stays) return false;
    for (int64_t y = 0; y < h / 2; y++)
        for (int64_t x = 0; x < w / 2; x++) {
            uint32_t pick = at_mt_u32(&t->random) % 4;
            stays[(2 * y + pick / 2) * w + 2 * x + pick % 2] = true;
        }
    for (int64_t i = 0; i < m->n; i++)
        if (stays[i])
            m->staying[stayed++] = (int32_t)i;
        else
            m->joining[joined++] = (int32_t)i;
    at_free(stays);
    return true;
}

static void normalise(match *m, const float *x)
{
    for (int64_t i = 0; i < m->n; i++) {
        double sum = 0;
        for (int64_t c = 0; c < m->c; c++)
            sum += (double)x[i * m->c + c] * x[i * m->c + c];
        float norm = (float)sqrt(sum);
        for (int64_t c = 0; c < m->c; c++)
            m->unit[i * m->c + c] = x[i * m->c + c] / norm;
    }
    for (int64_t j = 0; j < m->stay; j++)
        for (int64_t c = 0; c < m->c; c++)
            m->columns[c * m->stay + j] = m->unit[m->staying[j] * m->c + c];
}

// The staying token that is most like joining tokens begin .. end.
static void compare(void *ctx, int64_t begin, int64_t end)
{
    match *m = ctx;
    enum { AT_ONCE = 1024 };
    float score[AT_ONCE];
    for (int64_t i = begin; i < end; i++) {
        const float *a = m->unit + m->joining[i] * m->c;
        m->best[i] = -INFINITY;
        m->to[i] = 0;
        for (int64_t first = 0; first < m->stay; first += AT_ONCE) {
            int64_t n = m->stay - first < AT_ONCE ? m->stay - first : AT_ONCE;
            memset(score, 0, sizeof score);
            for (int64_t c = 0; c < m->c; c++)
                for (int64_t j = 0; j < n; j++)
                    score[j] += a[c] * m->columns[c * m->stay + first + j];
            for (int64_t j = 0; j < n; j++)
                if (score[j] > m->best[i]) {
                    m->best[i] = score[j];
                    m->to[i] = (int32_t)(first + j);
                }
        }
    }
}

typedef struct ranked {
    float likeness;
    int32_t index;
} ranked;

static int by_likeness(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->likeness != y->likeness) return x->likeness > y->likeness ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

// Where each token of the picture goes: first the rows of those that neither stay nor join, then
// those that stay. `r` tokens join.
static bool assign(const match *m, int64_t r, int32_t *row)
{
    ranked *all = at_alloc((size_t)m->join * sizeof *all);
    if (!all) return false;
    for (int64_t i = 0; i < m->join; i++)
        all[i] = (ranked){m->best[i], (int32_t)i};
    qsort(all, (size_t)m->join, sizeof *all, by_likeness);
    int32_t alone = (int32_t)(m->join - r);
    for (int64_t i = 0; i < m->join; i++) {
        int32_t at = all[i].index;
        row[m->joining[at]] = i < r ? alone + m->to[at] : (int32_t)(i - r);
    }
    for (int64_t j = 0; j < m->stay; j++)
        row[m->staying[j]] = alone + (int32_t)j;
    at_free(all);
    return true;
}

// Means of the tokens that share a row, for one picture.
static void gather(const int32_t *row, const float *x, int64_t n, int64_t c, int64_t rows,
                   float *out, int32_t *count)
{
    memset(out, 0, (size_t)(rows * c) * sizeof *out);
    memset(count, 0, (size_t)rows * sizeof *count);
    for (int64_t i = 0; i < n; i++) {
        count[row[i]]++;
        for (int64_t k = 0; k < c; k++)
            out[row[i] * c + k] += x[i * c + k];
    }
    for (int64_t j = 0; j < rows; j++)
        for (int64_t k = 0; k < c; k++)
            out[j * c + k] /= (float)count[j];
}

// Fill t->row for all pictures and their means into `means` [b, rows, c].
static bool merge(at_tome *t, const float *x, int64_t c, int64_t h, int64_t w, float *means)
{
    match m = {.n = t->tokens, .c = c, .stay = (h / 2) * (w / 2)};
    m.join = m.n - m.stay;
    int64_t r = m.n - t->rows;
    int32_t *count = at_alloc((size_t)t->rows * sizeof *count);
    bool good = count && match_alloc(&m) && draw(t, &m, h, w);
    for (int64_t b = 0; good && b < t->batch; b++) {
        const float *picture = x + b * m.n * c;
        normalise(&m, picture);
        at_parallel_for(m.join, 16, compare, &m);
        good = assign(&m, r, t->row + b * m.n);
        if (good)
            gather(t->row + b * m.n, picture, m.n, c, t->rows, means + b * t->rows * c, count);
    }
    match_free(&m);
    at_free(count);
    return good;
}

void at_tome_clear(at_tome *t)
{
    at_free(t->row);
    t->row = NULL;
}

static void attn_in(void *self, at_ops *o, const at_site *s, const at_tensor **q,
                    const at_tensor **k, const at_tensor **v)
{
    at_tome *t = self;
    (void)k;
    (void)v;
    if (s->cross) return;
    at_tome_clear(t);
    if (!*q) return;
    int64_t h = s->in->x->shape[2], w = s->in->x->shape[3], c = (*q)->shape[2];
    int64_t stay = (h / 2) * (w / 2);
    t->batch = (*q)->shape[0];
    t->tokens = (*q)->shape[1];
    int64_t r = (int64_t)((double)t->tokens * t->ratio);
    if (t->tokens != h * w || r <= 0 || w == 1 || h == 1) return;
    if (r > t->tokens - stay) r = t->tokens - stay;
    t->rows = t->tokens - r;
    float *x = at_patch_read(o, *q, "TomePatchModel");
    float *means = at_alloc((size_t)(t->batch * t->rows * c) * sizeof *means);
    t->row = at_alloc((size_t)(t->batch * t->tokens) * sizeof *t->row);
    if (x && (!means || !t->row || !merge(t, x, c, h, w, means)))
        at_ops_poison(o, AT_ENOMEM, "TomePatchModel: no memory to match %lld tokens",
                      (long long)t->tokens);
    else if (x)
        *q = at_patch_give(o, (*q)->dtype, 3, (int64_t[]){t->batch, t->rows, c}, means);
    at_free(x);
    at_free(means);
}

static at_tensor *attn_out(void *self, at_ops *o, const at_site *s, at_tensor *x)
{
    at_tome *t = self;
    if (s->cross || !t->row || !x || x->shape[0] != t->batch || x->shape[1] != t->rows) return x;
    int64_t c = x->shape[2];
    float *in = at_patch_read(o, x, "TomePatchModel");
    float *out = at_alloc((size_t)(t->batch * t->tokens * c) * sizeof *out);
    at_tensor *whole = NULL;
    if (in && !out) {
        at_ops_poison(o, AT_ENOMEM, "TomePatchModel: no memory for %lld tokens",
                      (long long)t->tokens);
    } else if (in) {
        for (int64_t i = 0; i < t->batch * t->tokens; i++) {
            int64_t from = i / t->tokens * t->rows + t->row[i];
            memcpy(out + i * c, in + from * c, (size_t)c * sizeof *out);
        }
        whole = at_patch_give(o, x->dtype, 3, (int64_t[]){t->batch, t->tokens, c}, out);
    }
    at_free(in);
    at_free(out);
    return whole;
}

const at_patch_ops at_patch_tome = {
    .name = "TomePatchModel", .free = at_patch_not_owned, .attn_in = attn_in, .attn_out = attn_out};
