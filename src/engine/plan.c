// SPDX-License-Identifier: Apache-2.0
// plan.c - what a workflow will cost.
// How it finds things: from a sampler it follows the links named "model", "guider", "sigmas", "positive" and
// "latent_image" upwards until a node carries the literal it looks for; patches in between pass it on.
#include "engine/plan.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/places.h"
#include "engine/plan_memory.h"

#define MAX_HOPS         64
#define FLUX_TEXT_TOKENS 256

static const json_t *node_inputs(const json_t *prompt, const char *id)
{
    return json_object_get(json_object_get(prompt, id), "inputs");
}
static const char *node_class(const json_t *prompt, const char *id)
{
    return json_string_value(json_object_get(json_object_get(prompt, id), "class_type"));
}
static const char *link_source(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) == 2
               ? json_string_value(json_array_get(value, 0))
               : NULL;
}

// From node `id` upwards along inputs of these names: the literal `wanted` of the first node that has one.
static const json_t *seek(const json_t *prompt, const char *id, const char *const *along,
                          const char *wanted)
{
    for (int hop = 0; id && hop < MAX_HOPS; hop++) {
        const json_t *in = node_inputs(prompt, id);
        const json_t *value = json_object_get(in, wanted);
        const char *from = link_source(value); // a primitive's value
        if (from) value = json_object_get(node_inputs(prompt, from), "value");
        if (value && !json_is_array(value)) return value;
        const char *next = NULL;
        for (size_t i = 0; along[i] && !next; i++)
            next = link_source(json_object_get(in, along[i]));
        id = next;
    }
    return NULL;
}

static int64_t seek_int(const json_t *prompt, const char *id, const char *const *along,
                        const char *wanted)
{
    const json_t *v = seek(prompt, id, along, wanted);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

static const char *const along_model[] = {"guider", "model", NULL};
static const char *const along_latent[] = {"latent_image", "samples", NULL};
static const char *const along_steps[] = {"sigmas", NULL};

// Inputs that name a model file, and the folder they mean.
typedef struct file_input {
    const char *input, *kind;
} file_input;
static const file_input file_inputs[] = {
    {"ckpt_name", "checkpoints"},
    {"unet_name", "diffusion_models"},
    {"clip_name", "text_encoders"},
    {"clip_name1", "text_encoders"},
    {"clip_name2", "text_encoders"},
    {"clip_name3", "text_encoders"},
    {"vae_name", "vae"},
};

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "plan: no memory");
}

// The networks of a file that run: each file once.
static at_device *asked_device(const json_t *in, at_part kind)
{
    const char *own = kind == AT_PART_TEXT  ? "clip_device"
                      : kind == AT_PART_VAE ? "vae_device"
                                            : "unet_device";
    const char *name = json_string_value(json_object_get(in, own));
    // A checkpoint's one device is not for its text encoders.
    if (!name && !(kind == AT_PART_TEXT && json_object_get(in, "ckpt_name")))
        name = json_string_value(json_object_get(in, "device"));
    return name ? at_device_find(name) : NULL;
}

static at_status add_parts(at_plan *p, const json_t *in, const char *name, const char *path,
                           const at_found *found, size_t n)
{
    for (size_t i = 0; i < p->part_count; i++)
        if (strcmp(p->parts[i].path, path) == 0) return AT_OK;
    for (size_t i = 0; i < n; i++) {
        at_part kind = found[i].part;
        if (kind != AT_PART_DENOISER && kind != AT_PART_TEXT && kind != AT_PART_VAE) continue;
        at_plan_part *grown = at_realloc(p->parts, (p->part_count + 1) * sizeof *grown);
        if (!grown) return no_memory();
        p->parts = grown;
        at_plan_part *part = &grown[p->part_count++];
        *part = (at_plan_part){.file = at_strdup(name),
                               .path = at_strdup(path),
                               .found = found[i],
                               .asked = asked_device(in, kind)};
        if (!part->file || !part->path) return no_memory();
    }
    return AT_OK;
}

static at_status add_model(at_engine *e, at_plan *p, const json_t *prompt, const char *id,
                           const file_input *f, const char *name)
{
    at_status st = AT_OK;
    at_env *env = at_engine_env(e);
    char *path = NULL;
    at_store *s = NULL;
    at_found found[8];
    at_str arch = {0};

    AT_TRY(env->find_file(env, f->kind, name, &path));
    AT_TRY(env->open_store(env, path, &s));
    size_t n = at_detect(s, found, 8);
    for (size_t i = 0; i < n; i++)
        at_str_printf(&arch, "%s%s", i ? " + " : "", at_arch_title(found[i].arch));
    double parameters = 0;
    for (size_t i = 0; i < at_store_count(s); i++)
        parameters += (double)at_weight_elements(at_store_at(s, i));
    at_plan_model *grown = at_realloc(p->models, (p->model_count + 1) * sizeof *grown);
    if (!grown) AT_TRY(no_memory());
    p->models = grown;
    if (arch.failed) AT_TRY(no_memory());
    at_plan_model *m = &grown[p->model_count++];
    *m = (at_plan_model){.node = at_strdup(id),
                         .class_type = at_strdup(node_class(prompt, id)),
                         .file = at_strdup(name),
                         .architecture = at_strdup(n ? at_str_text(&arch) : "unknown"),
                         .bytes = (double)at_store_file_bytes(s),
                         .parameters = parameters};
    if (!m->node || !m->class_type || !m->file || !m->architecture) AT_TRY(no_memory());
    AT_TRY(add_parts(p, node_inputs(prompt, id), name, path, found, n));
out:
    at_str_free(&arch);
    at_store_release(&s);
    at_free(path);
    return st;
}

