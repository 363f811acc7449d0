// SPDX-License-Identifier: Apache-2.0
// places.c - see places.h.
// Easy to get wrong: room is asked for once, before any weights of ours lie there: asked again it would count what an
// earlier choice has put there, and networks would wander. What the flags or a loader say is never changed.
#include "engine/places.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/plan_memory.h"

struct at_places {
    at_device *text, *vae; // what stands where nothing is chosen
    bool text_open, vae_open;
    at_place_site site; // n 0: not asked yet
    char *key;          // of what `why` is about
    at_place chosen;
    char why[320];
};

// --- what is said ------------------------------------------------------------------------------------
static at_status named(const char *flag, const char *name, at_device **out)
{
    if (!name || strcmp(name, "auto") == 0) return AT_OK;
    at_status st = at_engine_device(name, out);
    return st == AT_OK ? AT_OK : at_fail_context(st, "%s: ", flag);
}

at_status at_places_open(const at_engine_config *c, at_env *env, at_places **out)
{
    at_status st = AT_OK;
    at_places *p = at_calloc(1, sizeof *p);
    bool many = env->ranks.n > 1 && !env->ranks.world && !env->device->host;

    if (!p) AT_TRY(at_fail(AT_ENOMEM, "engine: no memory"));
    if (c->cpu_vae) p->vae = at_device_cpu();
    // As in ComfyUI: a GPU that is short of memory has none for text encoders.
    if (c->vram != AT_VRAM_NORMAL) p->text = at_device_cpu();
    AT_TRY(named("--text-device", c->text_device, &p->text));
    AT_TRY(named("--vae-device", c->vae_device, &p->vae));
    p->text_open = many && !p->text;
    p->vae_open = many && !p->vae;
    if (!p->text) p->text = env->device;
    if (!p->vae) p->vae = env->device;
    env->text_device = p->text;
    env->vae_device = p->vae;
    *out = p;
    p = NULL;
out:
    at_places_free(p);
    return st;
}

void at_places_free(at_places *p)
{
    if (!p) return;
    at_free(p->key);
    at_free(p);
}

const char *at_places_why(const at_places *p)
{
    return p->why;
}

// --- what there is -------------------------------------------------------------------------------------
static int index_of(const at_env *env, const at_device *d)
{
    for (int i = 0; i < env->ranks.n; i++)
        if (env->ranks.device[i] == d) return i;
    return -1;
}

static void ask_site(const at_env *env, at_place_site *s)
{
    const at_env_ranks *r = &env->ranks;

    *s = (at_place_site){.load = r->site.load,
                         .bandwidth = r->site.bandwidth,
                         .latency = 100e-6, // two copies over the host
                         .n = r->n < AT_PLACE_DEVICES ? r->n : AT_PLACE_DEVICES};
    for (int i = 0; i < s->n; i++) {
        at_device *d = r->device[i];
        s->speed[i] = i < AT_SHARE_RANKS ? r->site.speed[i] : 0;
        uint64_t rest = 0, total = 0;
        if (d->ops->memory(d, &rest, &total) != AT_OK) continue;
        double room = (double)rest - (double)d->reserve_bytes - at_peak_lasting(d);
        s->room[i] = room > 0 ? room : 0;
    }
}

// Devices that the plan's first sampler shares its steps among, and the part of the weights that each holds.
static int denoiser_ranks(const at_env *env, const at_plan *p, double *part)
{
    *part = 1;
    if (!p->sampler_count || p->samplers[0].cost.flops <= 0) return 1;
    const at_plan_sampler *s = &p->samplers[0];
    at_par_task t = at_plan_task(s);
    at_degrees d = at_env_degrees(env, &t, NULL);
    if (d.of[AT_AXIS_TP] > 1 && s->cost.weight_bytes > 0) {
        double cut = s->cost.share.tp_weights / s->cost.weight_bytes;
        *part = 1 - cut + cut / d.of[AT_AXIS_TP];
    }
    return at_degrees_ranks(&d);
}

// A network's work beside its weights: activations, or what loading takes for a while.
static double work_of(const at_plan_part *part)
{
    double loading = part->loading - part->weights;
    return part->activations > loading ? part->activations : loading;
}

static void add(at_place_net *n, const at_plan_part *part)
{
    double work = work_of(part);
    n->weights += part->weights;
    if (work > n->work) n->work = work;
}

