// SPDX-License-Identifier: Apache-2.0
// png_read.c - PNG bytes to floats.
// Idea: libpng leaves errors by longjmp, so everything it may jump over lives in one struct that the
// caller holds, and each step runs under its own setjmp in guarded().
// Pixels as ComfyUI gets them from Pillow: no gamma, 16-bit channels keep their high byte; alpha counts
// only where the file has an alpha channel or a palette with transparency, not for a transparent colour.
// Source: PNG specification (third edition), libpng 1.6 manual.
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"
#include "image/orient.h"

#define MAX_TEXT   (16u << 20) // bytes of one text chunk
#define MAX_CHUNKS 1000
#define MAX_RATIO  1032 // deflate expands no further (zlib technical details)

typedef struct decoder {
    const char *label;
    const uint8_t *at, *end;
    size_t size;
    png_structp png;
    png_infop info;
    bool no_memory;
    char message[120], warning[120]; // libpng says in a warning what exactly is wrong
    bool has_alpha, interlaced;
    int channels, orientation;
    uint8_t *pixels; // one row, or all of them when interlaced
    uint8_t **rows;
    at_picture out;
} decoder;

static void on_error(png_structp png, png_const_charp text)
{
    decoder *d = png_get_error_ptr(png);

    strncpy(d->message, text, sizeof d->message - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    decoder *d = png_get_error_ptr(png); // a damaged side chunk is no reason to refuse the picture

    strncpy(d->warning, text, sizeof d->warning - 1);
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    decoder *d = png_get_mem_ptr(png);
    void *p = at_alloc(n);

    if (!p) d->no_memory = true;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    at_free(p);
}

static void on_read(png_structp png, png_bytep to, size_t n)
{
    decoder *d = png_get_io_ptr(png);

    if (n > (size_t)(d->end - d->at)) png_error(png, "the file is truncated");
    memcpy(to, d->at, n);
    d->at += n;
}

static bool guarded(decoder *d, void (*step)(decoder *))
{
    if (setjmp(png_jmpbuf(d->png))) return false;
    step(d);
    return true;
}

static at_status failed(const decoder *d)
{
    if (d->no_memory) return at_fail(AT_ENOMEM, "%s: no memory for the picture", d->label);
    return at_fail(AT_EFORMAT, "%s: broken PNG: %s%s%s", d->label, d->message,
                   *d->warning ? "; " : "", d->warning);
}

// --- steps -------------------------------------------------------------------------------------------

static void read_header(decoder *d)
{
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, AT_PICTURE_SIDE, AT_PICTURE_SIDE);
    png_set_chunk_malloc_max(d->png, MAX_TEXT);
    png_set_chunk_cache_max(d->png, MAX_CHUNKS);
    png_read_info(d->png, d->info);
    d->out.width = png_get_image_width(d->png, d->info);
    d->out.height = png_get_image_height(d->png, d->info);
}

static void set_transforms(decoder *d)
{
    int type = png_get_color_type(d->png, d->info);
    bool trns = png_get_valid(d->png, d->info, PNG_INFO_tRNS) != 0;

    d->interlaced = png_get_interlace_type(d->png, d->info) != PNG_INTERLACE_NONE;
    d->out.frames = 1;
    d->has_alpha = (type & PNG_COLOR_MASK_ALPHA) || (type == PNG_COLOR_TYPE_PALETTE && trns);
    png_set_expand(d->png);
    png_set_strip_16(d->png);
    if (!(type & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(d->png);
    if (d->interlaced) png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
    d->channels = png_get_channels(d->png, d->info);
    if (d->channels != 3 && d->channels != 4) png_error(d->png, "unexpected channels");
}

static void store_row(decoder *d, const uint8_t *row, int64_t y)
{
    float *rgb = d->out.rgb + y * d->out.width * 3;
    float *alpha = d->out.alpha ? d->out.alpha + y * d->out.width : NULL;

    for (int64_t x = 0; x < d->out.width; x++, row += d->channels) {
        for (int c = 0; c < 3; c++)
            rgb[3 * x + c] = (float)row[c] / 255.0f;
        if (alpha) alpha[x] = (float)row[3] / 255.0f;
    }
}

static void read_pixels(decoder *d)
{
    if (d->interlaced) png_read_image(d->png, d->rows);
    for (int64_t y = 0; y < d->out.height; y++) {
        if (!d->interlaced) png_read_row(d->png, d->pixels, NULL);
        store_row(d, d->interlaced ? d->rows[y] : d->pixels, y);
    }
}

static void read_rest(decoder *d)
{
    png_read_end(d->png, d->info);
}

static at_status allocate(decoder *d)
{
    size_t pixels = (size_t)d->out.width * (size_t)d->out.height; // at most AT_PICTURE_PIXELS
    size_t row = (size_t)d->out.width * (size_t)d->channels;
    size_t rows = d->interlaced ? (size_t)d->out.height : 1;

    d->out.rgb = at_alloc(pixels * 3 * sizeof(float));
    if (d->has_alpha) d->out.alpha = at_alloc(pixels * sizeof(float));
    d->pixels = at_alloc(row * rows);
    d->rows = at_calloc(rows, sizeof *d->rows);
    d->no_memory = !d->out.rgb || (d->has_alpha && !d->out.alpha) || !d->pixels || !d->rows;
    if (d->no_memory) return failed(d);
    for (size_t y = 0; y < rows; y++)
        d->rows[y] = d->pixels + y * row;
    return AT_OK;
}

// Refuse sizes beyond the limits, and headers that the few bytes behind them cannot possibly fill.
static at_status check_size(const decoder *d)
{
    uint64_t w = (uint64_t)d->out.width, h = (uint64_t)d->out.height;
    uint64_t bits =
        (uint64_t)png_get_bit_depth(d->png, d->info) * (uint64_t)png_get_channels(d->png, d->info);

    at_status st = at_picture_check_size(d->label, w, h);
    if (st != AT_OK) return st;
    if ((w * bits / 8) * h / MAX_RATIO > d->size)
        return at_fail(AT_EFORMAT,
                       "%s: %zu bytes cannot hold %llu x %llu pixels: the file is "
                       "truncated",
                       d->label, d->size, (unsigned long long)w, (unsigned long long)h);
    return AT_OK;
}

// --- text --------------------------------------------------------------------------------------------

// Latin-1 to UTF-8.
static char *from_latin1(const char *s)
{
    char *out = at_alloc(2 * strlen(s) + 1), *q = out;

    if (!out) return NULL;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x80) {
            *q++ = (char)c;
        } else {
            *q++ = (char)(0xc0 | c >> 6);
            *q++ = (char)(0x80 | (c & 63));
        }
    }
    *q = 0;
    return out;
}

