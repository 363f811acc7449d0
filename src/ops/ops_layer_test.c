// SPDX-License-Identifier: Apache-2.0
// ops_layer_test.c - the doors with weights: results against plain loops, and refusals that name the
// weight and both shapes.
#include "ops/ops.h"

#include "base/half.h"
#include "ops/ops_testing.h"

static void linear_multiplies_adds_and_gates(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(2, 3, 4)), *residual = random_tensor(&b, SHAPE(2, 3, 5));
    at_tensor *gate = random_tensor(&b, SHAPE(2, 5));
    at_weight *w = random_weight(&b, SHAPE(5, 4)), *bias = random_weight(&b, SHAPE(5));
    at_linear_extra extra = {.act = AT_ACT_RELU, .residual = residual, .gate = gate};
    const float *vw = w->data, *vb = bias->data;
    float *vx = values_of(x), *vr = values_of(residual), *vg = values_of(gate);
    double want[30];

    (void)state;
    for (int i = 0; i < 30; i++) {
        double sum = vb[i % 5];

        for (int k = 0; k < 4; k++)
            sum += (double)vx[i / 5 * 4 + k] * vw[i % 5 * 4 + k];
        want[i] = (sum > 0 ? sum : 0) * vg[i / 15 * 5 + i % 5] + vr[i];
    }
    assert_near(at_linear(b.o, x, w, bias, &extra), want, 30, 1e-5);
    assert_shape(at_linear(b.o, at_reshape(b.o, x, SHAPE(6, 4)), w, NULL, NULL), SHAPE(6, 5));
    assert_shape(at_linear(b.o,
                           at_permute(b.o, random_tensor(&b, SHAPE(2, 4, 3)), (int[]){0, 2, 1}), w,
                           NULL, NULL),
                 SHAPE(2, 3, 5)); // features are not contiguous
    at_free(vx);
    at_free(vr);
    at_free(vg);
    bench_close(&b);
}

static void linear_gives_the_compute_dtype(void **state)
{
    bench b = bench_on(NULL, AT_BF16);
    at_tensor *x = random_tensor(&b, SHAPE(1, 2, 4));

    (void)state;
    assert_int_equal(at_linear(b.o, x, random_weight(&b, SHAPE(3, 4)), NULL, NULL)->dtype, AT_BF16);
    assert_int_equal(at_norm(b.o, x, &(at_norm_spec){.eps = 1e-6f})->dtype, AT_F32);
    bench_close(&b);
}

static void linear_rows_are_rows_of_the_whole(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 3, 8)), *whole, *part;
    at_weight *w = random_weight(&b, SHAPE(10, 8)), *bias = random_weight(&b, SHAPE(10));
    float *v;
    double want[12];

    (void)state;
    whole = at_linear(b.o, x, w, bias, NULL);
    v = values_of(at_narrow(b.o, whole, 2, 5, 4));
    for (int i = 0; i < 12; i++)
        want[i] = v[i];
    at_free(v);
    part = at_linear_rows(b.o, x, w, bias, 5, 4, NULL);
    assert_near(part, want, 12, 1e-5);
    REFUSED(&b, at_linear_rows(b.o, x, w, bias, 8, 4, NULL), AT_EINVAL, w->name, "[10, 8]");
    REFUSED(&b, at_linear_rows(b.o, x, w, bias, -1, 4, NULL), AT_EINVAL, "rows");
    REFUSED(&b, at_linear_rows(b.o, x, w, bias, 0, -1, NULL), AT_EINVAL, "rows");
    bench_close(&b);
}

