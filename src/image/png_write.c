// SPDX-License-Identifier: Apache-2.0
// png_write.c - floats to PNG bytes with text chunks.
// Idea: as png_read.c: one struct holds all that libpng's longjmp may pass over. libpng writes the file,
// png_pack.c the pixels, on all threads: libpng alone took longer than a step of the sampler.
// Source: comfyui-contract section 3.7 (rounding, chunks), PNG specification.
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/image.h"
#include "image/png_pack.h"

enum { MOST_IDAT = 1 << 30 };

typedef struct encoder {
    const float *pixels;
    int64_t width, height;
    int channels, level;
    const at_text_chunk *text;
    size_t text_count;
    png_structp png;
    png_infop info;
    png_textp chunks;
    uint8_t *packed;
    size_t packed_bytes;
    at_str out;
    bool no_memory;
    char message[120];
} encoder;

static void on_error(png_structp png, png_const_charp text)
{
    encoder *e = png_get_error_ptr(png);

    strncpy(e->message, text, sizeof e->message - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    encoder *e = png_get_mem_ptr(png);
    void *p = at_alloc(n);

    if (!p) e->no_memory = true;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    at_free(p);
}

static void on_write(png_structp png, png_bytep bytes, size_t n)
{
    encoder *e = png_get_io_ptr(png);

    at_str_append_n(&e->out, bytes, n);
    if (!e->out.failed) return;
    e->no_memory = true;
    png_error(png, "no memory");
}

static void on_flush(png_structp png)
{
    (void)png;
}

static bool guarded(encoder *e, void (*step)(encoder *))
{
    if (setjmp(png_jmpbuf(e->png))) return false;
    step(e);
    return true;
}

static at_status failed(const encoder *e)
{
    if (e->no_memory)
        return at_fail(AT_ENOMEM, "PNG of %lld x %lld pixels: no memory", (long long)e->width,
                       (long long)e->height);
    return at_fail(AT_EINTERNAL, "PNG of %lld x %lld pixels: %s", (long long)e->width,
                   (long long)e->height, e->message);
}

static void write_all(encoder *e)
{
    static const png_byte idat[] = "IDAT", iend[] = "IEND";

    png_set_write_fn(e->png, e, on_write, on_flush);
    png_set_IHDR(e->png, e->info, (png_uint_32)e->width, (png_uint_32)e->height, 8,
                 e->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (e->text_count) png_set_text(e->png, e->info, e->chunks, (int)e->text_count);
    png_write_info(e->png, e->info);
    for (size_t at = 0, n; at < e->packed_bytes; at += n) {
        n = e->packed_bytes - at < MOST_IDAT ? e->packed_bytes - at : MOST_IDAT;
        png_write_chunk(e->png, idat, e->packed + at, n);
    }
    png_write_chunk(e->png, iend, NULL, 0);
}

// tEXt for ASCII, which Latin-1 holds as it is; iTXt (UTF-8) for anything else.
static at_status make_chunks(encoder *e)
{
    e->chunks = at_calloc(e->text_count ? e->text_count : 1, sizeof *e->chunks);
    if (!e->chunks) return at_fail(AT_ENOMEM, "PNG: no memory for %zu texts", e->text_count);
    for (size_t i = 0; i < e->text_count; i++) {
        const char *key = e->text[i].key, *value = e->text[i].value;
        size_t n = strlen(value);
        bool ascii = true;
        if (!*key || strlen(key) > 79)
            return at_fail(AT_EINVAL, "PNG text \"%.80s\": a key has 1 to 79 characters", key);
        for (const char *p = key; *p; p++)
            if (*p < 0x20 || *p == 0x7f)
                return at_fail(AT_EINVAL, "PNG text \"%s\": a key is printable ASCII", key);
        for (size_t k = 0; k < n; k++)
            ascii &= (unsigned char)value[k] < 0x80;
        if (n > (1u << 30) || !at_utf8_valid(value, n))
            return at_fail(AT_EINVAL, "PNG text \"%s\": the value is not UTF-8 or above 1 GiB",
                           key);
        e->chunks[i].compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        e->chunks[i].key = (char *)(uintptr_t)key; // libpng copies both
        e->chunks[i].text = (char *)(uintptr_t)value;
        e->chunks[i].text_length = n;
    }
    return AT_OK;
}

static at_status check(const encoder *e)
{
    if (e->width < 1 || e->height < 1 || e->width > 65535 || e->height > 65535)
        return at_fail(AT_EINVAL, "a picture of %lld x %lld pixels: each side is 1 to 65535",
                       (long long)e->width, (long long)e->height);
    if (e->channels != 3 && e->channels != 4)
        return at_fail(AT_EINVAL, "a picture of %d channels; PNG takes 3 or 4", e->channels);
    if (e->level < 0 || e->level > 9)
        return at_fail(AT_EINVAL, "PNG compression level %d; 0 to 9", e->level);
    return AT_OK;
}

static at_status encode(encoder *e)
{
    at_status st = AT_OK;

    AT_TRY(check(e));
    AT_TRY(make_chunks(e));
    AT_TRY(at_png_pack(e->pixels, e->width, e->height, e->channels, e->level, &e->packed,
                       &e->packed_bytes));
    e->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, e, on_error, on_warning, e, on_alloc,
                                       on_free);
    if (e->png) e->info = png_create_info_struct(e->png);
    e->no_memory |= !e->png || !e->info;
    if (e->no_memory || !guarded(e, write_all)) AT_TRY(failed(e));
out:
    return st;
}

at_status at_png_encode(const float *pixels, int64_t width, int64_t height, int channels,
                        int compress_level, const at_text_chunk *text, size_t text_count,
                        uint8_t **out, size_t *n)
{
    encoder e = {.pixels = pixels,
                 .width = width,
                 .height = height,
                 .channels = channels,
                 .level = compress_level,
                 .text = text,
                 .text_count = text_count};
    at_status st = encode(&e);

    *out = NULL;
    *n = 0;
    png_destroy_write_struct(&e.png, &e.info);
    at_free(e.packed);
    at_free(e.chunks);
    if (st == AT_OK) {
        *n = e.out.len;
        *out = (uint8_t *)at_str_take(&e.out);
    } else {
        at_str_free(&e.out);
    }
    return st;
}

at_status at_png_save(const char *path, const float *pixels, int64_t width, int64_t height,
                      int channels, int compress_level, const at_text_chunk *text,
                      size_t text_count)
{
    at_atomic_file *f = NULL;
    uint8_t *bytes = NULL;
    size_t n;
    at_status st = AT_OK;

    AT_TRY(at_png_encode(pixels, width, height, channels, compress_level, text, text_count, &bytes,
                         &n));
    AT_TRY(at_atomic_open(path, &f));
    AT_TRY(at_atomic_write(f, bytes, n));
    st = at_atomic_commit(&f);
out:
    at_atomic_abort(&f);
    at_free(bytes);
    return at_fail_context(st, "saving %s: ", path);
}
