// SPDX-License-Identifier: Apache-2.0
// webp_read.c - WebP bytes to floats: stills and every frame of an animation.
// Idea: libwebp has no callbacks: a still is decoded into one buffer, an animation by libwebpdemux onto its
// canvas, frame by frame.
// Easy to get wrong: the canvas of an animation and the number of its frames are both the file's word: their
// product is checked before anything is allocated.
// Source: WebP container specification (RFC 9649), libwebp's headers.
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "base/mem.h"
#include "image/image.h"
#include "image/orient.h"

static at_status no_memory(const char *label)
{
    return at_fail(AT_ENOMEM, "%s: no memory for the picture", label);
}

static at_status broken(const char *label, VP8StatusCode code)
{
    static const char *const words[] = {
        "no error",        "no memory",          "invalid parameters", "broken data",
        "unknown feature", "decoding suspended", "decoding aborted",   "the file is truncated"};

    if (code == VP8_STATUS_OUT_OF_MEMORY) return no_memory(label);
    return at_fail(AT_EFORMAT, "%s: broken WebP: %s", label,
                   (size_t)code < sizeof words / sizeof *words ? words[code] : "unknown error");
}

static at_status allocate(const char *label, at_picture *p, bool alpha)
{
    size_t n = (size_t)p->width * (size_t)p->height * (size_t)p->frames; // checked by the caller

    p->rgb = at_alloc(n * 3 * sizeof(float));
    if (alpha) p->alpha = at_alloc(n * sizeof(float));
    return p->rgb && (!alpha || p->alpha) ? AT_OK : no_memory(label);
}

// One frame of `channels` bytes a pixel.
static void store(at_picture *p, int64_t frame, const uint8_t *bytes, int channels)
{
    int64_t n = p->width * p->height;
    float *rgb = p->rgb + frame * n * 3, *alpha = p->alpha ? p->alpha + frame * n : NULL;

    for (int64_t i = 0; i < n; i++, bytes += channels) {
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = (float)bytes[c] / 255.0f;
        if (alpha) alpha[i] = (float)bytes[3] / 255.0f;
    }
}

static at_status read_still(const char *label, const WebPData *data, bool alpha, at_picture *p)
{
    at_status st = AT_OK;
    int channels = alpha ? 4 : 3;
    size_t n = (size_t)p->width * (size_t)p->height * (size_t)channels;
    uint8_t *bytes = at_alloc(n);
    WebPDecoderConfig config;

    if (!bytes || !WebPInitDecoderConfig(&config)) AT_TRY(no_memory(label));
    config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = bytes;
    config.output.u.RGBA.stride = (int)p->width * channels;
    config.output.u.RGBA.size = n;
    VP8StatusCode code = WebPDecode(data->bytes, data->size, &config);
    if (code != VP8_STATUS_OK) AT_TRY(broken(label, code));
    AT_TRY(allocate(label, p, alpha));
    store(p, 0, bytes, channels);
out:
    at_free(bytes);
    return st;
}

static at_status read_animation(const char *label, const WebPData *data, bool alpha, at_picture *p)
{
    at_status st = AT_OK;
    WebPAnimDecoderOptions options;
    WebPAnimInfo info;
    WebPAnimDecoder *decoder = NULL;
    uint8_t *canvas;
    int when;

    if (!WebPAnimDecoderOptionsInit(&options)) AT_TRY(no_memory(label));
    options.color_mode = MODE_RGBA;
    decoder = WebPAnimDecoderNew(data, &options);
    if (!decoder || !WebPAnimDecoderGetInfo(decoder, &info))
        AT_TRY(at_fail(AT_EFORMAT, "%s: broken WebP: the animation cannot be read", label));
    uint64_t each = (uint64_t)p->width * (uint64_t)p->height;
    if (info.frame_count < 1 || info.frame_count > AT_PICTURE_PIXELS / each)
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: %u frames of %lld x %lld pixels are above the limit of %llu in all",
                       label, info.frame_count, (long long)p->width, (long long)p->height,
                       (unsigned long long)AT_PICTURE_PIXELS));
    p->frames = info.frame_count;
    AT_TRY(allocate(label, p, alpha));
    for (int64_t i = 0; i < p->frames; i++) {
        if (!WebPAnimDecoderGetNext(decoder, &canvas, &when))
            AT_TRY(at_fail(AT_EFORMAT, "%s: broken WebP: frame %lld of %lld cannot be read", label,
                           (long long)i + 1, (long long)p->frames));
        store(p, i, canvas, 4);
    }
out:
    WebPAnimDecoderDelete(decoder);
    return st;
}

static int orientation_of(const WebPData *data)
{
    static const char mark[6] = "Exif\0";
    int orientation = 1;
    WebPChunkIterator chunk;
    WebPDemuxer *demux = WebPDemux(data);

    if (!demux) return 1;
    if (WebPDemuxGetChunk(demux, "EXIF", 1, &chunk)) {
        size_t skip = chunk.chunk.size > 6 && !memcmp(chunk.chunk.bytes, mark, 6) ? 6 : 0;
        orientation = at_exif_orientation(chunk.chunk.bytes + skip, chunk.chunk.size - skip);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    WebPDemuxDelete(demux);
    return orientation;
}

at_status at_webp_decode(const char *label, const void *bytes, size_t n, at_picture *out)
{
    at_status st = AT_OK;
    WebPData data = {bytes, n};
    WebPBitstreamFeatures info;
    at_picture p = {.frames = 1};

    *out = (at_picture){0};
    VP8StatusCode code = WebPGetFeatures(bytes, n, &info);
    if (code != VP8_STATUS_OK) AT_TRY(broken(label, code));
    AT_TRY(at_picture_check_size(label, (uint64_t)info.width, (uint64_t)info.height));
    p.width = info.width;
    p.height = info.height;
    if (info.has_animation)
        AT_TRY(read_animation(label, &data, info.has_alpha, &p));
    else
        AT_TRY(read_still(label, &data, info.has_alpha, &p));
    AT_TRY(at_picture_turn(label, &p, orientation_of(&data)));
    *out = p;
    p = (at_picture){0};
out:
    at_picture_free(&p);
    return st;
}
