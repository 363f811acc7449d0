// SPDX-License-Identifier: Apache-2.0
// flux_blocks.c - Flux.1's blocks: text and image tokens side by side, then as one stream.
// Idea: see flux.c. A fused layer whose weights lie apart in the file writes its parts side by side
// into the same buffer, so everything behind it is the same for both layouts.
// Easy to get wrong:
//   - joint order is text first, then image
//   - a patch is packed channel slowest: token feature = c * 4 + row * 2 + column
//   - modulation chunks are shift, scale, gate
//   - rotary pairs are neighbours (0,1)(2,3); the axes share the head as d/8, 7d/16, 7d/16
//   - guidance and timestep are multiplied by 1000 before the sinusoid
//   - a residual may cover fewer image tokens than there are (reference latents stand behind)
//   - the order of a call's arguments is free in C: beside at_into(...) no other argument may pass
//     a door, or that door takes what was meant for the outer one (and refuses it)
// Owns nothing: tensors belong to op scopes.
#include "models/flux_blocks.h"

static const double rope_theta = 10000.0;
static const float norm_eps = 1e-6f;

// --- prologue ----------------------------------------------------------------------------------
static at_tensor *linear(at_ops *o, const at_tensor *x, at_lin l, const at_linear_extra *extra)
{
    return at_linear(o, x, l.w, l.b, extra);
}

static at_tensor *embed(at_ops *o, const at_tensor *x, const at_flux_embedder *e)
{
    at_tensor *h = linear(o, x, e->in, &(at_linear_extra){.act = AT_ACT_SILU});
    return linear(o, h, e->out, NULL);
}

// Sinusoid of 1000 * t, through its embedder.
static at_tensor *embed_scalar(at_ops *o, const at_flux_config *c, const float *t, int64_t b,
                               const at_flux_embedder *e)
{
    float scaled[AT_FLUX_MAX_BATCH];
    if (b > (int64_t)AT_LEN(scaled))
        return at_ops_poison(o, AT_EINVAL, "a batch of %lld is more than %d", (long long)b,
                             (int)AT_LEN(scaled));
    for (int64_t i = 0; i < b; i++)
        scaled[i] = 1000.0f * t[i];
    return embed(o, at_timestep_embedding(o, scaled, b, (int)c->time, 10000.0, true), e);
}

// silu(time + guidance + pooled): what every modulation starts from.
static at_tensor *condition(at_ops *o, const at_flux_config *c, const at_flux_weights *w,
                            const at_model_in *in, int64_t b)
{
    at_tensor *vec = embed_scalar(o, c, in->timestep, b, &w->time);
    if (c->guidance && !in->no_guidance) {
        float usual[AT_FLUX_MAX_BATCH];
        for (size_t i = 0; i < AT_LEN(usual); i++)
            usual[i] = 3.5f;
        vec = at_add(o, vec,
                     embed_scalar(o, c, in->guidance ? in->guidance : usual, b, &w->guidance));
    }
    const at_tensor *pooled = in->pooled;
    if (!pooled) pooled = at_zeros(o, at_ops_compute(o), 2, (int64_t[]){b, c->vec});
    if (pooled && pooled->rank == 2 && pooled->shape[1] > c->vec)
        pooled = at_narrow(o, pooled, 1, 0, c->vec); // ComfyUI cuts longer ones
    vec = at_add(o, vec, embed(o, pooled, &w->vec));
    return at_unary(o, vec, AT_ACT_SILU);
}

// One more row and column that repeat the first ones, where a side is odd.
const at_tensor *at_flux_pad_even(at_ops *o, const at_tensor *x)
{
    for (int dim = 2; x && dim < 4; dim++) {
        if (x->shape[dim] % 2 == 0) continue;
        const at_tensor *parts[] = {x, at_narrow(o, x, dim, 0, 1)};
        x = at_concat(o, dim, 2, parts);
    }
    return x;
}

// [b, c, h, w] -> [b, h/2 * w/2, c * 4]
at_tensor *at_flux_tokens(at_ops *o, const at_tensor *x)
{
    if (!x) return NULL;
    int64_t b = x->shape[0], c = x->shape[1], h = x->shape[2] / 2, w = x->shape[3] / 2;
    at_tensor *t = at_reshape(o, x, 6, (int64_t[]){b, c, h, 2, w, 2});
    t = at_permute(o, t, (int[]){0, 2, 4, 1, 3, 5});
    return at_reshape(o, t, 3, (int64_t[]){b, h * w, c * 4});
}

