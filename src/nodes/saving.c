// SPDX-License-Identifier: Apache-2.0
// saving.c - see saving.h.
#include "nodes/saving.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

static at_status no_memory(const at_saver *s)
{
    return at_fail(AT_ENOMEM, "%s: no memory", s->node);
}

static at_status add_text(at_saver *s, const char *key, char *text)
{
    if (!text) return no_memory(s);
    s->text[s->text_count++] = (at_text_chunk){key, text};
    return AT_OK;
}

static at_status add_texts(at_saver *s, const char *prompt, const char *extra)
{
    at_status st = AT_OK;
    const char *key;
    json_t *value;
    const char *approximate = at_env_of(s->ctx)->approximate;
    if (*approximate) AT_TRY(add_text(s, "approximate", at_strdup(approximate)));
    if (prompt) AT_TRY(add_text(s, "prompt", at_strdup(prompt)));
    if (extra) AT_TRY(at_json_load("extra_pnginfo", extra, strlen(extra), &s->extra));
    json_object_foreach(s->extra, key, value)
    {
        if (s->text_count == AT_SAVER_TEXTS) break;
        AT_TRY(add_text(s, key, at_json_dump(value, 0)));
    }
out:
    return st;
}

at_status at_saver_open(at_saver *s, at_node_ctx *c, const char *node, bool temp,
                        const char *prefix, int64_t width, int64_t height, const char *prompt,
                        const char *extra_pnginfo)
{
    at_status st = AT_OK;
    const at_env *e = at_env_of(c);

    const char *dir = temp ? e->temp_dir : e->output_dir;

    *s = (at_saver){.node = node,
                    .type = temp ? "temp" : "output",
                    .images = json_array(),
                    .ctx = c,
                    .turn = -1};
    if (!s->images) AT_TRY(no_memory(s));
    s->turn = at_folder_lock(dir); // until the files are there, else another process takes the name
    AT_TRY(at_save_path_next(dir, prefix, width, height, &s->where));
    if (!e->disable_metadata) AT_TRY(add_texts(s, prompt, extra_pnginfo));
out:
    return st;
}

// A job that ran before and was cut off writes its file again under the name that it had then.
static at_status claim(const at_saver *s, char **name, char **path)
{
    at_env *e = at_env_of(s->ctx);
    char *given = e->claim_file ? e->claim_file(e, at_node_id(s->ctx), *path) : NULL;

    if (!e->claim_file) return AT_OK;
    at_free(*path);
    *path = given;
    if (!given) return no_memory(s);
    at_free(*name);
    *name = at_strdup(at_path_base(given));
    return *name ? AT_OK : no_memory(s);
}

at_status at_saver_name(const at_saver *s, int64_t index, const char *extension, char **name,
                        char **path)
{
    static const char mark[] = "%batch_num%";
    const char *prefix = s->where.filename;
    at_str text = {0};
    for (const char *at; (at = strstr(prefix, mark)); prefix = at + strlen(mark)) {
        at_str_append_n(&text, prefix, (size_t)(at - prefix));
        at_str_printf(&text, "%lld", (long long)index);
    }
    at_str_printf(&text, "%s_%05lld_%s", prefix, (long long)s->where.counter + (long long)index,
                  extension);
    *name = at_str_take(&text);
    *path = *name ? at_path_join(s->where.folder, *name) : NULL;
    return *path ? claim(s, name, path) : no_memory(s);
}

at_status at_saver_add(at_saver *s, const char *name)
{
    json_t *row = json_pack("{s:s, s:s, s:s}", "filename", name, "subfolder", s->where.subfolder,
                            "type", s->type);
    if (!row || json_array_append_new(s->images, row) != 0) return no_memory(s);
    return AT_OK;
}

at_status at_saver_file(at_saver *s, int64_t index, const char *extension, const void *bytes,
                        size_t n)
{
    at_status st = AT_OK;
    at_atomic_file *f = NULL;
    char *name = NULL, *path = NULL;

    AT_TRY(at_saver_name(s, index, extension, &name, &path));
    AT_TRY(at_atomic_open(path, &f));
    if (strcmp(s->type, "temp") == 0) at_atomic_fleeting(f); // shown, not kept
    AT_TRY(at_atomic_write(f, bytes, n));
    AT_TRY(at_atomic_commit(&f));
    AT_TRY(at_saver_add(s, name));
out:
    at_atomic_abort(&f);
    at_free(name);
    at_free(path);
    return st == AT_OK ? st : at_fail_context(st, "%s: ", s->node);
}

static at_status show(const at_saver *s, at_node_ctx *c, json_t *ui)
{
    char *text = ui ? at_json_dump(ui, 0) : NULL;
    at_status st = text ? at_node_ui(c, text) : no_memory(s);
    at_free(text);
    json_decref(ui);
    return st;
}
at_status at_saver_show(at_saver *s, at_node_ctx *c, const bool *animated)
{
    return animated
               ? show(s, c,
                      json_pack("{s:O, s:[b]}", "images", s->images, "animated", (int)*animated))
               : at_saver_show_as(s, c, "images");
}
at_status at_saver_show_as(at_saver *s, at_node_ctx *c, const char *key)
{
    return show(s, c, json_pack("{s:O}", key, s->images));
}

// A key that stands twice counts by its last value, as in Python's dict.
static void put_row(at_st_pair *rows, size_t *n, const char *key, const char *value)
{
    for (size_t i = 0; i < *n; i++)
        if (strcmp(rows[i].key, key) == 0) {
            rows[i].value = value;
            return;
        }
    rows[(*n)++] = (at_st_pair){key, value};
}
size_t at_saver_metadata(const at_saver *s, const at_node_ctx *c,
                         at_st_pair rows[AT_SAVER_TEXTS + 1])
{
    size_t n = 0;
    if (at_env_of(c)->disable_metadata) return 0;
    put_row(rows, &n, "prompt", "");
    for (size_t i = 0; i < s->text_count; i++)
        put_row(rows, &n, s->text[i].key, s->text[i].value);
    return n;
}

void at_saver_close(at_saver *s)
{
    if (s->images) at_folder_unlock(s->turn); // else it was never opened
    for (size_t i = 0; i < s->text_count; i++)
        at_free((void *)(uintptr_t)s->text[i].value);
    json_decref(s->extra);
    json_decref(s->images);
    at_save_path_free(&s->where);
}
