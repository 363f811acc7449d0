// SPDX-License-Identifier: Apache-2.0
// control.h - what ControlNets add to one forward of a denoiser.
// Idea: a denoiser adds residuals at fixed places and does not know who made them; several nets are
// summed before (per place). UNet residuals are NHWC [b, h, w, c], DiT residuals [b, image tokens,
// d]. Any entry may be NULL; lists may be shorter than the blocks.
// Ownership: the struct borrows; its maker keeps the tensors alive for the forward.
#ifndef AT_MODELS_CONTROL_H
#define AT_MODELS_CONTROL_H

#include "tensor/tensor.h"

enum { AT_CONTROL_MAX = 64 };
typedef struct at_control {
    // After input block i, before it is kept as a skip (T2I adapters).
    const at_tensor *input[AT_CONTROL_MAX];
    // Added to the skip that input block i kept, when the output half takes it.
    const at_tensor *skip[AT_CONTROL_MAX];
    const at_tensor *middle; // after the middle block
    // After DiT block i, on the image tokens.
    const at_tensor *doubles[AT_CONTROL_MAX], *singles[AT_CONTROL_MAX];
    // They hold the image tokens of this rank, not all. (Maps say so themselves: at_tensor.run.)
    bool shared;
} at_control;

#endif