// --- positions ---------------------------------------------------------------------------------
// Write (layer, y0 + row, x0 + column) of rows x cols patches; returns what is behind them.
static float *grid(float *p, int64_t layer, int64_t y0, int64_t x0, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows * cols; i++) {
        *p++ = (float)layer;
        *p++ = (float)(y0 + i / cols);
        *p++ = (float)(x0 + i % cols);
    }
    return p;
}

static int64_t patches(int64_t side)
{
    return (side + 1) / 2;
}

// Positions of reference latents, by ComfyUI 0.3.64's three methods (ldm/flux/model.py). Sizes and
// places are counted in latent cells and turned into patches last.
static void ref_positions(const at_flux_state *s, const at_model_in *in, float *p)
{
    int64_t high = 0, wide = 0;
    for (size_t i = 0; i < in->n_refs; i++) {
        int64_t h = in->refs[i]->shape[2], w = in->refs[i]->shape[3], layer = 1, y = 0, x = 0;
        switch (in->ref_method) {
        case AT_REF_INDEX: layer = (int64_t)i + 1; break;
        case AT_REF_UXO:
            layer = 0;
            y = s->rows * 2 + high;
            x = s->cols * 2 + wide;
            high += h;
            wide += w;
            break;
        case AT_REF_OFFSET: // beside or below what is there, where that stays smaller
            if (h + high > w + wide)
                x = wide;
            else
                y = high;
            high = high > h + y ? high : h + y;
            wide = wide > w + x ? wide : w + x;
            break;
        }
        p = grid(p, layer, patches(y), patches(x), patches(h), patches(w));
    }
}

// Zero for text, (0, row, column) for the picture, then references.
static at_rope_table rope_for(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                              const at_model_in *in, int64_t text)
{
    int64_t n = text + s->all_image, shape[] = {n, 3};
    at_tensor *ids = NULL;
    at_rope_table none = {0};
    int d = (int)c->head_dim, axes[] = {d / 8, 7 * d / 16, 7 * d / 16};

    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 2, shape, &ids);
    if (st != AT_OK) {
        at_ops_poison(o, st, "positions of %lld tokens: %s", (long long)n, at_error_text());
        return none;
    }
    float *p = at_tensor_data(ids);
    for (int64_t i = 0; i < 3 * text; i++)
        *p++ = 0;
    p = grid(p, 0, 0, 0, s->rows, s->cols);
    ref_positions(s, in, p);
    at_rope_table t = at_rope_make(o, n, 3, axes, at_tensor_data(ids), rope_theta);
    at_tensor_release(&ids);
    return t;
}

static at_rope_table rope_part(at_ops *o, at_rope_table t, int64_t start, int64_t n)
{
    return (at_rope_table){at_narrow(o, t.cos, 0, start, n), at_narrow(o, t.sin, 0, start, n)};
}

// This rank's tokens of a table: the split is over dimension 1.
static at_tensor *split_table(at_ops *o, const at_tensor *t)
{
    if (!t || at_ops_token_ranks(o) == 1) return (at_tensor *)t;
    int64_t n = t->shape[0], d = t->shape[1];
    at_tensor *s = at_share_tokens(o, at_reshape(o, t, 3, (int64_t[]){1, n, d}));
    return s ? at_reshape(o, s, 2, (int64_t[]){s->shape[1], d}) : NULL;
}

static void make_rope(at_ops *o, const at_flux_config *c, at_flux_state *s, const at_model_in *in,
                      int64_t text)
{
    const at_made *made = in->made;
    at_rope_table all = made && made->tables ? (at_rope_table){made->tables[0], made->tables[1]}
                                             : rope_for(o, c, s, in, text);
    at_rope_table txt = rope_part(o, all, 0, text);
    at_rope_table img = rope_part(o, all, text, s->all_image);
    s->rope_text = (at_rope_table){split_table(o, txt.cos), split_table(o, txt.sin)};
    s->rope_image = (at_rope_table){split_table(o, img.cos), split_table(o, img.sin)};
    s->rope = all;
    if (at_ops_token_ranks(o) == 1) return;
    s->rope.cos = at_concat(o, 0, 2, (const at_tensor *[]){s->rope_text.cos, s->rope_image.cos});
    s->rope.sin = at_concat(o, 0, 2, (const at_tensor *[]){s->rope_text.sin, s->rope_image.sin});
}

