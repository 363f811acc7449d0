// SPDX-License-Identifier: Apache-2.0
// photomaker.c - PhotoMaker (Li et al. 2023, arXiv:2312.04461), the first version.
// Idea: the file holds CLIP ViT-L's picture encoder under its usual keys, which the row of
// clip_vision.c binds, and beside it a second projection and the fuse module, which are bound here.
// Easy to get wrong:
//   - both projections read the class token after the last norm; the first one's part stands first
//   - the first MLP reads text and picture side by side, and its residual is the text alone
//   - the fuse module has the exact GELU, the picture encoder the quick one
//   - the published file is a pickle with everything below "id_encoder."
// Source: ComfyUI 0.3.64 comfy_extras/nodes_photomaker.py.
// Owns: an at_photomaker owns one reference to its picture encoder and to its at_bound.
#include "models/photomaker.h"

#include <string.h>

#include "base/mem.h"
#include "models/arch.h"

extern const at_arch at_arch_clip_vision_l;

static const float norm_eps = 1e-5f;

typedef struct fuse_config {
    int64_t seen, first, second; // widths: the picture's token, its two projections
    int64_t text, joined, inside1, inside2;
} fuse_config;

typedef struct fuse_mlp {
    at_lin norm, fc1, fc2;
} fuse_mlp;

typedef struct fuse_weights {
    const at_weight *first, *second;
    fuse_mlp mlp1, mlp2;
    at_lin norm;
} fuse_weights;

// --- tables ------------------------------------------------------------------------------------
#define C(field)   AT_FIELD(fuse_config, field)
#define OFF(field) offsetof(fuse_weights, field)
#define SIZE(field_, key_, dim_)                                                                   \
    {                                                                                              \
        .name = #field_, .offset = offsetof(fuse_config, field_), .how = AT_SIZE_DIM, .key = key_, \
        .dim = dim_                                                                                \
    }
#define MAT(field, key_, out_, in_)                                                                \
    {                                                                                              \
        .key = key_ ".weight", .offset = OFF(field), .rank = 2, .dim = { out_, in_ }               \
    }
#define VEC(field, key_, n_)                                                                       \
    {                                                                                              \
        .key = key_, .offset = OFF(field), .rank = 1, .dim = { n_ }                                \
    }
#define NORM(field, key_, n_)       VEC(field.w, key_ ".weight", n_), VEC(field.b, key_ ".bias", n_)
#define LIN(field, key_, out_, in_) MAT(field.w, key_, out_, in_), VEC(field.b, key_ ".bias", out_)
#define MLP(field, key_, in_, inside_)                                                             \
    NORM(field.norm, key_ ".layernorm", in_), LIN(field.fc1, key_ ".fc1", inside_, in_),           \
        LIN(field.fc2, key_ ".fc2", C(text), inside_)

static const at_size_row sizes[] = {
    SIZE(seen, "visual_projection_2.weight", 1),
    SIZE(first, "visual_projection.weight", 0),
    SIZE(second, "visual_projection_2.weight", 0),
    SIZE(text, "fuse_module.layer_norm.weight", 0),
    SIZE(joined, "fuse_module.mlp1.fc1.weight", 1),
    SIZE(inside1, "fuse_module.mlp1.fc1.weight", 0),
    SIZE(inside2, "fuse_module.mlp2.fc1.weight", 0),
};
static const at_bind_row rows[] = {
    MAT(first, "visual_projection", C(first), C(seen)),
    MAT(second, "visual_projection_2", C(second), C(seen)),
    MLP(mlp1, "fuse_module.mlp1", C(joined), C(inside1)),
    MLP(mlp2, "fuse_module.mlp2", C(text), C(inside2)),
    NORM(norm, "fuse_module.layer_norm", C(text)),
};
static const at_bind_group groups[] = {{.base = "", .rows = rows, .n_rows = AT_LEN(rows)}};
static const at_probe probes[] = {{.key = "visual_projection_2.weight"},
                                  {.key = "fuse_module.mlp1.fc1.weight"}};

// The second version has the same keys and a part that reads faces.
static bool second_version(at_store *s, const char *prefix)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < at_store_count(s); i++) {
        const char *name = at_store_at(s, i)->name;
        if (!strncmp(name, prefix, n) && at_starts_with(name + n, "qformer_perceiver."))
            return true;
    }
    return false;
}
static bool match(at_store *s, const char *prefix)
{
    return !second_version(s, prefix);
}

static const char *derive(void *config)
{
    const fuse_config *c = config;
    if (c->first + c->second != c->text) return "its projections together are no text token";
    if (c->joined != 2 * c->text) return "its fuse module does not take two vectors of text width";
    return NULL;
}

const at_arch at_arch_photomaker = {.name = "photomaker",
                                    .title = "PhotoMaker",
                                    .part = AT_PART_PHOTOMAKER,
                                    .probes = probes,
                                    .n_probes = AT_LEN(probes),
                                    .match = match,
                                    .sizes = sizes,
                                    .n_sizes = AT_LEN(sizes),
                                    .config_size = sizeof(fuse_config),
                                    .derive = derive,
                                    .groups = groups,
                                    .n_groups = AT_LEN(groups),
                                    .weights_size = sizeof(fuse_weights)};

