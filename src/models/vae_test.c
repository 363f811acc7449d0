// SPDX-License-Identifier: Apache-2.0
// vae_test.c - whole pictures and tiles through the golden KL VAE (a latent is 2 x 2 pixels).
#include "models/vae_tile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "cpu/cpu.h"

#define MODEL AT_SOURCE_DIR "/tests/golden/vae_flux_decode/model.safetensors"
enum { DOWN = 2, Z = 16 };

static at_vae *vae;
static at_ops *ops;

static int set_up(void **state)
{
    (void)state;
    at_store *s = NULL;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    if (at_store_open(MODEL, &s) != AT_OK || at_vae_load(s, "vae", &vae) != AT_OK) return -1;
    at_store_release(&s);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    at_vae_release(&vae);
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

static at_tensor *latent(int64_t b, int64_t h, int64_t w)
{
    int64_t shape[] = {b, Z, h, w}, n = b * Z * h * w;
    float *p = at_alloc((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = sinf(0.7f * (float)i) * 1.3f;
    at_tensor *t = at_from_host(ops, AT_F32, 4, shape, p);
    at_free(p);
    return t;
}

static at_tensor *picture(int64_t b, int64_t h, int64_t w)
{
    at_tensor *t = at_host_image(ops, b, h, w);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = 0.5f + 0.5f * sinf(0.31f * (float)i);
    return t;
}

static float worst(const float *a, const float *b, int64_t n)
{
    float w = 0;
    for (int64_t i = 0; i < n; i++)
        w = fmaxf(w, fabsf(a[i] - b[i]));
    return w;
}

// --- tiles by the book: a mask and a weight image, as ComfyUI builds them ----------------------

static float ramp(int64_t n, int64_t feather, int64_t t)
{
    float a = 1;
    if (feather >= n) return 1;
    for (int64_t k = 0; k < feather; k++) {
        if (t == k) a *= (float)(k + 1) / (float)feather;
        if (t == n - 1 - k) a *= (float)(k + 1) / (float)feather;
    }
    return a;
}

static void plain_pass(const at_tensor *z, int64_t tile_h, int64_t tile_w, int64_t overlap,
                       float *out)
{
    int64_t h = z->shape[2], w = z->shape[3], H = h * DOWN, W = w * DOWN;
    float *sum = at_calloc((size_t)(3 * H * W), sizeof *sum);
    float *weight = at_calloc((size_t)(H * W), sizeof *weight);
    for (int64_t y = 0; y == 0 || (h > tile_h && y < h - overlap); y += tile_h - overlap)
        for (int64_t x = 0; x == 0 || (w > tile_w && x < w - overlap); x += tile_w - overlap) {
            int64_t th = h - y < tile_h ? h - y : tile_h, tw = w - x < tile_w ? w - x : tile_w;
            at_tensor *part = at_narrow(ops, at_narrow(ops, z, 2, y, th), 3, x, tw);
            at_tensor *px = at_vae_decode_raw(ops, vae, at_contiguous(ops, part));
            const float *p = at_tensor_data(px);
            int64_t ph = th * DOWN, pw = tw * DOWN;
            for (int64_t i = 0; i < ph; i++)
                for (int64_t j = 0; j < pw; j++) {
                    float m = ramp(ph, overlap * DOWN, i) * ramp(pw, overlap * DOWN, j);
                    int64_t at = (y * DOWN + i) * W + x * DOWN + j;
                    weight[at] += m;
                    for (int64_t c = 0; c < 3; c++)
                        sum[c * H * W + at] += m * p[(c * ph + i) * pw + j];
                }
        }
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < H * W; i++)
            out[i * 3 + c] += sum[c * H * W + i] / weight[i] / 3;
    at_free(sum);
    at_free(weight);
}

static void tiles_blend_as_masks_and_weights_would(void **state)
{
    (void)state;
    at_tensor *z = latent(1, 11, 13);
    int64_t n = 11 * 13 * DOWN * DOWN * 3;
    float *want = at_calloc((size_t)n, sizeof *want);
    plain_pass(z, 16, 4, 2, want);
    plain_pass(z, 4, 16, 2, want);
    plain_pass(z, 8, 8, 2, want);
    for (int64_t i = 0; i < n; i++)
        want[i] = at_pixel_from(want[i]);
    at_tensor *got = at_vae_decode_tiled(ops, vae, z, 8 * DOWN, 2 * DOWN);
    assert_non_null(got);
    assert_true(worst(at_tensor_data(got), want, n) < 2e-6f);
    at_free(want);
}

static void shares_of_all_windows_sum_to_one_everywhere(void **state)
{
    (void)state;
    for (int64_t size = 1; size < 40; size++)
        for (int64_t tile = 1; tile < 12; tile++)
            for (int64_t overlap = 0; overlap < tile; overlap++) {
                at_cut c = at_cut_make(size, tile, overlap);
                float sum[40 * 2] = {0}, share[12 * 2];
                for (int64_t i = 0; i < c.count; i++) {
                    int64_t s, n;
                    at_cut_window(&c, i, &s, &n);
                    assert_true(n >= 1 && s >= 0 && s + n <= size);
                    at_cut_shares(&c, 2, i, share);
                    for (int64_t t = 0; t < 2 * n; t++)
                        sum[2 * s + t] += share[t];
                }
                for (int64_t t = 0; t < 2 * size; t++)
                    assert_true(fabsf(sum[t] - 1) < 1e-5f);
            }
}

static void a_picture_that_fits_one_tile_is_decoded_whole(void **state)
{
    (void)state;
    at_tensor *z = latent(2, 5, 6);
    at_tensor *whole = at_vae_decode(ops, vae, z);
    at_tensor *tiled = at_vae_decode_tiled(ops, vae, z, 64, 16);
    assert_non_null(whole);
    assert_non_null(tiled);
    assert_true(worst(at_tensor_data(whole), at_tensor_data(tiled), at_tensor_count(whole)) <
                1e-6f);
}

static void pixels_are_clamped_halves_of_the_raw_output(void **state)
{
    (void)state;
    at_tensor *z = latent(1, 4, 3);
    at_tensor *raw = at_vae_decode_raw(ops, vae, z), *px = at_vae_decode(ops, vae, z);
    const float *r = at_tensor_data(raw), *p = at_tensor_data(px);
    int64_t n = 4 * 3 * DOWN * DOWN, outside = 0;
    assert_int_equal(px->shape[1], 8);
    assert_int_equal(px->shape[2], 6);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < 3; c++) {
            float want = (r[c * n + i] + 1) / 2;
            if (want < 0 || want > 1) outside++;
            want = want < 0 ? 0 : want > 1 ? 1 : want;
            assert_true(fabsf(p[3 * i + c] - want) < 1e-6f);
        }
    assert_true(outside > 0); // else the clamp was not seen
}

static void encode_crops_to_whole_latents_in_the_centre(void **state)
{
    (void)state;
    // 7 wide, 9 high: one row and one column too many; the smaller half (0) is cut in front
    at_tensor *px = picture(1, 9, 7);
    at_tensor *cut = at_narrow(ops, at_narrow(ops, px, 1, 0, 8), 2, 0, 6);
    at_tensor *a = at_vae_encode(ops, vae, px), *b = at_vae_encode(ops, vae, cut);
    assert_non_null(a);
    assert_int_equal(a->shape[1], Z);
    assert_int_equal(a->shape[2], 4);
    assert_int_equal(a->shape[3], 3);
    assert_memory_equal(at_tensor_data(a), at_tensor_data(b), at_tensor_bytes(a));
}

static void encode_takes_pixels_as_minus_one_to_one(void **state)
{
    (void)state;
    at_tensor *px = picture(2, 8, 6);
    at_tensor *x = at_affine(ops, at_permute(ops, px, (int[]){0, 3, 1, 2}), 2, -1);
    at_tensor *want = at_vae_encode_raw(ops, vae, at_contiguous(ops, x));
    at_tensor *got = at_vae_encode(ops, vae, px);
    assert_non_null(want);
    assert_int_equal(got->shape[0], 2);
    assert_true(worst(at_tensor_data(got), at_tensor_data(want), at_tensor_count(got)) < 2e-5f);
    at_tensor *tiled = at_vae_encode_tiled(ops, vae, px, 64, 16);
    assert_true(worst(at_tensor_data(tiled), at_tensor_data(want), at_tensor_count(got)) < 2e-5f);
}

// One cut of an encode, in latent places.
static void plain_encode_pass(const at_tensor *px, int64_t th, int64_t tw, int64_t overlap,
                              float *out)
{
    int64_t h = px->shape[1] / DOWN, w = px->shape[2] / DOWN;
    float *sum = at_calloc((size_t)(Z * h * w), sizeof *sum);
    float *weight = at_calloc((size_t)(h * w), sizeof *weight);
    for (int64_t y = 0; y == 0 || (h > th && y < h - overlap); y += th - overlap)
        for (int64_t x = 0; x == 0 || (w > tw && x < w - overlap); x += tw - overlap) {
            int64_t nh = h - y < th ? h - y : th, nw = w - x < tw ? w - x : tw;
            at_tensor *in = at_load_pixels(ops, px, 0, y * DOWN, x * DOWN, nh * DOWN, nw * DOWN);
            const float *p = at_tensor_data(at_vae_encode_raw(ops, vae, in));
            for (int64_t i = 0; i < nh; i++)
                for (int64_t j = 0; j < nw; j++) {
                    float m = ramp(nh, overlap, i) * ramp(nw, overlap, j);
                    weight[(y + i) * w + x + j] += m;
                    for (int64_t c = 0; c < Z; c++)
                        sum[(c * h + y + i) * w + x + j] += m * p[(c * nh + i) * nw + j];
                }
        }
    for (int64_t i = 0; i < Z * h * w; i++)
        out[i] += sum[i] / weight[i % (h * w)] / 3;
    at_free(sum);
    at_free(weight);
}

static void tiled_encode_blends_as_masks_and_weights_would(void **state)
{
    (void)state;
    at_tensor *px = picture(1, 22, 26);
    int64_t n = Z * 11 * 13;
    float *want = at_calloc((size_t)n, sizeof *want);
    plain_encode_pass(px, 16, 4, 2, want);
    plain_encode_pass(px, 4, 16, 2, want);
    plain_encode_pass(px, 8, 8, 2, want);
    at_tensor *got = at_vae_encode_tiled(ops, vae, px, 8 * DOWN, 2 * DOWN);
    assert_non_null(got);
    assert_int_equal(got->shape[2], 11);
    assert_int_equal(got->shape[3], 13);
    assert_true(worst(at_tensor_data(got), want, n) < 1e-5f);
    at_free(want);
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    at_tensor *z = at_zeros(ops, AT_F32, 4, (int64_t[]){1, 4, 4, 4});
    assert_null(at_vae_decode(ops, vae, z));
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
    assert_null(at_vae_decode_tiled(ops, vae, latent(1, 4, 4), 1, 0));
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
    at_tensor *x = at_zeros(ops, AT_F32, 4, (int64_t[]){1, 3, 5, 4});
    assert_null(at_vae_encode_raw(ops, vae, x));
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
    assert_null(at_vae_encode(ops, vae, picture(1, 1, 9)));
    assert_int_equal(at_ops_clear(ops), AT_EINVAL);
}

static void count_lines(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)level;
    (void)text;
    *(int *)ctx += strcmp(id, "VAE-TILES") == 0;
}

