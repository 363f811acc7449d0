// SPDX-License-Identifier: Apache-2.0
// fault_engine.c - an engine is opened, a workflow goes from files to a PNG, and something is refused on the
// way: each allocation, each read and write.
// Idea: the whole story is told again for every fault (fault.h says what must hold after each). A run makes
// thousands of allocations, most of them vocabularies. So the first FIRST of each story are all refused, then
// every n-th up to the last LAST, then every m-th; n and m are so large that the story ends within its share of
// time, half of it for each, and odd, so that they do not fall in step with loops.
// The environment: ATELIER_FAULT_SECONDS=600 makes a long night,
// ATELIER_FAULT_AT=4215 repeats one fault of each story.
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

#include "base/log.h"
#include "engine/plan.h"
#include "image/image.h"
#include "tiny.h"

enum { FIRST = 300, LAST = 2000 };

static char g_dir[64];
static double g_share = 5; // seconds of one story
static uint64_t g_at;      // refuse this one alone

// Small sizes, but every floor is passed: loaders, both encoders, weights in a prompt, a sampler with a
// negative prompt, the VAE, PNG in and out with metadata.
static const char workflow[] =
    "{\"prompt\": {"
    "\"1\": {\"class_type\": \"UNETLoader\", \"inputs\": {\"unet_name\": \"tiny_dev.safetensors\","
    " \"weight_dtype\": \"default\"}},"
    "\"2\": {\"class_type\": \"DualCLIPLoader\", \"inputs\": {\"clip_name1\": "
    "\"tiny_clip_l.safetensors\","
    " \"clip_name2\": \"tiny_t5.safetensors\", \"type\": \"flux\"}},"
    "\"3\": {\"class_type\": \"VAELoader\", \"inputs\": {\"vae_name\": \"tiny_ae2.safetensors\"}},"
    "\"4\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"a (red:1.2) circle\","
    " \"clip\": [\"2\", 0]}},"
    "\"5\": {\"class_type\": \"ConditioningZeroOut\", \"inputs\": {\"conditioning\": [\"4\", 0]}},"
    "\"10\": {\"class_type\": \"LoadImage\", \"inputs\": {\"image\": \"in.png\"}},"
    "\"6\": {\"class_type\": \"VAEEncode\", \"inputs\": {\"pixels\": [\"10\", 0], \"vae\": [\"3\", "
    "0]}},"
    "\"7\": {\"class_type\": \"KSampler\", \"inputs\": {\"model\": [\"1\", 0],"
    " \"seed\": 18446744073709551615, \"steps\": 2, \"cfg\": 1.5, \"sampler_name\": "
    "\"dpmpp_2m_sde\","
    " \"scheduler\": \"simple\", \"positive\": [\"4\", 0], \"negative\": [\"5\", 0],"
    " \"latent_image\": [\"6\", 0], \"denoise\": 0.75}},"
    "\"8\": {\"class_type\": \"VAEDecode\", \"inputs\": {\"samples\": [\"7\", 0], \"vae\": [\"3\", "
    "0]}},"
    "\"9\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"8\", 0],"
    " \"filename_prefix\": \"fault\"}}},"
    "\"extra_data\": {\"extra_pnginfo\": {\"workflow\": {\"nodes\": [1, 2.5, \"x\"]}}}}";