// With the backend's slot and without it.
static void geglu_multiplies_the_value_by_the_gate(void **state)
{
    at_backend bare = *at_cpu_backend();
    at_device other = *at_device_cpu();

    (void)state;
    bare.geglu = NULL;
    other.backend = &bare;
    for (int pass = 0; pass < 2; pass++) {
        bench b = bench_on(pass ? &other : NULL, AT_F32);
        at_tensor *x = random_tensor(&b, SHAPE(1, 3, 4));
        at_weight *w = random_weight(&b, SHAPE(10, 4)), *bias = random_weight(&b, SHAPE(10));
        const float *vw = w->data, *vb = bias->data;
        float *vx = values_of(x);
        double want[15];

        for (int i = 0; i < 15; i++) {
            double v[2];
            for (int half = 0; half < 2; half++) {
                int row = half * 5 + i % 5;
                v[half] = vb[row];
                for (int k = 0; k < 4; k++)
                    v[half] += (double)vx[i / 5 * 4 + k] * vw[row * 4 + k];
            }
            want[i] = v[0] * 0.5 * v[1] * (1 + erf(v[1] / sqrt(2.0)));
        }
        assert_near(at_geglu(b.o, x, w, bias, AT_ACT_GELU_ERF), want, 15, 1e-5);
        REFUSED(&b, at_geglu(b.o, x, random_weight(&b, SHAPE(5, 4)), NULL, AT_ACT_GELU_ERF),
                AT_EINVAL, "geglu", "even number", "f32 [5, 4]");
        at_free(vx);
        bench_close(&b);
    }
}

// Wide layers may be rounded to 127 steps, narrow ones never are.
static void int8_is_near_and_spares_narrow_layers(void **state)
{
    enum { M = 48, K = 128, N = 64, FEW = 8 };
    bench b = bench_open();
    at_ops_config config = {.compute = AT_F32, .int8 = true};
    at_tensor *x = random_tensor(&b, SHAPE(1, M, K));
    at_weight *w = random_weight(&b, SHAPE(N, K)), *few = random_weight(&b, SHAPE(FEW, K));
    double want[M * N];
    at_ops *o;

    (void)state;
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    float *exact = values_of(at_linear(b.o, x, w, NULL, NULL));
    for (int i = 0; i < M * N; i++)
        want[i] = exact[i];
    // A step is 1/127 on both sides, the mean square of x and w is 1/3: six deviations of 128 products,
    // 6 * sqrt(128 * 2 / (127 * 127 * 3 * 12)).
    assert_near(at_linear(o, x, w, NULL, NULL), want, M * N, 0.13);
    at_free(exact);
    exact = values_of(at_linear(b.o, x, few, NULL, NULL));
    float *same = values_of(at_linear(o, x, few, NULL, NULL));
    assert_memory_equal(same, exact, M * FEW * sizeof *same);
    at_free(same);
    at_free(exact);
    at_ops_free(o);
    bench_close(&b);
}

// Both results are the columns of the whole layer; only the rest is activated, into a given view.
static void a_split_linear_is_one_layer(void **state)
{
    enum { M = 5, K = 12, N = 9, CUT = 4 };
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, M, K));
    at_weight *w = random_weight(&b, SHAPE(N, K)), *bias = random_weight(&b, SHAPE(N));
    at_tensor *wide = at_zeros(b.o, AT_F32, SHAPE(1, M, 3 + N - CUT));
    at_tensor *rest = at_narrow(b.o, wide, 2, 3, N - CUT);
    double first[M * CUT], second[M * (N - CUT)];

    (void)state;
    float *whole = values_of(at_linear(b.o, x, w, bias, NULL));
    for (int i = 0; i < M * N; i++) {
        double v = whole[i];
        if (i % N < CUT)
            first[i / N * CUT + i % N] = v;
        else
            second[i / N * (N - CUT) + i % N - CUT] = v > 0 ? v : 0;
    }
    at_tensor *out = at_linear_split(b.o, x, w, bias, CUT, AT_ACT_RELU, rest);
    assert_shape(out, SHAPE(1, M, CUT));
    assert_near(at_contiguous(b.o, out), first, M * CUT, 1e-6);
    assert_near(at_contiguous(b.o, rest), second, M * (N - CUT), 1e-6);
    // The same in two halves.
    at_binary(at_into(b.o, rest), AT_SUB, rest, rest, AT_ACT_NONE);
    out = at_linear_first(b.o, x, w, bias, CUT, AT_ACT_RELU, rest);
    at_linear_rest(b.o, x, w, bias, CUT, AT_ACT_RELU, rest);
    assert_near(at_contiguous(b.o, out), first, M * CUT, 1e-6);
    assert_near(at_contiguous(b.o, rest), second, M * (N - CUT), 1e-6);
    REFUSED(&b, at_linear_split(b.o, x, w, bias, N, AT_ACT_RELU, rest), AT_EINVAL, "split at 9");
    REFUSED(&b, at_linear_split(b.o, x, w, bias, 3, AT_ACT_RELU, rest), AT_EINVAL, "the rest",
            "f32 [1, 5, 6]");
    REFUSED(&b, at_linear_split(b.o, rest, w, bias, CUT, AT_ACT_RELU, rest), AT_EINVAL, w->name);
    at_free(whole);
    bench_close(&b);
}

