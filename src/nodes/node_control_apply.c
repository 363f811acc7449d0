// SPDX-License-Identifier: Apache-2.0
// node_control_apply.c - ControlNets put on the entries of conditionings.
// Idea: applying makes a new control object before which the entry's old one stands.
// Easy to get wrong: entries of positive and negative that had the same control get the same new
// one, so that they still run as one batch; strength 0 changes nothing at all.
// Source: ComfyUI 0.3.64 nodes.py, comfy_extras/nodes_controlnet.py, nodes_sd3.py, nodes_cond.py.
#include "nodes/control.h"
#include "nodes/encode.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <math.h>

#include "image/resize.h"

static const at_out cond_out[] = {AT_OUT("CONDITIONING")};
static const at_out pair_out[] = {{.type_name = "CONDITIONING", .name = "positive"},
                                  {.type_name = "CONDITIONING", .name = "negative"}};

// --- applying ------------------------------------------------------------------------------------
// How a net is applied to every entry of one or two lists.
typedef struct apply_how {
    const at_obj_control *net;
    at_tensor *hint, *mask; // borrowed; mask may be NULL
    at_vae *vae;            // borrowed, or NULL
    float strength, start, end;
    bool to_uncond;
} apply_how;

// A new object that stands behind `previous`.
static at_object *applied(const apply_how *h, at_object *previous)
{
    at_object *o = at_obj_control_copy(h->net);
    at_obj_control *c = (at_obj_control *)o;
    if (!c) return NULL;
    at_object_release((at_object *)c->previous);
    at_tensor_release(&c->hint);
    at_tensor_release(&c->mask);
    at_vae_release(&c->vae);
    c->previous = (at_obj_control *)at_object_retain(previous);
    c->hint = at_tensor_retain(h->hint);
    c->mask = h->mask ? at_tensor_retain(h->mask) : NULL;
    c->vae = at_vae_retain(h->vae);
    c->strength = h->strength;
    c->start_percent = h->start;
    c->end_percent = h->end;
    return o;
}

// The object that an earlier entry with the same previous control got, or a new one.
static at_object *applied_once(const apply_how *h, at_object *previous, at_obj_cond *const *lists,
                               const at_obj_cond *const *before)
{
    for (int l = 0; l < 2 && lists[l]; l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            at_object *made = lists[l]->items[i].control;
            if (before[l]->items[i].control == previous && made != previous)
                return at_object_retain(made);
        }
    return applied(h, previous);
}

// Copies of one or two lists with the net applied; out[1] is left alone where negative is NULL.
static at_status apply(const apply_how *h, const at_object *positive, const at_object *negative,
                       at_value *out)
{
    at_status st = AT_OK;
    const at_obj_cond *before[2] = {(const at_obj_cond *)positive, (const at_obj_cond *)negative};
    at_obj_cond *lists[2] = {0};

    for (int l = 0; l < 2 && before[l]; l++) {
        lists[l] = (at_obj_cond *)at_obj_cond_copy(before[l]);
        if (!lists[l]) AT_TRY(at_fail(AT_ENOMEM, "ControlNetApply: no memory"));
    }
    for (int l = 0; l < 2 && lists[l]; l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            at_cond *e = &lists[l]->items[i];
            at_object *o = applied_once(h, before[l]->items[i].control, lists, before);
            if (!o) AT_TRY(at_fail(AT_ENOMEM, "ControlNetApply: no memory"));
            at_cond_set_object(&e->control, o);
            e->control_to_uncond = h->to_uncond;
        }
    for (int l = 0; l < 2 && lists[l]; l++) {
        out[l] = at_value_object(&lists[l]->base);
        lists[l] = NULL;
    }
out:
    for (int l = 0; l < 2; l++)
        at_object_release((at_object *)lists[l]);
    return st;
}

static at_tensor *pixels_of(const at_object *image)
{
    return ((const at_obj_image *)image)->pixels;
}

typedef struct apply_in {
    at_object *conditioning, *control_net, *image;
    double strength;
} apply_in;
static const at_in apply_rows[] = {
    AT_ROW_LINK_BARE(apply_in, conditioning, "CONDITIONING"),
    AT_ROW_LINK_BARE(apply_in, control_net, "CONTROL_NET"),
    AT_ROW_LINK_BARE(apply_in, image, "IMAGE"),
    AT_ROW_FLOAT_STEP(apply_in, strength, 1.0, 0, 10, 0.01),
};
static at_status apply_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const apply_in *i = in;
    if (i->strength == 0) {
        out[0] = at_value_object(at_object_retain(i->conditioning));
        return AT_OK;
    }
    // The old node makes one object per entry even where they had the same control; their results
    // are the same.
    apply_how h = {.net = (const at_obj_control *)i->control_net,
                   .hint = pixels_of(i->image),
                   .strength = (float)i->strength,
                   .end = 1.0f,
                   .to_uncond = true};
    return apply(&h, i->conditioning, NULL, out);
}
static const at_node node_apply = {.class_type = "ControlNetApply",
                                   .display = "Apply ControlNet (OLD)",
                                   .category = "conditioning/controlnet",
                                   .python_module = "nodes",
                                   .flags = AT_NODE_DEPRECATED,
                                   .in = apply_rows,
                                   .n_in = AT_COUNT(apply_rows),
                                   .out = cond_out,
                                   .n_out = 1,
                                   .in_size = sizeof(apply_in),
                                   .run = apply_run};

