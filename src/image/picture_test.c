// SPDX-License-Identifier: Apache-2.0
// picture_test.c - JPEG and WebP against what Pillow makes of the same files, what is written against what is
// read again, and files that lie. The files are made by tools/golden/picture_files.py.
#include "image/image.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

#define FOLDER AT_SOURCE_DIR "/tests/golden/pictures/"

typedef struct blob {
    uint8_t *data;
    size_t n;
} blob;

static blob file(const char *name)
{
    blob b = {0};
    char path[512], *text = NULL;
    snprintf(path, sizeof path, FOLDER "%s", name);
    assert_int_equal(at_file_read(path, 1 << 20, &text, &b.n), AT_OK);
    b.data = (uint8_t *)text;
    return b;
}

// --- against Pillow ----------------------------------------------------------------------------------
// The number behind `"key":` of a file's row.
static long number_of(const char *row, const char *key)
{
    char mark[32];
    snprintf(mark, sizeof mark, "\"%s\":", key);
    const char *p = strstr(row, mark);
    assert_non_null(p);
    return strncmp(p + strlen(mark), "true", 4) == 0 ? 1 : strtol(p + strlen(mark), NULL, 10);
}

static int byte_at(const char *hex, size_t i)
{
    char two[3] = {hex[2 * i], hex[2 * i + 1], 0};
    return (int)strtol(two, NULL, 16);
}

// One frame's bytes: colours, then alpha. Returns what lies behind them.
static const char *expect_frame(const char *name, const at_picture *p, int64_t f, const char *hex)
{
    size_t n = (size_t)(p->width * p->height);
    for (size_t i = 0; i < n * (p->alpha ? 4 : 3); i++) {
        float v = i < 3 * n ? p->rgb[(size_t)f * 3 * n + i] : p->alpha[(size_t)f * n + i - 3 * n];
        if (v != (float)byte_at(hex, i) / 255.0f)
            fail_msg("%s, frame %d, value %zu: %g is not %d / 255", name, (int)f, i, (double)v,
                     byte_at(hex, i));
    }
    hex += 2 * n * (p->alpha ? 4 : 3);
    assert_int_equal(*hex, '"');
    return hex;
}

static void every_file_gives_pillows_pixels(void **state)
{
    blob expected = file("expected.json");
    int count = 0;
    (void)state;
    for (char *row = strtok((char *)expected.data, "\n"); row; row = strtok(NULL, "\n"), count++) {
        char name[64];
        at_picture p;
        row += *row == '{'; // of the whole
        assert_int_equal(sscanf(row, "\"%63[^\"]\"", name), 1);
        blob b = file(name);
        if (at_picture_decode(name, b.data, b.n, &p) != AT_OK) fail_msg("%s", at_error_text());
        assert_int_equal(p.width, number_of(row, "width"));
        assert_int_equal(p.height, number_of(row, "height"));
        assert_int_equal(p.alpha != NULL, number_of(row, "alpha"));
        const char *hex = strstr(row, "\"frames\":[\"");
        assert_non_null(hex);
        hex += strlen("\"frames\":[\"");
        for (int64_t f = 0; f < p.frames; f++)
            hex = expect_frame(name, &p, f, hex) + (f + 1 < p.frames ? 3 : 1);
        assert_int_equal(*hex, ']'); // as many frames as Pillow saw
        at_picture_free(&p);
        at_free(b.data);
    }
    assert_int_equal(count, 16);
    at_free(expected.data);
}

static void a_pictures_content_decides_and_not_its_name(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        at_status want;
        const char *words;
    } rows[] = {{"GIF89a..", 8, AT_EUNSUPPORTED, "a GIF"},
                {"BM......", 8, AT_EUNSUPPORTED, "a BMP"},
                {"II*\0....", 8, AT_EUNSUPPORTED, "a TIFF"},
                {"\0\0\0\x1c"
                 "ftypavif",
                 12, AT_EUNSUPPORTED, "an AVIF"},
                {"\xff\xd8\xff\xe0....", 8, AT_EFORMAT, "JPEG"},
                {"RIFF\4\0\0\0WEBP", 12, AT_EFORMAT, "WebP"},
                {"RIFF....AVI ", 12, AT_EFORMAT, "not a PNG, JPEG or WebP"},
                {"", 0, AT_EFORMAT, "0 bytes"}};
    at_picture p;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_status st = at_picture_decode("odd.png", rows[i].bytes, rows[i].n, &p);
        if (st != rows[i].want || !strstr(at_error_text(), rows[i].words) ||
            !strstr(at_error_text(), "odd.png"))
            fail_msg("row %zu: %d, \"%s\"", i, st, at_error_text());
    }
    assert_int_equal(at_picture_load(FOLDER "rgb_420.jpg", &p), AT_OK);
    at_picture_free(&p);
    assert_int_equal(at_picture_load(FOLDER "none.jpg", &p), AT_ENOTFOUND);
}

