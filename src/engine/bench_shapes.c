// SPDX-License-Identifier: Apache-2.0
// bench_shapes.c - true shapes of the models that bench knows, filled with noise.
// Sources: the public configs of FLUX.1, CLIP ViT-L/14, T5 v1.1 XXL and FLUX's autoencoder.
#include <stdio.h>
#include <string.h>

#include "engine/bench.h"
#include "engine/bench_fill.h"

// --- FLUX.1 ------------------------------------------------------------------------------------------
enum { FLUX_D = 3072, FLUX_HEAD = 128, FLUX_TEXT = 4096, FLUX_VEC = 768 };

static void flux_stream(at_filler *f, const char *side)
{
    char name[64];
#define SIDE(suffix) (snprintf(name, sizeof name, "%s_" suffix, side), name)
    at_fill_linear(f, SIDE("mod.lin"), 6 * FLUX_D, FLUX_D);
    at_fill_linear(f, SIDE("attn.qkv"), 3 * FLUX_D, FLUX_D);
    at_fill_vector(f, SIDE("attn.norm.query_norm.scale"), FLUX_HEAD, 1.0f);
    at_fill_vector(f, SIDE("attn.norm.key_norm.scale"), FLUX_HEAD, 1.0f);
    at_fill_linear(f, SIDE("attn.proj"), FLUX_D, FLUX_D);
    at_fill_linear(f, SIDE("mlp.0"), 4 * FLUX_D, FLUX_D);
    at_fill_linear(f, SIDE("mlp.2"), FLUX_D, 4 * FLUX_D);
#undef SIDE
}

static void embedder(at_filler *f, const char *name, int64_t in)
{
    char key[64];
    snprintf(key, sizeof key, "%s.in_layer", name);
    at_fill_linear(f, key, FLUX_D, in);
    snprintf(key, sizeof key, "%s.out_layer", name);
    at_fill_linear(f, key, FLUX_D, FLUX_D);
}

static at_status fill_flux(at_store *s, at_fill_as as, int doubles, int singles, bool guidance)
{
    at_filler f = at_fill_start(s, as);
    at_fill_linear(&f, "img_in", FLUX_D, 64);
    at_fill_linear(&f, "txt_in", FLUX_D, FLUX_TEXT);
    embedder(&f, "time_in", 256);
    embedder(&f, "vector_in", FLUX_VEC);
    if (guidance) embedder(&f, "guidance_in", 256);
    for (int i = 0; i < doubles; i++) {
        snprintf(f.prefix, sizeof f.prefix, "double_blocks.%d.", i);
        flux_stream(&f, "img");
        flux_stream(&f, "txt");
    }
    for (int i = 0; i < singles; i++) {
        snprintf(f.prefix, sizeof f.prefix, "single_blocks.%d.", i);
        at_fill_linear(&f, "linear1", 7 * FLUX_D, FLUX_D);
        at_fill_linear(&f, "linear2", FLUX_D, 5 * FLUX_D);
        at_fill_vector(&f, "norm.query_norm.scale", FLUX_HEAD, 1.0f);
        at_fill_vector(&f, "norm.key_norm.scale", FLUX_HEAD, 1.0f);
        at_fill_linear(&f, "modulation.lin", 3 * FLUX_D, FLUX_D);
    }
    f.prefix[0] = 0;
    at_fill_linear(&f, "final_layer.linear", 64, FLUX_D);
    at_fill_linear(&f, "final_layer.adaLN_modulation.1", 2 * FLUX_D, FLUX_D);
    return f.st;
}
static at_status fill_flux_dev(at_store *s, at_fill_as as, int doubles, int singles)
{
    return fill_flux(s, as, doubles < 0 ? 19 : doubles, singles < 0 ? 38 : singles, true);
}
static at_status fill_flux_schnell(at_store *s, at_fill_as as, int doubles, int singles)
{
    return fill_flux(s, as, doubles < 0 ? 19 : doubles, singles < 0 ? 38 : singles, false);
}

