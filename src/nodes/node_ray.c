// SPDX-License-Identifier: Apache-2.0
// node_ray.c - the nodes of raylight, so that its workflows run: their actors are this program's ranks.
// Idea: RAY_ACTORS_INIT carries the degrees that were asked for, RAY_ACTORS a model with them. A sampler takes the
// degrees as a wish (at_env_degrees): where the devices or the network cannot, a plan of our own stands for it, and
// with one device everything runs there. What is about Ray's processes, NCCL and sharded weights has no
// counterpart and is taken without effect.
// Source: names and rows of raylight's src/raylight/nodes.py (2026-06). Owns: objects hold references.
#include <string.h>

#include "base/mem.h"
#include "nodes/edit.h"
#include "nodes/guide.h"
#include "nodes/loaders.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"
#include "nodes/vae_encode.h"

#define MODULE "custom_nodes.raylight"

// RAY_ACTORS_INIT (model NULL) and RAY_ACTORS.
typedef struct actors {
    at_object base;
    int gpus;
    at_degrees degrees;
    at_object *model;
} actors;

static void actors_free(at_object *self)
{
    at_object_release(((actors *)self)->model);
    at_free(self);
}
static const at_object_type init_type = {"RAY_ACTORS_INIT", actors_free};
static const at_object_type actors_type = {"RAY_ACTORS", actors_free};

static const at_out init_out[] = {{.type_name = "RAY_ACTORS_INIT", .name = "ray_actors_init"}};
static const at_out actors_out[] = {{.type_name = "RAY_ACTORS", .name = "ray_actors"}};
static const at_out image_out[] = {AT_OUT("IMAGE")};

// --- RayInitializer, RayInitializerAdvanced -----------------------------------------------------------
typedef struct init_in {
    const char *ray_cluster_address, *ray_cluster_namespace, *GPU_SELECT, *XFuser_attention,
        *ray_dashboard_address, *torch_dist_address;
    int64_t GPU, ulysses_degree, ring_degree, cfg_degree;
    bool sync_ulysses, FSDP, FSDP_CPU_OFFLOAD, skip_comm_test, use_mmap;
    double ray_object_store_gb;
} init_in;

#define ROW_COUNT(field, d)                                                                        \
    {                                                                                              \
        .name = #field, .type = AT_IN_INT, .offset = offsetof(init_in, field), .def = d            \
    }
#define ROW_TEXT(field, d)      AT_ROW(init_in, field, AT_IN_STRING, .sdef = d)
#define ROW_SWITCH(field, d, f) AT_ROW(init_in, field, AT_IN_BOOL, .def = d, .flags = f)
#define ROWS_DEGREES                                                                               \
    ROW_COUNT(ulysses_degree, 2), ROW_COUNT(ring_degree, 1), ROW_COUNT(cfg_degree, 1),             \
        ROW_SWITCH(sync_ulysses, 0, 0), ROW_SWITCH(FSDP, 0, 0),                                    \
        ROW_SWITCH(FSDP_CPU_OFFLOAD, 0, 0), ROW_TEXT(XFuser_attention, "TORCH_FLASH"),             \
        ROW_SWITCH(skip_comm_test, 1, AT_INF_OPTIONAL), ROW_SWITCH(use_mmap, 1, AT_INF_OPTIONAL)

static const at_in init_rows[] = {
    ROW_TEXT(ray_cluster_address, "local"),
    ROW_TEXT(ray_cluster_namespace, "default"),
    ROW_COUNT(GPU, 2),
    ROWS_DEGREES,
};
static const at_in init_advanced_rows[] = {
    ROW_TEXT(ray_cluster_address, "local"),
    ROW_TEXT(ray_cluster_namespace, "default"),
    ROW_COUNT(GPU, 2),
    ROW_TEXT(GPU_SELECT, ""),
    ROWS_DEGREES,
    AT_ROW(init_in, ray_object_store_gb, AT_IN_FLOAT, .def = 2, .flags = AT_INF_OPTIONAL),
    AT_ROW(init_in, ray_dashboard_address, AT_IN_STRING, .sdef = "None", .flags = AT_INF_OPTIONAL),
    AT_ROW(init_in, torch_dist_address, AT_IN_STRING, .sdef = "127.0.0.1:29500",
           .flags = AT_INF_OPTIONAL),
};

static at_status note(at_node_ctx *c, const char *text)
{
    at_sink_emit(at_node_sink(c),
                 &(at_event){.kind = AT_EV_NOTE, .node = at_node_id(c), .text = text});
    return AT_OK;
}

static bool degree(int64_t value, int *out)
{
    *out = value < 1 ? 1 : (int)value; // raylight's 0: pictures apart
    return value >= 0 && value <= AT_ENV_RANKS;
}

