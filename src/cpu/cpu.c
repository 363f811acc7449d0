// SPDX-License-Identifier: Apache-2.0
// cpu.c - which code serves which slot on this CPU.
// Idea: the table starts as plain C; each set of twins overwrites what it does faster.
// Owns: the chosen table and its description, written once under call_once.
#include "cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/str.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

static const at_backend reference = {
    .abi = AT_BACKEND_ABI,
    .name = "cpu",
    .copy = at_cpu_ref_copy,
    .fill = at_cpu_ref_fill,
    .unary = at_cpu_ref_unary,
    .binary = at_cpu_ref_binary,
    .gate_add = at_cpu_ref_gate_add,
    .lincomb = at_cpu_ref_lincomb,
    .linear = at_cpu_ref_linear,
    .attention = at_cpu_ref_attention,
    .attention_merge = at_cpu_ref_attention_merge,
    .norm = at_cpu_ref_norm,
    .group_norm = at_cpu_ref_group_norm,
    .group_stats = at_cpu_ref_group_stats,
    .rope = at_cpu_ref_rope,
    .conv2d = at_cpu_ref_conv2d,
    .embedding = at_cpu_ref_embedding,
    .geglu = at_cpu_ref_geglu,
};

#if defined(__x86_64__)
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

// The brand string of CPUID leaves 0x80000002-4, without the padding that vendors put around it.
static void brand_name(char *out, size_t size)
{
    unsigned words[13] = {0};
    const char *text = (const char *)words;
    size_t len;

    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, words + 4 * i, words + 4 * i + 1, words + 4 * i + 2,
                    words + 4 * i + 3);
    while (*text == ' ')
        text++;
    len = strlen(text);
    while (len && text[len - 1] == ' ')
        len--;
    snprintf(out, size, "%.*s", (int)len, len ? text : "x86-64");
}
#else
static void brand_name(char *out, size_t size)
{
    snprintf(out, size, "CPU");
}
#endif

// A set of twins: its name in AT_OFF, whether this CPU has the instructions, what it overwrites.
typedef struct twins {
    const char *name, *label;
    bool (*able)(void);
    void (*use)(at_backend *b);
    const at_cpu_kernels *table; // its leaves; NULL if it has none
    bool stacked;                // stands on the set before it: off when that one is off
} twins;

#if defined(__x86_64__)
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

static bool has_amx(void)
{
    unsigned a, b, c, d;
    const unsigned bf16 = 1u << 22, tile = 1u << 24; // leaf 7, EDX
    return has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) &&
           (d & tile) && at_cpu_amx_allowed();
}
#endif

#ifdef AT_HAVE_DNNL
// Below AVX512-BF16 the library has no fast bf16, and our f32 is as fast (docs/bench/cpu.md); VNNI multiplies int8.
static bool has_fast_onednn(void)
{
#if defined(__x86_64__)
    return has_avx512() && (has_avx512bf16() || __builtin_cpu_supports("avx512vnni"));
#else
    return false;
#endif
}
#endif

// In the order in which they overwrite each other.
static const twins sets[] = {
#if defined(__x86_64__)
    {"avx2", "AVX2+FMA", has_avx2, at_cpu_use_avx2, &at_cpu_avx2_table, false},
    {"avx512", "AVX-512", has_avx512, at_cpu_use_avx512, &at_cpu_avx512_table, true},
    {"avx512bf16", "AVX512-BF16", has_avx512bf16, at_cpu_use_avx512bf16, &at_cpu_avx512bf16_table,
     true},
    {"amx", "AMX", has_amx, at_cpu_use_amx, &at_cpu_amx_table, true},
#endif
#ifdef AT_HAVE_DNNL
    {"onednn", "oneDNN", has_fast_onednn, at_cpu_use_onednn, NULL, false},
#endif
    {.name = NULL},
};

// The tables of the process, written once: [0] is the chosen one, then one for each able set.
static struct {
    once_flag once;
    at_backend tables[AT_CPU_VARIANTS];
    at_cpu_variant variants[AT_CPU_VARIANTS];
    int count;
    char description[160];
    const at_cpu_kernels *table;
} g_cpu = {.once = ONCE_FLAG_INIT};

