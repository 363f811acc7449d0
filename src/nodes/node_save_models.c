// SPDX-License-Identifier: Apache-2.0
// node_save_models.c - CheckpointSave, ModelSave, CLIPSave, VAESave.
// Idea: a file is rows of names: the network below "model.diffusion_model.", text encoders as the kind
// of CLIP wants them in a checkpoint, the VAE below its prefix; metadata is the workflow and what
// Stability's model specification asks for.
// Easy to get wrong: SD2's and SDXL's big encoders go back to OpenCLIP's layout (q, k and v joined, the
// projection turned); every encoder carries a logit_scale that no file of its own has; CLIPSave makes
// one file per encoder.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_model_merging.py, comfy/supported_models.py
// process_clip_state_dict_for_saving, comfy/diffusers_convert.py (behaviour and names).
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/model_file.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/saving.h"

#define LOGIT_SCALE 4.6055 // what CLIP was trained to; ComfyUI never reads it from a file

// --- text encoders -----------------------------------------------------------------------------------
static const char *const places[AT_TE_COUNT] = {
    [AT_TE_L] = "clip_l", [AT_TE_G] = "clip_g", [AT_TE_H] = "clip_h", [AT_TE_T5] = "t5xxl"};

static bool is_position_ids(const char *key)
{
    return at_ends_with(key, ".position_ids") || at_ends_with(key, "logit_scale");
}

static bool is_projection_too(const char *key)
{
    return is_position_ids(key) || !strcmp(key, "text_projection.weight");
}

static bool is_second_table(const char *key)
{
    return !strcmp(key, "encoder.embed_tokens.weight") || is_position_ids(key);
}

static void put_scale(at_model_file *f, const char *to)
{
    char name[128];

    snprintf(name, sizeof name, "%slogit_scale", to);
    at_model_file_put(f, name, AT_F32, 0, NULL, (const double[]){LOGIT_SCALE}, 1);
}

// A CLIP without a projection of its own has the identity, as ComfyUI's module does.
static void put_identity(at_model_file *f, const at_encoder *e, const char *to)
{
    int64_t n = at_encoder_width(e);
    double *eye = at_calloc((size_t)(n * n), sizeof *eye);
    char name[128];

    f->failed |= !eye;
    if (!eye) return;
    for (int64_t i = 0; i < n; i++)
        eye[i * n + i] = 1;
    snprintf(name, sizeof name, "%stransformer.text_projection.weight", to);
    at_model_file_put(f, name, AT_F32, 2, (int64_t[]){n, n}, eye, (size_t)(n * n));
    at_free(eye);
}

// `to` + "transformer." + key, and what ComfyUI's module holds beside.
static void add_plain(at_model_file *f, const at_encoder *e, at_te place, const char *to)
{
    at_store *s = at_encoder_store(e);
    const char *prefix = at_encoder_prefix(e);
    char below[96];

    snprintf(below, sizeof below, "%stransformer.", to);
    at_model_file_add_all(f, s, prefix, below,
                          place == AT_TE_T5 ? is_second_table : is_position_ids);
    put_scale(f, to);
    if (place != AT_TE_T5 && !at_store_findf(s, "%stext_projection.weight", prefix))
        put_identity(f, e, to);
}

