// SPDX-License-Identifier: Apache-2.0
// order.c - ComfyUI's TopologicalSort and ExecutionList (comfy_execution/graph.py of 0.3.64).
// Idea: ComfyUI scans all pending nodes at each step; here every ready node lies in one of four
// heaps by rank (0 output, 1 blocks an output, 2 blocks such a one, 3 other), ordered by insertion,
// so a step costs log n and a chain of 100,000 nodes is nothing. A rank only improves: an improved
// node is pushed again and the older entry is skipped when it comes up.
// Invariant: a node that is pending, unblocked and not staged lies in the heap of its rank; heaps
// may hold older entries besides.
// Source: comfyui-contract 3.3.
#include "flow/order.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

typedef struct edge {
    size_t to, next; // index + 1 of the next edge of the same list, 0 ends
} edge;
typedef struct edges {
    edge *items;
    size_t count, cap;
} edges;

typedef struct state {
    bool pending, staged, blocks_output;
    unsigned char rank;
    size_t blocks;              // pending nodes that this one waits for
    size_t seq;                 // order of insertion
    size_t out_first, in_first; // lists of who waits for it, and of whom it waits for
} state;

typedef struct heap {
    size_t *items;
    size_t count, cap;
} heap;

struct at_order {
    const at_order_node *nodes;
    size_t count, pending, seq;
    bool (*cached)(void *ctx, size_t node);
    void *ctx;
    state *s;
    edges e;
    heap ready[4];
    heap todo, links, fresh; // scratch of at_order_add: ids; pairs (from, to); new ids
};

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for the execution list");
}

static at_status push(heap *h, size_t item)
{
    size_t cap = h->cap ? h->cap * 2 : 32;
    size_t *grown;

    if (h->count == h->cap) {
        grown = at_realloc(h->items, cap * sizeof *grown);
        if (!grown) return no_memory();
        h->items = grown;
        h->cap = cap;
    }
    h->items[h->count++] = item;
    return AT_OK;
}

static bool earlier(const at_order *o, size_t a, size_t b)
{
    return o->s[a].seq < o->s[b].seq;
}

static at_status heap_put(at_order *o, heap *h, size_t node)
{
    at_status st = push(h, node);

    if (st != AT_OK) return st;
    for (size_t i = h->count - 1, up; i && earlier(o, node, h->items[up = (i - 1) / 2]); i = up) {
        h->items[i] = h->items[up];
        h->items[up] = node;
    }
    return AT_OK;
}

static size_t heap_take(at_order *o, heap *h)
{
    size_t top = h->items[0], last = h->items[--h->count], i = 0, child;

    while ((child = 2 * i + 1) < h->count) {
        if (child + 1 < h->count && earlier(o, h->items[child + 1], h->items[child])) child++;
        if (!earlier(o, h->items[child], last)) break;
        h->items[i] = h->items[child];
        i = child;
    }
    if (h->count) h->items[i] = last;
    return top;
}

static bool ready(const state *s)
{
    return s->pending && !s->staged && s->blocks == 0;
}

static at_status improve(at_order *o, size_t node, unsigned char rank)
{
    state *s = &o->s[node];

    if (s->rank <= rank) return AT_OK;
    s->rank = rank;
    return ready(s) ? heap_put(o, &o->ready[rank], node) : AT_OK;
}

static at_status add_edge(at_order *o, size_t *first, size_t to)
{
    edge *grown;
    size_t cap = o->e.cap ? o->e.cap * 2 : 64;

    if (o->e.count == o->e.cap) {
        grown = at_realloc(o->e.items, cap * sizeof *grown);
        if (!grown) return no_memory();
        o->e.items = grown;
        o->e.cap = cap;
    }
    o->e.items[o->e.count] = (edge){.to = to, .next = *first};
    *first = ++o->e.count;
    return AT_OK;
}

static bool is_cached(const at_order *o, size_t node)
{
    return o->cached && o->cached(o->ctx, node);
}

// `to` waits for `from`; both are pending. An edge that is there twice counts twice, both ways.
static at_status block(at_order *o, size_t from, size_t to)
{
    at_status st = AT_OK;
    state *f = &o->s[from], *t = &o->s[to];

    AT_TRY(add_edge(o, &f->out_first, to));
    AT_TRY(add_edge(o, &t->in_first, from));
    t->blocks++;
    if (t->blocks_output) AT_TRY(improve(o, from, 2));
    if (o->nodes[to].output && !f->blocks_output) {
        f->blocks_output = true;
        AT_TRY(improve(o, from, 1));
        for (size_t i = f->in_first; i; i = o->e.items[i - 1].next) {
            if (o->s[o->e.items[i - 1].to].pending) AT_TRY(improve(o, o->e.items[i - 1].to, 2));
        }
    }
out:
    return st;
}

