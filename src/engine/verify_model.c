// SPDX-License-Identifier: Apache-2.0
// verify_model.c - denoisers, text encoders and VAEs as components of a case.
// Easy to get wrong: a denoiser's `timestep` is what the network is told (sigma for flow models),
// so no model sampling is applied here; CLIP's EOS is the last id of its vocabulary.
// Owns nothing beyond a call.
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "models/text_bias.h"

static at_status open_model(const at_case *c, at_store **out)
{
    if (!c->model) return at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir);
    return at_store_open(c->model, out);
}

// The first evaluation packs weights; counters are those of the last one.
static double begin_timing(at_case *c)
{
    at_ops_stats_reset(c->ops);
    return at_now();
}

// --- denoisers ----------------------------------------------------------------------------------
enum { MAX_REFS = 8 };

// One rank's share of a forward: its own ops and its own copies of the inputs.
typedef struct rank_job {
    at_case part; // dir, options, inputs, device and dtype of the case; ops of this rank
    at_model *model;
    at_comm *comm; // NULL: one rank
    at_mesh mesh;
    at_tensor *out;
    double seconds;
    at_status st;
    char error[512];
} rank_job;

// The inputs "NAME.0" .. of one list of residuals.
static at_status residual_list(at_case *c, const char *name, const at_tensor **list, bool *any)
{
    at_status st = AT_OK;
    char key[32];
    for (int i = 0; i < AT_CONTROL_MAX && st == AT_OK; i++) {
        at_tensor *t;
        snprintf(key, sizeof key, "%s.%d", name, i);
        st = at_case_input(c, key, true, &t);
        if (t) *any = true;
        list[i] = t;
    }
    return st;
}

// What a ControlNet would add: inputs named as the outputs of "controlnet" (verify_control.c).
static at_status residuals(at_case *c, at_control *out, bool *any)
{
    at_status st = AT_OK;
    at_tensor *middle = NULL;
    *any = false;
    AT_TRY(residual_list(c, "input", out->input, any));
    AT_TRY(residual_list(c, "skip", out->skip, any));
    AT_TRY(residual_list(c, "doubles", out->doubles, any));
    AT_TRY(residual_list(c, "singles", out->singles, any));
    AT_TRY(at_case_input(c, "middle", true, &middle));
    out->middle = middle;
    *any |= middle != NULL;
out:
    return st;
}

// Reference latents "ref.0" .. and how they are placed.
static at_status references(at_case *c, const at_tensor **refs, at_model_in *in)
{
    static const char *const methods[] = {
        [AT_REF_OFFSET] = "offset", [AT_REF_INDEX] = "index", [AT_REF_UXO] = "uxo"};
    const char *method = at_case_text(c, "ref_method", "offset");
    at_status st = AT_OK;
    char key[32];

    for (size_t i = 0; i < MAX_REFS && st == AT_OK; i++) {
        at_tensor *t;
        snprintf(key, sizeof key, "ref.%zu", i);
        st = at_case_input(c, key, true, &t);
        if (!t) break;
        refs[in->n_refs++] = t;
    }
    in->refs = refs;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i], method) == 0) in->ref_method = (at_ref_method)i;
    return st;
}

// Options skip_double and skip_single: the number of a block to leave out.
typedef struct left_out {
    int doubles, singles;
} left_out;
static bool skips(void *self, const at_site *s)
{
    const left_out *l = self;
    return (s->part == AT_SITE_DOUBLE && s->block == l->doubles) ||
           (s->part == AT_SITE_SINGLE && s->block == l->singles);
}
static at_status patches_of(const at_case *c, at_patches **out)
{
    static const at_patch_ops ops = {.name = "skip", .skips = skips};
    left_out l = {(int)at_case_number(c, "skip_double", -1),
                  (int)at_case_number(c, "skip_single", -1)};
    if (l.doubles < 0 && l.singles < 0) return AT_OK;
    left_out *self = at_alloc(sizeof *self);
    if (!self) return at_fail(AT_ENOMEM, "%s: no memory for a patch", c->dir);
    *self = l;
    return at_patches_add(NULL, &ops, self, out);
}

