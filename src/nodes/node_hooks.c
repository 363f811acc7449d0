// SPDX-License-Identifier: Apache-2.0
// node_hooks.c - LoRAs for single prompts: made (of adapter files, of whole checkpoints),
// scheduled, combined, and put on a CLIP.
// Easy to get wrong: percents and strengths of interpolated keyframes are f32 (torch.linspace);
// only the first of them is guaranteed a step; a CLIP is changed at the hooks' own strengths,
// without keyframes.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_hooks.py, comfy/hooks.py (behaviour).
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "json/json.h"
#include "nodes/env.h"
#include "nodes/loaders.h"
#include "nodes/lora_hooks.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#define MODULE "comfy_extras.nodes_hooks"
enum { MOST_KEYS = 10000 };
#define OPTIONAL(st, field, TYPE)                                                                  \
    AT_ROW(st, field, AT_IN_OBJECT, .type_name = TYPE, .flags = AT_INF_NO_OPTIONS | AT_INF_OPTIONAL)
#define NODE(cls, title, where, rows, outs, st, fn)                                                \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = MODULE,           \
        .flags = AT_NODE_EXPERIMENTAL, .in = rows, .n_in = AT_COUNT(rows), .out = outs,            \
        .n_out = 1, .in_size = sizeof(st), .run = fn,                                              \
    }
static const at_out hooks_out[] = {AT_OUT("HOOKS")};
static const at_out keyframes_out[] = {{.type_name = "HOOK_KEYFRAMES", .name = "HOOK_KF"}};
static const at_out clip_out[] = {AT_OUT("CLIP")};

// No hooks at all are an empty list, not None.
static at_status give_hooks(const char *node, at_object *o, at_value *out)
{
    return at_give(out, o, node);
}

// --- CreateHookLora, CreateHookLoraModelOnly -----------------------------------------------------
typedef struct lora_in {
    const char *lora_name;
    double strength_model, strength_clip;
    at_object *prev_hooks;
} lora_in;
#define ROW_NAME                                                                                   \
    AT_ROW(lora_in, lora_name, AT_IN_COMBO, .list = "loras", .flags = AT_INF_NO_OPTIONS)
#define ROW_STRENGTH(field) AT_ROW_FLOAT_STEP(lora_in, field, 1.0, -20, 20, 0.01)
static const at_in lora_rows[] = {ROW_NAME, ROW_STRENGTH(strength_model),
                                  ROW_STRENGTH(strength_clip),
                                  OPTIONAL(lora_in, prev_hooks, "HOOKS")};
static const at_in lora_mo_rows[] = {ROW_NAME, ROW_STRENGTH(strength_model),
                                     OPTIONAL(lora_in, prev_hooks, "HOOKS")};

static at_status create(at_node_ctx *c, const char *node, const lora_in *i, double clip,
                        at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    char *path = NULL;
    at_store *s = NULL;

    if (i->strength_model == 0 && clip == 0) {
        AT_TRY(give_hooks(node,
                          i->prev_hooks ? at_object_retain(i->prev_hooks)
                                        : at_obj_lora_hooks_keyed(NULL, NULL),
                          out));
        goto out;
    }
    AT_TRY(e->find_file(e, "loras", i->lora_name, &path));
    AT_TRY(e->open_store(e, path, &s));
    AT_TRY(give_hooks(node, at_obj_lora_hooks_add(i->prev_hooks, s, i->strength_model, clip), out));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}
static at_status lora_run(at_node_ctx *c, const void *in, at_value *out)
{
    return create(c, "CreateHookLora", in, ((const lora_in *)in)->strength_clip, &out[0]);
}
static at_status lora_mo_run(at_node_ctx *c, const void *in, at_value *out)
{
    return create(c, "CreateHookLoraModelOnly", in, 0, &out[0]);
}
#define CREATE "advanced/hooks/create"
static const at_node node_lora =
    NODE("CreateHookLora", "Create Hook LoRA", CREATE, lora_rows, hooks_out, lora_in, lora_run);
