// SPDX-License-Identifier: Apache-2.0
// cpu.c - which code serves which slot on this CPU.
// Idea: the table starts as plain C; each set of twins overwrites what it does faster.
// Owns: the chosen table and its description, written once under call_once.
#include "cpu/cpu.h"

#include <stdio.h>
#include <string.h>
#include <threads.h>

#include "base/thread.h"
#include "cpu/cpu_impl.h"

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
    .norm = at_cpu_ref_norm,
    .group_norm = at_cpu_ref_group_norm,
    .rope = at_cpu_ref_rope,
    .conv2d = at_cpu_ref_conv2d,
    .embedding = at_cpu_ref_embedding,
};

// The one chosen table of the process.
static at_backend chosen;
static char description[96];
static once_flag once = ONCE_FLAG_INIT;

static void choose(void)
{
    chosen = reference;
    snprintf(description, sizeof description, "CPU, %d threads, plain C", at_threads());
}

const at_backend *at_cpu_backend(void)
{
    call_once(&once, choose);
    return &chosen;
}

const at_backend *at_cpu_reference(void)
{
    return &reference;
}

const char *at_cpu_describe(void)
{
    call_once(&once, choose);
    return description;
}

int at_cpu_variants(at_cpu_variant out[AT_CPU_VARIANTS])
{
    out[0] = (at_cpu_variant){"chosen", at_cpu_backend()};
    return 1;
}
