// SPDX-License-Identifier: Apache-2.0
// t5_normalize.c - the steps that a tokenizer.json asks for, and sentencepiece's normaliser.
// Sources: Hugging Face tokenizers 0.22 (behaviour), sentencepiece 0.2 normalizer.cc (behaviour).
// Easy to get wrong: Hugging Face replaces whole graphemes of fewer than 6 bytes by the rule of their
// SHORTEST prefix, sentencepiece the longest prefix of the text.
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/t5.h"
#include "text/utf8.h"

#define MAX_GROWTH (64u << 20) // bytes a prompt may become

static void charsmap_chars(const at_charsmap *m, const char *text, size_t n, at_str *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = at_utf8_next(text + i, n - i, &cp), hit;
        const char *to = at_charsmap_match(m, text + i, len, false, &hit);
        if (to)
            at_utf8_repair(out, to, strlen(to));
        else
            at_str_append_n(out, text + i, len);
        i += len;
    }
}

static void charsmap_graphemes(const at_charsmap *m, const char *text, size_t n, at_str *out)
{
    size_t begin = 0;

    while (begin < n) {
        utf8proc_int32_t state = 0;
        uint32_t last, next;
        size_t end = begin + at_utf8_next(text + begin, n - begin, &last), len, hit;
        const char *to;
        while (end < n) {
            len = at_utf8_next(text + end, n - end, &next);
            if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)next,
                                                 &state))
                break;
            end += len;
            last = next;
        }
        to = end - begin < 6 ? at_charsmap_match(m, text + begin, end - begin, false, &hit) : NULL;
        if (to)
            at_utf8_repair(out, to, strlen(to));
        else
            charsmap_chars(m, text + begin, end - begin, out);
        begin = end;
    }
}

static void strip(const at_norm_step *s, const char *text, size_t n, at_str *out)
{
    size_t begin = 0, end = n, last = 0;
    uint32_t cp;

    while (s->left && begin < n) {
        size_t len = at_utf8_next(text + begin, n - begin, &cp);
        if (!at_is_space(cp)) break;
        begin += len;
    }
    for (size_t i = last = begin; s->right && i < n;) {
        i += at_utf8_next(text + i, n - i, &cp);
        if (!at_is_space(cp)) last = i;
    }
    if (s->right) end = last;
    at_str_append_n(out, text + begin, end - begin);
}

static bool next_hit(const at_norm_step *s, at_regex_space *space, const char *text, size_t n,
                     size_t from, size_t *begin, size_t *end, at_status *st)
{
    const char *hit;

    if (s->pattern) return at_regex_next(s->pattern, space, text, n, from, begin, end, st);
    hit = from < n ? memmem(text + from, n - from, s->literal, strlen(s->literal)) : NULL;
    if (!hit) return false;
    *begin = (size_t)(hit - text);
    *end = *begin + strlen(s->literal);
    return true;
}

static at_status replace(const at_norm_step *s, const char *text, size_t n, at_str *out)
{
    size_t from = 0, copied = 0, begin, end;
    at_regex_space *space = NULL;
    at_status st = AT_OK;

    if (s->pattern) AT_TRY(at_regex_space_new(&space));
    while (from <= n && next_hit(s, space, text, n, from, &begin, &end, &st)) {
        uint32_t cp;
        at_str_append_n(out, text + copied, begin - copied);
        at_str_append(out, s->content);
        copied = end;
        from = end > begin ? end : end + (end < n ? at_utf8_next(text + end, n - end, &cp) : 1);
        if (out->len > MAX_GROWTH) break;
    }
    if (copied < n) at_str_append_n(out, text + copied, n - copied);
out:
    at_regex_space_free(space);
    return st;
}

static void lower(const char *text, size_t n, at_str *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += at_utf8_next(text + i, n - i, &cp);
        if (cp == 0x130)
            at_str_append(out, "i\xcc\x87");
        else
            at_utf8_append(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    }
}

static at_status unicode_form(const at_norm_step *s, const char *text, size_t n, at_str *out)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                        &mapped, (utf8proc_option_t)s->form);

    if (len < 0) return at_fail(AT_ENOMEM, "a prompt of %zu bytes: %s", n, utf8proc_errmsg(len));
    at_str_append_n(out, mapped, (size_t)len);
    free(mapped);
    return AT_OK;
}