// Layers side by side and a gated unit of two weights are what the single layers give.
static void weights_apart_give_the_same(void **state)
{
    enum { M = 5, K = 12, N1 = 4, N2 = 6 };
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, M, K));
    const at_weight *w[] = {random_weight(&b, SHAPE(N1, K)), random_weight(&b, SHAPE(N2, K))};
    const at_weight *odd[] = {w[0], random_weight(&b, SHAPE(N2, K + 1))};
    const at_weight *gate = random_weight(&b, SHAPE(N1, K));
    double both[M * (N1 + N2)], gated[M * N1];

    (void)state;
    float *one = values_of(at_linear(b.o, x, w[0], NULL, NULL));
    float *two = values_of(at_linear(b.o, x, w[1], NULL, NULL));
    float *g = values_of(at_linear(b.o, x, gate, NULL, &(at_linear_extra){.act = AT_ACT_RELU}));
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N1; j++) {
            both[i * (N1 + N2) + j] = one[i * N1 + j];
            gated[i * N1 + j] = (double)one[i * N1 + j] * g[i * N1 + j];
        }
        for (int j = 0; j < N2; j++)
            both[i * (N1 + N2) + N1 + j] = two[i * N2 + j];
    }
    assert_near(at_linear_beside(b.o, x, 2, w), both, M * (N1 + N2), 1e-6);
    assert_near(at_geglu_apart(b.o, x, w[0], gate, AT_ACT_RELU), gated, M * N1, 1e-5);
    REFUSED(&b, at_linear_beside(b.o, x, 2, odd), AT_EINVAL, "does not fit", odd[1]->name);
    REFUSED(&b, at_linear_beside(b.o, x, 0, w), AT_EINVAL, "0 layers");
    at_free(one);
    at_free(two);
    at_free(g);
    bench_close(&b);
}

// A backend of the CPU's slots that takes fp8 rows: the norm's are noted and made of nothing but a mark.
static at_norm_args seen_norm;
static at_linear_args seen_linear;
static at_status mark_norm(void *stream, const at_norm_args *a)
{
    (void)stream;
    seen_norm = *a;
    return AT_OK;
}
static at_status mark_linear(void *stream, const at_linear_args *a)
{
    (void)stream;
    seen_linear = *a;
    return AT_OK;
}
static bool takes_rows(void *stream, int64_t n, int64_t k)
{
    (void)stream;
    return n % 16 == 0 && k % 16 == 0;
}

