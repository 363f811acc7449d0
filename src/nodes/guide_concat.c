// SPDX-License-Identifier: Apache-2.0
// guide_concat.c - what inpainting, instruct-pix2pix and Flux's fill and control models read beside
// x.
// Idea: a UNet's row says which kind it is (at_model_concat), Flux' channels do: 16 + 16 follows a
// picture, 16 + 16 + 64 fills (the mask's 8 x 8 pixels of each cell as channels). Everything is
// made once per run on the host.
// Easy to get wrong: without a mask an inpainting model is told "paint all" and shown a grey
// picture; resize, then round; batches are resampled, not repeated.
// Source: ComfyUI 0.3.64 comfy/model_base.py (BaseModel.concat_cond, IP2P, Flux; set_inpaint's
// grey).
// Owns nothing beyond a call.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "models/latent_format.h"
#include "image/resize.h"
#include "nodes/guide_impl.h"

static float *floats(const at_tensor *t)
{
    return at_tensor_data(t);
}

static at_status make(int64_t n, int64_t c, int64_t h, int64_t w, float fill, at_tensor **out)
{
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, c, h, w}, out);
    if (st != AT_OK) return st;
    for (int64_t i = 0, count = at_tensor_count(*out); i < count; i++)
        floats(*out)[i] = fill;
    return AT_OK;
}

void at_guide_process_in(const at_guide *g, at_tensor *z)
{
    at_latent_to_model_host(at_model_latent(g->net), z);
}

// Item `from[i]` of t becomes item i.
static at_status pick(const at_tensor *t, int64_t n, int64_t (*from)(int64_t, int64_t, int64_t),
                      at_tensor **out)
{
    int64_t shape[AT_MAX_RANK], have = t->shape[0];
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = n;
    if (have < 1) return at_fail(AT_EINVAL, "sampler: an empty batch of latents or masks");
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, t->rank, shape, out);
    if (st != AT_OK) return st;
    size_t bytes = at_tensor_bytes(t) / (size_t)have;
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)at_tensor_data(*out) + (size_t)i * bytes,
               (const char *)at_tensor_data(t) + (size_t)from(i, n, have) * bytes, bytes);
    return AT_OK;
}

static int64_t in_turn(int64_t i, int64_t n, int64_t have)
{
    (void)n;
    return i % have;
}
at_status at_guide_repeat(const at_tensor *t, int64_t n, at_tensor **out)
{
    return pick(t, n, in_turn, out);
}

// ComfyUI's resize_to_batch_size: spread evenly.
static int64_t spread(int64_t i, int64_t n, int64_t have)
{
    double at;
    if (n == have || n <= 1) return i;
    if (n < have)
        at = rint((double)i * ((double)(have - 1) / (double)(n - 1)));
    else
        at = floor(((double)i + 0.5) * ((double)have / (double)n));
    return at < (double)(have - 1) ? (int64_t)at : have - 1;
}

// t at the latent's size times `by`, one item for each of its batch; replaces *t.
static at_status fit(const at_guide *g, at_tensor **t, int64_t by, bool round)
{
    at_status st = AT_OK;
    at_tensor *sized = NULL, *all = NULL;
    int64_t h = g->shape[2] * by, w = g->shape[3] * by;

    if ((*t)->shape[2] == h && (*t)->shape[3] == w)
        sized = at_tensor_retain(*t);
    else
        AT_TRY(at_resize(*t, AT_ORDER_NCHW, w, h, AT_RESIZE_BILINEAR, true, &sized));
    AT_TRY(pick(sized, g->shape[0], spread, &all));
    for (int64_t i = 0, n = at_tensor_count(all); round && i < n; i++)
        floats(all)[i] = rintf(floats(all)[i]);
    at_tensor_release(t);
    *t = all;
    all = NULL;
out:
    at_tensor_release(&sized);
    at_tensor_release(&all);
    return st;
}

// The mask to speak of: the conditioning's own, else the sampler's; NULL if there is neither. A new
// tensor [b, 1, h, w].
static at_status mask_of(const at_guide *g, const at_cond *c, at_tensor **out)
{
    const at_tensor *m = c->concat_mask ? c->concat_mask : g->mask;
    int64_t plane;

    if (!m) return AT_OK;
    if (m->rank < 3 || m->dtype != AT_F32)
        return at_fail(AT_EINVAL, "sampler: an inpainting mask has %d dimensions", m->rank);
    int64_t h = m->shape[m->rank - 2], w = m->shape[m->rank - 1];
    plane = h * w;
    if (plane < 1) return at_fail(AT_EINVAL, "sampler: an inpainting mask is empty");
    return at_tensor_from_host(at_device_cpu(), AT_F32, 4,
                               (int64_t[]){at_tensor_count(m) / plane, 1, h, w}, at_tensor_data(m),
                               out);
}

// A copy of the conditioning's picture, or NULL.
static at_status picture_of(const at_cond *c, int channels, at_tensor **out)
{
    const at_tensor *p = c->concat_latent;

    if (!p) return AT_OK;
    if (p->rank != 4 || p->shape[1] != channels)
        return at_fail(AT_EINVAL,
                       "the picture to inpaint or follow is a latent of %lld channels, this model "
                       "wants %d: it was made by another kind of VAE",
                       (long long)p->shape[1], channels);
    return at_tensor_from_host(at_device_cpu(), AT_F32, 4, p->shape, at_tensor_data(p), out);
}

