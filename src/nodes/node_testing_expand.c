// SPDX-License-Identifier: Apache-2.0
// node_testing_expand.c - nodes of ComfyUI's test suite that answer with nodes.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack (specific_tests, async).
#include <stdio.h>
#include <string.h>

#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"

typedef struct expand_in {
    at_value image[3], model, clip, vae;
    double number, sleep[3], cfg;
    int64_t count, steps;
    uint64_t seed;
    const char *prompt, *negative_prompt, *unique_id;
} expand_in;

#define NAMED(label, kind, field, ...)                                                             \
    {                                                                                              \
        .name = label, .type = kind, .offset = offsetof(expand_in, field), __VA_ARGS__             \
    }
#define IMAGE_ROW(label, i)                                                                        \
    NAMED(label, AT_IN_ANY, image[i], .type_name = "IMAGE", .flags = AT_INF_NO_OPTIONS)
#define RANGE AT_INF_HAS_MIN | AT_INF_HAS_MAX

// A stub of one picture or mask of 512 x 512, whose input `input` is `json`.
static at_status stub(at_node_ctx *c, const char *class_type, const char *input, const char *json,
                      const char **node)
{
    at_status st = AT_OK;

    AT_TRY(at_expand_node(c, class_type, NULL, node));
    AT_TRY(at_expand_json(c, *node, input, json));
    AT_TRY(at_expand_json(c, *node, "height", "512"));
    AT_TRY(at_expand_json(c, *node, "width", "512"));
    AT_TRY(at_expand_json(c, *node, "batch_size", "1"));
out:
    return st;
}
static at_status grey(double value, at_value *out)
{
    at_tensor *t = NULL;
    float *p;
    at_status st = at_pixels_new("TestMixedExpansionReturns", 1, 512, 512, 3, &t, &p);

    for (int64_t i = 0; st == AT_OK && i < at_tensor_count(t); i++)
        p[i] = (float)value;
    return st == AT_OK ? at_give_image("TestMixedExpansionReturns", t, out) : st;
}

// --- a cycle -------------------------------------------------------------------------------------
static at_status cycle_run(at_node_ctx *c, const void *in, at_value *out)
{
    const expand_in *i = in;
    at_status st = AT_OK;
    const char *mask, *first, *second;

    (void)out;
    AT_TRY(stub(c, "StubMask", "value", "0.5", &mask));
    AT_TRY(at_expand_node(c, "TestLazyMixImages", NULL, &first));
    AT_TRY(at_expand_value(c, first, "image1", &i->image[0]));
    AT_TRY(at_expand_link(c, first, "mask", mask, 0));
    AT_TRY(at_expand_node(c, "TestLazyMixImages", NULL, &second));
    AT_TRY(at_expand_link(c, second, "image1", first, 0));
    AT_TRY(at_expand_value(c, second, "image2", &i->image[1]));
    AT_TRY(at_expand_link(c, second, "mask", mask, 0));
    AT_TRY(at_expand_link(c, first, "image2", second, 0));
    AT_TRY(at_expand_answer(c, 0, second, 0));
out:
    return st;
}
static const at_in cycle_rows[] = {IMAGE_ROW("input1", 0), IMAGE_ROW("input2", 1)};
const at_node at_node_test_cycle =
    AT_TEST_NODE("TestDynamicDependencyCycle", "Dynamic Dependency Cycle", "Testing/Nodes",
                 cycle_rows, expand_in, at_image_out, cycle_run);

// --- values or nodes, by the input ----------------------------------------------------------------
static at_status mixed_run(at_node_ctx *c, const void *in, at_value *out)
{
    const expand_in *i = in;
    at_status st = AT_OK;
    const char *mask, *black, *white, *mix;

    AT_TRY(grey(1, out + 1));
    if (i->number <= 0.2) return grey(i->number <= 0.1 ? 0.1 : 0.2, out);
    AT_TRY(stub(c, "StubMask", "value", "0.3", &mask));
    AT_TRY(stub(c, "StubImage", "content", "\"BLACK\"", &black));
    AT_TRY(stub(c, "StubImage", "content", "\"WHITE\"", &white));
    AT_TRY(at_expand_node(c, "TestLazyMixImages", NULL, &mix));
    AT_TRY(at_expand_link(c, mix, "image1", black, 0));
    AT_TRY(at_expand_link(c, mix, "image2", white, 0));
    AT_TRY(at_expand_link(c, mix, "mask", mask, 0));
    AT_TRY(at_expand_answer(c, 0, mix, 0));
out:
    return st;
}
static const at_in mixed_rows[] = {
    NAMED("input1", AT_IN_FLOAT, number, .flags = AT_INF_NO_OPTIONS)};
