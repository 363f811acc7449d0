// SPDX-License-Identifier: Apache-2.0
// engine.c - opening an engine and running a workflow through parse, check and execute.
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "cpu/cpu.h"
#include "engine/claims.h"
#include "engine/extra.h"
#include "engine/places.h"
#include "engine/plugins.h"
#include "engine/ranks.h"
#include "engine/stores.h"
#include "json/json.h"
#include "nodes/team.h"
#include "nodes/nodes.h"
#include "text/find.h"

struct at_engine {
    at_paths *paths;
    at_registry *registry;
    at_cache *cache;
    at_stores *stores;
    at_places *places;
    at_claims *claims;    // of the job that runs; NULL: none are kept
    at_engine_view base;  // of the folders themselves
    at_previews previews; // where a job does not say
};

void at_engine_setup_devices(void)
{
    if (!at_device_cpu()->backend) at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
}

// A GPU that is there and cannot be used is worth a line; a machine without one is not.
static at_device *best_device(void)
{
    at_plugins_load();
    at_device *d = at_device_find("cuda:0");
    for (int i = 0; i < at_device_count() && !d; i++)
        if (!at_device_at(i)->host) d = at_device_at(i);
    if (!d && at_plugins_failed())
        at_log(AT_WARN, "DEVICE-CPU", "%s; computing on the CPU", at_plugins_reason());
    if (!d) d = at_device_cpu();
    at_log(AT_INFO, "DEVICE", "computing on %s: %s", d->name, d->description);
    return d;
}

at_status at_engine_device(const char *name, at_device **out)
{
    at_engine_setup_devices();
    *out = at_device_cpu();
    if (name && strcmp(name, "cpu") == 0) return AT_OK;
    if (!name || strcmp(name, "auto") == 0) {
        *out = best_device();
        return AT_OK;
    }
    at_plugins_load();
    *out = at_device_find(strcmp(name, "cuda") == 0 ? "cuda:0" : name);
    if (*out) return AT_OK;
    if (at_starts_with(name, "cuda") && *at_plugins_reason())
        return at_fail(AT_EDEVICE, "--device %s: %s; `atelier devices` lists what works", name,
                       at_plugins_reason());
    return at_fail(AT_EDEVICE, "--device %s: no such device here; `atelier devices` lists them",
                   name);
}

char *at_program_root(void)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return NULL;
    exe[n] = 0;
    char *bin = at_path_dir(exe);
    char *root = bin ? at_path_dir(bin) : NULL;
    at_free(bin);
    return root;
}

// --- what nodes ask for ------------------------------------------------------------------------------
static at_status env_find_file(at_env *env, const char *kind, const char *name, char **path)
{
    return at_paths_find(((at_engine *)env->engine)->paths, kind, name, path);
}
static at_status env_list_files(at_env *env, const char *kind,
                                void (*each)(void *ctx, const char *name), void *ctx)
{
    return at_paths_list(((at_engine *)env->engine)->paths, kind, each, ctx);
}
static char *env_claim_file(at_env *env, const char *node, const char *path)
{
    at_claims *c = ((at_engine *)env->engine)->claims;
    return c ? at_claims_next(c, node, path) : at_strdup(path);
}
static at_status env_open_store(at_env *env, const char *path, at_store **out)
{
    return at_stores_open(((at_engine *)env->engine)->stores, path, out);
}
static at_status env_find_tokenizer(at_env *env, at_tokenizer_kind kind, const char *model_path,
                                    at_tokenizer **out)
{
    const char *const *roots = NULL;
    size_t n = at_paths_roots(((at_engine *)env->engine)->paths, &roots);
    return at_tokenizer_find(kind, model_path, roots, n, out);
}

// What Python's mimetypes calls an image, which is how ComfyUI filters its input folder.
static bool is_picture(const char *name)
{
    static const char *const extensions[] = {".png", ".jpg", ".jpeg", ".jpe",  ".webp", ".gif",
                                             ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
                                             ".ico", ".svg", ".ppm",  ".pgm",  ".pbm",  ".pnm"};
    for (size_t i = 0; i < AT_COUNT(extensions); i++)
        if (at_equal_nocase(at_path_ext(name), extensions[i])) return true;
    return false;
}