// The slots by name, for kernel_name.
static const struct {
    const char *name;
    size_t offset;
} slots[] = {
#define SLOT(name)                                                                                 \
    {                                                                                              \
#name, offsetof(at_backend, name)                                                          \
    }
    SLOT(copy),     SLOT(fill),       SLOT(unary),       SLOT(binary),
    SLOT(gate_add), SLOT(lincomb),    SLOT(linear),      SLOT(attention),
    SLOT(norm),     SLOT(group_norm), SLOT(group_stats), SLOT(rope),
    SLOT(conv2d),   SLOT(embedding),  SLOT(geglu),       SLOT(attention_merge),
#undef SLOT
};

static bool same_slot(const at_backend *a, const at_backend *b, size_t offset)
{
    return memcmp((const char *)a + offset, (const char *)b + offset, sizeof(void (*)(void))) == 0;
}

// The first set, in the order above, whose function stands in the chosen table.
static const char *kernel_name(const char *slot)
{
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        const char *found = "plain C";
        if (strcmp(slots[i].name, slot) != 0) continue;
        if (same_slot(&g_cpu.tables[0], &reference, slots[i].offset)) return found;
        for (int v = g_cpu.count - 1; v > 0; v--)
            if (same_slot(&g_cpu.tables[0], &g_cpu.tables[v], slots[i].offset))
                found = g_cpu.variants[v].name;
        return found;
    }
    return NULL;
}

// Activations come and go with every op; returning their pages each time cost a fifth of the house
// model's processor time (docs/bench/cpu.md). A hint to the C library, for the whole process.
static void keep_freed_memory(void)
{
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20); // the largest that glibc takes
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, 16 << 20);
#endif
}

static void describe(const char *used)
{
    char brand[64];

    brand_name(brand, sizeof brand);
    snprintf(g_cpu.description, sizeof g_cpu.description, "%s, %d thread%s, %s", brand,
             at_threads(), at_threads() == 1 ? "" : "s", *used ? used : "plain C");
}

static void choose(void)
{
    char used[64] = "";
    size_t len = 0;
    bool on = true;

    keep_freed_memory();
    g_cpu.tables[0] = reference;
    g_cpu.count = 1;
    for (const twins *t = sets; t->name; t++) {
        if (!t->able()) continue;
        g_cpu.tables[g_cpu.count] = reference;
        t->use(&g_cpu.tables[g_cpu.count]);
        g_cpu.variants[g_cpu.count] = (at_cpu_variant){t->name, &g_cpu.tables[g_cpu.count]};
        g_cpu.count++;
        on = (on || !t->stacked) && !at_has_word(getenv("AT_OFF"), t->name);
        if (!on) continue;
        t->use(&g_cpu.tables[0]);
        if (t->table) g_cpu.table = t->table;
        len += (size_t)snprintf(used + len, sizeof used - len, "%s%s", len ? ", " : "", t->label);
    }
#ifdef AT_HAVE_DNNL
    g_cpu.tables[g_cpu.count] = reference;
    at_cpu_use_onednn_all(&g_cpu.tables[g_cpu.count]);
    g_cpu.variants[g_cpu.count] = (at_cpu_variant){"onednn_all", &g_cpu.tables[g_cpu.count]};
    g_cpu.count++;
#endif
    g_cpu.tables[0].kernel_name = kernel_name;
    g_cpu.variants[0] = (at_cpu_variant){"chosen", &g_cpu.tables[0]};
    describe(used);
}

const at_backend *at_cpu_backend(void)
{
    call_once(&g_cpu.once, choose);
    return &g_cpu.tables[0];
}

const at_backend *at_cpu_reference(void)
{
    return &reference;
}

const char *at_cpu_describe(void)
{
    call_once(&g_cpu.once, choose);
    return g_cpu.description;
}

const at_cpu_kernels *at_cpu_table(void)
{
    call_once(&g_cpu.once, choose);
    return g_cpu.table;
}

int at_cpu_variants(at_cpu_variant out[AT_CPU_VARIANTS])
{
    call_once(&g_cpu.once, choose);
    memcpy(out, g_cpu.variants, (size_t)g_cpu.count * sizeof *out);
    return g_cpu.count;
}
