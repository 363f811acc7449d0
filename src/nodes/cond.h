// SPDX-License-Identifier: Apache-2.0
// cond.h - CONDITIONING: what a prompt became, where and when it holds, and what goes with it.
// Idea: one struct per entry with a field for each thing that ComfyUI keeps in the entry's dict.
// Ownership: an entry owns one reference to each of its tensors and objects.
#ifndef AT_NODES_COND_H
#define AT_NODES_COND_H

#include "atelier/node.h"
#include "models/models.h"

// Where an entry holds: a rectangle in latent cells (pixels / 8) or in shares of the picture.
typedef struct at_area {
    enum { AT_AREA_NONE, AT_AREA_CELLS, AT_AREA_SHARES } kind;
    double h, w, y, x;
} at_area;

// What SDXL's vector input is told of sizes; zeroed `has_*`: the sampler's own size.
typedef struct at_cond_size {
    bool has_size, has_crop, has_target, has_score;
    int64_t width, height, crop_w, crop_h, target_w, target_h;
    double score; // refiner: aesthetic score
} at_cond_size;

// One entry of a CONDITIONING list; tensors f32, text on the device, latents and masks on the host.
typedef struct at_cond {
    at_tensor *context; // [1, t, d]
    at_tensor *pooled;  // [1, d] or NULL
    bool has_guidance;
    bool guidance_off; // FluxDisableGuidance: the embedding is left out
    float guidance;
    float strength;                    // 1
    double start_percent, end_percent; // 0, 1; double: a step may lie on the border
    at_area area;
    at_tensor *mask; // [b, h, w] or NULL
    float mask_strength;
    bool mask_bounds; // set_area_to_bounds
    bool is_default;  // holds where no other entry does
    at_cond_size size;
    at_tensor *concat_latent, *concat_mask; // inpainting and ip2p: [b, c, h, w], [b, 1, h, w]
    at_tensor **refs; // Flux Kontext's reference latents: n_refs counted references in an array
    size_t n_refs;
    at_ref_method ref_method;
    at_object *control; // the last ControlNet of a chain (nodes/control.h) or NULL
    bool control_to_uncond;
    at_tensor *control_context; // [1, t, d] what the ControlNets read instead of context, or NULL
    // Added to the products of the attention of n text tokens and, in the last row and column, all
    // others (models/text_bias.h): f32 [1, n + 1, n + 1] on the host, or NULL.
    at_tensor *attn_bias;
    at_object *extra[4]; // by at_cond_extra, NULL: absent
} at_cond;
typedef enum at_cond_extra {
    AT_COND_UNCLIP,
    AT_COND_GLIGEN,
    AT_COND_HOOKS,
    AT_COND_EXTRA_COUNT
} at_cond_extra;

typedef struct at_obj_cond {
    at_object base;
    at_cond *items;
    size_t count;
} at_obj_cond;
at_object *at_obj_cond_new(size_t count); // zeroed entries with strengths 1 and range 0..1
// Shares everything; entries may then be changed with at_cond_set_*.
at_object *at_obj_cond_copy(const at_obj_cond *c);
// The entries of a, then those of b (ConditioningCombine).
at_object *at_obj_cond_join(const at_obj_cond *a, const at_obj_cond *b);
// *to becomes a copy of *from that holds its own references. False: out of memory (to is zeroed).
bool at_cond_copy(at_cond *to, const at_cond *from);
void at_cond_clear(at_cond *c);
// Give a copy of a list to an output after `change` of each entry: what most conditioning nodes do.
at_status at_cond_give(const char *node, const at_object *list,
                       void (*change)(at_cond *c, const void *ctx), const void *ctx, at_value *out);
// a joined with b (taken, also on failure; NULL: out of memory).
at_status at_cond_give_joined(const char *node, const at_object *a, at_object *b, at_value *out);
// Put a reference (taken) into a field, releasing what was there.
void at_cond_set_tensor(at_tensor **field, at_tensor *t);
void at_cond_set_object(at_object **field, at_object *o);

extern const at_out at_cond_out[1];
// A node table of inputs `rows` of struct `st` and one CONDITIONING.
#define AT_COND_NODE(cls, title, where, module, flag, rows, st, fn)                                \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = module,           \
        .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = at_cond_out, .n_out = 1,         \
        .in_size = sizeof(st), .run = fn,                                                          \
    }

// TIMESTEPS_RANGE: shares of the way from noise to picture.
typedef struct at_obj_range {
    at_object base;
    double start, end;
} at_obj_range;
at_object *at_obj_range_new(double start, double end);

#endif