// Sizes of the latent and of everything behind it.
static void measure(const at_model_in *in, at_flux_state *s)
{
    s->batch = in->x->shape[0];
    s->height = in->x->shape[2];
    s->width = in->x->shape[3];
    s->rows = patches(s->height);
    s->cols = patches(s->width);
    s->all_image = s->rows * s->cols;
    for (size_t i = 0; i < in->n_refs; i++)
        s->all_image += patches(in->refs[i]->shape[2]) * patches(in->refs[i]->shape[3]);
}

void at_flux_tables(at_ops *o, const at_flux_config *c, const at_model_in *in,
                    at_tensor *out[AT_MADE_TABLES])
{
    at_flux_state s = {0};
    measure(in, &s);
    at_rope_table t = rope_for(o, c, &s, in, in->context->shape[1]);
    out[0] = t.cos;
    out[1] = t.sin;
}

bool at_flux_begin(at_ops *o, const at_arch *a, const at_flux_config *c, const at_flux_weights *w,
                   at_flux_state *s, const at_model_in *in, int64_t more_text)
{
    const at_tensor *x = in->x, *text = in->context;
    if (x->rank != 4 || x->shape[1] != c->channels) {
        at_ops_poison(o, AT_EINVAL, "%s takes latents of %lld channels, not %lld", a->title,
                      (long long)c->channels, (long long)x->shape[1]);
        return false;
    }
    if (text->shape[2] != c->context || text->shape[0] != x->shape[0]) {
        at_ops_poison(o, AT_EINVAL, "%s takes text of width %lld and batch %lld, not %lld and %lld",
                      a->title, (long long)c->context, (long long)x->shape[0],
                      (long long)text->shape[2], (long long)text->shape[0]);
        return false;
    }
    for (size_t i = 0; i < in->n_refs; i++) {
        const at_tensor *r = in->refs[i];
        if (!r) return false; // poison of the caller
        if (r->rank != 4 || r->shape[1] != c->channels || r->shape[0] != x->shape[0]) {
            at_ops_poison(o, AT_EINVAL,
                          "%s looks at latents of %lld channels and batch %lld; reference %zu has "
                          "%lld and %lld",
                          a->title, (long long)c->channels, (long long)x->shape[0], i + 1,
                          (long long)r->shape[1], (long long)r->shape[0]);
            return false;
        }
    }
    measure(in, s);
    s->heads = at_ops_own_heads(o, c->heads);
    s->inner = s->heads * c->head_dim;
    s->mlp = at_ops_own_units(o, c->mlp);
    s->control = in->control;
    s->mods = in->made ? in->made->cond : NULL;
    if (!s->mods) s->vec = condition(o, c, w, in, s->batch);
    make_rope(o, c, s, in, text->shape[1] + more_text);
    return true;
}

// --- blocks ------------------------------------------------------------------------------------
// Modulations steer every token: they stay in floats, also where those of many steps are made together.
static const at_linear_extra precise = {.precise = true};

// The layer l of x [n, hidden], written to `into` (NULL: anywhere). They are a quarter of the network and work once a
// run: ranks along tp hold some rows each, and have all results.
static at_tensor *modulation(at_ops *o, const at_flux_config *c, const at_tensor *x, at_lin l,
                             at_tensor *into)
{
    if (!l.w || at_ops_own_features(o, l.w) == l.w->shape[0])
        return linear(at_into(o, into), x, l, &precise);
    at_tensor *y = linear(o, x, l, &precise);
    if (!y) return NULL;
    int64_t n = y->shape[0], units = y->shape[1] / c->head_dim, width = l.w->shape[0];
    y = at_reshape(o, y, 4, (int64_t[]){1, n, units, c->head_dim});
    y = at_gather_heads(o, y, width / c->head_dim);
    y = at_reshape(o, y, 2, (int64_t[]){n, width});
    return into ? at_unary(at_into(o, into), y, AT_ACT_NONE) : y;
}

at_tensor *at_flux_modulation(at_ops *o, const at_flux_config *c, const at_flux_state *s, at_lin l,
                              int64_t at, int64_t width)
{
    if (s->mods) return at_narrow(o, s->mods, 1, at, width);
    return modulation(o, c, s->vec, l, NULL);
}

