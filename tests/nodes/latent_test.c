// SPDX-License-Identifier: Apache-2.0
// latent_test.c - the latent nodes against ComfyUI's own results, and what they refuse.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/rows.h"

// Shape (zeros behind), and the sums of value * cos(0.7 i) and value * cos(0.013 i + 1).
typedef struct digest {
    int64_t shape[4];
    double a, b;
} digest;
typedef struct latent_case {
    const char *label, *graph;
    digest samples, mask;
    const char *index;
} latent_case;
typedef struct rebatch_case {
    const char *names;
    int size;
    size_t count;
    latent_case out[8];
} rebatch_case;
#include "latent_cases.h"

static at_tensor *filled(int rank, const int64_t *shape, double step, double phase, double scale,
                         double middle)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, rank, shape, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = (float)(middle + sin((double)i * step + phase) * scale);
    return t;
}

static at_obj_latent *latents[26]; // by letter; borrowed from what was given

// The latents and masks of tools/golden/latent_nodes.py.
static at_obj_latent *give(const char *key, int64_t b, int64_t h, int64_t w, double phase)
{
    at_object *o = at_obj_latent_new(filled(4, (int64_t[]){b, 4, h, w}, 0.37, phase, 2, 0));
    assert_non_null(o);
    world_give(key, at_value_object(o));
    return latents[key[0] - 'a'] = (at_obj_latent *)o;
}
static void give_all(void)
{
    give("a", 1, 10, 12, 0.0);
    give("b", 2, 7, 9, 0.3);
    give("c", 1, 10, 12, 1.0);
    at_obj_latent *d = give("d", 3, 6, 5, 0.7);
    d->noise_mask = filled(4, (int64_t[]){2, 1, 6, 5}, 0.61, 0, 0.5, 0.5);
    d->batch_index = at_calloc(3, sizeof *d->batch_index);
    assert_non_null(d->batch_index);
    memcpy(d->batch_index, (int64_t[]){5, 2, 9}, 3 * sizeof *d->batch_index);
    give("e", 4, 3, 3, 0.1);
    give("f", 4, 3, 3, 2.1);
    at_obj_latent *g = give("g", 2, 6, 5, 0.2);
    g->noise_mask = filled(4, (int64_t[]){1, 1, 48, 40}, 0, 0, 0, 1);
    give("h", 1, 16, 16, 0.4);
    give("i", 1, 4, 6, 0.9);
    at_obj_latent *j = give("j", 2, 6, 5, 1.3);
    j->noise_mask = filled(4, (int64_t[]){1, 1, 6, 5}, 0.61, 0, 0.5, 0.5);
    world_give("m", at_value_object(
                        at_obj_mask_new(filled(3, (int64_t[]){1, 20, 24}, 0.61, 0, 0.5, 0.5))));
    world_give(
        "n", at_value_object(at_obj_mask_new(filled(3, (int64_t[]){2, 9, 7}, 0.61, 0, 0.5, 0.5))));
}

#define GIVE(k) "'" k "':{'class_type':'Give','inputs':{'key':'" k "'}},"
#define GIVEN                                                                                      \
    GIVE("a")                                                                                      \
    GIVE("b")                                                                                      \
    GIVE("c") GIVE("d") GIVE("e") GIVE("f") GIVE("g") GIVE("h") GIVE("i") GIVE("m") GIVE("n")

// f32 arithmetic in another order: a few ulps of values up to 4, over up to 3000 of them.
static void check_digest(const char *label, const char *what, const digest *d, const at_tensor *t)
{
    if (!d->shape[0]) {
        if (t) fail_msg("%s: %s where there is none", label, what);
        return;
    }
    if (!t) fail_msg("%s: no %s", label, what);
    for (int i = 0; i < 4; i++)
        if ((i < t->rank ? t->shape[i] : 0) != d->shape[i])
            fail_msg("%s: %s has %lld in dimension %d, not %lld", label, what,
                     (long long)t->shape[i], i, (long long)d->shape[i]);
    const float *p = world_floats(t);
    double sum[2] = {0}, size = 0;
    for (int64_t i = 0; i < at_tensor_count(t); i++) {
        sum[0] += (double)p[i] * cos(0.7 * (double)i);
        sum[1] += (double)p[i] * cos(0.013 * (double)i + 1);
        size += fabs((double)p[i]);
    }
    for (int k = 0; k < 2; k++)
        if (!(fabs(sum[k] - (k ? d->b : d->a)) <= 1e-6 * (size + 1)))
            fail_msg("%s: %s sums to %.9g, ComfyUI's to %.9g", label, what, sum[k],
                     (k ? d->b : d->a));
}

