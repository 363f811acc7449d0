// SPDX-License-Identifier: Apache-2.0
// t5_json.c - a Unigram model with its pipeline from Hugging Face's tokenizer.json.
// Idea: read what T5's files of the last years use; refuse a step that is not known, because leaving it
// out would give other tokens.
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/impl.h"

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static bool flag(const json_t *o, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

// --- the vocabulary ----------------------------------------------------------------------------------

static at_status load_pieces(at_tokenizer *t, const json_t *vocab)
{
    size_t i;
    json_t *row;
    at_status st = AT_OK;

    if (!json_is_array(vocab))
        AT_TRY(at_fail(AT_EFORMAT, "%s: model.vocab is not an array", t->label));
    json_array_foreach((json_t *)(uintptr_t)vocab, i, row)
    {
        const json_t *piece = json_array_get(row, 0), *score = json_array_get(row, 1);
        if (json_array_size(row) != 2 || !json_is_string(piece) || !json_is_number(score))
            AT_TRY(
                at_fail(AT_EFORMAT, "%s: vocabulary entry %zu is not [piece, score]", t->label, i));
        AT_TRY(at_unigram_add(&t->t5.uni, json_string_value(piece), json_string_length(piece),
                              (int32_t)i, json_number_value(score), false));
    }
    t->vocab_size = (int64_t)i;
    AT_TRY(at_unigram_finish(&t->t5.uni, t->label));
out:
    return st;
}

static void find_bytes(at_unigram *u)
{
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        const at_piece *p =
            at_unigram_find(u, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", b));
        if (!p) u->byte_fallback = false;
        u->byte_id[b] = p ? p->id : u->unk;
    }
}

static at_status load_model(at_tokenizer *t, const json_t *model)
{
    const char *type = text_of(model, "type");
    const json_t *unk = json_object_get(model, "unk_id");
    at_unigram *u = &t->t5.uni;
    at_status st = AT_OK;

    if (!type || strcmp(type, "Unigram") != 0)
        AT_TRY(at_fail(AT_EFORMAT, "%s: a %.40s model; T5's is Unigram", t->label,
                       type ? type : "nameless"));
    AT_TRY(load_pieces(t, json_object_get(model, "vocab")));
    u->unk = -1;
    if (unk && !json_is_null(unk) && (!at_json_id(unk, &u->unk) || (size_t)u->unk >= u->count))
        AT_TRY(at_fail(AT_EFORMAT, "%s: unk_id is not an entry of the vocabulary", t->label));
    u->byte_fallback = flag(model, "byte_fallback", false);
    if (u->byte_fallback) find_bytes(u);
out:
    return st;
}

// --- normalisation -----------------------------------------------------------------------------------

static at_status copy_text(const at_tokenizer *t, const char *text, char **out)
{
    if (!text || strlen(text) > 256)
        return at_fail(AT_EFORMAT, "%s: a step of the tokenizer has no text, or a very long one",
                       t->label);
    *out = at_strdup(text);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for a tokenizer step", t->label);
}

static at_status load_replace(at_tokenizer *t, const json_t *o, at_norm_step *s)
{
    const json_t *pattern = json_object_get(o, "pattern");
    const char *regex = text_of(pattern, "Regex");
    at_status st = AT_OK;

    AT_TRY(copy_text(t, text_of(o, "content"), &s->content));
    if (regex) {
        if (strlen(regex) > 1000) AT_TRY(at_fail(AT_EFORMAT, "%s: a very long pattern", t->label));
        AT_TRY(at_regex_compile(t->label, regex, false, &s->pattern));
    } else {
        AT_TRY(copy_text(t, text_of(pattern, "String"), &s->literal));
        if (!*s->literal) AT_TRY(at_fail(AT_EFORMAT, "%s: an empty pattern", t->label));
    }
out:
    return st;
}

static bool unicode_form(const char *type, int *form)
{
    static const struct {
        const char *name;
        int form;
    } forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(type, forms[i].name) != 0) continue;
        *form = forms[i].form;
        return true;
    }
    return false;
}

static at_status load_step(at_tokenizer *t, const json_t *o)
{
    const char *type = text_of(o, "type");
    const json_t *map = json_object_get(o, "precompiled_charsmap");
    at_norm_step *s;
    at_status st = AT_OK;

    if (!type) return at_fail(AT_EFORMAT, "%s: a normaliser without a type", t->label);
    if (t->t5.step_count == AT_NORM_MAX)
        return at_fail(AT_EFORMAT, "%s: more than %d normalisers", t->label, AT_NORM_MAX);
    s = &t->t5.steps[t->t5.step_count++];
    if (!strcmp(type, "Precompiled")) {
        s->kind = AT_NORM_CHARSMAP;
        if (json_is_string(map))
            AT_TRY(at_charsmap_load_base64(t->label, json_string_value(map),
                                           json_string_length(map), &s->map));
    } else if (!strcmp(type, "Strip")) {
        s->kind = AT_NORM_STRIP;
        s->left = flag(o, "strip_left", true);
        s->right = flag(o, "strip_right", true);
    } else if (!strcmp(type, "Replace")) {
        s->kind = AT_NORM_REPLACE;
        AT_TRY(load_replace(t, o, s));
    } else if (!strcmp(type, "Prepend")) {
        s->kind = AT_NORM_PREPEND;
        AT_TRY(copy_text(t, text_of(o, "prepend"), &s->content));
    } else if (!strcmp(type, "Lowercase")) {
        s->kind = AT_NORM_LOWER;
    } else if (unicode_form(type, &s->form)) {
        s->kind = AT_NORM_UNICODE;
    } else {
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s: normaliser %.40s is not known to atelier", t->label,
                       type));
    }