int64_t at_flux_mods_final(const at_flux_config *c)
{
    return c->depth * 2 * c->mod6 + c->single * c->mod3;
}

at_tensor *at_flux_mods(at_ops *o, const at_flux_config *c, const at_flux_weights *w,
                        const at_model_in *in, int64_t n)
{
    at_tensor *vec = condition(o, c, w, in, n);
    int64_t at = 0, width = at_flux_mods_final(c) + c->mod2;
    at_tensor *all = at_empty(o, at_ops_compute(o), 2, (int64_t[]){n, width}), *part;
    int first = 0,
        own =
            0; // blocks of this rank: those of others are nobody's business, nor are their weights

    at_ops_own_blocks(o, (int)(c->depth + c->single), &first, &own);
    for (int64_t i = 0; i < c->depth; i++) {
        if (i < first || i >= first + own) {
            at += 2 * c->mod6;
            continue;
        }
        part = at_narrow(o, all, 1, at, c->mod6);
        modulation(o, c, vec, w->doubles[i].img.mod, part);
        part = at_narrow(o, all, 1, at + c->mod6, c->mod6);
        modulation(o, c, vec, w->doubles[i].txt.mod, part);
        at += 2 * c->mod6;
    }
    for (int64_t i = 0; i < c->single; i++, at += c->mod3) {
        if (c->depth + i < first || c->depth + i >= first + own) continue;
        part = at_narrow(o, all, 1, at, c->mod3);
        modulation(o, c, vec, w->singles[i].mod, part);
    }
    part = at_narrow(o, all, 1, at, c->mod2);
    linear(at_into(o, part), vec, w->final_mod, &precise);
    return all;
}

// Chunk i of a modulation.
static at_tensor *chunk(at_ops *o, const at_flux_config *c, const at_tensor *mod, int i)
{
    return at_narrow(o, mod, 1, i * c->hidden, c->hidden);
}

static at_norm_spec modulated(at_ops *o, const at_flux_config *c, const at_tensor *mod, int first,
                              const at_weight *then)
{
    return (at_norm_spec){.mod_shift = chunk(o, c, mod, first),
                          .mod_scale = chunk(o, c, mod, first + 1),
                          .eps = norm_eps,
                          .then = then};
}

// LayerNorm without weights, then y * (1 + scale) + shift; chunks `first` and `first` + 1.
at_tensor *at_flux_modulate(at_ops *o, const at_flux_config *c, const at_tensor *x,
                            const at_tensor *mod, int first, const at_weight *then)
{
    at_norm_spec spec = modulated(o, c, mod, first, then);
    return at_norm(o, x, &spec);
}

// --- sums left to the next norm ----------------------------------------------------------------
void at_flux_leave_sums(at_ops *o, const at_flux_config *c, at_flux_state *s)
{
    s->due_gates[0] = s->due_gates[1] = -1;
    if (!at_ops_add_norms(o) || !s->mods) return; // gates must outlive a block's scope
    if (at_ops_mesh(o)->axis[AT_AXIS_PIPE]->size > 1)
        return; // the stream alone goes to the next rank
    int64_t shape[] = {s->batch, s->text + s->image, c->hidden};
    s->due = at_empty(o, at_ops_compute(o), 3, shape);
}

at_tensor *at_flux_enter(at_ops *o, const at_flux_config *c, const at_flux_state *s, at_tensor *x,
                         int64_t first, int stream, const at_tensor *mod, int at,
                         const at_weight *then)
{
    at_norm_spec spec = modulated(o, c, mod, at, then);
    if (!s->due || s->due_gates[stream] < 0 || !x) return at_norm(o, x, &spec);
    at_tensor *y = at_narrow(o, s->due, 1, first, x->shape[1]);
    at_tensor *gate = at_narrow(o, s->mods, 1, s->due_gates[stream], c->hidden);
    return at_add_norm(o, x, y, gate, &spec);
}

// Head view [b, t, heads, dim] of part 0 (q), 1 (k) or 2 (v) of a fused qkv [b, t, 3 * inner ..].
static at_tensor *heads_of(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                           const at_tensor *qkv, int part)
{
    at_tensor *one = at_narrow(o, qkv, 2, part * s->inner, s->inner);
    if (!one) return NULL;
    return at_reshape(o, one, 4, (int64_t[]){one->shape[0], one->shape[1], s->heads, c->head_dim});
}

