// SPDX-License-Identifier: Apache-2.0
// lora_flux.c - diffusers' names of Flux.1's layers, as LoRA files use them.
// Idea: a row is diffusers' name, our key, and where our layer is fused, which multiple of the hidden
// size the part begins at. Source: ComfyUI 0.3.64 comfy/utils.py flux_to_diffusers (facts).
// Easy to get wrong: diffusers' final modulation has scale before shift, ours shift before scale; its
// single blocks keep q, k, v and the MLP apart, ours are one linear1.
// Owns nothing.
#include <stdio.h>
#include <string.h>

#include "models/arch.h"
#include "models/lora.h"

typedef struct name_row {
    const char *from, *to;
    int first, rows; // in hidden sizes; rows 0: the whole layer
    bool swap_halves;
} name_row;

static const name_row ends[] = {
    {"proj_out", "final_layer.linear.weight"},
    {"x_embedder", "img_in.weight"},
    {"time_text_embed.timestep_embedder.linear_1", "time_in.in_layer.weight"},
    {"time_text_embed.timestep_embedder.linear_2", "time_in.out_layer.weight"},
    {"context_embedder", "txt_in.weight"},
    {"time_text_embed.text_embedder.linear_1", "vector_in.in_layer.weight"},
    {"time_text_embed.text_embedder.linear_2", "vector_in.out_layer.weight"},
    {"time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer.weight"},
    {"time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer.weight"},
    {"norm_out.linear", "final_layer.adaLN_modulation.1.weight", .swap_halves = true},
    {"controlnet_x_embedder", "pos_embed_input.weight"},
};
static const name_row doubles[] = {
    {"attn.to_q", "img_attn.qkv.weight", 0, 1},
    {"attn.to_k", "img_attn.qkv.weight", 1, 1},
    {"attn.to_v", "img_attn.qkv.weight", 2, 1},
    {"attn.add_q_proj", "txt_attn.qkv.weight", 0, 1},
    {"attn.add_k_proj", "txt_attn.qkv.weight", 1, 1},
    {"attn.add_v_proj", "txt_attn.qkv.weight", 2, 1},
    {"attn.to_out.0", "img_attn.proj.weight"},
    {"norm1.linear", "img_mod.lin.weight"},
    {"norm1_context.linear", "txt_mod.lin.weight"},
    {"attn.to_add_out", "txt_attn.proj.weight"},
    {"ff.net.0.proj", "img_mlp.0.weight"},
    {"ff.net.2", "img_mlp.2.weight"},
    {"ff_context.net.0.proj", "txt_mlp.0.weight"},
    {"ff_context.net.2", "txt_mlp.2.weight"},
    {"attn.norm_q", "img_attn.norm.query_norm.scale"},
    {"attn.norm_k", "img_attn.norm.key_norm.scale"},
    {"attn.norm_added_q", "txt_attn.norm.query_norm.scale"},
    {"attn.norm_added_k", "txt_attn.norm.key_norm.scale"},
};
static const name_row singles[] = {
    {"attn.to_q", "linear1.weight", 0, 1},    {"attn.to_k", "linear1.weight", 1, 1},
    {"attn.to_v", "linear1.weight", 2, 1},    {"proj_mlp", "linear1.weight", 3, 4},
    {"norm.linear", "modulation.lin.weight"}, {"proj_out", "linear2.weight"},
    {"attn.norm_q", "norm.query_norm.scale"}, {"attn.norm_k", "norm.key_norm.scale"},
};

typedef struct walk {
    at_store *s;
    const char *prefix;
    int64_t hidden;
    at_lora_names *out;
} walk;

// The rows of one part: names below `from`, keys below `to`.
static void add_rows(const walk *f, const char *from, const char *to, const name_row *rows,
                     size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const name_row *r = &rows[i];
        const at_weight *w = at_store_findf(f->s, "%s%s%s", f->prefix, to, r->to);
        char dotted[160], flat[160];
        if (!w) continue;
        at_lora_target t = {.record = w->name,
                            .first = r->first * f->hidden,
                            .rows = r->rows * f->hidden,
                            .swap_halves = r->swap_halves};
        snprintf(dotted, sizeof dotted, "%s%s", from, r->from);
        snprintf(flat, sizeof flat, "%s", dotted);
        for (char *p = flat; *p; p++)
            if (*p == '.') *p = '_';
        at_lora_names_addf(f->out, &t, "transformer.%s", dotted);
        at_lora_names_addf(f->out, &t, "lycoris_%s", flat);
        at_lora_names_addf(f->out, &t, "lora_transformer_%s", flat);
    }
}

void at_flux_lora_names(at_store *s, const char *prefix, at_lora_names *out)
{
    enum { MAX_BLOCKS = 1000 };
    const at_weight *qkv = at_store_findf(s, "%sdouble_blocks.0.img_attn.qkv.weight", prefix);
    walk f = {s, prefix, qkv && qkv->rank == 2 ? qkv->shape[1] : 0, out};
    char from[64], to[64];

    for (int i = 0; i < MAX_BLOCKS; i++) {
        snprintf(from, sizeof from, "transformer_blocks.%d.", i);
        snprintf(to, sizeof to, "double_blocks.%d.", i);
        if (!at_store_findf(s, "%s%simg_attn.qkv.weight", prefix, to)) break;
        add_rows(&f, from, to, doubles, AT_LEN(doubles));
    }
    for (int i = 0; i < MAX_BLOCKS; i++) {
        const at_weight *w;
        snprintf(from, sizeof from, "single_transformer_blocks.%d.", i);
        snprintf(to, sizeof to, "single_blocks.%d.", i);
        if (!(w = at_store_findf(s, "%s%slinear1.weight", prefix, to))) break;
        add_rows(&f, from, to, singles, AT_LEN(singles));
        at_lora_names_addf(out, &(at_lora_target){.record = w->name, .rows = 3 * f.hidden},
                           "diffusion_model.%slinear1_qkv", to);
    }
    add_rows(&f, "", "", ends, AT_LEN(ends));
}
