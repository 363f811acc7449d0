// SPDX-License-Identifier: Apache-2.0
// clip_clean.c - see clip_clean.h. Unicode data: utf8proc 2.8 (Unicode 15), PCRE2 10.42.
// Easy to get wrong: every character of category C goes, so zero-width joiners, soft hyphens and
// unassigned code points vanish without a blank in their place.
#include "text/clip_clean.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "text/utf8.h"

at_status at_case_rules_init(at_case_rules *r)
{
    at_status st = AT_OK;

    AT_TRY(at_regex_compile("clip", "\\A\\p{Cased}", false, &r->cased));
    AT_TRY(at_regex_compile("clip", "\\A\\p{Case_Ignorable}", false, &r->ignorable));
out:
    return st;
}

void at_case_rules_free(at_case_rules *r)
{
    at_regex_free(r->cased);
    at_regex_free(r->ignorable);
    *r = (at_case_rules){0};
}

static bool is_dropped(uint32_t c)
{
    if (c == 0 || c == AT_REPLACEMENT) return true;
    if (c == '\t' || c == '\n' || c == '\r') return false;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS: return true;
    default: return false;
    }
}

// What BasicTokenizer turns into a blank, and the two separators that str.split takes besides.
static bool is_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0x2028 || c == 0x2029 ||
           utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ZS;
}

static bool is_cjk(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } blocks[] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                  {0x2b740, 0x2b81f}, {0x2b820, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};

    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].first && c <= blocks[i].last) return true;
    return false;
}

static void filter(const char *text, size_t n, at_str *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += at_utf8_next(text + i, n - i, &c);
        if (is_dropped(c)) continue;
        if (is_space(c)) {
            at_str_append_n(out, " ", 1);
        } else if (is_cjk(c)) {
            at_str_append_n(out, " ", 1);
            at_utf8_append(out, c);
            at_str_append_n(out, " ", 1);
        } else {
            at_utf8_append(out, c);
        }
    }
}

static bool has(const at_regex *property, uint32_t c, at_status *st)
{
    char bytes[4];
    size_t n = at_utf8_put(bytes, c), b, e;

    return at_regex_next(property, NULL, bytes, n, 0, &b, &e, st);
}

// Final_Sigma of Unicode's SpecialCasing: a cased letter before, none behind, skipping ignorable ones.
static bool is_final_sigma(const at_case_rules *r, const uint32_t *word, size_t n, size_t at,
                           at_status *st)
{
    size_t i = at, j = at + 1;

    while (i > 0 && has(r->ignorable, word[i - 1], st))
        i--;
    if (i == 0 || !has(r->cased, word[i - 1], st)) return false;
    while (j < n && has(r->ignorable, word[j], st))
        j++;
    return j == n || !has(r->cased, word[j], st);
}

bool at_case_is_cased(const at_case_rules *r, uint32_t c, at_status *st)
{
    return has(r->cased, c, st);
}

at_status at_case_lower(const at_case_rules *r, const uint32_t *word, size_t n, size_t at,
                        at_str *out)
{
    at_status st = AT_OK;

    if (word[at] == 0x130) // I with a dot: the one letter whose lower case is two
        at_str_append(out, "i\xcc\x87");
    else if (word[at] == 0x3a3)
        at_utf8_append(out, is_final_sigma(r, word, n, at, &st) ? 0x3c2 : 0x3c3);
    else
        at_utf8_append(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)word[at]));
    return st;
}

static at_status lower_word(const at_case_rules *r, const uint32_t *word, size_t n, at_str *out)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < n && st == AT_OK; i++)
        st = at_case_lower(r, word, n, i, out);
    return st;
}

// Words of a composed text, lowered, with one blank between them.
static at_status lower_words(const at_case_rules *r, const char *text, size_t n, at_str *out)
{
    at_cps word = {0};
    at_status st = AT_OK;

    for (size_t i = 0; i <= n;) {
        uint32_t c = ' ';
        i += i < n ? at_utf8_next(text + i, n - i, &c) : 1;
        if (!is_space(c)) {
            AT_TRY(at_cps_push(&word, c));
        } else if (word.len) {
            if (out->len) at_str_append_n(out, " ", 1);
            AT_TRY(lower_word(r, word.data, word.len, out));
            word.len = 0;
        }
    }
out:
    at_cps_free(&word);
    return st;
}

at_status at_clip_clean(const at_case_rules *r, const char *text, size_t n, at_str *out)
{
    at_str kept = {0};
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t len;
    at_status st = AT_OK;

    filter(text, n, &kept);
    if (kept.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt of %zu bytes", n));
    len = utf8proc_map((const utf8proc_uint8_t *)at_str_text(&kept), (utf8proc_ssize_t)kept.len,
                       &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (len < 0) AT_TRY(at_fail(AT_ENOMEM, "a prompt of %zu bytes: %s", n, utf8proc_errmsg(len)));
    AT_TRY(lower_words(r, (const char *)composed, (size_t)len, out));
    if (out->failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt of %zu bytes", n));
out:
    free(composed);
    at_str_free(&kept);
    return st;
}
