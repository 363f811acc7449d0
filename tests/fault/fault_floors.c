// SPDX-License-Identifier: Apache-2.0
// fault_floors.c - base, tensor, weight and ops with each allocation, read and write refused in turn.
// Idea: one small story per floor, told again and again with one more fault; see fault.h for what must
// hold after each.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

#include "base/arena.h"
#include "base/str.h"
#include "base/thread.h"
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "weight/safetensors.h"

static char g_dir[64], g_model[96], g_copy[96];

// --- base ------------------------------------------------------------------------------------
static at_status base_story(void *ctx)
{
    at_status st = AT_OK;
    at_arena *arena = at_arena_new(64);
    at_mailbox *box = NULL;
    at_str s = {0};
    at_list files = {0};
    char *joined = NULL, *taken = NULL;

    (void)ctx;
    if (!arena || !at_arena_alloc(arena, 5000) || !at_arena_printf(arena, "%d", 7)) {
        AT_TRY(at_fail(AT_ENOMEM, "arena"));
    }
    AT_TRY(at_mailbox_new(16, 4, &box));
    for (int i = 0; i < 100; i++)
        at_str_printf(&s, "%d,", i);
    taken = at_str_take(&s);
    if (!taken) AT_TRY(at_fail(AT_ENOMEM, "string"));
    AT_TRY(at_path_join_safe(g_dir, "x/y", &joined));
    AT_TRY(at_list_files(g_dir, true, 100, &files));
out:
    at_list_free(&files);
    at_free(joined);
    at_free(taken);
    at_str_free(&s);
    at_mailbox_free(box);
    at_arena_free(arena);
    return st;
}

// --- files -----------------------------------------------------------------------------------
static at_status file_story(void *ctx)
{
    at_status st = AT_OK;
    at_atomic_file *f = NULL;
    at_map map = {0};
    char *text = NULL;

    (void)ctx;
    AT_TRY(at_atomic_open(g_copy, &f));
    AT_TRY(at_atomic_write(f, "some bytes", 10));
    AT_TRY(at_atomic_commit(&f));
    AT_TRY(at_file_read(g_copy, 100, &text, NULL));
    AT_TRY(at_map_open(g_copy, &map));
out:
    at_map_close(&map);
    at_free(text);
    at_atomic_abort(&f);
    return st;
}

// --- tensor ----------------------------------------------------------------------------------
static at_status tensor_story(void *ctx)
{
    const float values[6] = {1, 2, 3, 4, 5, 6};
    at_status st = AT_OK;
    at_tensor *t = NULL, *part = NULL, *turned = NULL, *wrapped = NULL;
    float back[6];

    (void)ctx;
    AT_TRY(at_tensor_from_host(at_device_cpu(), AT_F32, 2, (int64_t[]){2, 3}, values, &t));
    AT_TRY(at_tensor_narrow(t, 1, 1, 2, &part));
    AT_TRY(at_tensor_permute(part, (int[]){1, 0}, &turned));
    AT_TRY(at_tensor_to_host(turned, AT_F32, back, 4 * sizeof *back));
    AT_TRY(at_tensor_wrap(back, AT_F32, 1, (int64_t[]){4}, NULL, NULL, &wrapped));
out:
    at_tensor_release(&wrapped);
    at_tensor_release(&turned);
    at_tensor_release(&part);
    at_tensor_release(&t);
    return st;
}

// --- weight ----------------------------------------------------------------------------------
static at_status write_model(const char *path)
{
    static const float w[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const at_st_pair meta = {"format", "pt"};
    const at_st_out rows[] = {{"lin.weight", AT_F32, 2, {3, 4}, w},
                              {"lin.bias", AT_F32, 1, {3}, w}};

    return at_st_write(path, rows, 2, &meta, 1);
}

static at_status write_story(void *ctx)
{
    (void)ctx;
    return write_model(g_copy);
}

static void fill_ones(void *ctx, void *bytes, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n / 4; i++)
        ((float *)bytes)[i] = 1;
}

static at_status store_story(void *ctx)
{
    at_status st = AT_OK;
    at_store *s = NULL, *made = NULL;
    float v[12];

    (void)ctx;
    AT_TRY(at_store_open(g_model, &s));
    if (!at_store_find(s, "lin.weight")) AT_TRY(at_fail(AT_EINTERNAL, "lin.weight is gone"));
    at_weight_read_f32(at_store_find(s, "lin.weight"), 0, 12, v);
    AT_TRY(at_store_new("made", &made));
    AT_TRY(at_store_add(made, "a", AT_F32, 1, (int64_t[]){5}, fill_ones, NULL));
    AT_TRY(at_store_add_shape(made, "b", AT_BF16, 2, (int64_t[]){5, 6}));
out:
    at_store_release(&made);
    at_store_release(&s);
    return st;
}

