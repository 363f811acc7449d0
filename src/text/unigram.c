// SPDX-License-Identifier: Apache-2.0
// unigram.c - see unigram.h.
// Easy to get wrong: an unknown character costs 10 more than the worst piece, and is offered only where
// no piece of exactly one character stands; among equal paths the first found stays.
#include "text/unigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

#define UNK_PENALTY 10.0
#define MAX_PIECE   1024 // bytes; bounds the work per character of text

at_status at_unigram_add(at_unigram *u, const char *text, size_t n, int32_t id, double score,
                         bool user_defined)
{
    at_piece *p;
    char *copy;

    if (n > MAX_PIECE)
        return at_fail(AT_EFORMAT, "piece %d of the vocabulary has %zu bytes, the limit is %d", id,
                       n, MAX_PIECE);
    if (!isfinite(score)) return at_fail(AT_EFORMAT, "piece %d has no finite score", id);
    if (u->count == u->cap) {
        size_t cap = u->cap ? u->cap * 2 : 4096, bytes;
        if (!at_mul_size(cap, sizeof *p, &bytes) || !(p = at_realloc(u->pieces, bytes)))
            return at_fail(AT_ENOMEM, "no memory for %zu vocabulary pieces", cap);
        u->pieces = p;
        u->cap = cap;
    }
    if (!u->arena) u->arena = at_arena_new(64 << 10);
    copy = u->arena ? at_arena_alloc(u->arena, n + 1) : NULL;
    if (!copy) return at_fail(AT_ENOMEM, "no memory for a vocabulary piece");
    memcpy(copy, text, n);
    u->pieces[u->count++] = (at_piece){copy, (uint32_t)n, id, score, user_defined};
    return AT_OK;
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);

    return c ? c : (an > bn) - (an < bn);
}

static int by_text(const void *pa, const void *pb)
{
    const at_piece *a = pa, *b = pb;

    return compare(a->text, a->len, b->text, b->len);
}

at_status at_unigram_finish(at_unigram *u, const char *label)
{
    bool any = false;

    u->min_score = u->max_score = 0;
    for (size_t i = 0; i < u->count; i++) {
        const at_piece *p = &u->pieces[i];
        if (p->user_defined) continue;
        if (!any || p->score < u->min_score) u->min_score = p->score;
        if (!any || p->score > u->max_score) u->max_score = p->score;
        any = true;
    }
    if (u->count == 0) return at_fail(AT_EFORMAT, "%s: the vocabulary is empty", label);
    qsort(u->pieces, u->count, sizeof *u->pieces, by_text);
    for (size_t i = 1; i < u->count; i++)
        if (by_text(&u->pieces[i - 1], &u->pieces[i]) == 0)
            return at_fail(AT_EFORMAT, "%s: piece \"%.40s\" stands twice", label,
                           u->pieces[i].text);
    return AT_OK;
}

const at_piece *at_unigram_find(const at_unigram *u, const char *text, size_t n)
{
    size_t lo = 0, hi = u->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare(u->pieces[mid].text, u->pieces[mid].len, text, n);
        if (c == 0) return &u->pieces[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

// First piece of [lo, hi), all alike in their first `k` bytes, whose byte k is at least `c`.
static size_t narrow(const at_unigram *u, size_t lo, size_t hi, size_t k, unsigned c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const at_piece *p = &u->pieces[mid];
        if (p->len <= k || (unsigned char)p->text[k] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

// --- Viterbi -----------------------------------------------------------------------------------------

typedef struct node {
    double score;
    int64_t from; // byte where the best last piece begins; -1: not reached yet
    int32_t id;   // -1: unknown
} node;

static void offer(const at_unigram *u, node *nodes, size_t from, size_t to, int32_t id,
                  double score)
{
    double sum = u->float_scores ? (double)((float)nodes[from].score + (float)score)
                                 : nodes[from].score + score;

    if (nodes[to].from >= 0 && !(sum > nodes[to].score)) return;
    nodes[to] = (node){sum, (int64_t)from, id};
}

// Offer every piece that begins at `at`, and the unknown character.
static size_t step(const at_unigram *u, node *nodes, const char *text, size_t n, size_t at)
{
    size_t lo = 0, hi = u->count, first;
    bool single = false;
    uint32_t cp;

    first = at_utf8_next(text + at, n - at, &cp);
    for (size_t k = 0; at + k < n; k++) {
        unsigned c = (unsigned char)text[at + k];
        const at_piece *p;
        lo = narrow(u, lo, hi, k, c);
        hi = narrow(u, lo, hi, k, c + 1);
        if (lo == hi) break;
        p = &u->pieces[lo]; // the shortest stands first
        if (p->len != k + 1) continue;
        offer(u, nodes, at, at + k + 1, p->id,
              p->user_defined ? (double)(k + 1) * u->max_score - 0.1 : p->score);
        single |= k + 1 == first;
    }
    if (!single) offer(u, nodes, at, at + first, -1, u->min_score - UNK_PENALTY);
    return first;
}

static at_status emit_unknown(const at_unigram *u, const char *text, size_t n, bool joined,
                              at_ids *out)
{
    at_status st = AT_OK;

    if (u->byte_fallback) {
        for (size_t i = 0; i < n; i++)
            AT_TRY(at_ids_push(out, u->byte_id[(unsigned char)text[i]]));
    } else if (u->unk < 0) {
        AT_TRY(at_fail(AT_EFORMAT,
                       "the vocabulary has no unknown piece, and needs one for "
                       "\"%.*s\"",
                       n < 16 ? (int)n : 16, text));
    } else if (!joined) {
        AT_TRY(at_ids_push(out, u->unk));
    }
out:
    return st;
}

// Turn the backward path into a forward one: node i's `from` becomes where the piece from i ends.
static void reverse(node *nodes, size_t n)
{
    int64_t to = (int64_t)n;
    int32_t id = nodes[n].id;

    for (int64_t at = nodes[n].from; to > 0;) {
        int64_t before = nodes[at].from;
        int32_t before_id = nodes[at].id;
        nodes[at].from = to;
        nodes[at].id = id;
        to = at;
        at = before;
        id = before_id;
    }
}

at_status at_unigram_encode(const at_unigram *u, const char *text, size_t n, at_ids *out)
{
    node *nodes;
    bool was_unknown = false;
    size_t count;
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    nodes = at_add_size(n, 1, &count) ? at_calloc(count, sizeof *nodes) : NULL;
    if (!nodes) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt of %zu bytes", n));
    for (size_t i = 1; i <= n; i++)
        nodes[i].from = -1;
    for (size_t i = 0; i < n;)
        i += step(u, nodes, text, n, i);
    reverse(nodes, n);
    for (size_t i = 0; i < n; i = (size_t)nodes[i].from) {
        // A byte piece that happens to be the unknown one joins like it.
        bool unknown = nodes[i].id < 0 || (nodes[i].id == u->unk && !u->byte_fallback);
        if (unknown)
            AT_TRY(emit_unknown(u, text + i, (size_t)nodes[i].from - i, was_unknown, out));
        else
            AT_TRY(at_ids_push(out, nodes[i].id));
        was_unknown = unknown;
    }
out:
    at_free(nodes);
    return st;
}

void at_unigram_free(at_unigram *u)
{
    at_free(u->pieces);
    at_arena_free(u->arena);
    *u = (at_unigram){0};
}
