// SPDX-License-Identifier: Apache-2.0
// encoder_test.c - text encoders on the golden models: layers, pooling, limits, failures.
#include "models/models.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"

enum { CLIP_WIDTH = 128, CLIP_EOS = 511, T5_WIDTH = 64 };

static at_encoder *clip, *t5;
static at_ops *ops;

static at_encoder *load(const char *name)
{
    char path[512];
    at_store *s = NULL;
    at_found f[1];
    at_encoder *e = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", name);
    if (at_store_open(path, &s) == AT_OK && at_detect(s, f, 1) == 1) at_encoder_load(s, f, &e);
    at_store_release(&s);
    return e;
}

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    clip = load("clip_l");
    t5 = load("t5");
    return clip && t5 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    at_encoder_release(&clip);
    at_encoder_release(&t5);
    return 0;
}

static int new_ops(void **state)
{
    (void)state;
    return at_ops_new(&(at_ops_config){.compute = AT_F32}, &ops) == AT_OK ? 0 : -1;
}

static int free_ops(void **state)
{
    (void)state;
    at_ops_free(ops);
    return 0;
}

static bool same(const at_tensor *a, const at_tensor *b)
{
    return a && b && at_tensor_bytes(a) == at_tensor_bytes(b) &&
           memcmp(at_tensor_data(a), at_tensor_data(b), at_tensor_bytes(a)) == 0;
}

static void facts_of_the_encoders_are_known(void **state)
{
    (void)state;
    assert_int_equal(at_encoder_vocab(clip), 512);
    assert_int_equal(at_encoder_width(clip), CLIP_WIDTH);
    assert_int_equal(at_encoder_max_tokens(clip), 77);
    assert_int_equal(at_encoder_vocab(t5), 256);
    assert_int_equal(at_encoder_width(t5), T5_WIDTH);
    assert_int_equal(at_encoder_max_tokens(t5), 0); // any
}

static void pooled_is_the_final_norm_at_the_first_eos(void **state)
{
    (void)state;
    int32_t ids[] = {510, 3, 4, CLIP_EOS, CLIP_EOS, CLIP_EOS};
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = 6, .eos = CLIP_EOS};
    at_encoded r = at_encoder_forward(ops, clip, &in);
    assert_non_null(r.hidden);
    assert_int_equal(r.hidden->shape[2], CLIP_WIDTH);
    assert_memory_equal(at_tensor_data(r.pooled),
                        (float *)at_tensor_data(r.hidden) + 3 * CLIP_WIDTH,
                        CLIP_WIDTH * sizeof(float));
    assert_null(r.pooled_projected); // the file has no projection
    in.eos = 300;                    // not there: the first token, as argmax over nothing gives
    r = at_encoder_forward(ops, clip, &in);
    assert_memory_equal(at_tensor_data(r.pooled), at_tensor_data(r.hidden),
                        CLIP_WIDTH * sizeof(float));
    in.eos = -1;
    assert_null(at_encoder_forward(ops, clip, &in).pooled);
}

static void pooled_does_not_depend_on_the_layer_asked_for(void **state)
{
    (void)state;
    int32_t ids[] = {510, 3, 4, CLIP_EOS};
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = 4, .eos = CLIP_EOS};
    at_encoded last = at_encoder_forward(ops, clip, &in);
    in.layer = -1;
    in.final_norm = true;
    at_encoded same_layer = at_encoder_forward(ops, clip, &in);
    in.layer = -3;
    at_encoded first = at_encoder_forward(ops, clip, &in);
    assert_true(same(last.hidden, same_layer.hidden));
    assert_false(same(last.hidden, first.hidden));
    assert_true(same(last.pooled, first.pooled));
    in.eos = -1; // without pooled the layers behind are not run, and the result is the same
    assert_true(same(first.hidden, at_encoder_forward(ops, clip, &in).hidden));
}

