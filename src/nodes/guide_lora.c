// SPDX-License-Identifier: Apache-2.0
// guide_lora.c - networks for conditionings with hooks: LoRAs that belong to a prompt.
// Idea: for each HOOKS object of a run there is one MODEL over edited weights, made
// when first asked for and made anew when a keyframe changes a strength.
// Easy to get wrong: a keyframe list moves on once per noise level, however many entries share it;
// it stays on a keyframe for its guaranteed steps, unless that began before the schedule does.
// Source: ComfyUI 0.3.64 comfy/hooks.py, HookKeyframeGroup (behaviour). Owns: the guide owns the
// models.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/guide_impl.h"
#include "nodes/lora_hooks.h"
#include "sample/sigmas.h"

void at_guide_networks_free(at_guide *g)
{
    for (size_t i = 0; i < g->n_hooked; i++) {
        at_object_release(g->hooked[i].model);
        at_free(g->hooked[i].strengths);
    }
    at_free(g->hooked);
    at_free(g->keys);
    g->hooked = NULL;
    g->keys = NULL;
    g->n_hooked = g->n_keys = 0;
}

// --- keyframes -----------------------------------------------------------------------------------
static float begins(const at_guide *g, const at_keyframe *k)
{
    return (float)at_percent_to_sigma(&g->sampling, k->start);
}

static int guaranteed(const at_guide *g, const at_keyframe *k)
{
    float most = 0;
    for (size_t i = 0; i < g->n_sigmas; i++)
        most = fmaxf(most, g->sigmas[i]);
    return begins(g, k) > most ? 0 : k->guarantee;
}

static at_key_state *state_of(at_guide *g, const at_obj_keyframes *k)
{
    for (size_t i = 0; i < g->n_keys; i++)
        if (g->keys[i].keyframes == &k->base) return &g->keys[i];
    at_key_state *more = at_realloc(g->keys, (g->n_keys + 1) * sizeof *more);
    if (!more) return NULL;
    g->keys = more;
    more[g->n_keys] = (at_key_state){.keyframes = &k->base, .at = -1};
    return &more[g->n_keys++];
}

static void advance(const at_guide *g, const at_obj_keyframes *k, at_key_state *s, float sigma)
{
    if (s->at == sigma) return;
    if (s->used >= guaranteed(g, &k->items[s->index]))
        for (size_t i = s->index + 1; i < k->count && begins(g, &k->items[i]) >= sigma; i++) {
            s->index = i;
            s->used = 0;
            if (guaranteed(g, &k->items[i]) > 0) break;
        }
    s->used++;
    s->at = sigma;
}

static at_status strength_of(at_guide *g, const at_lora_hook *h, float sigma, double *out)
{
    *out = h->adapter->strength_model;
    if (!h->keyframes || !h->keyframes->count) return AT_OK;
    at_key_state *s = state_of(g, h->keyframes);
    if (!s) return at_fail(AT_ENOMEM, "hooks: no memory for keyframes");
    advance(g, h->keyframes, s, sigma);
    *out *= h->keyframes->items[s->index].strength;
    return AT_OK;
}

// --- models --------------------------------------------------------------------------------------
static at_hooked *hooked_of(at_guide *g, const at_object *hooks)
{
    for (size_t i = 0; i < g->n_hooked; i++)
        if (g->hooked[i].hooks == hooks) return &g->hooked[i];
    at_hooked *more = at_realloc(g->hooked, (g->n_hooked + 1) * sizeof *more);
    if (!more) return NULL;
    g->hooked = more;
    double *strengths = at_calloc(((const at_obj_lora_hooks *)hooks)->count + 1, sizeof *strengths);
    if (!strengths) return NULL;
    more[g->n_hooked] = (at_hooked){.hooks = hooks, .strengths = strengths};
    return &more[g->n_hooked++];
}

static at_status apply(at_guide *g, at_hooked *h)
{
    at_status st = AT_OK;
    const at_obj_lora_hooks *hooks = (const at_obj_lora_hooks *)h->hooks;
    at_object *m = at_object_retain((at_object *)g->model), *next = NULL, *clip = NULL;

    for (size_t i = 0; i < hooks->count; i++) {
        if (h->strengths[i] == 0) continue;
        AT_TRY(at_adapter_apply(hooks->items[i].adapter, (const at_obj_model *)m, NULL,
                                h->strengths[i], 0, &next, &clip));
        at_object_release(m);
        m = next;
    }
    at_object_release(h->model);
    h->model = m;
    m = NULL;
out:
    at_object_release(m);
    return st;
}

at_model *at_guide_network(at_guide *g, at_ops *o, const at_object *hooks, float sigma)
{
    at_status st = AT_OK;
    const at_obj_lora_hooks *list = (const at_obj_lora_hooks *)hooks;
    at_hooked *h = NULL;
    bool same = true;

    if (!hooks) return g->net;
    h = hooked_of(g, hooks);
    if (!h) AT_TRY(at_fail(AT_ENOMEM, "hooks: no memory for a model"));
    same = h->model != NULL;
    for (size_t i = 0; i < list->count; i++) {
        double now = 0;
        AT_TRY(strength_of(g, &list->items[i], sigma, &now));
        same &= now == h->strengths[i];
        h->strengths[i] = now;
    }
    if (!same) AT_TRY(apply(g, h));
out:
    if (st != AT_OK) return (at_model *)at_ops_poison(o, st, "%s", at_error_text());
    return ((const at_obj_model *)h->model)->model;
}