// A Stable Diffusion checkpoint is loaded, a prompt with a weight encoded, one step sampled and decoded.
static const char checkpoint[] =
    "{\"1\": {\"class_type\": \"CheckpointLoaderSimple\", \"inputs\": {\"ckpt_name\": "
    "\"tiny_sd15.safetensors\"}},"
    "\"2\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"a (red:1.2) circle\","
    " \"clip\": [\"1\", 1]}},"
    "\"3\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"\", \"clip\": [\"1\", "
    "1]}},"
    "\"4\": {\"class_type\": \"EmptyLatentImage\", \"inputs\": {\"width\": 64, \"height\": 64,"
    " \"batch_size\": 1}},"
    "\"5\": {\"class_type\": \"KSampler\", \"inputs\": {\"model\": [\"1\", 0], \"seed\": 5,"
    " \"steps\": 1, \"cfg\": 7.0, \"sampler_name\": \"euler\", \"scheduler\": \"normal\","
    " \"positive\": [\"2\", 0], \"negative\": [\"3\", 0], \"latent_image\": [\"4\", 0],"
    " \"denoise\": 1.0}},"
    "\"6\": {\"class_type\": \"VAEDecode\", \"inputs\": {\"samples\": [\"5\", 0], \"vae\": [\"1\", "
    "2]}},"
    "\"7\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"6\", 0],"
    " \"filename_prefix\": \"fault\"}}}";

static const char invalid[] =
    "{\"3\": {\"class_type\": \"VAELoader\", \"inputs\": {\"vae_name\": \"none\"}},"
    "\"7\": {\"class_type\": \"KSampler\", \"inputs\": {\"steps\": \"many\", \"cfg\": 1e9}},"
    "\"8\": {\"class_type\": \"VAEDecode\", \"inputs\": {\"samples\": [\"7\", 0], \"vae\": [\"3\", "
    "0]}},"
    "\"9\": {\"class_type\": \"PreviewImage\", \"inputs\": {\"images\": [\"8\", 0]}}}";

static at_status open_engine(at_engine **e)
{
    at_engine_config config = {.base_dir = g_dir, .dtype = AT_F32};
    return at_engine_open(&config, e);
}

static at_status run(at_engine *e, const char *text, bool keep_result)
{
    at_job_result r = {0};
    at_status st =
        at_engine_run(e, &(at_job){.label = "fault", .text = text, .bytes = strlen(text)}, &r);
    if (st == AT_OK && keep_result) assert_non_null(r.outputs);
    at_job_result_free(&r);
    return st;
}

static void forget_output(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/output/fault_00001_.png", g_dir);
    remove(path);
}

// --- stories -----------------------------------------------------------------------------------------
static at_status open_story(void *ctx)
{
    at_engine *e = NULL;
    char *json = NULL;
    (void)ctx;
    at_status st = open_engine(&e);
    if (st == AT_OK) st = at_engine_object_info(e, NULL, &json);
    at_free(json);
    at_engine_close(e);
    return st;
}

static at_status draw(const char *text)
{
    at_engine *e = NULL;
    forget_output();
    at_status st = open_engine(&e);
    if (st == AT_OK) st = run(e, text, true);
    at_engine_close(e);
    return st;
}
static at_status picture_story(void *ctx)
{
    (void)ctx;
    return draw(workflow);
}
static at_status checkpoint_story(void *ctx)
{
    (void)ctx;
    return draw(checkpoint);
}

// What is wrong with a workflow is told, or that there was no memory to tell it.
static at_status invalid_story(void *ctx)
{
    at_engine *e = ctx;
    at_status st = run(e, invalid, false);
    return st == AT_EWORKFLOW ? AT_OK : st == AT_OK ? at_fail(AT_EINTERNAL, "it ran") : st;
}

static at_status plan_story(void *ctx)
{
    at_engine *e = ctx;
    at_status st = AT_OK;
    at_graph *g = NULL;
    at_check_result check = {0};
    at_plan p = {0};
    AT_TRY(at_graph_parse("plan", workflow, strlen(workflow), at_engine_registry(e), &g));
    AT_TRY(
        at_check(g, at_engine_registry(e), at_engine_files(e), NULL, 0, at_engine_env(e), &check));
    AT_TRY(at_plan_make(e, g, AT_F32, &p));
    for (size_t i = 0; i < p.model_count; i++)
        assert_true(p.models[i].node && p.models[i].file && p.models[i].architecture);
    assert_int_equal(p.sampler_count, 1);
out:
    at_plan_free(&p);
    at_check_result_free(&check);
    at_graph_free(g);
    return st;
}