out:
    return st;
}

// A member of `list_key` each, or the object itself when it is no sequence. One level, as files have it.
static at_status each(at_tokenizer *t, const json_t *o, const char *list_key,
                      at_status (*load)(at_tokenizer *, const json_t *))
{
    const char *type = text_of(o, "type");
    size_t i;
    json_t *item;
    at_status st = AT_OK;

    if (!o || json_is_null(o)) return AT_OK;
    if (!type || strcmp(type, "Sequence") != 0) return load(t, o);
    json_array_foreach(json_object_get(o, list_key), i, item) AT_TRY(load(t, item));
out:
    return st;
}

// --- words -------------------------------------------------------------------------------------------

static at_status load_metaspace(at_tokenizer *t, const json_t *o)
{
    const char *scheme = text_of(o, "prepend_scheme"), *mark = text_of(o, "replacement");
    at_t5 *m = &t->t5;

    m->mark_blanks = true;
    m->split_marks = flag(o, "split", true);
    if (mark) {
        if (!*mark || strlen(mark) >= sizeof m->mark)
            return at_fail(AT_EFORMAT, "%s: Metaspace has no single character", t->label);
        memcpy(m->mark, mark, strlen(mark) + 1);
    }
    if (scheme) // newer files; older ones say add_prefix_space
        m->prepend = !strcmp(scheme, "always")  ? AT_PREPEND_ALWAYS
                     : !strcmp(scheme, "first") ? AT_PREPEND_FIRST
                                                : AT_PREPEND_NEVER;
    else
        m->prepend = flag(o, "add_prefix_space", true) ? AT_PREPEND_ALWAYS : AT_PREPEND_NEVER;
    return AT_OK;
}

static at_status load_splitter(at_tokenizer *t, const json_t *o)
{
    const char *type = text_of(o, "type");

    if (type && !strcmp(type, "Metaspace")) return load_metaspace(t, o);
    if (type && !strcmp(type, "WhitespaceSplit") && !t->t5.mark_blanks) {
        t->t5.split_white = true;
        return AT_OK;
    }
    return at_fail(AT_EUNSUPPORTED, "%s: pre-tokenizer %.40s is not known to atelier", t->label,
                   type ? type : "without a type");
}

// --- added tokens ------------------------------------------------------------------------------------

// Those that are sought in normalised text are themselves normalised.
static at_status normalize_added(at_tokenizer *t)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < t->added.count; i++) {
        at_added_token *a = &t->added.items[i];
        at_str s = {0};
        char *text;
        if (a->id >= t->vocab_size) t->vocab_size = (int64_t)a->id + 1;
        if (!a->normalized) continue;
        st = at_t5_normalize(&t->t5, a->text, a->len, &s);
        if (st != AT_OK || s.len == 0) {
            at_str_free(&s);
            if (st != AT_OK) return st;
            a->normalized = false; // vanishes: only the raw text can hold it
            continue;
        }
        a->len = s.len;
        text = at_str_take(&s);
        if (!text) return at_fail(AT_ENOMEM, "%s: no memory for an added token", t->label);
        at_free(a->text);
        a->text = text;
    }
    at_added_sort(&t->added);
    return AT_OK;
}

static int32_t special(const at_tokenizer *t, const char *text)
{
    const at_piece *p = at_unigram_find(&t->t5.uni, text, strlen(text));

    for (size_t i = 0; i < t->added.count && !p; i++)
        if (!strcmp(t->added.items[i].text, text)) return t->added.items[i].id;
    return p ? p->id : -1;
}

at_status at_t5_load_json(at_tokenizer *t, const json_t *root)
{
    at_status st = AT_OK;

    memcpy(t->t5.mark, "\xe2\x96\x81", 4);
    AT_TRY(load_model(t, json_object_get(root, "model")));
    AT_TRY(each(t, json_object_get(root, "normalizer"), "normalizers", load_step));
    AT_TRY(each(t, json_object_get(root, "pre_tokenizer"), "pretokenizers", load_splitter));
    AT_TRY(at_load_added(t, root));
    AT_TRY(normalize_added(t));
    t->bos = -1;
    t->eos = special(t, "</s>");
    t->pad = special(t, "<pad>");
    if (t->eos < 0) AT_TRY(at_fail(AT_EFORMAT, "%s: no </s>: not a T5 vocabulary", t->label));
out:
    return st;
}
