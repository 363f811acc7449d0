// SPDX-License-Identifier: Apache-2.0
// png_test.c - every kind of PNG in, our kind out, and files that lie.
#include "image/image.h"

#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

// --- pictures of any kind, made with libpng ----------------------------------------------------------

typedef struct kind {
    int depth, type, interlace;
    bool trns;
} kind;

typedef struct blob {
    uint8_t data[1 << 16];
    size_t n;
} blob;

static void append(png_structp png, png_bytep bytes, size_t n)
{
    blob *b = png_get_io_ptr(png);

    assert_true(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, bytes, n);
    b->n += n;
}

static void flush(png_structp png)
{
    (void)png;
}

enum { W = 13, H = 9 };

static int channels_of(int type)
{
    return type == PNG_COLOR_TYPE_RGB          ? 3
           : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
           : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                               : 1;
}

// Sample c of pixel (x, y), at the file's depth.
static unsigned sample(const kind *k, int x, int y, int c)
{
    unsigned v = (unsigned)(x * 7 + y * 31 + c * 101);

    if (k->type == PNG_COLOR_TYPE_PALETTE) return v % (k->depth < 2 ? 2 : 4);
    return k->depth == 16 ? v * 97 % 65536 : v % (1u << k->depth);
}

static const png_color palette[4] = {{255, 0, 0}, {0, 255, 0}, {10, 20, 30}, {255, 255, 255}};
static const png_byte palette_alpha[2] = {0, 128};

static void make(const kind *k, blob *b)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_color_16 clear = {.index = 0, .gray = 1, .red = 0, .green = 101 % 256, .blue = 202};
    png_byte rows[H][W * 8] = {{0}};
    png_bytep pointers[H];
    int channels = channels_of(k->type);

    b->n = 0;
    assert_int_equal(setjmp(png_jmpbuf(png)), 0);
    png_set_write_fn(png, b, append, flush);
    png_set_IHDR(png, info, W, H, k->depth, k->type, k->interlace, 0, 0);
    if (k->type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette, k->depth == 1 ? 2 : 4);
    if (k->trns)
        png_set_tRNS(png, info, k->type == PNG_COLOR_TYPE_PALETTE ? palette_alpha : NULL, 2,
                     &clear);
    for (int y = 0; y < H; y++) {
        pointers[y] = rows[y];
        for (int i = 0; i < W * channels; i++) {
            unsigned v = sample(k, i / channels, y, i % channels);
            if (k->depth == 16) {
                rows[y][2 * i] = (png_byte)(v >> 8);
                rows[y][2 * i + 1] = (png_byte)v;
            } else {
                rows[y][i] = (png_byte)v;
            }
        }
    }
    png_write_info(png, info);
    if (k->depth < 8) png_set_packing(png);
    png_write_image(png, pointers);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
}

static float eight_bits(const kind *k, unsigned v)
{
    unsigned max = (1u << (k->depth < 8 ? k->depth : 8)) - 1;

    return (float)(k->depth == 16 ? v >> 8 : v * 255 / max) / 255.0f;
}

static void expect_pixel(const kind *k, const at_picture *p, int x, int y)
{
    const float *rgb = p->rgb + ((size_t)y * W + (size_t)x) * 3;
    int colors = k->type & PNG_COLOR_MASK_COLOR ? 3 : 1;

    if (k->type == PNG_COLOR_TYPE_PALETTE) {
        unsigned i = sample(k, x, y, 0);
        assert_true(rgb[0] == (float)palette[i].red / 255.0f);
        assert_true(rgb[2] == (float)palette[i].blue / 255.0f);
        if (k->trns)
            assert_true(p->alpha[y * W + x] == (i < 2 ? (float)palette_alpha[i] / 255.0f : 1));
        return;
    }
    for (int c = 0; c < 3; c++)
        assert_true(rgb[c] == eight_bits(k, sample(k, x, y, colors == 3 ? c : 0)));
    if (k->type & PNG_COLOR_MASK_ALPHA)
        assert_true(p->alpha[y * W + x] == eight_bits(k, sample(k, x, y, colors)));
}

