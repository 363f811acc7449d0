// SPDX-License-Identifier: Apache-2.0
// object_info_test.c - tables print as ComfyUI's /object_info does: both dialects, and every odd
// number.
#include <string.h>

#include "base/mem.h"
#include "kit.h"

typedef struct all_in {
    at_object *o;
    int64_t i;
    double f;
    const char *s;
} all_in;
#define ROW(n, t, ...)                                                                             \
    {                                                                                              \
        .name = n, .type = t, __VA_ARGS__                                                          \
    }
#define RANGE (AT_INF_HAS_MIN | AT_INF_HAS_MAX)
#define STEP  (RANGE | AT_INF_HAS_STEP)

static const char *const codecs[] = {"vp9", "av1", NULL};
static const char *const types[] = {"SD1", "SDXL", "SVD", NULL};
static const at_in volume_in[] = {
    ROW("audio", AT_IN_OBJECT, .type_name = "AUDIO", .flags = AT_INF_NO_OPTIONS),
    ROW("volume", AT_IN_INT, .def = 1, .min = -100, .max = 100, .flags = RANGE, .alt = AT_ALT_DEF)};
static const at_in steps_in[] = {
    ROW("model_type", AT_IN_COMBO, .choices = types),
    ROW("steps", AT_IN_INT, .def = 10, .min = 1, .max = 10000, .flags = RANGE),
    ROW("denoise", AT_IN_FLOAT, .def = 1, .min = 0, .max = 1, .step = 0.01, .flags = STEP)};
static const at_in output_in[] = {ROW(
    "image", AT_IN_COMBO, .flags = AT_INF_IMAGE_UPLOAD | AT_INF_COMBO_OPTIONS,
    .extra = "{\"image_folder\": \"output\", \"remote\": {\"route\": \"/internal/files/output\", "
             "\"refresh_button\": true, \"control_after_refresh\": \"first\"}}")};
static const at_in int_in[] = {ROW("value", AT_IN_INT, .min = -0x1p63, .max = 0x1p63,
                                   .flags = RANGE | AT_INF_NO_DEFAULT | AT_INF_CONTROL)};
static const at_in float_in[] = {ROW("value", AT_IN_FLOAT, .min = -0x1p63, .max = 0x1p63,
                                     .flags = RANGE | AT_INF_NO_DEFAULT | AT_INF_INT_LIMITS)};
static const at_in apg_in[] = {
    ROW("model", AT_IN_OBJECT, .type_name = "MODEL"),
    ROW("eta", AT_IN_FLOAT, .def = 1, .min = -10, .max = 10, .step = 0.01, .flags = STEP),
    ROW("norm_threshold", AT_IN_FLOAT, .def = 5, .min = 0, .max = 50, .step = 0.1, .flags = STEP),
    ROW("momentum", AT_IN_FLOAT, .def = 0, .min = -5, .max = 1, .step = 0.01, .flags = STEP)};
static const at_in webm_in[] = {
    ROW("images", AT_IN_OBJECT, .type_name = "IMAGE"),
    ROW("filename_prefix", AT_IN_STRING, .sdef = "ComfyUI", .flags = AT_INF_SINGLE_LINE),
    ROW("codec", AT_IN_COMBO, .choices = codecs),
    ROW("fps", AT_IN_FLOAT, .def = 24, .min = 0.01, .max = 1000, .step = 0.01, .flags = STEP),
    ROW("crf", AT_IN_FLOAT, .def = 32, .min = 0, .max = 63, .step = 1, .flags = STEP,
        .alt = AT_ALT_MIN | AT_ALT_STEP),
    ROW("prompt", AT_IN_STRING, .type_name = "PROMPT", .flags = AT_INF_HIDDEN),
    ROW("extra_pnginfo", AT_IN_STRING, .type_name = "EXTRA_PNGINFO", .flags = AT_INF_HIDDEN)};
static const at_in joined_in[] = {
    ROW("string_a", AT_IN_STRING, .flags = AT_INF_MULTILINE | AT_INF_NO_DEFAULT),
    ROW("string_b", AT_IN_STRING, .flags = AT_INF_MULTILINE | AT_INF_NO_DEFAULT),
    ROW("delimiter", AT_IN_STRING, .flags = AT_INF_SINGLE_LINE)};
static const at_out audio[] = {{"AUDIO"}}, sigmas[] = {{"SIGMAS"}},
                    picture[] = {{"IMAGE"}, {"MASK"}}, integer[] = {{"INT"}}, real[] = {{"FLOAT"}},
                    model[] = {{"MODEL"}}, text[] = {{"STRING"}};
#define NODE(c, d, cat, mod, rows, outs, f)                                                        \
    {                                                                                              \
        .class_type = c, .display = d, .category = cat, .python_module = mod, .in = rows,          \
        .n_in = AT_COUNT(rows), .out = outs, .n_out = AT_COUNT(outs), .flags = f                   \
    }
