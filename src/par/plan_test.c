// SPDX-License-Identifier: Apache-2.0
// plan_test.c - which plan wins where, and that a prediction counts what it says it counts.
#include "par/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MANY = 64 };

// Flux.1 at 1024^2 and SDXL at 1024^2 as papers count them (74 TFLOP; 6 TFLOP).
static const at_par_task flux = {.flops = 74e12,
                                 .activation_bytes = 0.9e9,
                                 .latent_bytes = 1e6,
                                 .weight_bytes = 24e9,
                                 .conditionings = 1,
                                 .batch = 1,
                                 .steps = 28,
                                 .hints = {.axes = 1u << AT_AXIS_RING | 1u << AT_AXIS_ULYSSES,
                                           .tokens = 4608,
                                           .heads = 24,
                                           .attention_flops = 15e12,
                                           .attentions = 57,
                                           .sequence_bytes = 28.3e6}};
static const at_par_task sdxl = {
    .flops = 6e12,
    .activation_bytes = 0.5e9,
    .latent_bytes = 0.26e6,
    .weight_bytes = 5.1e9,
    .conditionings = 2,
    .batch = 1,
    .steps = 30,
    .hints = {.axes = 1u << AT_AXIS_PATCH, .rows = 128, .map_meetings = 155, .map_bytes = 419e6}};
// Flux.1 as it says it of itself: all but the modulations' weights are shared along tp.
static at_par_task flux_by_layers(void)
{
    at_par_task t = flux;
    t.hints.axes |= 1u << AT_AXIS_TP;
    t.hints.tp_meetings = 4 * 19 + 38;
    t.hints.tp_bytes = (2 * 19 + 38) * 28.3e6;
    t.hints.tp_flops = 73e12;
    t.hints.tp_weights = 17e9;
    return t;
}
static const at_par_site nvlink = {.ranks = 2,
                                   .flops = 500e12,
                                   .memory = 80e9,
                                   .bandwidth = 250e9,
                                   .latency = 15e-6,
                                   .load = 40e9,
                                   .overhead = 0.5e-3};

typedef struct row {
    const char *name;
    const at_par_task *task;
    int ranks, conditionings;
    int64_t batch;
    double bandwidth; // 0: NVLink's
    int waiting;
    bool one_processor;
    const char *plan;
} row;

static const row rows[] = {
    {"one device", &flux, 1, 1, 1, 0, 0, false, "none"},
    {"a transformer without guidance", &flux, 2, 1, 1, 0, 0, false, "ulysses=2"},
    {"on three", &flux, 3, 1, 1, 0, 0, false, "ulysses=3"},
    {"on four", &flux, 4, 1, 1, 0, 0, false, "ulysses=4"},
    {"guidance comes first", &flux, 2, 2, 1, 0, 0, false, "cfg=2"},
    {"then tokens", &flux, 4, 2, 1, 0, 0, false, "cfg=2,ulysses=2"},
    {"a batch is shared as prompts are", &flux, 4, 1, 4, 0, 0, false, "cfg=4"},
    {"a slow link is not used", &flux, 2, 1, 1, 5e9, 0, false, "none"},
    {"but for guidance", &flux, 2, 2, 1, 5e9, 0, false, "cfg=2"},
    {"a UNet's guidance", &sdxl, 2, 2, 1, 0, 0, false, "cfg=2"},
    {"a UNet without", &sdxl, 2, 1, 1, 0, 0, false, "patch=2"},
    {"a UNet on four", &sdxl, 4, 2, 1, 0, 0, false, "cfg=2,patch=2"},
    {"threads of one processor gain nothing", &flux, 4, 2, 1, 0, 0, true, "none"},
    {"while others wait each has a device", &flux, 2, 1, 1, 0, 3, false, "none"},
};

