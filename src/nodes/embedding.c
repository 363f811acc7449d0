// SPDX-License-Identifier: Apache-2.0
// embedding.c - see embedding.h.
// Idea: a name is a file, with one of three endings if need be, in an embeddings folder or below; which
// of its tensors are the rows follows from their names.
// Easy to get wrong: files for several encoders have one tensor per encoder ("clip_l", "clip_g"); a list
// of dicts gives every tensor of the right width; a file that cannot be read is a warning, not a
// failure. A width that no encoder has is found out by the encoder.
#include "nodes/embedding.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "weight/matrix.h"

struct at_embedding {
    char *name;
    at_matrix rows; // rows 0: not found
};

static const char *const endings[] = {"", ".safetensors", ".pt", ".bin"};

// --- which file --------------------------------------------------------------------------------------
typedef struct search {
    const char *name;
    char *found; // the first file below a folder that has it; owned
    bool failed;
} search;

static void look_below(void *ctx, const char *file)
{
    search *s = ctx;
    const char *base = strrchr(file, '/');

    if (!base || s->found || s->failed) return;
    for (size_t i = 0; i < AT_COUNT(endings); i++) {
        char *want = at_strprintf("/%s%s", s->name, endings[i]);
        if (want && at_ends_with(file, want)) s->found = at_strdup(file);
        s->failed = !want;
        at_free(want);
        if (s->found || s->failed) return;
    }
}

// The path of an embedding; NULL in *path: there is none.
static at_status find_path(at_env *e, const char *name, char **path)
{
    search s = {.name = name};
    at_status st = AT_OK;

    *path = NULL;
    for (size_t i = 0; i < AT_COUNT(endings); i++) {
        char *file = at_strprintf("%s%s", name, endings[i]);
        if (!file) return at_fail(AT_ENOMEM, "embedding:%s: no memory", name);
        st = e->find_file(e, "embeddings", file, path);
        at_free(file);
        if (st == AT_OK || st == AT_ENOMEM) return st;
    }
    AT_TRY(e->list_files(e, "embeddings", look_below, &s));
    if (s.failed) AT_TRY(at_fail(AT_ENOMEM, "embedding:%s: no memory", name));
    if (s.found) AT_TRY(e->find_file(e, "embeddings", s.found, path));
out:
    at_free(s.found);
    return st;
}

// --- which rows --------------------------------------------------------------------------------------
static bool in_param(const char *name, const at_embeddings *e)
{
    (void)e;
    return at_starts_with(name, "string_to_param.");
}

static bool in_list(const char *name, const at_embeddings *e)
{
    size_t digits = strspn(name, "0123456789");

    (void)e;
    return digits > 0 && name[digits] == '.';
}

static bool is_key(const char *name, const at_embeddings *e)
{
    return strcmp(name, e->key) == 0;
}

static bool in_bundle(const char *name, const at_embeddings *e)
{
    (void)e;
    return at_starts_with(name, "bundle_emb.") && at_ends_with(name, ".string_to_param.*");
}

static bool in_keyed_bundle(const char *name, const at_embeddings *e)
{
    size_t n = strlen(name), k = strlen(e->key);

    return at_starts_with(name, "bundle_emb.") && n > k + 1 && name[n - k - 1] == '.' &&
           strcmp(name + n - k, e->key) == 0;
}

static bool any(const char *name, const at_embeddings *e)
{
    (void)name, (void)e;
    return true;
}

// In the order of trial; `all`: every tensor that fits, not the first alone.
static const struct {
    bool (*fits)(const char *name, const at_embeddings *e);
    bool all, of_width;
} layouts[] = {
    {in_param, false, false}, {in_list, true, true},          {is_key, false, false},
    {in_bundle, true, false}, {in_keyed_bundle, true, false}, {any, false, false},
};