static const at_out mixed_out[] = {AT_OUT("IMAGE"), AT_OUT("IMAGE")};
const at_node at_node_test_mixed =
    AT_TEST_NODE("TestMixedExpansionReturns", "Mixed Expansion Returns", "Testing/Nodes",
                 mixed_rows, expand_in, mixed_out, mixed_run);

// --- a whole sampling ----------------------------------------------------------------------------
static at_status encode(at_node_ctx *c, const expand_in *i, const char *text, const char **out)
{
    at_value v = {.kind = AT_VAL_STRING, .s = (char *)(uintptr_t)(text ? text : "")};
    at_status st = AT_OK;

    AT_TRY(at_expand_node(c, "CLIPTextEncode", NULL, out));
    AT_TRY(at_expand_value(c, *out, "text", &v));
    AT_TRY(at_expand_value(c, *out, "clip", &i->clip));
out:
    return st;
}
static at_status sampling_run(at_node_ctx *c, const void *in, at_value *out)
{
    const expand_in *i = in;
    at_status st = AT_OK;
    const char *positive, *negative, *latent, *sampler, *picture;
    at_value seed = {.kind = AT_VAL_UINT, .u = i->seed}, steps = at_value_int(i->steps),
             cfg = at_value_float(i->cfg);

    (void)out;
    AT_TRY(encode(c, i, i->prompt, &positive));
    AT_TRY(encode(c, i, i->negative_prompt, &negative));
    AT_TRY(at_expand_node(c, "EmptyLatentImage", NULL, &latent));
    AT_TRY(at_expand_json(c, latent, "width", "512"));
    AT_TRY(at_expand_json(c, latent, "height", "512"));
    AT_TRY(at_expand_json(c, latent, "batch_size", "1"));
    AT_TRY(at_expand_node(c, "KSampler", NULL, &sampler));
    AT_TRY(at_expand_value(c, sampler, "model", &i->model));
    AT_TRY(at_expand_link(c, sampler, "positive", positive, 0));
    AT_TRY(at_expand_link(c, sampler, "negative", negative, 0));
    AT_TRY(at_expand_link(c, sampler, "latent_image", latent, 0));
    AT_TRY(at_expand_value(c, sampler, "seed", &seed));
    AT_TRY(at_expand_value(c, sampler, "steps", &steps));
    AT_TRY(at_expand_value(c, sampler, "cfg", &cfg));
    AT_TRY(at_expand_json(c, sampler, "sampler_name", "\"euler_ancestral\""));
    AT_TRY(at_expand_json(c, sampler, "scheduler", "\"normal\""));
    AT_TRY(at_expand_json(c, sampler, "denoise", "1.0"));
    AT_TRY(at_expand_node(c, "VAEDecode", NULL, &picture));
    AT_TRY(at_expand_link(c, picture, "samples", sampler, 0));
    AT_TRY(at_expand_value(c, picture, "vae", &i->vae));
    AT_TRY(at_expand_answer(c, 0, picture, 0));
out:
    return st;
}
#define PART_ROW(label, field, TYPE)                                                               \
    NAMED(label, AT_IN_ANY, field, .type_name = TYPE, .flags = AT_INF_NO_OPTIONS)
static const at_in sampling_rows[] = {
    PART_ROW("model", model, "MODEL"),
    PART_ROW("clip", clip, "CLIP"),
    PART_ROW("vae", vae, "VAE"),
    NAMED("seed", AT_IN_U64, seed, .max = 18446744073709551615.0, .flags = RANGE),
    NAMED("steps", AT_IN_INT, steps, .def = 20, .min = 1, .max = 100, .flags = RANGE),
    NAMED("cfg", AT_IN_FLOAT, cfg, .def = 7, .max = 30, .flags = RANGE),
    NAMED("prompt", AT_IN_STRING, prompt, .flags = AT_INF_MULTILINE,
          .sdef = "a beautiful landscape with mountains and trees"),
    NAMED("negative_prompt", AT_IN_STRING, negative_prompt, .flags = AT_INF_MULTILINE,
          .sdef = "blurry, bad quality, worst quality")};
