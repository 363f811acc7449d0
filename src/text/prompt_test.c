// SPDX-License-Identifier: Apache-2.0
// prompt_test.c - the prompt language against recordings, and the layout of chunks.
#include "text/prompt.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/python_float.h"

static bool same_weight(float got, const json_t *want)
{
    double w =
        json_is_string(want) ? strtod(json_string_value(want), NULL) : json_number_value(want);

    return isnan(w) ? isnan(got) : got == (float)w;
}

static void recorded_prompts_split_as_recorded(void **state)
{
    json_t *rows = json_load_file(AT_SOURCE_DIR "/tests/golden/prompt_weights.json", 0, NULL), *row;
    size_t i, k, wrong = 0;
    (void)state;

    assert_non_null(rows);
    json_array_foreach(rows, i, row)
    {
        const char *text = json_string_value(json_array_get(row, 0));
        json_t *want = json_array_get(row, 1);
        at_segments got;
        bool ok;
        assert_int_equal(at_prompt_parse(text, &got), AT_OK);
        ok = got.count == json_array_size(want);
        for (k = 0; ok && k < got.count; k++) {
            json_t *pair = json_array_get(want, k);
            ok = !strcmp(got.items[k].text, json_string_value(json_array_get(pair, 0))) &&
                 same_weight(got.items[k].weight, json_array_get(pair, 1));
        }
        if (!ok) {
            print_message("\"%s\":", text);
            for (k = 0; k < got.count; k++)
                print_message(" [\"%s\" %g]", got.items[k].text, (double)got.items[k].weight);
            print_message("\n");
        }
        wrong += !ok;
        at_segments_free(&got);
    }
    print_message("%zu prompts, %zu wrong\n", i, wrong);
    assert_true(i > 50);
    assert_int_equal(wrong, 0);
    json_decref(rows);
}

static void deep_nesting_is_linear(void **state)
{
    enum { N = 200000 };
    char *text = malloc(2 * N + 16);
    at_segments s;
    double t = at_now();
    (void)state;

    memset(text, '(', N);
    text[N] = 'a';
    memset(text + N + 1, ')', N);
    text[2 * N + 1] = 0;
    assert_int_equal(at_prompt_parse(text, &s), AT_OK);
    assert_int_equal(s.count, 1);
    assert_true(isinf(s.items[0].weight));
    at_segments_free(&s);
    text[2 * N] = 0; // one ')' too few: peeled from both sides
    assert_int_equal(at_prompt_parse(text, &s), AT_OK);
    assert_string_equal(s.items[0].text, "(a");
    at_segments_free(&s);
    memset(text, ')', 2 * N);
    assert_int_equal(at_prompt_parse(text, &s), AT_OK);
    at_segments_free(&s);
    for (int i = 0; i < N; i++)
        memcpy(text + 2 * i, "(:", 2);
    memset(text + N, ' ', N / 2);
    memset(text + N + N / 2, ')', N / 2);
    assert_int_equal(at_prompt_parse(text, &s), AT_OK);
    at_segments_free(&s);
    assert_true(at_now() - t < 5); // milliseconds; a quadratic parser would need minutes
    free(text);
}

static void numbers_are_pythons(void **state)
{
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1", 1},
                {" \t-2.5\n", -2.5},
                {"1_000", 1000},
                {"+.5e-1", .05},
                {"5.", 5},
                {"InFiNiTy", INFINITY},
                {"-inf", -INFINITY},
                {"\xc2\xa0"
                 "1\xe3\x80\x80",
                 1},
                {"\xd9\xa1\xd9\xa2", 12},
                {"1e400", INFINITY},
                {"\xf0\x9d\x9f\x97", 9},
                {"\xef\xbc\x93", 3}};
    static const char *const bad[] = {"",     " ",    ".",    "e5",   "1e",   "0x10",
                                      "1__0", "_1",   "1_",   "1 2",  "1,3",  "--1",
                                      "infi", "nan1", "1_e5", "1._5", "\xff", "1f"};
    double v;
    (void)state;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!at_python_float(good[i].text, strlen(good[i].text), &v) || v != good[i].value)
            fail_msg("\"%s\" gives %g", good[i].text, v);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (at_python_float(bad[i], strlen(bad[i]), &v)) fail_msg("\"%s\" gives %g", bad[i], v);
    assert_true(at_python_float("NaN", 3, &v) && isnan(v));
}

