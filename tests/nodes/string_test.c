// SPDX-License-Identifier: Apache-2.0
// string_test.c - the string nodes against ComfyUI's own results in Python.
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/rows.h"
#include "text/py_str.h"

typedef struct string_case {
    const char *graph;
    char kind; // 's', 'i', 'b', 'e'
    const char *text;
    int number;
} string_case;
#include "string_cases.h"

static void texts_become_what_python_makes_of_them(void **state)
{
    world *w = *state;
    int wrong = 0;
    for (size_t i = 0; i < AT_COUNT(string_cases); i++) {
        const string_case *c = &string_cases[i];
        at_status st =
            world_try(w, world_nodes("'t':%s,", c->graph), WORLD_CAPTURE("1", "['t',0]"));
        const at_value *v = st == AT_OK ? world_value("1") : NULL;
        bool good = false;
        switch (c->kind) {
        case 'e': good = st != AT_OK; break;
        case 's': good = v && v->kind == AT_VAL_STRING && strcmp(v->s, c->text) == 0; break;
        case 'i': good = v && v->kind == AT_VAL_INT && v->i == c->number; break;
        case 'b': good = v && v->kind == AT_VAL_BOOL && v->b == (c->number != 0); break;
        }
        if (good) continue;
        print_error("%s\n gave %s \"%s\", expected %c \"%s\" %d\n", c->graph,
                    st == AT_OK ? "a value" : at_error_text(),
                    v && v->kind == AT_VAL_STRING ? v->s : "", c->kind, c->text, c->number);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

// FNV-1a over all letters below U+2000 in each case.
static void letters_change_case_as_in_python(void **state)
{
    static const at_py_case hows[] = {AT_PY_UPPER, AT_PY_LOWER, AT_PY_TITLE};
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        uint64_t h = 14695981039346656037u;
        for (uint32_t c = 1; c < 0x2000; c++) {
            char letter[5] = "";
            at_str s = {0};
            letter[at_utf8_put(letter, c)] = 0;
            assert_int_equal(at_py_case_of(letter, hows[k], &s), AT_OK);
            for (const char *p = at_str_text(&s); *p; p++)
                h = (h ^ (unsigned char)*p) * 1099511628211u;
            at_str_free(&s);
        }
        if (h != case_sums[k]) fail_msg("case %zu: another sum than Python's", k);
    }
}

static void what_cannot_be_matched_is_said(void **state)
{
    world *w = *state;
    assert_int_equal(
        world_try(w,
                  "'t':{'class_type':'RegexMatch','inputs':{'string':"
                  "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac',"
                  "'regex_pattern':'(a|a|b)*(a|a|b)*(a|a|b)*$','case_insensitive':true,"
                  "'multiline':false,'dotall':false}},",
                  WORLD_CAPTURE("1", "['t',0]")),
        AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "steps"));
    assert_int_equal(world_try(w,
                               "'t':{'class_type':'RegexMatch','inputs':{'string':'a',"
                               "'regex_pattern':'\\\\N{BULLET}','case_insensitive':true,"
                               "'multiline':false,'dotall':false}},",
                               WORLD_CAPTURE("1", "['t',0]")),
                     AT_EUNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_become_what_python_makes_of_them),
        cmocka_unit_test(letters_change_case_as_in_python),
        cmocka_unit_test(what_cannot_be_matched_is_said),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
