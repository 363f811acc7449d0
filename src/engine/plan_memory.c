// SPDX-License-Identifier: Apache-2.0
// plan_memory.c - see plan_memory.h.
// Easy to get wrong: a device keeps matrices in the type that it multiplies in, so a file in f32 takes half
// of its size in bf16, and one in fp8 twice; on the CPU weights stay in the file's mapping. What a GPU keeps for reuse
// is not in a peak: it goes back when its room is wanted.
#include "engine/plan_memory.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/objects.h"
#include "tensor/dry.h"
#include "tensor/pool_size.h"

enum { CLIP_TOKENS = 77, T5_TOKENS = 256, MAX_STEPS = 64 };

// --- one network -----------------------------------------------------------------------------------
typedef struct peak {
    at_device *d;
    at_ops *o;
    size_t before;
} peak;

static at_status peak_begin(peak *p, at_device *d, at_dtype compute, bool fp8)
{
    p->d = d;
    at_status st = at_ops_new(&(at_ops_config){.device = d, .compute = compute, .fp8 = fp8}, &p->o);
    at_device_reset_peak(d);
    p->before = atomic_load(&d->live_bytes);
    return st;
}

static at_status peak_end(peak *p, double *bytes)
{
    at_status st = at_ops_status(p->o);
    *bytes = (double)(atomic_load(&p->d->peak_bytes) - p->before);
    at_ops_free(p->o);
    return st;
}

at_status at_peak_denoiser(at_device *d, at_model *m, const at_peak_shape *s, at_dtype compute,
                           double *bytes)
{
    peak p;
    float steps[MAX_STEPS], now[2 * MAX_STEPS], guidance[2 * MAX_STEPS];
    int64_t b = s->batch > MAX_STEPS ? MAX_STEPS : s->batch, width = at_model_vector_width(m);
    size_t n = s->steps < 1 ? 1 : s->steps > MAX_STEPS ? MAX_STEPS : (size_t)s->steps;
    at_status st = peak_begin(&p, d, compute, s->fp8);

    if (st != AT_OK) return st;
    for (size_t i = 0; i < n; i++)
        steps[i] = 1.0f - (float)i / (float)n;
    for (int64_t i = 0; i < b; i++)
        guidance[i] = 3.5f;
    at_scope_begin(p.o);
    at_model_in in = {.x = at_zeros(p.o, AT_F32, 4,
                                    (int64_t[]){b, at_model_channels(m), s->latent_h, s->latent_w}),
                      .context = at_zeros(p.o, compute, 3,
                                          (int64_t[]){b, s->text_tokens, at_model_text_width(m)}),
                      .pooled = width ? at_zeros(p.o, compute, 2, (int64_t[]){b, width}) : NULL,
                      .timestep = now,
                      .guidance = guidance,
                      .steps = steps,
                      .n_steps = n,
                      .key = 1};
    // What is kept from step to step is there in the second.
    for (size_t i = 0; i < 2 && at_ops_status(p.o) == AT_OK; i++) {
        for (int64_t k = 0; k < b; k++)
            now[k] = steps[i % n];
        at_scope_begin(p.o);
        at_model_forward(p.o, m, &in);
        at_scope_end(p.o, NULL);
    }
    at_scope_end(p.o, NULL);
    st = peak_end(&p, bytes);
    at_model_forget(m);
    return st;
}

at_status at_peak_encoder(at_device *d, at_encoder *e, int64_t tokens, at_dtype compute,
                          double *bytes)
{
    peak p;
    int32_t ids[1024] = {0};
    at_encode_in in = {.ids = ids, .batch = 1, .tokens = tokens > 1024 ? 1024 : tokens, .eos = -1};
    at_status st = peak_begin(&p, d, compute, false);

    if (st != AT_OK) return st;
    for (int i = 0; i < 2; i++) { // the second call of a length is recorded
        at_scope_begin(p.o);
        (void)at_encoder_forward(p.o, e, &in);
        at_scope_end(p.o, NULL);
    }
    return peak_end(&p, bytes);
}

