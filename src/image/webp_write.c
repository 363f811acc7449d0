// SPDX-License-Identifier: Apache-2.0
// webp_write.c - floats to WebP bytes: a still, or an animation.
// Idea: libwebp's animation encoder finds what changed between frames by itself; EXIF data is put around its
// result by libwebpmux.
// Source: libwebp's headers; keyframe distances as Pillow's (those of gif2webp).
#include <string.h>

#include <webp/encode.h>
#include <webp/mux.h>

#include "base/mem.h"
#include "image/image.h"

typedef struct encoder {
    const at_frames *f;
    WebPConfig config;
    uint8_t *bytes; // one picture, 3 or 4 channels
    WebPPicture picture;
    WebPMemoryWriter still;
    WebPAnimEncoder *animation;
    WebPData data; // the result, to be cleared
} encoder;

static at_status failed(const encoder *e, const char *what)
{
    int code = e->picture.error_code;
    if (code == VP8_ENC_ERROR_OUT_OF_MEMORY || code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY)
        return at_fail(AT_ENOMEM, "WebP of %lld x %lld pixels: no memory", (long long)e->f->width,
                       (long long)e->f->height);
    return at_fail(AT_EINTERNAL, "WebP of %lld x %lld pixels: %s (libwebp's error %d)",
                   (long long)e->f->width, (long long)e->f->height, what, code);
}

// Picture i into e->picture.
static at_status import(encoder *e, int64_t i)
{
    int64_t n = e->f->width * e->f->height * e->f->channels;
    const float *p = e->f->pixels + i * n;
    int stride = (int)e->f->width * e->f->channels;

    for (int64_t k = 0; k < n; k++)
        e->bytes[k] = at_pixel_byte(p[k]);
    WebPPictureFree(&e->picture);
    if (!WebPPictureInit(&e->picture)) return failed(e, "another version of libwebp");
    e->picture.width = (int)e->f->width;
    e->picture.height = (int)e->f->height;
    e->picture.use_argb = 1;
    bool ok = e->f->channels == 4 ? WebPPictureImportRGBA(&e->picture, e->bytes, stride)
                                  : WebPPictureImportRGB(&e->picture, e->bytes, stride);
    return ok ? AT_OK : failed(e, "the picture cannot be taken over");
}

static at_status write_still(encoder *e)
{
    at_status st = AT_OK;

    AT_TRY(import(e, 0));
    WebPMemoryWriterInit(&e->still);
    e->picture.writer = WebPMemoryWrite;
    e->picture.custom_ptr = &e->still;
    if (!WebPEncode(&e->config, &e->picture)) AT_TRY(failed(e, "it cannot be encoded"));
    e->data = (WebPData){e->still.mem, e->still.size};
    e->still = (WebPMemoryWriter){0};
out:
    return st;
}

static at_status write_animation(encoder *e)
{
    at_status st = AT_OK;
    WebPAnimEncoderOptions options;
    int when = 0;

    if (!WebPAnimEncoderOptionsInit(&options)) AT_TRY(failed(e, "another version of libwebp"));
    options.anim_params.bgcolor = 0;
    options.kmin = e->config.lossless ? 9 : 3;
    options.kmax = e->config.lossless ? 17 : 5;
    e->animation = WebPAnimEncoderNew((int)e->f->width, (int)e->f->height, &options);
    if (!e->animation) AT_TRY(failed(e, "no encoder"));
    for (int64_t i = 0; i < e->f->count; i++) {
        AT_TRY(import(e, i));
        if (!WebPAnimEncoderAdd(e->animation, &e->picture, when, &e->config))
            AT_TRY(failed(e, WebPAnimEncoderGetError(e->animation)));
        when += e->f->ms;
    }
    if (!WebPAnimEncoderAdd(e->animation, NULL, when, NULL) ||
        !WebPAnimEncoderAssemble(e->animation, &e->data))
        AT_TRY(failed(e, WebPAnimEncoderGetError(e->animation)));
out:
    return st;
}

// Put a TIFF block around what is encoded.
static at_status add_exif(encoder *e, const at_webp_how *how)
{
    at_status st = AT_OK;
    WebPData exif = {how->exif, how->exif_bytes}, all = {0};
    WebPMux *mux = WebPMuxCreate(&e->data, 0);

    if (!mux || WebPMuxSetChunk(mux, "EXIF", &exif, 0) != WEBP_MUX_OK ||
        WebPMuxAssemble(mux, &all) != WEBP_MUX_OK)
        AT_TRY(failed(e, "the metadata cannot be added"));
    WebPDataClear(&e->data);
    e->data = all;
out:
    WebPMuxDelete(mux);
    return st;
}

static at_status check(const at_frames *f, const at_webp_how *how)
{
    if (f->count < 1 || f->width < 1 || f->height < 1 || f->width > WEBP_MAX_DIMENSION ||
        f->height > WEBP_MAX_DIMENSION || f->channels < 3 || f->channels > 4)
        return at_fail(AT_EINVAL,
                       "WebP of %lld pictures of %lld x %lld, %d channels: sides are 1 to %d, "
                       "channels 3 or 4",
                       (long long)f->count, (long long)f->width, (long long)f->height, f->channels,
                       WEBP_MAX_DIMENSION);
    if (how->quality < 0 || how->quality > 100 || how->method < 0 || how->method > 6)
        return at_fail(AT_EINVAL, "WebP: quality %d is not 0 to 100 or method %d not 0 to 6",
                       how->quality, how->method);
    // Three bytes of the format hold a frame's duration; times add up in an int.
    if (f->count > 1 && (f->ms < 0 || f->ms >= 1 << 24 || f->ms > INT32_MAX / f->count))
        return at_fail(AT_EINVAL, "WebP: %lld pictures of %d ms each are too long",
                       (long long)f->count, f->ms);
    return AT_OK;
}

at_status at_webp_encode(const at_frames *f, const at_webp_how *how, uint8_t **out, size_t *n)
{
    at_status st = AT_OK;
    encoder e = {.f = f};

    *out = NULL;
    AT_TRY(check(f, how));
    if (!WebPConfigInit(&e.config)) AT_TRY(failed(&e, "another version of libwebp"));
    e.config.lossless = how->lossless;
    e.config.quality = (float)how->quality;
    e.config.alpha_quality = 100;
    e.config.method = how->method;
    e.bytes = at_alloc((size_t)(f->width * f->height * f->channels));
    if (!e.bytes) AT_TRY(at_fail(AT_ENOMEM, "WebP: no memory for a picture"));
    AT_TRY(f->count == 1 ? write_still(&e) : write_animation(&e));
    if (how->exif) AT_TRY(add_exif(&e, how));
    *out = at_alloc(e.data.size);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "WebP: no memory for %zu bytes", e.data.size));
    memcpy(*out, e.data.bytes, e.data.size);
    *n = e.data.size;
out:
    WebPAnimEncoderDelete(e.animation);
    WebPPictureFree(&e.picture);
    WebPMemoryWriterClear(&e.still);
    WebPDataClear(&e.data);
    at_free(e.bytes);
    return st;
}
