// SPDX-License-Identifier: Apache-2.0
// nodes.c - the list of node families.
#include "nodes/nodes.h"

static const at_node *const *const families[] = {
    at_nodes_loaders,
    at_nodes_loaders_clip,
    at_nodes_loaders_vae,
    at_nodes_loaders_folder,
    at_nodes_clip_text,
    at_nodes_conditioning,
    at_nodes_conditioning_mix,
    at_nodes_conditioning_where,
    at_nodes_conditioning_props,
    at_nodes_conditioning_picture,
    at_nodes_conditioning_flux,
    at_nodes_guider,
    at_nodes_hooks,
    at_nodes_model_cfg,
    at_nodes_model_cfg_vector,
    at_nodes_model_cfg_skip,
    at_nodes_model_cfg_cache,
    at_nodes_latent,
    at_nodes_sampling,
    at_nodes_custom_sampling,
    at_nodes_model_sampling,
    at_nodes_model_patch,
    at_nodes_model_patch_shrink,
    at_nodes_model_patch_guidance,
    at_nodes_model_multiply,
    at_nodes_vae,
    at_nodes_image,
    at_nodes_post_quantize,
    at_nodes_upscale,
    at_nodes_image_load,
    at_nodes_image_animated,
    at_nodes_image_svg,
    at_nodes_preview_any,
    at_nodes_image_batch,
    at_nodes_image_move,
    at_nodes_image_scale,
    at_nodes_image_composite,
    at_nodes_mask,
    at_nodes_mask_image,
    at_nodes_post,
    at_nodes_post_edges,
    at_nodes_primitive,
    at_nodes_lora,
    at_nodes_merge,
    at_nodes_merge_blocks,
    at_nodes_latent_math,
    at_nodes_latent_shape,
    at_nodes_latent_batch,
    at_nodes_latent_rebatch,
    at_nodes_latent_composite,
    at_nodes_latent_operation,
    at_nodes_control,
    at_nodes_control_apply,
    at_nodes_vision,
    at_nodes_gligen,
    at_nodes_schedulers,
    at_nodes_custom_sampling_sigmas,
    at_nodes_samplers,
    at_nodes_string,
    at_nodes_string_regex,
};

at_status at_nodes_register(at_registry *r)
{
    at_status st = AT_OK;
    for (size_t i = 0; i < AT_COUNT(families) && st == AT_OK; i++)
        st = at_registry_add(r, families[i]);
    return st;
}
