// SPDX-License-Identifier: Apache-2.0
// quantize_test.c - palettes and what becomes of pictures against hashes of Pillow 11.3's results; smaller ones
// are compared value by value in tests/nodes.
#include "image/quantize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

// n x n pixels of noise in steps; the 300 x 300 ones have more than 65536 colours.
static const struct row {
    int n, step, colors;
    bool diffuse;
    int count;
    uint32_t palette, picture; // FNV-1a of their bytes
} rows[] = {
    {300, 1, 256, false, 256, 0xf8aa8753u, 0xfdcf443cu},
    {300, 1, 17, true, 17, 0xd1eb1d48u, 0x4f3d029cu},
    {64, 40, 200, false, 200, 0xa90474e3u, 0x3fbf1357u},
    {64, 1, 64, true, 64, 0x8c61f029u, 0x6f0e47e3u},
};

static uint8_t *noise(const struct row *r)
{
    size_t n = (size_t)(r->n * r->n) * 3;
    uint8_t *p = malloc(n);
    uint32_t v = 12345;
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        v = v * 1664525u + 1013904223u;
        p[i] = (uint8_t)((int)(v >> 24) / r->step * r->step);
    }
    return p;
}

static uint32_t hash(const uint8_t *p, size_t n)
{
    uint32_t h = 2166136261u;
    while (n--)
        h = (h ^ *p++) * 16777619u;
    return h;
}

static void palettes_and_pictures_are_pillows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        uint8_t *p = noise(r);
        at_palette palette;
        assert_int_equal(at_palette_make(p, r->n * r->n, r->colors, &palette), AT_OK);
        assert_int_equal(palette.count, r->count);
        assert_int_equal(hash(palette.color[0], (size_t)palette.count * 3), r->palette);
        assert_int_equal(at_palette_apply(&palette, p, r->n, r->n, r->diffuse), AT_OK);
        assert_int_equal(hash(p, (size_t)(r->n * r->n) * 3), r->picture);
        free(p);
    }
}

static void impossible_palettes_are_refused(void **state)
{
    uint8_t pixel[3] = {1, 2, 3};
    at_palette p;
    (void)state;
    assert_int_equal(at_palette_make(pixel, 1, 0, &p), AT_EINVAL);
    assert_int_equal(at_palette_make(pixel, 1, 257, &p), AT_EINVAL);
    assert_int_equal(at_palette_make(pixel, 0, 2, &p), AT_EINVAL);
    assert_int_equal(at_palette_make(pixel, 1, 256, &p), AT_OK); // fewer colours than asked for
    assert_int_equal(p.count, 1);
    assert_memory_equal(p.color[0], pixel, 3);
}

static void failed_allocations_leak_nothing(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    uint8_t *p = noise(&rows[2]);
    (void)state;
    for (uint64_t n = 1; hit; n++) {
        at_palette palette;
        at_mem_fail_at(n, false);
        at_status st = at_palette_make(p, 64 * 64, 8, &palette);
        if (st == AT_OK) st = at_palette_apply(&palette, p, 64, 64, true);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(palettes_and_pictures_are_pillows),
        cmocka_unit_test(impossible_palettes_are_refused),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
