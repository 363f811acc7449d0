// SPDX-License-Identifier: Apache-2.0
// latent_preview.c - see latent_preview.h.
// Source: comfyui-contract 2.4: rgb = latent . F + bias for each latent pixel, then (v + 1) / 2.
// Easy to get wrong: on a GPU this waits for the step, so nobody who does not look at previews may pay for it.
#include "nodes/latent_preview.h"

#include "base/log.h"
#include "base/mem.h"
#include "image/image.h"

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

void at_latent_preview(at_node_ctx *c, const at_latent_format *f, const at_tensor *x0)
{
    at_status st = AT_OK;
    float *z = NULL;
    uint8_t *rgb = NULL;

    if (!at_env_of(c)->previews || !f->rgb || !x0 || x0->rank != 4 || x0->shape[1] != f->channels ||
        !at_tensor_contiguous(x0))
        return;
    int64_t pixels = x0->shape[2] * x0->shape[3];
    z = at_alloc((size_t)at_tensor_count(x0) * sizeof *z);
    rgb = at_alloc((size_t)pixels * 3);
    if (!z || !rgb) AT_TRY(at_fail(AT_ENOMEM, "preview: no memory"));
    AT_TRY(at_tensor_to_host(x0, AT_F32, z, (size_t)at_tensor_count(x0) * sizeof *z));
    colours(f, z, pixels, rgb);
    at_node_preview(c, rgb, (int)x0->shape[3], (int)x0->shape[2]);
out:
    if (st != AT_OK) at_log(AT_WARN, "PREVIEW", "%s", at_error_text());
    at_free(z);
    at_free(rgb);
}