static void later_tokens_do_not_change_earlier_ones_in_clip(void **state)
{
    (void)state;
    int32_t a[] = {510, 3, 4, 5}, b[] = {510, 3, 4, 200};
    at_encode_in in = {.ids = a, .batch = 1, .tokens = 4, .eos = -1};
    const float *x = at_tensor_data(at_encoder_forward(ops, clip, &in).hidden);
    in.ids = b;
    const float *y = at_tensor_data(at_encoder_forward(ops, clip, &in).hidden);
    assert_memory_equal(x, y, 3 * CLIP_WIDTH * sizeof(float));
    assert_memory_not_equal(x + 3 * CLIP_WIDTH, y + 3 * CLIP_WIDTH, CLIP_WIDTH * sizeof(float));
}

static void rows_of_a_batch_do_not_see_each_other(void **state)
{
    (void)state;
    int32_t ids[] = {7, 8, 9, 1, 20, 21, 22, 1};
    at_encode_in in = {.ids = ids, .batch = 2, .tokens = 4, .eos = -1};
    const float *both = at_tensor_data(at_encoder_forward(ops, t5, &in).hidden);
    in.batch = 1;
    in.ids = ids + 4;
    const float *one = at_tensor_data(at_encoder_forward(ops, t5, &in).hidden);
    for (int i = 0; i < 4 * T5_WIDTH; i++)
        assert_true(fabsf(both[4 * T5_WIDTH + i] - one[i]) < 1e-5f);
}

static void t5_gives_its_last_layer_raw_when_asked(void **state)
{
    (void)state;
    int32_t ids[] = {7, 8, 9, 1};
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = 4, .eos = -1};
    at_tensor *last = at_encoder_forward(ops, t5, &in).hidden;
    in.layer = -1;
    at_tensor *raw = at_encoder_forward(ops, t5, &in).hidden;
    in.final_norm = true;
    at_tensor *normed = at_encoder_forward(ops, t5, &in).hidden;
    assert_false(same(last, raw));
    assert_true(same(last, normed));
}

static void what_no_encoder_can_do_is_refused(void **state)
{
    (void)state;
    int32_t ids[100] = {0};
    const at_encode_in bad[] = {
        {.ids = ids, .batch = 1, .tokens = 78, .eos = -1},
        {.ids = ids, .batch = 0, .tokens = 4, .eos = -1},
        {.ids = ids, .batch = 1, .tokens = 0, .eos = -1},
        {.ids = ids, .batch = 1, .tokens = 4, .layer = -4, .eos = -1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(at_encoder_forward(ops, clip, &bad[i]).hidden);
        assert_int_equal(at_ops_clear(ops), AT_EINVAL);
    }
    ids[2] = 512;
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = 4, .eos = -1};
    assert_null(at_encoder_forward(ops, clip, &in).hidden);
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "512"));
    ids[2] = -1;
    assert_null(at_encoder_forward(ops, t5, &in).hidden);
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
}

static void every_failed_allocation_gives_all_memory_back(void **state)
{
    (void)state;
    int32_t ids[] = {7, 8, 9, 1};
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = 4, .eos = 1};
    at_encoder_forward(ops, clip, &in); // packs weights
    at_encoder_forward(ops, t5, &in);
    size_t before = at_mem_get_stats().live_bytes;
    bool hit = true;
    for (uint64_t n = 1; hit && n < 5000; n++) {
        at_ops *o = NULL;
        at_mem_fail_at(n, false);
        at_status st = at_ops_new(&(at_ops_config){.compute = AT_F32}, &o);
        if (st == AT_OK) {
            at_encoder_forward(o, clip, &in);
            at_encoder_forward(o, t5, &in);
            st = at_ops_status(o);
        }
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        at_ops_free(o);
        assert_true(st == AT_OK || (hit && st == AT_ENOMEM));
        assert_int_equal(at_mem_get_stats().live_bytes, before);
    }
    assert_false(hit);
}

#define T(name) cmocka_unit_test_setup_teardown(name, new_ops, free_ops)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(facts_of_the_encoders_are_known),
        T(pooled_is_the_final_norm_at_the_first_eos),
        T(pooled_does_not_depend_on_the_layer_asked_for),
        T(later_tokens_do_not_change_earlier_ones_in_clip),
        T(rows_of_a_batch_do_not_see_each_other),
        T(t5_gives_its_last_layer_raw_when_asked),
        T(what_no_encoder_can_do_is_refused),
        T(every_failed_allocation_gives_all_memory_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
