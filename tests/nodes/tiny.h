// SPDX-License-Identifier: Apache-2.0
// tiny.h - a models folder in ComfyUI's layout, small enough to draw with in milliseconds.
// Idea: the golden models have the real key layouts, but each was made alone. Here they are made to fit
// each other (text widths, vocabulary sizes), by new random values for the tensors that join them.
//   diffusion_models/tiny_dev.safetensors, tiny_schnell.safetensors
//   text_encoders/tiny_clip_l.safetensors, tiny_t5.safetensors, each with a folder of its vocabulary
//   vae/tiny_ae.safetensors      16 channels, 8 pixels a latent place
//   vae/tiny_ae2.safetensors     16 channels, 2 pixels a latent place (the golden one)
//   checkpoints/tiny_full.safetensors   the same tensors as tiny_dev, tiny_clip_l, tiny_t5, tiny_ae
//   checkpoints/tiny_model_only.safetensors   a denoiser without CLIP and VAE
//   text_encoders/tiny_clip_g.safetensors, tiny_clip_h.safetensors   as deep as the published ones
//   checkpoints/tiny_sd15.safetensors, tiny_sd2.safetensors, tiny_sdxl.safetensors   whole, 4 channels
//   tokenizers/clip_l, tokenizers/t5    the vocabularies again, for the checkpoint
// Owns nothing: files are the caller's to remove.
#ifndef AT_TESTS_NODES_TINY_H
#define AT_TESTS_NODES_TINY_H

#include "base/status.h"

// `golden` is tests/golden; `dir` is made.
at_status tiny_models_make(const char *golden, const char *dir);

#endif
