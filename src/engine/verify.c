// SPDX-License-Identifier: Apache-2.0
// verify.c - reads a case, runs its component, compares.
// Idea: components only make named arrays; what is compared is decided by expected.safetensors, so
// a result that is not made fails the case.
// Easy to get wrong: a NaN compares false with everything; the test is "error <= rtol", never
// "error > rtol is a failure".
// Owns: see verify_case.h.
#include "engine/verify.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/verify_case.h"
#include "json/json.h"

typedef struct component_row {
    const char *name;
    at_status (*run)(at_case *c, at_verify_report *r);
    bool exact; // computes in its own type whatever is asked for: tokens, noise, sums of weights
} component_row;

static const component_row components[] = {
    {"denoiser", at_case_denoiser},
    {"text_encoder", at_case_text_encoder},
    {"vae_decode", at_case_vae_decode},
    {"vae_encode", at_case_vae_encode},
    {"tokenizer", at_case_tokenizer, .exact = true},
    {"sampler", at_case_sampler, .exact = true},
    {"noise", at_case_noise, .exact = true},
    {"controlnet", at_case_controlnet},
    {"clip_vision", at_case_clip_vision},
    {"style_model", at_case_style_model},
    {"gligen", at_case_gligen},
    {"photomaker", at_case_photomaker},
    {"upscaler", at_case_upscaler},
    {"weights", at_case_weights, .exact = true},
};

// --- reading a case ----------------------------------------------------------------------------
at_status at_case_path(const at_case *c, const json_t *object, const char *key, char **path)
{
    const char *name = json_string_value(json_object_get(object, key));
    *path = NULL;
    if (!name) return AT_OK;
    *path =
        at_path_join(c->dir, name); // the user's own case: "../other/model.safetensors" is meant
    return *path ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for a path", c->dir);
}

const char *at_case_text(const at_case *c, const char *option, const char *fallback)
{
    const char *s = json_string_value(json_object_get(c->options, option));
    return s ? s : fallback;
}

double at_case_number(const at_case *c, const char *option, double fallback)
{
    const json_t *v = json_object_get(c->options, option);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

static at_status load_json(at_case *c)
{
    at_status st = AT_OK;
    char *path = at_path_join(c->dir, "case.json"), *text = NULL;
    size_t size;

    if (!path) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a path", c->dir));
    AT_TRY(at_file_read(path, 16u << 20, &text, &size));
    st = at_json_load(path, text, size, &c->json);
    if (st == AT_EWORKFLOW) AT_TRY(at_fail(AT_EFORMAT, "%s", at_error_text()));
    AT_TRY(st);
    c->options = json_object_get(c->json, "options");
    if (!c->options) {
        json_object_set_new(c->json, "options", json_object());
        c->options = json_object_get(c->json, "options");
    }
    if (!json_is_object(c->options))
        AT_TRY(at_fail(AT_EFORMAT, "%s: it is no object with an object \"options\"", path));
out:
    at_free(text);
    at_free(path);
    return st;
}

static at_status open_store(const at_case *c, const char *key, at_store **out)
{
    at_status st = AT_OK;
    char *path = NULL;
    AT_TRY(at_case_path(c, c->json, key, &path));
    if (path) AT_TRY(at_store_open(path, out));
out:
    at_free(path);
    return st;
}

// What else a case may be computed in, and how far off that may be: what roundings to 8 and to 4 bits
// sum up to over a few dozen layers. A case where more is right says so ("rtol_bf16", with its reason in
// tools/golden/case.py).
static const struct {
    const char *name;
    at_dtype compute;
    bool fp8;
    double rtol;
    const char *key;
} modes[] = {
    {"f32", AT_F32, false, 0, "rtol_f32"},    {"bf16", AT_BF16, false, 1e-2, "rtol_bf16"},
    {"f16", AT_F16, false, 1e-2, "rtol_f16"}, {"fp16", AT_F16, false, 1e-2, "rtol_f16"},
    {"fp8", AT_BF16, true, 1e-1, "rtol_fp8"},
};

// Type and tolerance: the case's own, or what is asked for.
static at_status pick_type(at_case *c, const char *asked)
{
    const char *own = json_string_value(json_object_get(c->json, "dtype"));

    c->rtol = json_number_value(json_object_get(c->json, "rtol"));
    if (!own || !at_dtype_parse(own, &c->dtype))
        return at_fail(AT_EINVAL, "%s: dtype \"%s\" is not known", c->dir, own ? own : "");
    if (!asked) return AT_OK;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i].name, asked) != 0) continue;
        if (modes[i].compute == c->dtype && !modes[i].fp8) return AT_OK;
        const json_t *told = json_object_get(c->json, modes[i].key);
        double rtol = told ? json_number_value(told) : modes[i].rtol;
        const json_t *bf16 = modes[i].fp8 ? json_object_get(c->json, "rtol_bf16") : NULL;
        if (bf16 && json_number_value(bf16) > rtol) rtol = json_number_value(bf16);
        c->dtype = modes[i].compute;
        c->fp8 = modes[i].fp8;
        if (rtol > c->rtol) c->rtol = rtol;
        return AT_OK;
    }
    return at_fail(AT_EINVAL, "%s: dtype \"%s\" is not known", c->dir, asked);
}

