// SPDX-License-Identifier: Apache-2.0
// use_avx512.c - the AVX-512 tables, with and without bf16 pairs, and the slots that they serve.
// Idea: rows are bound by memory and stay with AVX2; products and the softmax use the wide
// registers. Nothing here needs the instructions themselves, so this file is compiled for any
// x86-64.
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpu_impl.h"
#include "cpu/x86/avx2.h"
#include "cpu/x86/avx512.h"

#define COMMON_LEAVES                                                                              \
    .mr = 14, .nr = 32, .kc = 256, .tile = at_avx512_tile, .pack = at_avx512_pack,                 \
    .dots = at_avx512_dots, .absmax = at_avx2_absmax, .quantise = at_avx2_quantise,                \
    .quantise_words = at_avx2_quantise_words, .from_s32 = at_avx512_from_s32,                      \
    .wino_input = at_avx2_wino_input, .wino_output = at_avx2_wino_output,                          \
    .wino_filter = at_avx2_wino_filter, .finish = at_avx512_finish, .binary = at_avx2_binary,      \
    .mul_add = at_avx2_mul_add, .axpy = at_avx2_axpy, .sum = at_avx2_sum,                          \
    .squares = at_avx2_squares, .norm = at_avx2_norm, .channel_sum = at_avx2_channel_sum,          \
    .channel_squares = at_avx2_channel_squares, .channel_affine = at_avx2_channel_affine,          \
    .rotate = at_avx2_rotate, .max = at_avx512_max, .exp_sum = at_avx512_exp_sum,                  \
    .scale = at_avx2_scale
#define ROWS_F32  .load = at_avx2_load, .store = at_avx2_store
#define ROWS_BF16 .load = at_avx512bf16_load, .store = at_avx512bf16_store

const at_cpu_kernels at_cpu_avx512_table = {.name = "avx512", COMMON_LEAVES, ROWS_F32};
const at_cpu_kernels at_cpu_avx512bf16_table = {.name = "avx512bf16",
                                                COMMON_LEAVES,
                                                ROWS_BF16,
                                                .pair_tile = at_avx512bf16_tile,
                                                .exp_pairs = at_avx512bf16_exp_pairs};

const at_cpu_kernels at_cpu_amx_table = {.name = "amx",
                                         COMMON_LEAVES,
                                         ROWS_BF16,
                                         .pair_tile = at_avx512bf16_tile,
                                         .exp_pairs = at_avx512bf16_exp_pairs,
                                         .matrix_tile = at_amx_tile,
                                         .matrix_begin = at_amx_begin,
                                         .matrix_end = at_amx_end};

// The kernel keeps no room for the registers' 8 KiB in a thread's saved state until it is asked.
bool at_cpu_amx_allowed(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ASK_PERMISSION = 0x1023, TILE_DATA = 18 }; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

// Slots carry no context: one small function each names the table.
#define SLOT(name, args, driver, table)                                                            \
    static at_status name(void *stream, const args *a)                                             \
    {                                                                                              \
        (void)stream;                                                                              \
        return driver(&table, a);                                                                  \
    }
SLOT(linear_wide, at_linear_args, at_cpu_gemm_linear, at_cpu_avx512_table)
SLOT(linear_pairs, at_linear_args, at_cpu_gemm_linear, at_cpu_avx512bf16_table)
SLOT(geglu_wide, at_geglu_args, at_cpu_gemm_geglu, at_cpu_avx512_table)
SLOT(geglu_pairs, at_geglu_args, at_cpu_gemm_geglu, at_cpu_avx512bf16_table)
SLOT(attention_wide, at_attention_args, at_cpu_flash_attention, at_cpu_avx512_table)
SLOT(attention_pairs, at_attention_args, at_cpu_flash_attention, at_cpu_avx512bf16_table)
SLOT(attention_matrix, at_attention_args, at_cpu_flash_attention, at_cpu_amx_table)
SLOT(conv2d_wide, at_conv2d_args, at_cpu_gemm_conv2d, at_cpu_avx512_table)

void at_cpu_use_avx512(at_backend *b)
{
    at_cpu_use_avx2(b);
    b->linear = linear_wide;
    b->geglu = geglu_wide;
    b->attention = attention_wide;
    b->conv2d = conv2d_wide;
}

void at_cpu_use_avx512bf16(at_backend *b)
{
    at_cpu_use_avx512(b);
    b->linear = linear_pairs;
    b->geglu = geglu_pairs;
    b->attention = attention_pairs;
}

void at_cpu_use_amx(at_backend *b)
{
    at_cpu_use_avx512bf16(b);
    b->attention = attention_matrix;
}