// --- files that lie ----------------------------------------------------------------------------------
static void every_truncation_is_refused_or_whole(void **state)
{
    static const char *const names[] = {"rgb_420.jpg", "rgb_422_progressive.jpg", "cmyk.jpg",
                                        "lossy.webp",  "alpha_lossless.webp",     "animated.webp"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        blob b = file(names[k]);
        size_t live = at_mem_get_stats().live_bytes;
        for (size_t n = 0; n < b.n; n++) {
            at_picture p;
            uint8_t *cut = malloc(n + 1); // so that a sanitizer sees a read beyond
            memcpy(cut, b.data, n);
            at_error_clear();
            at_status st = at_picture_decode("cut", cut, n, &p);
            // The end mark of a JPEG may be missing; nothing else.
            if (st == AT_OK && n + 2 < b.n) fail_msg("%s: %zu of %zu", names[k], n, b.n);
            if (st != AT_OK) assert_non_null(strstr(at_error_text(), "cut"));
            at_picture_free(&p);
            free(cut);
            assert_int_equal(at_mem_get_stats().live_bytes, live);
        }
        at_free(b.data);
    }
}

// The two bytes of a JPEG's height and of its width lie behind the frame's mark.
static void set_jpeg_size(blob *b, unsigned w, unsigned h)
{
    for (size_t i = 2; i + 9 < b->n; i++)
        if (b->data[i] == 0xff && (b->data[i + 1] == 0xc0 || b->data[i + 1] == 0xc2)) {
            b->data[i + 5] = (uint8_t)(h >> 8), b->data[i + 6] = (uint8_t)h;
            b->data[i + 7] = (uint8_t)(w >> 8), b->data[i + 8] = (uint8_t)w;
            return;
        }
    fail_msg("no frame");
}

static void impossible_sizes_are_refused_without_memory(void **state)
{
    static const struct {
        unsigned w, h;
        const char *words;
    } rows[] = {{0, 13, ""},
                {19, 0, ""},
                {65535, 65535, ""}, // beyond libjpeg's own limit
                {65000, 65000, "above the limit"},
                {16000, 16000, "truncated"}};
    blob b = file("rgb_420.jpg");
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_picture p;
        at_mem_reset_peak();
        size_t before = at_mem_get_stats().peak_bytes;
        set_jpeg_size(&b, rows[i].w, rows[i].h);
        assert_int_equal(at_picture_decode("big.jpg", b.data, b.n, &p), AT_EFORMAT);
        if (!strstr(at_error_text(), rows[i].words)) fail_msg("row %zu: %s", i, at_error_text());
        assert_true(at_mem_get_stats().peak_bytes - before < 2 << 20);
    }
    at_free(b.data);
    // A canvas of 16777216 x 16777216 in a WebP's extended header.
    b = file("animated.webp");
    memset(b.data + 24, 0xff, 6);
    at_picture p;
    assert_int_equal(at_picture_decode("big.webp", b.data, b.n, &p), AT_EFORMAT);
    at_free(b.data);
}

// --- writing -----------------------------------------------------------------------------------------
static float *painted(int64_t count, int64_t w, int64_t h, int c)
{
    float *p = malloc((size_t)(count * w * h * c) * sizeof *p);
    for (int64_t i = 0; i < count * w * h * c; i++)
        p[i] = (float)((i * 37 + i / 5 * 11 + i / (w * h * c) * 90) % 256) / 255.0f;
    return p;
}

static void lossless_webp_keeps_every_byte_and_the_exif(void **state)
{
    static const at_exif_text texts[] = {{0x010f, "workflow:{}"}, {0x0110, "abc"}};
    (void)state;
    for (int c = 3; c <= 4; c++)
        for (int count = 1; count <= 3; count += 2) {
            float *in = painted(count, 9, 7, c);
            for (int i = 3; c == 4 && i < count * 63 * 4; i += 4)
                in[i] = 1; // colours behind full transparency are nobody's business
            at_frames f = {in, count, 9, 7, c, 40};
            uint8_t *exif, *bytes;
            size_t exif_n, n;
            at_picture p;
            assert_int_equal(at_exif_encode(texts, 2, &exif, &exif_n), AT_OK);
            at_webp_how how = {true, 80, 4, exif, exif_n};
            if (at_webp_encode(&f, &how, &bytes, &n) != AT_OK) fail_msg("%s", at_error_text());
            assert_non_null(memmem(bytes, n, exif, exif_n));
            assert_int_equal(memmem(bytes, n, "ANMF", 4) != NULL, count > 1);
            assert_int_equal(at_picture_decode("w", bytes, n, &p), AT_OK);
            assert_int_equal(p.frames, count);
            for (int64_t i = 0; i < count * 63; i++)
                for (int k = 0; k < 3; k++)
                    if (lrintf(p.rgb[3 * i + k] * 255) != at_pixel_byte(in[i * c + k]))
                        fail_msg("%d channels, pixel %d", c, (int)i);
            at_picture_free(&p);
            at_free(bytes);
            at_free(exif);
            free(in);
        }
}