// What to normalise and rotate where it lies: q and k of a fused qkv.
static void rotations(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                      const at_tensor *qkv, const at_weight *q_norm, const at_weight *k_norm,
                      const at_rope_table *rope, at_rope_job out[2])
{
    out[0] = (at_rope_job){heads_of(o, c, s, qkv, 0), q_norm, rope};
    out[1] = (at_rope_job){heads_of(o, c, s, qkv, 1), k_norm, rope};
}

static at_site site_of(const at_flux_state *s, at_site_part part, int block)
{
    return (at_site){.in = s->in, .part = part, .block = block, .h = s->rows, .w = s->cols};
}

// q, k and v are read from the one buffer by strides, after the n turns.
static at_tensor *attend(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                         at_site_part part, int block, const at_tensor *qkv, int n,
                         const at_rope_job *turn, const at_weight *then, at_tensor *into)
{
    at_tensor *q = heads_of(o, c, s, qkv, 0), *k = heads_of(o, c, s, qkv, 1);
    at_tensor *v = heads_of(o, c, s, qkv, 2);
    if (!s->in || !at_patches_count(s->in->patches))
        return at_attention_turned(at_into(o, into), n, turn, norm_eps, false, q, k, v, then);
    at_rope_all(o, n, turn, norm_eps, false);
    at_site site = site_of(s, part, block);
    site.heads = (int)c->heads;
    site.dim = (int)c->head_dim;
    at_tensor *y = at_patch_attn(o, s->in->patches, &site, q, k, v);
    return into ? at_unary(at_into(o, into), y, AT_ACT_NONE) : y;
}

// A fused layer into `out`: in one, or its parts side by side.
static void fused(at_ops *o, at_tensor *out, const at_tensor *x, at_lin whole, const at_lin *parts,
                  const int64_t *widths, int n)
{
    if (whole.w) {
        linear(at_into(o, out), x, whole, NULL);
        return;
    }
    for (int64_t i = 0, at = 0; i < n; at += widths[i++]) {
        at_tensor *part = at_narrow(o, out, 2, at, widths[i]);
        linear(at_into(o, part), x, parts[i], NULL);
    }
}

// A ControlNet's residual onto image tokens, in place. It is this rank's share, or whole and may cover fewer tokens
// than there are: with several ranks it is filled up first, so that the shares fall on the right tokens.
static void add_control(at_ops *o, const at_flux_state *s, const at_tensor *add, at_tensor *img)
{
    if (!add || !img || add->rank != 3) return;
    bool shared = s->control->shared;
    if (!shared && at_ops_token_ranks(o) > 1 && add->shape[1] < s->all_image) {
        int64_t rest[] = {add->shape[0], s->all_image - add->shape[1], add->shape[2]};
        at_tensor *none = at_zeros(o, add->dtype, 3, rest);
        add = at_concat(o, 1, 2, (const at_tensor *[]){add, none});
    }
    const at_tensor *share = shared ? add : at_share_tokens(o, add);
    if (share && share->shape[1] < img->shape[1]) img = at_narrow(o, img, 1, 0, share->shape[1]);
    at_add(at_into(o, img), img, share);
}

// First half of a double block for one stream: its rows of the joint qkv, and what is to be rotated
// there.
static void stream_in(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                      const at_flux_stream *w, const at_tensor *y, const at_rope_table *rope,
                      at_tensor *qkv, at_rope_job turn[2])
{
    fused(o, qkv, y, w->qkv, w->parts, (int64_t[]){s->inner, s->inner, s->inner}, 3);
    rotations(o, c, s, qkv, w->q_norm, w->k_norm, rope, turn);
}

