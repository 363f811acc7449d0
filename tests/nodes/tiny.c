// SPDX-License-Identifier: Apache-2.0
// tiny.c - writing the small models folder.
// Idea: a list of rows that grows: copies of a golden file's rows, and new rows of seeded noise; then
// at_st_write. Values depend on the tensor's name alone, so a checkpoint repeats the single files.
// Owns: a rows list owns its names and new bytes; copied rows borrow from stores that it holds.
#include "tiny.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "weight/safetensors.h"
#include "weight/store.h"

enum {
    CLIP_VOCAB = 834, // of tests/golden/tokens_clip
    T5_VOCAB = 512,   // tests/golden/tokens_t5_json has 385 and its added tokens
    CLIP_WIDTH = 128, // L, and G and H in checkpoints
    DEEP_WIDTH = 64,  // G and H in files of their own
    SIZES = 6 * 256,  // what SDXL is told of sizes
    T5_WIDTH = 64,
    FLUX_WIDTH = 64,
    VAE_WIDTH = 32,
    VAE_LEVELS = 4,
    MAX_ROWS = 1024,
    MAX_STORES = 8
};

typedef struct rows {
    at_st_out row[MAX_ROWS];
    void *own[MAX_ROWS]; // bytes of new rows
    size_t count;
    at_store *store[MAX_STORES];
    size_t stores;
    char prefix[64];
    at_status st; // sticky
} rows;

static void rows_free(rows *r)
{
    for (size_t i = 0; i < r->count; i++) {
        at_free((void *)r->row[i].name);
        at_free(r->own[i]);
    }
    for (size_t i = 0; i < r->stores; i++)
        at_store_release(&r->store[i]);
}

static at_st_out *row_new(rows *r, const char *name)
{
    if (r->st != AT_OK) return NULL;
    if (r->count == MAX_ROWS) {
        r->st = at_fail(AT_EINTERNAL, "tiny: more than %d tensors", MAX_ROWS);
        return NULL;
    }
    at_st_out *o = &r->row[r->count++];
    o->name = at_strprintf("%s%s", r->prefix, name);
    if (!o->name) r->st = at_fail(AT_ENOMEM, "tiny: no memory");
    return o;
}

// About normal values from the name: FNV-1a seeds an xorshift, three uniforms make a sample.
static void noise(const char *name, float *p, size_t n, float scale, float shift)
{
    uint64_t x = 0xcbf29ce484222325u;
    for (; *name; name++)
        x = (x ^ (unsigned char)*name) * 0x100000001b3u;
    for (size_t i = 0; i < n; i++) {
        float sum = -1.5f;
        for (int k = 0; k < 3; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            sum += (float)(x >> 40) * 0x1p-24f;
        }
        p[i] = 2.0f * sum * scale + shift;
    }
}

static void add(rows *r, const char *name, int rank, const int64_t *shape, float scale, float shift)
{
    at_st_out *o = row_new(r, name);
    size_t n = 1;
    if (!o) return;
    o->dtype = AT_F32;
    o->rank = rank;
    for (int i = 0; i < rank; i++) {
        o->shape[i] = shape[i];
        n *= (size_t)shape[i];
    }
    float *p = at_alloc(n * sizeof *p);
    r->own[r->count - 1] = p;
    o->data = p;
    if (!p)
        r->st = at_fail(AT_ENOMEM, "tiny: no memory");
    else
        noise(name, p, n, scale, shift);
}
static void matrix(rows *r, const char *name, int64_t out, int64_t in)
{
    add(r, name, 2, (int64_t[]){out, in}, 1.0f / sqrtf((float)in), 0);
}

// A golden case's model, held until the rows are freed; NULL after a failure.
static at_store *open_golden(rows *r, const char *golden, const char *name)
{
    char *path = at_strprintf("%s/%s/model.safetensors", golden, name);
    at_store *s = NULL;
    if (r->st == AT_OK) r->st = at_store_open(path, &s);
    at_free(path);
    if (s) r->store[r->stores++] = s;
    return s;
}

// Every row of a golden file but those called as in `skip`.
static void copy(rows *r, const char *golden, const char *name, const char *const *skip)
{
    at_store *s = open_golden(r, golden, name);
    if (!s) return;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        bool skipped = false;
        for (size_t k = 0; skip[k]; k++)
            skipped |= strcmp(skip[k], w->name) == 0;
        at_st_out *o = skipped ? NULL : row_new(r, w->name);
        if (!o) continue;
        o->dtype = w->dtype;
        o->rank = w->rank;
        memcpy(o->shape, w->shape, sizeof o->shape);
        o->data = w->data;
    }
}