static const at_node node_lora_mo = NODE("CreateHookLoraModelOnly", "Create Hook LoRA (MO)", CREATE,
                                         lora_mo_rows, hooks_out, lora_in, lora_mo_run);

// --- CreateHookModelAsLora, CreateHookModelAsLoraModelOnly ---------------------------------------
typedef struct model_in {
    const char *ckpt_name;
    double strength_model, strength_clip;
    at_object *prev_hooks;
} model_in;
#define ROW_CHECKPOINT                                                                             \
    AT_ROW(model_in, ckpt_name, AT_IN_COMBO, .list = "checkpoints", .flags = AT_INF_NO_OPTIONS)
static const at_in model_rows[] = {ROW_CHECKPOINT,
                                   AT_ROW_FLOAT_STEP(model_in, strength_model, 1.0, -20, 20, 0.01),
                                   AT_ROW_FLOAT_STEP(model_in, strength_clip, 1.0, -20, 20, 0.01),
                                   OPTIONAL(model_in, prev_hooks, "HOOKS")};
static const at_in model_mo_rows[] = {
    ROW_CHECKPOINT, AT_ROW_FLOAT_STEP(model_in, strength_model, 1.0, -20, 20, 0.01),
    OPTIONAL(model_in, prev_hooks, "HOOKS")};

static at_status create_of_model(at_node_ctx *c, const char *node, const model_in *i, double clip,
                                 at_value *out)
{
    at_value parts[3] = {{0}}; // MODEL, CLIP, VAE
    at_status st = at_load_checkpoint(at_env_of(c), i->ckpt_name, parts);

    if (st == AT_OK)
        st = give_hooks(
            node,
            at_obj_lora_hooks_add_model(i->prev_hooks, parts[0].o,
                                        parts[1].kind == AT_VAL_OBJECT ? parts[1].o : NULL,
                                        i->strength_model, clip),
            out);
    for (size_t k = 0; k < AT_COUNT(parts); k++)
        at_value_clear(&parts[k]);
    return at_fail_context(st, "%s: ", node);
}
static at_status model_run(at_node_ctx *c, const void *in, at_value *out)
{
    return create_of_model(c, "CreateHookModelAsLora", in, ((const model_in *)in)->strength_clip,
                           &out[0]);
}
static at_status model_mo_run(at_node_ctx *c, const void *in, at_value *out)
{
    return create_of_model(c, "CreateHookModelAsLoraModelOnly", in, 0, &out[0]);
}
static const at_node node_model = NODE("CreateHookModelAsLora", "Create Hook Model as LoRA", CREATE,
                                       model_rows, hooks_out, model_in, model_run);
static const at_node node_model_mo =
    NODE("CreateHookModelAsLoraModelOnly", "Create Hook Model as LoRA (MO)", CREATE, model_mo_rows,
         hooks_out, model_in, model_mo_run);

// --- SetHookKeyframes ----------------------------------------------------------------------------
#define SCHEDULING "advanced/hooks/scheduling"
typedef struct set_in {
    at_object *hooks, *hook_kf;
} set_in;
static const at_in set_rows[] = {AT_ROW_LINK_BARE(set_in, hooks, "HOOKS"),
                                 OPTIONAL(set_in, hook_kf, "HOOK_KEYFRAMES")};
static at_status set_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const set_in *i = in;
    return give_hooks("SetHookKeyframes",
                      i->hook_kf
                          ? at_obj_lora_hooks_keyed(i->hooks, (const at_obj_keyframes *)i->hook_kf)
                          : at_object_retain(i->hooks),
                      &out[0]);
}
static const at_node node_set = NODE("SetHookKeyframes", "Set Hook Keyframes", SCHEDULING, set_rows,
                                     hooks_out, set_in, set_run);