static void lossy_files_are_near(void **state)
{
    float in[32 * 32 * 3];
    uint8_t *bytes;
    size_t n;
    at_picture p;
    (void)state;
    for (int i = 0; i < 32 * 32 * 3; i++)
        in[i] = (float)(i / 3 % 32 + i / 96) / 64.0f; // a grey ramp
    for (int k = 0; k < 2; k++) {
        at_frames f = {in, 1, 32, 32, 3, 0};
        at_webp_how how = {false, 90, 4, NULL, 0};
        assert_int_equal(k ? at_jpeg_encode(in, 32, 32, 3, 95, &bytes, &n)
                           : at_webp_encode(&f, &how, &bytes, &n),
                         AT_OK);
        assert_int_equal(at_picture_decode("lossy", bytes, n, &p), AT_OK);
        assert_int_equal(p.width, 32);
        for (int i = 0; i < 32 * 32 * 3; i++)
            assert_true(fabsf(p.rgb[i] - in[i]) < 0.03f); // quality 90 and more: some levels
        at_picture_free(&p);
        at_free(bytes);
    }
}

// What Pillow 11.3 writes for {0x010f: "workflow:{}", 0x0110: "ab\xe9"}, by Exif.tobytes().
static void exif_is_pillows(void **state)
{
    static const at_exif_text texts[] = {{0x010f, "workflow:{}"}, {0x0110, "ab\xc3"}};
    static const uint8_t want[] = {0x4d, 0x4d, 0x00, 0x2a, 0x00, 0x00, 0x00, 0x08, 0x00, 0x02,
                                   0x01, 0x0f, 0x00, 0x02, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00,
                                   0x00, 0x26, 0x01, 0x10, 0x00, 0x02, 0x00, 0x00, 0x00, 0x04,
                                   0x61, 0x62, 0x3f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x77, 0x6f,
                                   0x72, 0x6b, 0x66, 0x6c, 0x6f, 0x77, 0x3a, 0x7b, 0x7d, 0x00};
    uint8_t *exif;
    size_t n;
    (void)state;
    assert_int_equal(at_exif_encode(texts, 2, &exif, &n), AT_OK);
    assert_int_equal(n, sizeof want);
    assert_memory_equal(exif, want, n);
    at_free(exif);
    assert_int_equal(at_exif_encode((at_exif_text[]){{2, "a"}, {1, "b"}}, 2, &exif, &n), AT_EINVAL);
}

static uint32_t big_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

// Pictures A A B B' A: equal ones merge, B' changes one pixel at (2, 3).
static void an_animated_png_holds_what_changes(void **state)
{
    static const char *const want[] = {"IHDR", "acTL", "fcTL", "IDAT", "fcTL", "fdAT",
                                       "fcTL", "fdAT", "fcTL", "fdAT", "comf", "IEND"};
    float *in = painted(5, 6, 5, 3);
    size_t one = 6 * 5 * 3, k = 0, n;
    uint32_t sequence = 0;
    at_text_chunk text = {"prompt", "{\"1\": 2}"};
    uint8_t *bytes;
    at_picture p;
    (void)state;
    for (size_t i = 0; i < one; i++) {
        in[one + i] = in[i];
        in[3 * one + i] = in[2 * one + i];
    }
    in[3 * one + (3 * 6 + 2) * 3] = in[2 * one + (3 * 6 + 2) * 3] > 0.5f ? 0.0f : 1.0f;
    memcpy(in + 4 * one, in, one * sizeof *in);
    at_frames f = {in, 5, 6, 5, 3, 166};
    assert_int_equal(at_apng_encode(&f, 4, &text, 1, &bytes, &n), AT_OK);
    for (size_t at = 8; at < n; at += 12 + big_at(bytes + at), k++) {
        const uint8_t *d = bytes + at + 8;
        assert_memory_equal(bytes + at + 4, want[k], 4);
        if (!memcmp(want[k], "acTL", 4)) assert_int_equal(big_at(d), 4);
        if (!memcmp(want[k], "fcTL", 4) || !memcmp(want[k], "fdAT", 4))
            assert_int_equal(big_at(d), sequence++);
        if (k == 2) assert_int_equal(d[20] << 8 | d[21], 2 * 166);
        if (k == 6) { // B': one pixel
            assert_int_equal(big_at(d + 4), 1);
            assert_int_equal(big_at(d + 8), 1);
            assert_int_equal(big_at(d + 12), 2);
            assert_int_equal(big_at(d + 16), 3);
            assert_int_equal(d[22] << 8 | d[23], 1000);
        }
        if (k == 10) assert_memory_equal(d, "prompt\0{\"1\": 2}", 15);
    }
    assert_int_equal(k, 12);
    // checksums hold: libpng reads the first picture
    assert_int_equal(at_picture_decode("a", bytes, n, &p), AT_OK);
    for (size_t i = 0; i < one; i++)
        assert_true(p.rgb[i] == (float)at_pixel_byte(in[i]) / 255.0f);
    at_picture_free(&p);
    at_free(bytes);
    f.count = 2; // both equal: a still
    assert_int_equal(at_apng_encode(&f, 4, NULL, 0, &bytes, &n), AT_OK);
    assert_null(memmem(bytes, n, "acTL", 4));
    assert_null(memmem(bytes, n, "fcTL", 4));
    at_free(bytes);
    f.ms = 40000; // together 80 s
    assert_int_equal(at_apng_encode(&f, 4, NULL, 0, &bytes, &n), AT_EINVAL);
    free(in);
}

