// SPDX-License-Identifier: Apache-2.0
// svd_test.c - truncated decompositions: what is recovered, torch's singular values, ComfyUI's
// clamp.
#include "weight/svd.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/thread.h"

static void fill(float *v, int64_t n, unsigned seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
}

static at_matrix filled(int64_t rows, int64_t cols, unsigned seed)
{
    at_matrix m = {0};

    assert_int_equal(at_matrix_new(rows, cols, &m), AT_OK);
    fill(m.v, rows * cols, seed);
    return m;
}

static at_matrix product(const at_matrix *a, const at_matrix *b)
{
    at_matrix m = {0};

    assert_int_equal(at_matrix_mul(a, b, &m), AT_OK);
    return m;
}

// ||a - b|| / ||b||
static double distance(const at_matrix *a, const at_matrix *b)
{
    double d = 0, n = 0;

    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    for (int64_t i = 0; i < a->rows * a->cols; i++) {
        double x = (double)a->v[i] - (double)b->v[i];
        d += x * x;
        n += (double)b->v[i] * (double)b->v[i];
    }
    return sqrt(d / n);
}

static void assert_orthonormal(const at_matrix *vt)
{
    for (int64_t i = 0; i < vt->rows; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t c = 0; c < vt->cols; c++)
                sum += (double)vt->v[i * vt->cols + c] * (double)vt->v[j * vt->cols + c];
            assert_true(fabs(sum - (i == j)) < 1e-6);
        }
}

static void a_product_of_low_rank_comes_back(void **state)
{
    static const struct {
        int64_t rows, cols, made, asked;
        float size;
    } cases[] = {{12, 9, 3, 3, 1},       {9, 12, 3, 3, 1},   {200, 120, 4, 4, 1},
                 {120, 200, 4, 6, 1},    {37, 301, 1, 8, 1}, {301, 37, 8, 8, 1e-9f},
                 {150, 150, 5, 5, 1e9f}, {1, 5, 1, 1, 1},    {5, 1, 1, 1, 1}};
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_matrix a = filled(cases[i].rows, cases[i].made, 1), us, vt;
        at_matrix b = filled(cases[i].made, cases[i].cols, 2), want, got;
        at_matrix_scale(a.v, a.rows * a.cols, cases[i].size);
        want = product(&a, &b);
        assert_int_equal(at_matrix_svd(&want, cases[i].asked, &us, &vt), AT_OK);
        assert_int_equal(us.cols, cases[i].asked);
        assert_int_equal(vt.rows, cases[i].asked);
        got = product(&us, &vt);
        if (!(distance(&got, &want) < 1e-5)) // f32 sums; 1e-7 is usual
            fail_msg("case %zu: %g away", i, distance(&got, &want));
        assert_orthonormal(&vt);
        at_matrix_free(&a);
        at_matrix_free(&b);
        at_matrix_free(&us);
        at_matrix_free(&vt);
        at_matrix_free(&want);
        at_matrix_free(&got);
    }
}

// What torch.linalg.svdvals says of the same numbers in doubles, for both orientations.
static void the_largest_singular_values_are_found(void **state)
{
    static const double want[6] = {3.9031367, 3.8149083, 3.4965846,
                                   3.4829147, 3.3802191, 3.2571671};
    at_matrix a = filled(150, 96, 9), turned = {0};
    (void)state;

    for (int64_t i = 0; i < a.rows * a.cols; i++)
        a.v[i] *= (float)pow(0.97, (double)(i % 96));
    assert_int_equal(at_matrix_transpose(&a, &turned), AT_OK);
    for (int k = 0; k < 2; k++)
        for (int rank = 1; rank <= 96; rank += rank == 6 ? 90 : 1) {
            at_matrix us, vt, p;
            double left, tail = 213.4748443;
            assert_int_equal(at_matrix_svd(k ? &turned : &a, rank, &us, &vt), AT_OK);
            for (int r = 0; r < rank && r < 6; r++) {
                double sum = 0;
                for (int64_t i = 0; i < us.rows; i++)
                    sum += (double)us.v[i * rank + r] * (double)us.v[i * rank + r];
                tail -= want[r] * want[r];
                // the range finder settles at 1e-7 of the energy: the last value may lack a little
                if (fabs(sqrt(sum) - want[r]) > 2e-3 * want[r])
                    fail_msg("value %d of rank %d is %g, not %g", r, rank, sqrt(sum), want[r]);
            }
            p = product(&us, &vt);
            left = distance(&p, k ? &turned : &a);
            if (rank <= 6)
                assert_true(fabs(left - sqrt(tail / 213.4748443)) < 1e-4);
            else
                assert_true(left < 1e-5);
            at_matrix_free(&us);
            at_matrix_free(&vt);
            at_matrix_free(&p);
        }
    at_matrix_free(&a);
    at_matrix_free(&turned);
}

