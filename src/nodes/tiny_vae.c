// SPDX-License-Identifier: Apache-2.0
// tiny_vae.c - see tiny_vae.h.
// Idea: a tiny autoencoder is two files among vae_approx; they become one store, as ComfyUI joins them.
// Source: ComfyUI 0.3.64 nodes.py, VAELoader; latent_preview.py for the decoder alone.
#include "nodes/tiny_vae.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const struct {
    const char *name;
    float scale, shift;
} tiny_vaes[] = {{"taesd", 0.18215f, 0.0f},
                 {"taesdxl", 0.13025f, 0.0f},
                 {"taesd3", 1.5305f, 0.0609f},
                 {"taef1", 0.3611f, 0.1159f}};

static void copy_bytes(void *ctx, void *bytes, size_t n)
{
    memcpy(bytes, ctx, n);
}

// The file NAME_HALF.EXT among vae_approx. AT_ENOTFOUND of the last extension.
static at_status open_half(at_env *e, const char *name, const char *half, at_store **out)
{
    static const char *const extensions[] = {"sft", "pth", "pt", "bin", "ckpt", "safetensors"};
    char file[64];
    at_status st = AT_ENOTFOUND;
    for (size_t i = 0; i < AT_COUNT(extensions) && st == AT_ENOTFOUND; i++) {
        snprintf(file, sizeof file, "%s_%s.%s", name, half, extensions[i]);
        st = at_env_open(e, "vae_approx", file, NULL, out);
    }
    return st;
}

static at_status add_half(at_env *e, const char *name, const char *half, at_store *to)
{
    at_status st = AT_OK;
    at_store *from = NULL;
    char key[256];

    AT_TRY(open_half(e, name, half, &from));
    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w = at_store_at(from, i);
        int n = snprintf(key, sizeof key, "taesd_%s.%s", half, w->name);
        if (n < 0 || (size_t)n >= sizeof key) continue;
        AT_TRY(at_weight_ready(w));
        AT_TRY(at_store_add(to, key, w->dtype, w->rank, w->shape, copy_bytes,
                            (void *)(uintptr_t)w->data));
    }
out:
    at_store_release(&from);
    return st;
}

static at_status add_number(at_store *to, const char *key, float v)
{
    return at_store_add(to, key, AT_F32, 0, NULL, copy_bytes, &v);
}

enum { NONE = AT_COUNT(tiny_vaes) };

static size_t find(const char *name)
{
    for (size_t i = 0; i < AT_COUNT(tiny_vaes); i++)
        if (strcmp(name, tiny_vaes[i].name) == 0) return i;
    return NONE;
}

bool at_tiny_vae_known(const char *name)
{
    return find(name) != NONE;
}

static at_status open_tiny(at_env *e, const char *name, bool whole, at_store **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    size_t which = find(name);

    if (which == NONE) AT_TRY(at_fail(AT_ENOTFOUND, "%s: no tiny autoencoder has that name", name));
    AT_TRY(at_store_new(name, &s));
    AT_TRY(add_half(e, name, "decoder", s));
    if (whole) {
        AT_TRY(add_half(e, name, "encoder", s));
        AT_TRY(add_number(s, "vae_scale", tiny_vaes[which].scale));
        AT_TRY(add_number(s, "vae_shift", tiny_vaes[which].shift));
    }
    *out = s;
    s = NULL;
out:
    at_store_release(&s);
    return st;
}

at_status at_tiny_vae_open(at_env *e, const char *name, at_store **out)
{
    return open_tiny(e, name, true, out);
}

at_status at_tiny_decoder_open(at_env *e, const char *name, at_store **out)
{
    return open_tiny(e, name, false, out);
}