static void every_kind_decodes_to_its_pixels(void **state)
{
    static blob b;
    int kinds = 0;
    (void)state;

    for (int type = 0; type <= 6; type++)
        for (int depth = 1; depth <= 16; depth *= 2)
            for (int odd = 0; odd < 4; odd++) {
                kind k = {depth, type, odd & 1, odd & 2};
                at_picture p;
                bool legal = type == 0   ? true
                             : type == 3 ? depth <= 8
                                         : (type == 2 || type == 4 || type == 6) && depth >= 8;
                if (!legal || (k.trns && (type & PNG_COLOR_MASK_ALPHA))) continue;
                make(&k, &b);
                if (at_png_decode("odd.png", b.data, b.n, &p) != AT_OK)
                    fail_msg("type %d depth %d: %s", type, depth, at_error_text());
                assert_int_equal(p.width, W);
                assert_int_equal(p.height, H);
                assert_int_equal(p.alpha != NULL, type >= 4 || (type == 3 && k.trns));
                for (int y = 0; y < H; y++)
                    for (int x = 0; x < W; x++)
                        expect_pixel(&k, &p, x, y);
                at_picture_free(&p);
                kinds++;
            }
    assert_int_equal(kinds, 20 + 8 + 16 + 4 + 4);
}

// --- round trips -------------------------------------------------------------------------------------

static void saved_values_are_clipped_and_truncated(void **state)
{
    static const float in[8] = {0, 1, .5f, 1.7f, -3, NAN, 254.99f / 255, INFINITY};
    static const int want[8] = {0, 255, 127, 255, 0, 0, 254, 255};
    uint8_t *bytes;
    size_t n;
    at_picture p;
    (void)state;

    for (int level = 0; level <= 9; level++) {
        assert_int_equal(at_png_encode(in, 2, 1, 4, level, NULL, 0, &bytes, &n), AT_OK);
        assert_int_equal(at_png_decode("x.png", bytes, n, &p), AT_OK);
        assert_non_null(p.alpha);
        for (int i = 0; i < 8; i++) {
            float got = i % 4 == 3 ? p.alpha[i / 4] : p.rgb[i / 4 * 3 + i % 4];
            assert_int_equal((int)lrintf(got * 255), want[i]);
        }
        at_picture_free(&p);
        at_free(bytes);
    }
}

static void texts_come_back_as_they_went(void **state)
{
    static const float pixel[3] = {0, 0, 0};
    at_text_chunk in[] = {{"prompt", "{\"3\": {\"class_type\": \"KSampler\"}}"},
                          {"workflow", ""},
                          {"note", "caf\xc3\xa9 \xe7\x8b\x90"}};
    uint8_t *bytes;
    size_t n;
    at_picture p;
    (void)state;

    assert_int_equal(at_png_encode(pixel, 1, 1, 3, 4, in, 3, &bytes, &n), AT_OK);
    assert_non_null(memmem(bytes, n, "tEXtprompt\0{", 12));
    assert_non_null(memmem(bytes, n, "iTXtnote", 8));
    assert_int_equal(at_png_decode("x.png", bytes, n, &p), AT_OK);
    assert_int_equal(p.text_count, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(p.text[i].key, in[i].key);
        assert_string_equal(p.text[i].value, in[i].value);
    }
    at_picture_free(&p);
    at_free(bytes);
}

static void a_large_workflow_fits_in_a_chunk(void **state)
{
    static const float pixel[3] = {0, 0, 0};
    size_t len = 4 << 20, n;
    char *long_text = malloc(len + 1);
    at_text_chunk in = {"workflow", long_text};
    uint8_t *bytes;
    at_picture p;
    (void)state;

    memset(long_text, 'x', len);
    long_text[len] = 0;
    assert_int_equal(at_png_encode(pixel, 1, 1, 3, 4, &in, 1, &bytes, &n), AT_OK);
    assert_int_equal(at_png_decode("x.png", bytes, n, &p), AT_OK);
    assert_int_equal(strlen(p.text[0].value), len);
    at_picture_free(&p);
    at_free(bytes);
    free(long_text);
}

