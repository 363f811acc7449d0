// SPDX-License-Identifier: Apache-2.0
// node_custom_sampling_sigmas.c - SIGMAS taken apart and changed: SplitSigmas, SplitSigmasDenoise, FlipSigmas,
// SetFirstSigma, ExtendIntermediateSigmas, SamplingPercentToSigma; AddNoise, which reads them.
// Idea: a schedule is a list of floats; cuts are Python's slices.
// Easy to get wrong: SplitSigmasDenoise at 0 gives an empty first half, because [:-0] is [:0].
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_custom_sampler.py.
#include "nodes/env.h"
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "models/latent_format.h"
#include "sample/guidance.h"

#define MODULE   "comfy_extras.nodes_custom_sampler"
#define CATEGORY "sampling/custom_sampling/sigmas"

static const at_out sigmas_out[] = {AT_OUT("SIGMAS")};
static const at_out halves_out[] = {{.type_name = "SIGMAS", .name = "high_sigmas"},
                                    {.type_name = "SIGMAS", .name = "low_sigmas"}};
#define SIGMAS_NODE(cls, rows, outs, st, fn)                                                       \
    {                                                                                              \
        .class_type = cls, .display = cls, .category = CATEGORY, .python_module = MODULE,          \
        .in = rows, .n_in = AT_COUNT(rows), .out = outs, .n_out = AT_COUNT(outs),                  \
        .in_size = sizeof(st), .run = fn,                                                          \
    }
#define FINE_FLAGS AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_ROUND_FALSE

static const at_obj_sigmas *list_of(const at_object *o)
{
    return (const at_obj_sigmas *)o;
}

// [start : stop] as a new list.
static at_status give_slice(const at_obj_sigmas *s, int64_t start, int64_t stop, const char *node,
                            at_value *out)
{
    int64_t first, n = at_slice(start, stop, (int64_t)s->count, &first);
    float *values = at_calloc((size_t)n + 1, sizeof *values);
    if (!values) return at_fail(AT_ENOMEM, "%s: no memory", node);
    if (n) memcpy(values, s->values + first, (size_t)n * sizeof *values);
    return at_give(out, at_obj_sigmas_new(values, (size_t)n), node);
}

// --- cuts --------------------------------------------------------------------------------------------
typedef struct split_in {
    at_object *sigmas;
    int64_t step;
} split_in;
static const at_in split_rows[] = {AT_ROW_LINK_BARE(split_in, sigmas, "SIGMAS"),
                                   AT_ROW_INT(split_in, step, 0, 0, 10000)};
// The sigma of `step` is in both halves.
static at_status split_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const split_in *i = in;
    const at_obj_sigmas *s = list_of(i->sigmas);
    int64_t step = at_int_of(i->step);
    at_status st = give_slice(s, 0, step + 1, "SplitSigmas", &out[0]);
    return st == AT_OK ? give_slice(s, step, (int64_t)s->count, "SplitSigmas", &out[1]) : st;
}
static const at_node node_split =
    SIGMAS_NODE("SplitSigmas", split_rows, halves_out, split_in, split_run);

typedef struct denoise_in {
    at_object *sigmas;
    double denoise;
} denoise_in;
static const at_in denoise_rows[] = {AT_ROW_LINK_BARE(denoise_in, sigmas, "SIGMAS"),
                                     AT_ROW_FLOAT_STEP(denoise_in, denoise, 1.0, 0, 1, 0.01)};
static at_status denoise_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const denoise_in *i = in;
    const at_obj_sigmas *s = list_of(i->sigmas);
    int64_t n = (int64_t)s->count;
    double share = rint((double)(n > 0 ? n - 1 : 0) * i->denoise);
    if (!isfinite(share))
        return at_fail(AT_EINVAL, "SplitSigmasDenoise: denoise %g is no share", i->denoise);
    int64_t steps = (int64_t)fmin(fmax(share, -1e9), 1e9);
    at_status st = give_slice(s, 0, -steps, "SplitSigmasDenoise", &out[0]);
    return st == AT_OK ? give_slice(s, -(steps + 1), n, "SplitSigmasDenoise", &out[1]) : st;
}
static const at_node node_split_denoise =
    SIGMAS_NODE("SplitSigmasDenoise", denoise_rows, halves_out, denoise_in, denoise_run);