// a's channels, then b's.
static at_status join(const at_tensor *a, const at_tensor *b, at_tensor **out)
{
    int64_t n = a->shape[0], ca = a->shape[1], cb = b->shape[1], h = a->shape[2], w = a->shape[3];
    size_t pa = (size_t)(ca * h * w), pb = (size_t)(cb * h * w);
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, ca + cb, h, w}, out);
    if (st != AT_OK) return st;
    for (size_t i = 0; i < (size_t)n; i++) {
        memcpy(floats(*out) + i * (pa + pb), floats(a) + i * pa, pa * sizeof(float));
        memcpy(floats(*out) + i * (pa + pb) + pa, floats(b) + i * pb, pb * sizeof(float));
    }
    return AT_OK;
}

// --- inpainting UNets: mask, masked picture ------------------------------------------------------
// Grey (0.5) as the first VAE of Stable Diffusion writes it, after process_in.
static const float blank[4] = {0.8223f, -0.6876f, 0.6364f, 0.1380f};

static at_status inpaint(const at_guide *g, const at_cond *c, at_tensor **out)
{
    at_status st = AT_OK;
    int channels = at_model_latent(g->net)->channels;
    int64_t b = g->shape[0], h = g->shape[2], w = g->shape[3];
    at_tensor *mask = NULL, *picture = NULL;

    AT_TRY(mask_of(g, c, &mask));
    AT_TRY(picture_of(c, channels, &picture));
    if (mask)
        AT_TRY(fit(g, &mask, 1, true));
    else
        AT_TRY(make(b, 1, h, w, 1.0f, &mask));
    if (g->mask || c->concat_mask) {
        if (!picture && !g->latent) // an empty latent is not put through process_in
            AT_TRY(make(b, channels, h, w, 0, &picture));
        else if (!picture)
            AT_TRY(at_tensor_from_host(at_device_cpu(), AT_F32, 4, g->latent->shape,
                                       at_tensor_data(g->latent), &picture));
        if (c->concat_latent || g->latent) at_guide_process_in(g, picture);
        AT_TRY(fit(g, &picture, 1, false));
    } else {
        at_tensor_release(&picture);
        AT_TRY(make(b, channels, h, w, 0, &picture));
        for (int64_t i = 0; i < at_tensor_count(picture); i++)
            floats(picture)[i] = blank[i / (h * w) % channels % 4];
    }
    AT_TRY(join(mask, picture, out));
out:
    at_tensor_release(&mask);
    at_tensor_release(&picture);
    return st;
}

// --- a picture to follow -------------------------------------------------------------------------
// Flux puts it through process_in, also where it is missing; instruct-pix2pix takes it as it is.
static at_status follow(const at_guide *g, const at_cond *c, bool process, at_tensor **out)
{
    at_status st = AT_OK;
    int channels = at_model_latent(g->net)->channels;

    AT_TRY(picture_of(c, channels, out));
    if (*out)
        AT_TRY(fit(g, out, 1, false));
    else
        AT_TRY(make(g->shape[0], channels, g->shape[2], g->shape[3], 0, out));
    if (process) at_guide_process_in(g, *out);
out:
    return st;
}

// --- Flux Fill: picture, then 64 channels of mask ------------------------------------------------
static at_status fill(const at_guide *g, const at_cond *c, at_tensor **out)
{
    at_status st = AT_OK;
    int64_t b = g->shape[0], h = g->shape[2], w = g->shape[3];
    at_tensor *mask = NULL, *cells = NULL, *picture = NULL;

    AT_TRY(follow(g, c, true, &picture));
    AT_TRY(mask_of(g, c, &mask));
    if (!mask) AT_TRY(make(b, 1, h, w, 1.0f, &mask));
    AT_TRY(fit(g, &mask, 8, false));
    AT_TRY(make(b, 64, h, w, 0, &cells));
    for (int64_t i = 0, n = at_tensor_count(cells); i < n; i++) {
        int64_t x = i % w, y = i / w % h, k = i / (w * h) % 64, item = i / (w * h * 64);
        floats(cells)[i] = floats(mask)[(item * 8 * h + y * 8 + k / 8) * 8 * w + x * 8 + k % 8];
    }
    AT_TRY(join(picture, cells, out));
out:
    at_tensor_release(&mask);
    at_tensor_release(&cells);
    at_tensor_release(&picture);
    return st;
}

at_status at_guide_concat(const at_guide *g, const at_cond *c, at_tensor **out)
{
    int own = at_model_latent(g->net)->channels, extra = at_model_channels(g->net) - own;

    *out = NULL;
    if (extra <= 0) return AT_OK;
    switch (at_model_concat(g->net)) {
    case AT_CONCAT_INPAINT:
        if (extra == 1 + own) return inpaint(g, c, out);
        break;
    case AT_CONCAT_IP2P:
        if (extra == own) return follow(g, c, false, out);
        break;
    case AT_CONCAT_IP2P_IN:
        if (extra == own) return follow(g, c, true, out);
        break;
    case AT_CONCAT_NONE: // Flux tells its variants by their channels
        if (own == 16 && extra == 16) return follow(g, c, true, out);
        if (own == 16 && extra == 16 + 64) return fill(g, c, out);
        break;
    }
    return at_fail(AT_EUNSUPPORTED,
                   "%s takes %d channels beside the latent's %d: no known kind of model does",
                   at_model_label(g->net), extra, own);
}
