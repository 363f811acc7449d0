// SPDX-License-Identifier: Apache-2.0
// ops_attention_test.c - the attention door on one rank: scale, masks, strided inputs, refusals.
// Several ranks are proven in tests/par.
#include "ops/ops.h"

#include "ops/ops_testing.h"

// Plain attention of contiguous [1, t, h, d] values in double; bias [h, tq, tk] or NULL.
static void plain(const float *q, const float *k, const float *v, const float *bias, int tq, int tk,
                  int h, int d, double scale, int causal, double *out)
{
    for (int r = 0; r < tq * h; r++) {
        int i = r / h, head = r % h;
        double p[16], sum = 0;

        for (int j = 0; j < tk; j++) {
            double s = 0;

            for (int c = 0; c < d; c++) {
                s += (double)q[(i * h + head) * d + c] * k[(j * h + head) * d + c];
            }
            s = s * scale + (bias ? bias[(head * tq + i) * tk + j] : 0);
            p[j] = causal && j > i + tk - tq ? 0 : exp(s);
            sum += p[j];
        }
        for (int c = 0; c < d; c++) {
            double y = 0;

            for (int j = 0; j < tk; j++)
                y += p[j] / sum * v[(j * h + head) * d + c];
            out[(i * h + head) * d + c] = y;
        }
    }
}

static void results_are_those_of_plain_softmax(void **state)
{
    bench b = bench_open();
    at_tensor *q = random_tensor(&b, SHAPE(1, 4, 2, 8)), *k = random_tensor(&b, SHAPE(1, 6, 2, 8));
    at_tensor *v = random_tensor(&b, SHAPE(1, 6, 2, 8)),
              *bias = random_tensor(&b, SHAPE(1, 2, 4, 6));
    at_tensor *out = at_attention(b.o, q, k, v, NULL, 0, false);
    float *vq = values_of(q), *vk = values_of(k), *vv = values_of(v), *vb = values_of(bias);
    double want[64];

    (void)state;
    assert_shape(out, SHAPE(1, 4, 16));
    plain(vq, vk, vv, NULL, 4, 6, 2, 8, 1 / sqrt(8), 0, want);
    assert_near(out, want, 64, 1e-5);
    plain(vq, vk, vv, vb, 4, 6, 2, 8, 1, 1, want);
    assert_near(at_attention(b.o, q, k, v, bias, 1, true), want, 64, 1e-5);
    at_free(vq);
    at_free(vk);
    at_free(vv);
    at_free(vb);
    bench_close(&b);
}

static void parts_of_one_qkv_are_read_in_place(void **state)
{
    bench b = bench_open();
    at_tensor *qkv = random_tensor(&b, SHAPE(2, 5, 48)), *part[3], *copy[3];
    size_t live;
    float *v;
    double want[160];

    (void)state;
    for (int i = 0; i < 3; i++) {
        part[i] = at_reshape(b.o, at_narrow(b.o, qkv, 2, i * 16, 16), SHAPE(2, 5, 2, 8));
        copy[i] = at_contiguous(b.o, part[i]);
    }
    v = values_of(at_attention(b.o, copy[0], copy[1], copy[2], NULL, 0, false));
    for (int i = 0; i < 160; i++)
        want[i] = v[i];
    at_free(v);
    live = at_device_cpu()->live_bytes;
    assert_near(at_attention(b.o, part[0], part[1], part[2], NULL, 0, false), want, 160, 0);
    assert_int_equal(at_device_cpu()->live_bytes - live, 160 * sizeof(float)); // only the result
    bench_close(&b);
}

static void refusals_name_all_shapes(void **state)
{
    bench b = bench_open();
    at_tensor *q = random_tensor(&b, SHAPE(1, 4, 2, 8)), *k = random_tensor(&b, SHAPE(1, 6, 2, 8));
    at_tensor *other = random_tensor(&b, SHAPE(1, 6, 4, 4)),
              *bias = random_tensor(&b, SHAPE(1, 2, 6, 4));

    (void)state;
    REFUSED(&b, at_attention(b.o, q, other, other, NULL, 0, false), AT_EINVAL, "attention",
            "q f32 [1, 4, 2, 8]", "k f32 [1, 6, 4, 4]");
    REFUSED(&b, at_attention(b.o, q, k, other, NULL, 0, false), AT_EINVAL, "v f32 [1, 6, 4, 4]");
    REFUSED(&b, at_attention(b.o, q, k, k, bias, 0, false), AT_EINVAL, "bias f32 [1, 2, 6, 4]");
    REFUSED(&b, at_attention(b.o, at_reshape(b.o, q, SHAPE(1, 4, 16)), k, k, NULL, 0, false),
            AT_EINVAL, "[1, 4, 16]");
    bench_close(&b);
}

static void no_tokens_give_no_rows(void **state)
{
    bench b = bench_open();
    at_tensor *none = at_empty(b.o, AT_F32, SHAPE(1, 0, 2, 8)),
              *k = random_tensor(&b, SHAPE(1, 3, 2, 8));

    (void)state;
    assert_shape(at_attention(b.o, none, k, k, NULL, 0, false), SHAPE(1, 0, 16));
    bench_close(&b);
}

// --- turns -----------------------------------------------------------------------------------------
static int g_turns; // that reached the slot

// The CPU's attention as a device that rotates on the way.
static at_status turning_attention(void *stream, const at_attention_args *a)
{
    at_status st = AT_OK;
    at_attention_args rest = *a;

    g_turns = a->n_turns;
    for (int i = 0; i < a->n_turns && st == AT_OK; i++)
        st = at_cpu_backend()->rope(stream, &a->turns[i]);
    rest.n_turns = 0;
    return st == AT_OK ? at_cpu_backend()->attention(stream, &rest) : st;
}