// A folder that cannot be listed is told of and taken for empty; the workflow's check then misses its files.
static bool g_told;
static void take_log(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)ctx, (void)level, (void)text;
    if (strcmp(id, "MODELS-LIST") == 0 || strcmp(id, "INPUT-LIST") == 0) g_told = true;
}
static at_status unlisted_story(void *ctx)
{
    g_told = false;
    at_status st = ctx ? checkpoint_story(NULL) : picture_story(NULL);
    return st == AT_EWORKFLOW && g_told ? at_fail(AT_EIO, "told") : st;
}

// --- loops -------------------------------------------------------------------------------------------
// So that `count` allocations of runs that take `seconds` fill half a share.
static uint64_t stride(uint64_t count, double seconds)
{
    uint64_t n = (uint64_t)((double)count * seconds / (g_share / 2)) + 1;
    return n == 1 ? 1 : n | 1;
}

// at_fault_memory with the strides of this file's header. Returns the allocations of a whole run.
static uint64_t refuse_memory(const char *what, at_fault_fn *fn, void *ctx, bool sticky)
{
    assert_int_equal(fn(ctx), AT_OK); // warms what stays for good
    uint64_t first = at_mem_get_stats().allocations;
    double start = at_now();
    assert_int_equal(fn(ctx), AT_OK);
    uint64_t total = at_mem_get_stats().allocations - first, runs = 0;
    uint64_t tail = total > FIRST + LAST ? total - LAST : FIRST;
    double one = at_now() - start; // a refused run ends half way on average
    uint64_t n_th = stride(tail - FIRST, one / 2),
             m_th = total > tail ? stride(total - tail, one) : 1;

    for (uint64_t n = g_at ? g_at : 1;; n += n < FIRST ? 1 : n < tail ? n_th : m_th, runs++) {
        at_mem_stats before = at_mem_get_stats();
        at_error_clear();
        at_mem_fail_at(n, sticky);
        at_status st = fn(ctx);
        bool hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        at_fault_check(n, st, st == AT_OK || (hit && st == AT_ENOMEM), before);
        if (!hit || g_at) break;
    }
    printf("%s: %llu allocations, %llu refused (the first %d, every %llu, every %llu of the last "
           "%d), %.1f s\n",
           what, (unsigned long long)total, (unsigned long long)runs, FIRST,
           (unsigned long long)n_th, (unsigned long long)m_th, LAST, at_now() - start);
    return total;
}

static void opening_without_memory(void **state)
{
    (void)state;
    assert_true(refuse_memory("open", open_story, NULL, false) > 50);
}
static void a_picture_without_one_block_of_memory(void **state)
{
    (void)state;
    assert_true(refuse_memory("picture", picture_story, NULL, false) > 1000);
}
static void a_picture_when_memory_is_gone_for_good(void **state)
{
    (void)state;
    assert_true(refuse_memory("picture, sticky", picture_story, NULL, true) > 1000);
}
static void a_checkpoint_and_one_step_without_memory(void **state)
{
    (void)state;
    assert_true(refuse_memory("checkpoint", checkpoint_story, NULL, false) > 1000);
    assert_true(refuse_memory("checkpoint, sticky", checkpoint_story, NULL, true) > 1000);
}
static void a_check_and_a_plan_without_memory(void **state)
{
    at_engine *e = NULL;
    (void)state;
    assert_int_equal(open_engine(&e), AT_OK);
    assert_true(refuse_memory("invalid workflow", invalid_story, e, false) > 50);
    assert_true(refuse_memory("plan", plan_story, e, false) > 50);
    at_engine_close(e);
}

