// SPDX-License-Identifier: Apache-2.0
// world.c - see world.h.
#include "world.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "tiny.h"

// --- Capture and Give --------------------------------------------------------------------------------
enum { MAX_KEPT = 32 };
typedef struct kept {
    char key[48];
    at_value value;
} kept;
static kept captured[MAX_KEPT], given[MAX_KEPT];
static unsigned runs; // makes Capture and Give run again in every job

static kept *kept_at(kept *list, const char *key, bool make)
{
    for (size_t i = 0; i < MAX_KEPT; i++)
        if (strcmp(list[i].key, key) == 0) return &list[i];
    for (size_t i = 0; make && i < MAX_KEPT; i++)
        if (!list[i].key[0]) {
            snprintf(list[i].key, sizeof list[i].key, "%s", key);
            return &list[i];
        }
    return NULL;
}
static void kept_clear(kept *list)
{
    for (size_t i = 0; i < MAX_KEPT; i++) {
        at_value_clear(&list[i].value);
        list[i].key[0] = 0;
    }
}

static at_status always_new(at_node_ctx *c, const void *in, char **out)
{
    (void)c, (void)in;
    *out = at_strprintf("%u", runs);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "test: no memory");
}

typedef struct capture_in {
    at_value value;
} capture_in;
static const at_in capture_rows[] = {
    {.name = "value", .type = AT_IN_ANY, .offset = offsetof(capture_in, value), .type_name = "*"}};
static at_status capture_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    kept *k = kept_at(captured, at_node_id(c), true);
    if (!k) return at_fail(AT_EINTERNAL, "test: more than %d captures", MAX_KEPT);
    at_value_clear(&k->value);
    k->value = at_value_copy(&((const capture_in *)in)->value);
    return AT_OK;
}
static const at_node node_capture = {.class_type = "Capture",
                                     .category = "test",
                                     .python_module = "test",
                                     .flags = AT_NODE_OUTPUT,
                                     .in = capture_rows,
                                     .n_in = AT_COUNT(capture_rows),
                                     .in_size = sizeof(capture_in),
                                     .run = capture_run,
                                     .fingerprint = always_new};

typedef struct give_in {
    const char *key;
} give_in;
static const at_in give_rows[] = {
    {.name = "key", .type = AT_IN_STRING, .offset = offsetof(give_in, key)}};
static const at_out give_out[] = {{.type_name = "*", .name = "value"}};
static at_status give_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    kept *k = kept_at(given, ((const give_in *)in)->key, false);
    if (!k) return at_fail(AT_EINTERNAL, "test: nothing given as %s", ((const give_in *)in)->key);
    out[0] = at_value_copy(&k->value);
    return AT_OK;
}
static const at_node node_give = {.class_type = "Give",
                                  .category = "test",
                                  .python_module = "test",
                                  .in = give_rows,
                                  .n_in = AT_COUNT(give_rows),
                                  .out = give_out,
                                  .n_out = 1,
                                  .in_size = sizeof(give_in),
                                  .run = give_run,
                                  .fingerprint = always_new};
static const at_node *const test_nodes[] = {&node_capture, &node_give, NULL};

void world_give(const char *key, at_value v)
{
    kept *k = kept_at(given, key, true);
    assert_non_null(k);
    at_value_clear(&k->value);
    k->value = v;
}

// --- folder and engine -------------------------------------------------------------------------------
static void check(at_status st)
{
    if (st != AT_OK) fail_msg("%s: %s", at_status_facts(st)->name, at_error_text());
}