// --- chunks ------------------------------------------------------------------------------------------

static at_tokenizer *clip;

static int open_clip(void **state)
{
    (void)state;
    return at_tokenizer_open(AT_TOK_CLIP_BPE, AT_SOURCE_DIR "/tests/golden/tokens_clip", &clip) !=
           AT_OK;
}

static int close_clip(void **state)
{
    (void)state;
    at_tokenizer_release(&clip);
    return 0;
}

static at_chunking clip_layout(void)
{
    return (at_chunking){.max_length = 77,
                         .has_bos = true,
                         .has_eos = true,
                         .bos = at_tokenizer_bos(clip),
                         .eos = at_tokenizer_eos(clip),
                         .pad = at_tokenizer_eos(clip),
                         .max_word_length = 8,
                         .weights = true};
}

// "a " n times: one token each.
static char *marks(int n, const char *tail)
{
    char *text = malloc((size_t)n * 2 + strlen(tail) + 1);

    for (int i = 0; i < n; i++)
        memcpy(text + 2 * i, "a ", 2);
    memcpy(text + 2 * n, tail, strlen(tail) + 1);
    return text;
}

static void an_empty_prompt_is_one_padded_chunk(void **state)
{
    at_chunking how = clip_layout();
    at_chunks c;
    (void)state;

    how.pad = 0;
    assert_int_equal(at_prompt_chunks(clip, "", &how, &c), AT_OK);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.items[0].len, 77);
    assert_int_equal(c.items[0].ids[0], how.bos);
    assert_int_equal(c.items[0].ids[1], how.eos);
    for (int i = 2; i < 77; i++)
        assert_int_equal(c.items[0].ids[i], 0);
    assert_false(c.weighted);
    at_chunks_free(&c);
}

static void seventy_five_tokens_fill_a_chunk_and_one_more_opens_the_next(void **state)
{
    at_chunking how = clip_layout();
    at_chunks c;
    char *text = marks(75, "");
    (void)state;

    assert_int_equal(at_prompt_chunks(clip, text, &how, &c), AT_OK);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.items[0].ids[76], how.eos);
    assert_int_not_equal(c.items[0].ids[75], how.eos);
    at_chunks_free(&c);
    free(text);
    text = marks(76, "");
    assert_int_equal(at_prompt_chunks(clip, text, &how, &c), AT_OK);
    assert_int_equal(c.count, 2);
    assert_int_equal(c.items[1].len, 77);
    assert_int_not_equal(c.items[1].ids[1], how.eos);
    assert_int_equal(c.items[1].ids[2], how.eos);
    at_chunks_free(&c);
    free(text);
}

static void short_groups_move_to_the_next_chunk_and_long_ones_are_cut(void **state)
{
    at_chunking how = clip_layout();
    at_chunks c;
    char *text = marks(72, "(a a a a a a a:1.5)");
    (void)state;

    assert_int_equal(at_prompt_chunks(clip, text, &how, &c), AT_OK); // 72 + 7 of weight 1.5
    assert_int_equal(c.count, 2);
    assert_int_equal(c.items[0].ids[73], how.eos);
    assert_true(c.items[0].weights[72] == 1);
    assert_true(c.items[1].weights[1] == 1.5f && c.items[1].weights[7] == 1.5f);
    assert_true(c.items[1].weights[8] == 1);
    assert_true(c.weighted);
    at_chunks_free(&c);
    free(text);
    text = marks(72, "(a a a a a a a a:1.5)");
    assert_int_equal(at_prompt_chunks(clip, text, &how, &c), AT_OK); // 72 + 8: cut after 3
    assert_int_equal(c.count, 2);
    assert_true(c.items[0].weights[73] == 1.5f && c.items[0].weights[75] == 1.5f);
    assert_int_equal(c.items[0].ids[76], how.eos);
    assert_true(c.items[1].weights[5] == 1.5f && c.items[1].weights[6] == 1);
    at_chunks_free(&c);
    free(text);
}

static void without_a_limit_there_is_one_chunk_padded_to_the_minimum(void **state)
{
    at_chunking how = {.min_length = 256, .has_eos = true, .eos = 1, .pad = 0, .weights = true};
    at_chunks c;
    char *text = marks(300, "");
    (void)state;

    assert_int_equal(at_prompt_chunks(clip, "a", &how, &c), AT_OK);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.items[0].len, 256);
    assert_int_equal(c.items[0].ids[1], 1);
    assert_int_equal(c.items[0].ids[255], 0);
    at_chunks_free(&c);
    assert_int_equal(at_prompt_chunks(clip, text, &how, &c), AT_OK);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.items[0].len, 301);
    at_chunks_free(&c);
    free(text);
}