// --- the models --------------------------------------------------------------------------------------
static void flux(rows *r, const char *golden, const char *name)
{
    copy(r, golden, name, (const char *[]){"txt_in.weight", "vector_in.in_layer.weight", NULL});
    matrix(r, "txt_in.weight", FLUX_WIDTH, T5_WIDTH);
    matrix(r, "vector_in.in_layer.weight", FLUX_WIDTH, CLIP_WIDTH);
}
// A golden UNet, its text width and its vector (0: none) brought to what our encoders give.
static void unet(rows *r, const char *golden, const char *name, int64_t text, int64_t vector)
{
    static const char *const texts[] = {"attn2.to_k.weight", "attn2.to_v.weight"};
    static const char label[] = "label_emb.0.0.weight";
    const char *skip[64] = {NULL};
    int64_t out[64];
    size_t n = 0;
    char *path = at_strprintf("%s/%s/model.safetensors", golden, name);
    at_store *s = NULL;
    if (r->st == AT_OK) r->st = at_store_open(path, &s);
    at_free(path);
    if (r->st != AT_OK) return;
    r->store[r->stores++] = s;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        for (int k = 0; k < 2 && n < sizeof skip / sizeof *skip - 1; k++)
            if (at_ends_with(w->name, texts[k])) {
                skip[n] = w->name;
                out[n++] = w->shape[0];
            }
    }
    const at_weight *w = vector ? at_store_find(s, label) : NULL;
    if (w) skip[n] = label;
    copy(r, golden, name, skip);
    for (size_t i = 0; i < n; i++)
        matrix(r, skip[i], out[i], text);
    if (w) matrix(r, label, w->shape[0], vector);
}
static void clip_l(rows *r, const char *golden)
{
    static const char table[] = "text_model.embeddings.token_embedding.weight";
    copy(r, golden, "clip_l", (const char *[]){table, NULL});
    add(r, table, 2, (int64_t[]){CLIP_VOCAB, CLIP_WIDTH}, 0.5f, 0);
}
// CLIP-G and CLIP-H in the layout of single files, and as checkpoints have them (with their prefix).
static void clip_deep(rows *r, const char *golden, const char *name)
{
    static const char table[] = "text_model.embeddings.token_embedding.weight";
    copy(r, golden, name, (const char *[]){table, NULL});
    add(r, table, 2, (int64_t[]){CLIP_VOCAB, DEEP_WIDTH}, 0.5f, 0);
}
static void clip_open(rows *r, const char *golden, const char *name, const char *place)
{
    char table[128];
    snprintf(table, sizeof table, "%stoken_embedding.weight", place);
    copy(r, golden, name, (const char *[]){table, NULL});
    add(r, table, 2, (int64_t[]){CLIP_VOCAB, CLIP_WIDTH}, 0.5f, 0);
}
static void t5(rows *r, const char *golden)
{
    copy(r, golden, "t5", (const char *[]){"shared.weight", "encoder.embed_tokens.weight", NULL});
    add(r, "shared.weight", 2, (int64_t[]){T5_VOCAB, T5_WIDTH}, 1.0f, 0);
}