// Second half: projection, then MLP, both added to the stream x in place, or the second into `due`.
static void stream_out(at_ops *o, const at_flux_config *c, const at_flux_stream *w, at_tensor *x,
                       const at_tensor *attended, const at_tensor *mod, at_tensor *due)
{
    const at_linear_extra gelu = {.act = AT_ACT_GELU_TANH};
    at_linear_extra add = {.residual = x, .gate = chunk(o, c, mod, 2)};
    at_tensor *h;

    if (due) {
        at_norm_spec spec = modulated(o, c, mod, 3, w->fc1.w);
        at_tensor *y = linear(o, attended, w->proj, NULL);
        h = at_add_norm(o, x, y, add.gate, &spec);
    } else {
        linear(at_into(o, x), attended, w->proj, &add);
        h = at_flux_modulate(o, c, x, mod, 3, w->fc1.w);
    }
    h = linear(o, h, w->fc1, &gelu);
    add.gate = chunk(o, c, mod, 5);
    if (due)
        linear(at_into(o, due), h, w->fc2, NULL);
    else
        linear(at_into(o, x), h, w->fc2, &add);
}

// A patch may leave a block out; its residual is added all the same.
static bool left_out(const at_flux_state *s, at_site_part part, int i)
{
    at_site site = site_of(s, part, i);
    return s->in && at_patch_skips(s->in->patches, &site);
}

// Tokens of what is due, or NULL.
static at_tensor *due_part(at_ops *o, const at_flux_state *s, int64_t first, int64_t n)
{
    return s->due ? at_narrow(o, s->due, 1, first, n) : NULL;
}

// Keys and values travel to the other ranks while the queries are made: the halves of each fused layer, the
// second one first.
static bool queries_later(at_ops *o, const at_flux_double *w, const at_flux_state *s)
{
    return at_ops_queries_later(o) && w->txt.qkv.w && w->img.qkv.w &&
           (!s->in || !at_patches_count(s->in->patches));
}

static at_tensor *attend_later(at_ops *o, const at_flux_config *c, const at_flux_state *s,
                               const at_flux_double *w, const at_tensor *text,
                               const at_tensor *image, const at_tensor *text_qkv,
                               const at_tensor *image_qkv, const at_tensor *qkv)
{
    const at_flux_stream *stream[] = {&w->txt, &w->img};
    const at_tensor *y[] = {text, image}, *to[] = {text_qkv, image_qkv};
    const at_rope_table *rope[] = {&s->rope_text, &s->rope_image};
    at_tensor *q = heads_of(o, c, s, qkv, 0), *k = heads_of(o, c, s, qkv, 1);
    at_tensor *v = heads_of(o, c, s, qkv, 2);
    at_tensor *rest[2];
    at_rope_job turn[2];

    for (int i = 0; i < 2; i++)
        rest[i] = at_narrow(o, to[i], 2, s->inner, 2 * s->inner);
    bool aside = at_aside_begin(o, AT_BESIDE_STREAM);
    for (int i = 0; i < 2; i++) {
        at_linear_rest(o, y[i], stream[i]->qkv.w, stream[i]->qkv.b, s->inner, AT_ACT_NONE, rest[i]);
        if (!i) at_aside_end(o, aside);
        turn[i] = (at_rope_job){heads_of(o, c, s, to[i], 1), stream[i]->k_norm, rope[i]};
    }
    at_aside_join(o, aside);
    at_rope_all(o, 2, turn, norm_eps, false);
    at_attention_ahead(o, q, k, v);
    aside = at_aside_begin(o, AT_BESIDE_STREAM);
    for (int i = 0; i < 2; i++) {
        at_tensor *part = at_narrow(o, to[i], 2, 0, s->inner);
        at_linear_first(at_into(o, part), y[i], stream[i]->qkv.w, stream[i]->qkv.b, s->inner,
                        AT_ACT_NONE, rest[i]);
        if (!i) at_aside_end(o, aside);
        turn[i] = (at_rope_job){heads_of(o, c, s, to[i], 0), stream[i]->q_norm, rope[i]};
    }
    at_aside_join(o, aside);
    at_rope_all(o, 2, turn, norm_eps, false);
    return at_attention(o, q, k, v, NULL, 0, false);
}