// OpenCLIP's name of a key, "" if it is joined with others or has none.
static void open_name(const char *key, char out[160])
{
    static const struct {
        const char *usual, *open;
    } outer[] = {
        {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
        {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
        {"text_model.final_layer_norm.weight", "ln_final.weight"},
        {"text_model.final_layer_norm.bias", "ln_final.bias"},
    };
    static const struct {
        const char *usual, *open;
    } inner[] = {{"layer_norm1.", "ln_1."},
                 {"layer_norm2.", "ln_2."},
                 {"mlp.fc1.", "mlp.c_fc."},
                 {"mlp.fc2.", "mlp.c_proj."},
                 {"self_attn.out_proj.", "attn.out_proj."}};
    int layer = 0, end = -1;

    *out = '\0';
    for (size_t i = 0; i < AT_COUNT(outer); i++)
        if (!strcmp(key, outer[i].usual)) snprintf(out, 160, "%s", outer[i].open);
    if (*out || sscanf(key, "text_model.encoder.layers.%d.%n", &layer, &end) < 1 || end < 0) return;
    for (size_t i = 0; i < AT_COUNT(inner); i++)
        if (at_starts_with(key + end, inner[i].usual))
            snprintf(out, 160, "transformer.resblocks.%d.%s%.60s", layer, inner[i].open,
                     key + end + strlen(inner[i].usual));
}

static void join_qkv(at_model_file *f, at_store *s, const char *prefix, const char *to)
{
    static const char *const kinds[] = {"weight", "bias"};
    char name[160];

    for (int layer = 0; layer < 1000; layer++) {
        for (int k = 0; k < 2; k++) {
            const at_weight *w[3];
            for (int i = 0; i < 3; i++)
                w[i] = at_store_findf(s, "%stext_model.encoder.layers.%d.self_attn.%c_proj.%s",
                                      prefix, layer, "qkv"[i], kinds[k]);
            if (!w[0] || !w[1] || !w[2]) return;
            snprintf(name, sizeof name, "%stransformer.resblocks.%d.attn.in_proj_%s", to, layer,
                     kinds[k]);
            at_model_file_join(f, name, w);
        }
    }
}

static void add_open(at_model_file *f, const at_encoder *e, const char *to)
{
    at_store *s = at_encoder_store(e);
    const char *prefix = at_encoder_prefix(e);
    size_t skip = strlen(prefix);
    const at_weight *projection = at_store_findf(s, "%stext_projection.weight", prefix);
    char open[160], name[256];

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (strncmp(w->name, prefix, skip) != 0) continue;
        open_name(w->name + skip, open);
        if (!*open) continue;
        snprintf(name, sizeof name, "%s%s", to, open);
        at_model_file_add(f, name, w, false);
    }
    join_qkv(f, s, prefix, to);
    snprintf(name, sizeof name, "%stext_projection", to);
    if (projection) at_model_file_add(f, name, projection, true);
    put_scale(f, to);
}

// SDXL's checkpoints carry CLIP-L's position numbers.
static void put_positions(at_model_file *f, const char *name)
{
    double ids[77];

    for (int i = 0; i < 77; i++)
        ids[i] = i;
    at_model_file_put(f, name, AT_I64, 2, (int64_t[]){1, 77}, ids, 77);
}

// All encoders as a checkpoint of this kind holds them.
static void add_clip(at_model_file *f, const at_obj_clip *clip)
{
    const at_clip_encoder *enc = clip->enc;

    switch (clip->kind) {
    case AT_CLIP_SD1:
        if (enc[AT_TE_L].encoder)
            at_model_file_add_all(f, at_encoder_store(enc[AT_TE_L].encoder),
                                  at_encoder_prefix(enc[AT_TE_L].encoder),
                                  "cond_stage_model.transformer.", is_projection_too);
        return;
    case AT_CLIP_SD2:
        if (enc[AT_TE_H].encoder) add_open(f, enc[AT_TE_H].encoder, "cond_stage_model.model.");
        return;
    case AT_CLIP_REFINER:
        if (enc[AT_TE_G].encoder)
            add_open(f, enc[AT_TE_G].encoder, "conditioner.embedders.0.model.");
        return;
    case AT_CLIP_SDXL:
        if (enc[AT_TE_G].encoder)
            add_open(f, enc[AT_TE_G].encoder, "conditioner.embedders.1.model.");
        if (enc[AT_TE_L].encoder)
            at_model_file_add_all(f, at_encoder_store(enc[AT_TE_L].encoder),
                                  at_encoder_prefix(enc[AT_TE_L].encoder),
                                  "conditioner.embedders.0.transformer.", is_projection_too);
        put_positions(f, "conditioner.embedders.0.transformer.text_model.embeddings.position_ids");
        return;
    default: break;
    }
    for (int i = 0; i < AT_TE_COUNT; i++) {
        char to[64];
        snprintf(to, sizeof to, "text_encoders.%s.", places[i]);
        if (enc[i].encoder) add_plain(f, enc[i].encoder, (at_te)i, to);
    }
}

// --- metadata ----------------------------------------------------------------------------------------
enum { META = AT_SAVER_TEXTS + 8 };
typedef struct metadata {
    at_st_pair row[META];
    size_t count;
} metadata;

static void meta_add(metadata *m, const char *key, const char *value)
{
    for (size_t i = 0; i < m->count; i++)
        if (!strcmp(m->row[i].key, key)) {
            m->row[i].value = value;
            return;
        }
    if (m->count < META) m->row[m->count++] = (at_st_pair){key, value};
}

static void meta_workflow(metadata *m, const at_saver *s, const at_node_ctx *c)
{
    at_st_pair rows[AT_SAVER_TEXTS + 1];
    size_t n = at_saver_metadata(s, c, rows);
    for (size_t i = 0; i < n; i++)
        meta_add(m, rows[i].key, rows[i].value);
}

// Stability's model specification, for the families that ComfyUI names.
static void meta_model(metadata *m, const at_model *model, const char *title, at_model_file *f)
{
    static const struct {
        const char *arch, *spec;
    } specs[] = {{"sdxl", "stable-diffusion-xl-v1-base"},
                 {"sdxl_ip2p", "stable-diffusion-xl-v1-edit"},
                 {"sdxl_inpaint", "stable-diffusion-xl-v1-base"},
                 {"cosxl_edit", "stable-diffusion-xl-v1-edit"},
                 {"playground25", "stable-diffusion-xl-v1-base"},
                 {"ssd1b", "stable-diffusion-xl-v1-base"},
                 {"vega", "stable-diffusion-xl-v1-base"},
                 {"koala_700m", "stable-diffusion-xl-v1-base"},
                 {"koala_1b", "stable-diffusion-xl-v1-base"},
                 {"sdxl_refiner", "stable-diffusion-xl-v1-refiner"}};
    const at_model_sampling *ms = at_model_get_sampling(model);
    const char *arch = at_arch_name(at_model_arch(model));

    for (size_t i = 0; i < AT_COUNT(specs); i++) {
        if (strcmp(specs[i].arch, arch) != 0) continue;
        meta_add(m, "modelspec.architecture", specs[i].spec);
        meta_add(m, "modelspec.sai_model_spec", "1.0.0");
        meta_add(m, "modelspec.implementation", "sgm");
        meta_add(m, "modelspec.title", title);
    }
    if (ms->prediction == AT_PRED_EPS) meta_add(m, "modelspec.predict_key", "epsilon");
    if (ms->prediction != AT_PRED_V) return;
    if (ms->kind == AT_SIGMA_CONTINUOUS_EDM) {
        at_model_file_put(f, "edm_vpred.sigma_max", AT_F32, 0, NULL, &ms->sigma_max, 1);
        at_model_file_put(f, "edm_vpred.sigma_min", AT_F32, 0, NULL, &ms->sigma_min, 1);
        return;
    }
    meta_add(m, "modelspec.predict_key", "v");
    at_model_file_put(f, "v_pred", AT_F32, 1, (int64_t[]){0}, NULL, 0);
    if (ms->zsnr) at_model_file_put(f, "ztsnr", AT_F32, 1, (int64_t[]){0}, NULL, 0);
}

// Writes and frees `f`.
static at_status finish(at_saver *s, at_model_file *f, const metadata *m)
{
    char *name = NULL, *path = NULL;
    at_status st = AT_OK;

    AT_TRY(at_saver_name(s, 0, ".safetensors", &name, &path));
    AT_TRY(at_model_file_write(f, path, m->row, m->count));
out:
    at_free(name);
    at_free(path);
    at_model_file_free(f);
    return at_fail_context(st, "%s: ", s->node);
}

// --- CheckpointSave, ModelSave -----------------------------------------------------------------------
typedef struct save_in {
    at_object *model, *clip, *vae;
    const char *filename_prefix, *prompt, *extra_pnginfo;
} save_in;

static at_status save_model(at_node_ctx *c, const char *node, const save_in *in)
{
    const at_obj_model *model = (const at_obj_model *)in->model;
    at_saver s = {0};
    at_model_file f = {0};
    metadata m = {0};
    char title[320];
    at_status st = AT_OK;

    if (!model) AT_TRY(at_fail(AT_EINVAL, "%s: the model input is None", node));
    AT_TRY(at_saver_open(&s, c, node, false, in->filename_prefix, 0, 0, in->prompt,
                         in->extra_pnginfo));
    at_model_file_add_all(&f, at_model_store(model->model), at_model_prefix(model->model),
                          "model.diffusion_model.", NULL);
    if (in->clip) add_clip(&f, (const at_obj_clip *)in->clip);
    if (in->vae) {
        const at_vae *vae = ((const at_obj_vae *)in->vae)->vae;
        bool sd = at_model_latent(model->model)->channels == 4;
        at_model_file_add_all(&f, at_vae_store(vae), at_vae_prefix(vae),
                              sd ? "first_stage_model." : "vae.", NULL);
    }
    snprintf(title, sizeof title, "%.250s %d", s.where.filename, s.where.counter);
    meta_model(&m, model->model, title, &f);
    meta_workflow(&m, &s, c);
    AT_TRY(finish(&s, &f, &m));
out:
    at_model_file_free(&f);
    at_saver_close(&s);
    return st;
}

#define HIDDEN                                                                                     \
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"), AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO")
#define PREFIX(text) AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = text)
static const at_in checkpoint_rows[] = {
    AT_ROW_LINK_BARE(save_in, model, "MODEL"), AT_ROW_LINK_BARE(save_in, clip, "CLIP"),
    AT_ROW_LINK_BARE(save_in, vae, "VAE"), PREFIX("checkpoints/ComfyUI"), HIDDEN};
