// SPDX-License-Identifier: Apache-2.0
// rows_test.c - UNets and autoencoders over several ranks that share the rows of the map: the picture of one
// rank, at sizes that do and do not divide, with more ranks than rows of the smallest map, and with a
// ControlNet's whole maps added to split ones.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/control.h"
#include "models/models.h"
#include "models/wave_test.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"
enum { MOST = 8 };

typedef enum kind { UNET, CONTROLLED, DECODE, ENCODE } kind;

typedef struct problem {
    const char *file;
    kind kind;
    int64_t b, h, w;
    at_model *model;
    at_vae *vae;
} problem;

typedef struct rank_job {
    const problem *p;
    at_comm *comm; // NULL: one rank
    int ranks;
    bool fails;
    at_status st;
    char text[256];
    float *out;
    int64_t n;
} rank_job;

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

// --- one rank's work -----------------------------------------------------------------------------
static at_tensor *denoise(at_ops *o, const problem *p)
{
    static const float t[] = {700.0f, 300.0f};
    const at_model *m = p->model;
    int64_t width = at_model_text_width(m), vector = at_model_vector_width(m);
    at_tensor *map;
    at_control control = {0};
    at_model_in in = {.x = wave(o, 4, (int64_t[]){p->b, 4, p->h, p->w}, 0),
                      .timestep = t,
                      .context = wave(o, 3, (int64_t[]){p->b, 7, width}, 1),
                      .pooled = vector ? wave(o, 2, (int64_t[]){p->b, vector}, 2) : NULL};

    if (p->kind == CONTROLLED) {
        // The first blocks' own width: what conv_in gives.
        int64_t c = at_store_find(at_model_store(m), "input_blocks.0.0.weight")->shape[0];
        map = wave(o, 4, (int64_t[]){p->b, p->h, p->w, c}, 3);
        control.input[0] = map;
        control.skip[0] = map;
        in.control = &control;
    }
    return at_model_forward(o, p->model, &in);
}

static at_tensor *work(at_ops *o, const problem *p)
{
    if (p->kind == DECODE)
        return at_vae_decode_raw(o, p->vae, wave(o, 4, (int64_t[]){p->b, 16, p->h, p->w}, 0));
    if (p->kind == ENCODE)
        return at_vae_encode_raw(o, p->vae, wave(o, 4, (int64_t[]){p->b, 3, p->h, p->w}, 0));
    return denoise(o, p);
}

static void *run_rank(void *arg)
{
    rank_job *j = arg;
    at_degrees d = {.of = {[AT_AXIS_PATCH] = j->ranks}};
    at_mesh mesh = at_mesh_self();
    at_ops *o = NULL;

    j->st = j->comm ? at_mesh_open(j->comm, &d, &mesh) : AT_OK;
    if (j->st == AT_OK)
        j->st = at_ops_new(
            &(at_ops_config){.compute = AT_F32, .comm = j->comm, .mesh = j->comm ? &mesh : NULL},
            &o);
    if (j->st != AT_OK) return NULL;
    if (j->fails) at_ops_poison(o, AT_EIO, "this rank has had enough");
    at_tensor *t = work(o, j->p);
    j->st = at_ops_vote(o);
    if (j->st != AT_OK) snprintf(j->text, sizeof j->text, "%s", at_error_text());
    if (t && j->st == AT_OK) {
        j->n = at_tensor_count(t);
        j->out = at_alloc(at_tensor_bytes(t));
        j->st = at_tensor_to_host(t, AT_F32, j->out, at_tensor_bytes(t));
    }
    at_ops_free(o);
    if (j->comm) at_mesh_close(&mesh);
    return NULL;
}

// --- comparing -----------------------------------------------------------------------------------
static void open_problem(problem *p)
{
    char path[512];
    at_store *s = NULL;

    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", p->file);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    if (p->kind == DECODE || p->kind == ENCODE) {
        assert_int_equal(at_vae_load(s, "vae", &p->vae), AT_OK);
    } else {
        assert_int_equal(at_model_load(s, "unet", &p->model), AT_OK);
    }
    at_store_release(&s);
}

