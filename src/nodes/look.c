// SPDX-License-Identifier: Apache-2.0
// look.c - objects around picture encoders; noise augmentation of unCLIP's vectors.
// Idea: unCLIP (Ramesh et al. 2022, arXiv:2204.06125) conditions on a picture's vector to which
// noise of a known level was added; the level is told beside it.
// Easy to get wrong: the noise is drawn with the sampler's seed minus 10, anew for each vector;
// noise for a sum of several continues the last of those streams.
// Owns: see look.h.
#include "nodes/look.h"

#include <math.h>

#include "base/mem.h"
#include "sample/noise.h"

static void vision_free(at_object *self)
{
    at_vision_release(&((at_obj_vision *)self)->vision);
    at_free(self);
}
static const at_object_type vision_type = {"CLIP_VISION", vision_free};
static const at_object_type style_type = {"STYLE_MODEL", vision_free};

static at_object *vision_new(at_vision *v, const at_object_type *type)
{
    at_obj_vision *o = at_object_new(sizeof *o, type);
    if (o)
        o->vision = v;
    else
        at_vision_release(&v);
    return (at_object *)o;
}
at_object *at_obj_vision_new(at_vision *v)
{
    return vision_new(v, &vision_type);
}
at_object *at_obj_style_new(at_vision *v)
{
    return vision_new(v, &style_type);
}

static void seen_free(at_object *self)
{
    at_obj_seen *s = (at_obj_seen *)self;
    at_tensor_release(&s->last);
    at_tensor_release(&s->penultimate);
    at_tensor_release(&s->embeds);
    at_free(s);
}
static const at_object_type seen_type = {"CLIP_VISION_OUTPUT", seen_free};

at_object *at_obj_seen_new(at_tensor *last, at_tensor *penultimate, at_tensor *embeds)
{
    at_obj_seen *s = at_object_new(sizeof *s, &seen_type);
    if (!s) {
        at_tensor_release(&last);
        at_tensor_release(&penultimate);
        at_tensor_release(&embeds);
        return NULL;
    }
    s->last = last;
    s->penultimate = penultimate;
    s->embeds = embeds;
    return &s->base;
}

static void unclip_free(at_object *self)
{
    at_obj_unclip *u = (at_obj_unclip *)self;
    at_object_release((at_object *)u->previous);
    at_object_release((at_object *)u->seen);
    at_free(u);
}
static const at_object_type unclip_type = {"UNCLIP", unclip_free};

at_object *at_obj_unclip_new(at_object *previous, at_object *seen, double strength,
                             double noise_augmentation)
{
    at_obj_unclip *u = at_object_new(sizeof *u, &unclip_type);
    if (!u) return NULL;
    u->previous = (at_obj_unclip *)at_object_retain(previous);
    u->seen = (at_obj_seen *)at_object_retain(seen);
    u->strength = strength;
    u->noise_augmentation = noise_augmentation;
    return &u->base;
}

// --- noise augmentation ------------------------------------------------------------------------
enum { LEVELS = 1000, MAX_WIDTH = 1 << 14 };

static double bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

// The cumulated product of 1 - beta up to `level` in the "squaredcos_cap_v2" schedule.
static double kept(int level)
{
    double product = 1;
    for (int i = 0; i <= level; i++) {
        double beta = 1 - bar((i + 1) / (double)LEVELS) / bar(i / (double)LEVELS);
        product *= 1 - (beta < 0.999 ? beta : 0.999);
    }
    return product;
}

// sqrt(kept) * x + sqrt(1 - kept) * noise, and the level's sinusoid behind it: [1, 2 * n].
static at_tensor *augment(at_ops *o, const at_tensor *x, double augmentation, const float *noise)
{
    int level = (int)nearbyint((LEVELS - 1) * augmentation);
    float told = (float)level;
    double k = kept(level);
    if (!x) return NULL;
    at_tensor *n = at_from_host(o, AT_F32, 2, x->shape, noise);
    float coef[] = {(float)sqrt(k), (float)sqrt(1 - k)};
    at_tensor *z = at_lincomb(o, 2, coef, (const at_tensor *[]){x, n});
    at_tensor *t = at_timestep_embedding(o, &told, 1, (int)x->shape[1], 10000.0, true);
    return at_concat(o, 1, 2, (const at_tensor *[]){z, t});
}

// Adds strength * augmented vector of each picture of one object to *sum; counts them.
static void add_pictures(at_ops *o, const at_obj_unclip *u, const float *noise, at_tensor **sum,
                         int *count)
{
    const at_tensor *e = u->seen->embeds;
    for (int64_t i = 0; e && i < e->shape[0]; i++) {
        at_tensor *row = at_contiguous(o, at_narrow(o, e, 0, i, 1));
        at_tensor *one = augment(o, row, u->noise_augmentation, noise);
        one = at_affine(o, one, (float)u->strength, 0);
        *sum = *sum ? at_add(o, *sum, one) : one;
        ++*count;
    }
}

at_tensor *at_unclip_vector(at_ops *o, const at_object *unclip, double merge, uint64_t seed)
{
    const at_obj_unclip *last = (const at_obj_unclip *)unclip, *chain[64];
    const at_tensor *e = last->seen->embeds;
    at_tensor *sum = NULL;
    int n = 0, count = 0;

    if (!e || e->rank != 2 || e->shape[1] < 16 || e->shape[1] > MAX_WIDTH || e->shape[1] % 16)
        return at_ops_poison(
            o, AT_EINVAL,
            "unCLIPConditioning: the picture encoder gave no projected vector; use "
            "the CLIP_VISION of the unCLIP checkpoint");
    int64_t width = e->shape[1];
    for (const at_obj_unclip *u = last; u; u = u->previous) {
        const at_tensor *v = u->seen->embeds;
        if (n == (int)AT_COUNT(chain) || !v || v->rank != 2 || v->shape[1] != width)
            return at_ops_poison(o, AT_EINVAL,
                                 "unCLIPConditioning: more than %zu pictures, or vectors of "
                                 "different encoders",
                                 AT_COUNT(chain));
        chain[n++] = u;
    }
    float *noise = at_alloc((size_t)(2 * width) * sizeof *noise);
    if (!noise) return at_ops_poison(o, AT_ENOMEM, "unCLIPConditioning: no memory");
    at_randn(seed - 10, noise, 2 * width);
    while (n-- > 0)
        add_pictures(o, chain[n], noise, &sum, &count);
    if (count > 1) {
        at_tensor *x = at_contiguous(o, at_narrow(o, sum, 1, 0, width));
        sum = augment(o, x, merge, noise + width);
    }
    at_free(noise);
    return sum;
}
