// SPDX-License-Identifier: Apache-2.0
// image_nodes_test.c - the picture and mask nodes against recordings of ComfyUI 0.3.64 (made by
// tools/golden/comfy_pictures.py), and what they refuse.
// Idea: one case of tests/golden/comfy/pictures.json is a node, its widgets and made-up pictures on its links,
// and what ComfyUI's own node gave; each runs through the engine as a small workflow.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"

// --- a list on a link --------------------------------------------------------------------------------
enum { MAX_LIST = 8 };
static struct {
    at_object *item[MAX_LIST];
    size_t count;
} list;

static void list_clear(void)
{
    for (size_t i = 0; i < list.count; i++)
        at_object_release(list.item[i]);
    list.count = 0;
}

static at_status list_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)in, (void)out;
    at_status st = AT_OK;
    for (size_t i = 0; i < list.count && st == AT_OK; i++)
        st = at_node_emit(c, 0, at_value_object(at_object_retain(list.item[i])));
    return st;
}
typedef struct list_in {
    int64_t turn; // another number: runs again
} list_in;
static const at_in list_rows[] = {
    {.name = "turn", .type = AT_IN_INT, .offset = offsetof(list_in, turn)}};
static const at_out list_out[] = {{.type_name = "*", .name = "list", .is_list = true}};
static const at_node node_list = {.class_type = "GiveList",
                                  .category = "test",
                                  .python_module = "test",
                                  .in = list_rows,
                                  .n_in = 1,
                                  .out = list_out,
                                  .n_out = 1,
                                  .in_size = sizeof(list_in),
                                  .run = list_run};

// Keeps every value of a list that comes along its link.
typedef struct keep_in {
    at_values value;
} keep_in;
static struct {
    at_value item[MAX_LIST];
    size_t count;
} kept;
static at_status keep_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)out;
    const at_values *v = &((const keep_in *)in)->value;
    for (size_t i = 0; i < v->count; i++) {
        assert_true(kept.count < MAX_LIST);
        kept.item[kept.count++] = at_value_copy(&v->items[i]);
    }
    return AT_OK;
}
static const at_in keep_rows[] = {
    {.name = "value", .type = AT_IN_ANY, .offset = offsetof(keep_in, value), .type_name = "*"}};
static const at_node node_keep = {.class_type = "KeepList",
                                  .category = "test",
                                  .python_module = "test",
                                  .flags = AT_NODE_OUTPUT | AT_NODE_INPUT_IS_LIST,
                                  .in = keep_rows,
                                  .n_in = 1,
                                  .in_size = sizeof(keep_in),
                                  .run = keep_run};
static const at_node *const list_nodes[] = {&node_list, &node_keep, NULL};

static void kept_clear(void)
{
    for (size_t i = 0; i < kept.count; i++)
        at_value_clear(&kept.item[i]);
    kept.count = 0;
}

static int open_world(void **state)
{
    int rc = world_open(state);
    world *w = *state;
    assert_int_equal(at_registry_add((at_registry *)at_engine_registry(w->engine), list_nodes),
                     AT_OK);
    return rc;
}
static int close_world(void **state)
{
    list_clear();
    kept_clear();
    return world_close(state);
}

// --- inputs ------------------------------------------------------------------------------------------
static at_object *picture(const json_t *spec)
{
    const json_t *sides = json_object_get(spec, "shape"), *values = json_object_get(spec, "values");
    int64_t shape[4], salt = json_integer_value(json_object_get(spec, "salt"));
    int rank = (int)json_array_size(sides);
    at_tensor *t = NULL;
    assert_in_range(rank, 3, 4);
    for (int i = 0; i < rank; i++)
        shape[i] = json_integer_value(json_array_get(sides, (size_t)i));
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, rank, shape, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = values ? (float)json_number_value(json_array_get(values, (size_t)i))
                      : (float)((i * i * 7 + i * 37 + 11 * salt) % 97) / 96.0f;
    return rank == 3 ? at_obj_mask_new(t) : at_obj_image_new(t);
}