static void run_ranks(const problem *p, int n, int failing, rank_job *jobs)
{
    at_comm *comms[MOST];
    pthread_t threads[MOST];

    assert_int_equal(at_comm_threads(n, comms), AT_OK);
    for (int r = 0; r < n; r++) {
        jobs[r] = (rank_job){.p = p, .comm = comms[r], .ranks = n, .fails = r == failing};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < n; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n; r++)
        at_comm_free(comms[r]);
}

static double difference(const rank_job *a, const rank_job *b)
{
    double diff = 0, norm = 0;

    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++) {
        diff += pow((double)a->out[i] - (double)b->out[i], 2);
        norm += pow((double)a->out[i], 2);
    }
    assert_true(norm > 0);
    return sqrt(diff / norm);
}

static void compare(problem p, const int *ranks)
{
    rank_job whole = {.p = &p}, jobs[MOST];

    open_problem(&p);
    run_rank(&whole);
    if (whole.st != AT_OK) fail_msg("one rank: %s", at_error_text());
    for (; *ranks; ranks++) {
        run_ranks(&p, *ranks, -1, jobs);
        for (int r = 0; r < *ranks; r++) {
            if (jobs[r].st != AT_OK)
                fail_msg("%s, rank %d of %d: %s", p.file, r, *ranks, jobs[r].text);
            double d = difference(&whole, &jobs[r]);
            if (!(d < 1e-5)) // sums in another order
                fail_msg("%s %lldx%lld, rank %d of %d: %g", p.file, (long long)p.h, (long long)p.w,
                         r, *ranks, d);
            at_free(jobs[r].out);
        }
    }
    at_free(whole.out);
    at_model_release(&p.model);
    at_vae_release(&p.vae);
}

static const int all[] = {2, 3, 4, 8, 0};

static void sd15_rows(void **state)
{
    (void)state;
    compare((problem){.file = "unet_sd15", .b = 1, .h = 16, .w = 16}, all);
    compare((problem){.file = "unet_sd15", .b = 2, .h = 13, .w = 9}, all);
}

static void sdxl_rows(void **state)
{
    (void)state;
    compare((problem){.file = "unet_sdxl", .b = 2, .h = 16, .w = 24}, all);
    compare((problem){.file = "unet_sdxl", .b = 1, .h = 11, .w = 7}, all);
}

static void whole_maps_of_a_controlnet_are_added_to_rows(void **state)
{
    (void)state;
    compare((problem){.file = "unet_sd15", .kind = CONTROLLED, .b = 2, .h = 11, .w = 8}, all);
}

static void pictures_are_decoded_by_rows(void **state)
{
    (void)state;
    compare((problem){.file = "vae_flux_decode", .kind = DECODE, .b = 1, .h = 8, .w = 6}, all);
    compare((problem){.file = "vae_flux_decode", .kind = DECODE, .b = 2, .h = 7, .w = 5}, all);
    compare((problem){.file = "vae_flux_decode", .kind = DECODE, .b = 1, .h = 1, .w = 5}, all);
}

static void pictures_are_encoded_by_rows(void **state)
{
    (void)state;
    compare((problem){.file = "vae_flux_decode", .kind = ENCODE, .b = 1, .h = 16, .w = 12}, all);
    compare((problem){.file = "vae_flux_decode", .kind = ENCODE, .b = 2, .h = 14, .w = 6}, all);
}

static void a_rank_that_fails_ends_all(void **state)
{
    (void)state;
    problem p = {.file = "unet_sd15", .b = 1, .h = 8, .w = 8};
    rank_job jobs[MOST];

    open_problem(&p);
    run_ranks(&p, 3, 1, jobs);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(jobs[r].st, AT_EIO);
        assert_non_null(strstr(jobs[r].text, "had enough"));
    }
    at_model_release(&p.model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sd15_rows),
        cmocka_unit_test(sdxl_rows),
        cmocka_unit_test(whole_maps_of_a_controlnet_are_added_to_rows),
        cmocka_unit_test(pictures_are_decoded_by_rows),
        cmocka_unit_test(pictures_are_encoded_by_rows),
        cmocka_unit_test(a_rank_that_fails_ends_all),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
