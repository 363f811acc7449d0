// SPDX-License-Identifier: Apache-2.0
// dry.c - see dry.h.
#include "tensor/dry.h"

#include <string.h>

#include "base/mem.h"

#include "tensor/pool_size.h"

// Addresses that nobody has: the low half of what pointers may be, past any real mapping's usual place. Regions of
// SPAN bytes are given out one after the other, so that an address tells its number.
enum { SPAN_BITS = 36, EXTRAS = 1 << 16 };
static const uintptr_t g_base = (uintptr_t)1 << 60;
static uintptr_t g_next;

static const at_device *g_like; // stood in for; NULL: nobody
static at_device g_dry;
// What a pool's block is larger than what was asked for, by region's number.
static struct {
    uintptr_t number;
    size_t bytes;
} g_extra[EXTRAS];

// Beside what at_device_alloc counts.
static void count(at_device *d, size_t bytes)
{
    atomic_fetch_add_explicit(&d->live_bytes, bytes, memory_order_relaxed);
}

static at_status dry_alloc(at_device *d, size_t bytes, void **out)
{
    *out = (void *)(g_base + (g_next << SPAN_BITS)); // never read: only told apart from others
    if (g_like && !g_like->host) {
        size_t extra = at_pool_block(bytes) - bytes;
        g_extra[g_next % EXTRAS].number = g_next;
        g_extra[g_next % EXTRAS].bytes = extra;
        count(d, extra);
    }
    g_next += 1 + (bytes >> SPAN_BITS);
    if (g_next >> (60 - SPAN_BITS)) g_next = 0;
    return AT_OK;
}

static void dry_free(at_device *d, void *p)
{
    uintptr_t number = ((uintptr_t)p - g_base) >> SPAN_BITS;
    size_t i = number % EXTRAS; // of one that lived very long nothing is known: it counts on

    if (g_extra[i].number != number) return;
    count(d, 0 - g_extra[i].bytes);
    g_extra[i].bytes = 0;
}

// --- weights that were used --------------------------------------------------------------------------
typedef struct seen {
    const at_packed *of;
    size_t bytes;
} seen;
static struct {
    seen *items; // open addressing, at most half full
    size_t count, cap;
    at_dry_weights all;
} g_seen;

static seen *place(seen *items, size_t cap, const at_packed *of, size_t bytes)
{
    size_t i = ((uintptr_t)of / 8 * 2654435761u) & (cap - 1);
    while (items[i].of && (items[i].of != of || items[i].bytes != bytes))
        i = (i + 1) & (cap - 1);
    return &items[i];
}

static bool grow(void)
{
    size_t cap = g_seen.cap ? 2 * g_seen.cap : 4096;
    seen *items = at_calloc(cap, sizeof *items);
    if (!items) return false;
    for (size_t i = 0; i < g_seen.cap; i++)
        if (g_seen.items[i].of)
            *place(items, cap, g_seen.items[i].of, g_seen.items[i].bytes) = g_seen.items[i];
    at_free(g_seen.items);
    g_seen.items = items;
    g_seen.cap = cap;
    return true;
}

static void see(const at_packed *of, size_t bytes)
{
    if (2 * g_seen.count >= g_seen.cap && !grow()) return;
    // Under 0 bytes each has a place that says that it is used at all.
    seen *any = place(g_seen.items, g_seen.cap, of, 0);
    if (!any->of) {
        any->of = of;
        g_seen.count++;
    }
    seen *s = place(g_seen.items, g_seen.cap, of, bytes);
    if (s->of) return;
    *s = (seen){of, bytes};
    g_seen.count++;
    g_seen.all.bytes += at_pool_block(bytes);
    if (bytes > g_seen.all.largest) g_seen.all.largest = bytes;
}

at_dry_weights at_dry_weights_used(void)
{
    return g_seen.all;
}

bool at_dry_weight_is_used(const at_packed *of)
{
    return g_seen.cap && place(g_seen.items, g_seen.cap, of, 0)->of;
}

void at_dry_forget(void)
{
    at_free(g_seen.items);
    memset(&g_seen, 0, sizeof g_seen);
}

// A slot is called: what it borrows is there for a moment, what it makes of weights from here on.
static at_status need(at_needs_of slot, const void *args)
{
    at_needs n = {0};
    void *p = NULL;

    if (!g_like || !g_like->ops->needs) return AT_OK;
    g_like->ops->needs((at_device *)(uintptr_t)g_like, slot, args, &n);
    for (int i = 0; i < n.n; i++)
        see(n.forms[i].of, n.forms[i].bytes);
    if (n.scratch && at_device_alloc(&g_dry, n.scratch, &p) == AT_OK)
        at_device_free(&g_dry, p, n.scratch);
    return AT_OK;
}

static at_status dry_in(at_device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)dst;
    (void)src;
    (void)bytes;
    return AT_OK;
}

static at_status dry_out(at_device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)src;
    if (bytes) memset(dst, 0, bytes);
    return AT_OK;
}

static at_status dry_wait(at_device *d)
{
    (void)d;
    return AT_OK;
}

