// SPDX-License-Identifier: Apache-2.0
// par_ring.c - attention over tokens that are split gives what one rank gives, also where keys go round.
// Idea: q, k and v of one sequence, whole on every rank, are split, attended and gathered on every mesh of ring and
// Ulysses; the result is that of one rank but for rounding. Keys are brought together and go round (the words of
// AT_OFF), lie in one buffer with q or apart, leave ahead or not, and over carriers that can do less.
// A watchdog of 10 s: nothing may hang.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "par/ranks.h"

enum { MOST = 8, WATCHDOG = 10 };
typedef enum carrier { WHOLE, NO_BESIDE, NO_STRIDES } carrier;

typedef struct job {
    int64_t batch, text, image, heads, dim; // text 0: one run of tokens
    at_dtype compute;
    bool apart, ahead;
    carrier carrier;
    at_degrees degrees;
    at_comm *world[MOST];
    at_comm_ops poor; // of the world's carrier, less what `carrier` says
    float *out[MOST]; // [batch, image, heads * dim]
    at_status st[MOST];
    char words[MOST][256];
} job;

static at_tensor *noise(at_ops *o, int64_t batch, int64_t tokens, int64_t width, int seed)
{
    int64_t n = batch * tokens * width;
    float *v = at_alloc((size_t)(n + 1) * sizeof *v);

    for (int64_t i = 0; v && i < n; i++)
        v[i] = 1.5f * sinf((float)(i % 1009) * 1.37f + (float)(i / 1009) * 0.61f + (float)seed);
    at_tensor *t = at_from_host(o, AT_F32, 3, (int64_t[]){batch, tokens, width}, v);
    at_free(v);
    return at_cast(o, t, at_ops_compute(o));
}

// This rank's tokens of part `part` of [b, t, 3, h, d], in place or in a buffer of its own.
static at_tensor *part_of(at_ops *o, const job *j, at_tensor *qkv, int part)
{
    if (!qkv) return NULL;
    int64_t hd = j->heads * j->dim;
    at_tensor *x = at_narrow(o, qkv, 2, part * hd, hd);
    if (j->apart) x = at_contiguous(o, x);
    return at_reshape(o, x, 4, (int64_t[]){j->batch, qkv->shape[1], j->heads, j->dim});
}

static at_tensor *forward(at_ops *o, const job *j)
{
    int64_t hd = j->heads * j->dim, text = 0;
    at_tensor *x = at_split_tokens(o, noise(o, j->batch, j->image, 3 * hd, 0)), *qkv = x;

    if (j->text) {
        at_tensor *t = at_split_tokens(o, noise(o, j->batch, j->text, 3 * hd, 5));
        if (t) text = t->shape[1];
        qkv = at_concat(o, 1, 2, (const at_tensor *[]){x, t});
    }
    at_tensor *q = part_of(o, j, qkv, 0), *k = part_of(o, j, qkv, 1), *v = part_of(o, j, qkv, 2);
    at_scope_begin(o);
    if (j->ahead && at_ops_goes_ahead(o)) at_attention_ahead(o, q, k, v);
    at_tensor *y = at_scope_end(o, at_attention(o, q, k, v, NULL, 0, false));
    if (y && text) y = at_narrow(o, y, 1, 0, y->shape[1] - text);
    return at_gather_tokens(o, y, j->image);
}

// Carriers that cannot send strided parts, or not beside other work, as those between processes may be.
static void make_poor(at_mesh *m, const job *j)
{
    for (int i = 0; i < AT_AXES && j->carrier != WHOLE; i++)
        if (m->axis[i]->size > 1) m->axis[i]->ops = &j->poor;
}