static at_status init_run(at_node_ctx *c, const void *in, at_value *out)
{
    const init_in *i = in;
    at_degrees d = {0};
    const at_env *e = at_env_of(c);

    if (!degree(i->ulysses_degree, &d.of[AT_AXIS_ULYSSES]) ||
        !degree(i->ring_degree, &d.of[AT_AXIS_RING]) ||
        !degree(i->cfg_degree, &d.of[AT_AXIS_CFG]) || i->GPU < 1)
        return at_fail(AT_EINVAL,
                       "RayInitializer: %lld GPUs, degrees %lld, %lld and %lld: 1 or more GPUs and "
                       "degrees of 0 to %d are possible",
                       (long long)i->GPU, (long long)i->ulysses_degree, (long long)i->ring_degree,
                       (long long)i->cfg_degree, AT_ENV_RANKS);
    if (at_degrees_ranks(&d) > i->GPU)
        return at_fail(AT_EINVAL, "RayInitializer: %lld GPUs are fewer than the degrees' %d",
                       (long long)i->GPU, at_degrees_ranks(&d));
    if (i->GPU > (e->ranks.n > 1 ? e->ranks.n : 1))
        note(c, "RayInitializer: more GPUs than this program was given (--devices); it plans with "
                "those it has");
    if (i->FSDP) note(c, "RayInitializer: FSDP has no effect; weights that do not fit stream");
    actors *a = at_object_new(sizeof *a, &init_type);
    if (!a) return at_fail(AT_ENOMEM, "RayInitializer: no memory");
    a->gpus = i->GPU > AT_ENV_RANKS ? AT_ENV_RANKS : (int)i->GPU;
    a->degrees = d;
    return at_give(&out[0], &a->base, "RayInitializer");
}

#define INIT(name, rows_, title)                                                                   \
    {                                                                                              \
        .class_type = name, .display = title, .category = "Raylight", .python_module = MODULE,     \
        .in = rows_, .n_in = AT_COUNT(rows_), .out = init_out, .n_out = 1,                         \
        .in_size = sizeof(init_in), .run = init_run                                                \
    }
static const at_node node_init = INIT("RayInitializer", init_rows, "Ray Init Actor");
static const at_node node_init_advanced =
    INIT("RayInitializerAdvanced", init_advanced_rows, "Ray Init Actor (Advanced)");

// --- RayLoraLoader ------------------------------------------------------------------------------------
// RAY_LORA: a chain, the first to be put on at its far end.
typedef struct lora {
    at_object base;
    struct lora *previous;
    at_store *store;
    double strength;
} lora;

static void lora_free(at_object *self)
{
    lora *l = (lora *)self;
    if (l->previous) at_object_release(&l->previous->base);
    at_store_release(&l->store);
    at_free(self);
}
static const at_object_type lora_type = {"RAY_LORA", lora_free};

typedef struct lora_in {
    const char *lora_name;
    double strength_model;
    at_object *prev_ray_lora;
} lora_in;
static const at_in lora_rows[] = {
    AT_ROW(lora_in, lora_name, AT_IN_COMBO, .list = "loras"),
    AT_ROW_FLOAT_STEP(lora_in, strength_model, 1.0, -100, 100, 0.01),
    AT_ROW_OBJECT(lora_in, prev_ray_lora, "RAY_LORA", .flags = AT_INF_OPTIONAL),
};
static const at_out lora_out[] = {{.type_name = "RAY_LORA", .name = "ray_lora"}};

static at_status lora_run(at_node_ctx *c, const void *in, at_value *out)
{
    const lora_in *i = in;
    at_status st = AT_OK;
    lora *l = at_object_new(sizeof *l, &lora_type);

    if (!l) AT_TRY(at_fail(AT_ENOMEM, "RayLoraLoader: no memory"));
    l->previous = (lora *)at_object_retain(i->prev_ray_lora);
    l->strength = i->strength_model;
    AT_TRY(at_env_open(at_env_of(c), "loras", i->lora_name, NULL, &l->store));
    out[0] = at_value_object(&l->base);
    l = NULL;
out:
    if (l) at_object_release(&l->base);
    return st;
}
static const at_node node_lora = {.class_type = "RayLoraLoader",
                                  .display = "Load Lora Model (Ray)",
                                  .category = "Raylight",
                                  .python_module = MODULE,
                                  .in = lora_rows,
                                  .n_in = AT_COUNT(lora_rows),
                                  .out = lora_out,
                                  .n_out = 1,
                                  .in_size = sizeof(lora_in),
                                  .run = lora_run};

