// SPDX-License-Identifier: Apache-2.0
// solvers_upscale.c - lcm_upscale: consistency steps between which the latent grows.
// Idea: every x0 is resized before it is noised again; sizes run in even shares of the first one's.
// Easy to get wrong: shares are of the original size and rounded to even halves, the resized tensor is the
// last x0, and new noise comes from torch's global generator in the new shape.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_advanced_samplers.py.
// Owns: r->table holds the growth after each step.
#include <math.h>

#include "base/mem.h"
#include "image/resize.h"
#include "sample/solver.h"

#define MAX_GROWTHS (AT_STEPS_MAX + 2)
enum { WIDTH, HEIGHT, GROWTHS }; // r->num

at_status at_begin_lcm_upscale(at_run *r)
{
    at_resize_how how;
    int sigmas = r->n + 1, points = r->opt.upscale_steps;
    at_status st = at_resize_how_of(r->opt.upscale_method, &how);

    if (st != AT_OK) return st;
    if (r->x->rank != 4)
        return at_fail(AT_EINVAL, "lcm_upscale: a latent of %d dimensions, expected 4", r->x->rank);
    if (!(r->opt.total_upscale > 0) || points > MAX_GROWTHS)
        return at_fail(AT_EINVAL,
                       "lcm_upscale: scale %g in %d steps, expected above 0 and at most %d",
                       r->opt.total_upscale, points, MAX_GROWTHS);
    if (points < 0)
        points = sigmas / 2 + 1 > 2 ? sigmas / 2 + 1 : 2;
    else
        points = points + 1 < sigmas + 1 ? points + 1 : sigmas + 1;
    st = at_run_table(r, (size_t)points);
    for (int i = 1; st == AT_OK && i < points; i++)
        r->table[i - 1] = 1 + i * ((r->opt.total_upscale - 1) / (points - 1));
    r->num[GROWTHS] = points - 1;
    r->num[WIDTH] = (double)r->x->shape[3];
    r->num[HEIGHT] = (double)r->x->shape[2];
    return st;
}

// x at `growth` times the first size, through the host.
static at_tensor *grown(at_run *r, const at_tensor *x, double growth)
{
    at_status st = AT_OK;
    at_resize_how how;
    at_tensor *host = NULL, *sized = NULL, *result = NULL;
    double w = rint(r->num[WIDTH] * growth), h = rint(r->num[HEIGHT] * growth);

    if (!x || at_ops_status(r->o) != AT_OK) return NULL;
    const at_tensor *flat = at_contiguous(r->o, x);
    AT_TRY(at_ops_status(r->o));
    AT_TRY(at_resize_how_of(r->opt.upscale_method, &how));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, flat->shape, &host));
    AT_TRY(at_tensor_to_host(flat, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    AT_TRY(at_resize(host, AT_ORDER_NCHW, (int64_t)fmin(w, 1e9), (int64_t)fmin(h, 1e9), how, false,
                     &sized));
    result = at_from_host(r->o, AT_F32, 4, sized->shape, at_tensor_data(sized));
out:
    at_tensor_release(&host);
    at_tensor_release(&sized);
    if (st != AT_OK && at_ops_status(r->o) == AT_OK) at_ops_poison(r->o, st, "%s", at_error_text());
    return result;
}

static bool outgrown(const at_run *r, const at_tensor *x)
{
    return x && (x->shape[2] != (int64_t)r->num[HEIGHT] || x->shape[3] != (int64_t)r->num[WIDTH]);
}

at_tensor *at_step_lcm_upscale(at_run *r, int i)
{
    double t = r->s[i + 1];

    if (r->mask && outgrown(r, r->x))
        return at_ops_poison(r->o, AT_EINVAL,
                             "lcm_upscale: the latent changed its size, its noise mask did not; "
                             "take a scale of 1, or no mask");
    at_denoised d = at_run_eval(r, r->x, r->s[i]);
    at_tensor *x = d.out;
    at_run_report(r, i, r->x, d.out);
    if (i < (int)r->num[GROWTHS]) x = grown(r, x, r->table[i]);
    if (!(t > 0)) return x;
    return at_mix(r->o, {1, x}, {t, at_run_global_noise_like(r, x)});
}