// A tiny autoencoder is two files among vae_approx; both there: it is listed by its name.
enum { TINY_VAES = 4 };
static const char *const tiny_vaes[TINY_VAES] = {"taesd", "taesdxl", "taesd3", "taef1"};
typedef struct tiny_halves {
    bool decoder[TINY_VAES], encoder[TINY_VAES];
} tiny_halves;

static void see_half(void *ctx, const char *name)
{
    tiny_halves *seen = ctx;
    for (int i = 0; i < TINY_VAES; i++) {
        size_t n = strlen(tiny_vaes[i]);
        if (strncmp(name, tiny_vaes[i], n) != 0) continue;
        seen->decoder[i] = seen->decoder[i] || at_starts_with(name + n, "_decoder.");
        seen->encoder[i] = seen->encoder[i] || at_starts_with(name + n, "_encoder.");
    }
}

static at_status list_tiny_vaes(at_engine *e, void (*each)(void *each_ctx, const char *name),
                                void *each_ctx)
{
    tiny_halves seen = {0};
    at_status st = at_paths_list(e->paths, "vae_approx", see_half, &seen);
    for (int i = 0; i < TINY_VAES && st == AT_OK; i++)
        if (seen.decoder[i] && seen.encoder[i]) each(each_ctx, tiny_vaes[i]);
    return st;
}

// Files of the input folder that `wanted` takes.
static at_status list_input(const char *dir, bool (*wanted)(const char *name),
                            void (*each)(void *each_ctx, const char *name), void *each_ctx)
{
    at_list l = {0};
    if (!at_path_is_dir(dir)) return AT_OK;
    at_status st = at_list_files(dir, false, 100000, &l);
    if (st == AT_EIO) at_log(AT_WARN, "INPUT-LIST", "%s", at_error_text());
    if (st != AT_OK) return st == AT_EIO ? AT_OK : st;
    for (size_t i = 0; i < l.count; i++)
        if (wanted(l.items[i])) each(each_ctx, l.items[i]);
    at_list_free(&l);
    return AT_OK;
}

static bool is_latent(const char *name)
{
    return at_ends_with(name, ".latent");
}

// "input" and "input_latents" are pictures and latents of the input folder; all others are kinds of
// models.
static at_status list_files(void *ctx, const char *kind,
                            void (*each)(void *each_ctx, const char *name), void *each_ctx)
{
    const at_engine_view *v = ctx;
    at_engine *e = v->engine;
    const char *input = v->env.input_dir;
    if (strcmp(kind, "input") == 0) return list_input(input, is_picture, each, each_ctx);
    if (strcmp(kind, "input_latents") == 0) return list_input(input, is_latent, each, each_ctx);
    at_status st = at_paths_list(e->paths, kind, each, each_ctx);
    if (st == AT_OK && strcmp(kind, "vae") == 0) st = list_tiny_vaes(e, each, each_ctx);
    if (st == AT_OK && strcmp(kind, "vae") == 0) each(each_ctx, "pixel_space");
    return st;
}

// --- opening -----------------------------------------------------------------------------------------
static at_status add_root_below(at_paths *p, const char *dir, const char *name)
{
    char *path = at_path_join(dir, name);
    if (!path) return at_fail(AT_ENOMEM, "engine: no memory");
    at_status st = at_path_is_dir(path) ? at_paths_add_root(p, path) : AT_OK;
    at_free(path);
    return st;
}

// Order: folders of the command line, the base folder, ./models, then what came with the program.
static at_status open_paths(at_engine *e, const at_engine_config *c)
{
    at_status st = AT_OK;
    char *root = NULL, *yaml = NULL;

    AT_TRY(at_paths_new(&e->paths));
    for (size_t i = 0; i < c->models_count; i++) {
        if (!at_path_is_dir(c->models_dirs[i]))
            AT_TRY(at_fail(AT_ENOTFOUND, "--models %s: no such folder", c->models_dirs[i]));
        AT_TRY(at_paths_add_root(e->paths, c->models_dirs[i]));
    }
    if (c->base_dir) {
        if (!at_path_is_dir(c->base_dir))
            AT_TRY(at_fail(AT_ENOTFOUND, "--base-directory %s: no such folder", c->base_dir));
        AT_TRY(add_root_below(e->paths, c->base_dir, "models"));
        yaml = at_path_join(c->base_dir, "extra_model_paths.yaml");
        if (yaml && at_path_exists(yaml)) AT_TRY(at_paths_add_yaml(e->paths, yaml));
    }
    for (size_t i = 0; i < c->yaml_count; i++)
        AT_TRY(at_paths_add_yaml(e->paths, c->yaml_files[i]));
    AT_TRY(add_root_below(e->paths, ".", "models"));
    root = at_program_root();
    if (root) {
        AT_TRY(add_root_below(e->paths, root, "models"));       // a dist: bin/, models/
        AT_TRY(add_root_below(e->paths, root, "../../models")); // a build: build/NAME/bin
        AT_TRY(add_root_below(e->paths, root, "share/atelier"));
    }
out:
    at_free(root);
    at_free(yaml);
    return st;
}