static void running_out_of_memory_once_falls_back_to_tiles(void **state)
{
    (void)state;
    at_tensor *z = latent(1, 6, 5);
    at_tensor *want = at_vae_decode(ops, vae, z);
    bool hit = true;
    int rescued = 0, warned = 0;
    at_log_set_writer(count_lines, &warned);
    for (uint64_t n = 1; hit && n < 4000; n += 17) {
        at_scope_begin(ops);
        at_mem_fail_at(n, false);
        at_tensor *got = at_vae_decode(ops, vae, z);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        if (got) {
            assert_true(worst(at_tensor_data(got), at_tensor_data(want), 6 * 5 * 4 * 3) < 1e-5f);
            rescued += hit;
        } else {
            assert_int_equal(at_ops_clear(ops), AT_ENOMEM);
        }
        at_scope_end(ops, NULL);
    }
    at_log_set_writer(NULL, NULL);
    assert_false(hit);
    assert_true(rescued > 5);
    assert_true(warned >= rescued);
}

#define T(name) cmocka_unit_test_setup_teardown(name, new_ops, free_ops)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(tiles_blend_as_masks_and_weights_would),
        T(shares_of_all_windows_sum_to_one_everywhere),
        T(a_picture_that_fits_one_tile_is_decoded_whole),
        T(pixels_are_clamped_halves_of_the_raw_output),
        T(encode_crops_to_whole_latents_in_the_centre),
        T(encode_takes_pixels_as_minus_one_to_one),
        T(tiled_encode_blends_as_masks_and_weights_would),
        T(wrong_shapes_are_refused),
        T(running_out_of_memory_once_falls_back_to_tiles),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