static void impossible_requests_are_refused(void **state)
{
    float pixel[4] = {0};
    uint8_t *bytes;
    size_t n;
    (void)state;
    for (int i = 0; i < 4; i++) {
        at_frames f = {pixel, i != 0, i == 1 ? 16384 : 1, 1, i == 2 ? 2 : 3, 0};
        at_webp_how how = {true, i == 3 ? 101 : 50, 4, NULL, 0};
        assert_int_equal(at_webp_encode(&f, &how, &bytes, &n), AT_EINVAL);
    }
    assert_int_equal(at_jpeg_encode(pixel, 1, 0, 3, 50, &bytes, &n), AT_EINVAL);
    assert_int_equal(at_jpeg_encode(pixel, 1, 1, 1, 50, &bytes, &n), AT_EINVAL);
    assert_int_equal(at_jpeg_encode(pixel, 1, 1, 3, 0, &bytes, &n), AT_EINVAL);
    at_frames none = {pixel, 1, 0, 1, 3, 10};
    assert_int_equal(at_apng_encode(&none, 4, NULL, 0, &bytes, &n), AT_EINVAL);
}

static void failed_allocations_leak_nothing(void **state)
{
    static const char *const names[] = {"turned_6.jpg", "animated_alpha.webp", "turned_8.webp"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        blob b = file(names[k]);
        size_t live = at_mem_get_stats().live_bytes;
        bool hit = true;
        for (uint64_t n = 1; hit; n++) {
            at_picture p;
            at_mem_fail_at(n, false);
            at_status st = at_picture_decode(names[k], b.data, b.n, &p);
            hit = at_mem_fault_hit();
            at_mem_fail_at(0, false);
            assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
            at_picture_free(&p);
            assert_int_equal(at_mem_get_stats().live_bytes, live);
        }
        at_free(b.data);
    }
    float *in = painted(3, 5, 4, 3);
    at_frames f = {in, 3, 5, 4, 3, 40};
    at_webp_how how = {true, 80, 0, NULL, 0};
    size_t live = at_mem_get_stats().live_bytes, len;
    uint8_t *bytes;
    for (int k = 0; k < 3; k++) {
        bool hit = true;
        for (uint64_t n = 1; hit; n++) {
            at_mem_fail_at(n, false);
            at_status st = k == 0   ? at_apng_encode(&f, 4, NULL, 0, &bytes, &len)
                           : k == 1 ? at_webp_encode(&f, &how, &bytes, &len)
                                    : at_jpeg_encode(in, 5, 4, 3, 80, &bytes, &len);
            hit = at_mem_fault_hit();
            at_mem_fail_at(0, false);
            assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
            if (st == AT_OK) at_free(bytes);
            assert_int_equal(at_mem_get_stats().live_bytes, live);
        }
    }
    free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_gives_pillows_pixels),
        cmocka_unit_test(a_pictures_content_decides_and_not_its_name),
        cmocka_unit_test(every_truncation_is_refused_or_whole),
        cmocka_unit_test(impossible_sizes_are_refused_without_memory),
        cmocka_unit_test(lossless_webp_keeps_every_byte_and_the_exif),
        cmocka_unit_test(lossy_files_are_near),
        cmocka_unit_test(exif_is_pillows),
        cmocka_unit_test(an_animated_png_holds_what_changes),
        cmocka_unit_test(impossible_requests_are_refused),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
