// SPDX-License-Identifier: Apache-2.0
// paths.c - where models lie.
#include "engine/paths.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define MAX_NAMES 100000

typedef struct kind_row {
    const char *key;
    const char *folders[3]; // below a root
} kind_row;

static const kind_row kind_rows[] = {
    {"checkpoints", {"checkpoints"}},
    {"configs", {"configs"}},
    {"loras", {"loras"}},
    {"vae", {"vae"}},
    {"text_encoders", {"text_encoders", "clip"}},
    {"diffusion_models", {"unet", "diffusion_models"}},
    {"clip_vision", {"clip_vision"}},
    {"style_models", {"style_models"}},
    {"embeddings", {"embeddings"}},
    {"diffusers", {"diffusers"}},
    {"vae_approx", {"vae_approx"}},
    {"controlnet", {"controlnet", "t2i_adapter"}},
    {"gligen", {"gligen"}},
    {"upscale_models", {"upscale_models"}},
    {"custom_nodes", {NULL}},
    {"hypernetworks", {"hypernetworks"}},
    {"photomaker", {"photomaker"}},
    {"classifiers", {"classifiers"}},
    {"model_patches", {"model_patches"}},
    {"audio_encoders", {"audio_encoders"}},
};
static const char *const model_extensions[] = {".ckpt", ".pt",          ".pt2", ".bin",
                                               ".pth",  ".safetensors", ".pkl", ".sft"};

typedef struct kind {
    char *key;
    char **dirs;
    size_t dir_count;
    bool any_extension; // a kind that only the user's yaml knows
} kind;

struct at_paths {
    kind *kinds;
    size_t kind_count;
    char **roots;
    size_t root_count;
};

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "model folders: no memory");
}

static bool push(char ***list, size_t *n, char *item, bool front)
{
    char **grown = item ? at_realloc(*list, (*n + 1) * sizeof *grown) : NULL;
    if (!grown) {
        at_free(item);
        return false;
    }
    if (front) memmove(grown + 1, grown, *n * sizeof *grown);
    grown[front ? 0 : *n] = item;
    *list = grown;
    ++*n;
    return true;
}

// ComfyUI's older names of two kinds.
static const char *modern_key(const char *key)
{
    if (strcmp(key, "unet") == 0) return "diffusion_models";
    if (strcmp(key, "clip") == 0) return "text_encoders";
    return key;
}

static kind *find_kind(const at_paths *p, const char *key)
{
    key = modern_key(key);
    for (size_t i = 0; i < p->kind_count; i++)
        if (strcmp(p->kinds[i].key, key) == 0) return &p->kinds[i];
    return NULL;
}

static kind *add_kind(at_paths *p, const char *key, bool any_extension)
{
    kind *grown = at_realloc(p->kinds, (p->kind_count + 1) * sizeof *grown);
    if (!grown) return NULL;
    p->kinds = grown;
    kind *k = &grown[p->kind_count];
    *k = (kind){.key = at_strdup(modern_key(key)), .any_extension = any_extension};
    if (!k->key) return NULL;
    p->kind_count++;
    return k;
}

at_status at_paths_new(at_paths **out)
{
    at_paths *p = at_calloc(1, sizeof *p);
    if (!p) return no_memory();
    for (size_t i = 0; i < sizeof kind_rows / sizeof *kind_rows; i++)
        if (!add_kind(p, kind_rows[i].key, strcmp(kind_rows[i].key, "classifiers") == 0)) {
            at_paths_free(p);
            return no_memory();
        }
    *out = p;
    return AT_OK;
}

void at_paths_free(at_paths *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->kind_count; i++) {
        for (size_t j = 0; j < p->kinds[i].dir_count; j++)
            at_free(p->kinds[i].dirs[j]);
        at_free(p->kinds[i].dirs);
        at_free(p->kinds[i].key);
    }
    for (size_t i = 0; i < p->root_count; i++)
        at_free(p->roots[i]);
    at_free(p->roots);
    at_free(p->kinds);
    at_free(p);
}

at_status at_paths_add(at_paths *p, const char *key, const char *dir, bool front)
{
    kind *k = find_kind(p, key);
    if (!k) k = add_kind(p, key, true);
    if (!k) return no_memory();
    for (size_t i = 0; i < k->dir_count; i++) {
        if (strcmp(k->dirs[i], dir) != 0) continue;
        if (front) { // known already: only its place changes
            char *d = k->dirs[i];
            memmove(k->dirs + 1, k->dirs, i * sizeof *k->dirs);
            k->dirs[0] = d;
        }
        return AT_OK;
    }
    return push(&k->dirs, &k->dir_count, at_strdup(dir), front) ? AT_OK : no_memory();
}

