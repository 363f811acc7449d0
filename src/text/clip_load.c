// SPDX-License-Identifier: Apache-2.0
// clip_load.c - CLIP's vocabulary from the three forms it comes in.
//   vocab.json + merges.txt      ids from the one, ranks from the other
//   tokenizer.json               both in "model"
//   bpe_simple_vocab_16e6.txt    merges only; ids follow from them: 256 bytes, 256 bytes with </w>, the
//                                merges, the two specials (openai/CLIP's reference tokenizer)
// Easy to get wrong: the reference reads 49152 - 256 - 2 merges and no more, whatever the file holds.
#include <string.h>

#include "base/mem.h"
#include "text/impl.h"
#include "text/utf8.h"

#define MAX_MERGES (49152 - 256 - 2)
#define BOS_TEXT   "<|startoftext|>"
#define EOS_TEXT   "<|endoftext|>"

static at_status set_id(at_tokenizer *t, const char *text, size_t n, int32_t id)
{
    at_status st = AT_OK;
    int32_t sym = at_symtab_intern(&t->bpe.syms, text, n, &st);

    if (sym < 0) return st;
    t->bpe.syms.syms[sym].id = id;
    if (id >= t->vocab_size) t->vocab_size = (int64_t)id + 1;
    return AT_OK;
}

static at_status load_vocab_object(at_tokenizer *t, const json_t *vocab)
{
    const char *word;
    json_t *value;
    at_status st = AT_OK;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        AT_TRY(at_fail(AT_EFORMAT, "%s: the vocabulary is not a JSON object of words", t->label));
    json_object_foreach((json_t *)(uintptr_t)vocab, word, value)
    {
        int32_t id;
        if (!at_json_id(value, &id))
            AT_TRY(at_fail(AT_EFORMAT, "%s: the id of \"%.40s\" is not a whole number from 0",
                           t->label, word));
        AT_TRY(set_id(t, word, strlen(word), id));
    }
out:
    return st;
}

// One line "left right" of a merges file.
static at_status add_merge_line(at_tokenizer *t, const char *line, size_t n, size_t number,
                                int32_t *merged)
{
    const char *blank;

    while (n && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    blank = memchr(line, ' ', n);
    if (!blank || blank == line || memchr(blank + 1, ' ', (size_t)(line + n - blank - 1)))
        return at_fail(AT_EFORMAT, "%s: merge %zu is not two symbols: \"%.*s\"", t->label, number,
                       n < 60 ? (int)n : 60, line);
    return at_bpe_add_merge(&t->bpe, line, (size_t)(blank - line), blank + 1,
                            (size_t)(line + n - blank - 1), merged);
}

// The merges below the version line; unless first_id is -1, what they make gets ids from there on.
static at_status load_merge_lines(at_tokenizer *t, const char *text, size_t n, int32_t first_id)
{
    const char *end = text + n, *line = memchr(text, '\n', n);
    size_t count = 0;
    int32_t merged;
    at_status st = AT_OK;

    AT_TRY(at_bpe_reserve(&t->bpe, MAX_MERGES));
    line = line ? line + 1 : end;
    while (line < end && count < MAX_MERGES) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((stop ? stop : end) - line);
        if (len == 0 || (len == 1 && *line == '\r')) break; // the end of the file
        AT_TRY(add_merge_line(t, line, len, count + 1, &merged));
        if (first_id >= 0) t->bpe.syms.syms[merged].id = first_id + (int32_t)count;
        count++;
        line = stop ? stop + 1 : end;
    }
out:
    return st;
}

at_status at_clip_load_vocab(at_tokenizer *t, const char *vocab, size_t vocab_n, const char *merges,
                             size_t merges_n)
{
    json_t *root = NULL;
    at_status st = AT_OK;

    AT_TRY(at_text_json(t->label, vocab, vocab_n, &root));
    AT_TRY(at_bpe_init(&t->bpe));
    AT_TRY(load_vocab_object(t, root));
    AT_TRY(load_merge_lines(t, merges, merges_n, -1));
out:
    json_decref(root);
    return st;
}

at_status at_clip_load_simple(at_tokenizer *t, const char *text, size_t n)
{
    at_bpe *b = &t->bpe;
    int32_t id = 0;
    at_status st = AT_OK;

    AT_TRY(at_bpe_init(b));
    for (int last = 0; last < 2; last++) { // printable bytes first, then the others
        const int32_t *sym = last ? b->byte_last_sym : b->byte_sym;
        for (unsigned c = 0; c < 256; c++)
            if (at_byte_letter(c) == c) b->syms.syms[sym[c]].id = id++;
        for (unsigned c = 0; c < 256; c++)
            if (at_byte_letter(c) != c) b->syms.syms[sym[c]].id = id++;
    }
    AT_TRY(load_merge_lines(t, text, n, id));
    id += (int32_t)b->merge_count;
    if (b->merge_count == 0)
        AT_TRY(at_fail(AT_EFORMAT, "%s: no merges below the first line", t->label));
    AT_TRY(set_id(t, BOS_TEXT, strlen(BOS_TEXT), id));
    AT_TRY(set_id(t, EOS_TEXT, strlen(EOS_TEXT), id + 1));
out:
    return st;
}