// NULL: there is no such component.
static const component_row *component_of(const at_case *c)
{
    const char *name = json_string_value(json_object_get(c->json, "component"));

    for (size_t i = 0; name && i < sizeof components / sizeof *components; i++)
        if (strcmp(components[i].name, name) == 0) return &components[i];
    return NULL;
}

static at_status open_case(at_case *c, const at_verify_options *opt, const component_row **row)
{
    at_status st = AT_OK;

    AT_TRY(load_json(c));
    *row = component_of(c);
    AT_TRY(pick_type(c, opt && !(*row && (*row)->exact) ? opt->dtype : NULL));
    if (opt && opt->rtol > 0) c->rtol = opt->rtol;
    c->ranks = opt && opt->ranks > 1 ? opt->ranks : 1;
    c->layers = opt && opt->layers;
    c->repeat = opt && opt->repeat > 1 ? opt->repeat : 1;
    c->device = opt ? opt->device : NULL;
    AT_TRY(at_case_path(c, c->json, "model", &c->model));
    AT_TRY(open_store(c, "inputs", &c->inputs));
    AT_TRY(open_store(c, "expected", &c->expected));
    if (!c->expected)
        AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"expected\" file", c->dir));
    at_ops_config config = {.device = c->device, .compute = c->dtype, .fp8 = c->fp8};
    AT_TRY(at_ops_new(&config, &c->ops));
out:
    return st;
}

static void close_case(at_case *c)
{
    for (size_t i = 0; i < c->n_outs; i++)
        at_free(c->outs[i].data);
    at_free(c->outs);
    at_ops_free(c->ops);
    at_store_release(&c->inputs);
    at_store_release(&c->expected);
    at_free(c->model);
    json_decref(c->json);
}

at_status at_case_values(at_case *c, const char *name, bool optional, float **out, int64_t *count)
{
    const at_weight *w = c->inputs ? at_store_find(c->inputs, name) : NULL;
    *out = NULL;
    *count = 0;
    if (!w && optional) return AT_OK;
    if (!w) return at_fail(AT_ENOTFOUND, "%s: the inputs have no tensor \"%s\"", c->dir, name);
    *count = at_weight_elements(w);
    *out = at_alloc((size_t)*count * sizeof **out);
    if (!*out) return at_fail(AT_ENOMEM, "%s: no memory for input %s", c->dir, name);
    at_weight_read_f32(w, 0, *count, *out);
    return AT_OK;
}

at_status at_case_input(at_case *c, const char *name, bool optional, at_tensor **out)
{
    at_status st = AT_OK;
    float *values = NULL;
    int64_t n;

    *out = NULL;
    AT_TRY(at_case_values(c, name, optional, &values, &n));
    if (!values) goto out;
    const at_weight *w = at_store_find(c->inputs, name);
    *out = at_from_host(c->ops, AT_F32, w->rank, w->shape, values);
    st = at_ops_status(c->ops);
out:
    at_free(values);
    return st;
}

// --- outputs -----------------------------------------------------------------------------------
// Takes `data`, also on failure.
static at_status push_output(at_case *c, const char *name, float *data, int64_t n)
{
    at_case_out *outs = at_realloc(c->outs, (c->n_outs + 1) * sizeof *outs);
    if (!outs || !data) {
        at_free(data);
        if (outs) c->outs = outs;
        return at_fail(AT_ENOMEM, "%s: no memory for output %s", c->dir, name);
    }
    c->outs = outs;
    at_case_out *o = &outs[c->n_outs++];
    *o = (at_case_out){.data = data, .count = n};
    snprintf(o->name, sizeof o->name, "%s", name);
    return AT_OK;
}

at_status at_case_output(at_case *c, const char *name, const float *values, int64_t n)
{
    float *copy = at_alloc((size_t)n * sizeof *copy);
    if (copy && n) memcpy(copy, values, (size_t)n * sizeof *copy);
    return push_output(c, name, copy, n);
}

