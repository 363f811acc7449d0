// SPDX-License-Identifier: Apache-2.0
// chunk.c - weighted segments to tokens, tokens to chunks of fixed length.
// Source: comfyui-contract section 6.2 (behaviour of ComfyUI 0.3.64 SDTokenizer).
// Idea: a segment is a group; a short group that no longer fits closes the chunk, a long one is cut.
// Easy to get wrong: a segment is split before each "embedding:" behind a blank; the name ends at the
// next blank, a comma behind it belongs to the text if no file has the name with it, and what follows
// is a group of its own.
#include <limits.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/prompt.h"

static const char embedding[] = "embedding:";

typedef struct builder {
    const at_tokenizer *t;
    const at_chunking *how;
    int64_t max; // tokens per chunk, EOS included
    at_chunk *chunk;
    int64_t cap; // of the open chunk
    size_t chunk_cap;
    int32_t groups; // met so far
    at_chunks out;
} builder;

// A token, or a row (of count 1) that stands for one.
typedef struct token {
    int32_t id, group;
    at_vectors row;
} token;

static at_status put(builder *b, token t, float weight)
{
    at_chunk *c = b->chunk;

    if (c->len == b->cap) {
        int64_t cap = b->cap ? b->cap * 2 : 128;
        int32_t *ids = at_realloc(c->ids, (size_t)cap * sizeof *ids), *groups;
        float *weights;
        at_vectors *vectors;
        if (ids) c->ids = ids;
        groups = ids ? at_realloc(c->groups, (size_t)cap * sizeof *groups) : NULL;
        if (groups) c->groups = groups;
        weights = groups ? at_realloc(c->weights, (size_t)cap * sizeof *weights) : NULL;
        if (weights) c->weights = weights;
        vectors = weights ? at_realloc(c->vectors, (size_t)cap * sizeof *vectors) : NULL;
        if (!vectors)
            return at_fail(AT_ENOMEM, "no memory for a chunk of %lld tokens", (long long)cap);
        c->vectors = vectors;
        b->cap = cap;
    }
    c->ids[c->len] = t.id;
    c->vectors[c->len] = t.row;
    c->groups[c->len] = t.group;
    c->weights[c->len++] = weight;
    b->out.weighted |= !(weight == 1); // NaN counts
    return AT_OK;
}

static at_status open_chunk(builder *b)
{
    if (b->out.count == b->chunk_cap) {
        size_t cap = b->chunk_cap ? b->chunk_cap * 2 : 4;
        at_chunk *items = at_realloc(b->out.items, cap * sizeof *items);
        if (!items) return at_fail(AT_ENOMEM, "no memory for %zu chunks", cap);
        b->out.items = items;
        b->chunk_cap = cap;
    }
    b->chunk = &b->out.items[b->out.count++];
    *b->chunk = (at_chunk){0};
    b->cap = 0;
    return b->how->has_bos ? put(b, (token){.id = b->how->bos}, 1) : AT_OK;
}

static at_status pad_to(builder *b, int64_t len)
{
    at_status st = AT_OK;

    while (b->chunk->len < len)
        AT_TRY(put(b, (token){.id = b->how->pad}, 1));
out:
    return st;
}

// EOS, and padding where chunks have a fixed length.
static at_status close_chunk(builder *b)
{
    at_status st = AT_OK;

    if (b->how->has_eos) AT_TRY(put(b, (token){.id = b->how->eos}, 1));
    if (b->how->max_length > 0) AT_TRY(pad_to(b, b->how->max_length));
out:
    return st;
}

// Token i of the open group: an id, or a row of `rows` if there are any.
static token nth(const builder *b, const int32_t *ids, const at_vectors *rows, size_t i)
{
    if (ids) return (token){.id = ids[i], .group = b->groups};
    return (token){.group = b->groups,
                   .row = {rows->rows + (int64_t)i * rows->width, 1, rows->width}};
}