// Between a norm and the layer that reads it fp8 rows carry their scales; nobody else takes them.
static void fp8_rows_go_from_norm_to_linear_alone(void **state)
{
    bench b = bench_open();
    at_backend marks = *at_cpu_backend();
    at_device *cpu = at_device_cpu();
    const at_backend *real = cpu->backend;
    at_ops_config config = {.compute = AT_F32, .fp8 = true};
    at_tensor *x = random_tensor(&b, SHAPE(1, 40, 256)), *few = random_tensor(&b, SHAPE(1, 4, 256));
    at_weight *w = random_weight(&b, SHAPE(512, 256)), *odd = random_weight(&b, SHAPE(300, 256));
    at_norm_spec spec = {.eps = 1e-6f, .then = w}, narrow = {.eps = 1e-6f, .then = odd};
    at_ops *o;

    (void)state;
    marks.norm = mark_norm;
    marks.linear = mark_linear;
    marks.fp8_rows = takes_rows;
    cpu->backend = &marks;
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    at_tensor *y = at_norm(o, x, &spec);
    assert_non_null(y);
    assert_int_equal(y->dtype, AT_F8E4M3);
    assert_ptr_equal(seen_norm.out_scale.data, at_tensor_data(y->row_scale));
    assert_int_equal(at_tensor_count(y->row_scale), 40);
    assert_non_null(at_linear(o, y, w, NULL, NULL));
    assert_true(seen_linear.fp8);
    assert_ptr_equal(seen_linear.x_scale.data, seen_norm.out_scale.data);
    assert_null(at_norm(o, few, &spec)->row_scale); // too few rows to gain
    assert_null(at_norm(o, x, &narrow)->row_scale); // the backend does not
    assert_null(at_norm(b.o, x, &spec)->row_scale); // nor these ops
    assert_non_null(at_linear(o, x, w, NULL, &(at_linear_extra){.precise = true}));
    assert_false(seen_linear.fp8);
    assert_null(at_add(o, y, y));
    assert_int_equal(at_ops_status(o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "fp8 rows"));
    at_ops_free(o);
    cpu->backend = real;
    bench_close(&b);
}

// Twelve uniform values make a normal one of deviation 1.
static void normals(bench *b, float *out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = -6;
        for (int k = 0; k < 12; k++)
            out[i] += at_mt_f32(&b->rng);
    }
}

// A row as fp8 rows hold it.
static void to_row8(const float *from, int k, double *to)
{
    float most = 1e-30f;
    for (int i = 0; i < k; i++)
        most = fmaxf(most, fabsf(from[i]));
    for (int i = 0; i < k; i++)
        to[i] = (double)at_f8e4m3_to_f32(at_f32_to_f8e4m3(from[i] * (448 / most))) *
                (double)(most / 448);
}

// What fp8 costs a layer of normal values, in numbers: both sides are rounded to 4 bits, each by 2.7 % of itself
// (2^-4 / sqrt(3), less what the mantissa is above 1), so the sums by 3.8 %. A scale a row keeps a token of
// thousandfold size from costing the others anything.
static void fp8_rows_cost_a_layer_four_percent(void **state)
{
    enum { M = 24, K = 1024, N = 40, LOUD = 5 };
    bench b = bench_open();
    float *x = at_alloc(sizeof(float[M * K])), *w = at_alloc(sizeof(float[N * K]));
    double *x8 = at_alloc(sizeof(double[M * K])), *w8 = at_alloc(sizeof(double[N * K]));

    (void)state;
    normals(&b, x, M * K);
    normals(&b, w, N * K);
    for (int i = 0; i < K; i++)
        x[LOUD * K + i] *= 1000;
    for (int m = 0; m < M; m++)
        to_row8(x + m * K, K, x8 + m * K);
    for (int n = 0; n < N; n++)
        to_row8(w + n * K, K, w8 + n * K);
    for (int m = 0; m < M; m++) {
        double far = 0, size = 0;
        for (int n = 0; n < N; n++) {
            double exact = 0, rounded = 0;
            for (int k = 0; k < K; k++) {
                exact += (double)x[m * K + k] * (double)w[n * K + k];
                rounded += x8[m * K + k] * w8[n * K + k];
            }
            far += (exact - rounded) * (exact - rounded);
            size += exact * exact;
        }
        assert_true(sqrt(far / size) > 0.02 && sqrt(far / size) < 0.06);
    }
    at_free(x);
    at_free(w);
    at_free(x8);
    at_free(w8);
    bench_close(&b);
}

