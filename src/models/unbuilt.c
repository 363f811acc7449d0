// SPDX-License-Identifier: Apache-2.0
// unbuilt.c - what to say of a file whose denoiser is none that atelier runs.
// Idea: a name helps more than "unknown": families that ComfyUI knows are recognised by the keys that
// it looks for, and a UNet whose shapes do not fit together is told why.
// Source: comfyui-contract section 7.2 (ComfyUI 0.3.64 comfy/model_detection.py).
// Owns nothing.
#include "models/unbuilt.h"

#include "models/unet.h"

static const struct {
    const char *key, *name;
} families[] = {
    {"joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"},
    {"joint_transformer_blocks.0.attn.add_k_proj.weight", "AuraFlow"},
    {"clf.1.weight", "Stable Cascade"},
    {"transformer.rotary_pos_emb.inv_freq", "Stable Audio"},
    {"double_layers.0.attn.w1q.weight", "AuraFlow"},
    {"mlp_t5.0.weight", "HunyuanDiT"},
    {"txt_in.individual_token_refiner.blocks.0.norm1.weight", "Hunyuan Video or Image"},
    {"distilled_guidance_layer.norms.0.scale", "Chroma"},
    {"double_stream_modulation_img.lin.weight", "Flux.2"},
    {"t5_yproj.weight", "Mochi"},
    {"adaln_single.emb.timestep_embedder.linear_1.bias", "LTX-Video or PixArt"},
    {"genre_embedder.weight", "ACE-Step"},
    {"t_block.1.weight", "PixArt"},
    {"blocks.block0.blocks.0.block.attn.to_q.0.weight", "Cosmos"},
    {"cap_embedder.1.weight", "Lumina 2"},
    {"head.modulation", "Wan"},
    {"latent_in.weight", "Hunyuan3D"},
    {"caption_projection.0.linear.weight", "HiDream"},
    {"blocks.0.mlp.layer1.weight", "Cosmos Predict2"},
    {"time_caption_embed.timestep_embedder.linear_1.bias", "OmniGen2"},
    {"txt_norm.weight", "Qwen-Image"},
    {"input_blocks.1.1.time_stack.0.norm1.weight", "Stable Video Diffusion"},
    {"label_emb.weight", "Stable Diffusion's x4 upscaler"},
};
static const char *const prefixes[] = {"model.diffusion_model.", "model.model.", "net.",
                                       "diffusion_model.",       "model.",       ""};

at_status at_fail_no_denoiser(at_store *s)
{
    for (size_t p = 0; p < AT_LEN(prefixes); p++) {
        at_unet_shape shape = {0};
        const char *why;
        for (size_t i = 0; i < AT_LEN(families); i++)
            if (at_store_findf(s, "%s%s", prefixes[p], families[i].key))
                return at_fail(AT_EUNSUPPORTED,
                               "%s: this is a model of %s, which is not built yet; Flux.1 and "
                               "Stable Diffusion 1, 2 and XL are",
                               at_store_path(s), families[i].name);
        if (!at_store_findf(s, "%sinput_blocks.0.0.weight", prefixes[p])) continue;
        if ((why = at_unet_measure(s, prefixes[p], &shape)) != NULL)
            return at_fail(AT_EFORMAT, "%s: a UNet that does not fit together: %s",
                           at_store_path(s), why);
    }
    return at_fail(AT_EFORMAT,
                   "%s: no denoiser of a known architecture (Flux.1, Stable Diffusion 1, 2 or XL) "
                   "in this file of %zu tensors",
                   at_store_path(s), at_store_count(s));
}
