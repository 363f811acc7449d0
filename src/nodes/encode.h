// SPDX-License-Identifier: Apache-2.0
// encode.h - from a prompt to a conditioning: tokens, chunks, encoders, weights.
// Source: comfyui-contract section 6 (ComfyUI 0.3.64's sd1_clip.py and flux.py, behaviour only).
#ifndef AT_NODES_ENCODE_H
#define AT_NODES_ENCODE_H

#include "nodes/objects.h"

// Encode with every encoder of the CLIP object. Texts may differ per encoder (CLIPTextEncodeFlux); pass the
// same for one prompt. The result is a CONDITIONING of one entry.
at_status at_encode_prompt(at_ops *o, const at_obj_clip *clip, const char *clip_l_text,
                           const char *t5_text, at_object **out);

#endif
