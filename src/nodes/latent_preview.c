// SPDX-License-Identifier: Apache-2.0
// latent_preview.c - see latent_preview.h.
// Source: comfyui-contract 2.4: rgb = latent . F + bias for each latent pixel, then (v + 1) / 2; the tiny decoder takes
// the latent as the sampler has it.
// Easy to get wrong: on a GPU this waits for the step, so nobody who does not look at previews may pay for it.
#include "nodes/latent_preview.h"

#include "base/log.h"
#include "base/mem.h"
#include "image/image.h"
#include "nodes/tiny_vae.h"

static void colours(const at_latent_format *f, const float *z, int64_t pixels, uint8_t *rgb)
{
    for (int64_t p = 0; p < pixels; p++)
        for (int k = 0; k < 3; k++) {
            float v = f->rgb_bias ? f->rgb_bias[k] : 0;
            for (int c = 0; c < f->channels; c++)
                v += z[c * pixels + p] * f->rgb[3 * c + k];
            rgb[3 * p + k] = at_pixel_byte((v + 1) / 2);
        }
}

static at_status show_linear(at_previewer *p, const float *z, int64_t w, int64_t h)
{
    uint8_t *rgb = at_alloc((size_t)(w * h) * 3);
    if (!rgb) return at_fail(AT_ENOMEM, "preview: no memory");
    colours(p->format, z, w * h, rgb);
    at_node_preview(p->node, rgb, (int)w, (int)h);
    at_free(rgb);
    return AT_OK;
}

static at_status show_decoded(at_previewer *p, const float *z, int64_t w, int64_t h)
{
    at_status st = AT_OK;
    uint8_t *rgb = NULL;

    at_scope_begin(p->o);
    at_tensor *latent = at_from_host(p->o, AT_F32, 4, (int64_t[]){1, p->format->channels, h, w}, z);
    at_tensor *pixels = at_vae_decode(p->o, p->tiny, latent);
    AT_TRY(at_ops_status(p->o));
    int64_t n = at_tensor_count(pixels);
    const float *v = at_tensor_data(pixels);
    rgb = at_alloc((size_t)n);
    if (!rgb) AT_TRY(at_fail(AT_ENOMEM, "preview: no memory"));
    for (int64_t i = 0; i < n; i++)
        rgb[i] = at_pixel_byte(v[i]);
    at_node_preview(p->node, rgb, (int)pixels->shape[2], (int)pixels->shape[1]);
out:
    at_scope_end(p->o, NULL);
    at_free(rgb);
    return st;
}

static at_status open_tiny(at_previewer *p)
{
    at_status st = AT_OK;
    at_store *s = NULL;

    AT_TRY(at_tiny_decoder_open(at_env_of(p->node), p->format->tiny, &s));
    AT_TRY(at_vae_load(s, p->format->tiny, &p->tiny));
    if (at_vae_channels(p->tiny) != p->format->channels)
        AT_TRY(at_fail(AT_EFORMAT, "%s decodes %d channels, the model has %d", p->format->tiny,
                       at_vae_channels(p->tiny), p->format->channels));
    AT_TRY(at_env_ops_for(p->node, AT_ENV_VAE, AT_DTYPE_COUNT, false, &p->o));
out:
    at_store_release(&s);
    if (st != AT_OK) at_vae_release(&p->tiny);
    return st;
}

void at_previewer_open(at_node_ctx *c, const at_latent_format *f, at_previewer *out)
{
    *out = (at_previewer){.node = c, .format = f};
    if (at_env_of(c)->previews != AT_PREVIEWS_TAESD || !f->tiny) return;
    if (open_tiny(out) != AT_OK)
        at_log(AT_WARN, "PREVIEW-TAESD", "latent2rgb is shown instead: %s", at_error_text());
}

void at_previewer_close(at_previewer *p)
{
    at_vae_release(&p->tiny);
    at_ops_free(p->o);
    p->o = NULL;
}

void at_previewer_show(at_previewer *p, const at_tensor *x0)
{
    at_status st = AT_OK;
    float *z = NULL;
    const at_latent_format *f = p->format;

    if (!at_env_of(p->node)->previews || (!p->tiny && !f->rgb) || !x0 || x0->rank != 4 ||
        x0->shape[1] != f->channels || !at_tensor_contiguous(x0))
        return;
    size_t bytes = (size_t)at_tensor_count(x0) * sizeof *z;
    z = at_alloc(bytes);
    if (!z) AT_TRY(at_fail(AT_ENOMEM, "preview: no memory"));
    AT_TRY(at_tensor_to_host(x0, AT_F32, z, bytes));
    st = p->tiny ? show_decoded(p, z, x0->shape[3], x0->shape[2])
                 : show_linear(p, z, x0->shape[3], x0->shape[2]);
    if (st != AT_OK && p->tiny) at_previewer_close(p); // the next steps are shown without it
out:
    if (st != AT_OK) at_log(AT_WARN, "PREVIEW", "%s", at_error_text());
    at_free(z);
}