// Make `node` and what it needs pending, as ComfyUI's add_node: a stack, the last input first.
static at_status collect(at_order *o, size_t node)
{
    at_status st = AT_OK;
    size_t id;

    o->todo.count = o->links.count = o->fresh.count = 0;
    AT_TRY(push(&o->todo, node));
    while (o->todo.count) {
        id = o->todo.items[--o->todo.count];
        if (o->s[id].pending) continue;
        AT_TRY(push(&o->fresh, id));
        o->s[id] = (state){.pending = true, .seq = o->seq++, .rank = o->nodes[id].output ? 0 : 3};
        o->pending++;
        for (size_t i = 0; i < o->nodes[id].link_count; i++) {
            const at_order_link *l = &o->nodes[id].links[i];
            if (l->lazy || is_cached(o, l->from)) continue;
            AT_TRY(push(&o->todo, l->from));
            AT_TRY(push(&o->links, l->from));
            AT_TRY(push(&o->links, id));
        }
    }
out:
    return st;
}

at_status at_order_add(at_order *o, size_t node)
{
    at_status st = AT_OK;

    AT_TRY(collect(o, node));
    for (size_t i = 0; i < o->links.count; i += 2) {
        AT_TRY(block(o, o->links.items[i], o->links.items[i + 1]));
    }
    for (size_t i = 0; i < o->fresh.count; i++) {
        size_t id = o->fresh.items[i];
        if (ready(&o->s[id])) AT_TRY(heap_put(o, &o->ready[o->s[id].rank], id));
    }
out:
    return st;
}

at_status at_order_require(at_order *o, size_t from, size_t to)
{
    at_status st;

    if (is_cached(o, from)) return AT_OK;
    st = at_order_add(o, from);
    return st == AT_OK ? block(o, from, to) : st;
}

bool at_order_empty(const at_order *o)
{
    return o->pending == 0;
}

bool at_order_next(at_order *o, size_t *node)
{
    for (unsigned char rank = 0; rank < 4; rank++) {
        heap *h = &o->ready[rank];
        while (h->count) {
            size_t id = heap_take(o, h);
            if (!ready(&o->s[id]) || o->s[id].rank != rank) continue;
            o->s[id].staged = true;
            *node = id;
            return true;
        }
    }
    return false;
}

at_status at_order_done(at_order *o, size_t node)
{
    at_status st = AT_OK;
    state *s = &o->s[node];

    s->pending = s->staged = false;
    o->pending--;
    for (size_t i = s->out_first; i; i = o->e.items[i - 1].next) {
        size_t to = o->e.items[i - 1].to;
        if (--o->s[to].blocks > 0 || !ready(&o->s[to])) continue;
        AT_TRY(heap_put(o, &o->ready[o->s[to].rank], to));
    }
out:
    s->out_first = 0;
    return st;
}

void at_order_sleep(at_order *o, size_t node)
{
    o->s[node].staged = false;
    o->s[node].blocks++;
}

at_status at_order_wake(at_order *o, size_t node)
{
    state *s = &o->s[node];

    s->blocks--;
    return ready(s) ? heap_put(o, &o->ready[s->rank], node) : AT_OK;
}

bool at_order_pending(const at_order *o, size_t node)
{
    return o->s[node].pending;
}

at_status at_order_grow(at_order *o, const at_order_node *nodes, size_t count)
{
    state *grown = at_realloc(o->s, (count + 1) * sizeof *grown);

    if (!grown) return no_memory();
    o->s = grown;
    memset(grown + o->count, 0, (count + 1 - o->count) * sizeof *grown);
    o->nodes = nodes;
    o->count = count;
    return AT_OK;
}

at_status at_order_again(at_order *o, size_t node)
{
    o->s[node].staged = false;
    return ready(&o->s[node]) ? heap_put(o, &o->ready[o->s[node].rank], node) : AT_OK;
}

bool at_order_blocked(const at_order *o, size_t node)
{
    return o->s[node].blocks > 0;
}

size_t at_order_in_cycle(const at_order *o)
{
    size_t first = 0;
    bool found = false;

    for (size_t i = 0; i < o->count; i++) {
        if (!o->s[i].pending || (found && !earlier(o, i, first))) continue;
        first = i;
        found = true;
    }
    return first;
}

at_status at_order_new(const at_order_node *nodes, size_t count,
                       bool (*cached)(void *ctx, size_t node), void *ctx, at_order **out)
{
    at_order *o = at_calloc(1, sizeof *o);

    *out = NULL;
    if (!o) return no_memory();
    *o = (at_order){.nodes = nodes, .count = count, .cached = cached, .ctx = ctx};
    o->s = at_calloc(count + 1, sizeof *o->s);
    if (!o->s) {
        at_order_free(o);
        return no_memory();
    }
    *out = o;
    return AT_OK;
}

void at_order_free(at_order *o)
{
    if (!o) return;
    for (int i = 0; i < 4; i++)
        at_free(o->ready[i].items);
    at_free(o->todo.items);
    at_free(o->links.items);
    at_free(o->fresh.items);
    at_free(o->e.items);
    at_free(o->s);
    at_free(o);
}