static at_status run_step(const at_norm_step *s, const char *text, size_t n, at_str *out)
{
    switch (s->kind) {
    case AT_NORM_CHARSMAP: charsmap_graphemes(&s->map, text, n, out); break;
    case AT_NORM_STRIP: strip(s, text, n, out); break;
    case AT_NORM_REPLACE: return replace(s, text, n, out);
    case AT_NORM_PREPEND:
        if (n) at_str_append(out, s->content);
        at_str_append_n(out, text, n);
        break;
    case AT_NORM_LOWER: lower(text, n, out); break;
    case AT_NORM_UNICODE: return unicode_form(s, text, n, out);
    }
    return AT_OK;
}

at_status at_t5_normalize(const at_t5 *t, const char *text, size_t n, at_str *out)
{
    at_str now = {0};
    at_status st = AT_OK;

    at_utf8_repair(&now, text, n); // patterns and utf8proc need well-formed text
    for (int i = 0; i < t->step_count; i++) {
        at_str next = {0};
        if (now.failed) break;
        st = run_step(&t->steps[i], at_str_text(&now), now.len, &next);
        at_str_free(&now);
        now = next;
        if (st == AT_OK && now.len > MAX_GROWTH)
            st = at_fail(AT_EFORMAT, "the tokenizer's rules blow a prompt of %zu bytes up to %zu",
                         n, now.len);
        if (st != AT_OK) goto out;
    }
    if (now.len) at_str_append_n(out, now.data, now.len);
    if (now.failed || out->failed) AT_TRY(at_fail(AT_ENOMEM, "no memory to normalise a prompt"));
out:
    at_str_free(&now);
    return st;
}

// --- sentencepiece -----------------------------------------------------------------------------------

// What the start of `text` becomes: bytes (not NUL-terminated) and how much of `text` they stand for.
static size_t sp_prefix(const at_t5 *t, const at_added *fixed, const char *text, size_t n,
                        const char **to, size_t *to_n)
{
    const char *hit;
    size_t len;
    uint32_t cp;

    len = at_added_prefix(fixed, text, n);
    if (len) {
        *to = text;
        *to_n = len;
        return len;
    }
    hit = at_charsmap_match(&t->map, text, n, true, &len);
    if (hit) {
        *to = hit;
        *to_n = strlen(hit);
        return len;
    }
    len = at_utf8_next(text, n, &cp);
    *to = text;
    *to_n = len;
    if (cp == AT_REPLACEMENT && len == 1) {
        *to = "\xef\xbf\xbd";
        *to_n = 3;
    }
    return len;
}

static void append_escaped(const at_t5 *t, const char *text, size_t n, at_str *out)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ' && t->escape_whitespaces)
            at_str_append(out, t->mark);
        else
            at_str_append_n(out, text + i, 1);
    }
}

at_status at_t5_sp_normalize(const at_t5 *t, const at_added *fixed, const char *text, size_t n,
                             at_str *out)
{
    const char *blank = t->escape_whitespaces ? t->mark : " ", *to;
    bool after_blank = t->remove_extra_whitespaces;
    size_t i = 0, to_n;

    while (t->remove_extra_whitespaces &&
           i < n) { // blanks at the start go, whatever they were before
        size_t len = sp_prefix(t, fixed, text + i, n - i, &to, &to_n);
        if (to_n != 1 || *to != ' ') break;
        i += len;
    }
    if (i == n) return AT_OK;
    if (t->add_dummy_prefix && !t->whitespace_suffix) at_str_append(out, blank);
    while (i < n) {
        i += sp_prefix(t, fixed, text + i, n - i, &to, &to_n);
        while (after_blank && to_n && *to == ' ')
            to++, to_n--;
        if (to_n) {
            append_escaped(t, to, to_n, out);
            after_blank = to[to_n - 1] == ' ';
        }
        if (!t->remove_extra_whitespaces) after_blank = false;
        if (out->len > MAX_GROWTH)
            return at_fail(AT_EFORMAT, "the tokenizer's rules blow a prompt of %zu bytes up", n);
    }
    while (t->remove_extra_whitespaces && out->len >= strlen(blank) &&
           !memcmp(out->data + out->len - strlen(blank), blank, strlen(blank)))
        out->len -= strlen(blank);
    if (t->add_dummy_prefix && t->whitespace_suffix) at_str_append(out, blank);
    if (out->failed) return at_fail(AT_ENOMEM, "no memory to normalise a prompt");
    return AT_OK;
}