static void the_expected_plan_wins(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        at_par_task t = *r->task;
        at_par_site s = nvlink;
        at_par_plan best;
        char text[96];

        t.conditionings = r->conditionings;
        t.batch = r->batch;
        s.ranks = r->ranks;
        if (r->bandwidth > 0) s.bandwidth = r->bandwidth;
        s.waiting = r->waiting;
        s.one_processor = r->one_processor;
        assert_int_equal(at_par_plans(&t, &s, &best, 1), 1);
        if (strcmp(at_degrees_text(&best.degrees, text), r->plan) != 0)
            fail_msg("%s: %s, not %s", r->name, text, r->plan);
        assert_true(isfinite(best.step) && best.step > 0);
        assert_true(best.ranks <= r->ranks);
    }
}

static const at_par_plan *find(const at_par_plan *p, int n, const char *name)
{
    char text[96];

    for (int i = 0; i < n; i++)
        if (strcmp(at_degrees_text(&p[i].degrees, text), name) == 0) return &p[i];
    return NULL;
}

static void a_list_is_whole_and_in_order(void **state)
{
    at_par_site s = nvlink;
    at_par_plan p[MANY], few[2];

    (void)state;
    s.ranks = 4;
    int n = at_par_plans(&flux, &s, p, MANY);
    for (int i = 2; i < n; i++)
        assert_true(p[i].step >= p[i - 1].step);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            assert_int_not_equal(memcmp(&p[i].degrees, &p[k].degrees, sizeof p->degrees), 0);
    assert_non_null(find(p, n, "none"));
    assert_non_null(find(p, n, "ring=2,ulysses=2"));
    assert_null(find(p, n, "cfg=2"));   // one conditioning, one latent
    assert_null(find(p, n, "patch=2")); // no map
    assert_null(find(p, n, "tp=2"));
    assert_int_equal(at_par_plans(&flux, &s, few, 2), 2);
    assert_memory_equal(&few[0], &p[0], sizeof *p);
    assert_int_equal(at_par_plans(&flux, &s, few, 0), 0);
}

// Ulysses on 2: half of 74 TFLOP, and 57 x (2 x 15 us + one tensor of 28.3 MB at 250 GB/s).
static void a_prediction_counts_work_and_bytes(void **state)
{
    at_par_plan p[MANY];
    int n = at_par_plans(&flux, &nvlink, p, MANY);
    const at_par_plan *one = find(p, n, "none"), *two = find(p, n, "ulysses=2");

    (void)state;
    assert_non_null(one);
    assert_non_null(two);
    assert_true(fabs(one->step - (74.0 / 500 + 0.5e-3)) < 1e-6);
    assert_true(one->exchange < 1e-12);
    double exchange = 57 * (2 * 15e-6 + 28.3e6 / 250e9) + 15e-6;
    assert_true(fabs(two->exchange - exchange) < 1e-6);
    assert_true(two->compute > 37.0 / 500 && two->compute < 37.0 / 500 * 1.07 + 0.5e-3);
    assert_true(fabs(two->seconds - 28 * two->step) < 1e-9);
}

static void what_does_not_divide_costs_the_largest_share(void **state)
{
    at_par_site s = nvlink;
    at_par_plan p[MANY];

    (void)state;
    s.ranks = 5; // 24 heads: shares of 5, 5, 5, 5, 4
    int n = at_par_plans(&flux, &s, p, MANY);
    const at_par_plan *five = find(p, n, "ulysses=5");
    assert_non_null(five);
    double least = (59e12 * 922 / 4608 + 15e12 * 5 / 24) / 500e12;
    assert_true(five->compute > least);
}

static void weights_that_do_not_fit_are_counted(void **state)
{
    at_par_site s = nvlink;
    at_par_plan p[MANY];

    (void)state;
    s.memory = 12e9;
    int n = at_par_plans(&flux, &s, p, MANY);
    const at_par_plan *one = find(p, n, "none");
    assert_false(one->fits);
    assert_true(one->step > one->compute + 12e9 / 40e9);
}