static void check_latent(const latent_case *c, const at_obj_latent *l)
{
    at_str index = {0};
    check_digest(c->label, "samples", &c->samples, l->samples);
    check_digest(c->label, "mask", &c->mask, l->noise_mask);
    for (int64_t i = 0; l->batch_index && i < l->samples->shape[0]; i++)
        at_str_printf(&index, "%s%lld", i ? "," : "", (long long)l->batch_index[i]);
    if (strcmp(at_str_text(&index), c->index) != 0)
        fail_msg("%s: batch indices %s, ComfyUI's %s", c->label, at_str_text(&index), c->index);
    at_str_free(&index);
}

static void nodes_make_what_comfyui_makes(void **state)
{
    world *w = *state;
    give_all();
    for (size_t i = 0; i < AT_COUNT(latent_cases); i++) {
        const latent_case *c = &latent_cases[i];
        world_run(w, GIVEN, c->graph, WORLD_CAPTURE("1", "['t',0]"));
        check_latent(c, (const at_obj_latent *)world_object("1", "LATENT"));
    }
}

// --- lists -------------------------------------------------------------------------------------------
// GiveList puts what `give` keeps under the letters of `names` on one link; CaptureList keeps what comes.
static at_obj_latent *given_list[8];
static size_t given_count;
static at_object *captured[8];
static size_t captured_count;

static at_status give_list_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)in, (void)out;
    at_status st = AT_OK;
    for (size_t i = 0; i < given_count && st == AT_OK; i++)
        st = at_node_emit(c, 0, at_value_object(at_object_retain(&given_list[i]->base)));
    return st;
}
typedef struct capture_in {
    at_values value;
} capture_in;
static at_status capture_list_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)out;
    const at_values *v = &((const capture_in *)in)->value;
    for (captured_count = 0; captured_count < v->count && captured_count < 8; captured_count++) {
        at_object_release(captured[captured_count]);
        captured[captured_count] = at_object_retain(v->items[captured_count].o);
    }
    return AT_OK;
}
static at_status always_new(at_node_ctx *c, const void *in, char **out)
{
    static unsigned runs;
    (void)c, (void)in;
    *out = at_strprintf("%u", runs++);
    return *out ? AT_OK : AT_ENOMEM;
}
static const at_in capture_rows[] = {AT_ROW_LINK(capture_in, value, "LATENT")};
static const at_out list_out[] = {{.type_name = "LATENT", .name = "LATENT", .is_list = true}};
static const at_node node_give_list = {.class_type = "GiveList",
                                       .category = "test",
                                       .python_module = "test",
                                       .out = list_out,
                                       .n_out = 1,
                                       .in_size = 1,
                                       .run = give_list_run,
                                       .fingerprint = always_new};
static const at_node node_capture_list = {.class_type = "CaptureList",
                                          .category = "test",
                                          .python_module = "test",
                                          .flags = AT_NODE_OUTPUT | AT_NODE_INPUT_IS_LIST,
                                          .in = capture_rows,
                                          .n_in = 1,
                                          .in_size = sizeof(capture_in),
                                          .run = capture_list_run,
                                          .fingerprint = always_new};
static const at_node *const list_nodes[] = {&node_give_list, &node_capture_list, NULL};

static int open_with_lists(void **state)
{
    int failed = world_open(state);
    const at_registry *r = at_engine_registry(((world *)*state)->engine);
    // The engine's own, made by at_calloc: only this view of it is const.
    return failed || at_registry_add((at_registry *)r, list_nodes) != AT_OK;
}
static int close_with_lists(void **state)
{
    for (size_t i = 0; i < 8; i++)
        at_object_release(captured[i]);
    return world_close(state);
}

static at_status rebatch(world *w, const char *names, int size)
{
    give_all();
    for (given_count = 0; names[given_count]; given_count++)
        given_list[given_count] = latents[names[given_count] - 'a'];
    return world_try(w, "'l':{'class_type':'GiveList','inputs':{}},",
                     world_nodes("'t':{'class_type':'RebatchLatents','inputs':{'latents':['l',0],"
                                 "'batch_size':%d}}",
                                 size),
                     "'1':{'class_type':'CaptureList','inputs':{'value':['t',0]}}");
}

static void rebatching_cuts_and_joins_as_comfyui(void **state)
{
    for (size_t i = 0; i < AT_COUNT(rebatch_cases); i++) {
        const rebatch_case *c = &rebatch_cases[i];
        if (rebatch(*state, c->names, c->size) != AT_OK) fail_msg("%s", at_error_text());
        assert_int_equal(captured_count, c->count);
        for (size_t k = 0; k < c->count; k++)
            check_latent(&c->out[k], (const at_obj_latent *)captured[k]);
    }
}

