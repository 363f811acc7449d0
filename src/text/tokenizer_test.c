// SPDX-License-Identifier: Apache-2.0
// tokenizer_test.c - vocabularies in all their forms, against recorded results and small ones made here.
#include "text/tokenizer.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

// --- recorded cases: tests/golden/tokens_* -----------------------------------------------------------

// The i32 rows of a small safetensors file, by name; this floor does not see the weight floor.
static const int32_t *row(const char *file, const json_t *header, size_t data, const char *name,
                          size_t *n)
{
    json_t *offsets = json_object_get(json_object_get(header, name), "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));

    if (!offsets) return NULL;
    *n = (size_t)(end - begin) / 4;
    return (const int32_t *)(const void *)(file + data + begin);
}

static void describe(at_str *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        at_str_printf(s, " %d", ids[i]);
}

// One text of a case; prints both lists when they differ.
static int check_text(const at_tokenizer *t, const char *name, const char *text, size_t n,
                      const int32_t *want, size_t want_n)
{
    at_ids got = {0};
    int bad;

    if (at_tokenizer_bos(t) >= 0) at_ids_push(&got, at_tokenizer_bos(t));
    assert_int_equal(at_tokenizer_encode(t, text, n, &got), AT_OK);
    at_ids_push(&got, at_tokenizer_eos(t));
    bad = got.len != want_n || memcmp(got.data, want, want_n * 4);
    if (bad) {
        at_str s = {0};
        at_str_printf(&s, "%s: \"%s\"\n  got ", name, text);
        describe(&s, got.data, got.len);
        at_str_append(&s, "\n  want");
        describe(&s, want, want_n);
        print_message("%s\n", at_str_text(&s));
        at_str_free(&s);
    }
    at_ids_free(&got);
    return bad;
}

static int check_case(const char *name)
{
    char path[512], *expected;
    size_t size, data, i, wrong = 0;
    uint64_t header_n = 0;
    json_t *spec, *options, *header, *text;
    at_tokenizer *t;
    at_tokenizer_kind kind;

    snprintf(path, sizeof path, "%s/tests/golden/%s/case.json", AT_SOURCE_DIR, name);
    spec = json_load_file(path, 0, NULL);
    assert_non_null(spec);
    options = json_object_get(spec, "options");
    kind = strcmp(json_string_value(json_object_get(options, "kind")), "clip") ? AT_TOK_T5_UNIGRAM
                                                                               : AT_TOK_CLIP_BPE;
    snprintf(path, sizeof path, "%s/tests/golden/%s/%s", AT_SOURCE_DIR, name,
             json_string_value(json_object_get(spec, "model")));
    if (at_tokenizer_open(kind, path, &t) != AT_OK) fail_msg("%s: %s", path, at_error_text());
    assert_int_equal(at_tokenizer_get_kind(t), kind);
    snprintf(path, sizeof path, "%s/tests/golden/%s/expected.safetensors", AT_SOURCE_DIR, name);
    assert_int_equal(at_file_read(path, 1 << 24, &expected, &size), AT_OK);
    memcpy(&header_n, expected, 8);
    data = 8 + (size_t)header_n;
    header = json_loadb(expected + 8, (size_t)header_n, 0, NULL);
    assert_non_null(header);
    json_array_foreach(json_object_get(options, "texts"), i, text)
    {
        char key[32];
        size_t n = 0;
        const int32_t *want;
        snprintf(key, sizeof key, "tokens_%zu", i);
        want = row(expected, header, data, key, &n);
        assert_non_null(want);
        wrong +=
            (size_t)check_text(t, name, json_string_value(text), json_string_length(text), want, n);
    }
    assert_true(i > 0);
    print_message("%s: %zu texts, %zu wrong\n", name, i, wrong);
    json_decref(header);
    json_decref(spec);
    at_free(expected);
    at_tokenizer_release(&t);
    return wrong != 0;
}

static void recorded_texts_give_the_recorded_ids(void **state)
{
    DIR *dir = opendir(AT_SOURCE_DIR "/tests/golden");
    struct dirent *e;
    int bad = 0, cases = 0;
    (void)state;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        if (strncmp(e->d_name, "tokens_", 7)) continue;
        bad += check_case(e->d_name);
        cases++;
    }
    closedir(dir);
    assert_int_equal(bad, 0);
    assert_true(cases >= 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_texts_give_the_recorded_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
