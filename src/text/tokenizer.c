// SPDX-License-Identifier: Apache-2.0
// tokenizer.c - which loader reads which file, counting, and the questions everybody asks.
#include "text/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"
#include "text/impl.h"

at_status at_ids_push(at_ids *ids, int32_t id)
{
    if (ids->len == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64, bytes;
        int32_t *p;
        if (!at_mul_size(cap, sizeof *p, &bytes) || !(p = at_realloc(ids->data, bytes)))
            return at_fail(AT_ENOMEM, "no memory for %zu tokens", cap);
        ids->data = p;
        ids->cap = cap;
    }
    ids->data[ids->len++] = id;
    return AT_OK;
}

void at_ids_free(at_ids *ids)
{
    at_free(ids->data);
    *ids = (at_ids){0};
}

bool at_json_id(const json_t *v, int32_t *out)
{
    json_int_t i = json_integer_value(v);

    if (!json_is_integer(v) || i < 0 || i > (1 << 24)) return false;
    *out = (int32_t)i;
    return true;
}

static bool flag(const json_t *o, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

at_status at_load_added(at_tokenizer *t, const json_t *root)
{
    size_t i;
    json_t *row;
    at_status st = AT_OK;

    json_array_foreach(json_object_get(root, "added_tokens"), i, row)
    {
        const json_t *content = json_object_get(row, "content");
        at_added_token how = {.single_word = flag(row, "single_word", false),
                              .lstrip = flag(row, "lstrip", false),
                              .rstrip = flag(row, "rstrip", false),
                              .normalized = flag(row, "normalized", false)};
        if (!json_is_string(content) || !at_json_id(json_object_get(row, "id"), &how.id))
            AT_TRY(at_fail(AT_EFORMAT, "%s: added token %zu has no content or no id", t->label, i));
        if (i > 4096) AT_TRY(at_fail(AT_EFORMAT, "%s: more than 4096 added tokens", t->label));
        AT_TRY(
            at_added_push(&t->added, json_string_value(content), json_string_length(content), how));
    }
out:
    return st;
}

at_status at_text_json(const char *label, const void *data, size_t n, json_t **out)
{
    at_status st = at_json_load(label, data, n, out);
    return st == AT_EWORKFLOW ? at_fail(AT_EFORMAT, "%s", at_error_text()) : st;
}

static at_status load_json(at_tokenizer *t, const void *data, size_t size)
{
    json_t *root = NULL, *padding;
    json_int_t fixed;
    at_status st = AT_OK;

    AT_TRY(at_text_json(t->label, data, size, &root));
    if (t->kind == AT_TOK_CLIP_BPE) {
        AT_TRY(at_clip_load_json(t, root));
        AT_TRY(at_clip_finish(t));
    } else {
        AT_TRY(at_t5_load_json(t, root));
    }
    padding = json_object_get(json_object_get(root, "padding"), "strategy");
    fixed = json_integer_value(json_object_get(padding, "Fixed"));
    if (fixed > 0 && fixed <= 1 << 20) t->fixed_length = (int)fixed;
out:
    json_decref(root);
    return st;
}

static at_status load(at_tokenizer *t, const char *format, const void *data, size_t size,
                      const void *second, size_t second_size)
{
    at_status st = AT_OK;

    if (!strcmp(format, "tokenizer.json")) {
        st = load_json(t, data, size);
    } else if (t->kind == AT_TOK_T5_UNIGRAM && !strcmp(format, "spiece.model")) {
        st = at_t5_load_spiece(t, data, size);
    } else if (t->kind == AT_TOK_CLIP_BPE && !strcmp(format, "vocab.json") && second) {
        AT_TRY(at_clip_load_vocab(t, data, size, second, second_size));
        st = at_clip_finish(t);
    } else if (t->kind == AT_TOK_CLIP_BPE && !strcmp(format, "bpe_simple_vocab_16e6.txt")) {
        AT_TRY(at_clip_load_simple(t, data, size));
        st = at_clip_finish(t);
    } else {
        st = at_fail(AT_EINVAL, "%s: format %s does not hold a %s vocabulary", t->label, format,
                     t->kind == AT_TOK_CLIP_BPE ? "CLIP" : "T5");
    }
out:
    return st;
}

at_status at_tokenizer_parse(at_tokenizer_kind kind, const char *label, const char *format,
                             const void *data, size_t size, const void *second, size_t second_size,
                             at_tokenizer **out)
{
    at_tokenizer *t = at_calloc(1, sizeof *t);
    at_status st = AT_OK;

    *out = NULL;
    if (!t) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a tokenizer", label));
    atomic_init(&t->refs, 1);
    t->kind = kind;
    t->label = label;
    if (size > AT_VOCAB_MAX_BYTES || second_size > AT_VOCAB_MAX_BYTES)
        AT_TRY(at_fail(AT_EFORMAT, "%s: %zu bytes are too many for a vocabulary", label, size));
    st = load(t, format, data, size, second, second_size);
    if (st != AT_OK) { // some messages come from tables that do not know the file
        if (!strstr(at_error_text(), label)) at_fail_context(st, "%s: ", label);
        goto out;
    }
    t->label = NULL;
    *out = t;
    t = NULL;
out:
    at_tokenizer_release(&t);
    return st;
}

at_tokenizer *at_tokenizer_retain(at_tokenizer *t)
{
    if (t) atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void at_tokenizer_release(at_tokenizer **pt)
{
    at_tokenizer *t = pt ? *pt : NULL;

    if (!t) return;
    *pt = NULL;
    if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    at_added_free(&t->added);
    at_bpe_free(&t->bpe);
    at_case_rules_free(&t->cases);
    at_regex_free(t->words);
    at_t5_free(&t->t5);
    at_free(t);
}

// --- files -------------------------------------------------------------------------------------------

static at_status open_file(at_tokenizer_kind kind, const char *path, const char *format,
                           const char *second_path, at_tokenizer **out)
{
    char *data = NULL, *second = NULL;
    size_t size = 0, second_size = 0;
    at_status st = AT_OK;

    AT_TRY(at_file_read(path, AT_VOCAB_MAX_BYTES, &data, &size));
    if (second_path) AT_TRY(at_file_read(second_path, AT_VOCAB_MAX_BYTES, &second, &second_size));
    AT_TRY(at_tokenizer_parse(kind, path, format, data, size, second, second_size, out));
out:
    at_free(data);
    at_free(second);
    return st;
}

// vocab.json (any name) with merges.txt, or a name that ends like it, beside it.
static at_status open_vocab(const char *path, at_tokenizer **out)
{
    char *dir = at_path_dir(path), *merges = dir ? at_path_join(dir, "merges.txt") : NULL;
    at_status st = merges ? open_file(AT_TOK_CLIP_BPE, path, "vocab.json", merges, out)
                          : at_fail(AT_ENOMEM, "%s: no memory", path);

    at_free(dir);
    at_free(merges);
    return st;
}

static at_status open_folder(at_tokenizer_kind kind, const char *dir, at_tokenizer **out)
{
    static const char *const clip[] = {"vocab.json", "tokenizer.json", "bpe_simple_vocab_16e6.txt"};
    static const char *const t5[] = {"tokenizer.json", "spiece.model"};
    const char *const *names = kind == AT_TOK_CLIP_BPE ? clip : t5;
    size_t count = kind == AT_TOK_CLIP_BPE ? sizeof clip / sizeof *clip : sizeof t5 / sizeof *t5;

    for (size_t i = 0; i < count; i++) {
        char *path = at_path_join(dir, names[i]);
        bool there = path && at_path_exists(path);
        at_status st = AT_OK;
        if (!path) return at_fail(AT_ENOMEM, "%s: no memory", dir);
        if (there) st = at_tokenizer_open(kind, path, out);
        at_free(path);
        if (there) return st;
    }
    return at_fail(AT_ENOTFOUND, "%s: the folder holds no %s", dir,
                   kind == AT_TOK_CLIP_BPE ? "vocab.json with merges.txt, tokenizer.json or "
                                             "bpe_simple_vocab_16e6.txt"
                                           : "tokenizer.json or spiece.model");
}

at_status at_tokenizer_open(at_tokenizer_kind kind, const char *path, at_tokenizer **out)
{
    const char *name = at_path_base(path), *ext = at_path_ext(path);

    *out = NULL;
    if (at_path_is_dir(path)) return open_folder(kind, path, out);
    if (kind == AT_TOK_CLIP_BPE && !strcmp(ext, ".json") && strstr(name, "vocab"))
        return open_vocab(path, out);
    if (kind == AT_TOK_CLIP_BPE && !strcmp(ext, ".txt"))
        return open_file(kind, path, "bpe_simple_vocab_16e6.txt", NULL, out);
    if (kind == AT_TOK_T5_UNIGRAM && !strcmp(ext, ".model"))
        return open_file(kind, path, "spiece.model", NULL, out);
    return open_file(kind, path, "tokenizer.json", NULL, out);
}

// --- asking ------------------------------------------------------------------------------------------

at_status at_tokenizer_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out)
{
    return t->kind == AT_TOK_CLIP_BPE ? at_clip_encode(t, text, n, out)
                                      : at_t5_encode(t, text, n, out);
}

int32_t at_tokenizer_bos(const at_tokenizer *t)
{
    return t->bos;
}

int32_t at_tokenizer_eos(const at_tokenizer *t)
{
    return t->eos;
}

int32_t at_tokenizer_pad(const at_tokenizer *t)
{
    return t->pad;
}

int64_t at_tokenizer_vocab_size(const at_tokenizer *t)
{
    return t->vocab_size;
}

int at_tokenizer_fixed_length(const at_tokenizer *t)
{
    return t->fixed_length;
}

at_tokenizer_kind at_tokenizer_get_kind(const at_tokenizer *t)
{
    return t->kind;
}