static const at_in model_rows[] = {AT_ROW_LINK_BARE(save_in, model, "MODEL"),
                                   PREFIX("diffusion_models/ComfyUI"), HIDDEN};
static const at_in clip_rows[] = {AT_ROW_LINK_BARE(save_in, clip, "CLIP"), PREFIX("clip/ComfyUI"),
                                  HIDDEN};
static const at_in vae_rows[] = {AT_ROW_LINK_BARE(save_in, vae, "VAE"), PREFIX("vae/ComfyUI_vae"),
                                 HIDDEN};

static at_status checkpoint_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    return save_model(c, "CheckpointSave", in);
}

static at_status model_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    return save_model(c, "ModelSave", in);
}

// --- CLIPSave, VAESave -------------------------------------------------------------------------------
static at_status save_encoder(at_node_ctx *c, const save_in *in, const at_encoder *e, at_te place)
{
    char *prefix = at_strprintf("%s_%s", in->filename_prefix, places[place]);
    at_saver s = {0};
    at_model_file f = {0};
    metadata m = {0};
    at_status st = AT_OK;

    if (!prefix) AT_TRY(at_fail(AT_ENOMEM, "CLIPSave: no memory"));
    AT_TRY(at_saver_open(&s, c, "CLIPSave", false, prefix, 0, 0, in->prompt, in->extra_pnginfo));
    at_model_file_add_all(&f, at_encoder_store(e), at_encoder_prefix(e), "",
                          place == AT_TE_T5 ? is_second_table : is_position_ids);
    put_scale(&f, "");
    if (!at_env_of(c)->disable_metadata) meta_add(&m, "format", "pt");
    meta_workflow(&m, &s, c);
    AT_TRY(finish(&s, &f, &m));
out:
    at_model_file_free(&f);
    at_saver_close(&s);
    at_free(prefix);
    return st;
}

