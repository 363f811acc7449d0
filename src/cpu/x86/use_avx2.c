// SPDX-License-Identifier: Apache-2.0
// use_avx2.c - the AVX2 table and the slots that it serves.
// Idea: nothing here needs the instructions themselves, so this file is compiled for any x86-64.
#include "cpu/cpu_impl.h"
#include "cpu/x86/avx2.h"

const at_cpu_kernels at_cpu_avx2_table = {
    .name = "avx2",
    .mr = 6,
    .nr = 16,
    .kc = 256,
    .tile = at_avx2_tile,
    .pack = at_avx2_pack,
    .dots = at_avx2_dots,
    .int8_tile = at_avx2_int8_tile,
    .int8_pack = at_avx2_int8_pack,
    .absmax = at_avx2_absmax,
    .quantise = at_avx2_quantise,
    .quantise_words = at_avx2_quantise_words,
    .from_s32 = at_avx2_from_s32,
    .wino_input = at_avx2_wino_input,
    .wino_output = at_avx2_wino_output,
    .wino_filter = at_avx2_wino_filter,
    .load = at_avx2_load,
    .store = at_avx2_store,
    .finish = at_avx2_finish,
    .binary = at_avx2_binary,
    .mul_add = at_avx2_mul_add,
    .axpy = at_avx2_axpy,
    .sum = at_avx2_sum,
    .squares = at_avx2_squares,
    .norm = at_avx2_norm,
    .channel_sum = at_avx2_channel_sum,
    .channel_squares = at_avx2_channel_squares,
    .channel_affine = at_avx2_channel_affine,
    .rotate = at_avx2_rotate,
    .max = at_avx2_max,
    .exp_sum = at_avx2_exp_sum,
    .scale = at_avx2_scale,
};

// Slots carry no context: one small function each names the table.
#define SLOT(name, args, driver)                                                                   \
    static at_status name(void *stream, const args *a)                                             \
    {                                                                                              \
        (void)stream;                                                                              \
        return driver(&at_cpu_avx2_table, a);                                                      \
    }
SLOT(linear, at_linear_args, at_cpu_gemm_linear)
SLOT(geglu, at_geglu_args, at_cpu_gemm_geglu)
SLOT(attention, at_attention_args, at_cpu_flash_attention)
SLOT(conv2d, at_conv2d_args, at_cpu_gemm_conv2d)
SLOT(norm, at_norm_args, at_cpu_fast_norm)
SLOT(group_norm, at_group_norm_args, at_cpu_fast_group_norm)
SLOT(group_stats, at_group_norm_args, at_cpu_fast_group_stats)
SLOT(rope, at_rope_args, at_cpu_fast_rope)
SLOT(binary, at_binary_args, at_cpu_fast_binary)
SLOT(gate_add, at_gate_add_args, at_cpu_fast_gate_add)
SLOT(lincomb, at_lincomb_args, at_cpu_fast_lincomb)

static at_status copy(void *stream, const at_view *src, const at_view *dst)
{
    (void)stream;
    return at_cpu_fast_copy(&at_cpu_avx2_table, src, dst);
}

static at_status unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    (void)stream;
    return at_cpu_fast_unary(&at_cpu_avx2_table, x, out, act);
}

void at_cpu_use_avx2(at_backend *b)
{
    b->copy = copy;
    b->unary = unary;
    b->binary = binary;
    b->gate_add = gate_add;
    b->lincomb = lincomb;
    b->linear = linear;
    b->geglu = geglu;
    b->attention = attention;
    b->conv2d = conv2d;
    b->norm = norm;
    b->group_norm = group_norm;
    b->group_stats = group_stats;
    b->rope = rope;
}