// One row and nothing else: the directions of the zeros are made up, and no number of it is lost.
static void directions_of_zeros_are_orthonormal_too(void **state)
{
    at_matrix a = filled(50, 40, 3), us, vt, p;
    (void)state;

    memset(a.v + 40, 0, 49 * 40 * sizeof *a.v);
    assert_int_equal(at_matrix_svd(&a, 6, &us, &vt), AT_OK);
    assert_orthonormal(&vt);
    p = product(&us, &vt);
    assert_true(distance(&p, &a) < 1e-6);
    at_matrix_free(&a);
    at_matrix_free(&us);
    at_matrix_free(&vt);
    at_matrix_free(&p);
}

static void zeros_and_impossible_ranks(void **state)
{
    at_matrix a = filled(40, 30, 1), us, vt;
    (void)state;

    at_matrix_scale(a.v, 1200, 0);
    assert_int_equal(at_matrix_svd(&a, 4, &us, &vt), AT_OK);
    assert_int_equal(at_lora_clamp(&us, &vt), AT_OK);
    for (int i = 0; i < 160; i++)
        assert_true(us.v[i] == 0 && (i >= 120 || vt.v[i] == 0));
    at_matrix_free(&us);
    at_matrix_free(&vt);
    assert_int_equal(at_matrix_svd(&a, 31, &us, &vt), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "rank 31"));
    assert_int_equal(at_matrix_svd(&a, 0, &us, &vt), AT_EINVAL);
    assert_null(us.v);
    at_matrix_free(&a);
}

static int threads(void **state)
{
    (void)state;
    at_threads_set(4);
    return 0;
}

// Both factors as ComfyUI 0.3.64's extract_lora gives them (torch 2.13, f32). Singular vectors come
// with either sign and the clamp sees signs, so ours are given torch's first.
static void factors_are_clamped_as_comfyui_does(void **state)
{
    static const float want_up[12 * 3] = {
        0.21500351f,  0.91996068f,  0.15992883f,  0.44503376f,  -0.0027939505f, -0.47385073f,
        0.4521001f,   0.51011628f,  0.052934006f, 0.68341404f,  -0.4922159f,    0.4133471f,
        0.50047839f,  0.061644811f, -0.31532431f, -0.67997551f, 0.17251731f,    -0.53678089f,
        0.6827141f,   -0.2847254f,  0.12957598f,  0.092813946f, 0.24830262f,    -0.050839182f,
        0.87794125f,  0.18008241f,  -0.19943275f, 0.029485555f, 0.37208378f,    0.55087668f,
        -0.51013106f, 0.016763099f, 0.26464838f,  -0.45326403f, 0.018209063f,   0.28019226f};
    static const float want_down[3 * 9] = {
        0.36311385f,  0.27040994f,  -0.21733966f, 0.18387125f,  -0.49026191f, -0.26917326f,
        0.30618969f,  0.3077133f,   -0.46122795f, -0.38161454f, 0.50313199f,  0.19255134f,
        0.30992168f,  -0.25652435f, 0.43978718f,  0.068441473f, -0.41184646f, -0.18596099f,
        -0.22869687f, -0.78533673f, 0.15339053f,  0.064278416f, -0.39223319f, 0.045527428f,
        0.15403895f,  -0.16988209f, -0.30785671f};
    at_matrix a = filled(12, 9, 7), us, vt;
    (void)state;

    assert_int_equal(at_matrix_svd(&a, 3, &us, &vt), AT_OK);
    for (int r = 0; r < 3; r++) {
        if (vt.v[r * 9] * want_down[r * 9] > 0) continue;
        at_matrix_scale(vt.v + r * 9, 9, -1);
        for (int i = 0; i < 12; i++)
            us.v[i * 3 + r] = -us.v[i * 3 + r];
    }
    assert_true(us.v[3 * 0 + 1] > want_up[1] + 1e-4f); // there is something to clamp
    assert_int_equal(at_lora_clamp(&us, &vt), AT_OK);
    for (int i = 0; i < 36; i++)
        assert_true(fabsf(us.v[i] - want_up[i]) < 2e-6f);
    for (int i = 0; i < 27; i++)
        assert_true(fabsf(vt.v[i] - want_down[i]) < 2e-6f);
    at_matrix_free(&a);
    at_matrix_free(&us);
    at_matrix_free(&vt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_of_low_rank_comes_back),
        cmocka_unit_test(the_largest_singular_values_are_found),
        cmocka_unit_test(directions_of_zeros_are_orthonormal_too),
        cmocka_unit_test(zeros_and_impossible_ranks),
        cmocka_unit_test(factors_are_clamped_as_comfyui_does),
    };
    return cmocka_run_group_tests_name("unit.weight.svd", tests, threads, NULL);
}
