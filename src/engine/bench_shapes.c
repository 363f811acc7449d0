// SPDX-License-Identifier: Apache-2.0
// bench_shapes.c - true shapes of the models that bench knows, filled with noise.
// Sources: the public configs of FLUX.1, CLIP ViT-L/14, T5 v1.1 XXL and FLUX's autoencoder.
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "engine/bench.h"

typedef struct noise {
    uint64_t state;
    at_dtype dtype;
    float scale, shift;
} noise;

// About normal (sum of four uniforms): shapes time like trained weights, zeros would not.
static float draw(noise *n)
{
    uint64_t x = n->state;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    n->state = x;
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)((x >> (16 * i)) & 0xffff) * (1.0f / 65536.0f);
    return (sum - 2.0f) * 1.7320508f * n->scale + n->shift;
}

static void fill_noise(void *ctx, void *bytes, size_t size)
{
    noise *n = ctx;
    size_t width = at_dtype_size(n->dtype);
    uint8_t *p = bytes;
    for (size_t i = 0; i + width <= size; i += width) {
        float v = draw(n);
        switch (n->dtype) {
        case AT_F32: memcpy(p + i, &v, 4); break;
        case AT_BF16: memcpy(p + i, &(uint16_t){at_f32_to_bf16(v)}, 2); break;
        case AT_F16: memcpy(p + i, &(uint16_t){at_f32_to_f16(v)}, 2); break;
        case AT_F8E4M3: p[i] = at_f32_to_f8e4m3(v); break;
        case AT_F8E5M2: p[i] = at_f32_to_f8e5m2(v); break;
        default: break;
        }
    }
}

// Adds records with a sticky status, so that a list of shapes reads as a list.
typedef struct filler {
    at_store *store;
    at_dtype dtype;
    noise n;
    at_status st;
    char prefix[64];
} filler;

static void add(filler *f, const char *name, int rank, const int64_t *shape, float scale,
                float shift)
{
    char key[192];
    if (f->st != AT_OK) return;
    snprintf(key, sizeof key, "%s%s", f->prefix, name);
    f->n.dtype = f->dtype;
    f->n.scale = scale;
    f->n.shift = shift;
    f->st = at_store_add(f->store, key, f->dtype, rank, shape, fill_noise, &f->n);
}
static void matrix(filler *f, const char *name, int64_t rows, int64_t cols)
{
    add(f, name, 2, (int64_t[]){rows, cols}, 0.02f, 0.0f);
}
static void vector(filler *f, const char *name, int64_t n, float shift)
{
    add(f, name, 1, &n, 0.02f, shift);
}
static void linear(filler *f, const char *name, int64_t rows, int64_t cols)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    matrix(f, key, rows, cols);
    snprintf(key, sizeof key, "%s.bias", name);
    vector(f, key, rows, 0.0f);
}
static void affine(filler *f, const char *name, int64_t n)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    vector(f, key, n, 1.0f);
    snprintf(key, sizeof key, "%s.bias", name);
    vector(f, key, n, 0.0f);
}
static void conv(filler *f, const char *name, int64_t out, int64_t in, int64_t k)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    add(f, key, 4, (int64_t[]){out, in, k, k}, 0.02f, 0.0f);
    snprintf(key, sizeof key, "%s.bias", name);
    vector(f, key, out, 0.0f);
}
static filler filler_start(at_store *s, at_dtype dtype)
{
    return (filler){.store = s, .dtype = dtype, .n = {.state = 0x9e3779b97f4a7c15u}};
}

at_status at_bench_add_matrix(at_store *s, const char *name, at_dtype storage, int64_t rows,
                              int64_t cols)
{
    filler f = filler_start(s, storage);
    matrix(&f, name, rows, cols);
    return f.st;
}

// --- FLUX.1 ------------------------------------------------------------------------------------------
enum { FLUX_D = 3072, FLUX_HEAD = 128, FLUX_TEXT = 4096, FLUX_VEC = 768 };