static void parentheses_are_text_when_weights_are_off(void **state)
{
    at_chunking how = clip_layout();
    at_ids want = {0};
    at_chunks c;
    (void)state;

    how.weights = false;
    assert_int_equal(at_tokenizer_encode(clip, "(a:1.5) (b)", 11, &want), AT_OK);
    assert_int_equal(at_prompt_chunks(clip, "(a:1.5) \\(b\\)", &how, &c), AT_OK);
    assert_false(c.weighted);
    assert_memory_equal(c.items[0].ids + 1, want.data, want.len * sizeof *want.data);
    assert_int_equal(c.items[0].ids[1 + want.len], how.eos);
    at_ids_free(&want);
    at_chunks_free(&c);
}

static void impossible_layouts_are_refused(void **state)
{
    at_chunking how = clip_layout();
    at_chunks c;
    (void)state;

    how.max_length = 2;
    assert_int_equal(at_prompt_chunks(clip, "a", &how, &c), AT_EINVAL);
    how.max_length = 3; // groups can only be cut here
    assert_int_equal(at_prompt_chunks(clip, "a a a", &how, &c), AT_OK);
    assert_int_equal(c.count, 3);
    at_chunks_free(&c);
}

static void failed_allocations_leak_nothing(void **state)
{
    at_chunking how = clip_layout();
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    (void)state;

    for (uint64_t n = 1; hit; n++) {
        at_chunks c;
        at_mem_fail_at(n, false);
        at_status st =
            at_prompt_chunks(clip, "a (red (fox:1.3)) embedding:x \xe4\xb8\x80", &how, &c);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_chunks_free(&c);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

static void a_dropped_group_leaves_its_place_to_what_follows(void **state)
{
    (void)state;
    // begin, "a", "a" of weight 1.5, "a", end and pads: groups 0 1 2 3 0 0 0 0
    const at_chunking how = {.max_length = 8,
                             .has_bos = true,
                             .has_eos = true,
                             .bos = at_tokenizer_bos(clip),
                             .eos = at_tokenizer_eos(clip),
                             .pad = 0,
                             .max_word_length = 8,
                             .weights = true};
    const int32_t groups[] = {0, 1, 2, 3, 0, 0, 0, 0}, left[] = {0, 1, 3, 0, 0, 0, 0, 0};
    at_chunks c;

    assert_int_equal(at_prompt_chunks(clip, "a (a:1.5) a", &how, &c), AT_OK);
    assert_int_equal(c.count, 1);
    assert_memory_equal(c.items[0].groups, groups, sizeof groups);
    at_chunks_drop(&c, 7);
    assert_memory_equal(c.items[0].groups, groups, sizeof groups);
    assert_true(c.weighted);
    at_chunks_drop(&c, 2);
    assert_memory_equal(c.items[0].groups, left, sizeof left);
    assert_false(c.weighted);
    assert_int_equal(c.items[0].len, 8);
    assert_int_equal(c.items[0].ids[1], c.items[0].ids[2]);
    assert_int_equal(c.items[0].ids[3], how.eos);
    assert_int_equal(c.items[0].ids[7], 0);
    at_chunks_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_prompts_split_as_recorded),
        cmocka_unit_test(deep_nesting_is_linear),
        cmocka_unit_test(numbers_are_pythons),
        cmocka_unit_test(an_empty_prompt_is_one_padded_chunk),
        cmocka_unit_test(seventy_five_tokens_fill_a_chunk_and_one_more_opens_the_next),
        cmocka_unit_test(short_groups_move_to_the_next_chunk_and_long_ones_are_cut),
        cmocka_unit_test(without_a_limit_there_is_one_chunk_padded_to_the_minimum),
        cmocka_unit_test(parentheses_are_text_when_weights_are_off),
        cmocka_unit_test(impossible_layouts_are_refused),
        cmocka_unit_test(failed_allocations_leak_nothing),
        cmocka_unit_test(a_dropped_group_leaves_its_place_to_what_follows),
    };
    return cmocka_run_group_tests(tests, open_clip, close_clip);
}