static at_status load_json_merges(at_tokenizer *t, const json_t *merges)
{
    size_t i;
    json_t *m;
    at_status st = AT_OK;

    if (!json_is_array(merges))
        AT_TRY(at_fail(AT_EFORMAT, "%s: model.merges is not an array", t->label));
    AT_TRY(at_bpe_reserve(&t->bpe, json_array_size(merges)));
    json_array_foreach((json_t *)(uintptr_t)merges, i, m)
    {
        const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);
        if (json_is_string(m)) {
            AT_TRY(add_merge_line(t, json_string_value(m), json_string_length(m), i + 1, NULL));
        } else if (json_array_size(m) == 2 && json_is_string(left) && json_is_string(right)) {
            AT_TRY(at_bpe_add_merge(&t->bpe, json_string_value(left), json_string_length(left),
                                    json_string_value(right), json_string_length(right), NULL));
        } else {
            AT_TRY(at_fail(AT_EFORMAT, "%s: merge %zu is not two symbols", t->label, i + 1));
        }
    }
out:
    return st;
}

at_status at_clip_load_json(at_tokenizer *t, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    at_status st = AT_OK;

    if (type && strcmp(type, "BPE") != 0)
        AT_TRY(at_fail(AT_EFORMAT, "%s: a %.40s model; CLIP's is BPE", t->label, type));
    AT_TRY(at_bpe_init(&t->bpe));
    AT_TRY(load_vocab_object(t, json_object_get(model, "vocab")));
    AT_TRY(load_json_merges(t, json_object_get(model, "merges")));
    AT_TRY(at_load_added(t, root));
    for (size_t i = 0; i < t->added.count; i++)
        AT_TRY(set_id(t, t->added.items[i].text, t->added.items[i].len, t->added.items[i].id));
out:
    return st;
}

static at_status special(at_tokenizer *t, const char *text, int32_t *out)
{
    int32_t sym = at_symtab_find(&t->bpe.syms, text, strlen(text));

    *out = sym >= 0 ? t->bpe.syms.syms[sym].id : -1;
    if (*out < 0) return at_fail(AT_EFORMAT, "%s: no %s: not a CLIP vocabulary", t->label, text);
    return AT_OK;
}

at_status at_clip_finish(at_tokenizer *t)
{
    at_status st = AT_OK;

    AT_TRY(special(t, BOS_TEXT, &t->bos));
    AT_TRY(special(t, EOS_TEXT, &t->eos));
    t->pad = t->bpe.unk = t->eos;
    // The slow tokenizer cuts these out of the raw text, whatever a tokenizer.json says of them.
    for (size_t i = 0; i < t->added.count; i++)
        t->added.items[i].normalized = false;
    AT_TRY(at_added_push(&t->added, BOS_TEXT, strlen(BOS_TEXT), (at_added_token){.id = t->bos}));
    AT_TRY(at_added_push(&t->added, EOS_TEXT, strlen(EOS_TEXT), (at_added_token){.id = t->eos}));
    at_added_sort(&t->added);
    AT_TRY(at_case_rules_init(&t->cases));
    AT_TRY(
        at_regex_compile(t->label,
                         "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|"
                         "[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
                         true, &t->words));
out:
    return st;
}

// --- encoding ----------------------------------------------------------------------------------------

static at_status encode_word(const at_tokenizer *t, const char *word, size_t n, at_ids *out)
{
    if (n == strlen(BOS_TEXT) && !memcmp(word, BOS_TEXT, n)) return at_ids_push(out, t->bos);
    if (n == strlen(EOS_TEXT) && !memcmp(word, EOS_TEXT, n)) return at_ids_push(out, t->eos);
    return at_bpe_encode_word(&t->bpe, word, n, out);
}

static at_status encode_piece(const at_tokenizer *t, const char *text, size_t n, at_ids *out)
{
    at_regex_space *space = NULL;
    at_str clean = {0};
    size_t at = 0, begin, end;
    at_status st = AT_OK;

    AT_TRY(at_clip_clean(&t->cases, text, n, &clean));
    AT_TRY(at_regex_space_new(&space));
    while (clean.len &&
           at_regex_next(t->words, space, clean.data, clean.len, at, &begin, &end, &st)) {
        AT_TRY(encode_word(t, clean.data + begin, end - begin, out));
        at = end; // never empty: each alternative takes at least one character
    }
out:
    at_regex_space_free(space);
    at_str_free(&clean);
    return st;
}

at_status at_clip_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out)
{
    size_t at = 0, begin, end;
    int64_t k;
    at_status st = AT_OK;

    while ((k = at_added_next(&t->added, false, text, n, at, &begin, &end)) >= 0) {
        AT_TRY(encode_piece(t, text + at, begin - at, out));
        AT_TRY(at_ids_push(out, t->added.items[k].id));
        at = end;
    }
    AT_TRY(encode_piece(t, text + at, n - at, out));
out:
    return st;
}
