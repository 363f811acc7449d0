// SPDX-License-Identifier: Apache-2.0
// latent_format.c - see latent_format.h.
#include "models/latent_format.h"

#include <string.h>

#include "models/arch.h"

#define MAX_CHANNELS 128

// x * mul[c] + add[c], by channel.
static at_tensor *by_channel(at_ops *o, const at_latent_format *f, const at_tensor *x,
                             const float *mul, const float *add)
{
    int64_t shape[AT_MAX_RANK] = {1, f->channels, 1, 1, 1, 1};
    if (!x) return NULL;
    if (x->rank < 2 || x->shape[1] != f->channels)
        return at_ops_poison(o, AT_EINVAL, "%s latents have %d channels, this tensor %lld", f->name,
                             f->channels, x->rank < 2 ? 0LL : (long long)x->shape[1]);
    at_tensor *m = at_from_host(o, AT_F32, x->rank, shape, mul);
    return at_add(o, at_mul(o, x, m), at_from_host(o, AT_F32, x->rank, shape, add));
}

at_tensor *at_latent_to_model(at_ops *o, const at_latent_format *f, const at_tensor *z)
{
    float mul[MAX_CHANNELS], add[MAX_CHANNELS];
    if (!f->mean || f->channels > MAX_CHANNELS)
        return at_affine(o, z, f->scale, -f->shift * f->scale);
    for (int c = 0; c < f->channels; c++) {
        mul[c] = f->scale / f->std[c];
        add[c] = -f->mean[c] * f->scale / f->std[c];
    }
    return by_channel(o, f, z, mul, add);
}

at_tensor *at_latent_from_model(at_ops *o, const at_latent_format *f, const at_tensor *x)
{
    float mul[MAX_CHANNELS];
    if (!f->mean || f->channels > MAX_CHANNELS) return at_affine(o, x, 1.0f / f->scale, f->shift);
    for (int c = 0; c < f->channels; c++)
        mul[c] = f->std[c] / f->scale;
    return by_channel(o, f, x, mul, f->mean);
}

void at_latent_to_model_host(const at_latent_format *f, at_tensor *z)
{
    float *p = at_tensor_data(z);
    int64_t n = at_tensor_count(z), channels = z->shape[1];
    int64_t plane = n > 0 ? n / (z->shape[0] * channels) : 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t c = i / plane % channels;
        if (f->mean)
            p[i] = (p[i] - f->mean[c % f->channels]) * f->scale / f->std[c % f->channels];
        else
            p[i] = (p[i] - f->shift) * f->scale;
    }
}

const at_latent_format *at_latent_format_of(const char *arch)
{
    for (size_t i = 0; i < at_arch_count; i++)
        if (strcmp(at_arch_table[i]->name, arch) == 0) return at_arch_table[i]->latent;
    return NULL;
}
