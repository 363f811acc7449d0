// SPDX-License-Identifier: Apache-2.0
// denoiser.h - the one loop over a denoiser's blocks.
// Idea: whatever people want across models (offload, pipelines, step caches, timing, cancel)
// happens between blocks, so it is written here once and no architecture file knows it.
// Invariant: one hidden tensor goes from block to block; what else a block makes dies with its
// scope, so memory does not grow with the number of blocks.
#ifndef AT_MODELS_DENOISER_H
#define AT_MODELS_DENOISER_H

#include "models/arch.h"

// Run prologue, blocks and epilogue; in->made must be there. The result is in the current scope; NULL
// after a failure.
at_tensor *at_denoiser_run(at_ops *o, const at_bound *m, const at_model_in *in);

// Block i in its own scope; takes the reference `h`, gives one back (NULL after a failure).
at_tensor *at_denoiser_block(at_ops *o, const at_bound *m, void *state, int i, at_tensor *h);

#endif