static char *working_dir(const char *given, const char *base, const char *name)
{
    return given ? at_strdup(given) : at_path_join(base ? base : ".", name);
}

// A part's dtype in the config, whose zero is "automatic".
static at_env_part wish(int dtype)
{
    at_env_part p = {AT_DTYPE_COUNT, AT_DTYPE_COUNT};
    if (dtype == 0) return p;
    at_dtype t = (at_dtype)(dtype - 1);
    *(t == AT_F8E4M3 || t == AT_F8E5M2 ? &p.storage : &p.compute) = t;
    return p;
}

// What of the device's memory may be taken.
static void limit_memory(at_device *d, const at_engine_config *c)
{
    uint64_t rest = 0, total = 0;
    double reserve = c->reserve_gib == 0 ? 0.4 : c->reserve_gib;

    if (d->host) return;
    d->reserve_bytes = reserve > 0 ? (size_t)(reserve * 0x1p30) : 0;
    d->drop_idle = c->drop_idle_models;
    d->weight_bytes = c->vram == AT_VRAM_NONE ? 1 : 0;
    if (c->vram == AT_VRAM_LOW && d->ops->memory(d, &rest, &total) == AT_OK)
        d->weight_bytes = (size_t)(total / 2);
}

// Where one rank works: --device, or the first of --devices.
static const char *first_device(const at_engine_config *c, char name[32])
{
    if (c->device) return c->device;
    if (c->cpu_ranks) return "cpu";
    if (!c->devices) return NULL;
    snprintf(name, 32, "%.*s", (int)strcspn(c->devices, ","), c->devices);
    return name;
}

static at_status open_env(at_engine *e, const at_engine_config *c)
{
    char name[32];
    at_device *d = NULL;
    at_env who = {0};
    at_status st = at_engine_device(first_device(c, name), &d);
    who.device = d;
    if (st == AT_OK) st = at_engine_ranks(c, &who);
    if (st != AT_OK) return st;
    if (c->most_ranks) d = who.ranks.device[0]; // not the first of all
    if (who.ranks.n > 1 && !(who.ranks.kept = at_calloc(1, sizeof *who.ranks.kept)))
        return at_fail(AT_ENOMEM, "engine: no memory");
    limit_memory(d, c);
    for (int i = 0; i < who.ranks.n; i++)
        limit_memory(who.ranks.device[i], c);
    at_engine_view *v = &e->base;
    v->engine = e;
    v->env.ranks = who.ranks; // its comm goes with the engine from here on
    v->dirs[0] = working_dir(c->input_dir, c->base_dir, "input");
    v->dirs[1] = working_dir(c->output_dir, c->base_dir, "output");
    v->dirs[2] = working_dir(c->temp_dir, c->base_dir, "temp");
    if (!v->dirs[0] || !v->dirs[1] || !v->dirs[2]) return at_fail(AT_ENOMEM, "engine: no memory");
    v->env = (at_env){.device = d,
                      .ranks = who.ranks,
                      .open_comms = who.open_comms,
                      .dtype = c->auto_dtype ? AT_DTYPE_COUNT : (at_dtype)c->dtype,
                      .parts = {wish(c->unet_dtype), wish(c->vae_dtype), wish(c->text_dtype)},
                      .fast_fp8 = c->fast_fp8,
                      .input_dir = v->dirs[0],
                      .output_dir = v->dirs[1],
                      .temp_dir = v->dirs[2],
                      .disable_metadata = c->disable_metadata,
                      .previews = c->previews,
                      .engine = e,
                      .find_file = env_find_file,
                      .list_files = env_list_files,
                      .open_store = env_open_store,
                      .claim_file = env_claim_file,
                      .find_tokenizer = env_find_tokenizer};
    v->files = (at_file_lists){list_files, v};
    e->previews = c->previews;
    st = at_places_open(c, &v->env, &e->places);
    if (st != AT_OK) return st;
    limit_memory(v->env.text_device, c);
    limit_memory(v->env.vae_device, c);
    return AT_OK;
}

