// SPDX-License-Identifier: Apache-2.0
// brownian.c - torchsde's Brownian tree, bit for bit.
// Idea: the path over [t0, t1] is a binary tree of halvings; the split of every node has its own
// seed, so W(b) - W(a) does not depend on what was asked before. Times live on a grid of 1e-6. Easy
// to get wrong: interval ends are rounded as decimals, f32 products are rounded one by one, and a
// right child is parent minus left (not a formula of its own).
// Sources: comfyui-contract section 5.7; torchsde (Li et al. 2020, arXiv:2001.01328); numpy's
// SeedSequence (O'Neill's seed_seq). Owns: one scratch row per tree level until freed.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sample/noise.h"

// --- seeds ---------------------------------------------------------------------------------------
#define POOL 24

typedef struct seed_hash {
    uint32_t mul, factor;
} seed_hash;

static uint32_t hash_mix(seed_hash *h, uint32_t v)
{
    v ^= h->mul;
    h->mul *= h->factor;
    v *= h->mul;
    return v ^ (v >> 16);
}

static uint32_t mix_pair(uint32_t x, uint32_t y)
{
    uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;
    return r ^ (r >> 16);
}

static size_t push_words(uint32_t *w, size_t n, uint64_t v)
{
    w[n++] = (uint32_t)v;
    if (v >> 32) w[n++] = (uint32_t)(v >> 32);
    return n;
}

// First output word of SeedSequence(seed) (depth < 0) or SeedSequence(seed, spawn_key=(key,
// depth)).
static uint32_t seed_word(uint64_t seed, uint64_t key, int depth)
{
    uint32_t words[POOL + 4] = {0}, pool[POOL];
    seed_hash a = {0x43b0d7e5u, 0x931e8875u}, b = {0x8b51f9ddu, 0x58f38dedu};
    size_t n = push_words(words, 0, seed);

    if (depth >= 0) {
        n = push_words(words, POOL, key);
        n = push_words(words, n, (uint64_t)depth);
    }
    for (size_t i = 0; i < POOL; i++)
        pool[i] = hash_mix(&a, words[i]);
    for (size_t src = 0; src < POOL; src++)
        for (size_t dst = 0; dst < POOL; dst++)
            if (src != dst) pool[dst] = mix_pair(pool[dst], hash_mix(&a, pool[src]));
    for (size_t src = POOL; src < n; src++)
        for (size_t dst = 0; dst < POOL; dst++)
            pool[dst] = mix_pair(pool[dst], hash_mix(&a, words[src]));
    return hash_mix(&b, pool[0]);
}

// --- tree ----------------------------------------------------------------------------------------
#define MAX_DEPTH 62 // 2^62 grid cells; keys stay below 2^62

typedef struct node {
    uint64_t key;
    int depth; // the root is 0
    double a, b;
} node;

typedef struct level {
    float *w; // increment over the node named by key; NULL until the level is first reached
    uint64_t key;
    bool valid;
} level;

struct at_brownian {
    uint64_t seed;
    double t0, t1; // on the grid
    int64_t n;
    float *noise;
    level levels[MAX_DEPTH + 1];
    bool sum_started;
};

// Python's round(x, 6): nearest multiple of 1e-6 by the exact value of x, ties to even, correctly
// rounded back. The product is kept as p + e so that a tie is a tie.
static double round6(double x)
{
    double p = x * 1e6, e = fma(x, 1e6, -p);
    double low = floor(p), frac = p - low;

    if (!(fabs(p) < 0x1p52)) return x;
    if (frac > 0.5 || (frac == 0.5 && (e > 0 || (e == 0 && fmod(low, 2.0) != 0)))) low += 1;
    return low / 1e6;
}

static at_status draw_root(at_brownian *t, double width)
{
    float scale = (float)sqrt(width), *w = t->levels[0].w;

    at_randn(seed_word(t->seed, 0, -1), w, t->n);
    for (int64_t i = 0; i < t->n; i++)
        w[i] *= scale;
    t->levels[0].valid = true;
    return AT_OK;
}

