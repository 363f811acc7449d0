// SPDX-License-Identifier: Apache-2.0
// env.c - op contexts for nodes.
#include "nodes/env.h"

#include "base/mem.h"

#include <string.h>

at_dtype at_env_compute(const at_env *e)
{
    if (e->dtype == AT_F32 || e->dtype == AT_BF16) return e->dtype;
    // bf16 pays where the chip multiplies it natively; elsewhere f32 activations are faster and exact.
    bool native = !e->device->host || strstr(e->device->description, "BF16") != NULL;
    return native ? AT_BF16 : AT_F32;
}

// f16 has eight times bf16's steps at the same speed: better where no activation leaves its range, as in
// the networks that were published in it.
at_dtype at_env_compute_for(const at_env *e, bool f16)
{
    bool open = e->dtype == AT_DTYPE_COUNT || e->dtype == AT_F16 || e->dtype == AT_F8E4M3;
    return f16 && open && !e->device->host ? AT_F16 : at_env_compute(e);
}

static void config(const at_node_ctx *c, at_device *device, at_dtype compute, bool fp8,
                   bool weights8, at_ops_config *out)
{
    const at_env *e = at_env_of(c);
    // A CPU does not compute in f16; f32 holds all of its values.
    if (compute == AT_F16 && device->host) compute = AT_F32;
    *out = (at_ops_config){.device = device,
                           .compute = compute,
                           .sink = at_node_sink(c),
                           .int8 = e->dtype == AT_I8,
                           .fp8 = fp8,
                           .weights8 = weights8};
}

// Processes work all together or each by itself: they have no one to hand a result to.
static bool usable(const at_env_ranks *r, int ranks)
{
    return ranks <= r->n && (!r->world || ranks == 1 || ranks == r->n);
}

// While jobs wait, the others' devices are theirs: how many should this run have, of all?
static void judge(const at_env_ranks *r, const at_par_task *task)
{
    at_par_site site = r->site;
    at_par_plan best;

    if (!r->apart || !r->automatic) return;
    site.ranks = r->all;
    site.waiting = r->waiting > 0 ? r->waiting : 1;
    if (at_par_plans(task, &site, &best, 1) == 1) *r->apart = best.ranks;
}

static at_degrees ways_of(const at_env *e, const at_par_task *task, const at_degrees *wish)
{
    enum { MANY = 64 };
    const at_env_ranks *r = &e->ranks;
    at_par_plan plans[MANY];

    if (r->all > 1) judge(r, task);
    if (r->n < 2) return (at_degrees){0};
    at_degrees asked = !r->automatic ? r->degrees : wish ? *wish : (at_degrees){0};
    at_degrees_fit(&asked, task->hints.axes);
    if (!r->automatic) return asked;
    if (wish && usable(r, at_degrees_ranks(wish)) && at_par_possible(task, &asked)) return asked;
    int n = at_par_plans(task, &r->site, plans, MANY);
    for (int i = 0; i < n; i++)
        if (usable(r, plans[i].ranks)) return plans[i].degrees;
    return (at_degrees){0};
}

at_degrees at_env_degrees(const at_env *e, const at_par_task *task, const at_degrees *wish)
{
    at_degrees d = ways_of(e, task, wish);

    at_degrees_take_speeds(&d, e->ranks.site.speed);
    return d;
}

at_degrees at_env_vae_degrees(const at_env *e, int64_t height, int64_t width)
{
    enum { WORTH_IT = 512 * 512 }; // pixels a rank
    const at_env_ranks *r = &e->ranks;
    at_degrees out = {0};
    int64_t fit = height * width / WORTH_IT;

    // One that runs elsewhere runs there alone.
    if (r->n < 2 || (e->vae_device && e->vae_device != e->device)) return out;
    if (!r->automatic)
        out.of[AT_AXIS_PATCH] = at_degrees_ranks(&r->degrees);
    else if (!r->site.one_processor)
        out.of[AT_AXIS_PATCH] = fit < 1 ? 1 : fit < r->n ? (int)fit : r->n;
    if (r->world && out.of[AT_AXIS_PATCH] > 1) out.of[AT_AXIS_PATCH] = r->n;
    if (!r->automatic && at_degrees_ranks(&r->degrees) == at_degrees_ranks(&out))
        memcpy(out.shares, r->degrees.shares, sizeof out.shares);
    at_degrees_take_speeds(&out, r->site.speed);
    return out;
}

