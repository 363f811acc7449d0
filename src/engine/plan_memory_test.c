// SPDX-License-Identifier: Apache-2.0
// plan_memory_test.c - what the dry device counts is what the CPU's counter counts when the network really runs.
#include "engine/plan_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "tensor/dry.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

static at_store *open_golden(const char *name)
{
    char path[512];
    at_store *s = NULL;
    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", name);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    return s;
}

// The CPU makes small tables where they are used and a device gets them from the host, so a little may differ.
static void agree(const char *name, double dry, double real)
{
    if (dry > 0.98 * real - 8192 && dry < 1.02 * real + 8192) return;
    fail_msg("%s: the dry device counts %.0f bytes, the CPU %.0f", name, dry, real);
}

static void denoisers(void **state)
{
    static const char *const names[] = {"flux_dev", "flux_schnell", "unet_sd15", "unet_sdxl"};
    static const at_peak_shape shapes[] = {{1, 8, 8, 7, 4}, {2, 16, 8, 7, 2}};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
            at_store *s = open_golden(names[i]);
            at_model *m = NULL;
            double real = 0, dry = 0;
            size_t live = at_device_cpu()->live_bytes;
            assert_int_equal(at_model_load(s, names[i], &m), AT_OK);
            at_device *d = at_device_dry(at_device_cpu()->backend->splits);
            assert_int_equal(at_peak_denoiser(d, m, &shapes[k], AT_F32, &dry), AT_OK);
            assert_int_equal(at_peak_denoiser(at_device_cpu(), m, &shapes[k], AT_F32, &real),
                             AT_OK);
            agree(names[i], dry, real);
            assert_int_equal(d->live_bytes, 0);
            assert_int_equal(at_device_cpu()->live_bytes, live);
            at_model_release(&m);
            at_store_release(&s);
        }
}

static void text_encoders(void **state)
{
    static const char *const names[] = {"clip_l", "clip_g", "t5"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        at_store *s = open_golden(names[i]);
        at_found f;
        at_encoder *e = NULL;
        double real = 0, dry = 0;
        assert_int_equal(at_detect(s, &f, 1), 1);
        assert_int_equal(at_encoder_load(s, &f, &e), AT_OK);
        int64_t most = at_encoder_max_tokens(e);
        for (int64_t n = 7; n < 100; n *= 5) {
            int64_t tokens = most && n > most ? most : n;
            assert_int_equal(at_peak_encoder(at_device_dry(false), e, tokens, AT_F32, &dry), AT_OK);
            assert_int_equal(at_peak_encoder(at_device_cpu(), e, tokens, AT_F32, &real), AT_OK);
            agree(names[i], dry, real);
        }
        at_encoder_release(&e);
        at_store_release(&s);
    }
}

static void decoders(void **state)
{
    static const char *const names[] = {"vae_flux_decode", "vae_sd_decode"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        at_store *s = open_golden(names[i]);
        at_vae *v = NULL;
        double real = 0, dry = 0;
        at_peak_shape shape = {1, 4, 6, 0, 1};
        assert_int_equal(at_vae_load(s, names[i], &v), AT_OK);
        assert_int_equal(at_peak_decoder(at_device_dry(false), v, &shape, AT_F32, &dry), AT_OK);
        assert_int_equal(at_peak_decoder(at_device_cpu(), v, &shape, AT_F32, &real), AT_OK);
        agree(names[i], dry, real);
        at_vae_release(&v);
        at_store_release(&s);
    }
}

// A size that no test machine could run.
static void huge_sizes_are_counted_at_once(void **state)
{
    at_store *s = open_golden("flux_dev");
    at_model *m = NULL;
    double small = 0, huge = 0;
    at_peak_shape shape = {1, 128, 128, 77, 4};
    (void)state;
    assert_int_equal(at_model_load(s, "flux", &m), AT_OK);
    assert_int_equal(at_peak_denoiser(at_device_dry(true), m, &shape, AT_BF16, &small), AT_OK);
    shape.latent_h = shape.latent_w = 1024;
    assert_int_equal(at_peak_denoiser(at_device_dry(true), m, &shape, AT_BF16, &huge), AT_OK);
    assert_true(huge > 55 * small && huge < 70 * small);
    at_model_release(&m);
    at_store_release(&s);
}

// A device whose linear layers borrow 64 MiB and keep weights as they are.
static void borrows(at_device *d, at_needs_of slot, const void *args, at_needs *out)
{
    (void)d;
    *out = (at_needs){0};
    if (slot != AT_NEEDS_LINEAR) return;
    const at_linear_args *a = args;
    out->scratch = (size_t)64 << 20;
    out->n = 1;
    out->forms[0].of = a->w.packed;
    out->forms[0].bytes = 1000;
}

static at_status starts(at_device *d)
{
    (void)d;
    return AT_OK;
}

// In place of a device, its slots are asked, its pool's blocks are counted and its recordings keep their inputs.
static void a_stand_in_asks_the_device(void **state)
{
    at_store *s = open_golden("flux_dev");
    at_model *m = NULL;
    at_device_ops ops = *at_device_cpu()->ops;
    at_device like = {.name = "like", .ops = &ops, .backend = at_device_cpu()->backend};
    at_peak_shape shape = {1, 8, 8, 7, 4};
    double plain = 0, blocks = 0, recorded = 0, asked = 0;
    (void)state;
    assert_int_equal(at_model_load(s, "flux", &m), AT_OK);
    assert_int_equal(
        at_peak_denoiser(at_device_dry(like.backend->splits), m, &shape, AT_F32, &plain), AT_OK);
    assert_int_equal(at_peak_denoiser(at_device_dry_like(&like), m, &shape, AT_F32, &blocks),
                     AT_OK);
    assert_true(blocks > plain && blocks < plain + 512 * 64);
    assert_int_equal(at_dry_weights_used().bytes, 0);
    ops.record_begin = starts;
    assert_int_equal(at_peak_denoiser(at_device_dry_like(&like), m, &shape, AT_F32, &recorded),
                     AT_OK);
    assert_true(recorded > blocks); // its own inputs and result
    ops.needs = borrows;
    assert_int_equal(at_peak_denoiser(at_device_dry_like(&like), m, &shape, AT_F32, &asked), AT_OK);
    assert_true(asked > 64 << 20 && asked <= (64 << 20) + recorded);

    at_dry_weights used = at_dry_weights_used();
    size_t layers = used.bytes / 1024; // each once, in a block of 1 KiB
    assert_int_equal(used.largest, 1000);
    assert_true(used.bytes % 1024 == 0 && layers > 10 && layers < at_store_count(s));
    at_plan_how how = {.device = &like, .compute = AT_F32};
    at_peak_held held = at_peak_weights(&how, s, at_model_prefix(m));
    assert_true(held.weights > (double)used.bytes); // vectors, which nobody asked for
    assert_true(held.loading >= held.weights + 1000);
    at_dry_forget();
    assert_int_equal(at_dry_weights_used().bytes, 0);
    assert_int_equal(at_device_dry(false)->live_bytes, 0);
    at_model_release(&m);
    at_store_release(&s);
}

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(denoisers),
        cmocka_unit_test(text_encoders),
        cmocka_unit_test(decoders),
        cmocka_unit_test(huge_sizes_are_counted_at_once),
        cmocka_unit_test(a_stand_in_asks_the_device),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
