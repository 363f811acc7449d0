// SPDX-License-Identifier: Apache-2.0
// look.h - what travels around picture encoders: CLIP_VISION, CLIP_VISION_OUTPUT, STYLE_MODEL, and
// the unCLIP part of a conditioning with the vector that a model gets of it.
// Source: ComfyUI 0.3.64 comfy/clip_vision.py, comfy/model_base.py (unclip_adm).
// Ownership: as objects.h.
#ifndef AT_NODES_LOOK_H
#define AT_NODES_LOOK_H

#include "models/vision.h"
#include "nodes/objects.h"

typedef struct at_obj_vision {
    at_object base;
    at_vision *vision;
} at_obj_vision;
at_object *at_obj_vision_new(at_vision *v); // CLIP_VISION
at_object *at_obj_style_new(at_vision *v);  // STYLE_MODEL

typedef struct at_obj_seen {
    at_object base;
    at_tensor *last, *penultimate, *embeds; // f32 on the device, see at_seen
} at_obj_seen;
at_object *at_obj_seen_new(at_tensor *last, at_tensor *penultimate, at_tensor *embeds);

// A picture [b, h, w, c >= 3] 0..1 on the host, scaled (cropped to the middle square or squeezed),
// rounded to 8 bits and normalised as ComfyUI's clip_preprocess: [b, 3, size, size] on the device.
at_tensor *at_look_pixels(at_ops *o, const at_vision *v, const at_tensor *image, bool crop);

// One unCLIP picture behind others: at_cond.extra[AT_COND_UNCLIP].
typedef struct at_obj_unclip {
    at_object base;
    struct at_obj_unclip *previous; // or NULL
    at_obj_seen *seen;
    double strength, noise_augmentation;
} at_obj_unclip;
at_object *at_obj_unclip_new(at_object *previous, at_object *seen, double strength,
                             double noise_augmentation); // retains both

// at_vector_in.unclip: [1, 2 * width] of the pictures' vectors with noise and the noise's level.
// merge: the noise augmentation of a sum of several (0.05; SDXL 0). seed: the sampler's.
at_tensor *at_unclip_vector(at_ops *o, const at_object *unclip, double merge, uint64_t seed);

#endif
