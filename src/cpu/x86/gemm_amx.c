// SPDX-License-Identifier: Apache-2.0
// gemm_amx.c - products of bf16 pairs in Intel's matrix registers (AMX).
// Idea: eight registers of 16 rows by 64 bytes: four sums (32x32), two of a, two of b. A panel of pairs [k][32] is
// exactly what the registers want of b, so nothing is packed anew.
// Easy to get wrong: the kernel must be asked before the first use (at_cpu_amx_allowed), and every thread sets the
// registers' shapes for itself; oneDNN does the same with its own shapes, so they hold only between begin and end.
// Owns nothing.
#include <immintrin.h>

#include "cpu/x86/avx512.h"

#define ALL(x)                                                                                     \
    {                                                                                              \
        x, x, x, x, x, x, x, x                                                                     \
    }
// Constant, not built on the stack: gcc 12's intrinsic says that it reads 8 of the 64 bytes, and the compiler drops
// stores to the others.
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; // of a row of each register
    uint8_t rows[16];
} shapes = {.palette = 1, .bytes = ALL(64), .rows = ALL(16)};

void at_amx_begin(void)
{
    _tile_loadconfig(&shapes);
}

void at_amx_end(void)
{
    _tile_release();
}

void at_amx_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                 int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    size_t row_a = (size_t)lda * 4, row_c = (size_t)ldc * 4;

    (void)rows;
    (void)segments;
    (void)off;
    if (add) {
        _tile_loadd(0, c, row_c);
        _tile_loadd(1, c + 16, row_c);
        _tile_loadd(2, c + 16 * ldc, row_c);
        _tile_loadd(3, c + 16 * ldc + 16, row_c);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < k_len; k += 16) {
        _tile_loadd(4, a + k, row_a);
        _tile_loadd(5, a + 16 * lda + k, row_a);
        _tile_loadd(6, b + k * 32, 128);
        _tile_loadd(7, b + k * 32 + 16, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, row_c);
    _tile_stored(1, c + 16, row_c);
    _tile_stored(2, c + 16 * ldc, row_c);
    _tile_stored(3, c + 16 * ldc + 16, row_c);
}
