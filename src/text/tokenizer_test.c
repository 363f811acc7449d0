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
    bad = got.len != want_n || memcmp(got.data, want, want_n * 4) != 0;
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
        if (strncmp(e->d_name, "tokens_", 7) != 0) continue;
        bad += check_case(e->d_name);
        cases++;
    }
    closedir(dir);
    assert_int_equal(bad, 0);
    assert_true(cases >= 7);
}

// --- CLIP --------------------------------------------------------------------------------------------

static at_tokenizer *parsed(at_tokenizer_kind kind, const char *format, const char *text,
                            const char *second)
{
    at_tokenizer *t;

    if (at_tokenizer_parse(kind, "small", format, text, strlen(text), second,
                           second ? strlen(second) : 0, &t) != AT_OK)
        fail_msg("%s", at_error_text());
    return t;
}

static void expect_ids(const at_tokenizer *t, const char *text, size_t n, const int32_t *want)
{
    at_ids got = {0};

    assert_int_equal(at_tokenizer_encode(t, text, strlen(text), &got), AT_OK);
    if (got.len != n || (n && memcmp(got.data, want, n * sizeof *want) != 0)) {
        at_str s = {0};
        describe(&s, got.data, got.len);
        fail_msg("\"%s\" gives%s", text, at_str_text(&s));
    }
    at_ids_free(&got);
}

#define EXPECT(t, text, ...)                                                                       \
    expect_ids(t, text, sizeof((int32_t[]){__VA_ARGS__}) / 4, (int32_t[]){__VA_ARGS__})

static void merges_alone_define_the_ids(void **state)
{
    at_tokenizer *t = parsed(AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt",
                             "#version: 0.2\na b\nab c</w>\nx y\r\n", NULL);
    (void)state;

    assert_int_equal(at_tokenizer_vocab_size(t), 512 + 3 + 2);
    assert_int_equal(at_tokenizer_bos(t), 515);
    assert_int_equal(at_tokenizer_eos(t), 516);
    assert_int_equal(at_tokenizer_pad(t), 516);
    EXPECT(t, "!", 256); // '!' is the first printable byte; alone it ends a word
    EXPECT(t, "abc", 513);
    EXPECT(t, "ABC abc", 513, 513);
    EXPECT(t, "ab", 64, 256 + 65); // "a b" does not end a word
    EXPECT(t, "abab", 512, 64, 256 + 65);
    EXPECT(t, "<|endoftext|>!", 516, 256);
    EXPECT(t,
           "a\xff"
           "b",
           64, 256 + 65); // an ill-formed byte becomes U+FFFD, and that is dropped
    at_tokenizer_release(&t);
}

// The plain algorithm: find the best pair, merge it everywhere, again.
typedef struct plain_merge {
    char left[8], right[8];
} plain_merge;

static size_t plain_bpe(const plain_merge *m, size_t count, char (*parts)[64], size_t n)
{
    for (;;) {
        size_t best = count;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t k = 0; k < best; k++)
                if (!strcmp(parts[i], m[k].left) && !strcmp(parts[i + 1], m[k].right)) best = k;
        if (best == count) return n;
        size_t out = 0;
        for (size_t i = 0; i < n; i++, out++) {
            if (out != i) memmove(parts[out], parts[i], sizeof parts[out]);
            if (i + 1 < n && !strcmp(parts[out], m[best].left) &&
                !strcmp(parts[i + 1], m[best].right)) {
                size_t len = strlen(parts[out]);
                memmove(parts[out] + len, parts[i + 1], sizeof parts[out] - len);
                i++;
            }
        }
        n = out;
    }
}