static at_status add_models(at_engine *e, at_plan *p, const json_t *prompt)
{
    const char *id;
    json_t *node;
    json_object_foreach((json_t *)prompt, id, node)
    {
        for (size_t i = 0; i < AT_COUNT(file_inputs); i++) {
            const char *name =
                json_string_value(json_object_get(node_inputs(prompt, id), file_inputs[i].input));
            // The names of tiny autoencoders are no files.
            if (!name || strcmp(name, "pixel_space") == 0) continue;
            if (at_starts_with(name, "tae") && !strchr(name, '.')) continue;
            at_status st = add_model(e, p, prompt, id, &file_inputs[i], name);
            if (st != AT_OK) return at_fail_context(st, "node %s: ", id);
        }
    }
    return AT_OK;
}

// The denoiser behind a sampler, for its cost; NULL (and AT_OK) if no loader is found above it.
static at_status open_denoiser(at_engine *e, const json_t *prompt, const char *id,
                               const char **file, at_model **out)
{
    at_env *env = at_engine_env(e);
    char *path = NULL;
    at_store *s = NULL;
    const char *kind = "diffusion_models";
    *file = json_string_value(seek(prompt, id, along_model, "unet_name"));
    if (!*file) {
        *file = json_string_value(seek(prompt, id, along_model, "ckpt_name"));
        kind = "checkpoints";
    }
    if (!*file) return AT_OK;
    at_status st = env->find_file(env, kind, *file, &path);
    if (st == AT_OK) st = env->open_store(env, path, &s);
    if (st == AT_OK) st = at_model_load(s, *file, out);
    at_store_release(&s);
    at_free(path);
    return st;
}

static at_status add_sampler(at_engine *e, at_plan *p, const json_t *prompt, const char *id,
                             at_dtype compute)
{
    at_model *m = NULL;
    const char *file = NULL;
    at_status st = open_denoiser(e, prompt, id, &file, &m);
    if (st != AT_OK) return at_fail_context(st, "node %s: ", id);
    at_plan_sampler *grown = at_realloc(p->samplers, (p->sampler_count + 1) * sizeof *grown);
    if (!grown) {
        at_model_release(&m);
        return no_memory();
    }
    p->samplers = grown;
    at_plan_sampler *s = &grown[p->sampler_count++];
    *s = (at_plan_sampler){.node = at_strdup(id),
                           .class_type = at_strdup(node_class(prompt, id)),
                           .model_file = at_strdup(file ? file : "?"),
                           .width = seek_int(prompt, id, along_latent, "width"),
                           .height = seek_int(prompt, id, along_latent, "height"),
                           .batch = seek_int(prompt, id, along_latent, "batch_size"),
                           .steps = seek_int(prompt, id, along_steps, "steps"),
                           .text_tokens = FLUX_TEXT_TOKENS};
    const json_t *cfg = seek(prompt, id, along_model, "cfg");
    s->guided = cfg && json_number_value(cfg) != 1.0;
    if (m && s->width && s->height) {
        int down = at_model_latent(m)->downscale;
        int64_t batch = s->batch ? s->batch : 1;
        s->cost = at_model_estimate(m, batch * (s->guided ? 2 : 1), s->height / down,
                                    s->width / down, s->text_tokens, compute);
    }
    at_model_release(&m);
    return s->node && s->class_type && s->model_file ? AT_OK : no_memory();
}

at_status at_plan_sizes(at_engine *e, const at_graph *g, at_dtype compute, at_plan *out)
{
    const json_t *prompt = at_graph_json(g);
    const char *id;
    json_t *node;
    *out = (at_plan){.node_count = at_graph_count(g)};
    at_status st = add_models(e, out, prompt);
    json_object_foreach((json_t *)prompt, id, node)
    {
        if (st != AT_OK) break;
        const json_t *in = node_inputs(prompt, id);
        if (json_object_get(in, "latent_image") &&
            (json_object_get(in, "model") || json_object_get(in, "guider")))
            st = add_sampler(e, out, prompt, id, compute);
    }
    if (st != AT_OK) at_plan_free(out);
    return st;
}

at_status at_plan_make(at_engine *e, const at_graph *g, at_dtype compute, at_plan *out)
{
    at_status st = at_plan_sizes(e, g, compute, out);

    if (st == AT_OK) st = at_plan_memory(e, out);
    // Elsewhere a network may compute in another type.
    if (st == AT_OK && at_places_plan(at_engine_places(e), at_engine_env(e), out))
        st = at_plan_memory(e, out);
    if (st != AT_OK) at_plan_free(out);
    return st;
}

at_par_task at_plan_task(const at_plan_sampler *s)
{
    int64_t batch = s->batch ? s->batch : 1, rows = batch * (s->guided ? 2 : 1);
    return (at_par_task){.flops = s->cost.flops / (double)rows,
                         .activation_bytes = s->cost.activation_bytes / (double)rows,
                         .weight_bytes = s->cost.weight_bytes,
                         .conditionings = s->guided ? 2 : 1,
                         .batch = batch,
                         .steps = s->steps,
                         .hints = s->cost.share};
}

void at_plan_free(at_plan *p)
{
    for (size_t i = 0; i < p->model_count; i++) {
        at_free(p->models[i].node);
        at_free(p->models[i].class_type);
        at_free(p->models[i].file);
        at_free(p->models[i].architecture);
    }
    for (size_t i = 0; i < p->sampler_count; i++) {
        at_free(p->samplers[i].node);
        at_free(p->samplers[i].class_type);
        at_free(p->samplers[i].model_file);
    }
    for (size_t i = 0; i < p->part_count; i++) {
        at_free(p->parts[i].file);
        at_free(p->parts[i].path);
    }
    at_free(p->parts);
    at_free(p->models);
    at_free(p->samplers);
    *p = (at_plan){0};
}