at_status at_case_output_tensor(at_case *c, const char *name, const at_tensor *t)
{
    at_status st = at_ops_status(c->ops);
    if (st != AT_OK || !t) return st;
    int64_t n = at_tensor_count(t);
    float *data = at_alloc((size_t)n * sizeof *data);
    if (!data) return at_fail(AT_ENOMEM, "%s: no memory for output %s", c->dir, name);
    st = at_tensor_to_host(t, AT_F32, data, (size_t)n * sizeof *data);
    if (st == AT_OK) return push_output(c, name, data, n);
    at_free(data);
    return st;
}

// --- comparing ---------------------------------------------------------------------------------
static void compare_values(at_verify_row *row, const float *got, const float *want, int64_t n)
{
    double diff = 0, norm = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        diff += d * d;
        norm += (double)want[i] * (double)want[i];
        if (!(fabs(d) <= worst)) worst = fabs(d); // a NaN stays
    }
    row->max_abs = worst;
    row->rel_err = norm > 0 ? sqrt(diff / norm) : diff > 0 ? INFINITY : sqrt(diff);
}

// Every output of that name counts (each rank gives one); the worst is the row.
static at_status compare_one(const at_case *c, const at_weight *want, at_verify_row *row)
{
    int64_t n = at_weight_elements(want);
    float *values = at_alloc((size_t)n * sizeof *values);
    bool made = false, pass = true;

    snprintf(row->name, sizeof row->name, "%s", want->name);
    if (!values) return at_fail(AT_ENOMEM, "%s: no memory for %s", c->dir, want->name);
    at_weight_read_f32(want, 0, n, values);
    for (size_t i = 0; i < c->n_outs; i++) {
        const at_case_out *got = &c->outs[i];
        at_verify_row one = {.rel_err = INFINITY, .max_abs = INFINITY};
        if (strcmp(got->name, want->name) != 0) continue;
        if (got->count == n) compare_values(&one, got->data, values, n);
        if (!made || !(one.rel_err <= row->rel_err)) row->rel_err = one.rel_err;
        if (!made || !(one.max_abs <= row->max_abs)) row->max_abs = one.max_abs;
        pass = pass && one.rel_err <= c->rtol && isfinite(one.max_abs);
        made = true;
    }
    if (!made) row->rel_err = row->max_abs = INFINITY;
    row->pass = made && pass;
    at_free(values);
    return AT_OK;
}

static at_status compare_all(const at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    size_t n = at_store_count(c->expected);

    r->rows = at_calloc(n ? n : 1, sizeof *r->rows);
    if (!r->rows) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a report", c->dir));
    if (!n) AT_TRY(at_fail(AT_EFORMAT, "%s: nothing is expected", c->dir));
    r->pass = true;
    for (size_t i = 0; i < n; i++) {
        AT_TRY(compare_one(c, at_store_at(c->expected, i), &r->rows[i]));
        r->count++;
        r->pass = r->pass && r->rows[i].pass;
    }
out:
    return st;
}

at_status at_verify_case(const char *case_dir, const at_verify_options *opt, at_verify_report *out)
{
    at_status st = AT_OK;
    at_case c = {.dir = case_dir};
    const component_row *row = NULL;

    *out = (at_verify_report){0};
    AT_TRY(open_case(&c, opt, &row));
    if (!row) {
        const char *name = json_string_value(json_object_get(c.json, "component"));
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s: component \"%s\" is not known", case_dir,
                       name ? name : ""));
    }
    AT_TRY(row->run(&c, out));
    at_ops_stats stats;
    at_ops_stats_get(c.ops, &stats);
    out->gflops_linear = stats.flops_linear / 1e9;
    out->seconds_linear = stats.seconds_linear;
    out->gflops_conv = stats.flops_conv / 1e9;
    out->seconds_conv = stats.seconds_conv;
    out->gflops_attention = stats.flops_attention / 1e9;
    out->seconds_attention = stats.seconds_attention;
    AT_TRY(compare_all(&c, out));
out:
    close_case(&c);
    if (st != AT_OK) at_verify_report_free(out);
    return st;
}

void at_verify_report_free(at_verify_report *r)
{
    at_free(r->rows);
    *r = (at_verify_report){0};
}

void at_verify_print(const at_verify_report *r, FILE *to)
{
    for (size_t i = 0; i < r->count; i++)
        fprintf(to, "%s rel_err=%.3e max_abs=%.3e %s\n", r->rows[i].name, r->rows[i].rel_err,
                r->rows[i].max_abs, r->rows[i].pass ? "PASS" : "FAIL");
}
