// SPDX-License-Identifier: Apache-2.0
// cuda_needs_test.c - what the slots say that they take, for arguments of the models' shapes on a chip of sm_90.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cuda/cuda.h"

enum { MIB = 1 << 20 };
static const at_cublaslt lt;
static const at_cudnn dnn;
static at_cuda g = {.capability = 90, .lt = &lt, .dnn = &dnn};
static at_packed slots[4];
static char data;

at_view at_cuda_view(void *p, at_dtype dtype, int rank, const int64_t *shape)
{
    at_view v = {.data = p, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        v.shape[i] = shape[i];
        v.stride[i] = stride;
        stride *= shape[i];
    }
    return v;
}

size_t at_k_group_norm_scratch(int64_t batch, int64_t pixels, int64_t channels, int groups)
{
    return (size_t)(batch * pixels * channels * 0 + groups * 8);
}

static at_view view(at_dtype t, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return at_cuda_view(&data, t, rank, (int64_t[]){a, b, c, d});
}

static at_wview weight(int slot, at_view v)
{
    return (at_wview){.v = v, .scale = 1, .packed = &slots[slot]};
}

static at_needs ask(at_needs_of slot, const void *args)
{
    at_needs n;
    at_cuda_needs(&g.dev, slot, args, &n);
    return n;
}

// Flux.1's second product of a single block.
static at_linear_args product(void)
{
    return (at_linear_args){.x = view(AT_BF16, 3, 1, 4608, 3072, 0),
                            .out = view(AT_BF16, 3, 1, 4608, 9216, 0),
                            .w = weight(0, view(AT_BF16, 2, 9216, 3072, 0, 0)),
                            .bias = weight(1, view(AT_BF16, 1, 9216, 0, 0, 0))};
}

static void products_borrow_what_epilogues_cannot_do(void **state)
{
    (void)state;
    at_linear_args a = product();
    const size_t out = (size_t)4608 * 9216 * 2, w = (size_t)9216 * 3072;
    at_needs n = ask(AT_NEEDS_LINEAR, &a);
    assert_int_equal(n.scratch, 0);
    assert_int_equal(n.n, 2);
    assert_ptr_equal(n.forms[0].of, &slots[0]);
    assert_int_equal(n.forms[0].bytes, 2 * w);
    assert_int_equal(n.forms[1].bytes, 2 * 9216);
    a.act = AT_ACT_GELU_TANH;
    assert_int_equal(ask(AT_NEEDS_LINEAR, &a).scratch, 0);
    a.act = AT_ACT_SILU;
    assert_int_equal(ask(AT_NEEDS_LINEAR, &a).scratch, out);
    a = product();
    a.gate = view(AT_BF16, 2, 1, 9216, 0, 0);
    assert_int_equal(ask(AT_NEEDS_LINEAR, &a).scratch, out);
    a = product();
    a.w.packed = NULL; // a part of a weight: a form for the call
    assert_int_equal(ask(AT_NEEDS_LINEAR, &a).scratch, 2 * w);
}

static void products_in_fp8_keep_bytes_and_scales(void **state)
{
    (void)state;
    at_linear_args a = product();
    const size_t w = (size_t)9216 * 3072, x = (size_t)4608 * 3072;
    a.fp8 = true;
    at_needs n = ask(AT_NEEDS_LINEAR, &a);
    assert_int_equal(n.forms[0].bytes, w + 4 * 9216);
    assert_int_equal(n.scratch, x + 4 * 4608);
    a.x.dtype = AT_F8E4M3;
    a.x_scale = view(AT_F32, 1, 4608, 0, 0, 0);
    assert_int_equal(ask(AT_NEEDS_LINEAR, &a).scratch, 0);
    g.capability = 80; // multiplies in floats
    n = ask(AT_NEEDS_LINEAR, &a);
    g.capability = 90;
    assert_int_equal(n.forms[0].bytes, 2 * w);
    assert_int_equal(n.scratch, 2 * x);
}

static void joined_weights_are_one_form(void **state)
{
    (void)state;
    at_linear_args a = product();
    at_wview more[2] = {weight(2, a.w.v), weight(3, a.w.v)};
    a.bias.v.data = NULL;
    a.more = more;
    a.n_more = 2;
    at_needs n = ask(AT_NEEDS_LINEAR, &a);
    assert_int_equal(n.n, 3); // the others are used, and take nothing
    size_t all = 0;
    for (int i = 0; i < n.n; i++)
        all += n.forms[i].bytes;
    assert_int_equal(all, (size_t)3 * 9216 * 3072 * 2);
    at_geglu_args e = {.x = view(AT_F16, 3, 2, 4096, 640, 0),
                       .out = view(AT_F16, 3, 2, 4096, 2560, 0),
                       .w = weight(0, view(AT_F16, 2, 5120, 640, 0, 0)),
                       .bias = weight(1, view(AT_F16, 1, 5120, 0, 0, 0))};
    assert_int_equal(ask(AT_NEEDS_GEGLU, &e).scratch, (size_t)2 * 4096 * 5120 * 2);
}

static void convolutions(void **state)
{
    (void)state;
    at_conv2d_args a = {.x = view(AT_BF16, 4, 1, 512, 512, 512),
                        .out = view(AT_BF16, 4, 1, 512, 512, 512),
                        .w = weight(0, view(AT_F32, 4, 512, 512, 3, 3)),
                        .bias = weight(1, view(AT_F32, 1, 512, 0, 0, 0)),
                        .stride = 1,
                        .pad_top = 1,
                        .pad_left = 1,
                        .pad_bottom = 1,
                        .pad_right = 1};
    at_needs n = ask(AT_NEEDS_CONV2D, &a);
    assert_int_equal(n.scratch, 0);
    assert_int_equal(n.forms[0].bytes, 512 * 512 * 9 * 2); // of an f32 file
    a.upsample2x = true;
    a.out = view(AT_BF16, 4, 1, 1024, 1024, 512);
    n = ask(AT_NEEDS_CONV2D, &a);
    assert_int_equal(n.scratch, 0);
    assert_int_equal(n.forms[0].bytes, 512 * 512 * 16 * 2); // filters of their own
    g.dnn = NULL;
    assert_true(ask(AT_NEEDS_CONV2D, &a).scratch >= (size_t)1024 * 1024 * 512 * 2);
    g.dnn = &dnn;
    a.upsample2x = false;
    a.out = view(AT_BF16, 4, 1, 512, 512, 512);
    a.residual = a.out; // the library cannot write over its residual
    assert_int_equal(ask(AT_NEEDS_CONV2D, &a).scratch, (size_t)512 * 512 * 512 * 2);
}

static void attention(void **state)
{
    (void)state;
    at_view q = view(AT_BF16, 4, 1, 4608, 24, 128);
    at_attention_args a = {.q = q, .k = q, .v = q, .out = q};
    assert_int_equal(ask(AT_NEEDS_ATTENTION, &a).scratch, 0);
    a.fp8 = true;
    assert_int_equal(ask(AT_NEEDS_ATTENTION, &a).scratch, (size_t)4 * 4608 * 24 * 128);
    at_view wide = view(AT_BF16, 4, 1, 16384, 1, 512); // a VAE's
    a = (at_attention_args){.q = wide, .k = wide, .v = wide, .out = wide};
    assert_int_equal(ask(AT_NEEDS_ATTENTION, &a).scratch, 256 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_borrow_what_epilogues_cannot_do),
        cmocka_unit_test(products_in_fp8_keep_bytes_and_scales),
        cmocka_unit_test(joined_weights_are_one_form),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