static void linear_refusals_name_weight_and_shapes(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 3, 8)), *small = random_tensor(&b, SHAPE(1, 3, 4));
    at_weight *w = random_weight(&b, SHAPE(10, 7)), *good = random_weight(&b, SHAPE(4, 8));
    at_weight *cube = random_weight(&b, SHAPE(4, 8, 2)),
              *one = random_weight(&b, SHAPE(4, 8, 1, 1));
    at_weight bare = *good;

    (void)state;
    REFUSED(&b, at_linear(b.o, x, w, NULL, NULL), AT_EINVAL, "linear", w->name, "f32 [1, 3, 8]",
            "f32 [10, 7]");
    REFUSED(&b, at_linear(b.o, x, NULL, NULL, NULL), AT_EINVAL, "w is missing");
    REFUSED(&b, at_linear(b.o, x, cube, NULL, NULL), AT_EINVAL, "not a matrix", cube->name);
    assert_shape(at_linear(b.o, x, one, NULL, NULL), SHAPE(1, 3, 4)); // a 1x1 convolution's weight
    REFUSED(&b, at_linear(b.o, x, good, w, NULL), AT_EINVAL, "bias", w->name, "4 elements");
    REFUSED(&b, at_linear(b.o, x, good, NULL, &(at_linear_extra){.residual = x}), AT_EINVAL,
            "residual f32 [1, 3, 8]", "[1, 3, 4]");
    REFUSED(&b, at_linear(b.o, x, good, NULL, &(at_linear_extra){.gate = small}), AT_EINVAL,
            "gate");
    REFUSED(&b, at_linear(b.o, at_reshape(b.o, x, SHAPE(1, 1, 3, 8)), good, NULL, NULL), AT_EINVAL,
            "[1, 1, 3, 8]");
    bare.data = NULL;
    REFUSED(&b, at_linear(b.o, x, &bare, NULL, NULL), AT_EUNSUPPORTED, "shape without bytes");
    bench_close(&b);
}

static void norms_scale_and_modulate(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(2, 3, 4)), *scale = random_tensor(&b, SHAPE(1, 4));
    at_tensor *shift = random_tensor(&b, SHAPE(2, 4));
    at_weight *w = random_weight(&b, SHAPE(4));
    at_norm_spec spec = {.weight = w, .mod_scale = scale, .mod_shift = shift, .eps = 1e-5f};
    float *vx = values_of(x), *vs = values_of(scale), *vt = values_of(shift);

    (void)state;
    for (int rms = 0; rms < 2; rms++) {
        double want[24];

        spec.rms = rms;
        for (int r = 0; r < 6; r++) {
            double mean = 0, sq = 0;

            for (int i = 0; i < 4 && !rms; i++)
                mean += vx[r * 4 + i] / 4.0;
            for (int i = 0; i < 4; i++)
                sq += pow(vx[r * 4 + i] - mean, 2) / 4;
            for (int i = 0; i < 4; i++) {
                double y = (vx[r * 4 + i] - mean) / sqrt(sq + 1e-5) * ((const float *)w->data)[i];

                want[r * 4 + i] = y * (1 + (double)vs[i]) + vt[r / 3 * 4 + i];
            }
        }
        assert_near(at_norm(b.o, x, &spec), want, 24, 1e-5);
    }
    at_free(vx);
    at_free(vs);
    at_free(vt);
    assert_shape(at_norm(b.o, at_reshape(b.o, x, SHAPE(6, 4)), &(at_norm_spec){.weight = w}),
                 SHAPE(6, 4));
    spec.mod_scale = at_narrow(b.o, scale, 1, 0, 3);
    REFUSED(&b, at_norm(b.o, x, &spec), AT_EINVAL, "norm", "mod_scale f32 [1, 3]", "[2 or 1, 4]");
    spec = (at_norm_spec){.bias = random_weight(&b, SHAPE(5))};
    REFUSED(&b, at_norm(b.o, x, &spec), AT_EINVAL, "bias", spec.bias->name, "4 elements");
    bench_close(&b);
}