// Two devices that hold the model together and not alone take its layers apart; where it fits, its tokens.
static void layers_are_shared_where_the_model_does_not_fit(void **state)
{
    at_par_task t = flux_by_layers();
    at_par_site s = nvlink;
    at_par_plan p[MANY];
    char text[96];

    (void)state;
    s.memory = 18e9;
    int n = at_par_plans(&t, &s, p, MANY);
    assert_string_equal(at_degrees_text(&p[0].degrees, text), "tp=2");
    assert_true(p[0].fits);
    assert_true(fabs(p[0].bytes - (24e9 - 17e9 / 2 + 0.9e9)) < 1);
    double exchange = (4 * 19 + 38) * 15e-6 + (2 * 19 + 38) * 28.3e6 / 250e9;
    assert_true(fabs(p[0].exchange - exchange) < 1e-6);
    assert_true(p[0].compute > 37.5 / 500 && p[0].compute < 37.5 / 500 * 1.07);
    assert_false(find(p, n, "ulysses=2")->fits);
    s.memory = 80e9;
    at_par_plans(&t, &s, p, MANY);
    assert_string_equal(at_degrees_text(&p[0].degrees, text), "ulysses=2");
}

// docs/bench/several-gpus.md, two H200: both halves of a guided step of SDXL take 28.2 ms, one 15.8, and 16.5 on two.
static void small_layers_gain_less(void **state)
{
    at_par_task t = sdxl;
    at_par_site s = nvlink;
    at_par_plan p[MANY];

    (void)state;
    s.flops = 645e12;
    s.bandwidth = 347e9;
    s.latency = 7e-6;
    s.op = 2.4e-6;
    t.hints.ops = 1250;
    t.hints.efficiency = 0.75;
    int n = at_par_plans(&t, &s, p, MANY);
    assert_string_equal("cfg=2", at_degrees_text(&p[0].degrees, (char[96]){0}));
    assert_true(fabs(find(p, n, "none")->step / 28.2e-3 - 1) < 0.05);
    assert_true(fabs(find(p, n, "cfg=2")->step / 16.5e-3 - 1) < 0.05);
}

// What was measured stands, and one device's step sets the speed of the others, also where their own was measured.
static void what_is_known_replaces_predictions(void **state)
{
    const at_par_known known[] = {{.degrees = {{0, 0, 0, 0, 2}}, .step = 0.09}, {.step = 0.148}};
    at_par_task t = flux;
    at_par_plan p[MANY], plain[MANY];
    int n = at_par_plans(&t, &nvlink, plain, MANY);

    (void)state;
    t.known = known;
    t.n_known = 1; // ulysses=2 alone: what it lost to the prediction, ring=2 loses too
    assert_int_equal(at_par_plans(&t, &nvlink, p, MANY), n);
    assert_true(find(p, n, "ulysses=2")->known && find(p, n, "ulysses=2")->step == 0.09);
    double scale =
        (0.09 - find(plain, n, "ulysses=2")->exchange) / find(plain, n, "ulysses=2")->compute;
    assert_true(
        fabs(find(p, n, "ring=2")->compute / find(plain, n, "ring=2")->compute / scale - 1) < 1e-6);
    t.n_known = 2;
    at_par_plans(&t, &nvlink, p, MANY);
    assert_true(find(p, n, "none")->step == 0.148);
    scale = 0.148 / find(plain, n, "none")->compute;
    assert_true(
        fabs(find(p, n, "ring=2")->compute / find(plain, n, "ring=2")->compute / scale - 1) < 1e-6);
    assert_false(find(p, n, "ring=2")->known);
    // A plan that turned out slow is not taken again.
    const at_par_known slow[] = {{.degrees = {{0, 0, 0, 0, 2}}, .step = 0.2}, {.step = 0.148}};
    t.known = slow;
    at_par_plans(&t, &nvlink, p, MANY);
    assert_string_equal("ring=2", at_degrees_text(&p[0].degrees, (char[96]){0}));
}

// --- over random tasks and sites ------------------------------------------------------------------
typedef struct draws {
    uint64_t state;
} draws;

static double draw(draws *d, double least, double most) // evenly in the logarithm
{
    d->state ^= d->state << 13, d->state ^= d->state >> 7, d->state ^= d->state << 17;
    double x = (double)(d->state >> 11) / 9007199254740992.0;
    return least * pow(most / least, x);
}