at_status at_peak_decoder(at_device *d, at_vae *v, const at_peak_shape *s, at_dtype compute,
                          double *bytes)
{
    peak p;
    at_status st = peak_begin(&p, d, compute, false);

    if (st != AT_OK) return st;
    at_scope_begin(p.o);
    // Pictures go through one by one.
    int64_t shape[] = {1, at_vae_channels(v), s->latent_h, s->latent_w};
    at_vae_decode_raw(p.o, v, at_zeros(p.o, AT_F32, 4, shape));
    at_scope_end(p.o, NULL);
    return peak_end(&p, bytes);
}

// --- the networks of a plan --------------------------------------------------------------------------
// The largest sizes that any sampler asks for.
static at_peak_shape largest(const at_plan *p, int downscale)
{
    at_peak_shape s = {.text_tokens = CLIP_TOKENS};
    for (size_t i = 0; i < p->sampler_count; i++) {
        const at_plan_sampler *a = &p->samplers[i];
        int64_t batch = (a->batch ? a->batch : 1) * (a->guided ? 2 : 1);
        int64_t h = a->height / downscale, w = a->width / downscale;
        if (h < 1 || w < 1) continue; // its size is not in the workflow
        if (batch * h * w < s.batch * s.latent_h * s.latent_w) continue;
        s = (at_peak_shape){batch, h, w, a->text_tokens, a->steps};
    }
    return s;
}

static double block(const at_device *d, double bytes)
{
    return d->host ? bytes : (double)at_pool_block((size_t)bytes);
}

// A matrix in the type that is multiplied, a vector in f32: for devices that tell nothing.
static double likely(const at_plan_how *how, const at_weight *w)
{
    size_t size = how->fp8 ? 1 : at_dtype_size(how->compute);
    return (double)at_weight_elements(w) * (double)(w->rank > 1 ? size : sizeof(float));
}

at_peak_held at_peak_weights(const at_plan_how *how, at_store *s, const char *prefix)
{
    const at_device *d = how->device;
    at_dry_weights used = at_dry_weights_used();
    bool known = d->ops->needs && used.bytes;
    at_peak_held held = {.weights = known ? (double)used.bytes : 0};
    double stored = 0;

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (!at_starts_with(w->name, prefix)) continue;
        stored += block(d, (double)w->bytes);
        if (d->host || (known && !at_dry_weight_is_used(w->packed)))
            held.weights += block(d, (double)w->bytes);
        else if (!known)
            held.weights += likely(how, w);
    }
    if (known)
        held.loading = (stored > held.weights ? stored : held.weights) + (double)used.largest;
    return held;
}

static void weigh(at_plan_part *part, at_store *s, const char *prefix)
{
    at_peak_held held = at_peak_weights(&part->how, s, prefix);

    part->weights = held.weights;
    part->loading = held.loading;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (at_starts_with(w->name, prefix)) part->stored[w->dtype] += (double)w->bytes;
    }
}

static at_status measure_text(at_plan_part *part, at_store *s, const at_found *f, at_device *dry)
{
    at_encoder *e = NULL;
    at_status st = at_encoder_load(s, f, &e);
    if (st != AT_OK) return st;
    int64_t most = at_encoder_max_tokens(e);
    st = at_peak_encoder(dry, e, most ? most : T5_TOKENS, part->how.compute, &part->activations);
    weigh(part, at_encoder_store(e), at_encoder_prefix(e));
    at_encoder_release(&e);
    return st;
}

