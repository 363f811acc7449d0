// SPDX-License-Identifier: Apache-2.0
// verify_text.c - tokenizers as components of a case: one list of ids per text, with BOS and EOS.
// Owns nothing beyond a call.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "text/tokenizer.h"

static at_status open_tokenizer(at_case *c, at_tokenizer **out)
{
    at_status st = AT_OK;
    char *first = NULL, *second = NULL, *merges = NULL;
    size_t n1 = 0, n2 = 0;
    at_tokenizer_kind kind =
        strcmp(at_case_text(c, "kind", "clip"), "t5") == 0 ? AT_TOK_T5_UNIGRAM : AT_TOK_CLIP_BPE;

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(at_case_path(c, c->options, "merges", &merges));
    if (!merges) {
        AT_TRY(at_tokenizer_open(kind, c->model, out));
        goto out;
    }
    AT_TRY(at_file_read(c->model, 64u << 20, &first, &n1));
    AT_TRY(at_file_read(merges, 64u << 20, &second, &n2));
    AT_TRY(at_tokenizer_parse(kind, c->model, "vocab.json", first, n1, second, n2, out));
out:
    at_free(merges);
    at_free(first);
    at_free(second);
    return st;
}

static at_status encode_one(at_case *c, const at_tokenizer *t, size_t i, const json_t *text)
{
    at_status st = AT_OK;
    at_ids ids = {0};
    char name[32];
    float *values = NULL;

    if (!json_is_string(text)) AT_TRY(at_fail(AT_EFORMAT, "%s: text %zu is no string", c->dir, i));
    if (at_tokenizer_bos(t) >= 0) AT_TRY(at_ids_push(&ids, at_tokenizer_bos(t)));
    AT_TRY(at_tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids));
    if (at_tokenizer_eos(t) >= 0) AT_TRY(at_ids_push(&ids, at_tokenizer_eos(t)));
    values = at_alloc((ids.len ? ids.len : 1) * sizeof *values);
    if (!values) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu ids", c->dir, ids.len));
    for (size_t k = 0; k < ids.len; k++)
        values[k] = (float)ids.data[k];
    snprintf(name, sizeof name, "tokens_%zu", i);
    AT_TRY(at_case_output(c, name, values, (int64_t)ids.len));
out:
    at_free(values);
    at_ids_free(&ids);
    return st;
}

at_status at_case_tokenizer(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_tokenizer *t = NULL;
    const json_t *texts = json_object_get(c->options, "texts");

    AT_TRY(open_tokenizer(c, &t));
    double start = at_now();
    for (size_t i = 0; i < json_array_size(texts); i++)
        AT_TRY(encode_one(c, t, i, json_array_get(texts, i)));
    r->seconds = at_now() - start;
out:
    at_tokenizer_release(&t);
    return st;
}
