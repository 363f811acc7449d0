// SPDX-License-Identifier: Apache-2.0
// bpe.c - see bpe.h.
// Easy to get wrong: all occurrences of one pair are merged before pairs that these merges created
// are looked at, so new candidates wait until the round of their rank is over.
#include "text/bpe.h"

#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

#define MAX_MERGES (1u << 24)

uint32_t at_byte_letter(unsigned byte)
{
    unsigned skipped = 0;

    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return byte;
    for (unsigned b = 0; b < byte; b++)
        skipped += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    return 256 + skipped;
}

at_status at_bpe_init(at_bpe *b)
{
    at_status st = AT_OK;

    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        size_t n = at_utf8_put(text, at_byte_letter(i));
        b->byte_sym[i] = at_symtab_intern(&b->syms, text, n, &st);
        if (b->byte_sym[i] < 0) return st;
        memcpy(text + n, "</w>", 4);
        b->byte_last_sym[i] = at_symtab_intern(&b->syms, text, n + 4, &st);
        if (b->byte_last_sym[i] < 0) return st;
    }
    return AT_OK;
}

static at_merge *find_merge(const at_bpe *b, int32_t left, int32_t right)
{
    uint64_t pair = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1, h = pair;
    uint32_t mask = b->merge_slots - 1, i;

    h = (h ^ h >> 31) * 0xbf58476d1ce4e5b9u;
    i = (uint32_t)(h ^ h >> 32) & mask;
    while (b->merges[i].pair && b->merges[i].pair != pair)
        i = (i + 1) & mask;
    return &b->merges[i];
}

at_status at_bpe_reserve(at_bpe *b, size_t count)
{
    uint32_t slots = 64;

    if (count > MAX_MERGES) return at_fail(AT_EFORMAT, "more than %u merges", MAX_MERGES);
    while (slots < 2 * count)
        slots *= 2;
    b->merges = at_calloc(slots, sizeof *b->merges);
    if (!b->merges) return at_fail(AT_ENOMEM, "no memory for %zu merges", count);
    b->merge_slots = slots;
    return AT_OK;
}

at_status at_bpe_add_merge(at_bpe *b, const char *left, size_t left_n, const char *right,
                           size_t right_n, int32_t *merged)
{
    char small[256], *joined = small;
    size_t n;
    at_merge *m;
    int32_t l, r, j;
    at_status st = AT_OK;

    if (!at_add_size(left_n, right_n, &n)) return at_fail(AT_EFORMAT, "a merge of endless symbols");
    if (n > sizeof small && !(joined = at_alloc(n)))
        return at_fail(AT_ENOMEM, "no memory for a merge of %zu bytes", n);
    memcpy(joined, left, left_n);
    memcpy(joined + left_n, right, right_n);
    if ((l = at_symtab_intern(&b->syms, left, left_n, &st)) < 0) goto out;
    if ((r = at_symtab_intern(&b->syms, right, right_n, &st)) < 0) goto out;
    if ((j = at_symtab_intern(&b->syms, joined, n, &st)) < 0) goto out;
    m = find_merge(b, l, r);
    if (!m->pair)
        *m = (at_merge){((uint64_t)(uint32_t)l << 32 | (uint32_t)r) + 1, b->merge_count, j};
    b->merge_count++;
    if (merged) *merged = j;
out:
    if (joined != small) at_free(joined);
    return st;
}

// --- encoding ------------------------------------------------------------------------------------

typedef struct node {
    int32_t sym; // -1: swallowed by its left neighbour
    int32_t prev, next;
} node;

typedef struct candidate {
    uint32_t rank;
    int32_t at; // left node; the pair is this node and its next, if still so
    int32_t left, right;
} candidate;

typedef struct word {
    const at_bpe *bpe;
    node *nodes;
    candidate *heap;    // smallest (rank, at) first
    candidate *pending; // made in this round
    size_t heap_len, pending_len;
} word;

static bool before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(word *w, candidate c)
{
    size_t i = w->heap_len++;

    while (i && before(&c, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static candidate heap_pop(word *w)
{
    candidate top = w->heap[0], last = w->heap[--w->heap_len];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_len) break;
        if (child + 1 < w->heap_len && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static bool candidate_at(const word *w, int32_t at, candidate *out)
{
    const at_merge *m;
    int32_t next = at < 0 ? -1 : w->nodes[at].next;

    if (next < 0 || !w->bpe->merge_slots) return false;
    m = find_merge(w->bpe, w->nodes[at].sym, w->nodes[next].sym);
    if (!m->pair) return false;
    *out = (candidate){m->rank, at, w->nodes[at].sym, w->nodes[next].sym};
    return true;
}

static void merge_at(word *w, const candidate *c)
{
    node *left = &w->nodes[c->at], *right;
    candidate fresh;
    int32_t next = left->next;

    if (left->sym != c->left || next < 0 || w->nodes[next].sym != c->right) return; // out of date
    right = &w->nodes[next];
    left->sym = find_merge(w->bpe, c->left, c->right)->merged;
    left->next = right->next;
    right->sym = -1;
    if (left->next >= 0) w->nodes[left->next].prev = c->at;
    if (candidate_at(w, left->prev, &fresh)) w->pending[w->pending_len++] = fresh;
    if (candidate_at(w, c->at, &fresh)) w->pending[w->pending_len++] = fresh;
}

static void merge_all(word *w)
{
    while (w->heap_len) {
        uint32_t rank = w->heap[0].rank;
        while (w->heap_len && w->heap[0].rank == rank) {
            candidate c = heap_pop(w);
            merge_at(w, &c);
        }
        while (w->pending_len)
            heap_push(w, w->pending[--w->pending_len]);
    }
}

static void fill_nodes(word *w, const char *text, size_t n)
{
    candidate c;

    for (size_t i = 0; i < n; i++) {
        const int32_t *table = i + 1 < n ? w->bpe->byte_sym : w->bpe->byte_last_sym;
        w->nodes[i] =
            (node){table[(unsigned char)text[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (candidate_at(w, (int32_t)i, &c)) heap_push(w, c);
}

at_status at_bpe_encode_word(const at_bpe *b, const char *text, size_t n, at_ids *out)
{
    word w = {.bpe = b};
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    if (n > INT32_MAX / 4) return at_fail(AT_EINVAL, "a word of %zu bytes is too long", n);
    // Each merge removes a node and adds at most two candidates: never more than 3n in all.
    w.nodes = at_calloc(n, sizeof *w.nodes);
    w.heap = at_calloc(3 * n, sizeof *w.heap);
    w.pending = at_calloc(2 * n, sizeof *w.pending);
    if (!w.nodes || !w.heap || !w.pending)
        AT_TRY(at_fail(AT_ENOMEM, "no memory for a word of %zu bytes", n));
    fill_nodes(&w, text, n);
    merge_all(&w);
    for (int32_t i = 0; i >= 0; i = w.nodes[i].next) {
        int32_t id = b->syms.syms[w.nodes[i].sym].id;
        AT_TRY(at_ids_push(out, id >= 0 ? id : b->unk));
    }
out:
    at_free(w.nodes);
    at_free(w.heap);
    at_free(w.pending);
    return st;
}

void at_bpe_free(at_bpe *b)
{
    at_symtab_free(&b->syms);
    at_free(b->merges);
    *b = (at_bpe){0};
}