static void impossible_requests_are_refused(void **state)
{
    static const float pixel[4] = {0};
    at_text_chunk bad[] = {{"", "v"},
                           {"a\nb", "v"},
                           {"k", "\xff"},
                           {"0123456789012345678901234567890123456789"
                            "0123456789012345678901234567890123456789",
                            "v"}};
    uint8_t *bytes;
    size_t n;
    (void)state;

    assert_int_equal(at_png_encode(pixel, 0, 1, 3, 4, NULL, 0, &bytes, &n), AT_EINVAL);
    assert_int_equal(at_png_encode(pixel, 1, 65536, 3, 4, NULL, 0, &bytes, &n), AT_EINVAL);
    assert_int_equal(at_png_encode(pixel, 1, 1, 2, 4, NULL, 0, &bytes, &n), AT_EINVAL);
    assert_int_equal(at_png_encode(pixel, 1, 1, 3, 10, NULL, 0, &bytes, &n), AT_EINVAL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(at_png_encode(pixel, 1, 1, 3, 4, &bad[i], 1, &bytes, &n), AT_EINVAL);
    assert_null(bytes);
}

// --- files that lie ----------------------------------------------------------------------------------

static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffff;

    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void set_size(blob *b, uint32_t w, uint32_t h)
{
    put32(b->data + 16, w);
    put32(b->data + 20, h);
    put32(b->data + 29, crc(b->data + 12, 17));
}

static void refused(const blob *b, size_t n, at_status want, const char *words)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_picture p;
    at_status st;

    at_error_clear();
    st = at_png_decode("bad.png", b->data, n, &p);
    if (st != want || !strstr(at_error_text(), words) || !strstr(at_error_text(), "bad.png"))
        fail_msg("status %d: \"%s\", wanted \"%s\"", st, at_error_text(), words);
    assert_null(p.rgb);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void every_truncation_is_refused(void **state)
{
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_PALETTE, 1, true};
    (void)state;

    make(&k, &b);
    for (size_t n = 0; n < b.n; n++)
        refused(&b, n, AT_EFORMAT, "");
}

static void damaged_bytes_never_pass_unnoticed_in_what_matters(void **state)
{
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_RGB, 0, false};
    (void)state;

    make(&k, &b);
    for (size_t i = 12; i < b.n; i++) { // behind the signature, IHDR's length
        at_picture p;
        b.data[i] ^= 0x10;
        assert_int_equal(at_png_decode("bad.png", b.data, b.n, &p), AT_EFORMAT);
        b.data[i] ^= 0x10;
    }
}

static void impossible_sizes_are_refused_without_memory(void **state)
{
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_RGB, 0, false};
    (void)state;

    make(&k, &b);
    set_size(&b, 0, H);
    refused(&b, b.n, AT_EFORMAT, "width");
    set_size(&b, W, 0);
    refused(&b, b.n, AT_EFORMAT, "height");
    set_size(&b, 65536, 1);
    refused(&b, b.n, AT_EFORMAT, "width");
    set_size(&b, 0xffffffff, 0xffffffff);
    refused(&b, b.n, AT_EFORMAT, "");
    at_mem_reset_peak();
    size_t before = at_mem_get_stats().peak_bytes;
    set_size(&b, 65535, 65535);
    refused(&b, b.n, AT_EFORMAT, "above the limit");
    set_size(&b, 16384, 16384);
    refused(&b, b.n, AT_EFORMAT, "truncated");
    assert_true(at_mem_get_stats().peak_bytes - before < 1 << 20);
    set_size(&b, W, H + 1);
    refused(&b, b.n, AT_EFORMAT, "");
}

// A chunk of our own between IHDR and the next one.
static void insert(blob *b, const char *name, const void *data, size_t n)
{
    size_t at = 33;

    memmove(b->data + at + 12 + n, b->data + at, b->n - at);
    put32(b->data + at, (uint32_t)n);
    memcpy(b->data + at + 4, name, 4);
    memcpy(b->data + at + 8, data, n);
    put32(b->data + at + 8 + n, crc(b->data + at + 4, n + 4));
    b->n += 12 + n;
}

