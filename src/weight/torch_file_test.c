// SPDX-License-Identifier: Apache-2.0
// torch_file_test.c - files of torch.save against what torch says is in them, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/pickle.h"
#include "weight/store.h"

#define FILES AT_SOURCE_DIR "/tests/golden/torch_files/"

static at_status open_file(const char *name, at_store **out)
{
    char path[512];

    snprintf(path, sizeof path, FILES "%s", name);
    return at_store_open(path, out);
}

static void assert_same(const at_weight *got, const at_weight *want)
{
    assert_int_equal(got->dtype, want->dtype);
    assert_int_equal(got->rank, want->rank);
    assert_memory_equal(got->shape, want->shape, sizeof got->shape);
    assert_int_equal(got->bytes, want->bytes);
    if (want->bytes) assert_memory_equal(got->data, want->data, want->bytes);
}

// expected.safetensors: "FILE|TENSOR"
static void every_tensor_is_what_torch_saved(void **state)
{
    static const struct {
        const char *name;
        size_t tensors;
    } files[] = {
        {"zip.ckpt", 15}, {"older.ckpt", 15}, {"only.pth", 2}, {"embedding.pt", 1}, {"hyper.pt", 2},
    };
    at_store *want = NULL;
    (void)state;

    assert_int_equal(open_file("expected.safetensors", &want), AT_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        at_store *got = NULL;
        if (open_file(files[i].name, &got) != AT_OK) fail_msg("%s", at_error_text());
        assert_int_equal(at_store_count(got), files[i].tensors);
        for (size_t k = 0; k < at_store_count(got); k++) {
            const at_weight *w = at_store_at(got, k);
            const at_weight *e = at_store_findf(want, "%s|%s", files[i].name, w->name);
            if (!e) fail_msg("%s: %s is not expected", files[i].name, w->name);
            assert_same(w, e);
        }
        at_store_release(&got);
    }
    at_store_release(&want);
}

static void plain_tensors_of_an_archive_are_mapped_and_views_copied(void **state)
{
    at_store *s = NULL;
    (void)state;

    assert_int_equal(open_file("zip.ckpt", &s), AT_OK);
    assert_true(at_store_find(s, "plain")->mapped);
    assert_true(at_store_find(s, "row")->mapped);
    assert_false(at_store_find(s, "turned")->mapped);
    assert_ptr_equal(at_store_find(s, "tail")->data,
                     (const char *)at_store_find(s, "ids")->data + 7 * 8);
    at_store_release(&s);
}

static void numbers_and_texts_are_metadata(void **state)
{
    at_store *s = NULL;
    (void)state;

    assert_int_equal(open_file("hyper.pt", &s), AT_OK);
    assert_string_equal(at_store_metadata(s, "activation_func"), "relu");
    assert_string_equal(at_store_metadata(s, "is_layer_norm"), "True");
    assert_string_equal(at_store_metadata(s, "layer_structure.1"), "2");
    assert_null(at_store_metadata(s, "nothing"));
    at_store_release(&s);
}

static void what_is_no_plain_data_is_refused_by_name(void **state)
{
    static const struct {
        const char *file, *says;
        at_status st;
    } cases[] = {
        {"call.pt", "__builtin__.print", AT_EUNSUPPORTED},
        {"plain.pkl", "not one of torch.save", AT_EUNSUPPORTED},
        {"other.zip", "no data.pkl", AT_EUNSUPPORTED},
        {"packed.zip", "compressed", AT_EUNSUPPORTED},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_store *s = NULL;
        assert_int_equal(open_file(cases[i].file, &s), cases[i].st);
        if (!strstr(at_error_text(), cases[i].says))
            fail_msg("\"%s\" lacks \"%s\"", at_error_text(), cases[i].says);
        assert_null(s);
    }
}

// Small programs for the machine that no torch wrote.
static void bad_pickles_are_refused(void **state)
{
#define P(text) text, sizeof text - 1
    static const struct {
        const char *text;
        size_t n;
        const char *says;
    } cases[] = {
        {P(""), "empty"},
        {P("\x80\x02"), "cut short"},
        {P("\x80\x02."), "stack is empty"},
        {P("\x80\x02}("), "cut short"},
        {P("\x80\x02}(K\x01u."), "half a pair"},
        {P("\x80\x02K\x01K\x02s."), "nothing to put"},
        {P("\x80\x02h\x05."), "never filled"},
        {P("\x80\x02Nr\xff\xff\xff\x7f."), "memo slot out of range"},
        {P("\x80\x02X\xff\xff\xff\xff."), "cut short"},
        {P("\x80\x02"
           "cos\nsystem\nX\x02\0\0\0ls\x85R."),
         "os.system"},
        {P("\x80\x02"
           "cnt\nsystem\n."),
         "nt.system"},
        {P("\x80\x02"
           "ctorch.storage\n_load_from_bytes\n."),
         "_load_from_bytes"},
        {P("\x80\x02"
           "ctorch._utils\n_rebuild_tensor_v2\n)R."),
         "no storage"},
        {P("\x80\x02K\x01)R."), "cannot be called"},
        {P("\x80\x02K\x01Q."), "persistent id"},
        {P("\x80\x02i"), "opcode 0x69"},
        {P("\x80\x02X\x01\0\0\0\xff."), "not UTF-8"},
        {P("\x80\x02"
           "1."),
         "no mark"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_pickle p;
        assert_int_not_equal(at_pickle_read("m.pt", cases[i].text, cases[i].n, &p), AT_OK);
        if (!strstr(at_error_text(), cases[i].says))
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, at_error_text(), cases[i].says);
    }
}

static void no_memory_is_a_status_and_leaks_nothing(void **state)
{
    static const char *const files[] = {"zip.ckpt", "older.ckpt"};
    (void)state;

    for (size_t i = 0; i < 2; i++) {
        bool hit = true;
        for (uint64_t n = 1; hit; n++) {
            at_store *s = NULL;
            size_t before = at_mem_get_stats().live_blocks;
            at_mem_fail_at(n, true);
            at_status st = open_file(files[i], &s);
            hit = at_mem_fault_hit();
            at_mem_fail_at(0, false);
            assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
            at_store_release(&s);
            assert_int_equal(at_mem_get_stats().live_blocks, before);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_is_what_torch_saved),
        cmocka_unit_test(plain_tensors_of_an_archive_are_mapped_and_views_copied),
        cmocka_unit_test(numbers_and_texts_are_metadata),
        cmocka_unit_test(what_is_no_plain_data_is_refused_by_name),
        cmocka_unit_test(bad_pickles_are_refused),
        cmocka_unit_test(no_memory_is_a_status_and_leaks_nothing),
    };
    return cmocka_run_group_tests_name("weight.torch_file", tests, NULL, NULL);
}