at_status at_paths_add_root(at_paths *p, const char *models_dir)
{
    at_status st = AT_OK;
    if (!push(&p->roots, &p->root_count, at_strdup(models_dir), false)) return no_memory();
    for (size_t i = 0; i < sizeof kind_rows / sizeof *kind_rows && st == AT_OK; i++)
        for (size_t j = 0; j < 3 && kind_rows[i].folders[j] && st == AT_OK; j++) {
            char *dir = at_path_join(models_dir, kind_rows[i].folders[j]);
            st = dir ? at_paths_add(p, kind_rows[i].key, dir, false) : no_memory();
            at_free(dir);
        }
    return st;
}

const char *at_paths_kind(const at_paths *p, size_t i)
{
    return i < p->kind_count ? p->kinds[i].key : NULL;
}

size_t at_paths_dirs(const at_paths *p, const char *key, const char *const **dirs)
{
    const kind *k = find_kind(p, key);
    *dirs = k ? (const char *const *)k->dirs : NULL;
    return k ? k->dir_count : 0;
}

size_t at_paths_roots(const at_paths *p, const char *const **roots)
{
    *roots = (const char *const *)p->roots;
    return p->root_count;
}

bool at_paths_known(const at_paths *p, const char *key)
{
    return find_kind(p, key) != NULL;
}

static bool wanted_extension(const kind *k, const char *name)
{
    if (k->any_extension) return true;
    const char *ext = at_path_ext(name);
    for (size_t i = 0; i < sizeof model_extensions / sizeof *model_extensions; i++)
        if (at_equal_nocase(ext, model_extensions[i])) return true;
    return false;
}

// The name under which a file of a folder is listed, at_free; NULL: it is not. *ok: memory sufficed.
static char *listed_name(const kind *k, const char *name, bool *ok)
{
    char *listed = NULL;
    if (strcmp(k->key, "diffusers") == 0) { // a folder that holds the parts of one model
        if (strcmp(at_path_base(name), "model_index.json") != 0) return NULL;
        listed = at_path_dir(name);
    } else if (strcmp(k->key, "configs") == 0 && !k->any_extension) {
        if (!at_equal_nocase(at_path_ext(name), ".yaml")) return NULL;
        listed = at_strdup(name);
    } else {
        if (!wanted_extension(k, name)) return NULL;
        listed = at_strdup(name);
    }
    *ok = listed != NULL;
    return listed;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

at_status at_paths_list(const at_paths *p, const char *key,
                        void (*each)(void *ctx, const char *name), void *ctx)
{
    at_status st = AT_OK;
    const kind *k = find_kind(p, key);
    char **names = NULL;
    size_t n = 0;

    if (!k) return at_fail(AT_EINVAL, "no model folder is called \"%s\"", key);
    for (size_t i = 0; i < k->dir_count; i++) {
        at_list l = {0};
        if (!at_path_is_dir(k->dirs[i])) continue;
        st = at_list_files(k->dirs[i], true, MAX_NAMES, &l);
        if (st == AT_EIO) { // one folder that cannot be read does not hide the others
            at_log(AT_WARN, "MODELS-LIST", "%s", at_error_text());
            st = AT_OK;
            continue;
        }
        AT_TRY(st);
        bool ok = true;
        for (size_t j = 0; j < l.count && ok; j++) {
            char *name = listed_name(k, l.items[j], &ok);
            if (name) ok = push(&names, &n, name, false);
        }
        at_list_free(&l);
        if (!ok) AT_TRY(no_memory());
    }
    if (n) qsort(names, n, sizeof *names, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) each(ctx, names[i]);
out:
    for (size_t i = 0; i < n; i++)
        at_free(names[i]);
    at_free(names);
    return st;
}

at_status at_paths_find(const at_paths *p, const char *key, const char *name, char **path)
{
    const kind *k = find_kind(p, key);
    at_str places = {0};
    if (!k) return at_fail(AT_EINVAL, "no model folder is called \"%s\"", key);
    for (size_t i = 0; i < k->dir_count; i++) {
        char *candidate = NULL;
        at_status st = at_path_join_safe(k->dirs[i], name, &candidate);
        if (st != AT_OK) {
            at_str_free(&places);
            return st;
        }
        if (at_path_exists(candidate)) {
            at_str_free(&places);
            *path = candidate;
            return AT_OK;
        }
        at_str_printf(&places, "\n  %s", candidate);
        at_free(candidate);
    }
    at_status st =
        at_fail(AT_ENOTFOUND,
                "%s: no such file among the %s. Put it into one of these places, or name "
                "the folder that has it with --models DIR:%s",
                name, k->key, at_str_text(&places));
    at_str_free(&places);
    return st;
}