static void any_case(draws *d, at_par_task *t, at_par_site *s)
{
    int64_t tokens = (int64_t)draw(d, 1, 1e5);

    *t = (at_par_task){.flops = draw(d, 1e9, 1e15),
                       .activation_bytes = draw(d, 1e6, 1e10),
                       .latent_bytes = draw(d, 1e3, 1e7),
                       .weight_bytes = draw(d, 1e6, 1e11),
                       .conditionings = (int)draw(d, 1, 5),
                       .batch = (int64_t)draw(d, 1, 9),
                       .steps = (int64_t)draw(d, 1, 50),
                       .hints = {.axes = (unsigned)draw(d, 1, 256) & 63u,
                                 .tokens = tokens,
                                 .heads = (int64_t)draw(d, 1, 64),
                                 .attentions = (int)draw(d, 1, 100),
                                 .sequence_bytes = (double)tokens * draw(d, 100, 1e4),
                                 .rows = (int64_t)draw(d, 1, 1000),
                                 .map_meetings = (int)draw(d, 1, 300),
                                 .map_bytes = draw(d, 1e3, 1e9),
                                 .tp_meetings = (int)draw(d, 1, 300),
                                 .tp_bytes = draw(d, 1e3, 1e10),
                                 .ops = (int)draw(d, 1, 2000)}};
    t->hints.attention_flops = t->flops * draw(d, 0.01, 0.9);
    t->hints.tp_flops = t->flops * draw(d, 0.1, 1);
    t->hints.tp_weights = t->weight_bytes * draw(d, 0.1, 1);
    *s = (at_par_site){.ranks = (int)draw(d, 1, 17),
                       .flops = draw(d, 1e12, 1e15),
                       .memory = draw(d, 1e8, 3e11),
                       .bandwidth = draw(d, 1e9, 1e12),
                       .latency = draw(d, 1e-7, 1e-3),
                       .load = draw(d, 1e9, 1e11),
                       .overhead = draw(d, 1e-6, 1e-3),
                       .op = draw(d, 1e-8, 1e-5),
                       .waiting = draw(d, 1, 10) > 8};
}

enum { CASES = 3000, ALL = 512 };

static void check_choice(const at_par_task *t, const at_par_site *s, const at_par_plan *p, int n)
{
    assert_true(n >= 1);
    for (int i = 0; i < n; i++) {
        assert_int_equal(p[i].ranks, at_degrees_ranks(&p[i].degrees));
        assert_true(p[i].ranks >= 1 && p[i].ranks <= s->ranks);
        assert_true(p[i].jobs >= 1 && p[i].jobs * p[i].ranks <= s->ranks);
        assert_true(isfinite(p[i].step) && p[i].step > 0 && p[i].bytes > 0);
        assert_true(at_par_possible(t, &p[i].degrees));
        assert_null(at_degrees_approximation(&p[i].degrees));
    }
}

static double least_step(const at_par_plan *p, int n)
{
    double least = INFINITY;

    for (int i = 0; i < n; i++)
        least = fmin(least, p[i].step);
    return least;
}

// Whatever is asked of whatever there is: a choice that can be, exact, finite, within 3 % of the fastest.
static void any_choice_is_possible_exact_and_nearly_the_fastest(void **state)
{
    static at_par_plan p[ALL];
    draws d = {0x9e3779b97f4a7c15u};

    (void)state;
    for (int i = 0; i < CASES; i++) {
        at_par_task t;
        at_par_site s;

        any_case(&d, &t, &s);
        int n = at_par_plans(&t, &s, p, ALL);
        assert_true(n < ALL); // all of them are seen
        check_choice(&t, &s, p, n);
        if (s.waiting) continue;
        // Fewer ranks win by at most worth_it, and so do shorter rings.
        assert_true(p[0].step <= least_step(p, n) * 1.03 * 1.03 * (1 + 1e-9));
    }
}

// What one device more brings is never worse: it may stay idle.
static void more_devices_are_never_slower(void **state)
{
    static at_par_plan p[ALL];
    draws d = {0x1234567890abcdefu};

    (void)state;
    for (int i = 0; i < CASES / 10; i++) {
        at_par_task t;
        at_par_site s;
        double before = INFINITY, picked = INFINITY;

        any_case(&d, &t, &s);
        s.waiting = 0;
        for (s.ranks = 1; s.ranks <= 16; s.ranks++) {
            int n = at_par_plans(&t, &s, p, ALL);
            double least = least_step(p, n);
            assert_true(least <= before * (1 + 1e-12));
            assert_true(p[0].step <= picked * 1.03 * 1.03 * (1 + 1e-9));
            before = least;
            picked = fmin(picked, p[0].step);
        }
    }
}