static void flux_stream(filler *f, const char *side)
{
    char name[64];
#define SIDE(suffix) (snprintf(name, sizeof name, "%s_" suffix, side), name)
    linear(f, SIDE("mod.lin"), 6 * FLUX_D, FLUX_D);
    linear(f, SIDE("attn.qkv"), 3 * FLUX_D, FLUX_D);
    vector(f, SIDE("attn.norm.query_norm.scale"), FLUX_HEAD, 1.0f);
    vector(f, SIDE("attn.norm.key_norm.scale"), FLUX_HEAD, 1.0f);
    linear(f, SIDE("attn.proj"), FLUX_D, FLUX_D);
    linear(f, SIDE("mlp.0"), 4 * FLUX_D, FLUX_D);
    linear(f, SIDE("mlp.2"), FLUX_D, 4 * FLUX_D);
#undef SIDE
}

static void embedder(filler *f, const char *name, int64_t in)
{
    char key[64];
    snprintf(key, sizeof key, "%s.in_layer", name);
    linear(f, key, FLUX_D, in);
    snprintf(key, sizeof key, "%s.out_layer", name);
    linear(f, key, FLUX_D, FLUX_D);
}

static at_status fill_flux(at_store *s, at_dtype dtype, int doubles, int singles, bool guidance)
{
    filler f = filler_start(s, dtype);
    linear(&f, "img_in", FLUX_D, 64);
    linear(&f, "txt_in", FLUX_D, FLUX_TEXT);
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
        linear(&f, "linear1", 7 * FLUX_D, FLUX_D);
        linear(&f, "linear2", FLUX_D, 5 * FLUX_D);
        vector(&f, "norm.query_norm.scale", FLUX_HEAD, 1.0f);
        vector(&f, "norm.key_norm.scale", FLUX_HEAD, 1.0f);
        linear(&f, "modulation.lin", 3 * FLUX_D, FLUX_D);
    }
    f.prefix[0] = 0;
    linear(&f, "final_layer.linear", 64, FLUX_D);
    linear(&f, "final_layer.adaLN_modulation.1", 2 * FLUX_D, FLUX_D);
    return f.st;
}
static at_status fill_flux_dev(at_store *s, at_dtype dtype, int doubles, int singles)
{
    return fill_flux(s, dtype, doubles < 0 ? 19 : doubles, singles < 0 ? 38 : singles, true);
}
static at_status fill_flux_schnell(at_store *s, at_dtype dtype, int doubles, int singles)
{
    return fill_flux(s, dtype, doubles < 0 ? 19 : doubles, singles < 0 ? 38 : singles, false);
}

// --- text encoders -----------------------------------------------------------------------------------
static at_status fill_clip_l(at_store *s, at_dtype dtype, int doubles, int singles)
{
    (void)singles;
    filler f = filler_start(s, dtype);
    snprintf(f.prefix, sizeof f.prefix, "text_model.");
    matrix(&f, "embeddings.token_embedding.weight", 49408, 768);
    matrix(&f, "embeddings.position_embedding.weight", 77, 768);
    for (int i = 0; i < (doubles < 0 ? 12 : doubles); i++) {
        snprintf(f.prefix, sizeof f.prefix, "text_model.encoder.layers.%d.", i);
        linear(&f, "self_attn.q_proj", 768, 768);
        linear(&f, "self_attn.k_proj", 768, 768);
        linear(&f, "self_attn.v_proj", 768, 768);
        linear(&f, "self_attn.out_proj", 768, 768);
        linear(&f, "mlp.fc1", 3072, 768);
        linear(&f, "mlp.fc2", 768, 3072);
        affine(&f, "layer_norm1", 768);
        affine(&f, "layer_norm2", 768);
    }
    snprintf(f.prefix, sizeof f.prefix, "text_model.");
    affine(&f, "final_layer_norm", 768);
    return f.st;
}

static at_status fill_t5_xxl(at_store *s, at_dtype dtype, int doubles, int singles)
{
    (void)singles;
    filler f = filler_start(s, dtype);
    matrix(&f, "shared.weight", 32128, 4096);
    for (int i = 0; i < (doubles < 0 ? 24 : doubles); i++) {
        snprintf(f.prefix, sizeof f.prefix, "encoder.block.%d.", i);
        for (const char *p = "qkvo"; *p; p++) {
            char name[64];
            snprintf(name, sizeof name, "layer.0.SelfAttention.%c.weight", *p);
            matrix(&f, name, 4096, 4096);
        }
        if (i == 0) matrix(&f, "layer.0.SelfAttention.relative_attention_bias.weight", 32, 64);
        vector(&f, "layer.0.layer_norm.weight", 4096, 1.0f);
        matrix(&f, "layer.1.DenseReluDense.wi_0.weight", 10240, 4096);
        matrix(&f, "layer.1.DenseReluDense.wi_1.weight", 10240, 4096);
        matrix(&f, "layer.1.DenseReluDense.wo.weight", 4096, 10240);
        vector(&f, "layer.1.layer_norm.weight", 4096, 1.0f);
    }
    f.prefix[0] = 0;
    vector(&f, "encoder.final_layer_norm.weight", 4096, 1.0f);
    return f.st;
}