// Append a tensor's rows: its last dimension is their width.
static at_status append(at_matrix *to, const at_weight *w)
{
    at_matrix m = {0}, both = {0};
    int64_t width = w->rank > 0 ? w->shape[w->rank - 1] : 0;
    at_status st = AT_OK;

    if (width < 1 || at_weight_elements(w) < width || !at_dtype_is_float(w->dtype) ||
        (to->rows && to->cols != width))
        AT_TRY(at_fail(AT_EFORMAT, "%s: its tensor %s holds no rows", at_store_path(w->store),
                       w->name));
    AT_TRY(at_matrix_read(w, &m));
    m.rows = m.rows * m.cols / width;
    m.cols = width;
    if (to->rows) {
        AT_TRY(at_matrix_new(to->rows + m.rows, width, &both));
        memcpy(both.v, to->v, (size_t)(to->rows * width) * sizeof *both.v);
        memcpy(both.v + to->rows * width, m.v, (size_t)(m.rows * width) * sizeof *both.v);
        at_matrix_free(&m);
        m = both;
    }
    at_matrix_free(to);
    *to = m;
    m = (at_matrix){0};
out:
    at_matrix_free(&m);
    return st;
}

static at_status read_rows(const at_embeddings *e, at_store *s, at_matrix *out)
{
    at_status st = AT_OK;

    for (size_t l = 0; l < AT_COUNT(layouts); l++) {
        bool there = false;
        for (size_t i = 0; i < at_store_count(s) && (!there || layouts[l].all); i++) {
            const at_weight *w = at_store_at(s, i);
            if (!layouts[l].fits(w->name, e)) continue;
            there = true;
            if (layouts[l].of_width && (w->rank < 1 || w->shape[w->rank - 1] != e->width)) continue;
            AT_TRY(append(out, w));
        }
        if (there) break;
    }
out:
    return st;
}

static at_status read_embedding(const at_embeddings *e, const char *name, at_matrix *out)
{
    char *path = NULL;
    at_store *s = NULL;
    at_status st = AT_OK;

    AT_TRY(find_path(e->env, name, &path));
    if (!path) goto out;
    st = e->env->open_store(e->env, path, &s);
    if (st == AT_OK) st = read_rows(e, s, out);
    if (st != AT_OK && st != AT_ENOMEM) {
        at_log(AT_WARN, "EMBEDDING-READ", "embedding:%s: %s", name, at_error_text());
        at_matrix_free(out);
        st = AT_OK;
    }
out:
    at_store_release(&s);
    at_free(path);
    return st;
}

// --- the source --------------------------------------------------------------------------------------
static at_status find(void *ctx, const char *name, at_vectors *out)
{
    at_embeddings *e = ctx;
    at_status st = AT_OK;

    *out = (at_vectors){0};
    for (size_t i = 0; i < e->count; i++) {
        const at_matrix *m = &e->read[i].rows;
        if (strcmp(e->read[i].name, name) != 0) continue;
        *out = (at_vectors){m->v, m->rows, m->cols};
        return AT_OK;
    }
    struct at_embedding *grown = at_realloc(e->read, (e->count + 1) * sizeof *grown);
    if (!grown) AT_TRY(at_fail(AT_ENOMEM, "embedding:%s: no memory", name));
    e->read = grown;
    grown[e->count] = (struct at_embedding){.name = at_strdup(name)};
    if (!grown[e->count].name) AT_TRY(at_fail(AT_ENOMEM, "embedding:%s: no memory", name));
    at_matrix *m = &grown[e->count++].rows;
    AT_TRY(read_embedding(e, name, m));
    *out = (at_vectors){m->v, m->rows, m->cols};
out:
    return st;
}

void at_embeddings_init(at_embeddings *e, at_env *env, at_te place, int64_t width)
{
    // SD2's tokenizer asks for "clip_l" as well.
    static const char *const keys[AT_TE_COUNT] = {
        [AT_TE_L] = "clip_l", [AT_TE_G] = "clip_g", [AT_TE_H] = "clip_l", [AT_TE_T5] = "t5xxl"};

    *e = (at_embeddings){.env = env, .key = keys[place], .width = width};
    e->source = (at_vector_source){find, e};
}

void at_embeddings_free(at_embeddings *e)
{
    for (size_t i = 0; i < e->count; i++) {
        at_free(e->read[i].name);
        at_matrix_free(&e->read[i].rows);
    }
    at_free(e->read);
    *e = (at_embeddings){0};
}
