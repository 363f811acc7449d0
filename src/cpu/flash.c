// SPDX-License-Identifier: Apache-2.0
// flash.c - tiled attention over a table of leaves; the score matrix never exists as a whole.
// Idea (Dao et al. 2022, arXiv:2205.14135): a task owns some queries and walks blocks of keys with
// the online softmax. Keys and values of a group of heads are first brought into the panels of the
// register tile, once, so that both products run at the speed of a matrix product.
// Where the tile multiplies pairs of bf16 (kernels.h), bf16 heads stay bf16: queries and keys are paired along their
// channels, probabilities (rounded to bf16) and values along the keys; scores, softmax and sums stay f32.
// Owns nothing; scratch lives for one call or range.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

enum {
    QUERIES = 96,                   // rows of a task; 48 where heads are wide or tasks are few
    KEYS = 256,                     // keys of a block; 128 where heads are wide
    WIDE = 256,                     // channels of a wide head
    GROUP_BYTES = 24 * 1024 * 1024, // packed keys and values at a time
    PAD = 16
};

typedef struct flash {
    const at_cpu_kernels *k;
    const at_attention_args *a;
    int64_t heads, tq, tk, d, dv; // heads: batch * heads
    bool pairs, matrix;   // matrix: pairs in matrix registers, whole blocks of 32 rows and 16 pairs
    int64_t mr, unit;     // rows of the tile; its steps come in multiples of unit
    int64_t k_len, v_len; // steps of the tile in a panel of keys and of values: d and tk, or half
    void (*tile)(int, int, const int64_t *, int64_t, const float *, int64_t, const float *, float *,
                 int64_t, bool);
    int64_t key_panels, value_panels;
    int64_t queries, keys, q_tasks;
    int64_t first, group;       // the heads that are packed now
    float *packed_k, *packed_v; // [group][key_panels][k_len][nr], [group][value_panels][v_len][nr]
    at_cpu_oom oom;
} flash;

// Scratch of one task. Strides are in floats.
typedef struct state {
    float *q, *s, *p, *o, *max, *sum; // p: probabilities, s itself if they are f32
    int64_t q_ld, s_ld, p_ld, o_ld, rows, i0;
} state;

static int64_t round_up(int64_t v, int64_t to)
{
    return (v + to - 1) / to * to;
}
static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t head_offset(const at_view *v, const flash *f, int64_t head)
{
    int64_t h = f->a->q.shape[2];
    return head / h * v->stride[0] + head % h * v->stride[2];
}

// Values of keys [t0, t0 + n) as pairs: element (t / 2, c) holds v[t][c] below v[t + 1][c].
static void pack_value_pairs(const flash *f, int64_t g, int64_t t0, int64_t n)
{
    const at_view *v = &f->a->v;
    int64_t nr = f->k->nr, end = f->matrix ? t0 + nr : t0 + n;

    for (int64_t t = t0; t < end; t += 2) {
        const uint16_t *low =
            at_cpu_at(v, head_offset(v, f, f->first + g) + at_most(t, f->tk - 1) * v->stride[1]);
        const uint16_t *high = t + 1 < t0 + n ? low + v->stride[1] : NULL;
        for (int64_t p = 0; p < f->value_panels; p++) {
            float *to = f->packed_v + ((g * f->value_panels + p) * f->v_len + t / 2) * nr;
            int64_t count = t < t0 + n ? at_most(nr, f->dv - p * nr) : 0;
            for (int64_t c = 0; c < nr; c++) {
                uint32_t pair = 0;
                if (c < count) pair = low[p * nr + c];
                if (c < count && high) pair |= (uint32_t)high[p * nr + c] << 16;
                memcpy(to + c, &pair, sizeof pair);
            }
        }
    }
}

static void pack_pairs_range(void *ctx, int64_t begin, int64_t end)
{
    const flash *f = ctx;
    const at_view *k = &f->a->k;
    int64_t nr = f->k->nr;

    for (int64_t i = begin; i < end; i++) {
        int64_t g = i / f->key_panels, t0 = i % f->key_panels * nr, n = at_most(nr, f->tk - t0);
        int64_t first = head_offset(k, f, f->first + g) + t0 * k->stride[1];
        float *to = f->packed_k + i * f->k_len * nr;
        f->k->pack(to, k->data, AT_F32, first / 2, k->stride[1] / 2, (int)n, f->d / 2);
        memset(to + f->d / 2 * nr, 0, (size_t)((f->k_len - f->d / 2) * nr) * sizeof *to);
        pack_value_pairs(f, g, t0, n);
    }
}