static void group_norm_takes_images_and_refuses_odd_groups(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 2, 2, 4)), *wide, *part, *y;
    at_tensor *bad_add = random_tensor(&b, SHAPE(1, 3));
    at_weight *w = random_weight(&b, SHAPE(4)), *bias = random_weight(&b, SHAPE(4));
    float *vx = values_of(x);
    double want[16];

    (void)state;
    for (int g = 0; g < 2; g++) {
        double mean = 0, sq = 0;

        for (int i = 0; i < 16; i++)
            mean += i % 4 / 2 == g ? vx[i] / 8.0 : 0;
        for (int i = 0; i < 16; i++)
            sq += i % 4 / 2 == g ? pow(vx[i] - mean, 2) / 8 : 0;
        for (int i = 0; i < 16; i++) {
            double y2 = (vx[i] - mean) / sqrt(sq + 1e-6) * ((const float *)w->data)[i % 4] +
                        ((const float *)bias->data)[i % 4];

            if (i % 4 / 2 == g) want[i] = y2 > 0 ? y2 : 0;
        }
    }
    at_free(vx);
    assert_near(at_group_norm(b.o, x, w, bias, 2, 1e-6f, AT_ACT_RELU), want, 16, 1e-5);
    // A vector added first, one for all samples: the same as adding it before.
    at_tensor *add = random_tensor(&b, SHAPE(1, 4));
    vx = values_of(at_group_norm(b.o, at_add(b.o, x, at_reshape(b.o, add, SHAPE(1, 1, 1, 4))), w,
                                 bias, 2, 1e-6f, AT_ACT_RELU));
    for (int i = 0; i < 16; i++)
        want[i] = vx[i];
    at_free(vx);
    assert_near(at_add_group_norm(b.o, x, add, w, bias, 2, 1e-6f, AT_ACT_RELU), want, 16, 1e-5);
    REFUSED(&b, at_add_group_norm(b.o, x, bad_add, w, bias, 2, 1e-6f, AT_ACT_NONE), AT_EINVAL,
            "add");
    // A part of a wider image: rows of pixels do not follow each other.
    wide = random_tensor(&b, SHAPE(1, 3, 4, 4));
    part = at_narrow(b.o, wide, 2, 1, 2);
    y = at_group_norm(b.o, part, w, bias, 2, 1e-6f, AT_ACT_NONE);
    vx = values_of(at_group_norm(b.o, at_contiguous(b.o, part), w, bias, 2, 1e-6f, AT_ACT_NONE));
    for (int i = 0; i < 16; i++)
        want[i] = vx[i];
    at_free(vx);
    assert_near(at_narrow(b.o, y, 1, 0, 2), want, 16, 0);
    REFUSED(&b, at_group_norm(b.o, x, w, bias, 3, 1e-6f, AT_ACT_NONE), AT_EINVAL, "3 groups",
            "[1, 2, 2, 4]", w->name);
    REFUSED(&b, at_group_norm(b.o, x, w, bias, 0, 1e-6f, AT_ACT_NONE), AT_EINVAL, "0 groups");
    bench_close(&b);
}

static void rope_rotates_neighbours_or_halves(void **state)
{
    bench b = bench_open();
    const float ids[3] = {0, 1, 5};
    at_rope_table table = at_rope_make(b.o, 3, 1, (int[]){4}, ids, 100);
    at_tensor *x = random_tensor(&b, SHAPE(1, 3, 2, 4));
    float *v = values_of(x);

    (void)state;
    for (int halves = 0; halves < 2; halves++) {
        double want[24];

        for (int i = 0; i < 24; i++) {
            int j = i % 4, pair = halves ? j % 2 : j / 2, first = halves ? j < 2 : j % 2 == 0;
            double a = ids[i / 8] * pow(100, -pair / 2.0);
            double other = v[i + (halves ? (first ? 2 : -2) : (first ? 1 : -1))];

            want[i] = v[i] * cos(a) + (first ? -other : other) * sin(a);
        }
        assert_near(at_rope(b.o, x, NULL, 1e-6f, &table, halves), want, 24, 1e-6);
    }
    at_free(v);
    assert_shape(at_rope(b.o, x, random_weight(&b, SHAPE(4)), 1e-6f, NULL, false),
                 SHAPE(1, 3, 2, 4)); // norm only
    x = random_tensor(&b, SHAPE(1, 4, 2, 4));
    REFUSED(&b, at_rope(b.o, x, NULL, 0, &table, false), AT_EINVAL, "rope", "cos f32 [3, 2]",
            "[1, 4, 2, 4]");
    table.sin = NULL;
    REFUSED(&b, at_rope(b.o, random_tensor(&b, SHAPE(1, 3, 2, 4)), NULL, 0, &table, false),
            AT_EINVAL, "sin is missing");
    REFUSED(&b, at_rope(b.o, x, random_weight(&b, SHAPE(3)), 0, NULL, false), AT_EINVAL,
            "4 elements");
    bench_close(&b);
}

