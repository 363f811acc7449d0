// SPDX-License-Identifier: Apache-2.0
// guide_vector.c - what a network is told beside the text: pooled text and, for SDXL, sizes and
// score.
// Source: ComfyUI 0.3.64 comfy/samplers.py (encode_model_conds: width and height are the latent's
// sides in pixels), comfy/model_base.py (encode_adm of SDXL, SDXLRefiner and SD21UNCLIP).
// Easy to get wrong: sizes that an entry does not name are those of the whole latent, also in an
// area; a target that it does not name is as large as the entry's own size; the score is 2.5 for a
// negative prompt; only unCLIP's own models add noise to a sum of several pictures. Owns: see
// guide_impl.h.
#include <string.h>

#include "nodes/guide_impl.h"
#include "nodes/look.h"

at_status at_guide_vector(const at_guide *g, at_ops *o, at_entry *e)
{
    const at_cond_size *s = &e->c.size;
    const at_object *unclip = e->c.extra[AT_COND_UNCLIP];
    int cell = at_model_latent(g->net)->downscale;
    double merge = strstr(at_arch_name(at_model_arch(g->net)), "unclip") ? 0.05 : 0.0;

    at_scope_begin(o);
    at_vector_in in = {
        .pooled = e->c.pooled,
        .unclip = unclip ? at_unclip_vector(o, unclip, merge, g->seed) : NULL,
        .width = s->has_size ? (double)s->width : (double)(g->shape[3] * cell),
        .height = s->has_size ? (double)s->height : (double)(g->shape[2] * cell),
        .crop_w = s->has_crop ? (double)s->crop_w : 0,
        .crop_h = s->has_crop ? (double)s->crop_h : 0,
        .score = s->has_score     ? s->score
                 : e->in_negative ? 2.5
                                  : 6,
    };
    in.target_w = s->has_target ? (double)s->target_w : in.width;
    in.target_h = s->has_target ? (double)s->target_h : in.height;
    at_tensor *v = at_model_vector(o, g->net, &in);
    e->vector = v && at_ops_status(o) == AT_OK ? at_ops_keep(o, v) : NULL;
    at_scope_end(o, NULL);
    return at_ops_status(o);
}