static at_status run_rank(void *ctx, int rank)
{
    job *j = ctx;
    at_comm *world = j->world[rank];
    at_mesh mesh = {0};
    at_ops *o = NULL;
    int vote = 0;
    at_status st = at_mesh_open(world, &j->degrees, &mesh);

    if (st == AT_OK) make_poor(&mesh, j);
    if (st == AT_OK) st = at_ops_new(&(at_ops_config){.compute = j->compute, .mesh = &mesh}, &o);
    if (st != AT_OK) world->ops->abort(world, (int)st);
    world->ops->vote(world, (int)st, &vote);
    if (vote == AT_OK) {
        at_tensor *y = forward(o, j);
        st = at_ops_vote(o);
        if (st == AT_OK) {
            size_t n = (size_t)at_tensor_count(y);
            j->out[rank] = at_alloc((n + 1) * sizeof(float));
            st = j->out[rank] ? at_tensor_to_host(y, AT_F32, j->out[rank], n * sizeof(float))
                              : AT_ENOMEM;
        }
    }
    if (st != AT_OK) snprintf(j->words[rank], sizeof j->words[rank], "%s", at_error_text());
    j->st[rank] = vote != AT_OK ? (at_status)vote : st;
    at_ops_free(o);
    at_mesh_close(&mesh);
    return AT_OK;
}

static void attempt(job *j)
{
    int n = at_degrees_ranks(&j->degrees);

    assert_int_equal(at_comm_threads(n, j->world), AT_OK);
    j->poor = *j->world[0]->ops;
    j->poor.scatter_begin = NULL;
    j->poor.scatter_end = NULL;
    if (j->carrier == NO_STRIDES) j->poor.scatter = NULL;
    alarm(WATCHDOG);
    assert_int_equal(at_ranks_run(n, run_rank, j), AT_OK);
    alarm(0);
    for (int i = 0; i < n; i++)
        at_comm_free(j->world[i]);
}

static void run(job *j, const char *plan)
{
    assert_int_equal(at_degrees_parse(plan, &j->degrees), AT_OK);
    attempt(j);
    for (int i = 0; i < at_degrees_ranks(&j->degrees); i++)
        if (j->st[i] != AT_OK) fail_msg("%s, rank %d: %s", plan, i, j->words[i]);
}

static void drop(job *j)
{
    for (int i = 0; i < MOST; i++)
        at_free(j->out[i]);
}

static void alike(job j, const char *plan, double tolerance)
{
    size_t n = (size_t)(j.batch * j.image * j.heads * j.dim);
    job one = j;
    double largest = 0, worst = 0;

    run(&one, "none");
    run(&j, plan);
    for (int r = 0; r < at_degrees_ranks(&j.degrees); r++)
        for (size_t i = 0; i < n; i++) {
            largest = fmax(largest, fabs((double)one.out[0][i]));
            double off = fabs((double)j.out[r][i] - (double)one.out[0][i]);
            worst = off > worst || off != off ? off : worst;
        }
    assert_true(largest > 0.01 && isfinite(largest));
    if (!(worst <= tolerance * largest))
        fail_msg("%s, batch %d, %d + %d tokens, %d heads: off by %g of %g", plan, (int)j.batch,
                 (int)j.text, (int)j.image, (int)j.heads, worst, largest);
    drop(&one);
    drop(&j);
}

static const char *const plans[] = {"ring=2",           "ring=3",           "ring=4",
                                    "ring=8",           "ring=2,ulysses=2", "ring=2,ulysses=4",
                                    "ring=4,ulysses=2", "ring=3,ulysses=2", "ulysses=3"};

static void on_every_mesh(job j, double tolerance)
{
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        alike(j, plans[i], tolerance);
}

// 2e-6: f32 sums in another order, a result of one.
static const job plain = {1, 0, 61, 4, 16, .compute = AT_F32};

static void tokens_and_heads_need_not_divide(void **state)
{
    job j = plain;

    (void)state;
    on_every_mesh(j, 2e-6);
    j.heads = 3;
    j.batch = 2;
    j.text = 7;
    on_every_mesh(j, 2e-6);
    j.heads = 1; // fewer than an Ulysses group: ranks without heads
    on_every_mesh(j, 2e-6);
    j.image = 300; // several blocks of keys
    j.dim = 64;
    on_every_mesh(j, 2e-6);
}

static void ranks_may_have_no_tokens(void **state)
{
    job j = plain;

    (void)state;
    for (j.image = 1; j.image <= 5; j.image += 2)
        on_every_mesh(j, 2e-6);
    j.text = 1;
    on_every_mesh(j, 2e-6);
}