static void several_ropes_in_place_are_as_one_after_the_other(void **state)
{
    (void)state;
    bench b = bench_open();
    float ids[] = {0, 1, 2, 3, 4};
    at_rope_table table = at_rope_make(b.o, 5, 1, (int[]){4}, ids, 100);
    at_rope_table early = {at_narrow(b.o, table.cos, 0, 0, 2), at_narrow(b.o, table.sin, 0, 0, 2)};
    at_rope_table late = {at_narrow(b.o, table.cos, 0, 2, 3), at_narrow(b.o, table.sin, 0, 2, 3)};
    at_tensor *whole = random_tensor(&b, SHAPE(2, 5, 3, 4));
    at_tensor *head = at_narrow(b.o, whole, 1, 0, 2), *tail = at_narrow(b.o, whole, 1, 2, 3);
    at_weight *w = random_weight(&b, SHAPE(4));
    double want[2][72];
    float *a = values_of(at_contiguous(b.o, at_rope(b.o, head, w, 1e-6f, &early, false)));
    float *c = values_of(at_contiguous(b.o, at_rope(b.o, tail, NULL, 1e-6f, &late, false)));

    for (int i = 0; i < 72; i++) {
        want[0][i] = i < 48 ? a[i] : 0;
        want[1][i] = c[i];
    }
    at_rope_all(b.o, 2, (at_rope_job[]){{head, w, &early}, {tail, NULL, &late}}, 1e-6f, false);
    assert_near(head, want[0], 48, 0);
    assert_near(tail, want[1], 72, 0);
    at_free(a);
    at_free(c);
    at_rope_all(b.o, 5, (at_rope_job[]){{head, w, &early}}, 1e-6f, false);
    assert_int_equal(at_ops_clear(b.o), AT_EINVAL);
    at_rope_all(b.o, 2, (at_rope_job[]){{head, w, &early}, {tail, w, &early}}, 1e-6f, false);
    assert_int_equal(at_ops_clear(b.o), AT_EINVAL);
    bench_close(&b);
}

static void conv_strides_pads_and_upsamples(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 5, 4, 3)), *residual;
    at_weight *w = random_weight(&b, SHAPE(2, 3, 3, 3)), *bias = random_weight(&b, SHAPE(2));
    at_conv_spec spec = {.stride = 2, .pad_bottom = 1, .pad_right = 1, .act = AT_ACT_RELU};
    const float *vw = w->data, *vb = bias->data;
    float *vx = values_of(x), *vr;
    double want[8];

    (void)state;
    residual = random_tensor(&b, SHAPE(1, 2, 2, 2));
    vr = values_of(residual);
    spec.residual = residual;
    for (int i = 0; i < 8; i++) {
        int oy = i / 4, ox = i / 2 % 2, oc = i % 2;
        double sum = vb[oc];

        for (int k = 0; k < 27; k++) {
            int c = k / 9, y = oy * 2 + k / 3 % 3, xx = ox * 2 + k % 3;

            if (y < 5 && xx < 4) sum += (double)vx[(y * 4 + xx) * 3 + c] * vw[oc * 27 + k];
        }
        want[i] = (sum > 0 ? sum : 0) + vr[i];
    }
    assert_near(at_conv2d(b.o, x, w, bias, &spec), want, 8, 1e-5);
    at_free(vx);
    at_free(vr);
    spec = (at_conv_spec){
        .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .upsample2x = true};
    assert_shape(at_conv2d(b.o, x, w, NULL, &spec), SHAPE(1, 10, 8, 2));
    assert_shape(at_conv2d(b.o, x, w, NULL, NULL), SHAPE(1, 3, 2, 2));
    bench_close(&b);
}