static at_status dry_memory(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)d;
    *free_bytes = *total_bytes = (uint64_t)1 << 60;
    return AT_OK;
}

#define NOTHING(slot, type)                                                                        \
    static at_status dry_##slot(void *stream, const type *a)                                       \
    {                                                                                              \
        (void)stream;                                                                              \
        (void)a;                                                                                   \
        return AT_OK;                                                                              \
    }
#define NEEDS(slot, type, what)                                                                    \
    static at_status dry_##slot(void *stream, const type *a)                                       \
    {                                                                                              \
        (void)stream;                                                                              \
        return need(what, a);                                                                      \
    }
NOTHING(binary, at_binary_args)
NOTHING(gate_add, at_gate_add_args)
NOTHING(lincomb, at_lincomb_args)
NEEDS(linear, at_linear_args, AT_NEEDS_LINEAR)
NEEDS(attention, at_attention_args, AT_NEEDS_ATTENTION)
NOTHING(attention_merge, at_attention_merge_args)
NEEDS(norm, at_norm_args, AT_NEEDS_NORM)
NEEDS(group_norm, at_group_norm_args, AT_NEEDS_GROUP_NORM)
NOTHING(group_stats, at_group_norm_args)
NEEDS(rope, at_rope_args, AT_NEEDS_ROPE)
NEEDS(conv2d, at_conv2d_args, AT_NEEDS_CONV2D)
NEEDS(embedding, at_embedding_args, AT_NEEDS_EMBEDDING)
NEEDS(geglu, at_geglu_args, AT_NEEDS_GEGLU)

static at_status dry_copy(void *stream, const at_view *src, const at_view *dst)
{
    (void)stream;
    (void)src;
    (void)dst;
    return AT_OK;
}

static at_status dry_fill(void *stream, const at_view *dst, double value)
{
    (void)stream;
    (void)dst;
    (void)value;
    return AT_OK;
}

static at_status dry_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    (void)stream;
    (void)x;
    (void)out;
    (void)act;
    return AT_OK;
}

#define DRY_SLOTS                                                                                  \
    .abi = AT_BACKEND_ABI, .name = "dry", .copy = dry_copy, .fill = dry_fill, .unary = dry_unary,  \
    .binary = dry_binary, .gate_add = dry_gate_add, .lincomb = dry_lincomb, .linear = dry_linear,  \
    .attention = dry_attention, .attention_merge = dry_attention_merge, .norm = dry_norm,          \
    .group_norm = dry_group_norm, .group_stats = dry_group_stats, .rope = dry_rope,                \
    .conv2d = dry_conv2d, .embedding = dry_embedding, .geglu = dry_geglu
static const at_backend whole = {DRY_SLOTS, .splits = false};
static const at_backend split = {DRY_SLOTS, .splits = true};

// A recording keeps what it took; what is done in it was counted when it was made.
static at_status dry_record(at_device *d)
{
    (void)d;
    return AT_OK;
}

static at_status dry_recorded(at_device *d, void **out)
{
    *out = d;
    return AT_OK;
}

static at_status dry_replay(at_device *d, void *recording)
{
    (void)d;
    (void)recording;
    return AT_OK;
}

static void dry_drop(at_device *d, void *recording)
{
    (void)d;
    (void)recording;
}

static at_status dry_ropes(void *stream, const at_rope_args *a, int n)
{
    for (int i = 0; i < n; i++)
        dry_rope(stream, &a[i]);
    return AT_OK;
}

#define DRY_OPS                                                                                    \
    .alloc = dry_alloc, .free = dry_free, .from_host = dry_in, .to_host = dry_out,                 \
    .synchronize = dry_wait, .memory = dry_memory
static const at_device_ops dry_ops = {DRY_OPS};
static const at_device_ops recording_ops = {DRY_OPS, .record_begin = dry_record,
                                            .record_end = dry_recorded, .replay = dry_replay,
                                            .recording_free = dry_drop};

static at_device g_dry = {.name = "dry", .description = "counts memory", .ops = &dry_ops};

at_device *at_device_dry(bool splits)
{
    g_like = NULL;
    g_dry.ops = &dry_ops;
    g_dry.stream = NULL;
    g_dry.backend = splits ? &split : &whole;
    return &g_dry;
}

at_device *at_device_dry_like(const at_device *like)
{
    static at_backend as;
    const at_backend *b = like->backend;

    as = whole;
    as.splits = b->splits;
    as.joins = b->joins;
    as.adds = b->adds;
    as.turns = b->turns;
    as.pieces = b->pieces;
    as.fp8_rows = b->fp8_rows;
    if (!b->attention_merge) as.attention_merge = NULL;
    if (!b->group_stats) as.group_stats = NULL;
    if (b->ropes) as.ropes = dry_ropes;
    g_dry.backend = &as;
    g_dry.ops = like->ops->record_begin ? &recording_ops : &dry_ops;
    g_dry.stream = like->stream; // of fp8_rows
    g_like = like;
    at_dry_forget();
    return &g_dry;
}