at_status at_engine_open(const at_engine_config *config, at_engine **out)
{
    at_status st = AT_OK;
    at_engine *e = at_calloc(1, sizeof *e);

    if (!e) AT_TRY(at_fail(AT_ENOMEM, "engine: no memory"));
    at_engine_setup_devices();
    AT_TRY(open_paths(e, config));
    AT_TRY(open_env(e, config));
    AT_TRY(at_stores_new(&e->stores));
    AT_TRY(at_registry_new(&e->registry));
    AT_TRY(at_nodes_register(e->registry));
    if (config->test_nodes) AT_TRY(at_registry_add(e->registry, at_nodes_test));
    AT_TRY(at_cache_new(config->cache_results < 0   ? AT_CACHE_NONE
                        : config->cache_results > 0 ? AT_CACHE_LRU
                                                    : AT_CACHE_CLASSIC,
                        config->cache_results > 0 ? (size_t)config->cache_results : 0, &e->cache));
    *out = e;
    e = NULL;
out:
    at_engine_close(e);
    return st;
}

void at_engine_close(at_engine *e)
{
    if (!e) return;
    at_cache_free(e->cache);
    at_registry_free(e->registry);
    at_stores_free(e->stores);
    at_paths_free(e->paths);
    at_comm_free(e->base.env.ranks.world);
    at_team_comms_free(e->base.env.ranks.kept);
    at_par_memory_free(e->base.env.ranks.known);
    at_places_free(e->places);
    at_engine_view_close(&e->base);
    at_free(e);
}

at_env *at_engine_env(at_engine *e)
{
    return &e->base.env;
}
at_places *at_engine_places(at_engine *e)
{
    return e->places;
}
const at_registry *at_engine_registry(at_engine *e)
{
    return e->registry;
}
const at_paths *at_engine_paths(at_engine *e)
{
    return e->paths;
}
const at_file_lists *at_engine_files(at_engine *e)
{
    return &e->base.files;
}

// --- owners of files ---------------------------------------------------------------------------------
at_status at_engine_view_open(at_engine *e, const char *owner, at_engine_view *out)
{
    at_status st = AT_OK;

    *out = (at_engine_view){.engine = e, .env = e->base.env};
    for (int i = 0; i < 3; i++) {
        if (owner)
            AT_TRY(at_path_join_safe(e->base.dirs[i], owner, &out->dirs[i]));
        else if (!(out->dirs[i] = at_strdup(e->base.dirs[i])))
            AT_TRY(at_fail(AT_ENOMEM, "engine: no memory"));
        if (owner) AT_TRY(at_make_dirs(out->dirs[i]));
    }
    out->env.input_dir = out->dirs[0];
    out->env.output_dir = out->dirs[1];
    out->env.temp_dir = out->dirs[2];
    out->files = (at_file_lists){list_files, out};
out:
    if (st != AT_OK) at_engine_view_close(out);
    return st;
}

void at_engine_view_close(at_engine_view *v)
{
    for (int i = 0; i < 3; i++)
        at_free(v->dirs[i]);
    *v = (at_engine_view){0};
}

// Objects that outlive a job remember the engine's one env: the job's folders stand in it while the job runs.
static void use_dirs(at_engine *e, const at_engine_view *v)
{
    e->base.env.input_dir = v->dirs[0];
    e->base.env.output_dir = v->dirs[1];
    e->base.env.temp_dir = v->dirs[2];
}

// The job's devices are the first ones; what it says of jobs like it comes out at `apart`. job NULL: all, again.
static void use_ranks(at_engine *e, const at_job *job, int *apart)
{
    at_env_ranks *r = &e->base.env.ranks;
    bool some = job && job->ranks > 0 && job->ranks < r->all && !r->world;

    r->n = some ? job->ranks : r->all;
    r->site.ranks = r->n;
    r->waiting = job ? job->waiting : 0;
    r->apart = apart;
}

// --- running -----------------------------------------------------------------------------------------
static at_status dump(const json_t *json, char **out)
{
    if (!json) return AT_OK;
    *out = at_json_dump(json, 0);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "engine: no memory for a JSON text");
}

