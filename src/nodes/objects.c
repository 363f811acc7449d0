// SPDX-License-Identifier: Apache-2.0
// objects.c - making and freeing what travels on links.
#include "nodes/objects.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/hooks.h"

void *at_object_new(size_t bytes, const at_object_type *type)
{
    at_object *o = at_calloc(1, bytes);
    if (!o) return NULL;
    atomic_init(&o->refs, 1);
    o->type = type;
    return o;
}

static void model_free(at_object *self)
{
    at_obj_model *m = (at_obj_model *)self;
    at_model_release(&m->model);
    at_patches_release(&m->patches);
    at_hooks_release(&m->hooks);
    at_free(m);
}
static const at_object_type model_type = {"MODEL", model_free};

at_object *at_obj_model_new(at_model *model)
{
    at_obj_model *m = at_object_new(sizeof *m, &model_type);
    if (m)
        m->model = model;
    else
        at_model_release(&model);
    return (at_object *)m;
}

at_object *at_obj_model_with(const at_obj_model *like, at_model *model)
{
    at_object *o = at_obj_model_new(model);
    at_obj_model *m = (at_obj_model *)o;
    if (!m) return NULL;
    m->patches = at_patches_retain(like->patches);
    m->hooks = at_hooks_retain(like->hooks);
    m->device = like->device;
    return o;
}

at_status at_obj_model_patch(const at_obj_model *like, const at_patch_ops *ops, void *self,
                             at_object **out)
{
    at_status st = AT_OK;
    at_patches *set = NULL;

    *out = NULL;
    AT_TRY(at_patches_add(like->patches, ops, self, &set));
    *out = at_obj_model_with(like, at_model_retain(like->model));
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a model", ops->name));
    at_obj_model *m = (at_obj_model *)*out;
    at_patches_release(&m->patches);
    m->patches = set;
    set = NULL;
out:
    at_patches_release(&set);
    return st;
}

static void vae_free(at_object *self)
{
    at_obj_vae *v = (at_obj_vae *)self;
    at_vae_release(&v->vae);
    at_free(v);
}
static const at_object_type vae_type = {"VAE", vae_free};

at_object *at_obj_vae_new(at_vae *vae)
{
    at_obj_vae *v = at_object_new(sizeof *v, &vae_type);
    if (v)
        v->vae = vae;
    else
        at_vae_release(&vae);
    return (at_object *)v;
}

void at_clip_encoder_drop(at_clip_encoder *e)
{
    at_encoder_release(&e->encoder);
    at_tokenizer_release(&e->tokenizer);
}
static void clip_free(at_object *self)
{
    at_obj_clip *c = (at_obj_clip *)self;
    for (size_t i = 0; i < AT_TE_COUNT; i++)
        at_clip_encoder_drop(&c->enc[i]);
    at_object_release(c->hooks);
    at_free(c);
}
static const at_object_type clip_type = {"CLIP", clip_free};

at_object *at_obj_clip_new(at_clip_kind kind, at_clip_encoder enc[AT_TE_COUNT])
{
    at_obj_clip *c = at_object_new(sizeof *c, &clip_type);
    for (size_t i = 0; i < AT_TE_COUNT; i++) {
        if (c)
            c->enc[i] = enc[i];
        else
            at_clip_encoder_drop(&enc[i]);
        enc[i] = (at_clip_encoder){0};
    }
    if (c) c->kind = kind;
    return (at_object *)c;
}

bool at_obj_clip_f16(const at_obj_clip *c)
{
    bool all = true;
    for (size_t i = 0; i < AT_TE_COUNT; i++)
        if (c->enc[i].encoder) all = all && at_arch_f16(at_encoder_arch(c->enc[i].encoder));
    return all;
}

at_object *at_obj_clip_copy(const at_obj_clip *from)
{
    at_obj_clip *c = at_object_new(sizeof *c, &clip_type);
    if (!c) return NULL;
    at_object base = c->base;
    *c = *from;
    c->base = base;
    for (size_t i = 0; i < AT_TE_COUNT; i++) {
        at_encoder_retain(c->enc[i].encoder);
        if (c->enc[i].tokenizer) at_tokenizer_retain(c->enc[i].tokenizer);
    }
    at_object_retain(c->hooks);
    return &c->base;
}

static void latent_free(at_object *self)
{
    at_obj_latent *l = (at_obj_latent *)self;
    at_tensor_release(&l->samples);
    at_tensor_release(&l->noise_mask);
    at_free(l->batch_index);
    at_free(l);
}
static const at_object_type latent_type = {"LATENT", latent_free};

at_object *at_obj_latent_new(at_tensor *samples)
{
    at_obj_latent *l = at_object_new(sizeof *l, &latent_type);
    if (l)
        l->samples = samples;
    else
        at_tensor_release(&samples);
    return (at_object *)l;
}

