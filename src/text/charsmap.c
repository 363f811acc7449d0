// SPDX-License-Identifier: Apache-2.0
// charsmap.c - see charsmap.h.
#include "text/charsmap.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define MAX_REPLACEMENT 1024 // bytes; NFKC's longest is 33

static uint32_t read_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static at_status check_texts(const char *label, const at_charsmap *m)
{
    size_t run = 0;

    if (!at_utf8_valid(m->texts, m->text_bytes))
        return at_fail(AT_EFORMAT, "%s: the normalisation rules are not UTF-8", label);
    for (size_t i = 0; i < m->text_bytes; i++) {
        run = m->texts[i] ? run + 1 : 0;
        if (run > MAX_REPLACEMENT)
            return at_fail(AT_EFORMAT, "%s: a normalisation rule is longer than %d bytes", label,
                           MAX_REPLACEMENT);
    }
    return AT_OK;
}

at_status at_charsmap_load(const char *label, const uint8_t *data, size_t n, at_charsmap *out)
{
    uint32_t trie;
    at_status st = AT_OK;

    *out = (at_charsmap){0};
    if (n == 0) return AT_OK;
    if (n < 4) return at_fail(AT_EFORMAT, "%s: normalisation rules of %zu bytes", label, n);
    trie = read_u32(data);
    if (trie % 4 || trie == 0 || trie > n - 4)
        return at_fail(AT_EFORMAT, "%s: normalisation rules of %zu bytes cannot hold a trie of %u",
                       label, n, trie);
    out->unit_count = trie / 4;
    out->text_bytes = n - 4 - trie;
    out->units = at_calloc(out->unit_count, sizeof *out->units);
    out->texts = at_alloc(out->text_bytes + 1);
    if (!out->units || !out->texts)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for normalisation rules", label));
    for (size_t i = 0; i < out->unit_count; i++)
        out->units[i] = read_u32(data + 4 + 4 * i);
    memcpy(out->texts, data + 4 + trie, out->text_bytes);
    out->texts[out->text_bytes] = 0;
    AT_TRY(check_texts(label, out));
out:
    if (st != AT_OK) at_charsmap_free(out);
    return st;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

at_status at_charsmap_load_base64(const char *label, const char *text, size_t n, at_charsmap *out)
{
    uint8_t *bytes = at_alloc(n / 4 * 3 + 3);
    size_t len = 0;
    uint32_t acc = 0;
    int bits = 0;
    at_status st = AT_OK;

    *out = (at_charsmap){0};
    if (!bytes) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for normalisation rules", label));
    while (n && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int d = base64_digit(text[i]);
        if (d < 0) AT_TRY(at_fail(AT_EFORMAT, "%s: precompiled_charsmap is not base64", label));
        acc = acc << 6 | (uint32_t)d;
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        bytes[len++] = (uint8_t)(acc >> bits);
    }
    AT_TRY(at_charsmap_load(label, bytes, len, out));
out:
    at_free(bytes);
    return st;
}

// The unit's bits, after darts-clone: 31 and 0-7 label, 8 has a leaf, 9 scales the offset in 10-30.
static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

const char *at_charsmap_match(const at_charsmap *m, const char *text, size_t n, bool longest,
                              size_t *len)
{
    const char *found = NULL;
    size_t at;

    if (m->unit_count == 0) return NULL;
    at = offset_of(m->units[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        uint32_t unit, value;
        at ^= c;
        if (c == 0 || at >= m->unit_count) break;
        unit = m->units[at];
        if ((unit & (1u << 31 | 0xff)) != c) break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->unit_count) break;
        value = m->units[at] & 0x7fffffff;
        if (value > m->text_bytes) continue; // points nowhere
        found = m->texts + value;
        *len = i + 1;
        if (!longest) break;
    }
    return found;
}

void at_charsmap_free(at_charsmap *m)
{
    at_free(m->units);
    at_free(m->texts);
    *m = (at_charsmap){0};
}
