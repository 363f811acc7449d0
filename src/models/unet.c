// SPDX-License-Identifier: Apache-2.0
// unet.c - the latent-diffusion UNet as a list of blocks: SD1, SD2, SDXL, refiner and the nets pruned
// from them. What tells them apart is read off the file (unet_shape.c); their rows are in unet_arch.c.
// Idea: input blocks keep their results as skips, the output half takes them back in reverse order.
// Easy to get wrong:
//   - skips outlive their blocks: the state holds counted references, and finish() drops what is left
//     after a failure
//   - ControlNet residuals are added to skips when they are taken, not when they are kept; a middle
//     residual counts also where the net has no middle
//   - patches before the skip change both ways, patches after it only the way on
// Owns nothing beyond the state of a forward.
#include "models/unet.h"

#include <math.h>
#include <stdio.h>

typedef struct unet_state {
    at_unet_pass pass;
    at_tensor *skips[AT_UNET_BLOCKS]; // counted
    int kept;
} unet_state;

enum { GROUPS = 32, MOST_TEXT = 1 << 27 };
static const float out_eps = 1e-5f;

const char *at_unet_measure(at_store *s, const char *prefix, void *config)
{
    const char *why = at_unet_measure_input(s, prefix, config);
    return why ? why : at_unet_measure_output(s, prefix, config);
}

// --- binding -----------------------------------------------------------------------------------
static const at_bind_row rows_out[] = {
    {.key = "out.0.weight",
     .offset = offsetof(at_unet_weights, norm.w),
     .rank = 1,
     .dim = {AT_FIELD(at_unet_shape, channels)}},
    {.key = "out.0.bias",
     .offset = offsetof(at_unet_weights, norm.b),
     .rank = 1,
     .dim = {AT_FIELD(at_unet_shape, channels)}},
    {.key = "out.2.weight",
     .offset = offsetof(at_unet_weights, out.w),
     .rank = 4,
     .dim = {AT_FIELD(at_unet_shape, out), AT_FIELD(at_unet_shape, channels)}},
    {.key = "out.2.bias",
     .offset = offsetof(at_unet_weights, out.b),
     .rank = 1,
     .dim = {AT_FIELD(at_unet_shape, out)}},
};