// --- text encoders -----------------------------------------------------------------------------------
static at_status fill_clip_l(at_store *s, at_fill_as as, int doubles, int singles)
{
    (void)singles;
    at_filler f = at_fill_start(s, as);
    snprintf(f.prefix, sizeof f.prefix, "text_model.");
    at_fill_matrix(&f, "embeddings.token_embedding.weight", 49408, 768);
    at_fill_matrix(&f, "embeddings.position_embedding.weight", 77, 768);
    for (int i = 0; i < (doubles < 0 ? 12 : doubles); i++) {
        snprintf(f.prefix, sizeof f.prefix, "text_model.encoder.layers.%d.", i);
        at_fill_linear(&f, "self_attn.q_proj", 768, 768);
        at_fill_linear(&f, "self_attn.k_proj", 768, 768);
        at_fill_linear(&f, "self_attn.v_proj", 768, 768);
        at_fill_linear(&f, "self_attn.out_proj", 768, 768);
        at_fill_linear(&f, "mlp.fc1", 3072, 768);
        at_fill_linear(&f, "mlp.fc2", 768, 3072);
        at_fill_affine(&f, "layer_norm1", 768);
        at_fill_affine(&f, "layer_norm2", 768);
    }
    snprintf(f.prefix, sizeof f.prefix, "text_model.");
    at_fill_affine(&f, "final_layer_norm", 768);
    return f.st;
}

static at_status fill_t5_xxl(at_store *s, at_fill_as as, int doubles, int singles)
{
    (void)singles;
    at_filler f = at_fill_start(s, as);
    at_fill_matrix(&f, "shared.weight", 32128, 4096);
    for (int i = 0; i < (doubles < 0 ? 24 : doubles); i++) {
        snprintf(f.prefix, sizeof f.prefix, "encoder.block.%d.", i);
        for (const char *p = "qkvo"; *p; p++) {
            char name[64];
            snprintf(name, sizeof name, "layer.0.SelfAttention.%c.weight", *p);
            at_fill_matrix(&f, name, 4096, 4096);
        }
        if (i == 0)
            at_fill_matrix(&f, "layer.0.SelfAttention.relative_attention_bias.weight", 32, 64);
        at_fill_vector(&f, "layer.0.layer_norm.weight", 4096, 1.0f);
        at_fill_matrix(&f, "layer.1.DenseReluDense.wi_0.weight", 10240, 4096);
        at_fill_matrix(&f, "layer.1.DenseReluDense.wi_1.weight", 10240, 4096);
        at_fill_matrix(&f, "layer.1.DenseReluDense.wo.weight", 4096, 10240);
        at_fill_vector(&f, "layer.1.layer_norm.weight", 4096, 1.0f);
    }
    f.prefix[0] = 0;
    at_fill_vector(&f, "encoder.final_layer_norm.weight", 4096, 1.0f);
    return f.st;
}

// --- FLUX's autoencoder ------------------------------------------------------------------------------
static void res_block(at_filler *f, const char *name, int64_t in, int64_t out)
{
    char key[96];
#define PART(suffix) (snprintf(key, sizeof key, "%s." suffix, name), key)
    at_fill_affine(f, PART("norm1"), in);
    at_fill_conv(f, PART("conv1"), out, in, 3);
    at_fill_affine(f, PART("norm2"), out);
    at_fill_conv(f, PART("conv2"), out, out, 3);
    if (in != out) at_fill_conv(f, PART("nin_shortcut"), out, in, 1);
#undef PART
}
static void vae_mid(at_filler *f)
{
    res_block(f, "mid.block_1", 512, 512);
    at_fill_affine(f, "mid.attn_1.norm", 512);
    at_fill_conv(f, "mid.attn_1.q", 512, 512, 1);
    at_fill_conv(f, "mid.attn_1.k", 512, 512, 1);
    at_fill_conv(f, "mid.attn_1.v", 512, 512, 1);
    at_fill_conv(f, "mid.attn_1.proj_out", 512, 512, 1);
    res_block(f, "mid.block_2", 512, 512);
}
// `latent` channels; the older ones have a 1x1 convolution on both sides of the latent.
static at_status fill_vae(at_store *s, at_fill_as as, int64_t latent, bool quant)
{
    static const int64_t width[4] = {128, 256, 512, 512};
    at_filler f = at_fill_start(s, as);
    char key[64];
    snprintf(f.prefix, sizeof f.prefix, "encoder.");
    at_fill_conv(&f, "conv_in", 128, 3, 3);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            snprintf(key, sizeof key, "down.%d.block.%d", i, j);
            res_block(&f, key, j == 0 && i ? width[i - 1] : width[i], width[i]);
        }
        snprintf(key, sizeof key, "down.%d.downsample.conv", i);
        if (i < 3) at_fill_conv(&f, key, width[i], width[i], 3);
    }
    vae_mid(&f);
    at_fill_affine(&f, "norm_out", 512);
    at_fill_conv(&f, "conv_out", 2 * latent, 512, 3);
    snprintf(f.prefix, sizeof f.prefix, "decoder.");
    at_fill_conv(&f, "conv_in", 512, latent, 3);
    vae_mid(&f);
    for (int i = 3; i >= 0; i--) {
        for (int j = 0; j < 3; j++) {
            snprintf(key, sizeof key, "up.%d.block.%d", i, j);
            res_block(&f, key, j == 0 && i < 3 ? width[i + 1] : width[i], width[i]);
        }
        snprintf(key, sizeof key, "up.%d.upsample.conv", i);
        if (i > 0) at_fill_conv(&f, key, width[i], width[i], 3);
    }
    at_fill_affine(&f, "norm_out", 128);
    at_fill_conv(&f, "conv_out", 3, 128, 3);
    f.prefix[0] = 0;
    if (quant) at_fill_conv(&f, "quant_conv", 2 * latent, 2 * latent, 1);
    if (quant) at_fill_conv(&f, "post_quant_conv", latent, latent, 1);
    return f.st;
}