// One index is one panel of nr keys: its keys transposed, its values cut into panels.
static void pack_range(void *ctx, int64_t begin, int64_t end)
{
    flash *f = ctx;
    const at_view *k = &f->a->k, *v = &f->a->v;
    int64_t nr = f->k->nr, wide = f->value_panels * nr;
    float *row = at_cpu_scratch(&f->oom, at_calloc((size_t)wide, sizeof *row));

    if (!row) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t g = i / f->key_panels, t0 = i % f->key_panels * nr, n = at_most(nr, f->tk - t0);
        float *to = f->packed_v + (g * f->value_panels * f->v_len + t0) * nr;
        f->k->pack(f->packed_k + i * f->k_len * nr, k->data, k->dtype,
                   head_offset(k, f, f->first + g) + t0 * k->stride[1], k->stride[1], (int)n, f->d);
        for (int64_t t = 0; t < n; t++) {
            f->k->load(row, v->data, v->dtype,
                       head_offset(v, f, f->first + g) + (t0 + t) * v->stride[1], 1, f->dv);
            for (int64_t p = 0; p < f->value_panels; p++)
                memcpy(to + (p * f->v_len + t) * nr, row + p * nr, (size_t)nr * sizeof *row);
        }
    }
    at_free(row);
}

// c (+)= a * panels: `count` panels that lie `step` floats apart.
static void multiply(const flash *f, const state *st, const float *a, int64_t lda, int64_t len,
                     const float *b, int64_t step, int64_t count, float *c, int64_t ldc, bool add)
{
    int64_t mr = f->mr;
    for (int64_t p = 0; p < count; p++)
        for (int64_t i = 0; i < st->rows; i += mr)
            f->tile((int)at_most(mr, st->rows - i), 1, NULL, len, a + i * lda, lda, b + p * step,
                    c + i * ldc + p * f->k->nr, ldc, add);
}

// Bias and causal mask of one row of scores, keys [t0, t0 + n).
static void mask_row(const flash *f, float *s, int64_t head, int64_t i, int64_t t0, int64_t n)
{
    const at_attention_args *a = f->a;
    const at_view *m = &a->bias;
    int64_t h = a->q.shape[2], seen = i + f->tk - f->tq + 1 - t0;
    float buf[KEYS];

    if (m->data) {
        int64_t first = head / h * at_cpu_step(m, 0) + head % h * at_cpu_step(m, 1) +
                        i * at_cpu_step(m, 2) + t0 * at_cpu_step(m, 3);
        f->k->binary(s, at_cpu_row(f->k, buf, m->data, m->dtype, first, at_cpu_step(m, 3), n), n,
                     AT_ADD);
    }
    if (a->causal)
        for (int64_t t = seen > 0 ? seen : 0; t < n; t++)
            s[t] = -INFINITY;
}

// Scores become probabilities relative to the row's maximum so far; sum and result are rescaled.
static void soften(const flash *f, state *st, int64_t r, int64_t n)
{
    float *s = st->s + r * st->s_ld, max = f->k->max(s, n), shrink;

    if (max < st->max[r]) max = st->max[r];
    if (max == -INFINITY) { // nothing seen yet
        memset(s, 0, (size_t)n * sizeof *s);
        return;
    }
    if (max > st->max[r]) {
        shrink = expf(st->max[r] - max);
        st->sum[r] *= shrink;
        f->k->scale(st->o + r * st->o_ld, shrink, f->value_panels * f->k->nr);
        st->max[r] = max;
    }
    st->sum[r] += f->k->exp_sum(s, max, n);
}