static void conv(rows *r, const char *name, int64_t out, int64_t in, int64_t k, float gain)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    add(r, key, 4, (int64_t[]){out, in, k, k}, gain / sqrtf((float)(in * k * k)), 0);
    snprintf(key, sizeof key, "%s.bias", name);
    add(r, key, 1, &out, 0.05f, 0);
}
static void norm(rows *r, const char *name)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    add(r, key, 1, (int64_t[]){VAE_WIDTH}, 0.1f, 1);
    snprintf(key, sizeof key, "%s.bias", name);
    add(r, key, 1, (int64_t[]){VAE_WIDTH}, 0.1f, 0);
}
static void res(rows *r, const char *name)
{
    static const char *const norms[] = {"norm1", "norm2"}, *const convs[] = {"conv1", "conv2"};
    char key[96];
    for (int i = 0; i < 2; i++) {
        snprintf(key, sizeof key, "%s.%s", name, norms[i]);
        norm(r, key);
        snprintf(key, sizeof key, "%s.%s", name, convs[i]);
        conv(r, key, VAE_WIDTH, VAE_WIDTH, 3, 0.5f);
    }
}
static void mid(rows *r, const char *half)
{
    static const char *const parts[] = {"q", "k", "v", "proj_out"};
    char key[64];
    for (int i = 1; i <= 2; i++) {
        snprintf(key, sizeof key, "%s.mid.block_%d", half, i);
        res(r, key);
    }
    snprintf(key, sizeof key, "%s.mid.attn_1.norm", half);
    norm(r, key);
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s.mid.attn_1.%s", half, parts[i]);
        conv(r, key, VAE_WIDTH, VAE_WIDTH, 1, 0.5f);
    }
}
// An autoencoder of four levels, all 32 wide.
static void vae(rows *r)
{
    char key[64];
    conv(r, "encoder.conv_in", VAE_WIDTH, 3, 3, 1);
    conv(r, "decoder.conv_in", VAE_WIDTH, 16, 3, 1);
    for (int i = 0; i < VAE_LEVELS; i++) {
        for (int j = 0; j < 3; j++) {
            snprintf(key, sizeof key, "encoder.down.%d.block.%d", i, j);
            if (j < 2) res(r, key);
            snprintf(key, sizeof key, "decoder.up.%d.block.%d", i, j);
            res(r, key);
        }
        snprintf(key, sizeof key, "encoder.down.%d.downsample.conv", i);
        if (i < VAE_LEVELS - 1) conv(r, key, VAE_WIDTH, VAE_WIDTH, 3, 1);
        snprintf(key, sizeof key, "decoder.up.%d.upsample.conv", i);
        if (i > 0) conv(r, key, VAE_WIDTH, VAE_WIDTH, 3, 1);
    }
    mid(r, "encoder");
    mid(r, "decoder");
    norm(r, "encoder.norm_out");
    norm(r, "decoder.norm_out");
    conv(r, "encoder.conv_out", 32, VAE_WIDTH, 3, 1);
    conv(r, "decoder.conv_out", 3, VAE_WIDTH, 3, 0.7f);
}

// --- the folder --------------------------------------------------------------------------------------
typedef enum part {
    DEV = 1,
    SCHNELL = 2,
    CLIP = 4,
    T5 = 8,
    AE = 16,
    AE2 = 32,
    SD = 64,
    SD2 = 128,
    SDXL = 256,
    CLIP_G = 512,
    CLIP_H = 1024
} part;
typedef struct file_row {
    const char *path;
    unsigned parts;
    bool checkpoint; // keys under the checkpoint's prefixes
} file_row;
static const file_row files[] = {
    {"diffusion_models/tiny_dev.safetensors", DEV, false},
    {"diffusion_models/tiny_schnell.safetensors", SCHNELL, false},
    {"text_encoders/tiny_clip_l.safetensors", CLIP, false},
    {"text_encoders/tiny_t5.safetensors", T5, false},
    {"vae/tiny_ae.safetensors", AE, false},
    {"vae/tiny_ae2.safetensors", AE2, false},
    {"checkpoints/tiny_full.safetensors", DEV | CLIP | T5 | AE, true},
    {"checkpoints/tiny_model_only.safetensors", DEV, true},
    {"text_encoders/tiny_clip_g.safetensors", CLIP_G, false},
    {"text_encoders/tiny_clip_h.safetensors", CLIP_H, false},
    {"checkpoints/tiny_sd15.safetensors", SD, true},
    {"checkpoints/tiny_sd2.safetensors", SD2, true},
    {"checkpoints/tiny_sdxl.safetensors", SDXL, true},
};

static void prefix(rows *r, const file_row *f, const char *text)
{
    snprintf(r->prefix, sizeof r->prefix, "%s", f->checkpoint ? text : "");
}

// A checkpoint of Stable Diffusion 1, 2 or XL.
static void diffusion(rows *r, const char *golden, unsigned parts)
{
    static const char g[] = "conditioner.embedders.1.model.", h[] = "cond_stage_model.model.";
    const char *clip_l_at = parts & SDXL ? "conditioner.embedders.0." : "cond_stage_model.";

    snprintf(r->prefix, sizeof r->prefix, "model.diffusion_model.");
    if (parts & SD) unet(r, golden, "unet_sd15", CLIP_WIDTH, 0);
    if (parts & SD2) unet(r, golden, "unet_sd2", CLIP_WIDTH, 0);
    if (parts & SDXL) unet(r, golden, "unet_sdxl", 2 * CLIP_WIDTH, CLIP_WIDTH + SIZES);
    snprintf(r->prefix, sizeof r->prefix, "%stransformer.", clip_l_at);
    if (parts & (SD | SDXL)) clip_l(r, golden);
    r->prefix[0] = 0;
    if (parts & SD2) clip_open(r, golden, "clip_h_open", h);
    if (parts & SDXL) clip_open(r, golden, "clip_g_open", g);
    snprintf(r->prefix, sizeof r->prefix, "first_stage_model.");
    copy(r, golden, "vae_sd_decode", (const char *[]){NULL});
}