static void exif_orientation_turns_the_picture(void **state)
{
    // Where the top left pixel and its right neighbour of the file lie in the picture shown.
    static const int corner[9][2] = {{0, 0}, {0, 0},     {W - 1, 0},     {W - 1, H - 1}, {0, H - 1},
                                     {0, 0}, {H - 1, 0}, {H - 1, W - 1}, {0, W - 1}};
    static const int right[9][2] = {{0, 0}, {1, 0}, {-1, 0}, {-1, 0}, {1, 0},
                                    {0, 1}, {0, 1}, {0, -1}, {0, -1}};
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_RGB_ALPHA, 0, false};
    (void)state;

    for (int o = 1; o <= 8; o++) {
        uint8_t exif[] = {'I', 'I', '*', 0, 8, 0,          0, 0, 1, 0, 0x12, 1, 3,
                          0,   1,   0,   0, 0, (uint8_t)o, 0, 0, 0, 0, 0,    0, 0};
        at_picture p;
        make(&k, &b);
        insert(&b, "eXIf", exif, sizeof exif);
        assert_int_equal(at_png_decode("turned.png", b.data, b.n, &p), AT_OK);
        assert_int_equal(p.width, o >= 5 ? H : W);
        assert_int_equal(p.height, o >= 5 ? W : H);
        for (int step = 0; step < 2; step++) {
            int64_t x = corner[o][0] + step * right[o][0], y = corner[o][1] + step * right[o][1];
            for (int c = 0; c < 3; c++)
                assert_true(p.rgb[(y * p.width + x) * 3 + c] ==
                            eight_bits(&k, sample(&k, step, 0, c)));
            assert_true(p.alpha[y * p.width + x] == eight_bits(&k, sample(&k, step, 0, 3)));
        }
        at_picture_free(&p);
    }
}

static void latin1_texts_become_utf8(void **state)
{
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_RGB, 0, false};
    at_picture p;
    (void)state;

    make(&k, &b);
    insert(&b, "tEXt", "Title\0caf\xe9", 10);
    assert_int_equal(at_png_decode("x.png", b.data, b.n, &p), AT_OK);
    assert_int_equal(p.text_count, 1);
    assert_string_equal(p.text[0].key, "Title");
    assert_string_equal(p.text[0].value, "caf\xc3\xa9");
    at_picture_free(&p);
}

// --- failures ----------------------------------------------------------------------------------------

static void failed_allocations_leak_nothing(void **state)
{
    static blob b;
    kind k = {8, PNG_COLOR_TYPE_RGB_ALPHA, 1, false};
    static const float pixel[3] = {0, 0, 0};
    at_text_chunk text = {"prompt", "{}"};
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    (void)state;

    make(&k, &b);
    insert(&b, "tEXt", "Title\0words", 11);
    for (uint64_t n = 1; hit; n++) {
        at_picture p;
        at_mem_fail_at(n, false);
        at_status st = at_png_decode("x.png", b.data, b.n, &p);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_true(st == AT_OK || (hit && st == AT_ENOMEM)); // a side chunk may be left out
        at_picture_free(&p);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    hit = true;
    for (uint64_t n = 1; hit; n++) {
        uint8_t *bytes;
        size_t len;
        at_mem_fail_at(n, false);
        at_status st = at_png_encode(pixel, 1, 1, 3, 4, &text, 1, &bytes, &len);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_free(bytes);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

static void a_failed_save_leaves_no_file(void **state)
{
    static const float pixel[3] = {0, 0, 0};
    char dir[] = "/tmp/atelier-png-XXXXXX", path[64];
    at_picture p;
    bool hit = true;
    (void)state;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.png", dir);
    for (uint64_t n = 1; hit; n++) {
        unlink(path);
        at_io_fail_at(n);
        at_status st = at_png_save(path, pixel, 1, 1, 3, 4, NULL, 0);
        hit = at_io_fault_hit();
        at_io_fail_at(0);
        assert_true(st == AT_OK || (hit && st == AT_EIO));
        assert_int_equal(at_path_exists(path), st == AT_OK);
    }
    assert_int_equal(at_png_load(path, &p), AT_OK);
    at_picture_free(&p);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(at_png_load(path, &p), AT_ENOTFOUND);
    assert_int_not_equal(at_png_save(path, pixel, 1, 1, 3, 4, NULL, 0), AT_OK);
    assert_non_null(strstr(at_error_text(), path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_decodes_to_its_pixels),
        cmocka_unit_test(saved_values_are_clipped_and_truncated),
        cmocka_unit_test(texts_come_back_as_they_went),
        cmocka_unit_test(a_large_workflow_fits_in_a_chunk),
        cmocka_unit_test(impossible_requests_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(damaged_bytes_never_pass_unnoticed_in_what_matters),
        cmocka_unit_test(impossible_sizes_are_refused_without_memory),
        cmocka_unit_test(exif_orientation_turns_the_picture),
        cmocka_unit_test(latin1_texts_become_utf8),
        cmocka_unit_test(failed_allocations_leak_nothing),
        cmocka_unit_test(a_failed_save_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
