// SPDX-License-Identifier: Apache-2.0
// matrix_test.c - every sampler with every scheduler draws a latent of finite numbers that is no noise.
// One job for each sampler: the loaders' results stay in the engine's cache, and each scheduler is a KSampler
// of three steps at cfg 1 on 2 x 2 tokens. nodes.samplers draws the same pairs on a tiny model, there read as one
// that predicts noise.
//   matrix_test MODELS_DIR      exit status 0: all well; 1: with one line per pair that is not
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/engine.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#define LIMIT 1e4 // latents of the house model's VAE lie within ten

static int checked, wrong;

// --- Check: counts what is no number -----------------------------------------------------------------
typedef struct check_in {
    at_object *samples;
    const char *pair;
} check_in;
static const at_in check_rows[] = {AT_ROW_LINK(check_in, samples, "LATENT"),
                                   AT_ROW(check_in, pair, AT_IN_STRING)};

static at_status check_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)out;
    const check_in *i = in;
    const at_tensor *t = ((const at_obj_latent *)i->samples)->samples;
    const float *p = at_tensor_data(t);
    double most = 0, sum = 0;
    for (int64_t k = 0; k < at_tensor_count(t); k++) {
        double v = fabs((double)p[k]);
        if (!(v <= most)) most = v; // also NaN
        sum += v;
    }
    checked++;
    if (most < LIMIT && sum > 0) return AT_OK;
    printf("%s: largest value %g, sum %g\n", i->pair, most, sum);
    wrong++;
    return AT_OK;
}
static const at_node node_check = {.class_type = "Check",
                                   .category = "test",
                                   .python_module = "test",
                                   .flags = AT_NODE_OUTPUT,
                                   .in = check_rows,
                                   .n_in = AT_COUNT(check_rows),
                                   .in_size = sizeof(check_in),
                                   .run = check_run};
static const at_node *const nodes[] = {&node_check, NULL};

// --- jobs --------------------------------------------------------------------------------------------
static const char loaders[] =
    "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'house.safetensors','weight_dtype':"
    "'default'}},'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':"
    "'house_clip_l.safetensors','clip_name2':'house_t5.safetensors','type':'flux'}},"
    "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a big red house','clip':['c',0]}},"
    "'n':{'class_type':'CLIPTextEncode','inputs':{'text':'','clip':['c',0]}},"
    "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':32,'height':32,'batch_size':1}}";

static void append_pair(at_str *s, const char *sampler, size_t i)
{
    at_str_printf(s,
                  ",'k%zu':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':3,'steps':3,"
                  "'cfg':1.0,'sampler_name':'%s','scheduler':'%s','positive':['p',0],'negative':"
                  "['n',0],'latent_image':['e',0],'denoise':1.0}},'o%zu':{'class_type':'Check',"
                  "'inputs':{'samples':['k%zu',0],'pair':'%s %s'}}",
                  i, sampler, at_scheduler_names[i], i, i, sampler, at_scheduler_names[i]);
}

static at_status run_sampler(at_engine *e, const char *sampler)
{
    at_str s = {0};
    at_job_result result = {0};
    at_str_printf(&s, "{%s", loaders);
    for (size_t i = 0; i < at_scheduler_count; i++)
        append_pair(&s, sampler, i);
    at_str_append(&s, "}");
    char *text = at_str_take(&s);
    if (!text) return at_fail(AT_ENOMEM, "matrix: no memory");
    for (char *p = text; *p; p++)
        if (*p == '\'') *p = '"';
    at_job job = {.label = sampler, .text = text, .bytes = strlen(text)};
    at_status st = at_engine_run(e, &job, &result);
    at_job_result_free(&result);
    at_free(text);
    return st;
}

int main(int argc, char **argv)
{
    at_engine *e = NULL;
    if (argc != 2) {
        fprintf(stderr, "usage: matrix_test MODELS_DIR\n");
        return 2;
    }
    at_engine_config config = {
        .models_dirs = (const char *const[]){argv[1]}, .models_count = 1, .dtype = AT_F32};
    at_status st = at_engine_open(&config, &e);
    if (st == AT_OK) st = at_registry_add((at_registry *)at_engine_registry(e), nodes);
    if (st != AT_OK) {
        fprintf(stderr, "matrix: %s\n", at_error_text());
        return 1;
    }
    for (size_t i = 0; i < at_sampler_count; i++)
        if (run_sampler(e, at_sampler_names[i]) != AT_OK) {
            printf("%s: %s\n", at_sampler_names[i], at_error_text());
            wrong++;
        }
    at_engine_close(e);
    size_t pairs = at_sampler_count * at_scheduler_count;
    printf("%d of %zu pairs drawn, %d wrong\n", checked, pairs, wrong);
    return wrong || (size_t)checked != pairs;
}