static void keys_may_lie_apart_and_leave_ahead(void **state)
{
    job j = plain;

    (void)state;
    for (int i = 1; i < 4; i++) {
        j.apart = i & 1;
        j.ahead = i & 2;
        on_every_mesh(j, 2e-6);
        j.image = 3;
        on_every_mesh(j, 2e-6);
        j.image = 61;
    }
}

static void poorer_carriers_do(void **state)
{
    job j = plain;

    (void)state;
    for (j.carrier = NO_BESIDE; j.carrier <= NO_STRIDES; j.carrier++) {
        on_every_mesh(j, 2e-6);
        j.apart = !j.apart;
        on_every_mesh(j, 2e-6);
    }
}

// Each block's result is rounded to bf16 (2^-9), as the sum is.
static void sixteen_bits_round_once_more(void **state)
{
    job j = plain;

    (void)state;
    j.compute = AT_BF16;
    on_every_mesh(j, 0x1p-7);
}

static int gathers(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return setenv("AT_OFF", "hops", 1);
}

static int goes_round(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return setenv("AT_OFF", "gather", 1);
}

static int plain_c(void **state)
{
    int st = goes_round(state);
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    return st;
}

// --- work aside ----------------------------------------------------------------------------------
// The CPU has no second stream: this one tells whether the steps come in their order on each rank, and how often.
static _Thread_local int t_step = -1;
static atomic_int g_asides, g_out_of_order;

static at_status count_aside(at_device *d, at_aside step)
{
    int want = t_step < 0 ? AT_ASIDE_BEGIN : t_step + 1;

    (void)d;
    if ((int)step != want) atomic_fetch_add(&g_out_of_order, 1);
    t_step = step == AT_ASIDE_JOIN ? -1 : (int)step;
    if (step == AT_ASIDE_BEGIN) atomic_fetch_add(&g_asides, 1);
    return AT_OK;
}

static atomic_int g_until_failure; // calls of attention on all ranks

static at_status failing_attention(void *stream, const at_attention_args *a)
{
    if (atomic_fetch_sub(&g_until_failure, 1) == 1) return at_fail(AT_EDEVICE, "it fell out");
    return at_cpu_reference()->attention(stream, a);
}

static void the_first_block_goes_aside_and_comes_back(void **state)
{
    at_device *cpu = at_device_cpu();
    const at_device_ops *plain_ops = cpu->ops;
    at_device_ops ops = *cpu->ops;
    at_backend b = *at_cpu_reference();
    job j = plain;

    (void)state;
    ops.aside = count_aside;
    cpu->ops = &ops;
    atomic_store(&g_asides, 0);
    on_every_mesh(j, 2e-6);
    assert_int_equal(g_asides, 2 + 3 + 4 + 8 + 4 + 8 + 8 + 6); // ranks of the plans with a ring
    b.attention = failing_attention;
    at_device_set_cpu_backend(&b, "fails");
    for (int at = 1; at <= 9; at++) {
        atomic_store(&g_until_failure, at);
        assert_int_equal(at_degrees_parse("ring=3", &j.degrees), AT_OK);
        attempt(&j);
        for (int i = 0; i < 3; i++)
            assert_int_equal(j.st[i], AT_EDEVICE);
        drop(&j);
        j = plain;
    }
    cpu->ops = plain_ops;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    assert_int_equal(g_out_of_order, 0);
}

#define ALL(setup)                                                                                 \
    cmocka_unit_test_setup(tokens_and_heads_need_not_divide, setup),                               \
        cmocka_unit_test_setup(ranks_may_have_no_tokens, setup),                                   \
        cmocka_unit_test_setup(keys_may_lie_apart_and_leave_ahead, setup),                         \
        cmocka_unit_test_setup(poorer_carriers_do, setup),                                         \
        cmocka_unit_test_setup(sixteen_bits_round_once_more, setup)

int main(void)
{
    setenv("AT_ON", "aside-stream,aside-mlp", 1); // also what is off by default
    const struct CMUnitTest tests[] = {
        ALL(gathers), ALL(goes_round),
        cmocka_unit_test_setup(tokens_and_heads_need_not_divide, plain_c),
        cmocka_unit_test_setup(the_first_block_goes_aside_and_comes_back, plain_c)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
