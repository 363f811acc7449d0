// SPDX-License-Identifier: Apache-2.0
// lora_hooks.c - making, joining and applying HOOKS, and HOOK_KEYFRAMES.
#include "nodes/lora_hooks.h"

#include <string.h>

#include "base/mem.h"
#include "nodes/edit.h"
#include "nodes/merge.h"

// --- keyframes -----------------------------------------------------------------------------------
static void keyframes_free(at_object *self)
{
    at_free(((at_obj_keyframes *)self)->items);
    at_free(self);
}
static const at_object_type keyframes_type = {"HOOK_KEYFRAMES", keyframes_free};

at_object *at_obj_keyframes_add(const at_obj_keyframes *like, const at_keyframe *k)
{
    size_t n = like ? like->count : 0, at = n;
    at_obj_keyframes *o = at_calloc(1, sizeof *o);
    at_keyframe *items = at_calloc(n + 1, sizeof *items);

    if (!o || !items) {
        at_free(o);
        at_free(items);
        return NULL;
    }
    atomic_init(&o->base.refs, 1);
    o->base.type = &keyframes_type;
    while (k && at > 0 && like->items[at - 1].start > k->start)
        at--;
    if (at) memcpy(items, like->items, at * sizeof *items);
    if (k) items[at] = *k;
    if (n > at) memcpy(items + at + 1, like->items + at, (n - at) * sizeof *items);
    o->items = items;
    o->count = n + (k != NULL);
    return &o->base;
}

// --- hooks ---------------------------------------------------------------------------------------
static void adapter_free(at_object *self)
{
    at_adapter *a = (at_adapter *)self;
    at_store_release(&a->file);
    at_object_release(a->model);
    at_object_release(a->clip);
    at_free(a);
}
static const at_object_type adapter_type = {"adapter", adapter_free};

static void hooks_free(at_object *self)
{
    at_obj_lora_hooks *h = (at_obj_lora_hooks *)self;
    for (size_t i = 0; i < h->count; i++) {
        at_object_release((at_object *)h->items[i].adapter);
        at_object_release((at_object *)h->items[i].keyframes);
    }
    at_free(h->items);
    at_free(h);
}
static const at_object_type hooks_type = {"HOOKS", hooks_free};

static at_obj_lora_hooks *hooks_new(size_t room)
{
    at_obj_lora_hooks *h = at_calloc(1, sizeof *h);
    at_lora_hook *items = at_calloc(room + 1, sizeof *items);
    if (!h || !items) {
        at_free(h);
        at_free(items);
        return NULL;
    }
    atomic_init(&h->base.refs, 1);
    h->base.type = &hooks_type;
    h->items = items;
    return h;
}

// One more reference to a hook, unless the list has it.
static void put(at_obj_lora_hooks *h, const at_lora_hook *hook)
{
    for (size_t i = 0; i < h->count; i++)
        if (h->items[i].adapter == hook->adapter) return;
    at_object_retain((at_object *)hook->adapter);
    at_object_retain((at_object *)hook->keyframes);
    h->items[h->count++] = *hook;
}

static size_t count_of(const at_object *hooks)
{
    return hooks ? ((const at_obj_lora_hooks *)hooks)->count : 0;
}
static void put_all(at_obj_lora_hooks *h, const at_object *from)
{
    for (size_t i = 0; i < count_of(from); i++)
        put(h, &((const at_obj_lora_hooks *)from)->items[i]);
}

// `previous` and one whose adapter is like this; what it names is retained.
static at_object *add(const at_object *previous, const at_adapter *like)
{
    at_obj_lora_hooks *h = hooks_new(count_of(previous) + 1);
    at_adapter *a = at_calloc(1, sizeof *a);

    if (!h || !a) {
        at_free(a);
        at_object_release((at_object *)h);
        return NULL;
    }
    atomic_init(&a->base.refs, 1);
    a->base.type = &adapter_type;
    a->file = like->file ? at_store_retain(like->file) : NULL;
    a->model = at_object_retain(like->model);
    a->clip = at_object_retain(like->clip);
    a->strength_model = like->strength_model;
    a->strength_clip = like->strength_clip;
    put_all(h, previous);
    put(h, &(at_lora_hook){.adapter = a});
    at_object_release(&a->base);
    return &h->base;
}

at_object *at_obj_lora_hooks_add(const at_object *previous, at_store *file, double strength_model,
                                 double strength_clip)
{
    return add(previous, &(at_adapter){.file = file,
                                       .strength_model = strength_model,
                                       .strength_clip = strength_clip});
}

at_object *at_obj_lora_hooks_add_model(const at_object *previous, at_object *model, at_object *clip,
                                       double strength_model, double strength_clip)
{
    return add(previous, &(at_adapter){.model = model,
                                       .clip = clip,
                                       .strength_model = strength_model,
                                       .strength_clip = strength_clip});
}

at_status at_adapter_apply(const at_adapter *a, const at_obj_model *m, const at_obj_clip *c,
                           double strength_model, double strength_clip, at_object **model_out,
                           at_object **clip_out)
{
    at_status st = AT_OK;

    if (!a->model)
        return at_edit_by_lora(a->file, m, c, strength_model, strength_clip, model_out, clip_out);
    *model_out = *clip_out = NULL;
    if (c && !a->clip)
        AT_TRY(at_fail(AT_EINVAL, "this hook's checkpoint has no text encoder to change a CLIP "
                                  "with; set strength_clip to 0"));
    if (m) AT_TRY(at_move_model(m, (const at_obj_model *)a->model, strength_model, model_out));
    if (c) AT_TRY(at_move_clip(c, (const at_obj_clip *)a->clip, strength_clip, clip_out));
out:
    if (st != AT_OK) {
        at_object_release(*model_out);
        *model_out = NULL;
    }
    return st;
}

at_object *at_obj_lora_hooks_keyed(const at_object *hooks, const at_obj_keyframes *k)
{
    at_obj_lora_hooks *h = hooks_new(count_of(hooks));
    if (!h) return NULL;
    for (size_t i = 0; i < count_of(hooks); i++) {
        at_lora_hook one = ((const at_obj_lora_hooks *)hooks)->items[i];
        one.keyframes = (at_obj_keyframes *)k;
        put(h, &one);
    }
    return &h->base;
}

at_status at_obj_lora_hooks_join(const at_object *a, const at_object *b, at_object **out)
{
    *out = NULL;
    if (!a || !b) {
        *out = at_object_retain((at_object *)(a ? a : b));
        return AT_OK;
    }
    at_obj_lora_hooks *h = hooks_new(count_of(a) + count_of(b));
    if (!h) return at_fail(AT_ENOMEM, "hooks: no memory");
    put_all(h, a);
    put_all(h, b);
    *out = &h->base;
    return AT_OK;
}
