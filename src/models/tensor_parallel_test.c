// SPDX-License-Identifier: Apache-2.0
// tensor_parallel_test.c - networks whose layers are shared along tp: the result of one rank, with heads and units that
// do and do not divide, with more ranks than heads, beside other axes, with stored fp8, a LoRA's overlay and hooks that
// look at all heads; and every rank reads its share alone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/models.h"
#include "models/wave_test.h"
#include "par/ranks.h"
#include "weight/cut.h"
#include "weight/edits.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"
enum { MOST = 8 };

typedef struct problem {
    const char *file;
    int64_t b, channels, h, w, tokens;
    bool patched, edited;
    at_model *model;     // one of them
    at_encoder *encoder; //
} problem;

typedef struct job {
    const problem *p;
    at_degrees degrees;
    at_comm *world[MOST];
    at_status st[MOST];
    char text[MOST][256];
    float *out[MOST];
    int64_t n[MOST];
    double weights[MOST]; // bytes that the rank's linear layers read
} job;

// A backend that counts the weights it meets, each once a rank.
enum { SEEN = 512 };
static _Thread_local const at_packed *g_seen[SEEN];
static _Thread_local int g_seen_count;
static _Thread_local double g_seen_bytes;
static at_backend g_counting;

static at_status counting_linear(void *stream, const at_linear_args *a)
{
    int i = 0;
    while (i < g_seen_count && g_seen[i] != a->w.packed)
        i++;
    if (i == g_seen_count && i < SEEN) {
        g_seen[g_seen_count++] = a->w.packed;
        g_seen_bytes += (double)at_view_count(&a->w.v) * (double)at_dtype_size(a->w.v.dtype);
    }
    return at_cpu_backend()->linear(stream, a);
}

static int set_up(void **state)
{
    (void)state;
    g_counting = *at_cpu_backend();
    g_counting.linear = counting_linear;
    at_device_set_cpu_backend(&g_counting, at_cpu_describe());
    return 0;
}

// --- one rank's work -----------------------------------------------------------------------------
// A hook that needs all heads: k in q's place.
static at_tensor *swapped(void *self, at_ops *o, const at_site *s, const at_tensor *q,
                          const at_tensor *k, const at_tensor *v)
{
    (void)self;
    (void)q;
    if (s->cross) return NULL;
    return at_attention(o, at_add(o, k, at_narrow(o, k, 2, k->shape[2] - 1, 1)), k, v, NULL, 0,
                        false);
}
static const at_patch_ops swap = {.name = "test", .attn = swapped};

static at_tensor *denoise(at_ops *o, const problem *p)
{
    static const float t[] = {0.7f, 0.3f}, g[] = {3.5f, 2.0f};
    const at_model *m = p->model;
    int64_t width = at_model_text_width(m), vector = at_model_vector_width(m);
    at_patches *set = NULL;

    if (p->patched &&
        at_patches_add(NULL, &swap, at_calloc(1, 1), &set) != AT_OK) // freed with the set
        return at_ops_poison(o, AT_ENOMEM, "no set");
    at_model_in in = {.x = wave(o, 4, (int64_t[]){p->b, p->channels, p->h, p->w}, 0),
                      .timestep = t,
                      .guidance = g,
                      .context = wave(o, 3, (int64_t[]){p->b, p->tokens ? p->tokens : 7, width}, 1),
                      .pooled = vector ? wave(o, 2, (int64_t[]){p->b, vector}, 2) : NULL,
                      .patches = set};
    at_tensor *out = at_model_forward(o, p->model, &in);
    at_patches_release(&set);
    return out;
}

static at_tensor *encode(at_ops *o, const problem *p)
{
    int32_t ids[] = {7, 8, 9, 1, 20, 21, 22, 1};
    at_encode_in in = {.ids = ids, .batch = 2, .tokens = 4, .eos = -1};
    return at_encoder_forward(o, p->encoder, &in).hidden;
}