static void the_heap_merges_like_the_plain_algorithm(void **state)
{
    plain_merge merges[40] = {0};
    (void)state;

    srand(7);
    for (int round = 0; round < 200; round++) {
        at_str file = {0};
        at_tokenizer *t;
        size_t count = 0;
        at_str_append(&file, "#version\n");
        while (count < 40) { // any order, also of merges that no training would make
            plain_merge *m = &merges[count];
            size_t known = 0;
            for (int side = 0; side < 2; side++) {
                char *s = side ? m->right : m->left;
                int n = 1 + rand() % 3;
                for (int i = 0; i < n; i++)
                    s[i] = (char)('a' + rand() % 2);
                s[n] = 0;
            }
            while (known < count && (strcmp(merges[known].left, m->left) != 0 ||
                                     strcmp(merges[known].right, m->right) != 0))
                known++;
            if (known < count) continue;
            at_str_printf(&file, "%s %s\n", m->left, m->right);
            count++;
        }
        t = parsed(AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt", at_str_text(&file), NULL);
        for (int k = 0; k < 20; k++) {
            char word[32], parts[32][64];
            size_t n = 1 + (size_t)rand() % 24, want;
            at_ids got = {0};
            for (size_t i = 0; i < n; i++)
                word[i] = (char)('a' + rand() % 2);
            word[n] = 0;
            for (size_t i = 0; i < n; i++)
                snprintf(parts[i], 64, "%c%s", word[i], i + 1 == n ? "</w>" : "");
            want = plain_bpe(merges, count, parts, n);
            assert_int_equal(at_tokenizer_encode(t, word, n, &got), AT_OK);
            if (got.len != want) fail_msg("%s: %zu tokens, wanted %zu", word, got.len, want);
            for (size_t i = 0; i < want; i++) { // the last merge that makes a word gives its id
                int32_t id = -1;
                for (size_t m = 0; m < count; m++) {
                    char joined[16];
                    snprintf(joined, sizeof joined, "%.7s%.7s", merges[m].left, merges[m].right);
                    if (!strcmp(joined, parts[i])) id = 512 + (int32_t)m;
                }
                if (id >= 0) assert_int_equal(got.data[i], id);
            }
            at_ids_free(&got);
        }
        at_tokenizer_release(&t);
        at_str_free(&file);
    }
}

static void a_word_of_a_megabyte_takes_no_time(void **state)
{
    at_tokenizer *t = parsed(AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt",
                             "#version\nx x\nxx xx\nxxxx xxxx\nx x</w>\n", NULL);
    enum { N = 1 << 20 };
    char *word = malloc(N);
    at_ids ids = {0};
    double start = at_now();
    (void)state;

    memset(word, 'x', N);
    assert_int_equal(at_tokenizer_encode(t, word, N, &ids), AT_OK);
    assert_true(ids.len < N / 4);
    assert_true(at_now() - start < 10); // well below a second; quadratic would take an hour
    at_ids_free(&ids);
    free(word);
    at_tokenizer_release(&t);
}

static void the_original_vocabulary_gives_the_known_ids(void **state)
{
    const char *set = getenv("ATELIER_SHARE");
    char path[512];
    at_tokenizer *t;
    (void)state;

    snprintf(path, sizeof path, "%s/tokenizers/clip", set ? set : AT_BINARY_DIR "/share/atelier");
    if (!at_path_exists(path))
        skip(); // tools/vocab/get_clip_vocab.sh brings it, where there is npm
    assert_int_equal(at_tokenizer_open(AT_TOK_CLIP_BPE, path, &t), AT_OK);
    assert_int_equal(at_tokenizer_vocab_size(t), 49408);
    assert_int_equal(at_tokenizer_bos(t), 49406);
    assert_int_equal(at_tokenizer_eos(t), 49407);
    EXPECT(t, "a photo of a cat", 320, 1125, 539, 320, 2368);
    at_tokenizer_release(&t);
}

// --- T5 ----------------------------------------------------------------------------------------------

#define MARK "\xe2\x96\x81"
#define VOCAB                                                                                      \
    "[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"" MARK "\",-2],[\"" MARK "a\",-3],[\"a\",-3],"   \
    "[\"b\",-3],[\"ab\",-4],[\"" MARK "ab\",-4],[\"x\",-1]]"

static at_tokenizer *t5(const char *steps)
{
    char text[2048];

    snprintf(text, sizeof text,
             "{%s\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" VOCAB "}}", steps);
    return parsed(AT_TOK_T5_UNIGRAM, "tokenizer.json", text, NULL);
}

static void metaspace_prepends_as_the_file_says(void **state)
{
    static const char added[] = "\"added_tokens\":[{\"id\":1,\"content\":\"</s>\"}],";
    char steps[512];
    at_tokenizer *t;
    (void)state;

    snprintf(steps, sizeof steps,
             "%s\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},", added);
    t = t5(steps);
    EXPECT(t, "ab", 8);
    EXPECT(t, "</s>ab", 1, 7);
    EXPECT(t, "ab ab</s> ab", 8, 8, 1, 8);
    EXPECT(t, " ab", 8);
    at_tokenizer_release(&t);
    snprintf(steps, sizeof steps,
             "%s\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\"},", added);
    t = t5(steps);
    EXPECT(t, "</s>ab", 1, 8);
    at_tokenizer_release(&t);
    snprintf(steps, sizeof steps,
             "%s\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"never\"},", added);
    t = t5(steps);
    EXPECT(t, "ab ab", 7, 8);
    at_tokenizer_release(&t);
    t = t5("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
           "\"WhitespaceSplit\"},"
           "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"add_prefix_space\":true}]},");
    EXPECT(t, "  ab \t\n ab", 8, 8);
    assert_int_equal(at_tokenizer_bos(t), -1);
    assert_int_equal(at_tokenizer_eos(t), 1);
    assert_int_equal(at_tokenizer_pad(t), 0);
    assert_int_equal(at_tokenizer_vocab_size(t), 10);
    at_tokenizer_release(&t);
}

static void normalisers_run_in_their_order(void **state)
{
    at_tokenizer *t =
        t5("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},"
           "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
           "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\"x\"},"
           "{\"type\":\"Replace\",\"pattern\":{\"String\":\"bb\"},\"content\":\"b\"},"
           "{\"type\":\"Prepend\",\"prepend\":\"x\"},{\"type\":\"NFKC\"}]},");
    (void)state;

    EXPECT(t, "  AB \t A  ", 9, 7, 9, 5);
    EXPECT(t, "bbb", 9, 6, 6);
    EXPECT(t, "\xef\xbd\x81", 9, 5); // full width a
    at_tokenizer_release(&t);
    t = t5(
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"q*\"},\"content\":\"x\"},");
    EXPECT(t, "ab", 9, 5, 9, 6, 9); // empty matches stand between characters
    at_tokenizer_release(&t);
}

static void unknown_neighbours_become_one(void **state)
{
    at_tokenizer *t = t5("");
    (void)state;

    EXPECT(t, "a\xe7\x8b\x90\xe7\x8b\x90z b", 5, 2, 6);
    EXPECT(t, "", );
    EXPECT(t, "\xff\xff", 2);
    at_tokenizer_release(&t);
}

static void added_tokens_take_white_space_and_keep_to_words(void **state)
{
    at_tokenizer *t =
        t5("\"added_tokens\":[{\"id\":20,\"content\":\"[x]\",\"lstrip\":true,\"rstrip\":true},"
           "{\"id\":21,\"content\":\"ab\",\"single_word\":true},{\"id\":22,\"content\":\"[xx]\"},"
           "{\"id\":23,\"content\":\"AA\",\"normalized\":true}],"
           "\"normalizer\":{\"type\":\"Lowercase\"},");
    (void)state;

    EXPECT(t, "b [x] b", 6, 20, 6);
    EXPECT(t, "[xx][x]", 22, 20);
    EXPECT(t, "ab.ab", 21, 2, 21);
    EXPECT(t, "aba", 7, 5);
    EXPECT(t, "baAb", 6, 23, 6); // "AA" is lowered as the text is
    assert_int_equal(at_tokenizer_vocab_size(t), 24);
    at_tokenizer_release(&t);
}

static void a_fixed_padding_length_is_reported(void **state)
{
    at_tokenizer *t = t5("\"padding\":{\"strategy\":{\"Fixed\":128},\"pad_id\":0},");
    (void)state;

    assert_int_equal(at_tokenizer_fixed_length(t), 128);
    at_tokenizer_release(&t);
    t = t5("\"padding\":{\"strategy\":\"BatchLongest\"},");
    assert_int_equal(at_tokenizer_fixed_length(t), 0);
    assert_ptr_equal(at_tokenizer_retain(t), t);
    at_tokenizer *second = t;
    at_tokenizer_release(&t);
    assert_int_equal(at_tokenizer_eos(second), 1);
    at_tokenizer_release(&second);
}

// --- sentencepiece -----------------------------------------------------------------------------------

static void put_piece(at_str *s, const char *text, float score, int type)
{
    size_t n = strlen(text);
    char head[] = {0x0a, (char)(n + 9), 0x0a, (char)n};

    at_str_append_n(s, head, 4);
    at_str_append(s, text);
    at_str_append_n(s, "\x15", 1);
    at_str_append_n(s, &score, 4);
    at_str_append_n(s, "\x18", 1);
    at_str_append_n(s, (char[]){(char)type}, 1);
}

static at_status open_spiece(const at_str *s, at_tokenizer **t)
{
    return at_tokenizer_parse(AT_TOK_T5_UNIGRAM, "m.model", "spiece.model", s->data, s->len, NULL,
                              0, t);
}

static void small_spiece(at_str *s)
{
    put_piece(s, "<pad>", 0, 3);
    put_piece(s, "</s>", 0, 3);
    put_piece(s, "<unk>", 0, 2);
    put_piece(s, MARK "a", -1, 1);
    put_piece(s, MARK, -2, 1);
    put_piece(s, "a", -2, 1);
    put_piece(s, "b", -3, 5); // unused
    put_piece(s, "[AB]", 0, 4);
}

static void sentencepiece_models_keep_their_piece_types(void **state)
{
    at_str s = {0};
    at_tokenizer *t;
    (void)state;

    small_spiece(&s);
    assert_int_equal(open_spiece(&s, &t), AT_OK);
    assert_int_equal(at_tokenizer_vocab_size(t), 8);
    assert_int_equal(at_tokenizer_eos(t), 1);
    assert_int_equal(at_tokenizer_pad(t), 0);
    EXPECT(t, "a", 3);
    EXPECT(t, "  a   a  ", 3, 3);
    EXPECT(t, "ab", 3, 2);        // unused: as if it were not there
    EXPECT(t, "a</s>", 3, 2);     // control pieces are not found in text
    EXPECT(t, "a[AB]a", 3, 7, 5); // user-defined ones are
    EXPECT(t, "   ", );
    at_tokenizer_release(&t);
    at_str_append_n(&s, "\x1a\x06\x18\x00\x20\x00\x28\x00",
                    8); // no prefix, blanks stay, no escaping
    assert_int_equal(open_spiece(&s, &t), AT_OK);
    EXPECT(t, "a a", 5, 2, 5);
    at_tokenizer_release(&t);
    at_str_free(&s);
}

static void byte_pieces_spell_what_is_unknown(void **state)
{
    at_str s = {0};
    at_tokenizer *t;
    char name[8];
    (void)state;

    small_spiece(&s);
    at_str_append_n(&s, "\x12\x03\x98\x02\x01", 5); // trainer_spec.byte_fallback
    assert_int_equal(open_spiece(&s, &t), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "byte 0"));
    for (unsigned b = 0; b < 256; b++) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        put_piece(&s, name, 0, 6);
    }
    assert_int_equal(open_spiece(&s, &t), AT_OK);
    EXPECT(t, "a\xe7\x8b\x90", 3, 8 + 0xe7, 8 + 0x8b, 8 + 0x90);
    at_tokenizer_release(&t);
    at_str_free(&s);
}