// Input `attn_bias` as StyleModelApply's patch behind *set.
static at_status bias_of(at_case *c, at_patches **set)
{
    at_status st = AT_OK;
    float *values = NULL;
    int64_t n;
    at_tensor *bias = NULL;
    at_patches *more = NULL;

    AT_TRY(at_case_values(c, "attn_bias", true, &values, &n));
    if (!values) goto out;
    const at_weight *w = at_store_find(c->inputs, "attn_bias");
    if (w->rank != 3 || w->shape[0] != 1 || w->shape[1] != w->shape[2])
        AT_TRY(at_fail(AT_EFORMAT, "%s: attn_bias is not [1, n, n]", c->dir));
    AT_TRY(at_tensor_from_host(at_device_cpu(), AT_F32, 3, w->shape, values, &bias));
    AT_TRY(at_text_bias_patch(bias, *set, &more));
    at_patches_release(set);
    *set = more;
out:
    at_tensor_release(&bias);
    at_free(values);
    return st;
}

static at_status forward(rank_job *j)
{
    at_status st = AT_OK;
    at_case *c = &j->part;
    at_tensor *x, *context, *pooled, *concat;
    float *timestep = NULL, *guidance = NULL;
    int64_t n, n_guidance;
    at_control control = {0};
    const at_tensor *refs[MAX_REFS];
    at_patches *patches = NULL;
    bool steered = false;

    AT_TRY(at_case_input(c, "x", false, &x));
    AT_TRY(at_case_input(c, "context", false, &context));
    AT_TRY(at_case_input(c, "y", true, &pooled));
    AT_TRY(at_case_input(c, "concat", true, &concat));
    AT_TRY(residuals(c, &control, &steered));
    AT_TRY(at_case_values(c, "timestep", false, &timestep, &n));
    AT_TRY(at_case_values(c, "guidance", true, &guidance, &n_guidance));
    if (x->rank < 1 || n != x->shape[0] || (guidance && n_guidance != n))
        AT_TRY(at_fail(AT_EFORMAT, "%s: timestep and guidance need one value per batch entry",
                       c->dir));
    at_model_in in = {.x = x,
                      .timestep = timestep,
                      .context = context,
                      .pooled = pooled,
                      .guidance = guidance,
                      .concat = concat,
                      .control = steered ? &control : NULL,
                      .no_guidance = json_is_true(json_object_get(c->options, "no_guidance"))};
    AT_TRY(references(c, refs, &in));
    AT_TRY(patches_of(c, &patches));
    AT_TRY(bias_of(c, &patches));
    in.patches = patches;
    for (int i = 0; i < c->repeat; i++) {
        double start = begin_timing(c);
        j->out = at_model_forward(c->ops, j->model, &in);
        j->seconds = at_now() - start;
    }
out:
    if (st != AT_OK) at_ops_poison(c->ops, st, "%s", at_error_text());
    at_patches_release(&patches);
    at_free(timestep);
    at_free(guidance);
    return at_ops_vote(c->ops);
}

// The axis that this network is made for (rows of its maps, or tokens), or the one that was asked for.
static at_degrees degrees_of(const rank_job *j)
{
    unsigned axes = at_model_estimate(j->model, 1, 8, 8, 8, AT_F32).share.axes;
    at_degrees d = {0};

    at_axis axis = axes & 1u << AT_AXIS_PATCH ? AT_AXIS_PATCH : AT_AXIS_ULYSSES;
    d.of[j->part.layers ? AT_AXIS_TP : axis] = j->comm->size;
    return d;
}

// Its mesh and ops; all ranks have theirs, or none goes on and waits for those that lack them.
static at_status begin_rank(rank_job *j)
{
    at_degrees degrees = degrees_of(j);
    at_ops_config config = {
        .device = j->part.device, .compute = j->part.dtype, .mesh = &j->mesh, .fp8 = j->part.fp8};
    char text[512] = "another rank could not begin";
    int result = 0;

    at_status st = at_mesh_open(j->comm, &degrees, &j->mesh);
    if (st == AT_OK) st = at_ops_new(&config, &j->part.ops);
    if (st != AT_OK) {
        snprintf(text, sizeof text, "%s", at_error_text());
        j->comm->ops->abort(j->comm, (int)st);
    }
    at_status vote = j->comm->ops->vote(j->comm, (int)st, &result);
    if (st == AT_OK) st = vote == AT_OK ? (at_status)result : vote;
    return st == AT_OK ? AT_OK : at_fail(st, "%s", text);
}

static void *run_rank(void *arg)
{
    rank_job *j = arg;

    j->st = begin_rank(j);
    if (j->st == AT_OK) j->st = forward(j);
    if (j->st != AT_OK) snprintf(j->error, sizeof j->error, "%s", at_error_text());
    return NULL;
}