static void run_double(at_ops *o, const at_flux_config *c, const at_flux_double *w,
                       at_flux_state *s, int i, at_tensor *h)
{
    int64_t text = s->text, image = s->image, at = i * 2 * c->mod6;
    at_tensor *txt = at_narrow(o, h, 1, 0, text), *img = at_narrow(o, h, 1, text, image);
    at_tensor *img_mod = at_flux_modulation(o, c, s, w->img.mod, at, c->mod6);
    at_tensor *txt_mod = at_flux_modulation(o, c, s, w->txt.mod, at + c->mod6, c->mod6);
    int64_t width[] = {s->batch, text + image, 3 * s->inner};
    at_tensor *qkv = at_empty(o, at_ops_compute(o), 3, width);
    at_tensor *txt_qkv = at_narrow(o, qkv, 1, 0, text);
    at_tensor *img_qkv = at_narrow(o, qkv, 1, text, image);
    at_rope_job turn[4];

    bool later = queries_later(o, w, s), aside = at_aside_begin(o, AT_BESIDE_STREAM);
    at_tensor *y = at_flux_enter(o, c, s, txt, 0, AT_FLUX_TEXT, txt_mod, 0, w->txt.qkv.w);
    at_tensor *z = NULL;
    if (!later) stream_in(o, c, s, &w->txt, y, &s->rope_text, txt_qkv, turn);
    at_aside_end(o, aside);
    z = at_flux_enter(o, c, s, img, text, AT_FLUX_PICTURE, img_mod, 0, w->img.qkv.w);
    if (!later) stream_in(o, c, s, &w->img, z, &s->rope_image, img_qkv, turn + 2);
    at_aside_join(o, aside);
    if (later)
        y = attend_later(o, c, s, w, y, z, txt_qkv, img_qkv, qkv);
    else
        y = attend(o, c, s, AT_SITE_DOUBLE, i, qkv, 4, turn, w->img.proj.w, NULL);
    aside = at_aside_begin(o, AT_BESIDE_STREAM);
    stream_out(o, c, &w->txt, txt, at_narrow(o, y, 1, 0, text), txt_mod, due_part(o, s, 0, text));
    at_aside_end(o, aside);
    stream_out(o, c, &w->img, img, at_narrow(o, y, 1, text, image), img_mod,
               due_part(o, s, text, image));
    at_aside_join(o, aside);
    s->due_gates[AT_FLUX_PICTURE] = at + 5 * c->hidden;
    s->due_gates[AT_FLUX_TEXT] = at + c->mod6 + 5 * c->hidden;
}

at_tensor *at_flux_double_block(at_ops *o, const at_flux_config *c, const at_flux_double *w,
                                at_flux_state *s, int i, at_tensor *h)
{
    if (!left_out(s, AT_SITE_DOUBLE, i)) run_double(o, c, w, s, i, h);
    if (s->control && i < AT_CONTROL_MAX)
        add_control(o, s, s->control->doubles[i], at_narrow(o, h, 1, s->text, s->image));
    return h;
}

// What attention reads (the result, at least [b, t, qkv] wide) and, activated, the MLP's half of `both`.
static at_tensor *single_in(at_ops *o, const at_flux_state *s, const at_flux_single *w,
                            const at_tensor *x, at_tensor *mlp)
{
    if (w->lin1.w)
        return at_linear_split(o, x, w->lin1.w, w->lin1.b, 3 * s->inner, AT_ACT_GELU_TANH, mlp);
    if (!x) return NULL;
    at_tensor *qkv =
        at_empty(o, at_ops_compute(o), 3, (int64_t[]){x->shape[0], x->shape[1], 3 * s->inner});
    fused(o, qkv, x, (at_lin){0}, w->parts, (int64_t[]){s->inner, s->inner, s->inner}, 3);
    at_linear_extra gelu = {.act = AT_ACT_GELU_TANH};
    linear(at_into(o, mlp), x, w->parts[3], &gelu);
    return qkv;
}

// The whole stream's norm. Behind the double blocks text and picture have gates of their own.
static at_tensor *single_norm(at_ops *o, const at_flux_config *c, const at_flux_single *w,
                              const at_flux_state *s, at_tensor *h, const at_tensor *mod)
{
    const at_weight *then = w->lin1.w;
    if (!s->due || s->due_gates[0] == s->due_gates[1])
        return at_flux_enter(o, c, s, h, 0, AT_FLUX_TEXT, mod, 0, then);
    at_tensor *x = at_empty(o, at_ops_compute(o), 3, h->shape);
    at_tensor *txt = at_narrow(o, h, 1, 0, s->text), *img = at_narrow(o, h, 1, s->text, s->image);
    at_tensor *y = at_flux_enter(o, c, s, txt, 0, AT_FLUX_TEXT, mod, 0, NULL);
    at_tensor *to = at_narrow(o, x, 1, 0, s->text);
    at_unary(at_into(o, to), y, AT_ACT_NONE);
    y = at_flux_enter(o, c, s, img, s->text, AT_FLUX_PICTURE, mod, 0, NULL);
    to = at_narrow(o, x, 1, s->text, s->image);
    at_unary(at_into(o, to), y, AT_ACT_NONE);
    return x;
}