// --- CreateHookKeyframe --------------------------------------------------------------------------
typedef struct key_in {
    double strength_mult, start_percent;
    at_object *prev_hook_kf;
} key_in;
static const at_in key_rows[] = {AT_ROW_FLOAT_STEP(key_in, strength_mult, 1.0, -20, 20, 0.01),
                                 AT_ROW_FLOAT_STEP(key_in, start_percent, 0.0, 0, 1, 0.001),
                                 OPTIONAL(key_in, prev_hook_kf, "HOOK_KEYFRAMES")};
static at_status key_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const key_in *i = in;
    at_keyframe k = {i->strength_mult, i->start_percent, 1};
    return at_give(&out[0], at_obj_keyframes_add((const at_obj_keyframes *)i->prev_hook_kf, &k),
                   "CreateHookKeyframe");
}
static const at_node node_key = NODE("CreateHookKeyframe", "Create Hook Keyframe", SCHEDULING,
                                     key_rows, keyframes_out, key_in, key_run);

// --- CreateHookKeyframesInterpolated -------------------------------------------------------------
typedef struct many_in {
    double strength_start, strength_end;
    const char *interpolation;
    double start_percent, end_percent;
    int64_t keyframes_count;
    bool print_keyframes;
    at_object *prev_hook_kf;
} many_in;
static const char *const ways[] = {"linear", "ease_in", "ease_out", "ease_in_out", NULL};
static const at_in many_rows[] = {
    AT_ROW_FLOAT_STEP(many_in, strength_start, 1.0, 0, 10, 0.001),
    AT_ROW_FLOAT_STEP(many_in, strength_end, 1.0, 0, 10, 0.001),
    AT_ROW(many_in, interpolation, AT_IN_COMBO, .choices = ways, .flags = AT_INF_NO_OPTIONS),
    AT_ROW_FLOAT_STEP(many_in, start_percent, 0.0, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(many_in, end_percent, 1.0, 0, 1, 0.001),
    AT_ROW_INT_STEP(many_in, keyframes_count, 5, 2, 100, 1),
    AT_ROW(many_in, print_keyframes, AT_IN_BOOL, .def = 0),
    OPTIONAL(many_in, prev_hook_kf, "HOOK_KEYFRAMES"),
};

// Value i of n between two, as torch's linspace and numpy's functions make it.
static double between(double from, double to, int64_t i, int64_t n, const char *way)
{
    double t = n > 1 ? (double)(float)((double)i / (double)(n - 1)) : 0;
    if (strcmp(way, "linear") == 0) return (double)(float)(from + (to - from) * t);
    if (strcmp(way, "ease_in") == 0) return (double)(float)((to - from) * t * t + from);
    if (strcmp(way, "ease_out") == 0)
        return (double)(float)((to - from) * (1 - (1 - t) * (1 - t)) + from);
    return (double)(float)((to - from) * ((1 - cos(t * 3.14159265358979323846)) / 2) + from);
}

// One more at the end of *list, which is replaced; false: out of memory, and *list is NULL.
static bool add_key(at_object **list, const at_keyframe *key, bool print)
{
    at_object *next = at_obj_keyframes_add((const at_obj_keyframes *)*list, key);

    at_object_release(*list);
    *list = next;
    if (next && key && print)
        at_log(AT_WARN, "HOOK-KEYFRAME", "strength %g from %g of the way on", key->strength,
               key->start);
    return next != NULL;
}

static at_status many_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const many_in *i = in;
    at_object *list = NULL;

    if (i->keyframes_count < 1 || i->keyframes_count > MOST_KEYS)
        return at_fail(AT_EINVAL, "CreateHookKeyframesInterpolated: %lld keyframes",
                       (long long)i->keyframes_count);
    list = at_object_retain(i->prev_hook_kf);
    for (int64_t k = 0; k < i->keyframes_count; k++) {
        at_keyframe key = {
            between(i->strength_start, i->strength_end, k, i->keyframes_count, i->interpolation),
            between(i->start_percent, i->end_percent, k, i->keyframes_count, "linear"), k == 0};
        if (!add_key(&list, &key, i->print_keyframes)) break;
    }
    return at_give(&out[0], list, "CreateHookKeyframesInterpolated");
}
static const at_node node_many =
    NODE("CreateHookKeyframesInterpolated", "Create Hook Keyframes Interp.", SCHEDULING, many_rows,
         keyframes_out, many_in, many_run);