at_object *at_obj_latent_with(const at_obj_latent *from, at_tensor *samples)
{
    at_object *o = at_obj_latent_new(samples);
    if (!o) return NULL;
    at_obj_latent *l = (at_obj_latent *)o;
    if (from->noise_mask) l->noise_mask = at_tensor_retain(from->noise_mask);
    if (from->batch_index) {
        size_t bytes = (size_t)from->samples->shape[0] * sizeof *l->batch_index;
        l->batch_index = at_alloc(bytes);
        if (!l->batch_index) {
            at_object_release(o);
            return NULL;
        }
        memcpy(l->batch_index, from->batch_index, bytes);
    }
    return o;
}

static void image_free(at_object *self)
{
    at_obj_image *i = (at_obj_image *)self;
    at_tensor_release(&i->pixels);
    at_free(i);
}
static const at_object_type image_type = {"IMAGE", image_free};
static const at_object_type mask_type = {"MASK", image_free};

static at_object *pixels_new(at_tensor *pixels, const at_object_type *type)
{
    at_obj_image *i = at_object_new(sizeof *i, type);
    if (i)
        i->pixels = pixels;
    else
        at_tensor_release(&pixels);
    return (at_object *)i;
}
at_object *at_obj_image_new(at_tensor *pixels)
{
    return pixels_new(pixels, &image_type);
}
at_object *at_obj_mask_new(at_tensor *mask)
{
    return pixels_new(mask, &mask_type);
}

static void plain_free(at_object *self)
{
    at_free(self);
}
static const at_object_type noise_type = {"NOISE", plain_free};
static const at_object_type sampler_type = {"SAMPLER", plain_free};

at_object *at_obj_noise_new(bool disabled, uint64_t seed)
{
    at_obj_noise *n = at_object_new(sizeof *n, &noise_type);
    if (!n) return NULL;
    n->disabled = disabled;
    n->seed = seed;
    return &n->base;
}

at_object *at_obj_sampler_new(const char *name)
{
    at_obj_sampler *s = at_object_new(sizeof *s, &sampler_type);
    if (!s) return NULL;
    snprintf(s->name, sizeof s->name, "%s", name);
    at_sampler_defaults(name, &s->options);
    return &s->base;
}

static void sigmas_free(at_object *self)
{
    at_obj_sigmas *s = (at_obj_sigmas *)self;
    at_free(s->values);
    at_free(s);
}
static const at_object_type sigmas_type = {"SIGMAS", sigmas_free};

at_object *at_obj_sigmas_new(float *values, size_t count)
{
    at_obj_sigmas *s = at_object_new(sizeof *s, &sigmas_type);
    if (!s) {
        at_free(values);
        return NULL;
    }
    s->values = values;
    s->count = count;
    return &s->base;
}

static void guider_free(at_object *self)
{
    at_obj_guider *g = (at_obj_guider *)self;
    if (g->model) at_object_release(&g->model->base);
    if (g->positive) at_object_release(&g->positive->base);
    if (g->negative) at_object_release(&g->negative->base);
    if (g->third) at_object_release(&g->third->base);
    at_free(g);
}
static const at_object_type guider_type = {"GUIDER", guider_free};

at_object *at_obj_guider_new(const at_obj_model *m, const at_obj_cond *positive,
                             const at_obj_cond *negative, double cfg)
{
    at_obj_guider *g = at_object_new(sizeof *g, &guider_type);
    if (!g) return NULL;
    g->model = (at_obj_model *)at_object_retain((at_object *)m);
    g->positive = (at_obj_cond *)at_object_retain((at_object *)positive);
    if (negative) g->negative = (at_obj_cond *)at_object_retain((at_object *)negative);
    g->cfg = cfg;
    return &g->base;
}

at_object *at_obj_guider_third(const at_obj_model *m, at_guider_kind kind,
                               const at_obj_cond *positive, const at_obj_cond *third,
                               const at_obj_cond *negative, double cfg, double cfg2)
{
    at_obj_guider *g = (at_obj_guider *)at_obj_guider_new(m, positive, negative, cfg);
    if (!g) return NULL;
    g->kind = kind;
    g->third = (at_obj_cond *)at_object_retain((at_object *)third);
    g->cfg2 = cfg2;
    return &g->base;
}

static void lora_free(at_object *self)
{
    at_obj_lora *l = (at_obj_lora *)self;
    at_store_release(&l->store);
    at_free(l);
}
static const at_object_type lora_type = {"LORA_MODEL", lora_free};

at_object *at_obj_lora_new(at_store *s)
{
    at_obj_lora *l = at_object_new(sizeof *l, &lora_type);
    if (l)
        l->store = s;
    else
        at_store_release(&s);
    return (at_object *)l;
}

at_status at_give(at_value *out, at_object *o, const char *what)
{
    if (!o) return at_fail(AT_ENOMEM, "%s: no memory for the result", what);
    *out = at_value_object(o);
    return AT_OK;
}