static at_status run_rank(void *ctx, int rank)
{
    job *j = ctx;
    at_comm *world = j->world[rank];
    at_mesh mesh = at_mesh_self();
    at_ops *o = NULL;

    at_status st = world ? at_mesh_open(world, &j->degrees, &mesh) : AT_OK;
    if (st == AT_OK)
        st = at_ops_new(&(at_ops_config){.compute = AT_F32, .mesh = world ? &mesh : NULL}, &o);
    if (st != AT_OK) return j->st[rank] = st;
    g_seen_count = 0;
    g_seen_bytes = 0;
    at_tensor *t = j->p->model ? denoise(o, j->p) : encode(o, j->p);
    j->weights[rank] = g_seen_bytes;
    st = at_ops_vote(o);
    if (st != AT_OK) snprintf(j->text[rank], sizeof j->text[rank], "%s", at_error_text());
    if (t && st == AT_OK) {
        j->n[rank] = at_tensor_count(t);
        j->out[rank] = at_alloc(at_tensor_bytes(t));
        st = at_tensor_to_host(t, AT_F32, j->out[rank], at_tensor_bytes(t));
    }
    j->st[rank] = st;
    at_ops_free(o);
    if (world) at_mesh_close(&mesh);
    return AT_OK;
}

// --- comparing -----------------------------------------------------------------------------------
// The largest record that is cut, plus a low-rank change.
static at_store *edited(at_store *s)
{
    at_edits *e = NULL;
    at_store *parts = NULL, *out = NULL;
    const at_weight *w = at_store_find(s, "single_blocks.0.linear1.weight");

    assert_non_null(w);
    assert_int_equal(at_store_new("lora", &parts), AT_OK);
    assert_int_equal(at_edits_new(&e), AT_OK);
    int64_t up[] = {w->shape[0], 2}, down[] = {2, w->shape[1]};
    assert_int_equal(at_store_add(parts, "up", AT_F32, 2, up, NULL, NULL), AT_OK);
    assert_int_equal(at_store_add(parts, "down", AT_F32, 2, down, NULL, NULL), AT_OK);
    at_weight *u = at_store_find(parts, "up"), *d = at_store_find(parts, "down");
    for (int64_t i = 0; i < up[0] * 2; i++)
        ((float *)(uintptr_t)u->data)[i] = sinf(0.11f * (float)i);
    for (int64_t i = 0; i < down[1] * 2; i++)
        ((float *)(uintptr_t)d->data)[i] = 0.05f * cosf(0.17f * (float)i);
    at_edit one = {.kind = AT_EDIT_LORA, .strength = 1, .keep = 1, .t = {u, d}};
    assert_int_equal(at_edits_hold(e, parts), AT_OK);
    assert_int_equal(at_edits_add(e, w->name, &one), AT_OK);
    assert_int_equal(at_store_edit(s, e, &out), AT_OK);
    at_edits_release(&e);
    at_store_release(&parts);
    return out;
}

static void open_problem(problem *p)
{
    char path[512];
    at_store *s = NULL, *base;
    at_found f[1];

    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", p->file);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    if (p->edited) {
        base = s;
        s = edited(base);
        at_store_release(&base);
    }
    assert_int_equal(at_detect(s, f, 1), 1);
    if (f->part == AT_PART_TEXT)
        assert_int_equal(at_encoder_load(s, f, &p->encoder), AT_OK);
    else
        assert_int_equal(at_model_load(s, "net", &p->model), AT_OK);
    at_store_release(&s);
}

static void close_problem(problem *p)
{
    at_model_release(&p->model);
    at_encoder_release(&p->encoder);
}

static void run_ranks(const problem *p, const char *plan, job *j)
{
    *j = (job){.p = p};
    assert_int_equal(at_degrees_parse(plan, &j->degrees), AT_OK);
    int n = at_degrees_ranks(&j->degrees);
    if (n > 1) assert_int_equal(at_comm_threads(n, j->world), AT_OK);
    assert_int_equal(at_ranks_run(n, run_rank, j), AT_OK);
    for (int r = 0; r < n; r++) {
        if (n > 1) at_comm_free(j->world[r]);
        if (j->st[r] != AT_OK) fail_msg("%s %s: rank %d: %s", p->file, plan, r, j->text[r]);
    }
}

static void end_job(job *j)
{
    for (int r = 0; r < MOST; r++)
        at_free(j->out[r]);
}

static double difference(const float *a, const float *b, int64_t n)
{
    double diff = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        diff += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)a[i], 2);
    }
    assert_true(norm > 0);
    return sqrt(diff / norm);
}