static at_status fill_flux_vae(at_store *s, at_fill_as as, int doubles, int singles)
{
    (void)doubles, (void)singles;
    return fill_vae(s, as, 16, false);
}
static at_status fill_sd_vae(at_store *s, at_fill_as as, int doubles, int singles)
{
    (void)doubles, (void)singles;
    return fill_vae(s, as, 4, true);
}

const at_bench_shape at_bench_shapes[] = {
    {"flux1-dev", "Flux.1 dev, 19 double and 38 single blocks", AT_PART_DENOISER, fill_flux_dev,
     .text_tokens = 512},
    {"flux1-schnell", "Flux.1 schnell", AT_PART_DENOISER, fill_flux_schnell, .text_tokens = 256},
    {"sd15", "Stable Diffusion 1.5's UNet", AT_PART_DENOISER, at_fill_sd15, .text_tokens = 77,
     .f16 = true},
    {"sd21", "Stable Diffusion 2.1's UNet", AT_PART_DENOISER, at_fill_sd21, .text_tokens = 77,
     .f16 = true},
    {"sdxl", "Stable Diffusion XL's UNet", AT_PART_DENOISER, at_fill_sdxl, .text_tokens = 77,
     .f16 = true},
    {"sdxl-refiner", "Stable Diffusion XL's refiner", AT_PART_DENOISER, at_fill_sdxl_refiner,
     .text_tokens = 77, .f16 = true},
    {"clip-l", "CLIP ViT-L/14 text encoder, 12 layers", AT_PART_TEXT, fill_clip_l,
     .text_tokens = 77, .f16 = true},
    {"t5-xxl", "T5 v1.1 XXL encoder, 24 blocks", AT_PART_TEXT, fill_t5_xxl, .text_tokens = 512},
    {"flux-vae", "Flux.1's autoencoder, decoding", AT_PART_VAE, fill_flux_vae},
    {"flux-vae-encode", "Flux.1's autoencoder, encoding", AT_PART_VAE, fill_flux_vae,
     .work = AT_BENCH_ENCODE},
    {"sd-vae", "Stable Diffusion's autoencoder, decoding", AT_PART_VAE, fill_sd_vae},
    {"sd-vae-encode", "Stable Diffusion's autoencoder, encoding", AT_PART_VAE, fill_sd_vae,
     .work = AT_BENCH_ENCODE},
};
const size_t at_bench_shape_count = sizeof at_bench_shapes / sizeof *at_bench_shapes;

const at_bench_shape *at_bench_shape_find(const char *name)
{
    for (size_t i = 0; i < at_bench_shape_count; i++)
        if (strcmp(at_bench_shapes[i].name, name) == 0) return &at_bench_shapes[i];
    return NULL;
}