// --- RayUNETLoader ------------------------------------------------------------------------------------
typedef struct unet_in {
    const char *unet_name, *weight_dtype;
    at_object *ray_actors_init, *lora;
} unet_in;
static const char *const weight_dtypes[] = {
    "default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2", "bf16", "fp16", NULL};
static const at_in unet_rows[] = {
    AT_ROW(unet_in, unet_name, AT_IN_COMBO, .list = "diffusion_models", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(unet_in, weight_dtype, AT_IN_COMBO, .choices = weight_dtypes,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_LINK(unet_in, ray_actors_init, "RAY_ACTORS_INIT"),
    AT_ROW_OBJECT(unet_in, lora, "RAY_LORA", .flags = AT_INF_OPTIONAL),
};

// *model under the chain's LoRAs, replaced.
static at_status put_loras(const lora *l, at_object **model)
{
    at_status st = AT_OK;
    at_object *changed = NULL, *clip = NULL;

    if (!l) return AT_OK;
    AT_TRY(put_loras(l->previous, model));
    if (l->strength == 0) goto out;
    AT_TRY(at_edit_by_lora(l->store, (const at_obj_model *)*model, NULL, l->strength, 0, &changed,
                           &clip));
    at_object_release(*model);
    *model = changed;
out:
    return st;
}

static at_status unet_run(at_node_ctx *c, const void *in, at_value *out)
{
    const unet_in *i = in;
    const actors *init = (const actors *)i->ray_actors_init;
    at_status st = AT_OK;
    at_value model = {0};
    // The file's own 16-bit formats are what "bf16" and "fp16" would make of it, or better.
    const char *dtype = strstr(i->weight_dtype, "fp8") ? i->weight_dtype : "default";
    actors *a = at_object_new(sizeof *a, &actors_type);

    if (!a) AT_TRY(at_fail(AT_ENOMEM, "RayUNETLoader: no memory"));
    AT_TRY(at_load_unet(c, i->unet_name, dtype, &model));
    a->model = model.o;
    a->gpus = init->gpus;
    a->degrees = init->degrees;
    AT_TRY(put_loras((const lora *)i->lora, &a->model));
    out[0] = at_value_object(&a->base);
    a = NULL;
out:
    if (a) at_object_release(&a->base);
    return st;
}
static const at_node node_unet = {.class_type = "RayUNETLoader",
                                  .display = "Load Diffusion Model (Ray)",
                                  .category = "Raylight",
                                  .python_module = MODULE,
                                  .in = unet_rows,
                                  .n_in = AT_COUNT(unet_rows),
                                  .out = actors_out,
                                  .n_out = 1,
                                  .in_size = sizeof(unet_in),
                                  .run = unet_run};

// --- XFuserKSamplerAdvanced ---------------------------------------------------------------------------
typedef struct sampler_in {
    const char *add_noise;
    uint64_t noise_seed;
    int64_t steps;
    double cfg;
    const char *sampler_name, *scheduler;
    at_object *ray_actors, *positive, *negative, *latent_image;
    int64_t start_at_step, end_at_step;
    const char *return_with_leftover_noise;
} sampler_in;
static const char *const enable_disable[] = {"enable", "disable", NULL};
static const char *const disable_enable[] = {"disable", "enable", NULL};
static const at_in sampler_rows[] = {
    AT_ROW(sampler_in, add_noise, AT_IN_COMBO, .choices = enable_disable,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_SEED(sampler_in, noise_seed),
    AT_ROW_INT(sampler_in, steps, 20, 1, 10000),
    AT_ROW_CFG(sampler_in, cfg),
    AT_ROW(sampler_in, sampler_name, AT_IN_COMBO, .choices = at_sampler_names,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW(sampler_in, scheduler, AT_IN_COMBO, .choices = at_scheduler_names,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_LINK(sampler_in, ray_actors, "RAY_ACTORS"),
    AT_ROW_LINK_BARE(sampler_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(sampler_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(sampler_in, latent_image, "LATENT"),
    AT_ROW_INT(sampler_in, start_at_step, 0, 0, 10000),
    AT_ROW_INT(sampler_in, end_at_step, 10000, 0, 10000),
    AT_ROW(sampler_in, return_with_leftover_noise, AT_IN_COMBO, .choices = disable_enable,
           .flags = AT_INF_NO_OPTIONS),
};
static const at_out sampler_out[] = {{.type_name = "LATENT", .name = "latent"},
                                     {.type_name = "RAY_ACTORS", .name = "ray_actors"}};

static at_status sampler_run(at_node_ctx *c, const void *in, at_value *out)
{
    const sampler_in *i = in;
    const actors *a = (const actors *)i->ray_actors;
    const at_obj_model *m = (const at_obj_model *)a->model;
    float *sigmas = NULL;
    size_t n = 0;
    at_object *result = NULL;
    at_status st = AT_OK;

    AT_TRY(at_ksampler_sigmas(i->sampler_name, i->scheduler, at_model_get_sampling(m->model),
                              at_int_of(i->steps), 1.0, &sigmas, &n));
    n = at_sigmas_window(sigmas, n, i->start_at_step, i->end_at_step,
                         strcmp(i->return_with_leftover_noise, "enable") == 0);
    at_sample_job job = {.model = m,
                         .positive = (const at_obj_cond *)i->positive,
                         .negative = (const at_obj_cond *)i->negative,
                         .cfg = i->cfg,
                         .sampler = i->sampler_name,
                         .sigmas = sigmas,
                         .n_sigmas = n,
                         .latent = (const at_obj_latent *)i->latent_image,
                         .add_noise = strcmp(i->add_noise, "disable") != 0,
                         .seed = i->noise_seed,
                         .degrees = &a->degrees};
    AT_TRY(at_sample_run(c, &job, &result, NULL));
    out[1] = at_value_object(at_object_retain(i->ray_actors));
    AT_TRY(at_give(&out[0], result, "XFuserKSamplerAdvanced"));
out:
    at_free(sigmas);
    return st;
}
static const at_node node_sampler = {.class_type = "XFuserKSamplerAdvanced",
                                     .display = "XFuser KSampler (Advanced)",
                                     .category = "Raylight",
                                     .python_module = MODULE,
                                     .in = sampler_rows,
                                     .n_in = AT_COUNT(sampler_rows),
                                     .out = sampler_out,
                                     .n_out = 2,
                                     .in_size = sizeof(sampler_in),
                                     .run = sampler_run};

// --- RayVAEDecodeDistributed --------------------------------------------------------------------------
// Whole on all ranks, which is exact; its tiles are what memory would ask for.
typedef struct vae_in {
    at_object *ray_actors, *samples;
    const char *vae_name;
    int64_t tile_size, overlap, temporal_size, temporal_overlap;
} vae_in;
static const at_in vae_rows[] = {
    AT_ROW_LINK(vae_in, ray_actors, "RAY_ACTORS"),
    AT_ROW_LINK(vae_in, samples, "LATENT"),
    AT_ROW(vae_in, vae_name, AT_IN_COMBO, .list = "vae"),
    AT_ROW_INT_STEP(vae_in, tile_size, 512, 64, 4096, 32),
    AT_ROW_INT_STEP(vae_in, overlap, 64, 0, 4096, 32),
    AT_ROW_INT_STEP(vae_in, temporal_size, 64, 8, 4096, 4),
    AT_ROW_INT_STEP(vae_in, temporal_overlap, 8, 4, 4096, 4),
};
static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    const vae_in *i = in;
    at_value vae = {0};
    at_status st = at_load_vae(at_env_of(c), i->vae_name, &vae);

    if (st == AT_OK) st = at_vae_to_image(c, vae.o, i->samples, 0, 0, &out[0]);
    at_value_clear(&vae);
    return st;
}
static const at_node node_vae = {.class_type = "RayVAEDecodeDistributed",
                                 .display = "Distributed VAE (Ray)",
                                 .category = "Raylight",
                                 .python_module = MODULE,
                                 .in = vae_rows,
                                 .n_in = AT_COUNT(vae_rows),
                                 .out = image_out,
                                 .n_out = 1,
                                 .in_size = sizeof(vae_in),
                                 .run = vae_run};

// --- RayKill ------------------------------------------------------------------------------------------
typedef struct kill_in {
    at_object *ray_actors;
    const char *kill_mode;
} kill_in;
static const char *const kill_modes[] = {"Kill Workers Only", "Kill Entire Cluster", NULL};
static const at_in kill_rows[] = {
    AT_ROW_LINK(kill_in, ray_actors, "RAY_ACTORS"),
    AT_ROW(kill_in, kill_mode, AT_IN_COMBO, .choices = kill_modes),
};
static at_status kill_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)in;
    (void)out;
    return note(c, "RayKill: the ranks ended with their work; there is nothing to shut down");
}
static const at_node node_kill = {.class_type = "RayKill",
                                  .display = "Kill Ray",
                                  .category = "Raylight",
                                  .python_module = MODULE,
                                  .flags = AT_NODE_OUTPUT,
                                  .in = kill_rows,
                                  .n_in = AT_COUNT(kill_rows),
                                  .in_size = sizeof(kill_in),
                                  .run = kill_run};

const at_node *const at_nodes_ray[] = {&node_init,    &node_init_advanced, &node_unet, &node_lora,
                                       &node_sampler, &node_vae,           &node_kill, NULL};