static at_status copy_text(decoder *d)
{
    png_textp text = NULL;
    int count = 0;

    png_get_text(d->png, d->info, &text, &count);
    if (count <= 0) return AT_OK;
    d->out.text = at_calloc((size_t)count, sizeof *d->out.text);
    if (!d->out.text) return at_fail(AT_ENOMEM, "%s: no memory for its texts", d->label);
    for (int i = 0; i < count; i++) {
        bool utf8 = text[i].compression >= PNG_ITXT_COMPRESSION_NONE;
        const char *value = text[i].text ? text[i].text : "";
        at_text_chunk *c = &d->out.text[d->out.text_count++];
        c->key = from_latin1(text[i].key);
        c->value = utf8 ? at_strdup(value) : from_latin1(value);
        if (!c->key || !c->value)
            return at_fail(AT_ENOMEM, "%s: no memory for its texts", d->label);
    }
    return AT_OK;
}

static void read_orientation(decoder *d)
{
    png_uint_32 n = 0;
    png_bytep exif = NULL;

    d->orientation = 1;
#ifdef PNG_eXIf_SUPPORTED
    if (png_get_eXIf_1(d->png, d->info, &n, &exif) && exif)
        d->orientation = at_exif_orientation(exif, n);
#endif
}

// --- the whole ---------------------------------------------------------------------------------------

static at_status decode(decoder *d)
{
    at_status st = AT_OK;

    d->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, d, on_error, on_warning, d, on_alloc,
                                      on_free);
    d->no_memory |= !d->png;
    if (!d->png) AT_TRY(failed(d));
    d->info = png_create_info_struct(d->png);
    d->no_memory |= !d->info;
    if (!d->info) AT_TRY(failed(d));
    if (!guarded(d, read_header)) AT_TRY(failed(d));
    AT_TRY(check_size(d));
    if (!guarded(d, set_transforms)) AT_TRY(failed(d));
    AT_TRY(allocate(d));
    if (!guarded(d, read_pixels)) AT_TRY(failed(d));
    if (!guarded(d, read_rest)) AT_TRY(failed(d));
    AT_TRY(copy_text(d));
    read_orientation(d);
    AT_TRY(at_picture_turn(d->label, &d->out, d->orientation));
out:
    return st;
}

at_status at_png_decode(const char *label, const void *bytes, size_t n, at_picture *out)
{
    decoder d = {.label = label, .at = bytes, .end = (const uint8_t *)bytes + n, .size = n};
    at_status st;

    *out = (at_picture){0};
    if (n < 8 || png_sig_cmp(bytes, 0, 8)) return at_fail(AT_EFORMAT, "%s: not a PNG file", label);
    st = decode(&d);
    png_destroy_read_struct(&d.png, &d.info, NULL);
    at_free(d.pixels);
    at_free(d.rows);
    if (st == AT_OK)
        *out = d.out;
    else
        at_picture_free(&d.out);
    return st;
}

at_status at_png_load(const char *path, at_picture *out)
{
    at_map map = {0};
    at_status st = AT_OK;

    *out = (at_picture){0};
    AT_TRY(at_map_open(path, &map));
    AT_TRY(at_png_decode(path, map.data, map.size, out));
out:
    at_map_close(&map);
    return st;
}
