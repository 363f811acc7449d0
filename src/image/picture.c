// SPDX-License-Identifier: Apache-2.0
// picture.c - which kind of picture some bytes are, and what all kinds share.
// Idea: the content decides, never the file's name.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"

typedef struct kind {
    const char *magic;
    size_t at, n;
    const char *name; // of a kind that is not read
    at_status (*decode)(const char *label, const void *bytes, size_t n, at_picture *out);
} kind;

static const kind kinds[] = {
    {"\x89PNG\r\n\x1a\n", 0, 8, NULL, at_png_decode},
    {"\xff\xd8\xff", 0, 3, NULL, at_jpeg_decode},
    {"WEBP", 8, 4, NULL, at_webp_decode},
    {"GIF8", 0, 4, "a GIF", NULL},
    {"BM", 0, 2, "a BMP", NULL},
    {"II*\0", 0, 4, "a TIFF", NULL},
    {"MM\0*", 0, 4, "a TIFF", NULL},
    {"ftypavif", 4, 8, "an AVIF", NULL},
    {"ftypheic", 4, 8, "a HEIC", NULL},
    {"8BPS", 0, 4, "a Photoshop", NULL},
    {"<svg", 0, 4, "an SVG", NULL},
};

at_status at_picture_decode(const char *label, const void *bytes, size_t n, at_picture *out)
{
    const char *p = bytes;

    *out = (at_picture){0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const kind *k = &kinds[i];
        if (n < k->at + k->n || memcmp(p + k->at, k->magic, k->n) != 0) continue;
        if (k->decode) return k->decode(label, bytes, n, out);
        return at_fail(AT_EUNSUPPORTED,
                       "%s: this is %s file; atelier reads PNG, JPEG and WebP: convert it", label,
                       k->name);
    }
    return at_fail(AT_EFORMAT, "%s: not a PNG, JPEG or WebP file (%zu bytes)", label, n);
}

at_status at_picture_load(const char *path, at_picture *out)
{
    at_map map = {0};
    at_status st = AT_OK;

    *out = (at_picture){0};
    AT_TRY(at_map_open(path, &map));
    AT_TRY(at_picture_decode(path, map.data, map.size, out));
out:
    at_map_close(&map);
    return st;
}

void at_picture_free(at_picture *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->text_count; i++) {
        at_free((char *)(uintptr_t)p->text[i].key);
        at_free((char *)(uintptr_t)p->text[i].value);
    }
    at_free(p->text);
    at_free(p->rgb);
    at_free(p->alpha);
    *p = (at_picture){0};
}

at_status at_picture_check_size(const char *label, uint64_t width, uint64_t height)
{
    if (width < 1 || height < 1 || width > AT_PICTURE_SIDE || height > AT_PICTURE_SIDE)
        return at_fail(AT_EFORMAT, "%s: a picture of %llu x %llu: sides are 1 to %d", label,
                       (unsigned long long)width, (unsigned long long)height, AT_PICTURE_SIDE);
    if (width * height > AT_PICTURE_PIXELS)
        return at_fail(AT_EFORMAT, "%s: %llu x %llu pixels are above the limit of %llu in all",
                       label, (unsigned long long)width, (unsigned long long)height,
                       (unsigned long long)AT_PICTURE_PIXELS);
    return AT_OK;
}