// The same for scores that wait for their scale; probabilities go to st->p as bf16.
static void soften_pairs(const flash *f, state *st, int64_t r, int64_t n, float scale)
{
    float *s = st->s + r * st->s_ld, *p = st->p + r * st->p_ld, max = f->k->max(s, n) * scale;

    if (max < st->max[r]) max = st->max[r];
    if (max == -INFINITY) { // nothing seen yet
        memset(p, 0, (size_t)round_up((n + 1) / 2, f->unit) * sizeof *p);
        return;
    }
    if (max > st->max[r]) {
        float shrink = expf(st->max[r] - max);
        st->sum[r] *= shrink;
        f->k->scale(st->o + r * st->o_ld, shrink, f->value_panels * f->k->nr);
        st->max[r] = max;
    }
    st->sum[r] += f->k->exp_pairs(p, s, scale, max, n);
    for (int64_t i = (n + 1) / 2; i < round_up((n + 1) / 2, f->unit); i++)
        p[i] = 0;
}

static void take_keys(const flash *f, state *st, int64_t head, int64_t t0, int64_t n)
{
    int64_t nr = f->k->nr, g = head - f->first;
    int64_t step = f->pairs ? 2 : 1; // keys of one step of the tile
    const float *k = f->packed_k + (g * f->key_panels + t0 / nr) * f->k_len * nr;
    const float *v = f->packed_v + (g * f->value_panels * f->v_len + t0 / step) * nr;
    bool masked = f->a->bias.data || f->a->causal;

    multiply(f, st, st->q, st->q_ld, f->k_len, k, f->k_len * nr, (n + nr - 1) / nr, st->s, st->s_ld,
             false);
    for (int64_t r = 0; r < st->rows; r++) {
        if (masked && f->pairs) f->k->scale(st->s + r * st->s_ld, f->a->scale, n);
        if (masked) mask_row(f, st->s + r * st->s_ld, head, st->i0 + r, t0, n);
        if (f->pairs) {
            soften_pairs(f, st, r, n, masked ? 1 : f->a->scale);
        } else {
            soften(f, st, r, n);
        }
    }
    multiply(f, st, st->p, st->p_ld, round_up((n + step - 1) / step, f->unit), v, f->v_len * nr,
             f->value_panels, st->o, st->o_ld, true);
}

static void load_queries(const flash *f, state *st, int64_t head)
{
    const at_view *q = &f->a->q;
    int64_t first = head_offset(q, f, head) + st->i0 * q->stride[1];

    for (int64_t r = 0; r < st->rows; r++) {
        float *row = st->q + r * st->q_ld;
        if (f->pairs) {
            memcpy(row, at_cpu_at(q, first + r * q->stride[1]), (size_t)f->d * 2);
            memset(row + f->d / 2, 0, (size_t)(f->k_len - f->d / 2) * sizeof *row);
        } else {
            f->k->load(row, q->data, q->dtype, first + r * q->stride[1], 1, f->d);
            f->k->scale(row, f->a->scale, f->d);
        }
        st->max[r] = -INFINITY;
        st->sum[r] = 0;
    }
    memset(st->o, 0, (size_t)(st->rows * st->o_ld) * sizeof *st->o);
}

static void give_rows(const flash *f, state *st, int64_t head)
{
    const at_view *o = &f->a->out;
    int64_t first = head_offset(o, f, head) + st->i0 * o->stride[1];

    for (int64_t r = 0; r < st->rows; r++) {
        float *row = st->o + r * st->o_ld;
        // A row that saw no key has sum 0 and result 0.
        if (st->sum[r] != 0) f->k->scale(row, 1.0f / st->sum[r], f->dv);
        at_cpu_give_lse(f->a, head, st->i0 + r, st->max[r], st->sum[r]);
        f->k->store(o->data, o->dtype, first + r * o->stride[1], 1, row, f->dv);
    }
}

