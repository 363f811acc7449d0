// SPDX-License-Identifier: Apache-2.0
// kit.c - making, running and comparing for the tests of flow/.
#include "kit.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "flow/python.h"

static at_status list_files(void *ctx, const char *kind, void (*each)(void *, const char *),
                            void *each_ctx)
{
    (void)ctx;
    if (strcmp(kind, "input") == 0) {
        each(each_ctx, "example.png");
        each(each_ctx, "other.png");
    } else if (strcmp(kind, "many") == 0) {
        char name[32];
        for (int i = 0; i < 25; i++) {
            snprintf(name, sizeof name, "model%d.safetensors", i);
            each(each_ctx, name);
        }
    }
    return AT_OK;
}

void kit_make(kit *k, at_cache_mode mode, size_t lru)
{
    *k = (kit){.job = "job-1"};
    assert_int_equal(at_registry_new(&k->registry), AT_OK);
    assert_int_equal(at_registry_add(k->registry, kit_nodes), AT_OK);
    assert_int_equal(at_cache_new(mode, lru, &k->cache), AT_OK);
    k->files.list = list_files;
    k->sink = (at_sink){.emit = kit_hub, .ctx = k, .cancel = &k->env.cancel};
    k->env.fingerprint = "hash";
}

static void forget(kit *k)
{
    json_decref(k->messages);
    json_decref(k->progress);
    json_decref(k->outputs);
    at_check_result_free(&k->check);
    at_graph_free(k->graph);
    k->messages = k->progress = k->outputs = NULL;
    k->graph = NULL;
    k->check = (at_check_result){0};
}

void kit_free(kit *k)
{
    forget(k);
    json_decref(k->extra_pnginfo);
    at_cache_free(k->cache);
    at_registry_free(k->registry);
}

at_status kit_check(kit *k, const char *workflow)
{
    at_status st;

    forget(k);
    st = at_graph_parse("test", workflow, strlen(workflow), k->registry, &k->graph);
    if (st != AT_OK) return st;
    st = at_check(k->graph, k->registry, &k->files, NULL, 0, &k->env, &k->check);
    if (st != AT_OK) return st;
    return k->check.ok ? AT_OK : AT_EWORKFLOW;
}

at_status kit_run(kit *k, const char *workflow)
{
    at_status st = kit_check(k, workflow);

    if (st != AT_OK) return st;
    k->env.runs = 0;
    k->env.log[0] = '\0';
    k->messages = json_array();
    k->progress = json_object();
    return at_execute(&(at_execute_args){.registry = k->registry,
                                         .graph = k->graph,
                                         .check = &k->check,
                                         .cache = k->cache,
                                         .sink = &k->sink,
                                         .job = k->job,
                                         .extra_pnginfo = k->extra_pnginfo,
                                         .engine = &k->env},
                      &k->outputs);
}

static bool differ(const json_t *a, const json_t *b)
{
    char *x = at_json_dump(a, 0), *y = at_json_dump(b, 0);

    print_message("    differ:\n      %.400s\n      %.400s\n", x ? x : "?", y ? y : "?");
    at_free(x);
    at_free(y);
    return false;
}

bool kit_same(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *item;

    if (json_is_object(a) && json_is_object(b)) {
        if (json_object_size(a) != json_object_size(b)) return differ(a, b);
        json_object_foreach((json_t *)a, key, item)
        {
            if (!json_object_get(b, key) || !kit_same(item, json_object_get(b, key)))
                return differ(a, b);
        }
        return true;
    }
    if (json_is_array(a) && json_is_array(b)) {
        if (json_array_size(a) != json_array_size(b)) return differ(a, b);
        for (size_t i = 0; i < json_array_size(a); i++) {
            if (!kit_same(json_array_get(a, i), json_array_get(b, i))) return differ(a, b);
        }
        return true;
    }
    return at_py_equal(a, b) || differ(a, b);
}

json_t *kit_json(const char *text)
{
    json_t *v = NULL;

    if (at_json_load("test", text, strlen(text), &v) != AT_OK) fail_msg("%s", at_error_text());
    return v;
}

json_t *kit_golden(const char *name)
{
    char *path = at_path_join(AT_SOURCE_DIR "/tests/golden/comfy", name), *text = NULL;
    size_t n = 0;
    json_t *v;

    assert_int_equal(at_file_read(path, (size_t)64 << 20, &text, &n), AT_OK);
    v = kit_json(text);
    at_free(text);
    at_free(path);
    return v;
}

void kit_assert_story(const kit *k, const char *story)
{
    at_str s = {0};
    size_t i;
    json_t *m;

    json_array_foreach(k->messages, i, m)
    {
        const char *type = json_string_value(json_object_get(m, "type"));
        const json_t *data = json_object_get(m, "data");
        const json_t *node = json_object_get(data, "node");
        if (!node) node = json_object_get(data, "node_id");
        if (strcmp(type, "progress_state") == 0) continue;
        at_str_printf(&s, "%s%s%s%s", s.len ? "|" : "",
                      strncmp(type, "execution_", 10) == 0 ? type + 10 : type, node ? " " : "",
                      node ? json_string_value(node) : "");
        if (strcmp(type, "execution_cached") == 0) {
            at_str_append(&s, " ");
            at_json_append(&s, json_object_get(data, "nodes"), AT_JSON_COMPACT);
        }
    }
    assert_string_equal(at_str_text(&s), story);
    at_str_free(&s);
}