static void every_cut_of_a_model_is_refused_or_whole(void **state)
{
    at_str s = {0};
    (void)state;

    small_spiece(&s);
    for (size_t n = 0; n < s.len; n++) {
        at_str cut = {.data = s.data, .len = n};
        at_tokenizer *t;
        at_status st = open_spiece(&cut, &t);
        assert_true(st == AT_EFORMAT || st == AT_OK); // whole pieces may remain
        at_tokenizer_release(&t);
    }
    at_str_free(&s);
}

// --- files that lie ----------------------------------------------------------------------------------

static void broken_vocabularies_are_refused(void **state)
{
    static const struct {
        at_tokenizer_kind kind;
        const char *format, *text, *second, *words;
    } bad[] = {
        {AT_TOK_CLIP_BPE, "vocab.json", "{", "#v\n", "line 1"},
        {AT_TOK_CLIP_BPE, "vocab.json", "[]", "#v\n", "not a JSON object"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":-1}", "#v\n", "not a whole number"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":1e3}", "#v\n", "not a whole number"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":99999999999}", "#v\n", "not a whole number"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":1}", "#v\n", "no <|startoftext|>"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":1}", "#v\nab\n", "merge 1 is not two symbols"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":1}", "#v\na b c\n", "merge 1 is not two symbols"},
        {AT_TOK_CLIP_BPE, "vocab.json", "{\"a\":1}", "#v\n b\n", "merge 1 is not two symbols"},
        {AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt", "", NULL, "no merges"},
        {AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt", "#version", NULL, "no merges"},
        {AT_TOK_CLIP_BPE, "tokenizer.json", "{}", NULL, "not a JSON object of words"},
        {AT_TOK_CLIP_BPE, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}", NULL,
         "CLIP's is BPE"},
        {AT_TOK_CLIP_BPE, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[1]}}",
         NULL, "merge 1"},
        {AT_TOK_CLIP_BPE, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0}}}", NULL,
         "merges is not"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json", "{}", NULL, "T5's is Unigram"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",
         NULL, "empty"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json",
         "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", NULL, "[piece, score]"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json",
         "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",0]]}}", NULL,
         "stands twice"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json",
         "{\"model\":{\"type\":\"Unigram\",\"unk_id\":7,\"vocab\":[[\"a\",0]]}}", NULL, "unk_id"},
        {AT_TOK_T5_UNIGRAM, "tokenizer.json",
         "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", NULL, "no </s>"},
        {AT_TOK_T5_UNIGRAM, "spiece.model", "", NULL, "no unknown piece"},
        {AT_TOK_T5_UNIGRAM, "spiece.model", "\x0a", NULL, "truncated or damaged"},
        {AT_TOK_T5_UNIGRAM, "spiece.model", "\x12\x02\x18\x02", NULL, "model type 2"},
        {AT_TOK_T5_UNIGRAM, "spiece.model", "\x1a\x07\x12\x05\x04\x04\x04\x04\x04", NULL,
         "a trie of"},
    };
    size_t live = at_mem_get_stats().live_bytes;
    (void)state;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        at_tokenizer *t;
        at_status st = at_tokenizer_parse(bad[i].kind, "bad.file", bad[i].format, bad[i].text,
                                          strlen(bad[i].text), bad[i].second,
                                          bad[i].second ? strlen(bad[i].second) : 0, &t);
        if (st == AT_OK || !strstr(at_error_text(), bad[i].words) ||
            !strstr(at_error_text(), "bad.file"))
            fail_msg("%s: status %d \"%s\", wanted \"%s\"", bad[i].text, st, at_error_text(),
                     bad[i].words);
        assert_null(t);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