// q and k of one buffer turned and attended over, the result into part of a wider one.
static void attend_turned(at_ops *o, const float *values, bool at_once, float out[40])
{
    at_tensor *qkv = at_from_host(o, AT_F32, SHAPE(1, 5, 24), values), *q, *k, *v, *wide, *into;
    float ids[5] = {0, 1, 2, 3, 4};
    at_rope_table table = at_rope_make(o, 5, 1, (int[]){8}, ids, 100.0);

    q = at_reshape(o, at_narrow(o, qkv, 2, 0, 8), SHAPE(1, 5, 1, 8));
    k = at_reshape(o, at_narrow(o, qkv, 2, 8, 8), SHAPE(1, 5, 1, 8));
    v = at_reshape(o, at_narrow(o, qkv, 2, 16, 8), SHAPE(1, 5, 1, 8));
    wide = at_zeros(o, AT_F32, SHAPE(1, 5, 12));
    into = at_narrow(o, wide, 2, 2, 8);
    at_rope_job jobs[] = {{q, NULL, &table}, {k, NULL, &table}};
    if (at_once) {
        at_attention_turned(at_into(o, into), 2, jobs, 1e-6f, false, q, k, v, NULL);
    } else {
        at_rope_all(o, 2, jobs, 1e-6f, false);
        at_attention(at_into(o, into), q, k, v, NULL, 0, false);
    }
    assert_int_equal(at_ops_status(o), AT_OK);
    float *got = values_of(into);
    memcpy(out, got, 40 * sizeof *out);
    at_free(got);
}

static void turns_before_attention_are_the_same_on_any_device(void **state)
{
    bench b = bench_open();
    at_backend turning = *at_cpu_backend();
    float values[120], want[40], got[40];
    at_ops *o = NULL;
    at_ops_config config = {.compute = AT_F32, .fp8 = true};

    (void)state;
    for (int i = 0; i < 120; i++)
        values[i] = 2 * at_mt_f32(&b.rng) - 1;
    attend_turned(b.o, values, false, want);
    attend_turned(b.o, values, true, got);
    assert_memory_equal(got, want, sizeof want);
    turning.turns = true;
    turning.attention = turning_attention;
    at_device_set_cpu_backend(&turning, "turning");
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    attend_turned(o, values, true, got);
    assert_int_equal(g_turns, 2);
    assert_memory_equal(got, want, sizeof want);
    at_ops_free(o);
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    bench_close(&b);
}

static at_attention_args g_seen;

static at_status seeing_attention(void *stream, const at_attention_args *a)
{
    (void)stream;
    g_seen = *a;
    return AT_OK;
}

static bool takes_rows(void *stream, int64_t n, int64_t k)
{
    (void)stream;
    return n % 256 == 0 && k % 256 == 0;
}

// q, k and v [b, 40, 2, 128] through at_attention_turned with these layers behind it.
static at_tensor *before_layers(at_ops *o, int64_t b, const at_weight *then)
{
    at_tensor *t[3];
    for (int i = 0; i < 3; i++)
        t[i] = at_zeros(o, AT_F32, SHAPE(b, 40, 2, 128));
    at_rope_job jobs[] = {{t[0], NULL, NULL}, {t[1], NULL, NULL}};
    return at_attention_turned(o, 2, jobs, 1e-6f, false, t[0], t[1], t[2], then);
}

static void a_result_for_layers_in_fp8_comes_as_their_rows(void **state)
{
    bench b = bench_open();
    at_backend turning = *at_cpu_backend();
    at_ops *o = NULL;
    at_ops_config config = {.compute = AT_F32, .fp8 = true};
    at_weight *then = random_weight(&b, SHAPE(256, 256)), *odd = random_weight(&b, SHAPE(300, 256));

    (void)state;
    turning.turns = true;
    turning.attention = seeing_attention;
    turning.fp8_rows = takes_rows;
    at_device_set_cpu_backend(&turning, "turning");
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    at_tensor *y = before_layers(o, 1, then), *part = at_narrow(o, y, 1, 7, 30);
    assert_non_null(part);
    assert_int_equal(g_seen.out.dtype, AT_F8E4M3);
    assert_ptr_equal(g_seen.out.data, at_tensor_data(y));
    assert_ptr_equal(g_seen.out_scale.data, at_tensor_data(y->row_scale));
    assert_int_equal(at_tensor_count(part->row_scale), 30);
    assert_ptr_equal(at_tensor_data(part->row_scale), (float *)at_tensor_data(y->row_scale) + 7);
    assert_ptr_equal(at_tensor_data(part), (char *)at_tensor_data(y) + 7 * 256);
    assert_null(before_layers(o, 2, then)->row_scale); // two samples: parts would have gaps
    assert_null(before_layers(o, 1, odd)->row_scale);  // the backend does not
    assert_null(before_layers(o, 1, NULL)->row_scale);
    assert_int_equal(at_ops_status(o), AT_OK);
    assert_null(at_narrow(o, y, 2, 0, 8)); // not whole rows
    assert_int_equal(at_ops_status(o), AT_EINVAL);
    at_ops_free(o);
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_those_of_plain_softmax),
        cmocka_unit_test(parts_of_one_qkv_are_read_in_place),
        cmocka_unit_test(refusals_name_all_shapes),
        cmocka_unit_test(no_tokens_give_no_rows),
        cmocka_unit_test(turns_before_attention_are_the_same_on_any_device),
        cmocka_unit_test(a_result_for_layers_in_fp8_comes_as_their_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