// --- FLUX's autoencoder ------------------------------------------------------------------------------
static void res_block(filler *f, const char *name, int64_t in, int64_t out)
{
    char key[96];
#define PART(suffix) (snprintf(key, sizeof key, "%s." suffix, name), key)
    affine(f, PART("norm1"), in);
    conv(f, PART("conv1"), out, in, 3);
    affine(f, PART("norm2"), out);
    conv(f, PART("conv2"), out, out, 3);
    if (in != out) conv(f, PART("nin_shortcut"), out, in, 1);
#undef PART
}
static void vae_mid(filler *f)
{
    res_block(f, "mid.block_1", 512, 512);
    affine(f, "mid.attn_1.norm", 512);
    conv(f, "mid.attn_1.q", 512, 512, 1);
    conv(f, "mid.attn_1.k", 512, 512, 1);
    conv(f, "mid.attn_1.v", 512, 512, 1);
    conv(f, "mid.attn_1.proj_out", 512, 512, 1);
    res_block(f, "mid.block_2", 512, 512);
}
static at_status fill_flux_vae(at_store *s, at_dtype dtype, int doubles, int singles)
{
    (void)doubles, (void)singles;
    static const int64_t width[4] = {128, 256, 512, 512};
    filler f = filler_start(s, dtype);
    char key[64];
    snprintf(f.prefix, sizeof f.prefix, "encoder.");
    conv(&f, "conv_in", 128, 3, 3);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            snprintf(key, sizeof key, "down.%d.block.%d", i, j);
            res_block(&f, key, j == 0 && i ? width[i - 1] : width[i], width[i]);
        }
        snprintf(key, sizeof key, "down.%d.downsample.conv", i);
        if (i < 3) conv(&f, key, width[i], width[i], 3);
    }
    vae_mid(&f);
    affine(&f, "norm_out", 512);
    conv(&f, "conv_out", 32, 512, 3);
    snprintf(f.prefix, sizeof f.prefix, "decoder.");
    conv(&f, "conv_in", 512, 16, 3);
    vae_mid(&f);
    for (int i = 3; i >= 0; i--) {
        for (int j = 0; j < 3; j++) {
            snprintf(key, sizeof key, "up.%d.block.%d", i, j);
            res_block(&f, key, j == 0 && i < 3 ? width[i + 1] : width[i], width[i]);
        }
        snprintf(key, sizeof key, "up.%d.upsample.conv", i);
        if (i > 0) conv(&f, key, width[i], width[i], 3);
    }
    affine(&f, "norm_out", 128);
    conv(&f, "conv_out", 3, 128, 3);
    return f.st;
}

const at_bench_shape at_bench_shapes[] = {
    {"flux1-dev", "Flux.1 dev, 19 double and 38 single blocks", AT_PART_DENOISER, fill_flux_dev},
    {"flux1-schnell", "Flux.1 schnell", AT_PART_DENOISER, fill_flux_schnell},
    {"clip-l", "CLIP ViT-L/14 text encoder, 12 layers", AT_PART_TEXT, fill_clip_l},
    {"t5-xxl", "T5 v1.1 XXL encoder, 24 blocks", AT_PART_TEXT, fill_t5_xxl},
    {"flux-vae", "Flux.1's autoencoder, decoding", AT_PART_VAE, fill_flux_vae},
};
const size_t at_bench_shape_count = sizeof at_bench_shapes / sizeof *at_bench_shapes;

const at_bench_shape *at_bench_shape_find(const char *name)
{
    for (size_t i = 0; i < at_bench_shape_count; i++)
        if (strcmp(at_bench_shapes[i].name, name) == 0) return &at_bench_shapes[i];
    return NULL;
}
