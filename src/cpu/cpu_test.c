// SPDX-License-Identifier: Apache-2.0
// cpu_test.c - what tests/check does not see: the off switch, bit-exact conversions, failing
// memory, and two threads that pack one weight.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/status.h"
#include "cpu/cpu.h"

static at_view view(void *data, at_dtype t, int rank, const int64_t *shape)
{
    at_view v = {.data = data, .dtype = t, .rank = rank};
    int64_t step = 1;
    for (int d = rank - 1; d >= 0; d--) {
        v.shape[d] = shape[d];
        v.stride[d] = step;
        step *= shape[d];
    }
    return v;
}
#define VIEW(data, t, ...)                                                                         \
    view(data, t, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                       \
         (int64_t[]){__VA_ARGS__})

// Runs in a child, before anything chose a table: AT_OFF is read once.
static void switched_off_twins_leave_plain_c(void **state)
{
    int status = -1;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        bool same;
        setenv("AT_OFF", "onednn,avx2", 1);
        same = at_cpu_backend()->linear == at_cpu_reference()->linear &&
               at_cpu_backend()->attention == at_cpu_reference()->attention &&
               strstr(at_cpu_describe(), "plain C");
        _exit(same ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void every_slot_is_filled(void **state)
{
    const at_backend *b = at_cpu_backend();
    (void)state;
    assert_int_equal(b->abi, AT_BACKEND_ABI);
    assert_string_equal(b->name, "cpu");
    assert_true(b->copy && b->fill && b->unary && b->binary && b->gate_add && b->lincomb);
    assert_true(b->linear && b->attention && b->norm && b->group_norm && b->rope && b->conv2d);
    assert_true(b->embedding != NULL);
    assert_true(strlen(at_cpu_describe()) > 5);
    assert_string_equal(b->kernel_name("fill"), "plain C"); // no set overwrites it
    assert_non_null(b->kernel_name("linear"));
    assert_null(b->kernel_name("no such slot"));
}

static void convert(at_dtype from, const void *src, at_dtype to, void *dst, int64_t n)
{
    at_view s = VIEW((void *)src, from, n), d = VIEW(dst, to, n);
    assert_int_equal(at_cpu_backend()->copy(NULL, &s, &d), AT_OK);
}

// NaNs may differ in payload only where f32 itself passes through the FPU; they must stay NaN.
static void assert_same_bits(float got, float want)
{
    if (want != want) {
        assert_true(got != got);
    } else {
        assert_int_equal(at_bits_of(got), at_bits_of(want));
    }
}

static void every_small_float_widens_as_scalar(void **state)
{
    static uint16_t codes[65536];
    static uint8_t bytes[256];
    static float out[65536];

    (void)state;
    for (int i = 0; i < 65536; i++)
        codes[i] = (uint16_t)i;
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    convert(AT_F16, codes, AT_F32, out, 65536);
    for (int i = 0; i < 65536; i++)
        assert_same_bits(out[i], at_f16_to_f32((uint16_t)i));
    convert(AT_BF16, codes, AT_F32, out, 65536);
    for (int i = 0; i < 65536; i++)
        assert_same_bits(out[i], at_bf16_to_f32((uint16_t)i));
    convert(AT_F8E4M3, bytes, AT_F32, out, 256);
    for (int i = 0; i < 256; i++)
        assert_same_bits(out[i], at_f8e4m3_to_f32((uint8_t)i));
    convert(AT_F8E5M2, bytes, AT_F32, out, 256);
    for (int i = 0; i < 256; i++)
        assert_same_bits(out[i], at_f8e5m2_to_f32((uint8_t)i));
}

// A prime step through all bit patterns meets every exponent, ties, subnormals, infinities and
// NaNs.
static void floats_narrow_as_scalar(void **state)
{
    enum { N = 1 << 16, STEP = 4099 };
    static float in[N];
    static uint16_t f16[N], bf16[N];
    static uint8_t e4[N], e5[N];
    uint32_t bits = 0;

    (void)state;
    for (int round = 0; round < 16; round++) {
        for (int i = 0; i < N; i++, bits += STEP)
            in[i] = at_float_of(i % 2 ? bits : bits & 0xfff80000u); // half of them tie-prone
        convert(AT_F32, in, AT_F16, f16, N);
        convert(AT_F32, in, AT_BF16, bf16, N);
        convert(AT_F32, in, AT_F8E4M3, e4, N);
        convert(AT_F32, in, AT_F8E5M2, e5, N);
        for (int i = 0; i < N; i++) {
            assert_int_equal(f16[i], at_f32_to_f16(in[i]));
            assert_int_equal(bf16[i], at_f32_to_bf16(in[i]));
            assert_int_equal(e4[i], at_f32_to_f8e4m3(in[i]));
            assert_int_equal(e5[i], at_f32_to_f8e5m2(in[i]));
        }
    }
}

// --- failing memory -----------------------------------------------------------------------------
enum { T = 40, D = 48 };
static float g_x[T * D], g_y[T * D], g_out[T * D], g_w[D * D], g_b[D], g_conv[D * D * 9];

static at_status run_linear(void)
{
    at_linear_args a = {.x = VIEW(g_x, AT_F32, 1, T, D),
                        .out = VIEW(g_out, AT_F32, 1, T, D),
                        .w = {.v = VIEW(g_w, AT_F32, D, D), .scale = 1},
                        .bias = {.v = VIEW(g_b, AT_F32, D), .scale = 1}};
    return at_cpu_backend()->linear(NULL, &a);
}

static at_status run_attention(void)
{
    at_attention_args a = {.q = VIEW(g_x, AT_F32, 1, T, 3, 16),
                           .k = VIEW(g_y, AT_F32, 1, T, 3, 16),
                           .v = VIEW(g_y, AT_F32, 1, T, 3, 16),
                           .out = VIEW(g_out, AT_F32, 1, T, 3, 16),
                           .scale = 0.25f};
    return at_cpu_backend()->attention(NULL, &a);
}

static at_status run_norms(void)
{
    at_norm_args n = {.x = VIEW(g_x, AT_F32, 1, T, D),
                      .out = VIEW(g_out, AT_F32, 1, T, D),
                      .weight = {.v = VIEW(g_b, AT_F32, D), .scale = 1},
                      .eps = 1e-6f};
    at_group_norm_args g = {.x = n.x, .out = n.out, .groups = 8, .eps = 1e-6f, .act = AT_ACT_SILU};
    at_rope_args r = {.x = VIEW(g_x, AT_F32, 1, T, 3, 16),
                      .out = VIEW(g_out, AT_F32, 1, T, 3, 16),
                      .weight = {.v = VIEW(g_b, AT_F32, 16), .scale = 1},
                      .eps = 1e-6f};
    at_status st = at_cpu_backend()->norm(NULL, &n);
    if (st == AT_OK) st = at_cpu_backend()->group_norm(NULL, &g);
    return st == AT_OK ? at_cpu_backend()->rope(NULL, &r) : st;
}

static at_status run_conv(at_packed *packed)
{
    at_conv2d_args a = {.x = VIEW(g_x, AT_F32, 1, 8, 5, D),
                        .out = VIEW(g_out, AT_F32, 1, 8, 5, D),
                        .w = {.v = VIEW(g_conv, AT_F32, D, D, 3, 3), .scale = 1, .packed = packed},
                        .bias = {.v = VIEW(g_b, AT_F32, D), .scale = 1},
                        .stride = 1,
                        .pad_top = 1,
                        .pad_left = 1,
                        .pad_bottom = 1,
                        .pad_right = 1};
    return at_cpu_backend()->conv2d(NULL, &a);
}

static at_status run_conv_unpacked(void)
{
    return run_conv(NULL);
}

// The n-th allocation of the slot fails, for every n: a message, and no byte lost.
static void fails_cleanly(at_status (*run)(void))
{
    assert_int_equal(run(), AT_OK); // the pool and the table exist now
    for (uint64_t n = 1;; n++) {
        size_t before = at_mem_get_stats().live_bytes;
        at_status st;
        bool hit;
        at_mem_fail_at(n, false);
        st = run();
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(at_mem_get_stats().live_bytes, before);
        if (!hit) {
            assert_int_equal(st, AT_OK);
            break;
        }
        assert_int_equal(st, AT_ENOMEM);
        assert_non_null(strstr(at_error_text(), "no memory"));
    }
}

static void slots_survive_failing_memory(void **state)
{
    (void)state;
    fails_cleanly(run_linear);
    fails_cleanly(run_attention);
    fails_cleanly(run_norms);
    fails_cleanly(run_conv_unpacked);
}

// --- packing ------------------------------------------------------------------------------------
static void packed_weight_lives_until_it_is_freed(void **state)
{
    at_packed p = {0};
    size_t before = at_mem_get_stats().live_bytes;

    (void)state;
    assert_int_equal(run_conv(&p), AT_OK);
    if (atomic_load(&p.data)) {
        void *first = atomic_load(&p.data);
        assert_int_equal(run_conv(&p), AT_OK);
        assert_ptr_equal(atomic_load(&p.data), first);
        assert_non_null(p.free);
        p.free(first);
    }
    assert_int_equal(at_mem_get_stats().live_bytes, before);
}

typedef struct racer {
    at_packed *packed;
    float out[T * D];
    at_status st;
} racer;

static void *race(void *arg)
{
    racer *r = arg;
    at_conv2d_args a = {
        .x = VIEW(g_x, AT_F32, 1, 8, 5, D),
        .out = VIEW(r->out, AT_F32, 1, 8, 5, D),
        .w = {.v = VIEW(g_conv, AT_F32, D, D, 1, 1), .scale = 1, .packed = r->packed},
        .stride = 1};
    r->st = at_cpu_backend()->conv2d(NULL, &a);
    return NULL;
}

static void two_threads_pack_one_weight(void **state)
{
    size_t before = at_mem_get_stats().live_bytes;

    (void)state;
    for (int round = 0; round < 50; round++) {
        at_packed p = {0};
        static racer r[2];
        pthread_t id[2];
        for (int i = 0; i < 2; i++) {
            r[i].packed = &p;
            assert_int_equal(pthread_create(&id[i], NULL, race, &r[i]), 0);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(id[i], NULL);
            assert_int_equal(r[i].st, AT_OK);
        }
        assert_memory_equal(r[0].out, r[1].out, sizeof r[0].out);
        if (atomic_load(&p.data)) p.free(atomic_load(&p.data));
        assert_int_equal(at_mem_get_stats().live_bytes, before);
    }
}

static void fill(float *p, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (float)(i * 37 % 101) / 101.0f - 0.5f;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(switched_off_twins_leave_plain_c), // before a table is chosen
        cmocka_unit_test(every_slot_is_filled),
        cmocka_unit_test(every_small_float_widens_as_scalar),
        cmocka_unit_test(floats_narrow_as_scalar),
        cmocka_unit_test(slots_survive_failing_memory),
        cmocka_unit_test(packed_weight_lives_until_it_is_freed),
        cmocka_unit_test(two_threads_pack_one_weight),
    };
    fill(g_x, T * D);
    fill(g_y, T * D);
    fill(g_w, D * D);
    fill(g_b, D);
    fill(g_conv, D * D * 9);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
