// SPDX-License-Identifier: Apache-2.0
// t5.c - text to ids for T5: cut out added tokens, normalise, split into words, run the model.
// Source: Hugging Face tokenizers 0.22 (Metaspace, WhitespaceSplit; behaviour), sentencepiece 0.2.
#include "text/t5.h"

#include <string.h>

#include "base/mem.h"
#include "text/impl.h"
#include "text/utf8.h"

// One word: blanks become marks, a mark comes in front, and then either the whole of it or each part that
// begins with a mark goes through the model.
static at_status encode_marked(const at_t5 *t, const char *word, size_t n, bool first, at_ids *out)
{
    size_t mark = strlen(t->mark), begin = 0;
    at_str s = {0};
    at_status st = AT_OK;

    if (!t->mark_blanks) return at_unigram_encode(&t->uni, word, n, out);
    if ((t->prepend == AT_PREPEND_ALWAYS || (t->prepend == AT_PREPEND_FIRST && first)) &&
        !(n >= mark && !memcmp(word, t->mark, mark)) && !(n && *word == ' '))
        at_str_append(&s, t->mark);
    for (size_t i = 0; i < n; i++) {
        if (word[i] == ' ')
            at_str_append(&s, t->mark);
        else
            at_str_append_n(&s, word + i, 1);
    }
    if (s.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt of %zu bytes", n));
    for (size_t i = 1; t->split_marks && i + mark <= s.len; i++) {
        if (memcmp(s.data + i, t->mark, mark) != 0) continue;
        AT_TRY(at_unigram_encode(&t->uni, s.data + begin, i - begin, out));
        begin = i;
    }
    AT_TRY(at_unigram_encode(&t->uni, s.data + begin, s.len - begin, out));
out:
    at_str_free(&s);
    return st;
}

at_status at_t5_encode_words(const at_t5 *t, const char *text, size_t n, bool first, at_ids *out)
{
    size_t begin = 0;
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    if (!t->split_white) return encode_marked(t, text, n, first, out);
    for (size_t i = 0; i <= n;) {
        uint32_t cp = ' ';
        size_t len = i < n ? at_utf8_next(text + i, n - i, &cp) : 1;
        if (at_is_space(cp)) {
            if (i > begin)
                AT_TRY(encode_marked(t, text + begin, i - begin, first && begin == 0, out));
            begin = i + len;
        }
        i += len;
    }
out:
    return st;
}

// A stretch between raw added tokens: normalise, then cut out those that are sought in normalised text.
static at_status encode_stretch(const at_tokenizer *t, const char *text, size_t n, bool first,
                                at_ids *out)
{
    at_str s = {0};
    size_t at = 0, begin, end;
    int64_t k;
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    AT_TRY(at_t5_normalize(&t->t5, text, n, &s));
    while (s.len && (k = at_added_next(&t->added, true, s.data, s.len, at, &begin, &end)) >= 0) {
        AT_TRY(at_t5_encode_words(&t->t5, s.data + at, begin - at, first && at == 0, out));
        AT_TRY(at_ids_push(out, t->added.items[k].id));
        at = end;
    }
    if (s.len) AT_TRY(at_t5_encode_words(&t->t5, s.data + at, s.len - at, first && at == 0, out));
out:
    at_str_free(&s);
    return st;
}

static at_status encode_sentencepiece(const at_tokenizer *t, const char *text, size_t n,
                                      at_ids *out)
{
    at_str s = {0};
    at_status st = AT_OK;

    AT_TRY(at_t5_sp_normalize(&t->t5, &t->added, text, n, &s));
    if (s.len) AT_TRY(at_unigram_encode(&t->t5.uni, s.data, s.len, out));
out:
    at_str_free(&s);
    return st;
}

at_status at_t5_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out)
{
    size_t at = 0, begin, end;
    int64_t k;
    at_status st = AT_OK;

    if (t->t5.sentencepiece) return encode_sentencepiece(t, text, n, out);
    while ((k = at_added_next(&t->added, false, text, n, at, &begin, &end)) >= 0) {
        AT_TRY(encode_stretch(t, text + at, begin - at, at == 0, out));
        AT_TRY(at_ids_push(out, t->added.items[k].id));
        at = end;
    }
    AT_TRY(encode_stretch(t, text + at, n - at, at == 0, out));
out:
    return st;
}

void at_t5_free(at_t5 *t)
{
    for (int i = 0; i < t->step_count; i++) {
        at_norm_step *s = &t->steps[i];
        at_charsmap_free(&s->map);
        at_regex_free(s->pattern);
        at_free(s->literal);
        at_free(s->content);
    }
    at_charsmap_free(&t->map);
    at_unigram_free(&t->uni);
    *t = (at_t5){0};
}