void at_unet_bind(at_binder *b, const void *config, void *weights)
{
    const at_unet_shape *s = config;
    at_unet_weights *w = weights;

    at_unet_bind_embedding(b, s, &w->embedding);
    for (int i = 0; i < s->blocks; i++)
        at_unet_bind_block(b, s, false, i, &w->pool, &w->input[i]);
    at_unet_bind_middle(b, s, &w->pool, &w->middle, &w->middle_last);
    for (int i = 0; i < s->blocks; i++)
        at_unet_bind_block(b, s, true, i, &w->pool, &w->output[i]);
    at_bind_rows(b, "", rows_out, AT_LEN(rows_out), s, w);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *check_inputs(at_ops *o, const at_bound *m, const at_model_in *in)
{
    const at_unet_shape *s = m->config;
    int64_t behind = in->concat && in->concat->rank == 4 ? in->concat->shape[1] : 0;

    if (in->x->rank != 4 || in->x->shape[1] + behind != s->in)
        return at_ops_poison(
            o, AT_EINVAL, "%s takes %lld channels, not a latent of %lld and %lld behind it",
            m->arch->title, (long long)s->in, (long long)in->x->shape[1], (long long)behind);
    if ((s->context && in->context->shape[2] != s->context) ||
        in->context->shape[0] != in->x->shape[0])
        return at_ops_poison(
            o, AT_EINVAL,
            "%s takes text of width %lld and batch %lld, not %lld and %lld; use the text encoders "
            "that belong to it",
            m->arch->title, (long long)s->context, (long long)in->x->shape[0],
            (long long)in->context->shape[2], (long long)in->context->shape[0]);
    return (at_tensor *)in->x;
}

// The residual blocks of a net in the order in which they run; fills at most `max`.
static int residual_blocks(const at_unet_shape *s, const at_unet_weights *w,
                           const at_unet_res **out, int max)
{
    int n = 0;
    for (int i = 0; i < s->blocks && n < max; i++)
        if (s->input[i].kind == AT_UNET_RES) out[n++] = &w->input[i].res;
    if (s->middle >= -1 && n < max) out[n++] = &w->middle.res;
    if (s->middle >= 0 && n < max) out[n++] = &w->middle_last;
    for (int i = 0; i < s->blocks && n < max; i++)
        out[n++] = &w->output[i].res;
    return n;
}

// The embedding, and every residual block's term of it.
static at_tensor *prepare(at_ops *o, const at_bound *m, const at_model_in *in, int64_t n)
{
    const at_unet_shape *s = m->config;
    const at_unet_weights *w = m->weights;
    const at_unet_res *res[2 * AT_UNET_BLOCKS + 2];
    int count = residual_blocks(s, w, res, AT_LEN(res));
    int64_t width = 0, at = 0;

    at_tensor *emb = at_unet_embed(o, &w->embedding, s, in->timestep, in->pooled, NULL, n);
    for (int i = 0; i < count; i++)
        width += res[i]->emb.w->shape[0];
    at_tensor *all = at_empty(o, at_ops_compute(o), 2, (int64_t[]){n, width});
    for (int i = 0; i < count; i++) {
        at_tensor *part = at_narrow(o, all, 1, at, res[i]->emb.w->shape[0]);
        at_linear(at_into(o, part), emb, res[i]->emb.w, res[i]->emb.b, NULL);
        at += res[i]->emb.w->shape[0];
    }
    return all;
}

// The transformers of a net in the order in which they run; fills at most `max`.
static int transformers(const at_unet_shape *s, const at_unet_weights *w,
                        const at_unet_transformer **out, int max)
{
    int n = 0;
    for (int i = 0; i < s->blocks && n < max; i++)
        if (w->input[i].transformer.norm.w) out[n++] = &w->input[i].transformer;
    if (s->middle >= -1 && w->middle.transformer.norm.w && n < max)
        out[n++] = &w->middle.transformer;
    for (int i = 0; i < s->blocks && n < max; i++)
        if (w->output[i].transformer.norm.w) out[n++] = &w->output[i].transformer;
    return n;
}

// Keys and values of the text for every layer, one behind the other.
static at_tensor *text(at_ops *o, const at_bound *m, const at_model_in *in)
{
    const at_unet_shape *s = m->config;
    const at_unet_transformer *t[2 * AT_UNET_BLOCKS + 1];
    int count = transformers(s, m->weights, t, AT_LEN(t));
    int64_t b = in->context->shape[0], n = in->context->shape[1], columns = 0, at = 0;

    if (in->context->shape[2] != s->context) return NULL; // the prologue says so
    for (int i = 0; i < count; i++)
        for (int64_t k = 0; k < t[i]->depth; k++)
            columns += 2 * at_ops_own_features(o, t[i]->layers[k].cross.k);
    if (!columns || b * n > MOST_TEXT / columns) return NULL;
    at_tensor *all = at_empty(o, at_ops_compute(o), 1, (int64_t[]){b * n * columns});
    at_tensor *context = at_cast(o, in->context, at_ops_compute(o));
    for (int i = 0; i < count; i++)
        for (int64_t k = 0; k < 2 * t[i]->depth; k++) {
            const at_unet_attention *c = &t[i]->layers[k / 2].cross;
            const at_weight *w = k % 2 ? c->v : c->k;
            int64_t own = at_ops_own_features(o, w), shape[] = {b, n, own}, size = b * n * own;
            at_tensor *part = at_reshape(o, at_narrow(o, all, 0, at, size), 3, shape);
            at_linear(at_into(o, part), context, w, NULL, NULL);
            at += size;
        }
    return all;
}

static at_tensor *prologue(at_ops *o, const at_bound *m, void *state, const at_model_in *in)
{
    at_unet_pass *p = &((unet_state *)state)->pass;

    if (!check_inputs(o, m, in)) return NULL;
    p->in = in;
    p->site = (at_site){.in = in};
    p->terms = in->made->cond;
    p->text = at_patches_count(in->patches) ? NULL : in->made->text;
    p->context = at_cast(o, in->context, at_ops_compute(o));
    at_tensor *x = at_unet_pixels(o, in->x, in->concat);
    // Patches are written for whole maps: with them every rank computes all rows.
    return at_patches_count(in->patches) ? x : at_split_rows(o, x);
}

// A ControlNet's ranks share its rows also where this network's, for its patches, have all.
static at_tensor *add(at_ops *o, at_tensor *x, const at_tensor *residual)
{
    if (residual && x && !x->run.rows) residual = at_gather_rows(o, residual);
    return residual ? at_add(o, x, residual) : x;
}

static void set_site(unet_state *st, at_site_part part, int block, const at_tensor *h)
{
    st->pass.site.part = part;
    st->pass.site.block = block;
    st->pass.site.h = h ? h->shape[1] : 0;
    st->pass.site.w = h ? h->shape[2] : 0;
}

static at_tensor *input_block(at_ops *o, const at_bound *m, unet_state *st, int i, at_tensor *h)
{
    const at_unet_shape *s = m->config;
    const at_unet_weights *w = m->weights;
    const at_model_in *in = st->pass.in;

    set_site(st, AT_SITE_INPUT, i, h);
    h = at_unet_block_forward(o, &w->input[i], s->input[i].kind, &st->pass, h);
    set_site(st, AT_SITE_INPUT, i, h);
    if (in->control) h = add(o, h, in->control->input[i]);
    h = at_patch_before_skip(o, in->patches, &st->pass.site, h);
    st->skips[st->kept++] = at_ops_keep(o, h);
    return at_patch_after_skip(o, in->patches, &st->pass.site, h);
}

static at_tensor *middle_block(at_ops *o, const at_bound *m, unet_state *st, at_tensor *h)
{
    const at_unet_shape *s = m->config;
    const at_unet_weights *w = m->weights;
    const at_control *control = st->pass.in->control;

    set_site(st, AT_SITE_MIDDLE, 0, h);
    if (s->middle >= -1) h = at_unet_block_forward(o, &w->middle, AT_UNET_RES, &st->pass, h);
    if (s->middle >= 0) h = at_unet_res_forward(o, &w->middle_last, &st->pass, h);
    return control ? add(o, h, control->middle) : h;
}

static at_tensor *output_block(at_ops *o, const at_bound *m, unet_state *st, int i, at_tensor *h)
{
    const at_unet_weights *w = m->weights;
    const at_model_in *in = st->pass.in;
    int from = --st->kept; // the input block that kept this skip

    at_tensor *skip = at_ops_adopt(o, st->skips[from]);
    st->skips[from] = NULL;
    if (in->control) skip = add(o, skip, in->control->skip[from]);
    set_site(st, AT_SITE_OUTPUT, i, h);
    at_patch_join(o, in->patches, &st->pass.site, &h, &skip);
    h = at_concat(o, 3, 2, (const at_tensor *[]){h, skip});
    h = at_unet_block_forward(o, &w->output[i], AT_UNET_RES, &st->pass, h);
    if (!w->output[i].up.w || !h) return h;
    const at_tensor *next = st->kept ? st->skips[st->kept - 1] : NULL;
    return at_unet_upsample(o, w->output[i].up, h, next ? at_map_rows(next) : 2 * at_map_rows(h),
                            next ? next->shape[2] : 2 * h->shape[2]);
}

static at_tensor *block(at_ops *o, const at_bound *m, void *state, int i, at_tensor *h)
{
    int n = (int)((const at_unet_shape *)m->config)->blocks;
    if (i < n) return input_block(o, m, state, i, h);
    if (i == n) return middle_block(o, m, state, h);
    return output_block(o, m, state, i - n - 1, h);
}

static at_tensor *epilogue(at_ops *o, const at_bound *m, void *state, at_tensor *h)
{
    const at_unet_weights *w = m->weights;
    (void)state;
    h = at_group_norm(o, h, w->norm.w, w->norm.b, GROUPS, out_eps, AT_ACT_SILU);
    h = at_gather_rows(o, at_unet_conv(o, h, w->out, 1));
    return at_cast(o, at_contiguous(o, at_permute(o, h, (int[]){0, 3, 1, 2})), AT_F32);
}

static void finish(void *state)
{
    unet_state *st = state;
    for (int i = 0; i < AT_UNET_BLOCKS; i++)
        at_tensor_release(&st->skips[i]);
}

static int blocks(const void *config)
{
    return 2 * (int)((const at_unet_shape *)config)->blocks + 1;
}

// --- cost --------------------------------------------------------------------------------------
// Sides at each level: a strided convolution rounds up.
typedef struct cost_walk {
    double flops, skips, peak, text;
    double across; // elements that a rank of many reads of the others' rows: keys and values
    int ops;       // kernels, about
    int meetings;  // halos of convolutions, sums of group norms, keys and values
    int sums;      // behind layers whose columns ranks share,
    double summed; // of so many elements,
    double layers; // in so many operations
} cost_walk;

static void cost_block(const at_unet_shape *s, const at_unet_block_shape *b, double pixels,
                       cost_walk *w)
{
    double peak;
    w->flops += at_unet_block_flops(s, b, pixels, w->text, &peak);
    if (w->skips + peak > w->peak) w->peak = w->skips + peak;
    w->meetings += b->kind == AT_UNET_RES ? 4 : 1;
    w->ops += b->kind == AT_UNET_RES ? 7 : 2;
    if (b->kind == AT_UNET_RES && b->depth >= 0) {
        w->meetings += 1 + (int)b->depth;
        w->ops += 3 + 15 * (int)b->depth;
        w->across += 2 * pixels * (double)b->out * (double)b->depth;
        w->sums += 3 * (int)b->depth;
        w->summed += 3 * pixels * (double)b->out * (double)b->depth;
        w->layers += (double)b->depth * at_unet_layer_flops(s, b, pixels, w->text);
    }
}

static void cost(const void *config, int64_t batch, int64_t latent_h, int64_t latent_w,
                 int64_t text_tokens, at_dtype compute, at_model_cost *out)
{
    const at_unet_shape *s = config;
    cost_walk w = {.text = (double)text_tokens};
    double h[AT_UNET_BLOCKS + 1], wd[AT_UNET_BLOCKS + 1], size[AT_UNET_BLOCKS] = {0};
    int level = 0;

    h[0] = (double)latent_h;
    wd[0] = (double)latent_w;
    for (int i = 0; i < s->blocks; i++) {
        if (s->input[i].kind == AT_UNET_DOWN) {
            level++;
            h[level] = ceil(h[level - 1] / 2);
            wd[level] = ceil(wd[level - 1] / 2);
        }
        cost_block(s, &s->input[i], h[level] * wd[level], &w);
        size[i] = h[level] * wd[level] * (double)s->input[i].out;
        w.skips += size[i];
    }
    at_unet_block_shape mid = {.kind = AT_UNET_RES, .in = s->width, .out = s->width, .depth = -1};
    if (s->middle >= 0) cost_block(s, &mid, h[level] * wd[level], &w);
    mid.depth = s->middle;
    if (s->middle >= -1) cost_block(s, &mid, h[level] * wd[level], &w);
    for (int i = 0; i < s->blocks; i++) {
        const at_unet_block_shape *b = &s->output[i];
        w.skips -= size[s->blocks - 1 - i];
        cost_block(s, b, h[level] * wd[level], &w);
        if (b->up && level > 0) {
            level--;
            w.flops += 2 * 9 * (double)b->out * (double)b->out * h[level] * wd[level];
        }
    }
    double emb = (double)s->emb;
    w.flops += 2 * emb * (double)s->channels + 2 * emb * emb +
               2 * 9 * (double)s->channels * (double)s->out * h[0] * wd[0];
    if (s->adm) w.flops += 2 * emb * (double)s->adm + 2 * emb * emb;
    out->flops = (double)batch * w.flops;
    out->activation_bytes = (double)batch * w.peak * (double)at_dtype_size(compute);
    out->share = (at_share_hints){.axes = 1u << AT_AXIS_PATCH | 1u << AT_AXIS_TP,
                                  .rows = latent_h,
                                  .map_meetings = w.meetings + 2,
                                  .ops = w.ops + 8,
                                  .efficiency = 0.75, // convolutions and narrow layers
                                  .map_bytes = w.across * (double)at_dtype_size(compute),
                                  .tp_meetings = w.sums,
                                  .tp_bytes = w.summed * (double)at_dtype_size(compute),
                                  .tp_flops = w.layers};
}

const at_denoiser_ops at_unet_ops = {
    .state_size = sizeof(unet_state),
    .channels = AT_FIELD(at_unet_shape, in),
    .context = AT_FIELD(at_unet_shape, context),
    .vector = AT_FIELD(at_unet_shape, adm),
    .text_repeats = true,
    .blocks = blocks,
    .prepare = prepare,
    .text = text,
    .prologue = prologue,
    .block = block,
    .epilogue = epilogue,
    .finish = finish,
    .cost = cost,
};