typedef struct pair_in {
    at_object *positive, *negative, *control_net, *vae, *image, *mask;
    double strength, start_percent, end_percent;
} pair_in;

static at_status apply_pair(const pair_in *i, at_tensor *hint, at_tensor *mask, at_value *out)
{
    if (i->strength == 0) {
        out[0] = at_value_object(at_object_retain(i->positive));
        out[1] = at_value_object(at_object_retain(i->negative));
        return AT_OK;
    }
    const at_obj_control *net = (const at_obj_control *)i->control_net;
    bool latent = at_control_net_facts(net->net)->latent != NULL;
    apply_how h = {.net = net,
                   .hint = hint,
                   .mask = mask,
                   .vae = latent && i->vae ? ((const at_obj_vae *)i->vae)->vae : NULL,
                   .strength = (float)i->strength,
                   .start = (float)i->start_percent,
                   .end = (float)i->end_percent};
    return apply(&h, i->positive, i->negative, out);
}

#define PAIR_RANGE                                                                                 \
    AT_ROW_FLOAT_STEP(pair_in, strength, 1.0, 0, 10, 0.01),                                        \
        AT_ROW_FLOAT_STEP(pair_in, start_percent, 0.0, 0, 1, 0.001),                               \
        AT_ROW_FLOAT_STEP(pair_in, end_percent, 1.0, 0, 1, 0.001)
static const at_in pair_rows[] = {
    AT_ROW_LINK_BARE(pair_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(pair_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(pair_in, control_net, "CONTROL_NET"),
    AT_ROW_LINK_BARE(pair_in, image, "IMAGE"),
    PAIR_RANGE,
    AT_ROW(pair_in, vae, AT_IN_OBJECT, .type_name = "VAE",
           .flags = AT_INF_OPTIONAL | AT_INF_NO_OPTIONS),
};
static at_status pair_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return apply_pair(in, pixels_of(((const pair_in *)in)->image), NULL, out);
}
static const at_node node_pair = {.class_type = "ControlNetApplyAdvanced",
                                  .display = "Apply ControlNet",
                                  .category = "conditioning/controlnet",
                                  .python_module = "nodes",
                                  .in = pair_rows,
                                  .n_in = AT_COUNT(pair_rows),
                                  .out = pair_out,
                                  .n_out = 2,
                                  .in_size = sizeof(pair_in),
                                  .run = pair_run};

static const at_in sd3_rows[] = {
    AT_ROW_LINK(pair_in, positive, "CONDITIONING"),
    AT_ROW_LINK(pair_in, negative, "CONDITIONING"),
    AT_ROW_LINK(pair_in, control_net, "CONTROL_NET"),
    AT_ROW_LINK(pair_in, vae, "VAE"),
    AT_ROW_LINK(pair_in, image, "IMAGE"),
    PAIR_RANGE,
};
static const at_node node_sd3 = {.class_type = "ControlNetApplySD3",
                                 .display = "Apply Controlnet with VAE",
                                 .category = "conditioning/controlnet",
                                 .python_module = "comfy_extras.nodes_sd3",
                                 .flags = AT_NODE_V3 | AT_NODE_DEPRECATED,
                                 .in = sd3_rows,
                                 .n_in = AT_COUNT(sd3_rows),
                                 .out = pair_out,
                                 .n_out = 2,
                                 .in_size = sizeof(pair_in),
                                 .run = pair_run};

// --- ControlNetInpaintingAliMamaApply
// -------------------------------------------------------------- 1 - mask as [b, 1, h, w].
static at_status invert(const at_tensor *mask, at_tensor **out)
{
    int64_t h = mask->shape[mask->rank - 2], w = mask->shape[mask->rank - 1];
    int64_t n = at_tensor_count(mask);
    at_status st =
        at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n / (h * w), 1, h, w}, out);
    if (st != AT_OK) return st;
    const float *from = at_tensor_data(mask);
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < n; i++)
        to[i] = 1.0f - from[i];
    return AT_OK;
}

