// SPDX-License-Identifier: Apache-2.0
// nodes.h - the families of nodes: each file ends with its list, and this is the list of lists.
#ifndef AT_NODES_NODES_H
#define AT_NODES_NODES_H

#include "atelier/node.h"
#include "flow/flow.h"

// NULL-terminated lists, one per file.
extern const at_node *const at_nodes_loaders[];
extern const at_node *const at_nodes_loaders_clip[];
extern const at_node *const at_nodes_loaders_vae[];
extern const at_node *const at_nodes_loaders_folder[];
extern const at_node *const at_nodes_clip_text[];
extern const at_node *const at_nodes_conditioning[];
extern const at_node *const at_nodes_conditioning_mix[];
extern const at_node *const at_nodes_conditioning_where[];
extern const at_node *const at_nodes_conditioning_props[];
extern const at_node *const at_nodes_conditioning_picture[];
extern const at_node *const at_nodes_conditioning_flux[];
extern const at_node *const at_nodes_conditioning_upscale[];
extern const at_node *const at_nodes_guider[];
extern const at_node *const at_nodes_hooks[];
extern const at_node *const at_nodes_model_cfg[];
extern const at_node *const at_nodes_model_cfg_vector[];
extern const at_node *const at_nodes_model_cfg_skip[];
extern const at_node *const at_nodes_model_cfg_cache[];
extern const at_node *const at_nodes_latent[];
extern const at_node *const at_nodes_sampling[];
extern const at_node *const at_nodes_ray[];
extern const at_node *const at_nodes_multigpu[];
extern const at_node *const at_nodes_custom_sampling[];
extern const at_node *const at_nodes_model_sampling[];
extern const at_node *const at_nodes_model_patch[];
extern const at_node *const at_nodes_model_patch_shrink[];
extern const at_node *const at_nodes_model_patch_guidance[];
extern const at_node *const at_nodes_model_multiply[];
extern const at_node *const at_nodes_vae[];
extern const at_node *const at_nodes_image[];
extern const at_node *const at_nodes_post_quantize[];
extern const at_node *const at_nodes_upscale[];
extern const at_node *const at_nodes_image_load[];
extern const at_node *const at_nodes_image_animated[];
extern const at_node *const at_nodes_image_svg[];
extern const at_node *const at_nodes_preview_any[];
extern const at_node *const at_nodes_image_batch[];
extern const at_node *const at_nodes_image_move[];
extern const at_node *const at_nodes_image_scale[];
extern const at_node *const at_nodes_image_composite[];
extern const at_node *const at_nodes_mask[];
extern const at_node *const at_nodes_mask_image[];
extern const at_node *const at_nodes_post[];
extern const at_node *const at_nodes_post_edges[];
extern const at_node *const at_nodes_primitive[];
extern const at_node *const at_nodes_lora[];
extern const at_node *const at_nodes_lora_save[];
extern const at_node *const at_nodes_merge[];
extern const at_node *const at_nodes_merge_blocks[];
extern const at_node *const at_nodes_save_models[];
extern const at_node *const at_nodes_latent_math[];
extern const at_node *const at_nodes_latent_shape[];
extern const at_node *const at_nodes_latent_batch[];
extern const at_node *const at_nodes_latent_rebatch[];
extern const at_node *const at_nodes_latent_composite[];
extern const at_node *const at_nodes_latent_operation[];
extern const at_node *const at_nodes_control[];
extern const at_node *const at_nodes_control_apply[];
extern const at_node *const at_nodes_vision[];
extern const at_node *const at_nodes_gligen[];
extern const at_node *const at_nodes_photomaker[];
extern const at_node *const at_nodes_schedulers[];
extern const at_node *const at_nodes_custom_sampling_sigmas[];
extern const at_node *const at_nodes_samplers[];
extern const at_node *const at_nodes_string[];
extern const at_node *const at_nodes_string_regex[];
extern const at_node *const at_nodes_latent_encode[];
extern const at_node *const at_nodes_latent_files[];
extern const at_node *const at_nodes_image_socket[];

// Nodes of ComfyUI's own test suite, only with --enable-test-nodes.
extern const at_node *const at_nodes_test[];

// Put every family into a registry.
at_status at_nodes_register(at_registry *r);

#endif