#define EXTRAS "comfy_extras."
static const at_node samples[] = {
    NODE("AudioAdjustVolume", "Audio Adjust Volume", "audio", EXTRAS "nodes_audio", volume_in,
         audio, 0),
    NODE("AlignYourStepsScheduler", NULL, "sampling/custom_sampling/schedulers",
         EXTRAS "nodes_align_your_steps", steps_in, sigmas, AT_NODE_V3),
    NODE("LoadImageOutput", "Load Image (from Outputs)", "image", "nodes", output_in, picture,
         AT_NODE_EXPERIMENTAL),
    NODE("PrimitiveInt", "Int", "utils/primitive", EXTRAS "nodes_primitive", int_in, integer,
         AT_NODE_V3),
    NODE("PrimitiveFloat", "Float", "utils/primitive", EXTRAS "nodes_primitive", float_in, real,
         AT_NODE_V3),
    NODE("APG", "Adaptive Projected Guidance", "sampling/custom_sampling", EXTRAS "nodes_apg",
         apg_in, model, AT_NODE_V3),
    {.class_type = "SaveWEBM",
     .category = "image/video",
     .python_module = EXTRAS "nodes_video",
     .in = webm_in,
     .n_in = AT_COUNT(webm_in),
     .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL | AT_NODE_OUTPUT},
    NODE("StringConcatenate", "Concatenate", "utils/string", EXTRAS "nodes_string", joined_in, text,
         AT_NODE_V3),
};

// Equal with the same number forms: 1 is not 1.0 here. Texts of sorted keys compare exactly that.
static void assert_prints_like_golden(const at_node *n, const json_t *golden)
{
    static const char *const fields[] = {
        "category",       "display_name", "input",       "input_order",   "output",
        "output_is_list", "output_name",  "output_node", "python_module", "experimental"};
    json_t *info = at_object_info(n, NULL);
    const json_t *want = json_object_get(golden, n->class_type);

    assert_non_null(info);
    assert_non_null(want);
    for (size_t i = 0; i < AT_COUNT(fields); i++) {
        const json_t *w = json_object_get(want, fields[i]), *g = json_object_get(info, fields[i]);
        char *a, *b;
        if (!w && (!g || json_is_false(g))) continue; // the recording leaves false marks out
        a = at_json_dump(g, AT_JSON_SORTED);
        b = at_json_dump(w, AT_JSON_SORTED);
        assert_string_equal(a, b);
        at_free(a);
        at_free(b);
    }
    json_decref(info);
}

static void both_dialects_print_as_recorded(void **state)
{
    json_t *golden = kit_golden("object_info.json");

    (void)state;
    for (size_t i = 0; i < AT_COUNT(samples); i++)
        assert_prints_like_golden(&samples[i], golden);
    json_decref(golden);
}

static void a_v1_entry_is_whole(void **state)
{
    json_t *traces = kit_golden("traces.json"), *info = json_object(), *want;

    (void)state;
    want = json_object_get(json_object_get(traces, "object_info_one"), "EmptyImage");
    json_object_set_new(want, "description", json_string("")); // dropped when it was recorded
    for (size_t i = 0; kit_nodes[i]; i++) {
        if (strcmp(kit_nodes[i]->class_type, "EmptyImage") == 0) {
            json_decref(info);
            info = at_object_info(kit_nodes[i], NULL);
        }
    }
    assert_true(kit_same(info, want));
    json_decref(info);
    json_decref(traces);
}

static void a_v3_entry_says_what_v1_leaves_out(void **state)
{
    json_t *info = at_object_info(&samples[3], NULL);
    char *got;

    (void)state;
    got = at_json_dump(info, AT_JSON_COMPACT);
    assert_string_equal(got, "{\"input\":{\"required\":{\"value\":[\"INT\",{\"min\":-"
                             "9223372036854775807,\"max\":9223372036854775807,"
                             "\"control_after_generate\":true}]}},\"input_order\":{\"required\":["
                             "\"value\"]},\"output\":[\"INT\"],"
                             "\"output_is_list\":[false],\"output_name\":[\"INT\"],\"output_"
                             "tooltips\":[null],\"name\":\"PrimitiveInt\","
                             "\"display_name\":\"Int\",\"description\":\"\",\"python_module\":"
                             "\"comfy_extras.nodes_primitive\","
                             "\"category\":\"utils/"
                             "primitive\",\"output_node\":false,\"deprecated\":false,"
                             "\"experimental\":false,\"api_node\":false}");
    at_free(got);
    json_decref(info);
}

static void file_lists_become_choices(void **state)
{
    kit k;
    json_t *all, *config;

    (void)state;
    kit_make(&k, AT_CACHE_CLASSIC, 0);
    all = at_object_info_all(k.registry, &k.files);
    config = json_object_get(
        json_object_get(json_object_get(json_object_get(all, "SeedNode"), "input"), "required"),
        "model");
    assert_int_equal(json_array_size(config), 1);
    assert_int_equal(json_array_size(json_array_get(config, 0)), 25);
    assert_int_equal(json_object_size(all), at_registry_count(k.registry));
    json_decref(all);
    kit_free(&k);
}

static void two_nodes_of_one_name_are_refused(void **state)
{
    const at_node *const twice[] = {&samples[0], &samples[0], NULL};
    at_registry *r;

    (void)state;
    assert_int_equal(at_registry_new(&r), AT_OK);
    assert_int_equal(at_registry_add(r, twice), AT_EINTERNAL);
    assert_string_equal(at_error_text(), "two nodes are called AudioAdjustVolume; rename one");
    assert_ptr_equal(at_registry_find(r, "AudioAdjustVolume"), &samples[0]);
    assert_null(at_registry_find(r, "Other"));
    assert_null(at_registry_at(r, 1));
    at_registry_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_dialects_print_as_recorded),
        cmocka_unit_test(a_v1_entry_is_whole),
        cmocka_unit_test(a_v3_entry_says_what_v1_leaves_out),
        cmocka_unit_test(file_lists_become_choices),
        cmocka_unit_test(two_nodes_of_one_name_are_refused),
    };
    return cmocka_run_group_tests_name("flow.object_info", tests, NULL, NULL);
}
