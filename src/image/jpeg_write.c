// SPDX-License-Identifier: Apache-2.0
// jpeg_write.c - floats to JPEG bytes.
// Idea: as jpeg_read.c. Chroma is halved both ways and tables are the standard ones (Pillow's defaults).
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "base/mem.h"
#include "image/image.h"

typedef struct encoder {
    struct jpeg_error_mgr err; // first: libjpeg hands us a pointer to it
    struct jpeg_compress_struct jpeg;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
    const float *pixels;
    int channels, quality;
    int64_t width, height;
    uint8_t *row;
    unsigned char *bytes; // libjpeg's, from malloc
    unsigned long n;
} encoder;

static void on_error(j_common_ptr jpeg)
{
    encoder *e = (encoder *)jpeg->err;

    jpeg->err->format_message(jpeg, e->message);
    longjmp(e->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    (void)jpeg, (void)level;
}

static bool guarded(encoder *e, void (*step)(encoder *))
{
    if (setjmp(e->jump)) return false;
    step(e);
    return true;
}

static void write_all(encoder *e)
{
    jpeg_create_compress(&e->jpeg);
    jpeg_mem_dest(&e->jpeg, &e->bytes, &e->n);
    e->jpeg.image_width = (JDIMENSION)e->width;
    e->jpeg.image_height = (JDIMENSION)e->height;
    e->jpeg.input_components = 3;
    e->jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&e->jpeg);
    jpeg_set_quality(&e->jpeg, e->quality, TRUE);
    jpeg_start_compress(&e->jpeg, TRUE);
    for (int64_t y = 0; y < e->height; y++) {
        const float *p = e->pixels + y * e->width * e->channels;
        JSAMPROW row = e->row;
        for (int64_t i = 0; i < 3 * e->width; i++)
            e->row[i] = at_pixel_byte(p[i / 3 * e->channels + i % 3]);
        jpeg_write_scanlines(&e->jpeg, &row, 1);
    }
    jpeg_finish_compress(&e->jpeg);
}

static void destroy(encoder *e)
{
    jpeg_destroy_compress(&e->jpeg);
}

at_status at_jpeg_encode(const float *pixels, int64_t width, int64_t height, int channels,
                         int quality, uint8_t **out, size_t *n)
{
    at_status st = AT_OK;
    encoder e = {.pixels = pixels,
                 .channels = channels,
                 .quality = quality,
                 .width = width,
                 .height = height};

    *out = NULL;
    if (width < 1 || height < 1 || width > JPEG_MAX_DIMENSION || height > JPEG_MAX_DIMENSION ||
        channels < 3 || channels > 4 || quality < 1 || quality > 100)
        return at_fail(AT_EINVAL,
                       "JPEG of %lld x %lld pixels, %d channels, quality %d: sides are 1 to %ld, "
                       "channels 3 or 4, quality 1 to 100",
                       (long long)width, (long long)height, channels, quality,
                       (long)JPEG_MAX_DIMENSION);
    e.jpeg.err = jpeg_std_error(&e.err);
    e.err.error_exit = on_error;
    e.err.emit_message = on_message;
    e.row = at_alloc((size_t)width * 3);
    if (!e.row)
        AT_TRY(at_fail(AT_ENOMEM, "JPEG of %lld x %lld pixels: no memory", (long long)width,
                       (long long)height));
    if (!guarded(&e, write_all)) AT_TRY(at_fail(AT_ENOMEM, "JPEG: %s", e.message));
    *out = at_alloc(e.n);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "JPEG: no memory for %lu bytes", e.n));
    memcpy(*out, e.bytes, e.n);
    *n = e.n;
out:
    guarded(&e, destroy);
    free(e.bytes);
    at_free(e.row);
    return st;
}