static void rebatching_refuses_masks_of_two_sizes(void **state)
{
    assert_int_equal(rebatch(*state, "jg", 3), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cannot share a batch"));
}

// --- refusals ----------------------------------------------------------------------------------------
static void what_does_not_fit_is_refused(void **state)
{
    static const struct {
        const char *graph, *says;
    } cases[] = {
        {"'t':{'class_type':'LatentAdd','inputs':{'samples1':['a',0],'samples2':['o',0]}}",
         "do not fit"},
        {"'t':{'class_type':'LatentBatch','inputs':{'samples1':['a',0],'samples2':['o',0]}}",
         "4 and 3 channels"},
        {"'t':{'class_type':'LatentInterpolate','inputs':{'samples1':['b',0],'samples2':['b',0],"
         "'ratio':0.5}}",
         "2 items of 4"},
        {"'t':{'class_type':'LatentConcat','inputs':{'samples1':['a',0],'samples2':['h',0],"
         "'dim':'x'}}",
         "differ elsewhere"},
        {"'t':{'class_type':'LatentComposite','inputs':{'samples_to':['a',0],'samples_from':['b',0]"
         ","
         "'x':0,'y':0,'feather':0}}",
         "does not go into"},
        {"'t':{'class_type':'LatentComposite','inputs':{'samples_to':['a',0],'samples_from':['h',0]"
         ","
         "'x':0,'y':96,'feather':0}}",
         "does not go into"},
        {"'t':{'class_type':'LatentCompositeMasked','inputs':{'destination':['a',0],"
         "'source':['o',0],'x':0,'y':0,'resize_source':false}}",
         "3 channels"},
        {"'s':{'class_type':'LatentOperationSharpen','inputs':{'sharpen_radius':9,'sigma':1,"
         "'alpha':1}},'t':{'class_type':'LatentApplyOperation','inputs':{'samples':['i',0],"
         "'operation':['s',0]}}",
         "6 x 4"},
        {"'t':{'class_type':'LatentUpscaleBy','inputs':{'samples':['i',0],"
         "'upscale_method':'bilinear','scale_by':0.1}}",
         "0"},
    };
    world *w = *state;
    give_all();
    world_give("o", at_value_object(
                        at_obj_latent_new(filled(4, (int64_t[]){1, 3, 10, 12}, 0.37, 0, 1, 0))));
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        at_status st = world_try(w, GIVEN GIVE("o"), cases[i].graph, WORLD_CAPTURE("1", "['t',0]"));
        if (st != AT_EINVAL || !strstr(at_error_text(), cases[i].says))
            fail_msg("%s\n gave %s: %s", cases[i].graph, at_status_facts(st)->name,
                     at_error_text());
    }
}

// Numbers over links pass no range check.
static void numbers_from_links_are_refused_or_cut(void **state)
{
    world *w = *state;
    give_all();
#define INT_NODE(id, v) "'" id "':{'class_type':'PrimitiveInt','inputs':{'value':" v "}},"
    assert_int_equal(world_try(w, GIVEN INT_NODE("n1", "-3"),
                               "'t':{'class_type':'RepeatLatentBatch','inputs':{'samples':['d',0],"
                               "'amount':['n1',0]}}",
                               WORLD_CAPTURE("1", "['t',0]")),
                     AT_EINVAL);
    assert_int_equal(world_try(w, GIVEN INT_NODE("n1", "4611686018427387904"),
                               "'t':{'class_type':'EmptyLatentImage','inputs':{'width':['n1',0],"
                               "'height':['n1',0],'batch_size':['n1',0]}}",
                               WORLD_CAPTURE("1", "['t',0]")),
                     AT_EINVAL);
    world_run(w, GIVEN INT_NODE("n1", "-2"),
              "'t':{'class_type':'LatentFromBatch','inputs':{'samples':['b',0],'batch_index':"
              "['n1',0],'length':1}}",
              WORLD_CAPTURE("1", "['t',0]"));
    assert_int_equal(world_latent("1")->shape[0], 1); // counted from the end, as Python does
    // Eight pixels to the left is place -1, from where Python's slice finds nothing.
    assert_int_equal(world_try(w, GIVEN INT_NODE("n1", "-8"),
                               "'t':{'class_type':'LatentCompositeMasked','inputs':{'destination':"
                               "['h',0],'source':['h',0],'x':['n1',0],'y':['n1',0],"
                               "'resize_source':false}}",
                               WORLD_CAPTURE("1", "['t',0]")),
                     AT_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_make_what_comfyui_makes),
        cmocka_unit_test(rebatching_cuts_and_joins_as_comfyui),
        cmocka_unit_test(rebatching_refuses_masks_of_two_sizes),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(numbers_from_links_are_refused_or_cut),
    };
    return cmocka_run_group_tests(tests, open_with_lists, close_with_lists);
}