// The picture where the mask (at its size, rounded to 0 or 1) keeps it, black elsewhere.
static at_status keep_masked(const at_tensor *image, const at_tensor *mask, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *sized = NULL;
    int64_t b = image->shape[0], h = image->shape[1], w = image->shape[2], c = image->shape[3];
    int64_t mb = mask->shape[0], n = b > mb ? b : mb;

    if (b != mb && b != 1 && mb != 1)
        AT_TRY(at_fail(AT_EINVAL, "ControlNetInpaintingAliMamaApply: %lld pictures and %lld masks",
                       (long long)b, (long long)mb));
    AT_TRY(at_resize(mask, AT_ORDER_NCHW, w, h, AT_RESIZE_BILINEAR, true, &sized));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, h, w, c}, out));
    const float *pixels = at_tensor_data(image), *m = at_tensor_data(sized);
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < n * h * w; i++) {
        int64_t picture = i / (h * w), place = i % (h * w);
        float keep = rintf(m[(mb == 1 ? 0 : picture) * h * w + place]);
        const float *from = pixels + ((b == 1 ? 0 : picture) * h * w + place) * c;
        for (int64_t k = 0; k < c; k++)
            to[i * c + k] = from[k] * keep;
    }
out:
    at_tensor_release(&sized);
    return st;
}

static const at_in alimama_rows[] = {
    AT_ROW_LINK_BARE(pair_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(pair_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(pair_in, control_net, "CONTROL_NET"),
    AT_ROW_LINK_BARE(pair_in, vae, "VAE"),
    AT_ROW_LINK_BARE(pair_in, image, "IMAGE"),
    AT_ROW_LINK_BARE(pair_in, mask, "MASK"),
    PAIR_RANGE,
};
static at_status alimama_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const pair_in *i = in;
    at_tensor *mask = NULL, *image = NULL;
    const at_obj_control *net = (const at_obj_control *)i->control_net;

    if (!at_control_net_facts(net->net)->concat_mask) {
        AT_TRY(apply_pair(i, pixels_of(i->image), NULL, out));
        goto out;
    }
    AT_TRY(invert(pixels_of(i->mask), &mask));
    AT_TRY(keep_masked(pixels_of(i->image), mask, &image));
    AT_TRY(apply_pair(i, image, mask, out));
out:
    at_tensor_release(&mask);
    at_tensor_release(&image);
    return st;
}
static const at_node node_alimama = {.class_type = "ControlNetInpaintingAliMamaApply",
                                     .display = "ControlNetInpaintingAliMamaApply",
                                     .category = "conditioning/controlnet",
                                     .python_module = "comfy_extras.nodes_controlnet",
                                     .in = alimama_rows,
                                     .n_in = AT_COUNT(alimama_rows),
                                     .out = pair_out,
                                     .n_out = 2,
                                     .in_size = sizeof(pair_in),
                                     .run = alimama_run};

// --- CLIPTextEncodeControlnet
// ----------------------------------------------------------------------
typedef struct text_in {
    at_object *clip, *conditioning;
    const char *text;
} text_in;
static const at_in text_rows[] = {
    AT_ROW_LINK(text_in, clip, "CLIP"),
    AT_ROW_LINK(text_in, conditioning, "CONDITIONING"),
    AT_ROW_PROMPT(text_in, text),
};
static at_status text_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const text_in *i = in;
    at_ops *o = NULL;
    at_object *text = NULL, *cond = NULL;

    if (!i->clip) AT_TRY(at_fail(AT_EINVAL, "clip input is invalid: None"));
    AT_TRY(at_encode_open(c, (const at_obj_clip *)i->clip, &o));
    AT_TRY(
        at_encode_prompt(at_env_of(c), o, (const at_obj_clip *)i->clip, i->text, i->text, &text));
    cond = at_obj_cond_copy((const at_obj_cond *)i->conditioning);
    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "CLIPTextEncodeControlnet: no memory"));
    const at_cond *encoded = ((at_obj_cond *)text)->items;
    at_obj_cond *list = (at_obj_cond *)cond;
    for (size_t k = 0; k < list->count; k++)
        at_cond_set_tensor(&list->items[k].control_context, at_tensor_retain(encoded->context));
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_object_release(text);
    at_ops_free(o);
    return st;
}
static const at_node node_text = {.class_type = "CLIPTextEncodeControlnet",
                                  .category = "_for_testing/conditioning",
                                  .python_module = "comfy_extras.nodes_cond",
                                  .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                  .in = text_rows,
                                  .n_in = AT_COUNT(text_rows),
                                  .out = cond_out,
                                  .n_out = 1,
                                  .in_size = sizeof(text_in),
                                  .run = text_run};

const at_node *const at_nodes_control_apply[] = {&node_apply, &node_pair, &node_alimama,
                                                 &node_sd3,   &node_text, NULL};