static void conv_refusals_name_weight_and_shapes(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 5, 2, 3));
    at_weight *w = random_weight(&b, SHAPE(2, 3, 3, 3)),
              *four = random_weight(&b, SHAPE(2, 4, 3, 3));
    at_conv_spec spec = {.pad_left = 1};

    (void)state;
    REFUSED(&b, at_conv2d(b.o, x, four, NULL, NULL), AT_EINVAL, "conv2d", four->name,
            "[1, 5, 2, 3]", "[2, 4, 3, 3]");
    REFUSED(&b, at_conv2d(b.o, x, w, NULL, NULL), AT_EINVAL, "too small", w->name);
    spec.residual = x;
    REFUSED(&b, at_conv2d(b.o, x, w, NULL, &spec), AT_EINVAL, "residual", "[1, 3, 1, 2]");
    spec = (at_conv_spec){.pad_left = 5, .pad_right = -1};
    REFUSED(&b, at_conv2d(b.o, x, w, NULL, &spec), AT_EINVAL, "padding");
    spec = (at_conv_spec){.pad_left = 5, .stride = -1};
    REFUSED(&b, at_conv2d(b.o, x, w, NULL, &spec), AT_EINVAL, "stride -1");
    bench_close(&b);
}

static void embedding_checks_every_id(void **state)
{
    bench b = bench_open();
    at_weight *table = weight_of(&b, (float[]){0, 1, 10, 11, 20, 21}, SHAPE(3, 2));
    at_tensor *t = at_embedding(b.o, table, (int32_t[]){2, 0, 2}, 3);

    (void)state;
    assert_shape(t, SHAPE(1, 3, 2));
    assert_near(t, (double[]){20, 21, 0, 1, 20, 21}, 6, 0);
    assert_shape(at_embedding(b.o, table, NULL, 0), SHAPE(1, 0, 2));
    REFUSED(&b, at_embedding(b.o, table, (int32_t[]){0, 3}, 2), AT_EINVAL, "id 3 at position 1",
            table->name);
    REFUSED(&b, at_embedding(b.o, table, (int32_t[]){-1}, 1), AT_EINVAL, "id -1");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_multiplies_adds_and_gates),
        cmocka_unit_test(linear_gives_the_compute_dtype),
        cmocka_unit_test(linear_rows_are_rows_of_the_whole),
        cmocka_unit_test(geglu_multiplies_the_value_by_the_gate),
        cmocka_unit_test(int8_is_near_and_spares_narrow_layers),
        cmocka_unit_test(a_split_linear_is_one_layer),
        cmocka_unit_test(weights_apart_give_the_same),
        cmocka_unit_test(fp8_rows_go_from_norm_to_linear_alone),
        cmocka_unit_test(fp8_rows_cost_a_layer_four_percent),
        cmocka_unit_test(linear_refusals_name_weight_and_shapes),
        cmocka_unit_test(norms_scale_and_modulate),
        cmocka_unit_test(group_norm_takes_images_and_refuses_odd_groups),
        cmocka_unit_test(rope_rotates_neighbours_or_halves),
        cmocka_unit_test(several_ropes_in_place_are_as_one_after_the_other),
        cmocka_unit_test(conv_strides_pads_and_upsamples),
        cmocka_unit_test(conv_refusals_name_weight_and_shapes),
        cmocka_unit_test(embedding_checks_every_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