at_status at_env_ops(const at_node_ctx *c, at_ops **out)
{
    return at_env_ops_in(c, AT_DTYPE_COUNT, out);
}

at_status at_env_ops_in(const at_node_ctx *c, at_dtype compute, at_ops **out)
{
    const at_env *e = at_env_of(c);
    at_ops_config with;
    config(c, e->device, compute == AT_DTYPE_COUNT ? at_env_compute(e) : compute, false, false,
           &with);
    return at_ops_new(&with, out);
}

void at_env_choose(const at_env *env, int part, at_dtype compute, bool f16, at_device **device,
                   at_dtype *out)
{
    at_env e = *env;
    at_device *own = part == AT_ENV_VAE ? e.vae_device : part == AT_ENV_TEXT ? e.text_device : NULL;

    if (*device)
        e.device = *device;
    else if (own)
        e.device = own;
    if (compute == AT_DTYPE_COUNT) compute = e.parts[part].compute;
    if (compute == AT_DTYPE_COUNT) compute = at_env_compute_for(&e, f16);
    if (compute == AT_F16 && e.device->host) compute = AT_F32; // see config
    *device = e.device;
    *out = compute;
}

// A flag asks for the part's weights in fp8, on any GPU.
static bool kept_in_fp8(const at_env *e, int part)
{
    return e->parts[part].storage == AT_F8E4M3 || e->parts[part].storage == AT_F8E5M2;
}

bool at_env_fp8(const at_env *e, const at_model *m)
{
    return e->dtype == AT_F8E4M3 || e->parts[AT_ENV_UNET].storage != AT_DTYPE_COUNT ||
           at_model_fp8(m) || (e->fast_fp8 && at_model_stored_fp8(m));
}

void at_env_config_denoiser(const at_node_ctx *c, const at_model *m, at_device *device,
                            at_ops_config *out)
{
    const at_env *e = at_env_of(c);
    at_dtype compute = at_model_compute(m);
    at_env_choose(e, AT_ENV_UNET, compute, at_arch_f16(at_model_arch(m)), &device, &compute);
    config(c, device, compute, at_env_fp8(e, m), kept_in_fp8(e, AT_ENV_UNET) || at_model_fp8(m),
           out);
}

at_status at_env_ops_denoiser(const at_node_ctx *c, const at_model *m, at_ops **out)
{
    at_ops_config with;
    at_env_config_denoiser(c, m, NULL, &with);
    return at_ops_new(&with, out);
}

void at_env_config_for(const at_node_ctx *c, int part, at_device *device, at_dtype compute,
                       bool f16, at_ops_config *out)
{
    at_env_choose(at_env_of(c), part, compute, f16, &device, &compute);
    config(c, device, compute, false, kept_in_fp8(at_env_of(c), part), out);
}

at_status at_env_ops_for(const at_node_ctx *c, int part, at_dtype compute, bool f16, at_ops **out)
{
    at_ops_config with;
    at_env_config_for(c, part, NULL, compute, f16, &with);
    return at_ops_new(&with, out);
}

at_status at_env_open(at_env *e, const char *kind, const char *name, char **path, at_store **store)
{
    char *found = NULL;
    at_status st = e->find_file(e, kind, name, &found);
    if (st == AT_OK) st = e->open_store(e, found, store);
    if (st == AT_OK && path)
        *path = found;
    else
        at_free(found);
    return st;
}
