// SPDX-License-Identifier: Apache-2.0
// fuzz_workflow.c - bytes as a workflow: parse, check, and check again.
// Promises: a check can always be made, names errors when nothing is good, and leaves a graph that gives
// the same answer a second time.
#include <string.h>

#include "flow/flow.h"
#include "fuzz.h"

typedef struct all_in {
    int64_t i;
    uint64_t seed;
    double f;
    bool b;
    const char *s, *choice, *file, *prompt;
    at_object *object;
    at_value any;
} all_in;

static const char *const choices[] = {"euler", "heun", NULL};
static const at_in all_rows[] = {
    {.name = "i",
     .type = AT_IN_INT,
     .offset = offsetof(all_in, i),
     .min = -4,
     .max = 4096,
     .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX},
    {.name = "seed",
     .type = AT_IN_U64,
     .offset = offsetof(all_in, seed),
     .max = 18446744073709551615.0,
     .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX},
    {.name = "f",
     .type = AT_IN_FLOAT,
     .offset = offsetof(all_in, f),
     .min = 0,
     .max = 100,
     .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_OPTIONAL},
    {.name = "b", .type = AT_IN_BOOL, .offset = offsetof(all_in, b), .flags = AT_INF_OPTIONAL},
    {.name = "s", .type = AT_IN_STRING, .offset = offsetof(all_in, s), .flags = AT_INF_OPTIONAL},
    {.name = "choice", .type = AT_IN_COMBO, .offset = offsetof(all_in, choice), .choices = choices},
    {.name = "file",
     .type = AT_IN_COMBO,
     .offset = offsetof(all_in, file),
     .list = "vae",
     .flags = AT_INF_OPTIONAL},
    {.name = "object",
     .type = AT_IN_OBJECT,
     .offset = offsetof(all_in, object),
     .type_name = "MODEL",
     .flags = AT_INF_OPTIONAL},
    {.name = "any",
     .type = AT_IN_ANY,
     .offset = offsetof(all_in, any),
     .type_name = "*",
     .flags = AT_INF_OPTIONAL},
    {.name = "prompt",
     .type = AT_IN_STRING,
     .offset = offsetof(all_in, prompt),
     .type_name = "PROMPT",
     .flags = AT_INF_HIDDEN},
};
static const at_out all_out[] = {{.type_name = "MODEL", .name = "MODEL"},
                                 {.type_name = "INT", .name = "INT"}};

static at_status run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)in, (void)out;
    return AT_OK;
}

static at_status validate(at_node_ctx *c, const void *in)
{
    const all_in *a = in;
    (void)c;

    return a->i == 13 ? at_fail(AT_EINVAL, "unlucky") : AT_OK;
}

static const at_node middle = {.class_type = "All",
                               .display = "All",
                               .category = "test",
                               .in = all_rows,
                               .n_in = AT_COUNT(all_rows),
                               .out = all_out,
                               .n_out = 2,
                               .in_size = sizeof(all_in),
                               .run = run,
                               .validate = validate};
static const at_node sink = {.class_type = "Save",
                             .display = "Save",
                             .category = "test",
                             .flags = AT_NODE_OUTPUT,
                             .in = all_rows,
                             .n_in = AT_COUNT(all_rows),
                             .in_size = sizeof(all_in),
                             .run = run};
static const at_node *const nodes[] = {&middle, &sink, NULL};

static at_status list(void *ctx, const char *kind, void (*each)(void *, const char *),
                      void *each_ctx)
{
    (void)ctx;
    if (!strcmp(kind, "vae")) each(each_ctx, "vae.safetensors");
    return AT_OK;
}

static at_check_result check(at_graph *g, const at_registry *r)
{
    at_file_lists files = {.list = list};
    at_check_result c;

    FUZZ_CHECK(at_check(g, r, &files, NULL, 0, NULL, &c) == AT_OK);
    FUZZ_CHECK(c.ok == (c.output_count > 0));
    FUZZ_CHECK(c.ok || c.error);
    return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static at_registry *r;
    at_graph *g;

    if (!r) {
        FUZZ_CHECK(at_registry_new(&r) == AT_OK);
        FUZZ_CHECK(at_registry_add(r, nodes) == AT_OK);
    }
    if (at_graph_parse("fuzz", (const char *)data, size, r, &g) != AT_OK) return 0;
    at_check_result once = check(g, r), twice = check(g, r);
    FUZZ_CHECK(once.ok == twice.ok && once.output_count == twice.output_count);
    FUZZ_CHECK(at_graph_json(g));
    at_check_result_free(&once);
    at_check_result_free(&twice);
    at_graph_free(g);
    return 0;
}