static void compare(problem p, const char *const *plans)
{
    job whole, shared;

    open_problem(&p);
    run_ranks(&p, "none", &whole);
    for (; *plans; plans++) {
        run_ranks(&p, *plans, &shared);
        for (int r = 0; r < at_degrees_ranks(&shared.degrees); r++) {
            assert_int_equal(whole.n[0], shared.n[r]);
            double d = difference(whole.out[0], shared.out[r], whole.n[0]);
            if (!(d < 1e-4)) fail_msg("%s %s, rank %d: %g", p.file, *plans, r, d);
            assert_memory_equal(shared.out[0], shared.out[r], (size_t)whole.n[0] * sizeof(float));
        }
        end_job(&shared);
    }
    end_job(&whole);
    close_problem(&p);
}

static const char *const all[] = {"tp=2", "tp=3", "tp=4", "tp=8", NULL};

static void flux(void **state)
{
    (void)state;
    const char *const mixed[] = {"tp=2,ulysses=2", "tp=3,ring=2", "tp=2,ring=2,ulysses=2",
                                 "tp=3,ulysses=2", NULL};
    compare((problem){.file = "flux_dev", .b = 1, .channels = 16, .h = 9, .w = 5}, all);
    compare((problem){.file = "flux_dev", .b = 2, .channels = 16, .h = 4, .w = 6}, all);
    compare((problem){.file = "flux_dev", .b = 1, .channels = 16, .h = 9, .w = 5}, mixed);
}

static void stored_fp8_and_loras(void **state)
{
    (void)state;
    compare((problem){.file = "flux_w_scaled", .b = 1, .channels = 16, .h = 6, .w = 5}, all);
    compare((problem){.file = "flux_w_e4m3", .b = 1, .channels = 16, .h = 6, .w = 5}, all);
    compare((problem){.file = "flux_dev", .b = 1, .channels = 16, .h = 6, .w = 5, .edited = true},
            all);
}

static void sd15(void **state)
{
    (void)state;
    const char *const mixed[] = {"tp=2,patch=2", "tp=3,patch=2", NULL};
    compare((problem){.file = "unet_sd15", .b = 2, .channels = 4, .h = 9, .w = 7}, all);
    compare((problem){.file = "unet_sd15", .b = 1, .channels = 4, .h = 8, .w = 8}, mixed);
}

static void sdxl(void **state)
{
    (void)state;
    compare((problem){.file = "unet_sdxl", .b = 2, .channels = 4, .h = 8, .w = 11}, all);
}

static void hooks_see_all_heads(void **state)
{
    (void)state;
    compare((problem){.file = "unet_sd15", .b = 1, .channels = 4, .h = 8, .w = 6, .patched = true},
            all);
    compare((problem){.file = "flux_dev", .b = 1, .channels = 16, .h = 6, .w = 5, .patched = true},
            all);
}

static void text_encoders(void **state)
{
    (void)state;
    compare((problem){.file = "t5"}, all);
    compare((problem){.file = "t5_w_scaled"}, all);
    compare((problem){.file = "clip_l"}, all);
    compare((problem){.file = "clip_g"}, all);
}

// That is what it is for: a rank reads its share of the layers that are cut, and the others whole.
static void each_rank_reads_its_share_alone(void **state)
{
    (void)state;
    problem p = {.file = "flux_dev", .b = 1, .channels = 16, .h = 6, .w = 5};
    job whole, shared;
    double cut = 0;

    open_problem(&p);
    at_store *s = at_model_store(p.model);
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (w->rank == 2 && at_weight_how_cut(w)) cut += (double)w->bytes;
    }
    run_ranks(&p, "none", &whole);
    run_ranks(&p, "tp=2", &shared); // two heads and an even number of units
    assert_true(cut > 0.8 * whole.weights[0] && cut < whole.weights[0]);
    for (int r = 0; r < 2; r++)
        if (fabs(shared.weights[r] - (whole.weights[0] - cut / 2)) > 0.5)
            fail_msg("rank %d reads %.0f bytes; one %.0f, of which %.0f are cut", r,
                     shared.weights[r], whole.weights[0], cut);
    end_job(&whole);
    end_job(&shared);
    close_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flux),
        cmocka_unit_test(stored_fp8_and_loras),
        cmocka_unit_test(sd15),
        cmocka_unit_test(sdxl),
        cmocka_unit_test(hooks_see_all_heads),
        cmocka_unit_test(text_encoders),
        cmocka_unit_test(each_rank_reads_its_share_alone),

    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