// q, k and v can travel to the other ranks while the MLP is computed, or attention run beside it.
static bool goes_ahead(at_ops *o, const at_flux_single *w, const at_flux_state *s)
{
    return (at_ops_goes_ahead(o) || at_ops_has_aside(o, AT_BESIDE_MLP)) && w->lin1.w &&
           (!s->in || !at_patches_count(s->in->patches));
}

static void single_ahead(at_ops *o, const at_flux_config *c, const at_flux_single *w,
                         const at_flux_state *s, const at_tensor *x, at_tensor *mlp,
                         at_tensor *attended)
{
    at_rope_job turn[2];
    int64_t qkv = 3 * s->inner;
    at_tensor *y = at_linear_first(o, x, w->lin1.w, w->lin1.b, qkv, AT_ACT_GELU_TANH, mlp);
    rotations(o, c, s, y, w->q_norm, w->k_norm, &s->rope, turn);
    at_tensor *q = heads_of(o, c, s, y, 0), *k = heads_of(o, c, s, y, 1);
    at_tensor *v = heads_of(o, c, s, y, 2);
    bool ahead = at_ops_goes_ahead(o);
    if (ahead) at_rope_all(o, 2, turn, norm_eps, false);
    if (ahead) at_attention_ahead(o, q, k, v);
    bool aside = at_aside_begin(o, AT_BESIDE_MLP);
    at_linear_rest(o, x, w->lin1.w, w->lin1.b, qkv, AT_ACT_GELU_TANH, mlp);
    at_aside_end(o, aside);
    if (ahead)
        at_attention(at_into(o, attended), q, k, v, NULL, 0, false);
    else
        at_attention_turned(at_into(o, attended), 2, turn, norm_eps, false, q, k, v, NULL);
    at_aside_join(o, aside);
}

// Attention and MLP read the same normalised tokens and write side by side; linear2 joins them.
static void run_single(at_ops *o, const at_flux_config *c, const at_flux_single *w,
                       at_flux_state *s, int i, at_tensor *h)
{
    int64_t tokens = s->text + s->image;
    int64_t at = c->depth * 2 * c->mod6 + i * c->mod3;
    at_tensor *mod = at_flux_modulation(o, c, s, w->mod, at, c->mod3);
    at_tensor *x = h ? single_norm(o, c, w, s, h, mod) : NULL;
    int64_t width[] = {s->batch, tokens, s->inner + s->mlp};
    at_tensor *both = at_empty(o, at_ops_compute(o), 3, width);
    at_tensor *mlp_out = at_narrow(o, both, 2, s->inner, s->mlp);
    at_linear_extra add = {.residual = h, .gate = chunk(o, c, mod, 2)};

    at_tensor *attended = at_narrow(o, both, 2, 0, s->inner);
    if (goes_ahead(o, w, s)) {
        single_ahead(o, c, w, s, x, mlp_out, attended);
    } else {
        at_tensor *y = single_in(o, s, w, x, mlp_out);
        at_rope_job turn[2];
        rotations(o, c, s, y, w->q_norm, w->k_norm, &s->rope, turn);
        attend(o, c, s, AT_SITE_SINGLE, i, y, 2, turn, NULL, attended);
    }
    if (s->due)
        linear(at_into(o, s->due), both, w->lin2, NULL);
    else
        linear(at_into(o, h), both, w->lin2, &add);
    s->due_gates[0] = s->due_gates[1] = at + 2 * c->hidden;
}

at_tensor *at_flux_single_block(at_ops *o, const at_flux_config *c, const at_flux_single *w,
                                at_flux_state *s, int i, at_tensor *h)
{
    if (!left_out(s, AT_SITE_SINGLE, i)) run_single(o, c, w, s, i, h);
    if (!s->control || i >= AT_CONTROL_MAX || !s->control->singles[i]) return h;
    at_tensor *img = at_narrow(o, h, 1, s->text, s->image);
    add_control(o, s, s->control->singles[i], img);
    return h;
}