static at_status add_group(builder *b, const int32_t *ids, const at_vectors *rows, size_t n,
                           float weight)
{
    size_t done = 0;
    bool may_cut = n >= (size_t)(b->how->max_word_length > 0 ? b->how->max_word_length : 0);
    int64_t eos = b->how->has_eos;
    at_status st = AT_OK;

    b->groups++; // one without tokens counts
    while (n) {
        int64_t room = b->max - b->chunk->len - eos;
        size_t take = n;
        if (room < 0) room = 0;
        if (n > (size_t)room) {
            // A group that is longer than a whole chunk must be cut, whatever the limit says.
            bool cut = may_cut || n > (size_t)(b->max - eos - b->how->has_bos);
            take = cut ? (size_t)room : 0;
        }
        for (size_t i = 0; i < take; i++)
            AT_TRY(put(b, nth(b, ids, rows, done + i), weight));
        done += take;
        n -= take;
        if (n == 0) break;
        AT_TRY(close_chunk(b));
        AT_TRY(open_chunk(b));
    }
out:
    return st;
}

static at_status add_text(builder *b, const char *word, size_t n, float weight)
{
    at_ids ids = {0};
    at_status st = AT_OK;

    if (n == 0) return AT_OK;
    AT_TRY(at_tokenizer_encode(b->t, word, n, &ids));
    AT_TRY(add_group(b, ids.data, NULL, ids.len, weight));
out:
    at_ids_free(&ids);
    return st;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// The words behind the name, with single blanks between them, as Python's split and join leave them.
static void append_rest(at_str *to, const char *p, size_t n)
{
    bool gap = false, any = false;

    for (size_t i = 0; i < n; i++) {
        if (is_blank(p[i])) {
            gap = true;
            continue;
        }
        if (gap && any) at_str_append(to, " ");
        at_str_append_n(to, p + i, 1);
        any = true;
        gap = false;
    }
}

// The rows of `name`; if there are none, those of the name without commas at its ends. What was taken
// off comes back in front of *rest.
static at_status find_rows(const at_vector_source *from, const char *name, at_str *rest,
                           at_vectors *out)
{
    size_t n = strlen(name), begin = 0, end = n;
    char *bare = NULL;
    at_str joined = {0};
    at_status st = AT_OK;

    AT_TRY(from->find(from->ctx, name, out));
    while (begin < end && name[begin] == ',')
        begin++;
    while (end > begin && name[end - 1] == ',')
        end--;
    if (out->count || end - begin == n) goto out;
    bare = at_strndup(name + begin, end - begin);
    if (!bare) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt"));
    AT_TRY(from->find(from->ctx, bare, out));
    at_str_printf(&joined, "%s %s", name + (end - begin), at_str_text(rest));
    at_str_free(rest);
    *rest = joined;
out:
    at_free(bare);
    return st;
}

// "embedding:NAME rest": the rows of NAME, then the rest as text.
static at_status add_embedding(builder *b, const char *word, size_t n, float weight)
{
    size_t skip = sizeof embedding - 1, end;
    at_str rest = {0};
    at_vectors rows = {0};
    char *name = NULL;
    at_status st = AT_OK;

    while (skip < n && is_blank(word[skip]))
        skip++;
    for (end = skip; end < n && !is_blank(word[end]);)
        end++;
    name = at_strndup(word + skip, end - skip);
    append_rest(&rest, word + end, n - end);
    if (!name || rest.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt"));
    if (*name) AT_TRY(find_rows(b->how->embeddings, name, &rest, &rows));
    if (rest.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt"));
    if (rows.count)
        AT_TRY(add_group(b, NULL, &rows, (size_t)rows.count, weight));
    else
        at_log(AT_WARN, "EMBEDDING-NONE", "embedding:%s does not exist and is left out", name);
    AT_TRY(add_text(b, at_str_text(&rest), rest.len, weight));
out:
    at_str_free(&rest);
    at_free(name);
    return st;
}

static at_status add_word(builder *b, const char *word, size_t n, float weight)
{
    size_t mark = sizeof embedding - 1;

    if (b->how->embeddings && n >= mark && !memcmp(word, embedding, mark))
        return add_embedding(b, word, n, weight);
    return add_text(b, word, n, weight);
}

// A new word begins at each "embedding:" behind a blank or a line feed, which is dropped.
static at_status split_words(builder *b, const char *text, float weight)
{
    const char *begin = text, *p = text;
    at_status st = AT_OK;

    while ((p = strstr(p, embedding)) != NULL) {
        bool splits = p > begin && (p[-1] == ' ' || p[-1] == '\n');
        if (splits) {
            AT_TRY(add_word(b, begin, (size_t)(p - 1 - begin), weight));
            begin = p;
        }
        p += sizeof embedding - 1;
    }
    AT_TRY(add_word(b, begin, strlen(begin), weight));
out:
    return st;
}

static at_status check(const at_chunking *how)
{
    int need = how->has_bos + how->has_eos + 1;

    if (how->max_length < 0 || (how->max_length && how->max_length < need))
        return at_fail(AT_EINVAL, "chunks of %d tokens cannot hold a token between their ends",
                       how->max_length);
    return AT_OK;
}

// Without weights the text is one segment; only the backslashes before parentheses go.
static at_status whole_text(const char *text, at_segments *out)
{
    char *copy = at_strdup(text), *q = copy;

    *out = (at_segments){0};
    out->items = at_calloc(1, sizeof *out->items);
    if (!copy || !out->items) {
        at_free(copy);
        at_free(out->items);
        out->items = NULL;
        return at_fail(AT_ENOMEM, "no memory for a prompt");
    }
    for (const char *p = text; *p; p++)
        if (!(*p == '\\' && (p[1] == '(' || p[1] == ')'))) *q++ = *p;
    *q = 0;
    out->items[0] = (at_segment){copy, 1};
    out->count = 1;
    return AT_OK;
}

at_status at_prompt_chunks(const at_tokenizer *t, const char *text, const at_chunking *how,
                           at_chunks *out)
{
    builder b = {.t = t, .how = how, .max = how->max_length ? how->max_length : INT64_MAX / 2};
    at_segments segments = {0};
    at_status st = AT_OK;

    *out = (at_chunks){0};
    AT_TRY(check(how));
    AT_TRY(how->weights ? at_prompt_parse(text, &segments) : whole_text(text, &segments));
    AT_TRY(open_chunk(&b));
    for (size_t i = 0; i < segments.count; i++)
        AT_TRY(split_words(&b, segments.items[i].text, segments.items[i].weight));
    AT_TRY(close_chunk(&b));
    AT_TRY(pad_to(&b, how->min_padding > 0 ? b.chunk->len + how->min_padding : 0));
    AT_TRY(pad_to(&b, how->min_length));
    *out = b.out;
    b.out = (at_chunks){0};
out:
    at_segments_free(&segments);
    at_chunks_free(&b.out);
    return st;
}

void at_chunks_free(at_chunks *c)
{
    for (size_t i = 0; i < c->count; i++) {
        at_free(c->items[i].ids);
        at_free(c->items[i].weights);
        at_free(c->items[i].vectors);
        at_free(c->items[i].groups);
    }
    at_free(c->items);
    *c = (at_chunks){0};
}

static void copy_token(at_chunk *c, int64_t to, int64_t from)
{
    c->ids[to] = c->ids[from];
    c->weights[to] = c->weights[from];
    c->vectors[to] = c->vectors[from];
    c->groups[to] = c->groups[from];
}

void at_chunks_drop(at_chunks *all, int32_t group)
{
    all->weighted = false;
    for (size_t i = 0; i < all->count; i++) {
        at_chunk *c = &all->items[i];
        int64_t n = 0;
        for (int64_t j = 0; j < c->len; j++)
            if (c->groups[j] != group) copy_token(c, n++, j);
        while (n < c->len)
            copy_token(c, n++, c->len - 1);
        for (int64_t j = 0; j < c->len; j++)
            all->weighted |= !(c->weights[j] == 1);
    }
}