const at_node at_node_test_sampling =
    AT_TEST_NODE("TestSamplingInExpansion", "Sampling In Expansion", "Testing/Nodes", sampling_rows,
                 expand_in, at_image_out, sampling_run);

// --- nodes that wait beside each other -----------------------------------------------------------
// `n` pictures that sleep, and their average.
static at_status sleepers(at_node_ctx *c, int64_t n, const at_value *const *image,
                          const double *seconds)
{
    at_status st = AT_OK;
    const char *sleep, *average = NULL;
    char name[32];

    if (n > 1) AT_TRY(at_expand_node(c, "TestVariadicAverage", NULL, &average));
    for (int64_t i = 0; i < n; i++) {
        at_value s = at_value_float(seconds[i]);
        AT_TRY(at_expand_node(c, "TestSleep", NULL, &sleep));
        AT_TRY(at_expand_value(c, sleep, "value", image[i]));
        AT_TRY(at_expand_value(c, sleep, "seconds", &s));
        snprintf(name, sizeof name, "input%d", (int)i + 1);
        if (average) AT_TRY(at_expand_link(c, average, name, sleep, 0));
    }
    AT_TRY(at_expand_answer(c, 0, average ? average : sleep, 0));
out:
    return st;
}
static at_status parallel_run(at_node_ctx *c, const void *in, at_value *out)
{
    const expand_in *i = in;
    (void)out;
    return sleepers(c, 3, (const at_value *[]){&i->image[0], &i->image[1], &i->image[2]}, i->sleep);
}
#define SLEEP_ROW(label, i)                                                                        \
    NAMED(label, AT_IN_FLOAT, sleep[i], .def = 0.5, .max = 10, .step = 0.01,                       \
          .flags = RANGE | AT_INF_HAS_STEP)
static const at_in parallel_rows[] = {IMAGE_ROW("image1", 0),
                                      IMAGE_ROW("image2", 1),
                                      IMAGE_ROW("image3", 2),
                                      SLEEP_ROW("sleep1", 0),
                                      SLEEP_ROW("sleep2", 1),
                                      SLEEP_ROW("sleep3", 2),
                                      AT_ROW_HIDDEN(expand_in, unique_id, "UNIQUE_ID")};
const at_node at_node_test_parallel = {.class_type = "TestParallelSleep",
                                       .display = "Test Parallel Sleep",
                                       .category = "_for_testing",
                                       .flags = AT_NODE_TEST | AT_NODE_OUTPUT,
                                       .python_module = "custom_nodes.testing-pack",
                                       .in = parallel_rows,
                                       .n_in = AT_COUNT(parallel_rows),
                                       .in_size = sizeof(expand_in),
                                       .out = at_image_out,
                                       .n_out = 1,
                                       .run = parallel_run};

enum { MOST_SLEEPERS = 10 };
static at_status dynamic_run(at_node_ctx *c, const void *in, at_value *out)
{
    const expand_in *i = in;
    const at_value *image[MOST_SLEEPERS];
    double seconds[MOST_SLEEPERS];

    (void)out;
    if (i->count < 1 || i->count > MOST_SLEEPERS)
        return at_fail(AT_EINVAL, "num_async_nodes: 1 to %d", MOST_SLEEPERS);
    for (int64_t k = 0; k < i->count; k++) {
        image[k] = &i->image[k % 2];
        seconds[k] = i->sleep[0];
    }
    return sleepers(c, i->count, image, seconds);
}
static const at_in dynamic_rows[] = {IMAGE_ROW("image1", 0), IMAGE_ROW("image2", 1),
                                     NAMED("num_async_nodes", AT_IN_INT, count, .def = 3, .min = 1,
                                           .max = MOST_SLEEPERS, .flags = RANGE),
                                     NAMED("sleep_duration", AT_IN_FLOAT, sleep[0], .def = 0.2,
                                           .min = 0.1, .max = 1, .flags = RANGE)};
const at_node at_node_test_dynamic =
    AT_TEST_NODE("TestDynamicAsyncGeneration", "Test Dynamic Async Generation",
                 "_for_testing/async", dynamic_rows, expand_in, at_image_out, dynamic_run);