// What a picture spends in text encoders and VAE, roughly: two operations a parameter and token; a decoder as measured
// (docs/bench/cuda.md: 18.7 ms for 1024x1024 where products reach 645 TFLOP/s).
static void time_nets(const at_env *env, const at_plan *p, at_place_task *t)
{
    static const double tokens = 512, text_bytes = 8e6, decode = 18.7e-3 / (1024 * 1024);
    double slower = env->ranks.site.flops > 0 ? 645e12 / env->ranks.site.flops : 1, pixels = 0;

    for (size_t i = 0; i < p->sampler_count; i++) {
        const at_plan_sampler *s = &p->samplers[i];
        double now = (double)s->width * (double)s->height * (double)(s->batch ? s->batch : 1);
        if (now > pixels) pixels = now;
    }
    t->text.seconds = t->text.weights * tokens / 645e12 * slower; // 2 bytes, 2 operations
    t->text.travels = text_bytes;
    t->vae.seconds = pixels * decode * slower; // what goes in and out goes over the host anyway
}

static at_place_task task_of(const at_places *p, const at_env *env, const at_plan *plan,
                             at_place_site *site)
{
    double part = 1;
    at_place_task t = {0};

    t.denoiser.shared = denoiser_ranks(env, plan, &part);
    for (size_t i = 0; i < plan->part_count; i++) {
        const at_plan_part *one = &plan->parts[i];
        at_part kind = one->found.part;
        int at = one->asked ? index_of(env, one->asked) : -1;
        if (one->asked && at != 0) { // its loader has said so
            if (at > 0) site->room[at] -= one->weights;
            continue;
        }
        add(kind == AT_PART_TEXT ? &t.text : kind == AT_PART_VAE ? &t.vae : &t.denoiser, one);
    }
    t.denoiser.weights *= part;
    if (plan->sampler_count) {
        const at_plan_sampler *s = &plan->samplers[0];
        at_degrees d = at_env_vae_degrees(env, s->height, s->width);
        t.vae.shared = at_degrees_ranks(&d);
    }
    time_nets(env, plan, &t);
    t.text.fixed = p->text_open ? 0 : 1 + index_of(env, p->text);
    t.vae.fixed = p->vae_open ? 0 : 1 + index_of(env, p->vae);
    // On a device of another kind: none of this memory.
    if (!p->text_open && !t.text.fixed) t.text = (at_place_net){.fixed = 1};
    if (!p->vae_open && !t.vae.fixed) t.vae = (at_place_net){.fixed = 1};
    return t;
}

// --- choosing ------------------------------------------------------------------------------------------
static char *key_of(const at_env *env, const at_plan *p)
{
    at_str k = {0};

    at_str_printf(&k, "%d", env->ranks.n);
    for (size_t i = 0; i < p->part_count; i++)
        at_str_printf(&k, ";%s,%d,%s", p->parts[i].path, (int)p->parts[i].found.part,
                      p->parts[i].asked ? p->parts[i].asked->name : "");
    for (size_t i = 0; i < p->sampler_count; i++) {
        const at_plan_sampler *s = &p->samplers[i];
        at_str_printf(&k, ";%lldx%lldx%lld,%lld,%d", (long long)s->width, (long long)s->height,
                      (long long)s->batch, (long long)s->steps, s->guided);
    }
    char *out = k.failed ? NULL : at_strdup(at_str_text(&k));
    at_str_free(&k);
    return out;
}

static void explain(at_places *p, const at_env *env)
{
    const at_place *c = &p->chosen;
    const char *text = env->text_device->name, *vae = env->vae_device->name;
    char a[16], b[16];

    at_human_bytes(c->stay_lacks, a);
    at_human_bytes(c->lacks, b);
    if (!p->text_open && !p->vae_open)
        snprintf(p->why, sizeof p->why, "text encoders on %s, VAE on %s, as asked", text, vae);
    else if (env->text_device == env->device && env->vae_device == env->device)
        snprintf(p->why, sizeof p->why, "text encoders and VAE with the denoiser, on %s: %s%s",
                 text,
                 c->stay_lacks > 0 ? "no other device is better, though room lacks: " : "all fit",
                 c->stay_lacks > 0 ? a : "");
    else if (c->stay_lacks > c->lacks)
        snprintf(p->why, sizeof p->why,
                 "text encoders on %s, VAE on %s: all on %s would lack %s%s%s, so %.0f ms less a "
                 "picture",
                 text, vae, env->device->name, a, c->lacks > 0 ? " and this " : "",
                 c->lacks > 0 ? b : "", 1e3 * (c->stay_seconds - c->seconds));
    else
        snprintf(p->why, sizeof p->why, "text encoders on %s, VAE on %s: %.0f ms less a picture",
                 text, vae, 1e3 * (c->stay_seconds - c->seconds));
}

