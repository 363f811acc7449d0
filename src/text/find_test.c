// SPDX-License-Identifier: Apache-2.0
// find_test.c - where vocabularies are looked for, and in which order.
#include "text/find.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static char root[] = "/tmp/atelier-find-XXXXXX";

static int make_root(void **state)
{
    (void)state;
    unsetenv("ATELIER_SHARE");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    assert_int_equal(at_make_dirs(path), AT_OK);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

// A vocabulary of `merges` merges: its size tells which one was found.
static void put_clip(const char *folder, int merges)
{
    char text[256] = "#version\n";

    for (int i = 0; i < merges; i++)
        snprintf(text + strlen(text), 8, "%c b\n", 'c' + i);
    put(folder, "bpe_simple_vocab_16e6.txt", text);
}

static int64_t found(at_tokenizer_kind kind)
{
    char model[128], models[128];
    const char *dirs[1] = {models};
    at_tokenizer *t;
    int64_t n;

    snprintf(model, sizeof model, "%s/comfy_root/models/clip/flux.v1.safetensors", root);
    snprintf(models, sizeof models, "%s/comfy_root/models", root);
    if (at_tokenizer_find(kind, model, dirs, 1, &t) != AT_OK) return -1;
    n = at_tokenizer_vocab_size(t);
    at_tokenizer_release(&t);
    return n;
}

static void what_is_nowhere_is_reported_with_every_place(void **state)
{
    static const char *const places[] = {
        "models/clip/flux.v1",        "models/clip/flux.v1/t5",  "models/clip\n",
        "models/clip/tokenizer_2",    "models/tokenizers/t5xxl", "comfy/text_encoders/t5_tokenizer",
        "share/atelier/tokenizers/t5"};
    (void)state;

    put("comfy_root/models/clip", "flux.v1.safetensors", "");
    assert_int_equal(found(AT_TOK_T5_UNIGRAM), -1);
    assert_non_null(strstr(at_error_text(), "tokenizer.json or spiece.model"));
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strstr(at_error_text(), places[i]))
            fail_msg("%s is not in: %s", places[i], at_error_text());
}

// Set-up may have put a vocabulary where this program looks last: ours lie nearer.
static void nearer_places_win(void **state)
{
    static const char *const places[] = {// farthest first
                                         "share/tokenizers/clip",
                                         "comfy_root/comfy/sd1_tokenizer",
                                         "comfy_root/models/tokenizers/clip_l",
                                         "comfy_root/models/tokenizers/clip",
                                         "comfy_root/models/tokenizers",
                                         "comfy_root/models/clip/tokenizer",
                                         "comfy_root/models/clip",
                                         "comfy_root/models/clip/flux.v1/clip",
                                         "comfy_root/models/clip/flux.v1"};
    char share[128];
    (void)state;

    snprintf(share, sizeof share, "%s/share", root);
    setenv("ATELIER_SHARE", share, 1);
    for (int i = 0; i < 9; i++) {
        put_clip(places[i], i + 1);
        assert_int_equal(found(AT_TOK_CLIP_BPE), 512 + i + 1 + 2);
    }
    unsetenv("ATELIER_SHARE");
}

static void a_vocabulary_of_the_other_kind_is_passed_by(void **state)
{
    (void)state;
    put("comfy_root/models/clip", "tokenizer.json", "{\"model\":{\"type\":\"BPE\"}}");
    put("comfy_root/comfy/text_encoders/t5_tokenizer", "tokenizer.json",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"</s>\",0],[\"<unk>\",0]]}}");
    assert_int_equal(found(AT_TOK_T5_UNIGRAM), 2);
}

static void a_broken_vocabulary_is_an_error_and_not_a_detour(void **state)
{
    (void)state;
    put("comfy_root/models/clip/flux.v1/t5", "tokenizer.json", "{");
    assert_int_equal(found(AT_TOK_T5_UNIGRAM), -1);
    assert_non_null(strstr(at_error_text(), "flux.v1/t5/tokenizer.json"));
}

static void failed_allocations_leak_nothing(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    const char *dirs[1] = {root};
    bool hit = true;
    (void)state;

    for (uint64_t n = 1; hit; n++) {
        at_tokenizer *t;
        at_mem_fail_at(n, false);
        at_status st = at_tokenizer_find(AT_TOK_T5_UNIGRAM, "/nowhere/m.safetensors", dirs, 1, &t);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_true(st == AT_ENOTFOUND ||
                    (hit && st == AT_ENOMEM)); // the list of places may be cut
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_nowhere_is_reported_with_every_place),
        cmocka_unit_test(nearer_places_win),
        cmocka_unit_test(a_vocabulary_of_the_other_kind_is_passed_by),
        cmocka_unit_test(a_broken_vocabulary_is_an_error_and_not_a_detour),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
