// SPDX-License-Identifier: Apache-2.0
// thumbnail.c - a picture made smaller for a gallery, and what tells a browser that it has it already.
// Idea: a page of forty thumbnails is asked for again at every visit; the tag is made of the file's time and size, so that
// an unchanged picture costs one stat.
// Owns nothing.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "serve/files.h"

int at_thumbnail_side(const char *text)
{
    char *end = NULL;
    long side = text ? strtol(text, &end, 10) : 0;
    return text && end != text && !*end && side >= 16 && side <= 4096 ? (int)side : 0;
}

bool at_thumbnail_known(const at_request *rq, at_response *rs, const struct stat *s, int side)
{
    char tag[96];
    snprintf(tag, sizeof tag, "\"%llx-%llx-%x\"",
             (unsigned long long)s->st_mtim.tv_sec * 1000000000ull +
                 (unsigned long long)s->st_mtim.tv_nsec,
             (unsigned long long)s->st_size, (unsigned)side);
    const char *known = rq->header[AT_HEADER_IF_NONE_MATCH];
    bool has = known && strstr(known, tag);
    if (has) (void)at_reply_status(rs, 304);
    at_response_header(rs, "ETag", tag);
    at_response_header(rs, "Cache-Control", "no-cache"); // ask, and be told 304
    return has;
}

static at_status shrink(float **pixels, int64_t w, int64_t h, int64_t channels, int64_t to_w,
                        int64_t to_h)
{
    at_status st = AT_OK;
    at_tensor *in = NULL, *small = NULL;
    size_t bytes = (size_t)(to_w * to_h * channels) * sizeof **pixels;
    float *out = at_alloc(bytes);

    if (!out) AT_TRY(at_fail(AT_ENOMEM, "thumbnail: no memory"));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, h, w, channels}, &in));
    memcpy(at_tensor_data(in), *pixels, (size_t)(w * h * channels) * sizeof **pixels);
    AT_TRY(at_resize(in, AT_ORDER_NHWC, to_w, to_h, AT_RESIZE_AREA, false, &small));
    memcpy(out, at_tensor_data(small), bytes);
    at_free(*pixels);
    *pixels = out;
    out = NULL;
out:
    at_tensor_release(&in);
    at_tensor_release(&small);
    at_free(out);
    return st;
}

at_status at_thumbnail_shrink(at_picture *p, int side)
{
    int64_t longer = p->width > p->height ? p->width : p->height;
    if (side <= 0 || longer <= side) return AT_OK;
    double scale = (double)side / (double)longer;
    int64_t w = (int64_t)((double)p->width * scale + 0.5);
    int64_t h = (int64_t)((double)p->height * scale + 0.5);
    if (w < 1) w = 1;
    if (h < 1) h = 1;
    at_status st = shrink(&p->rgb, p->width, p->height, 3, w, h);
    if (st == AT_OK && p->alpha) st = shrink(&p->alpha, p->width, p->height, 1, w, h);
    if (st != AT_OK) return st;
    p->width = w;
    p->height = h;
    return AT_OK;
}