static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    const save_in *i = in;
    const at_obj_clip *clip = (const at_obj_clip *)i->clip;
    at_status st = AT_OK;

    (void)out;
    if (!clip) AT_TRY(at_fail(AT_EINVAL, "CLIPSave: the clip input is None"));
    for (int k = 0; k < AT_TE_COUNT; k++)
        if (clip->enc[k].encoder) AT_TRY(save_encoder(c, i, clip->enc[k].encoder, (at_te)k));
out:
    return st;
}

static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    const save_in *i = in;
    at_saver s = {0};
    at_model_file f = {0};
    metadata m = {0};
    at_status st = AT_OK;

    (void)out;
    if (!i->vae) AT_TRY(at_fail(AT_EINVAL, "VAESave: the vae input is None"));
    const at_vae *vae = ((const at_obj_vae *)i->vae)->vae;
    AT_TRY(at_saver_open(&s, c, "VAESave", false, i->filename_prefix, 0, 0, i->prompt,
                         i->extra_pnginfo));
    at_model_file_add_all(&f, at_vae_store(vae), at_vae_prefix(vae), "", NULL);
    meta_workflow(&m, &s, c);
    AT_TRY(finish(&s, &f, &m));
out:
    at_model_file_free(&f);
    at_saver_close(&s);
    return st;
}

#define SAVE_NODE(id, name, title, rows, fn)                                                       \
    static const at_node id = {.class_type = name,                                                 \
                               .display = title,                                                   \
                               .category = "advanced/model_merging",                               \
                               .python_module = "comfy_extras.nodes_model_merging",                \
                               .flags = AT_NODE_OUTPUT,                                            \
                               .in = rows,                                                         \
                               .n_in = AT_COUNT(rows),                                             \
                               .in_size = sizeof(save_in),                                         \
                               .run = fn}
SAVE_NODE(node_checkpoint, "CheckpointSave", "Save Checkpoint", checkpoint_rows, checkpoint_run);
SAVE_NODE(node_model, "ModelSave", "ModelSave", model_rows, model_run);
SAVE_NODE(node_clip, "CLIPSave", "CLIPSave", clip_rows, clip_run);
SAVE_NODE(node_vae, "VAESave", "VAESave", vae_rows, vae_run);

const at_node *const at_nodes_save_models[] = {&node_checkpoint, &node_model, &node_clip, &node_vae,
                                               NULL};