// --- changes -----------------------------------------------------------------------------------------
typedef struct flip_in {
    at_object *sigmas;
} flip_in;
static const at_in flip_rows[] = {AT_ROW_LINK_BARE(flip_in, sigmas, "SIGMAS")};
// A schedule that would begin at 0 begins a little above.
static at_status flip_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const at_obj_sigmas *s = list_of(((const flip_in *)in)->sigmas);
    float *values = at_calloc(s->count + 1, sizeof *values);
    if (!values) return at_fail(AT_ENOMEM, "FlipSigmas: no memory");
    for (size_t k = 0; k < s->count; k++)
        values[k] = s->values[s->count - 1 - k];
    if (s->count && values[0] == 0) values[0] = 0.0001f;
    return at_give(&out[0], at_obj_sigmas_new(values, s->count), "FlipSigmas");
}
static const at_node node_flip =
    SIGMAS_NODE("FlipSigmas", flip_rows, sigmas_out, flip_in, flip_run);

typedef struct first_in {
    at_object *sigmas;
    double sigma;
} first_in;
static const at_in first_rows[] = {AT_ROW_LINK_BARE(first_in, sigmas, "SIGMAS"),
                                   AT_ROW(first_in, sigma, AT_IN_FLOAT, .def = 136, .min = 0,
                                          .max = 20000, .step = 0.001, .flags = FINE_FLAGS)};
static at_status first_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const first_in *i = in;
    const at_obj_sigmas *s = list_of(i->sigmas);
    if (!s->count) return at_fail(AT_EINVAL, "SetFirstSigma: the list of sigmas is empty");
    at_status st = give_slice(s, 0, (int64_t)s->count, "SetFirstSigma", &out[0]);
    if (st == AT_OK) ((at_obj_sigmas *)out[0].o)->values[0] = (float)i->sigma;
    return st;
}
static const at_node node_first =
    SIGMAS_NODE("SetFirstSigma", first_rows, sigmas_out, first_in, first_run);

typedef struct extend_in {
    at_object *sigmas;
    int64_t steps;
    double start_at_sigma, end_at_sigma;
    const char *spacing;
} extend_in;
static const char *const spacings[] = {"linear", "cosine", "sine", NULL};
static const at_in extend_rows[] = {
    AT_ROW_LINK_BARE(extend_in, sigmas, "SIGMAS"), AT_ROW_INT(extend_in, steps, 2, 1, 100),
    AT_ROW(extend_in, start_at_sigma, AT_IN_FLOAT, .def = -1, .min = -1, .max = 20000, .step = 0.01,
           .flags = FINE_FLAGS),
    AT_ROW(extend_in, end_at_sigma, AT_IN_FLOAT, .def = 12, .min = 0, .max = 20000, .step = 0.01,
           .flags = FINE_FLAGS),
    AT_ROW(extend_in, spacing, AT_IN_COMBO, .choices = spacings, .flags = AT_INF_NO_OPTIONS)};

// Share of the way at inner point k of `steps`.
static float spaced(const char *spacing, int64_t k, int64_t steps)
{
    float x = (float)k / (float)steps, quarter = x * (float)M_PI / 2;
    if (spacing[0] == 'c') return sinf(quarter);
    return spacing[0] == 's' ? 1.0f - cosf(quarter) : x;
}

static at_status extend_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const extend_in *i = in;
    const at_obj_sigmas *s = list_of(i->sigmas);
    int64_t steps = i->steps;
    float high = i->start_at_sigma < 0 ? INFINITY : (float)i->start_at_sigma;
    float low = (float)i->end_at_sigma;
    if (steps < 1 || (double)steps * ((double)s->count + 1) > AT_STEPS_MAX)
        return at_fail(AT_EINVAL,
                       "ExtendIntermediateSigmas: %lld steps for each of %zu, expected at least 1 "
                       "and %d in all",
                       (long long)steps, s->count, AT_STEPS_MAX);
    float *values = at_calloc(s->count * (size_t)steps + 1, sizeof *values);
    if (!values) return at_fail(AT_ENOMEM, "ExtendIntermediateSigmas: no memory");
    size_t n = 0;
    for (size_t k = 0; k < s->count; k++) {
        float from = s->values[k];
        values[n++] = from;
        if (k + 1 == s->count || !(low <= from && from <= high)) continue;
        for (int64_t j = 1; j < steps; j++)
            values[n++] = spaced(i->spacing, j, steps) * (s->values[k + 1] - from) + from;
    }
    return at_give(&out[0], at_obj_sigmas_new(values, n), "ExtendIntermediateSigmas");
}
static const at_node node_extend =
    SIGMAS_NODE("ExtendIntermediateSigmas", extend_rows, sigmas_out, extend_in, extend_run);