static void steps_that_are_not_known_are_refused(void **state)
{
    static const char *const steps[] = {
        "\"normalizer\":{\"type\":\"BertNormalizer\"},",
        "\"normalizer\":{},",
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"},",
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"},",
        "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!!\"},",
        "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"},",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},",
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"},",
        "\"added_tokens\":[{\"id\":1}],",
        "\"added_tokens\":[{\"id\":-1,\"content\":\"a\"}],",
    };
    (void)state;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        char text[2048];
        at_tokenizer *t;
        snprintf(text, sizeof text,
                 "{%s\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" VOCAB "}}", steps[i]);
        at_status st = at_tokenizer_parse(AT_TOK_T5_UNIGRAM, "bad.file", "tokenizer.json", text,
                                          strlen(text), NULL, 0, &t);
        if (st != AT_EFORMAT && st != AT_EUNSUPPORTED) fail_msg("%s: status %d", steps[i], st);
        assert_non_null(strstr(at_error_text(), "bad.file"));
    }
}

static void a_pattern_that_never_ends_gives_up(void **state)
{
    at_tokenizer *t = t5("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a+)+$\"},"
                         "\"content\":\"x\"},");
    at_ids ids = {0};
    char text[64];
    (void)state;

    memset(text, 'a', 40);
    memcpy(text + 40, "b", 2);
    assert_int_equal(at_tokenizer_encode(t, text, strlen(text), &ids), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "gave up"));
    at_ids_free(&ids);
    at_tokenizer_release(&t);
}