// --- ops -------------------------------------------------------------------------------------
static at_tensor *every_door(at_ops *o, at_store *s)
{
    const float row[4] = {1, 2, 3, 4};
    const at_weight *w = at_store_find(s, "lin.weight"), *bias = at_store_find(s, "lin.bias");
    at_tensor *x = at_from_host(o, AT_F32, 3, (int64_t[]){1, 1, 4}, row), *y, *q;
    at_rope_table table = at_rope_make(o, 1, 1, (int[]){4}, row, 10000);

    at_scope_begin(o);
    x = at_norm(o, x, &(at_norm_spec){.eps = 1e-6f});
    x = at_gate_add(o, x, x, at_reshape(o, x, 2, (int64_t[]){1, 4}));
    q = at_reshape(o, x, 4, (int64_t[]){1, 1, 1, 4});
    q = at_rope(o, q, NULL, 0, &table, false);
    x = at_attention(o, q, q, q, NULL, 0, false);
    x = at_concat(o, 1, 2, (const at_tensor *[]){x, at_unary(o, x, AT_ACT_SILU)});
    x = at_affine(o, at_contiguous(o, at_narrow(o, x, 1, 1, 1)), 2, 1);
    x = at_lincomb(o, 2, row, (const at_tensor *[]){x, x});
    y = at_linear(o, x, w, bias, &(at_linear_extra){.act = AT_ACT_GELU_ERF});
    y = at_add(o, at_cast(o, y, AT_BF16), at_weight_tensor(o, bias, AT_F32));
    y = at_scope_end(o, y);
    at_embedding(o, w, (int32_t[]){0, 2}, 2);
    at_timestep_embedding(o, row, 2, 8, 10000, true);
    q = at_zeros(o, AT_F32, 4, (int64_t[]){1, 2, 2, 4});
    at_group_norm(o, q, NULL, NULL, 2, 1e-5f, AT_ACT_SILU);
    return y;
}

static at_status ops_story(void *ctx)
{
    at_ops_config config = {.compute = AT_F32};
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_tensor *kept = NULL;
    float out[3];

    AT_TRY(at_ops_new(&config, &o));
    kept = at_ops_keep(o, every_door(o, ctx));
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_to_host(kept, AT_F32, out, sizeof out));
out:
    at_ops_free(o);
    at_tensor_release(&kept);
    return st;
}

// --- the tests -------------------------------------------------------------------------------
static void told_with_every_allocation_refused(at_fault_fn *fn, void *ctx, uint64_t least)
{
    assert_true(at_fault_memory(fn, ctx, false) >= least);
    assert_true(at_fault_memory(fn, ctx, true) >= least);
}

static void base_survives_every_failed_allocation(void **state)
{
    (void)state;
    told_with_every_allocation_refused(base_story, NULL, 10);
}

static void files_survive_every_failed_allocation_and_io(void **state)
{
    (void)state;
    told_with_every_allocation_refused(file_story, NULL, 4);
    assert_true(at_fault_io(file_story, NULL) >= 8);
    assert_true(at_fault_io(base_story, NULL) >= 1);
}

static void tensors_survive_every_failed_allocation(void **state)
{
    (void)state;
    told_with_every_allocation_refused(tensor_story, NULL, 7);
}

static void weights_survive_every_failed_allocation_and_io(void **state)
{
    (void)state;
    told_with_every_allocation_refused(store_story, NULL, 5);
    told_with_every_allocation_refused(write_story, NULL, 2);
    assert_true(at_fault_io(store_story, NULL) >= 1);
    assert_true(at_fault_io(write_story, NULL) >= 4);
}

static void ops_survive_every_failed_allocation(void **state)
{
    at_store *s = NULL;

    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    assert_int_equal(at_store_open(g_model, &s), AT_OK);
    told_with_every_allocation_refused(ops_story, s, 60);
    at_store_release(&s);
}

// The fast kernels keep packed weights in the store, so each run begins with a fresh one.
static at_status fresh_ops_story(void *ctx)
{
    at_status st = AT_OK;
    at_store *s = NULL;

    (void)ctx;
    AT_TRY(at_store_open(g_model, &s));
    AT_TRY(ops_story(s));
out:
    at_store_release(&s);
    return st;
}

static void fast_kernels_survive_every_failed_allocation(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    told_with_every_allocation_refused(fresh_ops_story, NULL, 60);
}

// An ended ops can go on: after a failure is cleared, the same forward works.
static void a_cleared_failure_leaves_working_ops(void **state)
{
    at_ops_config config = {.compute = AT_F32};
    at_ops *o = NULL;
    at_store *s = NULL;

    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    assert_int_equal(at_store_open(g_model, &s), AT_OK);
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    for (uint64_t n = 1; n < 60; n += 7) {
        at_scope_begin(o);
        at_mem_fail_at(n, false);
        assert_null(every_door(o, s));
        at_mem_fail_at(0, false);
        assert_int_equal(at_ops_clear(o), AT_ENOMEM);
        assert_non_null(every_door(o, s));
        assert_int_equal(at_ops_status(o), AT_OK);
        at_scope_end(o, NULL);
    }
    at_ops_free(o);
    at_store_release(&s);
}

static int make_files(void **state)
{
    (void)state;
    strcpy(g_dir, "/tmp/at_fault_XXXXXX");
    if (!mkdtemp(g_dir)) return 1;
    snprintf(g_model, sizeof g_model, "%s/model.safetensors", g_dir);
    snprintf(g_copy, sizeof g_copy, "%s/copy", g_dir);
    return write_model(g_model) == AT_OK ? 0 : 1;
}

static int drop_files(void **state)
{
    (void)state;
    unlink(g_model);
    unlink(g_copy);
    return rmdir(g_dir); // fails if a temporary was left behind
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_survives_every_failed_allocation),
        cmocka_unit_test(files_survive_every_failed_allocation_and_io),
        cmocka_unit_test(tensors_survive_every_failed_allocation),
        cmocka_unit_test(weights_survive_every_failed_allocation_and_io),
        cmocka_unit_test(ops_survive_every_failed_allocation),
        cmocka_unit_test(fast_kernels_survive_every_failed_allocation),
        cmocka_unit_test(a_cleared_failure_leaves_working_ops),
    };

    return cmocka_run_group_tests(tests, make_files, drop_files);
}
