// SPDX-License-Identifier: Apache-2.0
// place_test.c - placements as a person would choose them, for cards and networks of known sizes.
#include "par/place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static const double GIB = 1024.0 * 1024 * 1024;

static at_place_site cards(int n, double gib)
{
    at_place_site s = {.n = n, .load = 40e9, .bandwidth = 40e9, .latency = 1e-4};
    for (int i = 0; i < n; i++)
        s.room[i] = gib * GIB;
    return s;
}

// Flux.1 in fp8 or bf16 with T5 and CLIP-L, 1024x1024, its steps on `shared` devices.
static at_place_task flux(double denoiser_gib, int shared)
{
    return (at_place_task){
        .denoiser = {.weights = denoiser_gib * GIB, .work = 1.5 * GIB, .shared = shared},
        .text = {.weights = 9.3 * GIB, .work = 0.2 * GIB, .seconds = 8e-3, .travels = 8e6},
        .vae = {.weights = 0.16 * GIB, .work = 2.5 * GIB, .seconds = 19e-3, .shared = shared}};
}

static at_place choose(at_place_task t, at_place_site s)
{
    return at_place_choose(&t, &s);
}

static void what_fits_one_device_stays_there(void **state)
{
    (void)state;
    for (int shared = 1; shared <= 2; shared++) {
        at_place p = choose(flux(22.2, shared), cards(2, 139));
        assert_int_equal(p.text, 0);
        assert_int_equal(p.vae, 0);
        assert_true(p.lacks <= 0 && p.seconds == p.stay_seconds);
    }
}

static void a_text_encoder_goes_where_there_is_room(void **state)
{
    (void)state;
    // bf16 on a card of 32 GiB: with T5 34 GiB are wanted, without it 24.9.
    at_place p = choose(flux(22.2, 1), cards(2, 31));
    assert_int_equal(p.text, 1);
    assert_int_equal(p.vae, 0);
    assert_true(p.lacks <= 0 && p.stay_lacks > 3 * GIB);
    // The third device is the one with room.
    at_place_site s = cards(3, 31);
    s.room[1] = 5 * GIB;
    p = choose(flux(22.2, 1), s);
    assert_int_equal(p.text, 2);
    assert_true(p.lacks <= 0);
}

static void a_decoder_goes_where_its_maps_fit(void **state)
{
    (void)state;
    // 24 GiB: the denoiser fits with its own activations, not with the decoder's.
    at_place_task t = flux(22.2, 1);
    t.text.weights = 0.2 * GIB;
    at_place p = choose(t, cards(2, 24));
    assert_int_equal(p.vae, 1);
    assert_true(p.lacks <= 0);
    // Both of them.
    p = choose(flux(22.2, 1), cards(2, 24));
    assert_int_equal(p.text, 1);
    assert_int_equal(p.vae, 1);
    assert_true(p.lacks <= 0 && p.stay_lacks > 9 * GIB);
}

// Where the denoiser is on both devices, moving things between them gains nothing.
static void equal_devices_that_are_full_change_nothing(void **state)
{
    (void)state;
    at_place p = choose(flux(22.2, 2), cards(2, 24));
    assert_int_equal(p.text, 0);
    assert_true(p.lacks > 0);
    // A third device that has no rank takes them.
    p = choose(flux(22.2, 2), cards(3, 24));
    assert_int_equal(p.text, 2);
    assert_int_equal(p.vae, 2);
}

static void what_was_asked_for_stays(void **state)
{
    at_place_task t = flux(11.1, 1);

    (void)state;
    t.text.fixed = 2;
    at_place p = choose(t, cards(2, 139));
    assert_int_equal(p.text, 1);
    assert_int_equal(p.vae, 0);
    t.vae.fixed = 1; // even where it does not fit
    t.text.fixed = 1;
    p = choose(t, cards(2, 12));
    assert_int_equal(p.text, 0);
    assert_int_equal(p.vae, 0);
    assert_true(p.lacks > 0);
}

static void a_much_slower_device_is_left_alone(void **state)
{
    at_place_site s = cards(2, 31);

    (void)state;
    s.speed[0] = 1;
    s.speed[1] = 0.01; // T5 would take 0.8 s there, bringing it again 0.1 s here
    assert_int_equal(choose(flux(22.2, 1), s).text, 0);
    s.speed[1] = 0.5;
    assert_int_equal(choose(flux(22.2, 1), s).text, 1);
    // Twice as fast is worth the way where it is more than a millisecond.
    s = cards(2, 139);
    s.speed[0] = 0.25;
    s.speed[1] = 1;
    assert_int_equal(choose(flux(22.2, 1), s).text, 1);
}

static void loads_are_per_device(void **state)
{
    at_place_task t = flux(22.2, 2);
    double weights, peak;

    (void)state;
    at_place_load(&t, 1, 0, 1, &weights, &peak);
    assert_true(weights > 31.6 * GIB && weights < 31.7 * GIB); // its rank, T5 and the shared VAE
    assert_true(peak - weights > 2.4 * GIB && peak - weights < 2.6 * GIB);
    at_place_load(&t, 1, 1, 0, &weights, &peak);
    assert_true(weights > 22.1 * GIB && weights < 22.3 * GIB);
    at_place_load(&t, -1, -1, 2, &weights, &peak); // a device of none of them
    assert_true(weights == 0 && peak == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_one_device_stays_there),
        cmocka_unit_test(a_text_encoder_goes_where_there_is_room),
        cmocka_unit_test(a_decoder_goes_where_its_maps_fit),
        cmocka_unit_test(equal_devices_that_are_full_change_nothing),
        cmocka_unit_test(what_was_asked_for_stays),
        cmocka_unit_test(a_much_slower_device_is_left_alone),
        cmocka_unit_test(loads_are_per_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
