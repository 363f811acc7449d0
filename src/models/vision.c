// SPDX-License-Identifier: Apache-2.0
// vision.c - picture encoders and style models as objects.
// Source of the kinds: ComfyUI 0.3.64 comfy/clip_vision.py (load_clipvision_from_sd).
// Owns: an at_vision owns its label and one reference to its at_bound.
#include "models/vision.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "models/arch.h"

struct at_vision {
    atomic_int refs;
    char *label;
    at_bound *bound;
};

static void vision_free(at_vision *v)
{
    if (!v) return;
    at_bound_release(&v->bound);
    at_free(v->label);
    at_free(v);
}

at_status at_vision_load(at_store *s, at_part part, const char *label, at_vision **out)
{
    at_status st = AT_OK;
    at_found found;

    if (at_store_find(s, "encoder.layer.23.layer_scale2.lambda1"))
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s: DINOv2 picture encoders are not built yet", label));
    if (!at_detect_part(s, part, NULL, &found))
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: no %s of a known kind in this file of %zu tensors; `atelier inspect` "
                       "shows what it holds",
                       label, part == AT_PART_STYLE ? "style model" : "picture encoder",
                       at_store_count(s)));
    AT_TRY(at_vision_of(found.arch, s, found.prefix, label, out));
out:
    return st;
}

at_status at_vision_of(const at_arch *a, at_store *s, const char *prefix, const char *label,
                       at_vision **out)
{
    at_status st = AT_OK;
    at_vision *v = at_calloc(1, sizeof *v);

    if (!v || !(v->label = at_strdup(label)))
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a picture encoder", label));
    atomic_init(&v->refs, 1);
    AT_TRY(at_bound_new(a, s, prefix, &v->bound));
    *out = v;
    v = NULL;
out:
    vision_free(v);
    return st;
}

at_vision *at_vision_retain(at_vision *v)
{
    if (v) atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void at_vision_release(at_vision **v)
{
    if (*v && atomic_fetch_sub_explicit(&(*v)->refs, 1, memory_order_acq_rel) == 1) vision_free(*v);
    *v = NULL;
}

void at_vision_get_facts(const at_vision *v, at_vision_facts *out)
{
    v->bound->arch->vision->facts(v->bound, out);
}

const char *at_vision_label(const at_vision *v)
{
    return v->label;
}

// --- forwards ----------------------------------------------------------------------------------
at_seen at_vision_look(at_ops *o, const at_vision *v, const at_tensor *pixels)
{
    at_seen seen = {0};
    if (!pixels) return seen;
    at_scope_begin(o);
    at_seen r = v->bound->arch->vision->look(o, v->bound, pixels);
    at_tensor *last = at_ops_keep(o, r.last), *before = at_ops_keep(o, r.penultimate);
    at_tensor *embeds = at_ops_keep(o, r.embeds), *pooled = at_ops_keep(o, r.pooled);
    at_scope_end(o, NULL);
    seen.last = last ? at_ops_adopt(o, last) : NULL;
    seen.penultimate = before ? at_ops_adopt(o, before) : NULL;
    seen.embeds = embeds ? at_ops_adopt(o, embeds) : NULL;
    seen.pooled = pooled ? at_ops_adopt(o, pooled) : NULL;
    return seen;
}

at_tensor *at_style_tokens(at_ops *o, const at_vision *style, const at_tensor *seen)
{
    if (!seen) return NULL;
    at_scope_begin(o);
    at_tensor *t = style->bound->arch->vision->style(o, style->bound, seen);
    return at_scope_end(o, at_cast(o, t, AT_F32));
}