static void flash_range(void *ctx, int64_t begin, int64_t end)
{
    flash *f = ctx;
    state st = {.q_ld = f->k_len + PAD,
                .s_ld = f->keys + PAD,
                .p_ld = f->pairs ? f->keys / 2 + PAD : f->keys + PAD,
                .o_ld = f->value_panels * f->k->nr + PAD};
    int64_t rows = round_up(f->queries, f->mr); // whole blocks may run over the last query
    int64_t p_floats = f->pairs ? rows * st.p_ld : 0;
    size_t floats = (size_t)(rows * (st.q_ld + st.s_ld + st.o_ld + 2) + p_floats);
    float *scratch = at_cpu_scratch(&f->oom, at_alloc(floats * sizeof *scratch));

    if (!scratch) return;
    st.s = scratch;
    st.o = st.s + rows * st.s_ld;
    st.q = st.o + rows * st.o_ld;
    st.max = st.q + rows * st.q_ld;
    st.sum = st.max + rows;
    st.p = f->pairs ? st.sum + rows : st.s;
    if (f->matrix) f->k->matrix_begin();
    for (int64_t task = begin; task < end && !at_cancelled(); task++) {
        int64_t head = f->first + task / f->q_tasks, last;
        st.i0 = task % f->q_tasks * f->queries;
        st.rows = at_most(f->queries, f->tq - st.i0);
        last = f->a->causal ? at_most(f->tk, st.i0 + st.rows + f->tk - f->tq) : f->tk;
        load_queries(f, &st, head);
        for (int64_t t = 0; t < last; t += f->keys)
            take_keys(f, &st, head, t, at_most(f->keys, f->tk - t));
        give_rows(f, &st, head);
    }
    if (f->matrix) f->k->matrix_end();
    at_free(scratch);
}

static at_status run_groups(flash *f)
{
    int64_t nr = f->k->nr;
    int64_t floats = f->key_panels * f->k_len * nr + f->value_panels * f->v_len * nr;
    int64_t most = GROUP_BYTES / 4 / (floats + 1) + 1;
    float *packed;

    most = at_most(most, f->heads);
    packed = at_alloc((size_t)(most * floats) * sizeof *packed);
    if (!packed)
        return at_fail(AT_ENOMEM, "attention: no memory for the keys and values of %lld heads",
                       (long long)most);
    f->packed_k = packed;
    f->packed_v = packed + most * f->key_panels * f->k_len * nr;
    for (f->first = 0; f->first < f->heads && !at_cancelled(); f->first += most) {
        f->group = at_most(most, f->heads - f->first);
        at_parallel_for(f->group * f->key_panels, 1 + 4096 / (f->d * nr),
                        f->pairs ? pack_pairs_range : pack_range, f);
        at_parallel_for(f->group * f->q_tasks, 1, flash_range, f);
    }
    at_free(packed);
    return at_cpu_oom_status(&f->oom, "attention");
}

// bf16 heads whose keys can be read as pairs.
static bool in_pairs(const at_cpu_kernels *k, const at_attention_args *a)
{
    const at_view *v = &a->k;

    return k->pair_tile && k->exp_pairs && a->q.dtype == AT_BF16 && a->k.dtype == AT_BF16 &&
           a->v.dtype == AT_BF16 && a->q.shape[3] % 2 == 0 && a->scale > 0 &&
           v->stride[0] % 2 == 0 && v->stride[1] % 2 == 0 && v->stride[2] % 2 == 0 &&
           (uintptr_t)v->data % 4 == 0;
}

at_status at_cpu_flash_attention(const at_cpu_kernels *k, const at_attention_args *a)
{
    flash f = {.k = k,
               .a = a,
               .heads = a->q.shape[0] * a->q.shape[2],
               .tq = a->q.shape[1],
               .tk = a->k.shape[1],
               .d = a->q.shape[3],
               .dv = a->v.shape[3],
               .pairs = in_pairs(k, a)};
    bool wide = f.d > WIDE || f.dv > WIDE;

    if (!f.heads || !f.tq || !f.tk || !f.d) return at_cpu_ref_attention(NULL, a);
    f.matrix = f.pairs && k->matrix_tile;
    f.tile = f.matrix ? k->matrix_tile : f.pairs ? k->pair_tile : k->tile;
    f.mr = f.matrix ? 32 : k->mr;
    f.unit = f.matrix ? 16 : 1;
    f.k_len = round_up(f.pairs ? f.d / 2 : f.d, f.unit);
    f.v_len = round_up(f.pairs ? (f.tk + 1) / 2 : f.tk, f.unit);
    f.key_panels = (f.tk + k->nr - 1) / k->nr;
    f.value_panels = (f.dv + k->nr - 1) / k->nr;
    f.keys = round_up(at_most(wide ? KEYS / 2 : KEYS, f.tk), k->nr);
    f.queries = wide || f.heads * f.tq < QUERIES * 8 * at_threads() ? QUERIES / 2 : QUERIES;
    f.queries = at_most(f.queries, f.tq);
    f.q_tasks = (f.tq + f.queries - 1) / f.queries;
    return run_groups(&f);
}
