// SPDX-License-Identifier: Apache-2.0
// object_info_test.c - every node that we have describes itself as ComfyUI 0.3.64 does.
// The recording (tests/golden/comfy/object_info.json) has no prose, so tooltips and descriptions are not
// compared; it was made with empty models and input folders, and so is the engine here.
#include "world.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"
#include "nodes/known.h"

typedef struct fixture {
    char dir[64];
    at_engine *engine;
    json_t *recorded, *ours;
} fixture;

static json_t *load(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    json_t *v = NULL;
    assert_int_equal(at_file_read(path, (size_t)64 << 20, &text, &n), AT_OK);
    assert_int_equal(at_json_load(path, text, n, &v), AT_OK);
    at_free(text);
    return v;
}

static int open_empty(void **state)
{
    fixture *f = at_calloc(1, sizeof *f);
    char *text = NULL;
    assert_non_null(f);
    *state = f;
    strcpy(f->dir, "/tmp/atelier-empty-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(chdir(f->dir), 0);
    at_engine_config config = {.base_dir = f->dir};
    assert_int_equal(at_engine_open(&config, &f->engine), AT_OK);
    assert_int_equal(at_engine_object_info(f->engine, NULL, &text), AT_OK);
    assert_int_equal(at_json_load("ours", text, strlen(text), &f->ours), AT_OK);
    at_free(text);
    f->recorded = load(AT_SOURCE_DIR "/tests/golden/comfy/object_info.json");
    return 0;
}
static int close_empty(void **state)
{
    fixture *f = *state;
    json_decref(f->recorded);
    json_decref(f->ours);
    at_engine_close(f->engine);
    rmdir(f->dir);
    at_free(f);
    return 0;
}

static void strip_prose(json_t *v)
{
    const char *key;
    json_t *child;
    size_t i;
    void *next;
    json_object_del(v, "tooltip");
    json_object_foreach_safe(v, next, key, child) strip_prose(child);
    json_array_foreach(v, i, child) strip_prose(child);
}

// The program's own models folder is looked in too (a build has one), so file lists are emptied.
static void empty_file_lists(const at_node *n, json_t *info)
{
    for (size_t i = 0; i < n->n_in; i++) {
        const at_in *row = &n->in[i];
        if (row->type != AT_IN_COMBO || !row->list) continue;
        const char *kind = row->flags & AT_INF_OPTIONAL ? "optional" : "required";
        json_t *input =
            json_object_get(json_object_get(json_object_get(info, "input"), kind), row->name);
        json_t *names = json_array_get(input, 0); // newer nodes: ["COMBO", {"options": [...]}]
        if (!json_is_array(names)) names = json_object_get(json_array_get(input, 1), "options");
        assert_true(json_is_array(names));
        for (size_t k = json_array_size(names); k-- > 0;)
            if (strcmp(json_string_value(json_array_get(names, k)), "pixel_space") != 0)
                json_array_remove(names, k);
    }
}

static void assert_part(const char *class_type, const char *part, const json_t *ours,
                        const json_t *recorded)
{
    if (ours ? json_equal(ours, recorded) : !recorded) return;
    char *a = ours ? at_json_dump(ours, AT_JSON_SORTED) : NULL;
    char *b = recorded ? at_json_dump(recorded, AT_JSON_SORTED) : NULL;
    fail_msg("%s.%s\n ours     %s\n recorded %s", class_type, part, a ? a : "absent",
             b ? b : "absent");
}

static void every_node_describes_itself_as_recorded(void **state)
{
    static const char *const parts[] = {"input_order", "output",   "output_is_list", "output_name",
                                        "output_node", "category", "python_module"};
    fixture *f = *state;
    const at_registry *r = at_engine_registry(f->engine);
    assert_true(at_registry_count(r) >= 30);
    for (size_t i = 0; i < at_registry_count(r); i++) {
        const at_node *n = at_registry_at(r, i);
        json_t *theirs = json_object_get(f->recorded, n->class_type);
        json_t *ours = json_object_get(f->ours, n->class_type);
        if (strncmp(n->python_module, "custom_nodes.", 13) == 0) continue; // not in the recording
        if (!theirs) fail_msg("ComfyUI 0.3.64 has no node %s", n->class_type);
        strip_prose(json_object_get(ours, "input"));
        empty_file_lists(n, ours);
        for (size_t k = 0; k < AT_COUNT(parts); k++) {
            json_t *order = json_object_get(ours, parts[k]);
            if (k == 0) json_object_del(order, "hidden");
            if (k == 0) json_object_del(json_object_get(theirs, parts[k]), "hidden");
            assert_part(n->class_type, parts[k], order, json_object_get(theirs, parts[k]));
        }
        assert_string_equal(json_string_value(json_object_get(ours, "name")), n->class_type);
        const json_t *title = json_object_get(theirs, "display_name");
        if (json_is_string(title))
            assert_part(n->class_type, "display_name", json_object_get(ours, "display_name"),
                        title);
        json_t *in = json_object_get(ours, "input"), *in2 = json_object_get(theirs, "input");
        assert_part(n->class_type, "required", json_object_get(in, "required"),
                    json_object_get(in2, "required"));
        assert_part(n->class_type, "optional", json_object_get(in, "optional"),
                    json_object_get(in2, "optional"));
    }
}

static void one_node_is_the_same_as_in_the_whole(void **state)
{
    fixture *f = *state;
    char *text = NULL, *all = NULL;
    json_t *one = NULL, *whole = NULL;
    assert_int_equal(at_engine_object_info(f->engine, "KSampler", &text), AT_OK);
    assert_int_equal(at_engine_object_info(f->engine, NULL, &all), AT_OK);
    assert_int_equal(at_json_load("one", text, strlen(text), &one), AT_OK);
    assert_int_equal(at_json_load("all", all, strlen(all), &whole), AT_OK);
    assert_int_equal(json_object_size(one), 1);
    assert_true(json_equal(json_object_get(one, "KSampler"), json_object_get(whole, "KSampler")));
    // the seed's limit does not fit a signed 64-bit integer
    assert_non_null(strstr(text, "18446744073709551615"));
    json_decref(one);
    json_decref(whole);
    at_free(text);
    at_free(all);
}

static void an_unknown_node_is_named(void **state)
{
    fixture *f = *state;
    char *text = NULL;
    assert_int_equal(at_engine_object_info(f->engine, "KSamplr", &text), AT_ENOTFOUND);
    assert_non_null(strstr(at_error_text(), "\"KSamplr\""));
    assert_null(text);
}

// The list that `nodes --missing` goes by names ComfyUI's nodes, all of them and no other.
static void the_known_nodes_are_the_recorded_ones(void **state)
{
    fixture *f = *state;
    const char *name;
    json_t *info;
    assert_int_equal(at_known_count, json_object_size(f->recorded));
    json_object_foreach(f->recorded, name, info)
    {
        if (!at_known_find(name)) fail_msg("%s is not in known_list.h", name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_node_describes_itself_as_recorded),
        cmocka_unit_test(one_node_is_the_same_as_in_the_whole),
        cmocka_unit_test(an_unknown_node_is_named),
        cmocka_unit_test(the_known_nodes_are_the_recorded_ones),
    };
    return cmocka_run_group_tests(tests, open_empty, close_empty);
}
