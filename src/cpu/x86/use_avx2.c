// SPDX-License-Identifier: Apache-2.0
// use_avx2.c - the AVX2 table and the slots that it serves.
// Idea: nothing here needs the instructions themselves, so this file is compiled for any x86-64.
#include "cpu/cpu_impl.h"
#include "cpu/x86/avx2.h"

static const at_cpu_kernels table = {
    .name = "avx2",
    .mr = 6,
    .nr = 16,
    .tile = at_avx2_tile,
    .pack = at_avx2_pack,
    .dots = at_avx2_dots,
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

static at_status linear(void *stream, const at_linear_args *a)
{
    (void)stream;
    return at_cpu_gemm_linear(&table, a);
}

void at_cpu_use_avx2(at_backend *b)
{
    b->linear = linear;
}
