// SPDX-License-Identifier: Apache-2.0
// exif_write.c - texts as an EXIF block: where ComfyUI keeps a workflow in a WebP file.
// Source: TIFF 6.0, byte for byte as Pillow's Exif.tobytes writes ASCII tags (big endian, values padded to
// an even length behind the directory).
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "image/image.h"

#define MAX_TEXTS 1000
#define ASCII     2 // TIFF's type

static void put(at_str *s, uint32_t v, int bytes)
{
    uint8_t b[4];
    for (int i = 0; i < bytes; i++)
        b[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
    at_str_append_n(s, b, (size_t)bytes);
}

static void put_text(at_str *s, const char *text, size_t n, size_t total)
{
    for (size_t i = 0; i < total; i++) {
        uint8_t c = i < n ? (uint8_t)text[i] : 0;
        if (c >= 0x80) c = '?';
        at_str_append_n(s, &c, 1);
    }
}

at_status at_exif_encode(const at_exif_text *texts, size_t count, uint8_t **out, size_t *n)
{
    at_str s = {0};
    uint64_t at = 8 + 2 + 12 * (uint64_t)count + 4;

    *out = NULL;
    if (count > MAX_TEXTS) return at_fail(AT_EINVAL, "EXIF: %zu texts are too many", count);
    at_str_append_n(&s, "MM\0*", 4);
    put(&s, 8, 4);
    put(&s, (uint32_t)count, 2);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(texts[i].text) + 1;
        if (i && texts[i].tag <= texts[i - 1].tag) {
            at_str_free(&s);
            return at_fail(AT_EINVAL, "EXIF: tag %04x comes after %04x", texts[i].tag,
                           texts[i - 1].tag);
        }
        put(&s, texts[i].tag, 2);
        put(&s, ASCII, 2);
        put(&s, (uint32_t)bytes, 4);
        if (bytes <= 4) {
            put_text(&s, texts[i].text, bytes - 1, 4);
        } else {
            put(&s, (uint32_t)at, 4);
            at += bytes + bytes % 2;
        }
    }
    put(&s, 0, 4); // no second directory
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(texts[i].text) + 1;
        if (bytes > 4) put_text(&s, texts[i].text, bytes - 1, bytes + bytes % 2);
    }
    if (at > UINT32_MAX) {
        at_str_free(&s);
        return at_fail(AT_EINVAL, "EXIF: the texts are longer than 4 GiB");
    }
    *n = s.len;
    *out = (uint8_t *)at_str_take(&s);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "EXIF: no memory");
}