// --- SamplingPercentToSigma --------------------------------------------------------------------------
typedef struct percent_in {
    at_object *model;
    double sampling_percent;
    bool return_actual_sigma;
} percent_in;
static const at_in percent_rows[] = {
    AT_ROW_LINK(percent_in, model, "MODEL"),
    AT_ROW_FLOAT_STEP(percent_in, sampling_percent, 0, 0, 1, 0.0001),
    AT_ROW(percent_in, return_actual_sigma, AT_IN_BOOL, .def = 0,
           .tip =
               "at 0 and 1: the model's own ends instead of the values that ranges compare with")};
static const at_out percent_out[] = {{.type_name = "FLOAT", .name = "sigma_value"}};
static at_status percent_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const percent_in *i = in;
    const at_model_sampling *m = at_model_get_sampling(((const at_obj_model *)i->model)->model);
    double sigma = at_percent_to_sigma(m, i->sampling_percent);
    if (i->return_actual_sigma && i->sampling_percent == 0) sigma = at_sigma_max(m);
    if (i->return_actual_sigma && i->sampling_percent == 1) sigma = at_sigma_min(m);
    out[0] = at_value_float(sigma);
    return AT_OK;
}
static const at_node node_percent =
    SIGMAS_NODE("SamplingPercentToSigma", percent_rows, percent_out, percent_in, percent_run);

// --- AddNoise ----------------------------------------------------------------------------------------
typedef struct noise_in {
    at_object *model, *noise, *sigmas, *latent_image;
} noise_in;
static const at_in noise_rows[] = {AT_ROW_LINK_BARE(noise_in, model, "MODEL"),
                                   AT_ROW_LINK_BARE(noise_in, noise, "NOISE"),
                                   AT_ROW_LINK_BARE(noise_in, sigmas, "SIGMAS"),
                                   AT_ROW_LINK_BARE(noise_in, latent_image, "LATENT")};

// The noise object's values for this latent; zeros where it is disabled.
static at_status draw(const at_obj_noise *noise, const at_obj_latent *l, at_tensor **out)
{
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, l->samples->rank, l->samples->shape, out);
    if (st != AT_OK) return st;
    memset(at_tensor_data(*out), 0, at_tensor_bytes(*out));
    if (noise->disabled) return AT_OK;
    return at_prepare_noise(noise->seed, l->samples->rank, l->samples->shape, l->batch_index,
                            at_tensor_data(*out));
}

static bool any_value(const at_tensor *t)
{
    const float *p = at_tensor_data(t);
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        if (p[k] != 0.0f) return true;
    return false;
}

// The noise is as strong as the schedule is long: |first - last|.
static at_status noise_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const noise_in *i = in;
    const at_obj_sigmas *s = list_of(i->sigmas);
    const at_obj_latent *l = (const at_obj_latent *)i->latent_image;
    at_model *model = ((const at_obj_model *)i->model)->model;
    const at_latent_format *f = at_model_latent(model);
    at_tensor *noise = NULL, *host = NULL;
    at_ops *o = NULL;

    if (s->count == 0) {
        out[0] = at_value_object(at_object_retain(i->latent_image));
        return AT_OK;
    }
    float scale = s->count > 1 ? fabsf(s->values[0] - s->values[s->count - 1]) : s->values[0];
    AT_TRY(draw((const at_obj_noise *)i->noise, l, &noise));
    AT_TRY(at_env_ops(c, &o));
    at_tensor *x =
        at_from_host(o, AT_F32, l->samples->rank, l->samples->shape, at_tensor_data(l->samples));
    at_tensor *n = at_from_host(o, AT_F32, noise->rank, noise->shape, at_tensor_data(noise));
    if (any_value(l->samples)) x = at_latent_to_model(o, f, x);
    x = at_add_noise(o, at_model_get_sampling(model), scale, n, x, false);
    x = at_contiguous(o, at_latent_from_model(o, f, x));
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, x->rank, x->shape, &host));
    AT_TRY(at_tensor_to_host(x, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    float *p = at_tensor_data(host);
    for (int64_t k = 0; k < at_tensor_count(host); k++)
        if (!isfinite(p[k])) p[k] = 0;
    st = at_latent_give("AddNoise", l, host, &out[0]);
    host = NULL;
out:
    at_tensor_release(&noise);
    at_tensor_release(&host);
    at_ops_free(o);
    return st;
}
static const at_node node_noise =
    AT_LATENT_NODE("AddNoise", "AddNoise", "_for_testing/custom_sampling/noise", MODULE, 0,
                   noise_rows, noise_in, noise_run);

const at_node *const at_nodes_custom_sampling_sigmas[] = {
    &node_split,  &node_split_denoise, &node_flip,  &node_first,
    &node_extend, &node_percent,       &node_noise, NULL};
