// SPDX-License-Identifier: Apache-2.0
// jpeg_read.c - JPEG bytes to floats.
// Idea: as png_read.c: libjpeg leaves errors by longjmp, so what it may jump over lies in one struct.
// Easy to get wrong: four-channel files are taken for Adobe's inverted CMYK whatever they say, as Pillow does;
// a file that ends early is refused and not filled with grey.
// Source: ITU T.81, libjpeg-turbo's manual; Pillow's JpegImagePlugin and Convert.c as behaviour.
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "base/mem.h"
#include "image/image.h"
#include "image/orient.h"

#define MAX_SCANS 500 // of a progressive file: more is an attack on our time
#define MAX_RATIO 600 // pixels that one byte can make: grey, a bit a block, is 512

typedef struct decoder {
    struct jpeg_error_mgr err; // first: libjpeg hands us a pointer to it
    struct jpeg_decompress_struct jpeg;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    const char *label;
    size_t size;
    char message[JMSG_LENGTH_MAX];
    int orientation;
    uint8_t *row;
    at_picture out;
} decoder;

static void on_error(j_common_ptr jpeg)
{
    decoder *d = (decoder *)jpeg->err;

    jpeg->err->format_message(jpeg, d->message);
    longjmp(d->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    (void)jpeg, (void)level; // damaged data is shown as far as it goes, as Pillow does
}

static void on_scan(j_common_ptr jpeg)
{
    decoder *d = (decoder *)jpeg->err;

    if (d->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(d->message, sizeof d->message, "more than %d scans", MAX_SCANS);
    longjmp(d->jump, 1);
}

static void source_open(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

static boolean source_fill(j_decompress_ptr jpeg)
{
    decoder *d = (decoder *)jpeg->err;

    snprintf(d->message, sizeof d->message, "the file is truncated");
    longjmp(d->jump, 1);
    return FALSE;
}

static void source_skip(j_decompress_ptr jpeg, long n)
{
    if (n <= 0) return;
    if ((size_t)n > jpeg->src->bytes_in_buffer) source_fill(jpeg);
    jpeg->src->next_input_byte += n;
    jpeg->src->bytes_in_buffer -= (size_t)n;
}

static bool guarded(decoder *d, void (*step)(decoder *))
{
    if (setjmp(d->jump)) return false;
    step(d);
    return true;
}

static at_status failed(const decoder *d)
{
    if (d->err.msg_code == JERR_OUT_OF_MEMORY)
        return at_fail(AT_ENOMEM, "%s: no memory for the picture", d->label);
    return at_fail(AT_EFORMAT, "%s: broken JPEG: %s", d->label, d->message);
}

// --- steps -------------------------------------------------------------------------------------------

static void find_orientation(decoder *d)
{
    static const char mark[6] = "Exif\0";

    d->orientation = 1;
    for (jpeg_saved_marker_ptr m = d->jpeg.marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && !memcmp(m->data, mark, 6)) {
            d->orientation = at_exif_orientation(m->data + 6, m->data_length - 6);
            return;
        }
}

static void read_header(decoder *d)
{
    jpeg_create_decompress(&d->jpeg);
    d->jpeg.src = &d->source;
    d->jpeg.progress = &d->progress;
    jpeg_save_markers(&d->jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&d->jpeg, TRUE);
    d->out.width = d->jpeg.image_width;
    d->out.height = d->jpeg.image_height;
    d->out.frames = 1;
    find_orientation(d);
    if (d->jpeg.num_components == 4)
        d->jpeg.out_color_space = JCS_CMYK;
    else if (d->jpeg.num_components == 1)
        d->jpeg.out_color_space = JCS_GRAYSCALE;
    else
        d->jpeg.out_color_space = JCS_RGB;
}

static uint8_t times255(unsigned a, unsigned b)
{
    unsigned v = a * b + 128;
    return (uint8_t)(((v >> 8) + v) >> 8);
}

static void store_row(decoder *d, int64_t y)
{
    int n = d->jpeg.output_components;
    const uint8_t *p = d->row;
    float *to = d->out.rgb + y * d->out.width * 3;

    for (int64_t x = 0; x < d->out.width; x++, p += n)
        for (int c = 0; c < 3; c++) {
            unsigned v = n == 1 ? p[0] : p[c];
            // Inverted: p[3] is 255 - black, and 255 - p[c] the ink.
            if (n == 4) v = p[3] - times255(255u - p[c], p[3]);
            *to++ = (float)v / 255.0f;
        }
}

static void read_pixels(decoder *d)
{
    jpeg_start_decompress(&d->jpeg);
    if (d->jpeg.output_components != 1 && d->jpeg.output_components != 3 &&
        d->jpeg.output_components != 4)
        ERREXIT1(&d->jpeg, JERR_BAD_J_COLORSPACE, d->jpeg.output_components);
    while (d->jpeg.output_scanline < d->jpeg.output_height) {
        int64_t y = d->jpeg.output_scanline;
        JSAMPROW row = d->row;
        if (jpeg_read_scanlines(&d->jpeg, &row, 1) == 1) store_row(d, y);
    }
}

static void destroy(decoder *d)
{
    jpeg_destroy_decompress(&d->jpeg);
}

static at_status decode(decoder *d)
{
    at_status st = AT_OK;

    if (!guarded(d, read_header)) AT_TRY(failed(d));
    AT_TRY(at_picture_check_size(d->label, (uint64_t)d->out.width, (uint64_t)d->out.height));
    uint64_t pixels = (uint64_t)d->out.width * (uint64_t)d->out.height;
    if (!d->jpeg.arith_code && pixels / MAX_RATIO > d->size)
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: %zu bytes cannot hold %lld x %lld pixels: the file is truncated",
                       d->label, d->size, (long long)d->out.width, (long long)d->out.height));
    d->out.rgb = at_alloc((size_t)pixels * 3 * sizeof(float));
    d->row = at_alloc((size_t)d->out.width * 4);
    if (!d->out.rgb || !d->row)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for the picture", d->label));
    if (!guarded(d, read_pixels)) AT_TRY(failed(d));
    AT_TRY(at_picture_turn(d->label, &d->out, d->orientation));
out:
    return st;
}

at_status at_jpeg_decode(const char *label, const void *bytes, size_t n, at_picture *out)
{
    decoder d = {.label = label, .size = n};
    at_status st;

    *out = (at_picture){0};
    d.jpeg.err = jpeg_std_error(&d.err);
    d.err.error_exit = on_error;
    d.err.emit_message = on_message;
    d.progress.progress_monitor = on_scan;
    d.source = (struct jpeg_source_mgr){.next_input_byte = bytes,
                                        .bytes_in_buffer = n,
                                        .init_source = source_open,
                                        .fill_input_buffer = source_fill,
                                        .skip_input_data = source_skip,
                                        .resync_to_restart = jpeg_resync_to_restart,
                                        .term_source = source_open};
    st = decode(&d);
    guarded(&d, destroy);
    at_free(d.row);
    if (st == AT_OK)
        *out = d.out;
    else
        at_picture_free(&d.out);
    return st;
}
