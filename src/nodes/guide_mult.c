// SPDX-License-Identifier: Apache-2.0
// guide_mult.c - how much each cell of an entry counts.
// Idea: mask times strengths, or for an area without a mask its strength with edges that fade over
// up to 8 cells wherever the area ends inside the picture. It does not depend on the step, so it is
// made once, on the host, and uploaded once.
// Source: ComfyUI 0.3.64 comfy/samplers.py, get_area_and_mult. Owns: see guide_impl.h.
#include "base/mem.h"
#include "nodes/guide_impl.h"

enum { FUZZ = 8 };

static at_status from_mask(const at_guide *g, at_entry *e)
{
    const at_rect r = e->rect;
    const at_tensor *m = e->mask;
    int64_t n = m->shape[0] < g->shape[0] ? m->shape[0] : g->shape[0];
    int64_t w = m->shape[2], plane = m->shape[1] * w;
    at_status st;

    if (n > 1 && n != g->shape[0])
        return at_fail(AT_EINVAL,
                       "a conditioning has %lld masks for %lld latents; give one mask, or one for "
                       "each latent",
                       (long long)m->shape[0], (long long)g->shape[0]);
    st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, 1, r.h, r.w}, &e->mult_host);
    if (st != AT_OK) return st;
    const float *src = at_tensor_data(m);
    float *dst = at_tensor_data(e->mult_host);
    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < r.h; y++)
            for (int64_t x = 0; x < r.w; x++)
                *dst++ =
                    src[i * plane + (y + r.y) * w + x + r.x] * e->c.mask_strength * e->c.strength;
    return AT_OK;
}

// Multiply line t (of `lines`, `step` apart) of each of `count` runs by its share of the ramp.
static void fade(float *first, int64_t count, int64_t stride, int64_t step, int64_t lines)
{
    for (int64_t t = 0; t < lines; t++)
        for (int64_t i = 0; i < count; i++)
            first[t * step + i * stride] *= (float)(1.0 / (double)lines * (double)(t + 1));
}

static at_status from_area(const at_guide *g, at_entry *e)
{
    const at_rect r = e->rect;
    int64_t high = r.h / 4 < FUZZ ? r.h / 4 : FUZZ, wide = r.w / 4 < FUZZ ? r.w / 4 : FUZZ;
    at_status st =
        at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 1, r.h, r.w}, &e->mult_host);

    if (st != AT_OK) return st;
    float *p = at_tensor_data(e->mult_host), *end = p + r.h * r.w;
    for (float *q = p; q < end; q++)
        *q = e->c.strength;
    if (r.y != 0) fade(p, r.w, 1, r.w, high);
    if (r.y + r.h < g->shape[2]) fade(end - r.w, r.w, 1, -r.w, high);
    if (r.x != 0) fade(p, r.h, r.w, 1, wide);
    if (r.x + r.w < g->shape[3]) fade(p + r.w - 1, r.h, r.w, -1, wide);
    return AT_OK;
}

at_status at_guide_mult(const at_guide *g, at_entry *e)
{
    at_status st = AT_OK;

    if (e->mask)
        st = from_mask(g, e);
    else if (e->has_area)
        st = from_area(g, e);
    if (st != AT_OK || !e->mult_host) return st;
    return at_tensor_from_host(g->device, AT_F32, 4, e->mult_host->shape,
                               at_tensor_data(e->mult_host), &e->mult);
}