static at_status report_invalid(const at_check_result *check, at_job_result *out)
{
    at_status st = dump(check->error, &out->error);
    if (st == AT_OK) st = dump(check->node_errors, &out->node_errors);
    if (st != AT_OK) return st;
    const char *message = json_string_value(json_object_get(check->error, "message"));
    return at_fail(AT_EWORKFLOW, "%s", message ? message : "the workflow is not valid");
}

at_status at_engine_run(at_engine *e, const at_job *job, at_job_result *out)
{
    at_status st = AT_OK;
    at_graph *graph = NULL;
    at_check_result check = {0};
    json_t *outputs = NULL, *extra = NULL;
    at_engine_view own = {0};
    double start = at_now();

    *out = (at_job_result){0};
    use_ranks(e, job, &out->ranks);
    AT_TRY(at_device_check(e->base.env.device));
    if (job->owner) {
        AT_TRY(at_engine_view_open(e, job->owner, &own));
        use_dirs(e, &own);
    }
    if (job->claims) AT_TRY(at_claims_open(job->claims, &e->claims));
    if (at_stores_refresh(e->stores)) at_cache_clear(e->cache);
    AT_TRY(at_graph_parse(job->label, job->text, job->bytes, e->registry, &graph));
    for (size_t i = 0; i < job->set_count; i++)
        AT_TRY(at_graph_set(graph, job->sets[i]));
    AT_TRY(at_check(graph, e->registry, &e->base.files, job->targets, job->target_count,
                    &e->base.env, &check));
    if (!check.ok) AT_TRY(report_invalid(&check, out));
    at_places_job(e->places, e, graph);
    e->base.env.previews = e->previews;
    AT_TRY(at_extra_read(job->label, job->text, job->bytes, &extra, &e->base.env.previews));
    AT_TRY(dump(check.node_errors, &out->node_errors));
    at_execute_args args = {.registry = e->registry,
                            .graph = graph,
                            .check = &check,
                            .cache = e->cache,
                            .sink = job->sink,
                            .job = job->id ? job->id : "job",
                            .owner = job->owner,
                            .extra_pnginfo = extra,
                            .engine = &e->base.env};
    st = at_execute(&args, &outputs);
    if (st == AT_OK)
        st = dump(outputs, &out->outputs);
    else if (outputs) // beside the failure, whose message stays
        out->outputs = at_json_dump(outputs, 0);
out:
    out->seconds = at_now() - start;
    use_dirs(e, &e->base);
    use_ranks(e, NULL, NULL);
    at_claims_close(e->claims);
    e->claims = NULL;
    at_engine_view_close(&own);
    json_decref(outputs);
    json_decref(extra);
    at_check_result_free(&check);
    at_graph_free(graph);
    return st;
}

void at_engine_forget(at_engine *e)
{
    char text[AT_HOLDS_TEXT];

    at_cache_clear(e->cache);
    at_stores_forget(e->stores); // what devices made of weights lives with the file's records
    at_devices_trim(true);
    for (int i = 0; i < at_device_count(); i++)
        if (*at_device_holds_text(at_device_at(i), text))
            at_log(AT_INFO, "FREE", "%s still holds: %s", at_device_at(i)->name, text);
}

void at_job_result_free(at_job_result *r)
{
    at_free(r->outputs);
    at_free(r->error);
    at_free(r->node_errors);
    *r = (at_job_result){0};
}

at_status at_engine_view_object_info(const at_engine_view *v, const char *class_type, char **json)
{
    const at_registry *registry = v->engine->registry;
    json_t *info = NULL;
    if (class_type) {
        const at_node *n = at_registry_find(registry, class_type);
        if (!n)
            return at_fail(AT_ENOTFOUND, "no node is called \"%s\"; `atelier nodes` lists them",
                           class_type);
        info = json_pack("{s:o}", class_type, at_object_info(n, &v->files));
    } else {
        info = at_object_info_all(registry, &v->files);
    }
    if (!info) return at_fail(AT_ENOMEM, "object_info: no memory");
    *json = at_json_dump(info, 0);
    json_decref(info);
    return *json ? AT_OK : at_fail(AT_ENOMEM, "object_info: no memory");
}

at_status at_engine_object_info(at_engine *e, const char *class_type, char **json)
{
    return at_engine_view_object_info(&e->base, class_type, json);
}