// --- CreateHookKeyframesFromFloats ---------------------------------------------------------------
typedef struct floats_in {
    at_value floats_strength; // a number, or JSON: a list of numbers
    double start_percent, end_percent;
    bool print_keyframes;
    at_object *prev_hook_kf;
} floats_in;
static const at_in floats_rows[] = {
    AT_ROW(floats_in, floats_strength, AT_IN_ANY, .type_name = "FLOATS", .min = -1,
           .flags = AT_INF_HAS_MIN | AT_INF_FORCE_INPUT, .alt = AT_ALT_MIN,
           .extra = "{\"default\": -1, \"step\": 0.001}"),
    AT_ROW_FLOAT_STEP(floats_in, start_percent, 0.0, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(floats_in, end_percent, 1.0, 0, 1, 0.001),
    AT_ROW(floats_in, print_keyframes, AT_IN_BOOL, .def = 0),
    OPTIONAL(floats_in, prev_hook_kf, "HOOK_KEYFRAMES"),
};

// The numbers as a JSON array, a new reference.
static at_status list_of(const at_value *v, json_t **out)
{
    at_status st = AT_OK;
    json_t *one = NULL;

    *out = NULL;
    if (v->kind == AT_VAL_JSON) {
        AT_TRY(at_json_load("floats_strength", v->s, strlen(v->s), out));
    } else if (v->kind == AT_VAL_FLOAT || v->kind == AT_VAL_INT) {
        one = json_real(v->kind == AT_VAL_INT ? (double)v->i : v->f);
        *out = one ? json_pack("[o]", one) : NULL; // NULL as well: not finite
    }
    bool fits = json_is_array(*out) && json_array_size(*out) <= MOST_KEYS;
    for (size_t i = 0; fits && i < json_array_size(*out); i++)
        fits = json_is_number(json_array_get(*out, i));
    if (!fits)
        AT_TRY(at_fail(AT_EINVAL,
                       "CreateHookKeyframesFromFloats: floats_strength must be a number or a list "
                       "of at most %d numbers",
                       MOST_KEYS));
out:
    return st;
}

static at_status floats_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const floats_in *i = in;
    json_t *floats = NULL;
    at_object *list = at_object_retain(i->prev_hook_kf);

    AT_TRY(list_of(&i->floats_strength, &floats));
    int64_t n = (int64_t)json_array_size(floats);
    if (n == 0) add_key(&list, NULL, false); // none: a list all the same
    for (int64_t k = 0; k < n; k++) {
        at_keyframe key = {json_number_value(json_array_get(floats, (size_t)k)),
                           between(i->start_percent, i->end_percent, k, n, "linear"), k == 0};
        if (!add_key(&list, &key, i->print_keyframes)) break;
    }
    st = at_give(&out[0], list, "CreateHookKeyframesFromFloats");
    list = NULL;
out:
    at_object_release(list);
    json_decref(floats);
    return st;
}
static const at_node node_floats =
    NODE("CreateHookKeyframesFromFloats", "Create Hook Keyframes From Floats", SCHEDULING,
         floats_rows, keyframes_out, floats_in, floats_run);

// --- CombineHooks --------------------------------------------------------------------------------
typedef struct combine_in {
    at_object *hooks_A, *hooks_B, *hooks_C, *hooks_D, *hooks_E, *hooks_F, *hooks_G, *hooks_H;
} combine_in;
#define TWO(a, b) OPTIONAL(combine_in, a, "HOOKS"), OPTIONAL(combine_in, b, "HOOKS")
static const at_in combine2_rows[] = {TWO(hooks_A, hooks_B)};
static const at_in combine4_rows[] = {TWO(hooks_A, hooks_B), TWO(hooks_C, hooks_D)};
static const at_in combine8_rows[] = {TWO(hooks_A, hooks_B), TWO(hooks_C, hooks_D),
                                      TWO(hooks_E, hooks_F), TWO(hooks_G, hooks_H)};