// What the case's input becomes in the workflow: a link to a node that gives it, or a widget's value.
static json_t *input_of(json_t *prompt, const char *name, const json_t *v)
{
    static int64_t turn;
    if (json_is_object(v)) {
        world_give(name, at_value_object(picture(v)));
        json_object_set_new(
            prompt, name, json_pack("{s:s, s:{s:s}}", "class_type", "Give", "inputs", "key", name));
        return json_pack("[s, i]", name, 0);
    }
    if (!json_is_array(v)) return json_deep_copy(v);
    if (!json_is_object(json_array_get(v, 0))) return json_deep_copy(json_array_get(v, 0));
    list_clear();
    for (; list.count < json_array_size(v); list.count++)
        list.item[list.count] = picture(json_array_get(v, list.count));
    json_object_set_new(prompt, name,
                        json_pack("{s:s, s:{s:I}}", "class_type", "GiveList", "inputs", "turn",
                                  (json_int_t)++turn));
    return json_pack("[s, i]", name, 0);
}

// Runs the node; every output lands in `kept`, in order.
static at_status run_case(world *w, const json_t *c)
{
    json_t *prompt = json_object(), *inputs = json_object(), *v;
    const char *name;
    size_t slots = json_array_size(json_object_get(c, "outputs"));
    json_object_foreach(json_object_get(c, "inputs"), name, v)
    {
        json_object_set_new(inputs, name, input_of(prompt, name, v));
    }
    if (json_is_array(json_object_get(json_object_get(c, "inputs"), "images"))) slots = 1;
    json_object_set_new(
        prompt, "n",
        json_pack("{s:O, s:o}", "class_type", json_object_get(c, "node"), "inputs", inputs));
    for (size_t i = 0; i < slots; i++) {
        char id[32];
        snprintf(id, sizeof id, "out%zu", i);
        json_object_set_new(prompt, id,
                            json_pack("{s:s, s:{s:[s, i]}}", "class_type", "KeepList", "inputs",
                                      "value", "n", (int)i));
    }
    kept_clear();
    char *text = at_json_dump(prompt, 0);
    assert_non_null(text);
    at_status st = world_run_text(w, text);
    at_free(text);
    json_decref(prompt);
    return st;
}

// --- outputs -----------------------------------------------------------------------------------------
// The nodes whose arithmetic is more than a sum: ten last places of f32. Sharpening multiplies by 50.
static double tolerance(const char *node)
{
    return strcmp(node, "ImageSharpen") == 0 ? 1e-5 : 2e-6;
}

static void expect_picture(const char *node, int number, const json_t *want, const at_value *v)
{
    const json_t *values = json_object_get(want, "values"), *sides = json_object_get(want, "shape");
    if (v->kind != AT_VAL_OBJECT ||
        strcmp(v->o->type->name, json_string_value(json_object_get(want, "type"))))
        fail_msg("case %d, %s: no %s came out", number, node,
                 json_string_value(json_object_get(want, "type")));
    const at_tensor *t = ((const at_obj_image *)v->o)->pixels;
    assert_int_equal(t->rank, json_array_size(sides));
    for (int i = 0; i < t->rank; i++)
        if (t->shape[i] != json_integer_value(json_array_get(sides, (size_t)i)))
            fail_msg("case %d, %s: side %d is %lld", number, node, i, (long long)t->shape[i]);
    const float *p = world_floats(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++) {
        double w = json_number_value(json_array_get(values, (size_t)i));
        if (!(fabs((double)p[i] - w) <= tolerance(node)))
            fail_msg("case %d, %s: value %lld is %.8g, not %.8g", number, node, (long long)i,
                     (double)p[i], w);
    }
}

static json_t *cases_load(void)
{
    char *text = NULL;
    size_t n = 0;
    json_t *v = NULL;
    const char *path = AT_SOURCE_DIR "/tests/golden/comfy/pictures.json";
    assert_int_equal(at_file_read(path, (size_t)16 << 20, &text, &n), AT_OK);
    assert_int_equal(at_json_load(path, text, n, &v), AT_OK);
    at_free(text);
    return v;
}