static at_status measure_denoiser(const at_env *env, at_plan *p, at_plan_part *part, at_store *s,
                                  at_device *dry)
{
    at_model *m = NULL;
    at_status st = at_model_load(s, part->file, &m);
    if (st != AT_OK) return st;
    at_peak_shape shape = largest(p, at_model_latent(m)->downscale);
    part->how.fp8 = shape.fp8 = at_env_fp8(env, m);
    if (at_model_text_repeats(m)) shape.text_tokens = CLIP_TOKENS;
    if (shape.batch) st = at_peak_denoiser(dry, m, &shape, part->how.compute, &part->activations);
    weigh(part, at_model_store(m), at_model_prefix(m));
    at_model_release(&m);
    return st;
}

static at_status measure_vae(at_plan *p, at_plan_part *part, at_store *s, at_device *dry)
{
    at_vae *v = NULL;
    at_status st = at_vae_load(s, part->file, &v);
    if (st != AT_OK) return st;
    at_peak_shape shape = largest(p, at_vae_downscale(v));
    if (shape.batch) st = at_peak_decoder(dry, v, &shape, part->how.compute, &part->activations);
    weigh(part, at_vae_store(v), at_vae_prefix(v));
    at_vae_release(&v);
    return st;
}

// The encoders of one CLIP object compute in one type: f16 if all of them bear it.
static bool texts_bear_f16(const at_plan *p)
{
    for (size_t i = 0; i < p->part_count; i++)
        if (p->parts[i].found.part == AT_PART_TEXT && !at_arch_f16(p->parts[i].found.arch))
            return false;
    return true;
}

static at_status measure(at_engine *e, at_plan *p, at_plan_part *part)
{
    at_env *env = at_engine_env(e);
    const at_found *f = &part->found;
    at_store *s = NULL;
    bool text = f->part == AT_PART_TEXT;
    int kind = text ? AT_ENV_TEXT : f->part == AT_PART_VAE ? AT_ENV_VAE : AT_ENV_UNET;

    part->how.device = part->asked;
    at_env_choose(env, kind, AT_DTYPE_COUNT, text ? texts_bear_f16(p) : at_arch_f16(f->arch),
                  &part->how.device, &part->how.compute);
    uint64_t rest = 0, total = 0;
    (void)part->how.device->ops->memory(part->how.device, &rest, &total); // opens its libraries
    at_device *dry = at_device_dry_like(part->how.device);
    at_status st = env->open_store(env, part->path, &s);
    if (st == AT_OK)
        st = text                 ? measure_text(part, s, f, dry)
             : kind == AT_ENV_VAE ? measure_vae(p, part, s, dry)
                                  : measure_denoiser(env, p, part, s, dry);
    at_dry_forget();
    at_store_release(&s);
    return st;
}

double at_peak_lasting(at_device *d)
{
    at_device_holds h = {0};
    if (d->ops->holds) d->ops->holds(d, &h);
    return (double)(h.fixed + h.driver);
}

double at_peak_measured(at_device *d)
{
    at_device_holds h = {0};
    if (d->ops->holds) d->ops->holds(d, &h);
    return h.most_used ? (double)(h.most_used + h.fixed + h.driver) : 0;
}

at_status at_plan_memory(at_engine *e, at_plan *p)
{
    double kept = 0, most = 0, alone = 0, coming = 0;

    for (size_t i = 0; i < p->part_count; i++) {
        at_plan_part *part = &p->parts[i];
        at_status st = measure(e, p, part);
        if (st != AT_OK) return at_fail_context(st, "%s: ", part->file);
        if (part->how.device != at_engine_env(e)->device) continue; // another's memory
        kept += part->weights;
        if (part->activations > most) most = part->activations;
        if (part->weights + part->activations > alone) alone = part->weights + part->activations;
        if (part->loading - part->weights > coming) coming = part->loading - part->weights;
    }
    p->lasting = at_peak_lasting(at_engine_env(e)->device);
    p->peak_kept = kept + most + p->lasting;
    p->peak_alone = alone + p->lasting;
    p->peak_coming = kept + (coming > most ? coming : most) + p->lasting;
    return AT_OK;
}
