// SPDX-License-Identifier: Apache-2.0
// text_bias.h - a patch that favours or dampens text tokens in a DiT's attention (StyleModelApply).
// Ownership: the patch keeps the bias.
#ifndef AT_MODELS_TEXT_BIAS_H
#define AT_MODELS_TEXT_BIAS_H

#include "models/patch.h"

// `set` with the patch behind it. bias f32 [1, n + 1, n + 1] on the host: what is added to the
// scaled products of query row and key column, for n text tokens and, in the last row and column,
// every other token.
at_status at_text_bias_patch(const at_tensor *bias, const at_patches *set, at_patches **out);

#endif
