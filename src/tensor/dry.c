// SPDX-License-Identifier: Apache-2.0
// dry.c - see dry.h.
#include "tensor/dry.h"

#include <string.h>

#include "base/mem.h"

// Addresses that nobody has: the low half of what pointers may be, past any real mapping's usual place.
static uintptr_t g_next = (uintptr_t)1 << 60;

static at_status dry_alloc(at_device *d, size_t bytes, void **out)
{
    (void)d;
    *out = (void *)g_next; // never read: only told apart from others
    g_next += (bytes + AT_ALIGN) / AT_ALIGN * AT_ALIGN;
    if (g_next > (uintptr_t)1 << 61) g_next = (uintptr_t)1 << 60;
    return AT_OK;
}

static void dry_free(at_device *d, void *p)
{
    (void)d;
    (void)p;
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
NOTHING(binary, at_binary_args)
NOTHING(gate_add, at_gate_add_args)
NOTHING(lincomb, at_lincomb_args)
NOTHING(linear, at_linear_args)
NOTHING(attention, at_attention_args)
NOTHING(attention_merge, at_attention_merge_args)
NOTHING(norm, at_norm_args)
NOTHING(group_norm, at_group_norm_args)
NOTHING(group_stats, at_group_norm_args)
NOTHING(rope, at_rope_args)
NOTHING(conv2d, at_conv2d_args)
NOTHING(embedding, at_embedding_args)
NOTHING(geglu, at_geglu_args)

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

static const at_device_ops dry_ops = {.alloc = dry_alloc,
                                      .free = dry_free,
                                      .from_host = dry_in,
                                      .to_host = dry_out,
                                      .synchronize = dry_wait,
                                      .memory = dry_memory};

static at_device g_dry = {.name = "dry", .description = "counts memory", .ops = &dry_ops};

at_device *at_device_dry(bool splits)
{
    g_dry.backend = splits ? &split : &whole;
    return &g_dry;
}