static void every_read_and_write_refused(void **state)
{
    (void)state;
    uint64_t n = at_fault_io(unlisted_story, NULL);
    printf("picture: %llu reads and writes refused\n", (unsigned long long)n);
    assert_true(n >= 10);
    n = at_fault_io(unlisted_story, (void *)(uintptr_t)checkpoint);
    printf("checkpoint: %llu reads and writes refused\n", (unsigned long long)n);
    assert_true(n >= 10);
    n = at_fault_io(open_story, NULL);
    printf("open: %llu reads refused\n", (unsigned long long)n);
}

// An engine that met a fault draws the same picture afterwards, and no half of a file stays.
static void an_engine_outlives_its_faults(void **state)
{
    at_picture whole = {0};
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/output/fault_00001_.png", g_dir);
    assert_int_equal(picture_story(NULL), AT_OK);
    assert_int_equal(at_png_load(path, &whole), AT_OK);
    for (uint64_t n = 40; n < 40000; n = n * 17 / 10) {
        at_engine *e = NULL;
        at_picture again = {0};
        forget_output();
        assert_int_equal(open_engine(&e), AT_OK);
        at_mem_fail_at(n, false);
        at_status st = run(e, workflow, false);
        bool other_way = at_mem_fault_hit() && st == AT_OK; // the VAE went through tiles
        at_mem_fail_at(0, false);
        at_list left = {0};
        char *output = at_path_join(g_dir, "output");
        if (at_path_is_dir(output)) assert_int_equal(at_list_files(output, true, 10, &left), AT_OK);
        assert_true(left.count <= 1);
        if (left.count) assert_string_equal(left.items[0], "fault_00001_.png");
        at_list_free(&left);
        at_free(output);
        if (!at_path_exists(path)) assert_int_equal(run(e, workflow, true), AT_OK);
        assert_int_equal(at_png_load(path, &again), AT_OK);
        assert_int_equal(again.width, whole.width);
        if (!other_way)
            assert_memory_equal(again.rgb, whole.rgb,
                                (size_t)(whole.width * whole.height) * 3 * sizeof(float));
        at_picture_free(&again);
        at_engine_close(e);
    }
    at_picture_free(&whole);
}

// --- folder ------------------------------------------------------------------------------------------
static int set_up(void **state)
{
    char path[128];
    float pixels[16 * 16 * 3];
    const char *seconds = getenv("ATELIER_FAULT_SECONDS");
    (void)state;
    if (seconds) g_share = atof(seconds);
    if (getenv("ATELIER_FAULT_AT")) g_at = strtoull(getenv("ATELIER_FAULT_AT"), NULL, 10);
    at_log_set_writer(take_log, NULL); // "out of memory, decoding in tiles" a thousand times
    snprintf(g_dir, sizeof g_dir, "/tmp/atelier-fault-XXXXXX");
    assert_non_null(mkdtemp(g_dir));
    snprintf(path, sizeof path, "%s/models", g_dir);
    if (tiny_models_make(AT_SOURCE_DIR "/tests/golden", path) != AT_OK)
        fail_msg("%s", at_error_text());
    snprintf(path, sizeof path, "%s/input", g_dir);
    assert_int_equal(at_make_dirs(path), AT_OK);
    for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++)
        pixels[i] = (float)(i * 7 % 256) / 255.0f;
    snprintf(path, sizeof path, "%s/input/in.png", g_dir);
    assert_int_equal(at_png_save(path, pixels, 16, 16, 3, 1, NULL, 0), AT_OK);
    return chdir(g_dir);
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s, (void)kind, (void)f;
    return remove(path);
}
static int tear_down(void **state)
{
    (void)state;
    return nftw(g_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_without_memory),
        cmocka_unit_test(a_picture_without_one_block_of_memory),
        cmocka_unit_test(a_picture_when_memory_is_gone_for_good),
        cmocka_unit_test(a_checkpoint_and_one_step_without_memory),
        cmocka_unit_test(a_check_and_a_plan_without_memory),
        cmocka_unit_test(every_read_and_write_refused),
        cmocka_unit_test(an_engine_outlives_its_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