// Where a way exists that fits into memory and weights are slow to come, the choice fits.
static void the_choice_fits_where_anything_does(void **state)
{
    static at_par_plan p[ALL];
    draws d = {0xfedcba0987654321u};
    int tight = 0;

    (void)state;
    for (int i = 0; i < CASES; i++) {
        at_par_task t;
        at_par_site s;
        bool any = false, all = true;

        any_case(&d, &t, &s);
        s.waiting = 0;
        s.load = 1; // a byte a second
        int n = at_par_plans(&t, &s, p, ALL);
        for (int k = 0; k < n; k++) {
            any |= p[k].fits;
            all &= p[k].fits;
        }
        tight += any && !all;
        if (any) assert_true(p[0].fits);
    }
    assert_true(tight > CASES / 100);
}

// --- prices from elsewhere --------------------------------------------------------------------------
static at_par_word flat_price(void *ctx, const at_degrees *d, int64_t units, at_par_price *out)
{
    int *asked = ctx;
    int ranks = at_degrees_ranks(d) / (d->of[AT_AXIS_CFG] > 1 ? d->of[AT_AXIS_CFG] : 1);

    (*asked)++;
    if (d->of[AT_AXIS_RING] == 2) return AT_PAR_IMPOSSIBLE;
    if (d->of[AT_AXIS_RING] == 3) return AT_PAR_UNKNOWN;
    *out = (at_par_price){.compute = 0.1 * (double)units / ranks,
                          .exchange = 0.001 * (ranks - 1),
                          .sent = 5e6 * (ranks - 1),
                          .activations = 1e9};
    return AT_PAR_PRICED;
}

static void prices_stand_instead_of_formulas(void **state)
{
    at_par_task t = flux;
    at_par_site s = nvlink;
    at_par_plan p[MANY], plain[MANY];
    int asked = 0;
    at_par_pricer pricer = {flat_price, &asked};

    (void)state;
    s.ranks = 4;
    int all = at_par_plans(&t, &s, plain, MANY);
    t.pricer = &pricer;
    int n = at_par_plans(&t, &s, p, MANY);
    assert_true(asked > 0 && n == all - 2); // ring=2, and with ulysses=2
    assert_null(find(p, n, "ring=2"));
    assert_true(fabs(find(p, n, "none")->step - 0.1) < 1e-12);
    const at_par_plan *four = find(p, n, "ulysses=4");
    assert_true(fabs(four->compute - 0.025) < 1e-12 && fabs(four->exchange - 0.003) < 1e-12);
    assert_true(four->sent == 15e6 && four->bytes == 24e9 + 1e9);
    assert_true(find(p, n, "ring=3")->step == find(plain, all, "ring=3")->step);
    // What is known scales prices as it does formulas.
    t.known = &(at_par_known){.step = 0.2};
    t.n_known = 1;
    n = at_par_plans(&t, &s, p, MANY);
    assert_true(fabs(find(p, n, "ulysses=4")->compute - 0.05) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_expected_plan_wins),
        cmocka_unit_test(a_list_is_whole_and_in_order),
        cmocka_unit_test(a_prediction_counts_work_and_bytes),
        cmocka_unit_test(what_does_not_divide_costs_the_largest_share),
        cmocka_unit_test(weights_that_do_not_fit_are_counted),
        cmocka_unit_test(small_layers_gain_less),
        cmocka_unit_test(what_is_known_replaces_predictions),
        cmocka_unit_test(layers_are_shared_where_the_model_does_not_fit),
        cmocka_unit_test(any_choice_is_possible_exact_and_nearly_the_fastest),
        cmocka_unit_test(more_devices_are_never_slower),
        cmocka_unit_test(the_choice_fits_where_anything_does),
        cmocka_unit_test(prices_stand_instead_of_formulas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