// The ranks' threads, started and joined; the first failure of any.
static at_status run_ranks(at_case *c, at_model *model, rank_job *jobs, at_comm **comms)
{
    at_status st = AT_OK;
    pthread_t threads[AT_CASE_RANKS];
    int started = 0;

    AT_TRY(at_comm_threads(c->ranks, comms));
    for (int r = 0; r < c->ranks; r++)
        jobs[r] = (rank_job){.part = {.dir = c->dir,
                                      .options = c->options,
                                      .inputs = c->inputs,
                                      .device = c->device,
                                      .dtype = c->dtype,
                                      .fp8 = c->fp8,
                                      .layers = c->layers,
                                      .repeat = c->repeat},
                             .model = model,
                             .comm = comms[r]};
    for (; started < c->ranks; started++)
        if (pthread_create(&threads[started], NULL, run_rank, &jobs[started]) != 0) break;
    if (started < c->ranks) comms[0]->ops->abort(comms[0], AT_ENOMEM);
    for (int r = 0; r < started; r++)
        pthread_join(threads[r], NULL);
    if (started < c->ranks) AT_TRY(at_fail(AT_ENOMEM, "%s: no thread for a rank", c->dir));
    for (int r = 0; r < c->ranks; r++)
        if (jobs[r].st != AT_OK) AT_TRY(at_fail(jobs[r].st, "rank %d: %s", r, jobs[r].error));
out:
    return st;
}

static at_status denoise_on_ranks(at_case *c, at_model *model, at_verify_report *r)
{
    at_status st = AT_OK;
    rank_job jobs[AT_CASE_RANKS] = {0};
    at_comm *comms[AT_CASE_RANKS] = {0};

    if (c->ranks > AT_CASE_RANKS)
        AT_TRY(at_fail(AT_EINVAL, "%d ranks; at most %d", c->ranks, AT_CASE_RANKS));
    AT_TRY(run_ranks(c, model, jobs, comms));
    for (int i = 0; i < c->ranks; i++)
        AT_TRY(at_case_output_tensor(c, "out", jobs[i].out));
    r->seconds = jobs[0].seconds;
out:
    for (int i = 0; i < AT_CASE_RANKS; i++) {
        at_ops_free(jobs[i].part.ops);
        at_mesh_close(&jobs[i].mesh);
        at_comm_free(comms[i]);
    }
    return st;
}

static at_status denoise_alone(at_case *c, at_model *model, at_verify_report *r)
{
    at_status st = AT_OK;
    rank_job j = {.part = *c, .model = model};

    AT_TRY(forward(&j));
    r->seconds = j.seconds;
    r->blocks = at_model_block_seconds(r->block_seconds, 64);
    AT_TRY(at_case_output_tensor(c, "out", j.out));
out:
    return st;
}

// The same network under options.loras.
static at_status put_loras(at_case *c, at_model **model)
{
    at_lora_names *names = NULL;
    at_store *edited = NULL;
    at_model *changed = NULL;
    at_status st = AT_OK;

    if (!json_object_get(c->options, "loras")) return AT_OK;
    AT_TRY(at_lora_names_new(&names));
    AT_TRY(at_model_lora_names(*model, names));
    AT_TRY(at_case_apply_loras(c, at_model_store(*model), names, &edited));
    AT_TRY(at_model_with_store(*model, edited, &changed));
    at_model_release(model);
    *model = changed;
out:
    at_lora_names_free(names);
    at_store_release(&edited);
    return st;
}

at_status at_case_denoiser(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *store = NULL;
    at_model *model = NULL;

    AT_TRY(open_model(c, &store));
    AT_TRY(at_model_load(store, c->model, &model));
    AT_TRY(put_loras(c, &model));
    AT_TRY(c->ranks > 1 ? denoise_on_ranks(c, model, r) : denoise_alone(c, model, r));
out:
    at_model_release(&model);
    at_store_release(&store);
    return st;
}

// --- text encoders ------------------------------------------------------------------------------
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
    at_encoded out = {0};
    for (int i = 0; i < c->repeat; i++) {
        double start = begin_timing(c);
        out = at_encoder_forward(c->ops, e, &in);
        r->seconds = at_now() - start;
    }
    AT_TRY(at_case_output_tensor(c, "hidden", out.hidden));
    AT_TRY(at_case_output_tensor(c, "pooled", out.pooled));
    AT_TRY(at_case_output_tensor(c, "pooled_projected", out.pooled_projected));
out:
    at_free(ids);
    at_encoder_release(&e);
    at_store_release(&store);
    return st;
}

// --- VAEs ---------------------------------------------------------------------------------------
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
    at_tensor *out = NULL;
    for (int i = 0; i < c->repeat; i++) {
        double start = begin_timing(c);
        out = network(c->ops, vae, x);
        r->seconds = at_now() - start;
    }
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
