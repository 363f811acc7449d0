// SPDX-License-Identifier: Apache-2.0
// verify_model.c - denoisers, text encoders and VAEs as components of a case.
// Easy to get wrong: a denoiser's `timestep` is what the network is told (sigma for flow models), so no
// model sampling is applied here; CLIP's EOS is the last id of its vocabulary.
// Owns nothing beyond a call.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"

static at_status open_model(const at_case *c, at_store **out)
{
    if (!c->model) return at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir);
    return at_store_open(c->model, out);
}

at_status at_case_denoiser(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *store = NULL;
    at_model *model = NULL;
    at_tensor *x, *context, *pooled;
    float *timestep = NULL, *guidance = NULL;
    int64_t n, n_guidance;

    AT_TRY(open_model(c, &store));
    AT_TRY(at_model_load(store, c->model, &model));
    AT_TRY(at_case_input(c, "x", false, &x));
    AT_TRY(at_case_input(c, "context", false, &context));
    AT_TRY(at_case_input(c, "y", true, &pooled));
    AT_TRY(at_case_values(c, "timestep", false, &timestep, &n));
    AT_TRY(at_case_values(c, "guidance", true, &guidance, &n_guidance));
    if (n != x->shape[0] || (guidance && n_guidance != n))
        AT_TRY(at_fail(AT_EFORMAT, "%s: timestep and guidance need one value per batch entry",
                       c->dir));

    double start = at_now();
    at_tensor *out = at_model_forward(c->ops, model,
                                      &(at_model_in){.x = x,
                                                     .timestep = timestep,
                                                     .context = context,
                                                     .pooled = pooled,
                                                     .guidance = guidance});
    r->seconds = at_now() - start;
    r->blocks = at_model_block_seconds(r->block_seconds, 64);
    AT_TRY(at_case_output_tensor(c, "out", out));
out:
    at_free(timestep);
    at_free(guidance);
    at_model_release(&model);
    at_store_release(&store);
    return st;
}

// The encoder that options.kind names ("clip_l", "t5"), or the file's only one.
static at_status load_encoder(const at_case *c, at_store *s, at_encoder **out)
{
    at_found found[8];
    size_t n = at_detect(s, found, 8);
    const char *kind = at_case_text(c, "kind", NULL);
    for (size_t i = 0; i < n; i++) {
        if (found[i].part != AT_PART_TEXT) continue;
        if (kind && strcmp(kind, at_arch_name(found[i].arch)) != 0) continue;
        return at_encoder_load(s, &found[i], out);
    }
    return at_fail(AT_EFORMAT, "%s: no text encoder%s%s in %s", c->dir, kind ? " of kind " : "",
                   kind ? kind : "", at_store_path(s));
}

static at_status read_ids(at_case *c, const char *name, int32_t **out, int64_t *rows, int64_t *cols)
{
    at_status st = AT_OK;
    float *values = NULL;
    int64_t n;

    AT_TRY(at_case_values(c, name, false, &values, &n));
    const at_weight *w = at_store_find(c->inputs, name);
    if (w->rank != 2) AT_TRY(at_fail(AT_EFORMAT, "%s: input %s is not [b, t]", c->dir, name));
    *rows = w->shape[0];
    *cols = w->shape[1];
    *out = at_alloc((size_t)n * sizeof **out);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %s", c->dir, name));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)values[i];
out:
    at_free(values);
    return st;
}

at_status at_case_text_encoder(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *store = NULL;
    at_encoder *e = NULL;
    int32_t *ids = NULL;
    at_encode_in in = {.eos = -1};

    AT_TRY(open_model(c, &store));
    AT_TRY(load_encoder(c, store, &e));
    AT_TRY(read_ids(c, "tokens", &ids, &in.batch, &in.tokens));
    in.ids = ids;
    in.layer = (int)at_case_number(c, "layer", 0);
    in.final_norm = json_is_true(json_object_get(c->options, "final_norm"));
    if (at_store_find(c->expected, "pooled"))
        in.eos = (int32_t)at_case_number(c, "eos", (double)(at_encoder_vocab(e) - 1));
    double start = at_now();
    at_encoded out = at_encoder_forward(c->ops, e, &in);
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "hidden", out.hidden));
    AT_TRY(at_case_output_tensor(c, "pooled", out.pooled));
    AT_TRY(at_case_output_tensor(c, "pooled_projected", out.pooled_projected));
out:
    at_free(ids);
    at_encoder_release(&e);
    at_store_release(&store);
    return st;
}

static at_status run_vae(at_case *c, at_verify_report *r,
                         at_tensor *(*network)(at_ops *, at_vae *, const at_tensor *))
{
    at_status st = AT_OK;
    at_store *store = NULL;
    at_vae *vae = NULL;
    at_tensor *x;

    AT_TRY(open_model(c, &store));
    AT_TRY(at_vae_load(store, c->model, &vae));
    AT_TRY(at_case_input(c, "x", false, &x));
    double start = at_now();
    at_tensor *out = network(c->ops, vae, x);
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "out", out));
out:
    at_vae_release(&vae);
    at_store_release(&store);
    return st;
}

at_status at_case_vae_decode(at_case *c, at_verify_report *r)
{
    return run_vae(c, r, at_vae_decode_raw);
}

at_status at_case_vae_encode(at_case *c, at_verify_report *r)
{
    return run_vae(c, r, at_vae_encode_raw);
}