static void every_node_gives_comfyuis_numbers(void **state)
{
    world *w = *state;
    json_t *all = cases_load();
    json_t *cases = json_object_get(all, "cases");
    assert_true(json_array_size(cases) > 100);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *outputs = json_object_get(c, "outputs");
        const char *node = json_string_value(json_object_get(c, "node"));
        if (run_case(w, c) != AT_OK)
            fail_msg("case %d, %s: %s\n%s", (int)i, node, at_error_text(),
                     w->result.node_errors ? w->result.node_errors : "");
        if (kept.count != json_array_size(outputs))
            fail_msg("case %d, %s: %zu outputs", (int)i, node, kept.count);
        for (size_t k = 0; k < kept.count; k++) {
            const json_t *want = json_array_get(outputs, k);
            if (strcmp(json_string_value(json_object_get(want, "type")), "INT") == 0)
                assert_int_equal(kept.item[k].i,
                                 json_integer_value(json_object_get(want, "value")));
            else
                expect_picture(node, (int)i, want, &kept.item[k]);
        }
    }
    json_decref(all);
}

// --- refusals ----------------------------------------------------------------------------------------
// Numbers that come over a link have passed no range check.
static const char *const refused[][2] = {
    {"{'node':'ImageCrop','inputs':{'image':I,'width':4,'height':4,'x':L-3,'y':0}}", "no part"},
    {"{'node':'ImageFromBatch','inputs':{'image':I,'batch_index':L-1,'length':1}}",
     "counts from 0"},
    {"{'node':'RepeatImageBatch','inputs':{'image':I,'amount':L9000000000000000000}}", "repeat"},
    {"{'node':'ImagePadForOutpaint','inputs':{'image':I,'left':L-8,'top':0,'right':0,'bottom':0,"
     "'feathering':2}}",
     "cannot pad"},
    {"{'node':'ImageScale','inputs':{'image':I,'upscale_method':'area','width':L-5,'height':4,"
     "'crop':'disabled'}}",
     "cannot resize"},
    {"{'node':'ImageScaleToMaxDimension','inputs':{'image':I,'upscale_method':'area',"
     "'largest_size':0}}",
     "cannot resize"},
    {"{'node':'ImageToMask','inputs':{'image':I,'channel':'alpha'}}", "no alpha"},
    {"{'node':'CropMask','inputs':{'mask':M,'x':90,'y':0,'width':1,'height':1}}", "no part"},
    {"{'node':'MaskComposite','inputs':{'destination':M,'source':M,'x':L-1,'y':0,"
     "'operation':'add'}}",
     "negative"},
    {"{'node':'ImageCompositeMasked','inputs':{'destination':A,'source':I,'x':0,'y':0,"
     "'resize_source':false}}",
     "4 channels"},
    {"{'node':'ImageBlend','inputs':{'image1':A,'image2':I,'blend_factor':0.5,"
     "'blend_mode':'normal'}}",
     "4 channels"},
    {"{'node':'PorterDuffImageComposite','inputs':{'source':A,'source_alpha':M,'destination':I,"
     "'destination_alpha':M,'mode':'SRC'}}",
     "must be equal"},
    {"{'node':'ImageBlur','inputs':{'image':I,'blur_radius':31,'sigma':1.0}}", "radius 31"},
    {"{'node':'ImageRGBToYUV','inputs':{'image':A}}", "4 channels"},
    {"{'node':'Morphology','inputs':{'image':I,'operation':'erode','kernel_size':L-2}}",
     "kernel_size"},
    {"{'node':'Canny','inputs':{'image':I,'low_threshold':0.9,'high_threshold':0.2}}", "low"},
    {"{'node':'SolidMask','inputs':{'value':1.0,'width':L0,'height':5}}", "nothing would be left"},
    {"{'node':'EmptyImage','inputs':{'width':L9000000000000000000,'height':5,'batch_size':1,"
     "'color':0}}",
     "EmptyImage"},
};

// I: a picture, A: one with alpha, M: a mask, Ln: the number n over a link.
static char *spelled(const char *text, bool *linked, long long *number)
{
    at_str s = {0};
    *linked = false;
    for (; *text; text++) {
        if (*text == 'I' && text[-1] == ':')
            at_str_append(&s, "{\"type\":\"IMAGE\",\"shape\":[1,5,6,3],\"salt\":1}");
        else if (*text == 'A' && text[-1] == ':')
            at_str_append(&s, "{\"type\":\"IMAGE\",\"shape\":[1,5,6,4],\"salt\":1}");
        else if (*text == 'M' && text[-1] == ':')
            at_str_append(&s, "{\"type\":\"MASK\",\"shape\":[1,5,6],\"salt\":1}");
        else if (*text == 'L' && text[-1] == ':') {
            char *end;
            *number = strtoll(text + 1, &end, 10);
            *linked = true;
            at_str_append(&s, "[\"number\",0]");
            text = end - 1;
        } else
            at_str_append_n(&s, *text == '\'' ? "\"" : text, 1);
    }
    return at_str_take(&s);
}