static bool several(const at_places *p, const at_env *env)
{
    return env->ranks.n > 1 && (p->text_open || p->vae_open);
}

static void reset(at_places *p, at_env *env)
{
    env->text_device = p->text;
    env->vae_device = p->vae;
}

bool at_places_plan(at_places *p, at_env *env, const at_plan *plan)
{
    at_device *text = env->text_device, *vae = env->vae_device;

    reset(p, env);
    if (!several(p, env)) return text != env->text_device || vae != env->vae_device;
    if (!p->site.n) ask_site(env, &p->site);
    at_place_site site = p->site;
    if (site.n > env->ranks.n) site.n = env->ranks.n; // some are another job's
    at_place_task t = task_of(p, env, plan, &site);
    p->chosen = at_place_choose(&t, &site);
    if (p->text_open) env->text_device = env->ranks.device[p->chosen.text];
    if (p->vae_open) env->vae_device = env->ranks.device[p->chosen.vae];
    explain(p, env);
    return text != env->text_device || vae != env->vae_device;
}

// Everything fits any of the devices by far, whatever is counted: 4 bytes a parameter, twice what a decoder was seen to
// take a pixel. Then nothing needs to be weighed, which takes 20 ms. Devices of unlike speed may still differ.
static bool surely_fits(const at_places *p, const at_plan *plan)
{
    static const double a_parameter = 4, a_pixel = 4096, twice = 2;
    double bytes = 0;

    for (size_t i = 0; i < plan->model_count; i++)
        bytes += a_parameter * plan->models[i].parameters;
    for (size_t i = 0; i < plan->sampler_count; i++) {
        const at_plan_sampler *s = &plan->samplers[i];
        if (s->width < 1 || s->height < 1) return false; // not in the workflow
        bytes += a_pixel * (double)s->width * (double)s->height * (double)(s->batch ? s->batch : 1);
        bytes += twice * s->cost.activation_bytes;
    }
    for (int i = 0; i < p->site.n; i++)
        if (p->site.room[i] < bytes || p->site.speed[i] > 0) return false;
    return true;
}

static at_status place(at_places *p, at_engine *e, const at_graph *g)
{
    at_status st = AT_OK;
    at_env *env = at_engine_env(e);
    at_plan plan = {0};
    char *key = NULL;

    AT_TRY(at_plan_sizes(e, g, at_env_compute(env), &plan));
    key = key_of(env, &plan);
    if (key && p->key && strcmp(key, p->key) == 0) goto out;
    at_free(p->key);
    p->key = NULL;
    reset(p, env);
    if (!p->site.n) ask_site(env, &p->site);
    if (!surely_fits(p, &plan)) {
        AT_TRY(at_plan_memory(e, &plan));
        (void)at_places_plan(p, env, &plan);
    }
    if (env->text_device != env->device || env->vae_device != env->device)
        at_log(AT_INFO, "PLACE", "%s", p->why);
    p->key = key;
    key = NULL;
out:
    at_free(key);
    at_plan_free(&plan);
    return st;
}

void at_places_job(at_places *p, at_engine *e, const at_graph *g)
{
    at_env *env = at_engine_env(e);

    if (several(p, env) && place(p, e, g) == AT_OK) return;
    reset(p, env);
    at_free(p->key);
    p->key = NULL;
}

// --- for people ------------------------------------------------------------------------------------------
at_places_load at_places_load_of(const at_places *p, const at_env *env, const at_plan *plan, int d)
{
    at_places_load l = {0};
    at_place_site none = {0};
    at_place_task t = task_of(p, env, plan, &none);
    int text = index_of(env, env->text_device), vae = index_of(env, env->vae_device);

    at_place_load(&t, text, vae, d, &l.weights, &l.peak);
    for (size_t i = 0; i < plan->part_count; i++) {
        const at_plan_part *one = &plan->parts[i];
        int at = one->asked ? index_of(env, one->asked) : -1;
        if (at <= 0 || at != d) continue;
        l.weights += one->weights;
        l.peak += one->weights;
    }
    return l;
}
