// SPDX-License-Identifier: Apache-2.0
// verify_weights.c - the weights of a network under LoRAs as a component of a case.
// Idea: options.loras = [{"file", "strength"}, ...] are put on the denoiser of the model file, or, with
// options.encoder ("clip_l", "clip_g", "clip_h", "t5xxl"), on its text encoder of that place beside those
// in options.beside; every record that is expected is read from the edited store. "edited" is the number
// of records that changed, so that one too many is seen.
// Owns nothing beyond a call.
#include <string.h>

#include "base/mem.h"
#include "engine/verify_case.h"
#include "models/lora.h"
#include "weight/edits.h"
#include "weight/matrix.h"

typedef struct subject {
    at_store *store;
    at_model *model;
    at_encoder *encoder;
} subject;

static at_status open_subject(const at_case *c, subject *s)
{
    at_found found[8];
    size_t n;
    at_status st = AT_OK;

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(at_store_open(c->model, &s->store));
    if (!json_object_get(c->options, "encoder")) {
        AT_TRY(at_model_load(s->store, c->model, &s->model));
        goto out;
    }
    n = at_detect(s->store, found, sizeof found / sizeof *found);
    for (size_t i = 0; i < n && !s->encoder; i++)
        if (found[i].part == AT_PART_TEXT)
            AT_TRY(at_encoder_load(s->store, &found[i], &s->encoder));
    if (!s->encoder) AT_TRY(at_fail(AT_EFORMAT, "%s: no text encoder in this file", c->model));
out:
    return st;
}

static void close_subject(subject *s)
{
    at_model_release(&s->model);
    at_encoder_release(&s->encoder);
    at_store_release(&s->store);
}

// The encoder in the place that options.encoder says; `beside` names places that are filled as well.
static at_status encoder_names(const at_case *c, const at_encoder *e, at_lora_names *out)
{
    static const char *const places[] = {"clip_l", "clip_g", "clip_h", "t5xxl"};
    const json_t *beside = json_object_get(c->options, "beside");
    const char *own = at_case_text(c, "encoder", "");
    const at_encoder *at[4] = {0};
    // another encoder only has to be there: any other address says so
    static const char other[4];

    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < json_array_size(beside); j++) {
            const char *name = json_string_value(json_array_get(beside, j));
            if (name && !strcmp(name, places[i]))
                at[i] = (const at_encoder *)(const void *)&other[i];
        }
        if (!strcmp(own, places[i])) at[i] = e;
    }
    at_lora_encoders all = {.l = at[0], .g = at[1], .h = at[2], .t5 = at[3]};
    return at_encoder_lora_names(&all, e, out);
}

static at_status add_lora(at_case *c, const json_t *row, at_lora_names *names, at_store *store,
                          at_edits *edits)
{
    const json_t *strength = json_object_get(row, "strength");
    char *path = NULL;
    at_store *file = NULL;
    at_lora *l = NULL;
    at_status st = AT_OK;

    AT_TRY(at_case_path(c, row, "file", &path));
    if (!path) AT_TRY(at_fail(AT_EFORMAT, "%s: a LoRA without a \"file\"", c->dir));
    AT_TRY(at_store_open(path, &file));
    AT_TRY(at_lora_open(file, &l));
    AT_TRY(at_lora_match(l, names, store,
                         json_is_number(strength) ? json_number_value(strength) : 1, edits, NULL));
out:
    at_lora_free(l);
    at_store_release(&file);
    at_free(path);
    return st;
}

static at_status put_outputs(at_case *c, at_store *edited)
{
    at_matrix m = {0};
    float n = 0;
    at_status st = AT_OK;

    for (size_t i = 0; i < at_store_count(edited); i++)
        n += at_store_at(edited, i)->lazy ? 1.0f : 0.0f;
    AT_TRY(at_case_output(c, "edited", &n, 1));
    for (size_t i = 0; i < at_store_count(c->expected); i++) {
        const at_weight *w = at_store_find(edited, at_store_at(c->expected, i)->name);
        if (!w) continue;
        AT_TRY(at_matrix_read(w, &m));
        AT_TRY(at_case_output(c, w->name, m.v, m.rows * m.cols));
        at_matrix_free(&m);
    }
out:
    at_matrix_free(&m);
    return st;
}

at_status at_case_apply_loras(at_case *c, at_store *store, at_lora_names *names, at_store **out)
{
    const json_t *loras = json_object_get(c->options, "loras");
    at_edits *edits = NULL;
    at_status st = AT_OK;

    AT_TRY(at_edits_new(&edits));
    for (size_t i = 0; i < json_array_size(loras); i++)
        AT_TRY(add_lora(c, json_array_get(loras, i), names, store, edits));
    AT_TRY(at_store_edit(store, edits, out));
out:
    at_edits_release(&edits);
    return st;
}

at_status at_case_weights(at_case *c, at_verify_report *r)
{
    subject s = {0};
    at_lora_names *names = NULL;
    at_store *edited = NULL;
    at_status st = AT_OK;

    (void)r;
    AT_TRY(open_subject(c, &s));
    AT_TRY(at_lora_names_new(&names));
    AT_TRY(s.model ? at_model_lora_names(s.model, names) : encoder_names(c, s.encoder, names));
    // A file in another layout is shown in the usual one, and so are its names.
    AT_TRY(at_case_apply_loras(c, s.model ? at_model_store(s.model) : at_encoder_store(s.encoder),
                               names, &edited));
    AT_TRY(put_outputs(c, edited));
out:
    at_store_release(&edited);
    at_lora_names_free(names);
    close_subject(&s);
    return st;
}
