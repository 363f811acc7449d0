// SPDX-License-Identifier: Apache-2.0
// edit.c - see edit.h.
#include "nodes/edit.h"

#include "base/file.h"
#include "base/log.h"

at_status at_obj_model_edit(const at_obj_model *m, const at_edits *e, at_object **out)
{
    at_store *store = NULL;
    at_model *model = NULL;
    at_status st = AT_OK;

    *out = NULL;
    if (at_edits_count(e) == 0) {
        *out = at_object_retain((at_object *)(uintptr_t)m);
        return AT_OK;
    }
    AT_TRY(at_store_edit(at_model_store(m->model), e, &store));
    AT_TRY(at_model_with_store(m->model, store, &model));
    *out = at_obj_model_with(m, model);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a model", at_store_path(store)));
out:
    at_store_release(&store);
    return st;
}

static at_status edit_encoder(at_clip_encoder *place, const at_edits *e)
{
    at_store *store = NULL;
    at_encoder *encoder = NULL;
    at_status st = AT_OK;

    AT_TRY(at_store_edit(at_encoder_store(place->encoder), e, &store));
    AT_TRY(at_encoder_with_store(place->encoder, store, &encoder));
    at_encoder_release(&place->encoder);
    place->encoder = encoder;
out:
    at_store_release(&store);
    return st;
}

at_status at_obj_clip_edit(const at_obj_clip *c, at_edits *const edits[AT_TE_COUNT],
                           at_object **out)
{
    at_object *copy = at_obj_clip_copy(c);
    at_obj_clip *to = (at_obj_clip *)copy;
    at_status st = AT_OK;

    *out = NULL;
    if (!to) AT_TRY(at_fail(AT_ENOMEM, "no memory for a CLIP"));
    for (int i = 0; i < AT_TE_COUNT; i++)
        if (to->enc[i].encoder && edits[i] && at_edits_count(edits[i]))
            AT_TRY(edit_encoder(&to->enc[i], edits[i]));
    *out = copy;
    copy = NULL;
out:
    at_object_release(copy);
    return st;
}

at_lora_encoders at_clip_lora_encoders(const at_obj_clip *c)
{
    return (at_lora_encoders){.l = c->enc[AT_TE_L].encoder,
                              .g = c->enc[AT_TE_G].encoder,
                              .h = c->enc[AT_TE_H].encoder,
                              .t5 = c->enc[AT_TE_T5].encoder};
}

// --- LoRA files ------------------------------------------------------------------------------------
static at_status lora_on_model(at_lora *l, const at_obj_model *m, double strength, at_object **out)
{
    at_lora_names *names = NULL;
    at_edits *edits = NULL;
    at_status st = AT_OK;

    AT_TRY(at_lora_names_new(&names));
    AT_TRY(at_edits_new(&edits));
    AT_TRY(at_model_lora_names(m->model, names));
    AT_TRY(at_lora_match(l, names, at_model_store(m->model), strength, edits, NULL));
    AT_TRY(at_obj_model_edit(m, edits, out));
out:
    at_lora_names_free(names);
    at_edits_release(&edits);
    return st;
}

static at_status match_encoder(at_lora *l, const at_lora_encoders *all, const at_encoder *e,
                               double strength, at_edits **out)
{
    at_lora_names *names = NULL;
    at_status st = AT_OK;

    AT_TRY(at_lora_names_new(&names));
    AT_TRY(at_edits_new(out));
    AT_TRY(at_encoder_lora_names(all, e, names));
    AT_TRY(at_lora_match(l, names, at_encoder_store(e), strength, *out, NULL));
out:
    at_lora_names_free(names);
    return st;
}

static at_status lora_on_clip(at_lora *l, const at_obj_clip *c, double strength, at_object **out)
{
    at_lora_encoders all = at_clip_lora_encoders(c);
    at_edits *edits[AT_TE_COUNT] = {0};
    at_status st = AT_OK;

    for (int i = 0; i < AT_TE_COUNT; i++)
        if (c->enc[i].encoder)
            AT_TRY(match_encoder(l, &all, c->enc[i].encoder, strength, &edits[i]));
    AT_TRY(at_obj_clip_edit(c, edits, out));
out:
    for (int i = 0; i < AT_TE_COUNT; i++)
        at_edits_release(&edits[i]);
    return st;
}

static void warn_unused(const at_lora *l, const char *path)
{
    const char *name[3] = {"", "", ""};
    size_t n = at_lora_unused(l, name, AT_COUNT(name));

    if (n)
        at_log(AT_WARN, "LORA-KEYS",
               "%s: %zu tensors belong to no layer of these models: %s%s%s%s%s%s",
               at_path_base(path), n, name[0], n > 1 ? ", " : "", name[1], n > 2 ? ", " : "",
               name[2], n > 3 ? " ..." : "");
}

at_status at_edit_by_lora(at_store *file, const at_obj_model *m, const at_obj_clip *c,
                          double strength_model, double strength_clip, at_object **model_out,
                          at_object **clip_out)
{
    at_lora *l = NULL;
    at_status st = AT_OK;

    *model_out = *clip_out = NULL;
    AT_TRY(at_lora_open(file, &l));
    if (m) AT_TRY(lora_on_model(l, m, strength_model, model_out));
    if (c) AT_TRY(lora_on_clip(l, c, strength_clip, clip_out));
    warn_unused(l, at_store_path(file));
out:
    at_lora_free(l);
    if (st != AT_OK) {
        at_object_release(*model_out);
        at_object_release(*clip_out);
        *model_out = *clip_out = NULL;
    }
    return st;
}
