// SPDX-License-Identifier: Apache-2.0
// guide_vector.c - what a network is told beside the text: pooled text and, for SDXL, sizes and score.
// Source: ComfyUI 0.3.64 comfy/samplers.py (encode_model_conds: width and height are the latent's
// sides in pixels), comfy/model_base.py (encode_adm of SDXL and SDXLRefiner).
// Easy to get wrong: sizes that an entry does not name are those of the whole latent, also in an area;
// a target that it does not name is as large as the entry's own size; the score is 2.5 for a negative
// prompt. Owns nothing.
#include "nodes/guide_impl.h"

at_tensor *at_guide_vector(const at_guide *g, at_ops *o, const at_entry *e)
{
    const at_cond_size *s = &e->c.size;
    int cell = at_model_latent(g->net)->downscale;
    at_vector_in in = {.pooled = e->c.pooled,
                       .width = s->has_size ? (double)s->width : (double)(g->shape[3] * cell),
                       .height = s->has_size ? (double)s->height : (double)(g->shape[2] * cell),
                       .crop_w = s->has_crop ? (double)s->crop_w : 0,
                       .crop_h = s->has_crop ? (double)s->crop_h : 0,
                       .score = s->has_score     ? s->score
                                : e->in_negative ? 2.5
                                                 : 6};
    in.target_w = s->has_target ? (double)s->target_w : in.width;
    in.target_h = s->has_target ? (double)s->target_h : in.height;
    return at_model_vector(o, g->net, &in);
}
