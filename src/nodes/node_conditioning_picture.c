// SPDX-License-Identifier: Apache-2.0
// node_conditioning_picture.c - prompts with pictures: inpainting, instruct-pix2pix, reference
// latents.
// Easy to get wrong: inpainting shows the network a picture that is grey under the mask, and
// samples the picture as it was; sides that are no multiple of 8 are cut around the middle, the
// mask with them.
// Source: ComfyUI 0.3.64 nodes.py, comfy_extras/nodes_ip2p.py, nodes_edit_model.py (behaviour).
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/cond.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"

static const at_out three_out[] = {{.type_name = "CONDITIONING", .name = "positive"},
                                   {.type_name = "CONDITIONING", .name = "negative"},
                                   {.type_name = "LATENT", .name = "latent"}};

// A picture through the VAE, on the host.
static at_status encode(at_node_ctx *c, const char *node, const at_object *vae,
                        const at_tensor *pixels, at_tensor **out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_ops_config with;
    at_tensor *host = NULL;

    at_env_config_for(c, AT_ENV_VAE, ((const at_obj_vae *)vae)->device, AT_DTYPE_COUNT, false,
                      &with);
    AT_TRY(at_ops_new(&with, &o));
    at_tensor *z = at_vae_encode(o, ((const at_obj_vae *)vae)->vae, pixels);
    z = at_contiguous(o, z);
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, z->rank, z->shape, &host));
    AT_TRY(at_tensor_to_host(z, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    *out = host;
    host = NULL;
out:
    at_tensor_release(&host);
    at_ops_free(o);
    return at_fail_context(st, "%s: ", node);
}

static at_status need_vae(const char *node, const at_object *vae)
{
    if (vae) return AT_OK;
    return at_fail(AT_EINVAL,
                   "%s: vae input is invalid: None: the checkpoint holds no VAE; load one with "
                   "VAELoader",
                   node);
}

// What entries get.
typedef struct shown {
    at_tensor *latent, *mask; // mask NULL: none
} shown;
static void show(at_cond *c, const void *ctx)
{
    const shown *s = ctx;
    at_cond_set_tensor(&c->concat_latent, at_tensor_retain(s->latent));
    if (s->mask) at_cond_set_tensor(&c->concat_mask, at_tensor_retain(s->mask));
}

// --- InpaintModelConditioning --------------------------------------------------------------------
typedef struct inpaint_in {
    at_object *positive, *negative, *vae, *pixels, *mask;
    bool noise_mask;
} inpaint_in;
static const at_in inpaint_rows[] = {
    AT_ROW_LINK_BARE(inpaint_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(inpaint_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(inpaint_in, vae, "VAE"),
    AT_ROW_LINK_BARE(inpaint_in, pixels, "IMAGE"),
    AT_ROW_LINK_BARE(inpaint_in, mask, "MASK"),
    AT_ROW(inpaint_in, noise_mask, AT_IN_BOOL, .def = 1,
           .tip = "Samples only under the mask. May help, or break, depending on the model."),
};

#define INPAINT "InpaintModelConditioning"

// The mask at the picture's size, cut to multiples of 8 around the middle: [n, 1, h, w].
static at_status fit_mask(const at_pixels *px, const at_object *mask, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *sized = NULL;
    at_pixels m;
    int64_t h = px->h / 8 * 8, w = px->w / 8 * 8, y0 = px->h % 8 / 2, x0 = px->w % 8 / 2;

    AT_TRY(at_mask_of(INPAINT, mask, &m));
    if (h < 8 || w < 8)
        AT_TRY(at_fail(AT_EINVAL, INPAINT ": the picture is %lld x %lld, 8 x 8 is the least",
                       (long long)px->w, (long long)px->h));
    if (m.b != 1 && m.b != px->b)
        AT_TRY(at_fail(AT_EINVAL, INPAINT ": %lld masks for %lld pictures", (long long)m.b,
                       (long long)px->b));
    AT_TRY(at_pixels_resize(INPAINT, m.t, px->w, px->h, AT_RESIZE_BILINEAR, false, &sized));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){m.b, 1, h, w}, out));
    const float *src = at_tensor_data(sized);
    float *dst = at_tensor_data(*out);
    for (int64_t i = 0; i < m.b * h; i++)
        memcpy(dst + i * w, src + ((i / h * px->h) + y0 + i % h) * px->w + x0,
               (size_t)w * sizeof *dst);
out:
    at_tensor_release(&sized);
    return st;
}

// The cut picture, grey where the mask rounds to 1.
static at_status grey_out(const at_pixels *px, const at_tensor *mask, at_tensor **out)
{
    int64_t h = mask->shape[2], w = mask->shape[3], y0 = px->h % 8 / 2, x0 = px->w % 8 / 2;
    const float *m = at_tensor_data(mask);
    float *p = NULL;
    at_status st = at_pixels_new(INPAINT, px->b, h, w, px->c, out, &p);

    if (st != AT_OK) return st;
    for (int64_t i = 0; i < px->b * h * w; i++) {
        int64_t item = i / (h * w), y = i / w % h, x = i % w;
        const float *from = px->p + ((item * px->h + y + y0) * px->w + x + x0) * px->c;
        float keep = 1.0f - rintf(m[((item % mask->shape[0]) * h + y) * w + x]);
        for (int64_t k = 0; k < px->c; k++)
            *p++ = k < 3 ? (from[k] - 0.5f) * keep + 0.5f : from[k];
    }
    return AT_OK;
}