static void fail_each_allocation(at_tokenizer_kind kind, const char *folder)
{
    static const char text[] = "A (red) fox\xe4\xb8\x80 </s> <|endoftext|>";
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;

    for (uint64_t n = 1; hit; n += n < 64 ? 1 : n / 16) { // every one of the first, then samples
        char path[512];
        at_tokenizer *t = NULL;
        at_ids ids = {0};
        snprintf(path, sizeof path, "%s/tests/golden/%s", AT_SOURCE_DIR, folder);
        at_mem_fail_at(n, false);
        at_status st = at_tokenizer_open(kind, path, &t);
        if (st == AT_OK) st = at_tokenizer_encode(t, text, strlen(text), &ids);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        if (st != (hit ? AT_ENOMEM : AT_OK))
            fail_msg("%s, allocation %llu: status %d", folder, (unsigned long long)n, st);
        at_ids_free(&ids);
        at_tokenizer_release(&t);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

static void failed_allocations_leak_nothing(void **state)
{
    (void)state;
    fail_each_allocation(AT_TOK_CLIP_BPE, "tokens_clip");
    fail_each_allocation(AT_TOK_CLIP_BPE, "tokens_clip_json");
    fail_each_allocation(AT_TOK_T5_UNIGRAM, "tokens_t5_json");
    fail_each_allocation(AT_TOK_T5_UNIGRAM, "tokens_t5_spiece");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_texts_give_the_recorded_ids),
        cmocka_unit_test(merges_alone_define_the_ids),
        cmocka_unit_test(the_heap_merges_like_the_plain_algorithm),
        cmocka_unit_test(a_word_of_a_megabyte_takes_no_time),
        cmocka_unit_test(the_original_vocabulary_gives_the_known_ids),
        cmocka_unit_test(metaspace_prepends_as_the_file_says),
        cmocka_unit_test(normalisers_run_in_their_order),
        cmocka_unit_test(unknown_neighbours_become_one),
        cmocka_unit_test(added_tokens_take_white_space_and_keep_to_words),
        cmocka_unit_test(a_fixed_padding_length_is_reported),
        cmocka_unit_test(sentencepiece_models_keep_their_piece_types),
        cmocka_unit_test(byte_pieces_spell_what_is_unknown),
        cmocka_unit_test(every_cut_of_a_model_is_refused_or_whole),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(steps_that_are_not_known_are_refused),
        cmocka_unit_test(a_pattern_that_never_ends_gives_up),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