static void run_refused(world *w, const json_t *c, bool linked, long long number)
{
    json_t *prompt = json_object(), *inputs = json_object(), *v;
    const char *name;
    json_object_foreach(json_object_get(c, "inputs"), name, v)
    {
        json_object_set_new(inputs, name,
                            json_is_object(v) ? input_of(prompt, name, v) : json_deep_copy(v));
    }
    if (linked) {
        world_give("number", at_value_int(number));
        json_object_set_new(
            prompt, "number",
            json_pack("{s:s, s:{s:s}}", "class_type", "Give", "inputs", "key", "number"));
    }
    json_object_set_new(
        prompt, "n",
        json_pack("{s:O, s:o}", "class_type", json_object_get(c, "node"), "inputs", inputs));
    json_object_set_new(
        prompt, "out",
        json_pack("{s:s, s:{s:[s, i]}}", "class_type", "Capture", "inputs", "value", "n", 0));
    char *text = at_json_dump(prompt, 0);
    world_run_text(w, text);
    at_free(text);
    json_decref(prompt);
}

static void what_cannot_be_is_refused_with_its_numbers(void **state)
{
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(refused); i++) {
        bool linked = false;
        long long number = 0;
        json_t *c = NULL;
        char *text = spelled(refused[i][0], &linked, &number);
        assert_non_null(text);
        assert_int_equal(at_json_load("case", text, strlen(text), &c), AT_OK);
        run_refused(w, c, linked, number);
        const char *node = json_string_value(json_object_get(c, "node"));
        if (w->status == AT_OK || !strstr(at_error_text(), refused[i][1]) ||
            !strstr(at_error_text(), node))
            fail_msg("%s: %s, \"%s\"\n%s", refused[i][0], at_status_facts(w->status)->name,
                     at_error_text(), w->result.node_errors ? w->result.node_errors : "");
        json_decref(c);
        at_free(text);
    }
}

// --- sizes -------------------------------------------------------------------------------------------
// Too large for the recording: the sizes alone, worked out by hand (the list of trained sizes; the root of
// int(megapixels * 1048576) / (w * h), rounded).
static void large_results_have_the_right_size(void **state)
{
    static const struct {
        int w, h, width, height;
        const char *node;
    } rows[] = {
        {64, 64, 1024, 1024, "'FluxKontextImageScale','inputs':{"},
        {160, 90, 1392, 752, "'FluxKontextImageScale','inputs':{"},
        {90, 160, 752, 1392, "'FluxKontextImageScale','inputs':{"},
        {300, 100, 1568, 672, "'FluxKontextImageScale','inputs':{"},
        {200, 3, 836, 13, // 10485 / 600: times 4.1803
         "'ImageScaleToTotalPixels','inputs':{'upscale_method':'lanczos','megapixels':0.01,"},
        {30, 40, 768, 1024, // 786432 / 1200: times 25.6
         "'ImageScaleToTotalPixels','inputs':{'upscale_method':'area','megapixels':0.75,"}};
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        at_tensor *t = NULL;
        int64_t shape[4] = {1, rows[i].h, rows[i].w, 3};
        assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &t), AT_OK);
        for (int64_t k = 0; k < at_tensor_count(t); k++)
            ((float *)at_tensor_data(t))[k] = 102.0f / 255.0f; // every weighted mean of it is it
        world_give("k", at_value_object(at_obj_image_new(t)));
        world_run(w, "'g':{'class_type':'Give','inputs':{'key':'k'}},",
                  world_nodes("'s':{'class_type':%s'image':['g',0]}},", rows[i].node),
                  WORLD_CAPTURE("x", "['s',0]"));
        assert_int_equal(world_image("x")->shape[2], rows[i].width);
        assert_int_equal(world_image("x")->shape[1], rows[i].height);
        for (int64_t k = 0; k < at_tensor_count(world_image("x")); k += 997)
            assert_true(fabsf(world_floats(world_image("x"))[k] - 102.0f / 255.0f) < 1e-6f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_node_gives_comfyuis_numbers),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_numbers),
        cmocka_unit_test(large_results_have_the_right_size),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
