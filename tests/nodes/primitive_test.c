// SPDX-License-Identifier: Apache-2.0
// primitive_test.c - String, Int, Float, Boolean put a widget's value on a link, whatever its size.
#include "world.h"

#include <string.h>

#define PRIMITIVE(cls, value)                                                                      \
    "'a':{'class_type':'" cls "','inputs':{'value':" value "}}," WORLD_CAPTURE("x", "['a',0]")

static void strings_come_as_they_are(void **state)
{
    world *w = *state;
    world_run(w, PRIMITIVE("PrimitiveString", "'two\\nlines \\u00e9'"));
    assert_int_equal(world_value("x")->kind, AT_VAL_STRING);
    assert_string_equal(world_value("x")->s, "two\nlines \xc3\xa9");
    world_run(w, PRIMITIVE("PrimitiveStringMultiline", "''"));
    assert_string_equal(world_value("x")->s, "");
}

static void integers_reach_both_ends(void **state)
{
    world *w = *state;
    world_run(w, PRIMITIVE("PrimitiveInt", "9223372036854775807"));
    assert_int_equal(world_value("x")->kind, AT_VAL_INT);
    assert_true(world_value("x")->i == INT64_MAX);
    world_run(w, PRIMITIVE("PrimitiveInt", "-9223372036854775807"));
    assert_true(world_value("x")->i == -INT64_MAX);
    world_run(w, PRIMITIVE("PrimitiveInt", "-3.9")); // int() truncates
    assert_true(world_value("x")->i == -3);
    assert_int_equal(world_try(w, PRIMITIVE("PrimitiveInt", "9223372036854775808")), AT_EWORKFLOW);
    assert_non_null(strstr(w->result.node_errors, "value_bigger_than_max"));
}

static void floats_and_booleans(void **state)
{
    world *w = *state;
    world_run(w, PRIMITIVE("PrimitiveFloat", "'-2.5'"));
    assert_int_equal(world_value("x")->kind, AT_VAL_FLOAT);
    assert_true(world_value("x")->f == -2.5);
    assert_int_equal(world_try(w, PRIMITIVE("PrimitiveFloat", "1e300")),
                     AT_EWORKFLOW); // sys.maxsize
    world_run(w, PRIMITIVE("PrimitiveBoolean", "true"));
    assert_int_equal(world_value("x")->kind, AT_VAL_BOOL);
    assert_true(world_value("x")->b);
    world_run(w, PRIMITIVE("PrimitiveBoolean", "'false'")); // Python's truth
    assert_true(world_value("x")->b);
    world_run(w, PRIMITIVE("PrimitiveBoolean", "0"));
    assert_false(world_value("x")->b);
}

static void a_primitive_feeds_a_widget(void **state)
{
    world *w = *state;
    world_run(w,
              "'a':{'class_type':'PrimitiveInt','inputs':{'value':48}},"
              "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':['a',0],'height':32,"
              "'batch_size':2}},",
              WORLD_CAPTURE("x", "['e',0]"));
    const at_tensor *t = world_latent("x");
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 16);
    assert_int_equal(t->shape[2], 4);
    assert_int_equal(t->shape[3], 6);
    // a STRING does not fit an INT
    assert_int_equal(world_try(w,
                               "'a':{'class_type':'PrimitiveString','inputs':{'value':'48'}},"
                               "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':['a',0],"
                               "'height':32,'batch_size':2}},",
                               WORLD_CAPTURE("x", "['e',0]")),
                     AT_EWORKFLOW);
    assert_non_null(strstr(w->result.node_errors, "return_type_mismatch"));
}

static void linked_numbers_are_held_to_the_range(void **state)
{
    // ComfyUI checks constants only; a linked value must still not reach memory unchecked.
    world *w = *state;
    at_status st = world_try(w,
                             "'a':{'class_type':'PrimitiveInt','inputs':{'value':-64}},"
                             "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':['a',0],"
                             "'height':64,'batch_size':1}},",
                             WORLD_CAPTURE("x", "['e',0]"));
    assert_int_equal(st, AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "EmptySD3LatentImage"));
    st = world_try(w,
                   "'a':{'class_type':'PrimitiveInt','inputs':{'value':4611686018427387904}},"
                   "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':['a',0],"
                   "'height':['a',0],'batch_size':['a',0]}},",
                   WORLD_CAPTURE("x", "['e',0]"));
    assert_true(st == AT_EINVAL || st == AT_ENOMEM);
    assert_true(*at_error_text() != 0);
}

static void steps_over_a_link_are_checked_where_they_are_used(void **state)
{
    static const char *const steps[] = {"-5", "0", "4611686018427387904"};
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(steps); i++) {
        at_status st = world_try(
            w, WORLD_BASE,
            world_nodes(
                "'a':{'class_type':'PrimitiveInt','inputs':{'value':%s}},"
                "'s':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':5,'steps':['a',0],"
                "'cfg':1,'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':"
                "['n',0],'latent_image':['e',0],'denoise':1}},",
                steps[i]),
            WORLD_CAPTURE("x", "['s',0]"));
        assert_true(st == AT_OK || st == AT_EINVAL || st == AT_ENOMEM);
        if (i != 1) assert_int_not_equal(st, AT_OK);
        st = world_try(
            w, WORLD_MODELS,
            world_nodes("'a':{'class_type':'PrimitiveInt','inputs':{'value':%s}},"
                        "'s':{'class_type':'BasicScheduler','inputs':{'model':['m',0],'scheduler':"
                        "'simple','steps':['a',0],'denoise':0.5}},",
                        steps[i]),
            WORLD_CAPTURE("x", "['s',0]"));
        assert_true(st == AT_OK || st == AT_EINVAL || st == AT_ENOMEM);
        if (i != 1) assert_int_not_equal(st, AT_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_come_as_they_are),
        cmocka_unit_test(integers_reach_both_ends),
        cmocka_unit_test(floats_and_booleans),
        cmocka_unit_test(a_primitive_feeds_a_widget),
        cmocka_unit_test(linked_numbers_are_held_to_the_range),
        cmocka_unit_test(steps_over_a_link_are_checked_where_they_are_used),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