static at_status combine_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const combine_in *i = in;
    at_object *const all[] = {i->hooks_A, i->hooks_B, i->hooks_C, i->hooks_D,
                              i->hooks_E, i->hooks_F, i->hooks_G, i->hooks_H};
    at_object *sum = NULL, *next = NULL;
    for (size_t k = 0; k < AT_COUNT(all); k++) {
        if (!all[k]) continue;
        at_status st = at_obj_lora_hooks_join(sum, all[k], &next);
        at_object_release(sum);
        if (st != AT_OK) return st;
        sum = next;
    }
    if (sum) out[0] = at_value_object(sum); // nothing combined with nothing is None
    return AT_OK;
}
#define COMBINE "advanced/hooks/combine"
static const at_node node_combine2 = NODE("CombineHooks2", "Combine Hooks [2]", COMBINE,
                                          combine2_rows, hooks_out, combine_in, combine_run);
static const at_node node_combine4 = NODE("CombineHooks4", "Combine Hooks [4]", COMBINE,
                                          combine4_rows, hooks_out, combine_in, combine_run);
static const at_node node_combine8 = NODE("CombineHooks8", "Combine Hooks [8]", COMBINE,
                                          combine8_rows, hooks_out, combine_in, combine_run);

// --- SetClipHooks --------------------------------------------------------------------------------
typedef struct clip_in {
    at_object *clip;
    bool apply_to_conds, schedule_clip;
    at_object *hooks;
} clip_in;
static const at_in clip_rows[] = {
    AT_ROW_LINK_BARE(clip_in, clip, "CLIP"), AT_ROW(clip_in, apply_to_conds, AT_IN_BOOL, .def = 1),
    AT_ROW(clip_in, schedule_clip, AT_IN_BOOL, .def = 0), OPTIONAL(clip_in, hooks, "HOOKS")};

static bool keyed(const at_obj_lora_hooks *h)
{
    for (size_t i = 0; i < h->count; i++)
        if (h->items[i].keyframes && h->items[i].keyframes->count) return true;
    return false;
}

static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const clip_in *i = in;
    const at_obj_lora_hooks *h = (const at_obj_lora_hooks *)i->hooks;
    at_object *clip = at_object_retain(i->clip), *next = NULL, *model = NULL;

    if (!h) goto give;
    if (i->schedule_clip && keyed(h))
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "SetClipHooks: a CLIP whose LoRA follows keyframes is not built; switch "
                       "schedule_clip off"));
    for (size_t k = 0; k < h->count; k++) {
        const at_adapter *a = h->items[k].adapter;
        if (a->strength_clip == 0) continue;
        AT_TRY(at_adapter_apply(a, NULL, (const at_obj_clip *)clip, 0, a->strength_clip, &model,
                                &next));
        at_object_release(clip);
        clip = next;
    }
    next = at_obj_clip_copy((const at_obj_clip *)clip);
    if (!next) AT_TRY(at_fail(AT_ENOMEM, "SetClipHooks: no memory"));
    at_object_release(clip);
    clip = next;
    if (i->apply_to_conds) {
        at_object **own = &((at_obj_clip *)clip)->hooks;
        at_object_release(*own);
        *own = at_object_retain(i->hooks);
    }
give:
    out[0] = at_value_object(clip);
    clip = NULL;
out:
    at_object_release(clip);
    return st;
}
static const at_node node_clip = NODE("SetClipHooks", "Set CLIP Hooks", "advanced/hooks/clip",
                                      clip_rows, clip_out, clip_in, clip_run);

const at_node *const at_nodes_hooks[] = {
    &node_lora,   &node_lora_mo,  &node_model,    &node_model_mo, &node_set,  &node_key, &node_many,
    &node_floats, &node_combine2, &node_combine4, &node_combine8, &node_clip, NULL};