int world_open(void **state)
{
    world *w = at_calloc(1, sizeof *w);
    assert_non_null(w);
    *state = w;
    snprintf(w->dir, sizeof w->dir, "/tmp/atelier-world-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    check(tiny_models_make(AT_SOURCE_DIR "/tests/golden", world_path(w, "models")));
    check(at_make_dirs(world_path(w, "input")));
    at_engine_config config = {.base_dir = w->dir, .dtype = AT_F32};
    check(at_engine_open(&config, &w->engine));
    // The registry is the engine's own, made by at_calloc: only this view of it is const.
    check(at_registry_add((at_registry *)at_engine_registry(w->engine), test_nodes));
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s, (void)kind, (void)f;
    return remove(path);
}

int world_close(void **state)
{
    world *w = *state;
    kept_clear(captured);
    kept_clear(given);
    at_job_result_free(&w->result);
    at_engine_close(w->engine);
    nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    at_free(w);
    return 0;
}

// --- running -----------------------------------------------------------------------------------------
at_status world_run_text(world *w, const char *text)
{
    at_job job = {.label = "test", .text = text, .bytes = strlen(text)};
    kept_clear(captured);
    at_job_result_free(&w->result);
    at_error_clear();
    runs++;
    w->status = at_engine_run(w->engine, &job, &w->result);
    return w->status;
}

at_status world_try_list(world *w, const char *const *nodes)
{
    at_str s = {0};
    at_str_append(&s, "{");
    for (size_t i = 0; nodes[i]; i++) {
        size_t n = strlen(nodes[i]);
        if (i) at_str_append(&s, ",");
        at_str_append_n(&s, nodes[i], n && nodes[i][n - 1] == ',' ? n - 1 : n);
    }
    at_str_append(&s, "}");
    char *text = at_str_take(&s);
    assert_non_null(text);
    for (char *p = text; *p; p++)
        if (*p == '\'') *p = '"';
    at_status st = world_run_text(w, text);
    at_free(text);
    return st;
}
void world_run_list(world *w, const char *const *nodes)
{
    at_status st = world_try_list(w, nodes);
    if (st != AT_OK)
        fail_msg("%s: %s\n%s", at_status_facts(st)->name, at_error_text(),
                 w->result.node_errors ? w->result.node_errors : "");
}

const char *world_nodes(const char *format, ...)
{
    static char texts[8][4096];
    static size_t turn;
    char *out = texts[turn++ % 8];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(out, sizeof texts[0], format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof texts[0]);
    return out;
}

// --- looking -----------------------------------------------------------------------------------------
const at_value *world_value(const char *id)
{
    kept *k = kept_at(captured, id, false);
    if (!k) fail_msg("Capture node %s did not run", id);
    return &k->value;
}
const at_object *world_object(const char *id, const char *type)
{
    const at_value *v = world_value(id);
    if (v->kind != AT_VAL_OBJECT || strcmp(v->o->type->name, type) != 0)
        fail_msg("Capture node %s saw no %s", id, type);
    return v->o;
}
const at_tensor *world_latent(const char *id)
{
    return ((const at_obj_latent *)world_object(id, "LATENT"))->samples;
}
const at_tensor *world_image(const char *id)
{
    const at_value *v = world_value(id);
    const char *type = v->kind == AT_VAL_OBJECT ? v->o->type->name : "";
    if (strcmp(type, "IMAGE") != 0 && strcmp(type, "MASK") != 0)
        fail_msg("Capture node %s saw no picture", id);
    return ((const at_obj_image *)v->o)->pixels;
}
const at_obj_cond *world_cond(const char *id)
{
    return (const at_obj_cond *)world_object(id, "CONDITIONING");
}
const at_obj_sigmas *world_sigmas(const char *id)
{
    return (const at_obj_sigmas *)world_object(id, "SIGMAS");
}

float *world_floats(const at_tensor *t)
{
    assert_true(t->dtype == AT_F32 && at_tensor_contiguous(t));
    return at_tensor_data(t);
}

static void assert_same_shape(const at_tensor *a, const at_tensor *b)
{
    assert_int_equal(a->rank, b->rank);
    for (int i = 0; i < a->rank; i++)
        assert_int_equal(a->shape[i], b->shape[i]);
}
double world_distance(const at_tensor *a, const at_tensor *b)
{
    const float *p = world_floats(a), *q = world_floats(b);
    double d = 0, n = 0;
    assert_same_shape(a, b);
    for (int64_t i = 0; i < at_tensor_count(a); i++) {
        double e = (double)p[i] - (double)q[i];
        d += e * e;
        n += (double)q[i] * (double)q[i];
    }
    return n > 0 ? sqrt(d / n) : sqrt(d);
}
void world_assert_same(const at_tensor *a, const at_tensor *b)
{
    assert_same_shape(a, b);
    if (memcmp(world_floats(a), world_floats(b), at_tensor_bytes(a)) != 0)
        fail_msg("the tensors differ by %g (relative)", world_distance(a, b));
}

// --- files -------------------------------------------------------------------------------------------
const char *world_path(const world *w, const char *format, ...)
{
    static char text[2][256];
    static int turn;
    char *out = text[turn ^= 1];
    int n = snprintf(out, sizeof text[0], "%s/", w->dir);
    va_list args;
    va_start(args, format);
    vsnprintf(out + n, sizeof text[0] - (size_t)n, format, args);
    va_end(args);
    return out;
}
void world_load(const world *w, const char *name, at_picture *out)
{
    check(at_png_load(world_path(w, "%s", name), out));
}
const char *world_text(const at_picture *p, const char *key)
{
    for (size_t i = 0; i < p->text_count; i++)
        if (strcmp(p->text[i].key, key) == 0) return p->text[i].value;
    return NULL;
}
void world_paint(const world *w, const char *name, int64_t width, int64_t height, int channels)
{
    size_t n = (size_t)(width * height) * (size_t)channels;
    float *p = at_alloc(n * sizeof *p);
    uint32_t x = 12345;
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (float)(x >> 24) / 255.0f;
    }
    check(at_png_save(world_path(w, "input/%s", name), p, width, height, channels, 1, NULL, 0));
    at_free(p);
}