static at_status write_file(const char *golden, const char *dir, const file_row *f)
{
    rows *r = at_calloc(1, sizeof *r);
    if (!r) return at_fail(AT_ENOMEM, "tiny: no memory");
    prefix(r, f, "model.diffusion_model.");
    if (f->parts & DEV) flux(r, golden, "flux_dev");
    if (f->parts & SCHNELL) flux(r, golden, "flux_schnell");
    prefix(r, f, "text_encoders.clip_l.transformer.");
    if (f->parts & CLIP) clip_l(r, golden);
    prefix(r, f, "text_encoders.t5xxl.transformer.");
    if (f->parts & T5) t5(r, golden);
    prefix(r, f, "vae.");
    if (f->parts & AE) vae(r);
    if (f->parts & (SD | SD2 | SDXL)) diffusion(r, golden, f->parts);
    if (f->parts & CLIP_G) clip_deep(r, golden, "clip_g");
    if (f->parts & CLIP_H) clip_deep(r, golden, "clip_h");
    if (f->parts & AE2) copy(r, golden, "vae_flux_decode", (const char *[]){NULL});
    at_status st = r->st;
    char *path = at_path_join(dir, f->path);
    if (st == AT_OK && !path) st = at_fail(AT_ENOMEM, "tiny: no memory");
    if (st == AT_OK) st = at_st_write(path, r->row, r->count, NULL, 0);
    at_free(path);
    rows_free(r);
    at_free(r);
    return st;
}

static at_status copy_file(const char *golden, const char *from, const char *dir, const char *to)
{
    at_status st = AT_OK;
    char *source = at_path_join(golden, from), *target = at_path_join(dir, to), *folder = NULL;
    char *bytes = NULL;
    size_t n = 0;
    at_atomic_file *f = NULL;

    folder = target ? at_path_dir(target) : NULL;
    if (!source || !folder) AT_TRY(at_fail(AT_ENOMEM, "tiny: no memory"));
    AT_TRY(at_make_dirs(folder));
    AT_TRY(at_file_read(source, 1u << 24, &bytes, &n));
    AT_TRY(at_atomic_open(target, &f));
    AT_TRY(at_atomic_write(f, bytes, n));
    AT_TRY(at_atomic_commit(&f));
out:
    at_atomic_abort(&f);
    at_free(bytes);
    at_free(source);
    at_free(target);
    at_free(folder);
    return st;
}

at_status tiny_models_make(const char *golden, const char *dir)
{
    static const char *const folders[] = {"diffusion_models", "text_encoders", "vae",
                                          "checkpoints"};
    static const char *const vocabularies[][2] = {
        {"tokens_clip/vocab.json", "text_encoders/tiny_clip_l/vocab.json"},
        {"tokens_clip/merges.txt", "text_encoders/tiny_clip_l/merges.txt"},
        {"tokens_t5_json/tokenizer.json", "text_encoders/tiny_t5/tokenizer.json"},
        {"tokens_clip/vocab.json", "text_encoders/tiny_clip_g/vocab.json"},
        {"tokens_clip/merges.txt", "text_encoders/tiny_clip_g/merges.txt"},
        {"tokens_clip/vocab.json", "text_encoders/tiny_clip_h/vocab.json"},
        {"tokens_clip/merges.txt", "text_encoders/tiny_clip_h/merges.txt"},
        {"tokens_clip/vocab.json", "tokenizers/clip_l/vocab.json"},
        {"tokens_clip/merges.txt", "tokenizers/clip_l/merges.txt"},
        {"tokens_t5_json/tokenizer.json", "tokenizers/t5/tokenizer.json"},
    };
    at_status st = AT_OK;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *path = at_path_join(dir, folders[i]);
        st = path ? at_make_dirs(path) : at_fail(AT_ENOMEM, "tiny: no memory");
        at_free(path);
        AT_TRY(st);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        AT_TRY(write_file(golden, dir, &files[i]));
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++)
        AT_TRY(copy_file(golden, vocabularies[i][0], dir, vocabularies[i][1]));
out:
    return st;
}