static at_status inpaint_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const inpaint_in *i = in;
    at_tensor *mask = NULL, *grey = NULL, *original = NULL;
    shown s = {0};
    at_pixels px;

    AT_TRY(need_vae(INPAINT, i->vae));
    AT_TRY(at_pixels_of(INPAINT, i->pixels, &px));
    AT_TRY(fit_mask(&px, i->mask, &mask));
    AT_TRY(grey_out(&px, mask, &grey));
    AT_TRY(encode(c, INPAINT, i->vae, grey, &s.latent));
    AT_TRY(encode(c, INPAINT, i->vae, px.t, &original));
    s.mask = mask;
    AT_TRY(at_cond_give(INPAINT, i->positive, show, &s, &out[0]));
    AT_TRY(at_cond_give(INPAINT, i->negative, show, &s, &out[1]));
    at_object *latent = at_obj_latent_new(original);
    original = NULL;
    if (latent && i->noise_mask) ((at_obj_latent *)latent)->noise_mask = at_tensor_retain(mask);
    AT_TRY(at_give(&out[2], latent, INPAINT));
out:
    at_tensor_release(&mask);
    at_tensor_release(&grey);
    at_tensor_release(&original);
    at_tensor_release(&s.latent);
    return st;
}
static const at_node node_inpaint = {.class_type = INPAINT,
                                     .display = INPAINT,
                                     .category = "conditioning/inpaint",
                                     .python_module = "nodes",
                                     .in = inpaint_rows,
                                     .n_in = AT_COUNT(inpaint_rows),
                                     .out = three_out,
                                     .n_out = AT_COUNT(three_out),
                                     .in_size = sizeof(inpaint_in),
                                     .run = inpaint_run};

// --- InstructPixToPixConditioning ----------------------------------------------------------------
typedef struct ip2p_in {
    at_object *positive, *negative, *vae, *pixels;
} ip2p_in;
static const at_in ip2p_rows[] = {
    AT_ROW_LINK(ip2p_in, positive, "CONDITIONING"),
    AT_ROW_LINK(ip2p_in, negative, "CONDITIONING"),
    AT_ROW_LINK(ip2p_in, vae, "VAE"),
    AT_ROW_LINK(ip2p_in, pixels, "IMAGE"),
};
#define IP2P "InstructPixToPixConditioning"

// The VAE cuts to its multiples around the middle, as the node does to multiples of 8.
static at_status ip2p_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const ip2p_in *i = in;
    at_tensor *empty = NULL;
    shown s = {0};
    at_pixels px;

    AT_TRY(need_vae(IP2P, i->vae));
    AT_TRY(at_pixels_of(IP2P, i->pixels, &px));
    AT_TRY(encode(c, IP2P, i->vae, px.t, &s.latent));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, s.latent->rank, s.latent->shape, &empty));
    memset(at_tensor_data(empty), 0, at_tensor_bytes(empty));
    AT_TRY(at_cond_give(IP2P, i->positive, show, &s, &out[0]));
    AT_TRY(at_cond_give(IP2P, i->negative, show, &s, &out[1]));
    at_object *latent = at_obj_latent_new(empty);
    empty = NULL;
    AT_TRY(at_give(&out[2], latent, IP2P));
out:
    at_tensor_release(&empty);
    at_tensor_release(&s.latent);
    return st;
}
static const at_node node_ip2p = {.class_type = IP2P,
                                  .category = "conditioning/instructpix2pix",
                                  .python_module = "comfy_extras.nodes_ip2p",
                                  .flags = AT_NODE_V3,
                                  .in = ip2p_rows,
                                  .n_in = AT_COUNT(ip2p_rows),
                                  .out = three_out,
                                  .n_out = AT_COUNT(three_out),
                                  .in_size = sizeof(ip2p_in),
                                  .run = ip2p_run};

// --- ReferenceLatent -----------------------------------------------------------------------------
typedef struct reference_in {
    at_object *conditioning, *latent;
} reference_in;
static const at_in reference_rows[] = {
    AT_ROW_LINK(reference_in, conditioning, "CONDITIONING"),
    AT_ROW(reference_in, latent, AT_IN_OBJECT, .type_name = "LATENT", .flags = AT_INF_OPTIONAL),
};
static at_status reference_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const reference_in *i = in;
    at_object *o = at_obj_cond_copy((const at_obj_cond *)i->conditioning);
    at_obj_cond *list = (at_obj_cond *)o;

    for (size_t k = 0; o && i->latent && k < list->count; k++) {
        at_cond *e = &list->items[k];
        at_tensor **refs = at_realloc(e->refs, (e->n_refs + 1) * sizeof *refs);
        if (!refs) {
            at_object_release(o);
            return at_fail(AT_ENOMEM, "ReferenceLatent: no memory");
        }
        e->refs = refs;
        refs[e->n_refs++] = at_tensor_retain(((const at_obj_latent *)i->latent)->samples);
    }
    return at_give(&out[0], o, "ReferenceLatent");
}
static const at_node node_reference = {
    .class_type = "ReferenceLatent",
    .category = "advanced/conditioning/edit_models",
    .description = "Gives an editing model a latent to look at. Several in a row give several, "
                   "where the model can take them.",
    .python_module = "comfy_extras.nodes_edit_model",
    .flags = AT_NODE_V3,
    .in = reference_rows,
    .n_in = AT_COUNT(reference_rows),
    .out = at_cond_out,
    .n_out = 1,
    .in_size = sizeof(reference_in),
    .run = reference_run};

const at_node *const at_nodes_conditioning_picture[] = {&node_inpaint, &node_ip2p, &node_reference,
                                                        NULL};