at_status at_brownian_new(uint64_t seed, double t0, double t1, int64_t n, at_brownian **out)
{
    at_status st = AT_OK;
    at_brownian *t = NULL;

    *out = NULL;
    if (!(t0 > 0) || !(t1 >= t0) || !(t1 < 1e9))
        AT_TRY(at_fail(AT_EINVAL, "Brownian tree: interval [%g, %g], expected 0 < t0 <= t1 < 1e9",
                       t0, t1));
    if (n < 1 || (uint64_t)n > SIZE_MAX / sizeof(float))
        AT_TRY(at_fail(AT_EINVAL, "Brownian tree: %lld values", (long long)n));
    t = at_calloc(1, sizeof *t);
    if (t) t->noise = at_calloc((size_t)n, sizeof(float));
    if (t) t->levels[0].w = at_calloc((size_t)n, sizeof(float));
    if (!t || !t->noise || !t->levels[0].w)
        AT_TRY(at_fail(AT_ENOMEM, "Brownian tree: no memory for %lld values", (long long)n));
    t->seed = seed;
    t->n = n;
    AT_TRY(draw_root(t, t1 - t0)); // the width before rounding, as torchsde does
    t->t0 = round6(t0);
    t->t1 = round6(t1);
    *out = t;
    t = NULL;
out:
    at_brownian_free(t);
    return st;
}

void at_brownian_free(at_brownian *t)
{
    if (!t) return;
    for (int i = 0; i <= MAX_DEPTH; i++)
        at_free(t->levels[i].w);
    at_free(t->noise);
    at_free(t);
}

// Make levels[depth + 1] hold the increment of p's left child; split point m.
static void fill_left(at_brownian *t, const node *p, double m)
{
    const float *w = t->levels[p->depth].w;
    float *dst = t->levels[p->depth + 1].w;
    double l = m - p->a, r = p->b - m, inverse = 1 / (p->b - p->a);
    float left = (float)l, inv = (float)inverse, std = (float)sqrt(l * r * inverse);

    at_randn(seed_word(t->seed, p->key, p->depth), t->noise, t->n);
    for (int64_t i = 0; i < t->n; i++)
        dst[i] = left * w[i] * inv + std * t->noise[i];
}

static at_status enter_child(at_brownian *t, const node *p, double m, bool right, node *child)
{
    level *c = &t->levels[p->depth + 1];
    const float *w = t->levels[p->depth].w;
    uint64_t left_key = p->key * 2;

    *child = right ? (node){left_key + 1, p->depth + 1, m, p->b}
                   : (node){left_key, p->depth + 1, p->a, m};
    if (c->valid && c->key == child->key) return AT_OK;
    if (!c->w) c->w = at_calloc((size_t)t->n, sizeof(float));
    if (!c->w)
        return at_fail(AT_ENOMEM, "Brownian tree: no memory for %lld values", (long long)t->n);
    if (!c->valid || c->key != left_key) fill_left(t, p, m);
    if (right)
        for (int64_t i = 0; i < t->n; i++)
            c->w[i] = w[i] - c->w[i];
    c->key = child->key;
    c->valid = true;
    return AT_OK;
}

// Add the increments of the largest nodes that make up [lo, hi] within p, from left to right.
static at_status collect(at_brownian *t, const node *p, double lo, double hi, float *sum)
{
    at_status st = AT_OK;
    double m = round6(0.5 * (p->b + p->a));
    node child;

    if (lo <= p->a && hi >= p->b) {
        const float *w = t->levels[p->depth].w;
        for (int64_t i = 0; i < t->n; i++)
            sum[i] = t->sum_started ? sum[i] + w[i] : w[i];
        t->sum_started = true;
        return AT_OK;
    }
    if (p->depth >= MAX_DEPTH || m <= p->a || m >= p->b)
        return at_fail(AT_EINTERNAL, "Brownian tree: [%.9g, %.9g] has no grid point", p->a, p->b);
    if (lo < m) {
        AT_TRY(enter_child(t, p, m, false, &child));
        AT_TRY(collect(t, &child, lo, hi < m ? hi : m, sum));
    }
    if (hi > m) {
        AT_TRY(enter_child(t, p, m, true, &child));
        AT_TRY(collect(t, &child, lo > m ? lo : m, hi, sum));
    }
out:
    return st;
}

static double on_grid(const at_brownian *t, double s)
{
    return round6(s < t->t0 ? t->t0 : s > t->t1 ? t->t1 : s);
}

at_status at_brownian_step(at_brownian *t, double s0, double s1, float *out)
{
    at_status st = AT_OK;
    double lo = on_grid(t, s0 < s1 ? s0 : s1), hi = on_grid(t, s0 < s1 ? s1 : s0);
    node root = {0, 0, t->t0, t->t1};
    float scale = sqrtf(fabsf((float)s1 - (float)s0)), sign = s0 < s1 ? 1.0f : -1.0f;

    memset(out, 0, (size_t)t->n * sizeof *out);
    if (!(lo < hi) || !(scale > 0)) return AT_OK;
    t->sum_started = false;
    AT_TRY(collect(t, &root, lo, hi, out));
    for (int64_t i = 0; i < t->n; i++)
        out[i] = sign * out[i] / scale;
out:
    return st;
}