// --- the object --------------------------------------------------------------------------------
struct at_photomaker {
    at_vision *eyes;
    at_bound *fuse;
};

void at_photomaker_free(at_photomaker *p)
{
    if (!p) return;
    at_vision_release(&p->eyes);
    at_bound_release(&p->fuse);
    at_free(p);
}

at_status at_photomaker_load(at_store *s, const char *label, at_photomaker **out)
{
    at_status st = AT_OK;
    at_found found;
    at_photomaker *p = NULL;

    if (!at_detect_part(s, AT_PART_PHOTOMAKER, NULL, &found)) {
        if (second_version(s, "id_encoder.") || second_version(s, ""))
            AT_TRY(at_fail(AT_EUNSUPPORTED,
                           "%s: PhotoMaker's second version needs a face recogniser and is not "
                           "known here, as in ComfyUI; use photomaker-v1.bin",
                           label));
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: no PhotoMaker in this file of %zu tensors; `atelier inspect` shows "
                       "what it holds",
                       label, at_store_count(s)));
    }
    p = at_calloc(1, sizeof *p);
    if (!p) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a PhotoMaker", label));
    AT_TRY(at_vision_of(&at_arch_clip_vision_l, s, found.prefix, label, &p->eyes));
    AT_TRY(at_bound_new(found.arch, s, found.prefix, &p->fuse));
    *out = p;
    p = NULL;
out:
    at_photomaker_free(p);
    return st;
}

const at_vision *at_photomaker_eyes(const at_photomaker *p)
{
    return p->eyes;
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n, at_dtype dtype)
{
    at_norm_spec spec = {.weight = n.w, .bias = n.b, .eps = norm_eps};
    at_tensor *y = x ? at_empty(o, dtype, 3, x->shape) : NULL;
    return at_norm(at_into(o, y), x, &spec);
}

// residual + MLP(x), f32.
static at_tensor *mlp(at_ops *o, const fuse_mlp *w, const at_tensor *x, const at_tensor *residual)
{
    const at_linear_extra add = {.residual = residual}, with_act = {.act = AT_ACT_GELU_ERF};
    at_tensor *y = residual ? at_empty(o, AT_F32, 3, residual->shape) : NULL;
    at_tensor *h = norm(o, x, w->norm, at_ops_compute(o));
    h = at_linear(o, h, w->fc1.w, w->fc1.b, &with_act);
    return at_linear(at_into(o, y), h, w->fc2.w, w->fc2.b, &add);
}

// Both projections of the picture's token, side by side: [1, 1, text] f32.
static at_tensor *who(at_ops *o, const fuse_config *c, const fuse_weights *w,
                      const at_tensor *pooled)
{
    at_tensor *x = at_reshape(o, pooled, 3, (int64_t[]){1, 1, c->seen});
    at_tensor *first = at_cast(o, at_linear(o, x, w->first, NULL, NULL), AT_F32);
    at_tensor *second = at_cast(o, at_linear(o, x, w->second, NULL, NULL), AT_F32);
    return at_concat(o, 2, 2, (const at_tensor *[]){first, second});
}

// text with its token `place` replaced.
static at_tensor *put_token(at_ops *o, const at_tensor *text, int64_t place, const at_tensor *token)
{
    const at_tensor *part[3];
    int64_t behind = text->shape[1] - place - 1;
    int n = 0;
    if (place) part[n++] = at_narrow(o, text, 1, 0, place);
    part[n++] = token;
    if (behind) part[n++] = at_narrow(o, text, 1, place + 1, behind);
    return n == 1 ? (at_tensor *)token : at_concat(o, 1, n, part);
}

at_tensor *at_photomaker_fuse(at_ops *o, const at_photomaker *p, const at_tensor *text,
                              int64_t place, const at_tensor *pixels)
{
    const fuse_config *c = p->fuse->config;
    const fuse_weights *w = p->fuse->weights;

    if (!text || !pixels) return NULL;
    if (text->rank != 3 || text->shape[0] != 1 || text->shape[2] != c->text || place < 0 ||
        place >= text->shape[1] || pixels->rank != 4 || pixels->shape[0] != 1)
        return at_ops_poison(o, AT_EINVAL,
                             "%s takes text of width %lld, this prompt's is %lld wide; use the "
                             "CLIP of an SDXL checkpoint",
                             at_vision_label(p->eyes), (long long)c->text,
                             (long long)text->shape[text->rank - 1]);
    at_scope_begin(o);
    at_seen seen = at_vision_look(o, p->eyes, pixels);
    text = at_cast(o, text, AT_F32);
    at_tensor *token = at_contiguous(o, at_narrow(o, text, 1, place, 1));
    at_tensor *both = at_concat(o, 2, 2, (const at_tensor *[]){token, who(o, c, w, seen.pooled)});
    at_tensor *x = mlp(o, &w->mlp1, both, token);
    x = norm(o, mlp(o, &w->mlp2, x, x), w->norm, AT_F32);
    return at_scope_end(o, x && text ? put_token(o, text, place, x) : NULL);
}
