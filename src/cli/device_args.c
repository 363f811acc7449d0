// SPDX-License-Identifier: Apache-2.0
// device_args.c - from flags to the engine's settings.
// Easy to get wrong: ComfyUI's groups are exclusive; of two flags that contradict each other neither may
// win silently.
#include "cli/device_args.h"

#include <stdio.h>
#include <string.h>

#include "atelier/node.h"

typedef struct choice {
    bool given;
    const char *flag;
    at_dtype dtype;
} choice;

// At most one of them is given; it, or NULL.
static at_status one_of(const choice *rows, size_t n, const choice **out)
{
    *out = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].given) continue;
        if (*out)
            return at_fail(AT_EUSAGE, "%s and %s exclude each other", (*out)->flag, rows[i].flag);
        *out = &rows[i];
    }
    return AT_OK;
}

static at_status pick_memory(const at_device_options *o, at_engine_config *c)
{
    const choice rows[] = {
        {o->gpu_only, "--gpu-only", AT_F32},     {o->highvram, "--highvram", AT_F32},
        {o->normalvram, "--normalvram", AT_F32}, {o->lowvram, "--lowvram", AT_F32},
        {o->novram, "--novram", AT_F32},         {o->cpu, "--cpu", AT_F32}};
    const choice *one;
    at_status st = one_of(rows, AT_COUNT(rows), &one);
    if (st != AT_OK) return st;
    c->vram = o->lowvram ? AT_VRAM_LOW : o->novram ? AT_VRAM_NONE : AT_VRAM_NORMAL;
    c->drop_idle_models = o->disable_smart_memory;
    c->cpu_vae = o->cpu_vae;
    c->text_device = o->text_device;
    c->vae_device = o->vae_device;
    if (o->cpu_vae && o->vae_device && strcmp(o->vae_device, "cpu") != 0)
        return at_fail(AT_EUSAGE, "--cpu-vae and --vae-device %s exclude each other",
                       o->vae_device);
    if (o->reserve_vram.given)
        c->reserve_gib = o->reserve_vram.value > 0 ? o->reserve_vram.value : -1;
    return AT_OK;
}

static at_status pick_device(const at_device_options *o, at_engine_config *c)
{
    static _Thread_local char name[32]; // lives as long as argv does for our purposes
    c->device = o->device;
    if (o->cuda_device) {
        size_t n = strspn(o->cuda_device, "0123456789");
        if (!n || o->cuda_device[n] || n > 3)
            return at_fail(AT_EUSAGE, "--cuda-device %s: the number of one GPU is wanted",
                           o->cuda_device);
        snprintf(name, sizeof name, "cuda:%s", o->cuda_device);
        if (o->device && strcmp(o->device, name) != 0)
            return at_fail(AT_EUSAGE, "--device %s and --cuda-device %s exclude each other",
                           o->device, o->cuda_device);
        c->device = name;
    }
    c->devices = o->devices;
    c->cpu_ranks = (int)o->cpu_ranks;
    c->parallel = o->parallel;
    c->shares = o->shares;
    c->comm = o->comm;
    if (o->devices && c->device)
        return at_fail(AT_EUSAGE, "--devices and --device %s exclude each other", c->device);
    if (o->cpu_ranks && c->device && strcmp(c->device, "cpu") != 0)
        return at_fail(AT_EUSAGE, "--cpu-ranks and --device %s exclude each other", c->device);
    if (!o->cpu) return AT_OK;
    if (c->device && strcmp(c->device, "cpu") != 0)
        return at_fail(AT_EUSAGE, "--cpu and --device %s exclude each other", c->device);
    c->device = "cpu";
    return AT_OK;
}

static at_status pick_unet(const at_device_options *o, at_engine_config *c)
{
    const choice rows[] = {{o->unet_fp32, "--fp32-unet", AT_F32},
                           {o->unet_fp64, "--fp64-unet", AT_F64},
                           {o->unet_bf16, "--bf16-unet", AT_BF16},
                           {o->unet_fp16, "--fp16-unet", AT_F16},
                           {o->unet_e4m3, "--fp8_e4m3fn-unet", AT_F8E4M3},
                           {o->unet_e5m2, "--fp8_e5m2-unet", AT_F8E5M2},
                           {o->unet_e8m0, "--fp8_e8m0fnu-unet", AT_DTYPE_COUNT}};
    const choice *one;
    at_status st = one_of(rows, AT_COUNT(rows), &one);
    if (st != AT_OK || !one) return st;
    if (o->unet_fp64 || o->unet_e8m0)
        return at_fail(AT_EUSAGE, "%s: networks compute in f32, bf16, f16 or fp8; leave it out",
                       one->flag);
    c->unet_dtype = 1 + (int)one->dtype;
    return AT_OK;
}

static at_status pick_vae_and_text(const at_device_options *o, at_engine_config *c)
{
    const choice vae[] = {{o->vae_fp16, "--fp16-vae", AT_F16},
                          {o->vae_fp32, "--fp32-vae", AT_F32},
                          {o->vae_bf16, "--bf16-vae", AT_BF16}};
    const choice text[] = {{o->text_e4m3, "--fp8_e4m3fn-text-enc", AT_F8E4M3},
                           {o->text_e5m2, "--fp8_e5m2-text-enc", AT_F8E5M2},
                           {o->text_fp16, "--fp16-text-enc", AT_F16},
                           {o->text_fp32, "--fp32-text-enc", AT_F32},
                           {o->text_bf16, "--bf16-text-enc", AT_BF16}};
    const choice *one;
    at_status st = AT_OK;
    AT_TRY(one_of(vae, AT_COUNT(vae), &one));
    if (one) c->vae_dtype = 1 + (int)one->dtype;
    AT_TRY(one_of(text, AT_COUNT(text), &one));
    if (one) c->text_dtype = 1 + (int)one->dtype;
out:
    return st;
}

at_status at_device_options_apply(const at_device_options *o, at_engine_config *c)
{
    at_status st = AT_OK;
    AT_TRY(pick_memory(o, c));
    AT_TRY(pick_device(o, c));
    AT_TRY(pick_unet(o, c));
    AT_TRY(pick_vae_and_text(o, c));
    if (o->force_fp32 && o->force_fp16)
        AT_TRY(at_fail(AT_EUSAGE, "--force-fp32 and --force-fp16 exclude each other"));
    if (o->force_fp32) {
        if (!c->auto_dtype && c->dtype != AT_F32)
            AT_TRY(at_fail(AT_EUSAGE, "--force-fp32 and that --dtype exclude each other"));
        if (!c->unet_dtype) c->unet_dtype = 1 + (int)AT_F32;
        if (!c->vae_dtype) c->vae_dtype = 1 + (int)AT_F32;
        if (!c->text_dtype) c->text_dtype = 1 + (int)AT_F32;
        c->dtype = AT_F32;
        c->auto_dtype = false;
    }
    c->fast_fp8 = (o->fast.mask & 2u) != 0;
out:
    return st;
}
