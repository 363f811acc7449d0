// SPDX-License-Identifier: Apache-2.0
// control.c - CONTROL_NET objects, and their residuals during a sampling run.
// Idea: the older nets of a chain come first; each adds its residuals, times its strength, to
// theirs, place by place. What does not change between steps (the hint at the latent's size, a T2I
// adapter's residuals, a control-LoRA over its base) is kept per object.
// Easy to get wrong:
//   - a net outside its range adds nothing, but the nets before it still do
//   - a hint of several pictures is first cut or repeated to one conditioning's batch, then
//     repeated for each conditioning of the batch
//   - one residual may stand at many places: strength is applied once
// Owns: see control.h.
#include "nodes/control.h"
#include "nodes/control_far.h"

#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "sample/sigmas.h"

// --- objects -----------------------------------------------------------------------------------
static void control_free(at_object *self)
{
    at_obj_control *c = (at_obj_control *)self;
    at_control_net_release(&c->net);
    at_object_release((at_object *)c->previous);
    at_tensor_release(&c->hint);
    at_tensor_release(&c->mask);
    at_vae_release(&c->vae);
    at_free(c);
}
static const at_object_type control_type = {"CONTROL_NET", control_free};

at_object *at_obj_control_new(at_control_net *net)
{
    at_obj_control *c = at_calloc(1, sizeof *c);
    if (!c) {
        at_control_net_release(&net);
        return NULL;
    }
    atomic_init(&c->base.refs, 1);
    c->base.type = &control_type;
    c->net = net;
    c->type = -1;
    c->strength = 1.0f;
    c->end_percent = 1.0f;
    return &c->base;
}

at_object *at_obj_control_copy(const at_obj_control *from)
{
    at_object *o = at_obj_control_new(at_control_net_retain(from->net));
    at_obj_control *c = (at_obj_control *)o;
    if (!c) return NULL;
    at_object base = c->base;
    *c = *from;
    c->base = base;
    if (c->previous) at_object_retain(&c->previous->base);
    if (c->hint) at_tensor_retain(c->hint);
    if (c->mask) at_tensor_retain(c->mask);
    at_vae_retain(c->vae);
    return o;
}

// --- a run -------------------------------------------------------------------------------------
enum { CHAIN_MAX = 64, PLACES = 4 * AT_CONTROL_MAX + 1, MAX_BATCH = 512 };

// What is kept for one object.
typedef struct slot {
    at_obj_control *control;
    at_control_net *net; // over the run's model
    at_tensor *hint;     // f32 [n, c, h, w] on the device, for latents of height x width
    int64_t height, width;
    bool ran;        // once-only nets: `residuals` of the hint's pictures, counted
    at_control kept; // one reference each
    at_ops *far;     // where it runs elsewhere (control_far.h); NULL: not asked yet
} slot;

struct at_control_run {
    at_model *model;
    slot *slots;
    size_t count;
};

at_status at_control_run_new(const at_model *m, at_control_run **out)
{
    at_control_run *r = at_calloc(1, sizeof *r);
    if (!r) return at_fail(AT_ENOMEM, "ControlNet: no memory for a run");
    r->model = at_model_retain((at_model *)m);
    *out = r;
    return AT_OK;
}

// Place i of a control: its lists one after the other, then the middle.
static const at_tensor **place(at_control *c, int i)
{
    const at_tensor **lists[] = {c->input, c->skip, c->doubles, c->singles};
    return i == PLACES - 1 ? &c->middle : &lists[i / AT_CONTROL_MAX][i % AT_CONTROL_MAX];
}

static void forget_residuals(slot *s)
{
    for (int i = 0; s->ran && i < PLACES; i++) {
        at_tensor *t = (at_tensor *)*place(&s->kept, i);
        at_tensor_release(&t);
    }
    s->kept = (at_control){0};
    s->ran = false;
}

void at_control_run_free(at_control_run *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->count; i++) {
        slot *s = &r->slots[i];
        forget_residuals(s);
        at_tensor_release(&s->hint);
        at_ops_free(s->far);
        at_control_net_release(&s->net);
        at_object_release(&s->control->base);
    }
    at_free(r->slots);
    at_model_release(&r->model);
    at_free(r);
}

static at_status slot_of(at_control_run *r, const at_obj_control *c, slot **out)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->slots[i].control == c) {
            *out = &r->slots[i];
            return AT_OK;
        }
    at_control_net *net = NULL;
    at_status st = at_control_net_over(c->net, r->model, &net);
    if (st != AT_OK) return st;
    slot *slots = at_realloc(r->slots, (r->count + 1) * sizeof *slots);
    if (!slots) {
        at_control_net_release(&net);
        return at_fail(AT_ENOMEM, "ControlNet: no memory for a run");
    }
    r->slots = slots;
    *out = &slots[r->count++];
    **out =
        (slot){.control = (at_obj_control *)at_object_retain((at_object *)&c->base), .net = net};
    return AT_OK;
}

// --- hints -------------------------------------------------------------------------------------
// [b, h, w, c] pictures on the host as [b, c, h, w] on the device.
static at_tensor *upload(at_ops *o, const at_tensor *t)
{
    at_tensor *x = at_from_host(o, AT_F32, t->rank, t->shape, at_tensor_data(t));
    return at_contiguous(o, at_permute(o, x, (int[]){0, 3, 1, 2}));
}

// The colours' mean where the net looks at one channel.
static at_tensor *to_channels(at_ops *o, const slot *s, at_tensor *x)
{
    int want = at_control_net_facts(s->net)->channels;
    if (!x || x->shape[1] == want) return x;
    if (want != 1)
        return at_ops_poison(o, AT_EINVAL,
                             "%s: the hint has %lld channels, this ControlNet looks at %d",
                             at_control_net_label(s->net), (long long)x->shape[1], want);
    at_tensor *sum = at_narrow(o, x, 1, 0, 1);
    for (int64_t i = 1; i < x->shape[1]; i++)
        sum = at_add(o, sum, at_narrow(o, x, 1, i, 1));
    return at_affine(o, sum, 1.0f / (float)x->shape[1], 0);
}

// The mask behind a latent hint [n, c, h, w]: its own, or ones.
static at_tensor *with_mask(at_ops *o, const slot *s, at_tensor *z)
{
    at_tensor *mask = NULL, *sized = NULL;
    if (!z) return NULL;
    int64_t n = z->shape[0], h = z->shape[2], w = z->shape[3];
    if (!s->control->mask) {
        mask = at_affine(o, at_zeros(o, AT_F32, 4, (int64_t[]){n, 1, h, w}), 1, 1);
    } else {
        at_status st =
            at_resize(s->control->mask, AT_ORDER_NCHW, w, h, AT_RESIZE_NEAREST, true, &sized);
        if (st != AT_OK) return at_ops_poison(o, st, "%s", at_error_text());
        mask = at_from_host(o, AT_F32, 4, sized->shape, at_tensor_data(sized));
        at_tensor_release(&sized);
        while (mask && mask->shape[0] < n) {
            const at_tensor *twice[] = {mask, mask};
            mask = at_concat(o, 0, 2, twice);
        }
        mask = at_narrow(o, mask, 0, 0, n);
    }
    return at_concat(o, 1, 2, (const at_tensor *[]){z, mask});
}

// What a VAE makes of the picture, in the model's latent format.
static at_tensor *latent_hint(at_ops *o, const slot *s, const at_tensor *picture)
{
    const at_control_facts *f = at_control_net_facts(s->net);
    at_tensor *z = at_vae_encode(o, s->control->vae, picture);
    z = at_affine(o, z, f->latent->scale, -f->latent->shift * f->latent->scale);
    return f->concat_mask || s->control->mask ? with_mask(o, s, z) : z;
}

static int64_t round_up(int64_t v, int64_t step)
{
    return (v + step - 1) / step * step;
}

// The hint at the size of latents h x w.
static at_tensor *make_hint(at_ops *o, const slot *s, int64_t h, int64_t w)
{
    const at_obj_control *c = s->control;
    const at_control_facts *f = at_control_net_facts(s->net);
    at_tensor *sized = NULL, *out;
    int64_t ratio = f->latent && c->vae ? at_vae_downscale(c->vae) : 8;

    if (!c->hint || (f->latent && !c->vae))
        return at_ops_poison(o, AT_EINVAL,
                             c->hint
                                 ? "%s: this ControlNet needs a VAE: connect the vae input of a "
                                   "node that applies ControlNets"
                                 : "%s: this ControlNet was not applied to a picture",
                             at_control_net_label(s->net));
    at_status st = at_resize(c->hint, AT_ORDER_NHWC, round_up(w * ratio, f->step),
                             round_up(h * ratio, f->step), AT_RESIZE_NEAREST, true, &sized);
    if (st != AT_OK) return at_ops_poison(o, st, "%s", at_error_text());
    if (f->latent)
        out = latent_hint(o, s, sized);
    else
        out = upload(o, sized);
    at_tensor_release(&sized);
    return to_channels(o, s, out);
}

// The slot's hint for this latent, made anew when the size changes. False: failed.
static bool hint_ready(at_ops *o, slot *s, int64_t h, int64_t w)
{
    if (s->hint && s->height == h && s->width == w) return true;
    forget_residuals(s);
    at_tensor_release(&s->hint);
    at_scope_begin(o);
    s->hint = at_ops_keep(o, make_hint(o, s, h, w));
    at_scope_end(o, NULL);
    s->height = h;
    s->width = w;
    return s->hint != NULL;
}

// Where the latents of a batch stand: `chunks` conditionings of `share` latents each, the ones from
// `first` on of `all`. whole: every rank has all of their residuals.
typedef struct rows_of {
    int64_t batch, first, all;
    int chunks;
    bool whole;
} rows_of;

// n pictures for such a batch: cut or repeated to all latents, then this part of them for each
// conditioning. One picture stays one.
static at_tensor *to_batch(at_ops *o, const at_tensor *t, const rows_of *b)
{
    int64_t n = t->shape[0], share = b->batch / (b->chunks > 0 ? b->chunks : 1);
    const at_tensor *rows[MAX_BATCH];
    if (n == 1) return (at_tensor *)t;
    if (share < 1 || b->all < 1 || b->batch > MAX_BATCH)
        return at_ops_poison(o, AT_EINVAL,
                             "ControlNet: a batch of %lld in %d parts; %d are the most",
                             (long long)b->batch, b->chunks, MAX_BATCH);
    if (n > b->all) n = b->all;
    for (int64_t i = 0; i < b->batch; i++)
        rows[i] = at_narrow(o, t, 0, (b->first + i % share) % n, 1);
    return at_ops_status(o) == AT_OK ? at_concat(o, 0, (int)b->batch, rows) : NULL;
}

// --- residuals ---------------------------------------------------------------------------------
// Residuals of a once-only net for the hint's own pictures, kept.
static void run_once(at_ops *o, slot *s, const at_control_in *in)
{
    at_control made = {0};
    at_scope_begin(o);
    at_control_net_forward(o, s->net, in, &made);
    if (at_ops_status(o) == AT_OK) {
        for (int i = 0; i < PLACES; i++)
            at_ops_keep(o, (at_tensor *)*place(&made, i));
        s->kept = made;
        s->ran = true;
    }
    at_scope_end(o, NULL);
}

// Residuals of one net, at full strength.
static void own_residuals(at_ops *o, slot *s, const at_model_in *in, const at_tensor *context,
                          const rows_of *rows, at_control *out)
{
    at_control_in ci = {
        .model = in, .context = context, .type = s->control->type, .whole = rows->whole};

    if (!hint_ready(o, s, in->x->shape[2], in->x->shape[3])) return;
    ci.hint = s->hint;
    if (!at_control_net_facts(s->net)->once) {
        ci.hint = to_batch(o, s->hint, rows);
        if (ci.hint) at_control_net_forward(o, s->net, &ci, out);
        return;
    }
    if (!s->ran) run_once(o, s, &ci);
    for (int i = 0; s->ran && i < PLACES; i++) {
        const at_tensor *t = *place(&s->kept, i);
        if (t) *place(out, i) = to_batch(o, t, rows);
    }
}

// The same of one that runs elsewhere: its hint and its kept residuals stay there.
static void far_residuals(at_ops *o, slot *s, const at_model_in *in, const at_tensor *context,
                          const rows_of *rows, at_control *out)
{
    at_model_in there;
    at_control made = {0};
    at_status st = s->far ? AT_OK : at_control_far_open(o, s->control->device, &s->far);

    if (st == AT_OK) {
        at_scope_begin(s->far);
        at_control_far_take(s->far, in, context, &there, &context);
        if (at_ops_status(s->far) == AT_OK) own_residuals(s->far, s, &there, context, rows, &made);
        st = at_ops_status(s->far);
        for (int i = 0; i < PLACES && st == AT_OK; i++) {
            const at_tensor *t = *place(&made, i);
            int same = 0;
            while (same < i && *place(&made, same) != t)
                same++;
            *place(out, i) = same < i ? *place(out, same) : at_control_far_bring(o, t);
        }
        at_scope_end(s->far, NULL);
    }
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
}

// The mean over the picture: [b, h, w, c] -> [b, 1, 1, c], tokens [b, t, d] -> [b, 1, d].
static at_tensor *pool(at_ops *o, const at_tensor *t)
{
    if (t->rank == 3) return at_mean_tokens(o, t);
    int64_t b = t->shape[0], c = t->shape[3];
    at_tensor *m = at_mean_tokens(o, at_reshape(o, t, 3, (int64_t[]){b, -1, c}));
    return at_reshape(o, m, 4, (int64_t[]){b, 1, 1, c});
}

// Strength and pooling, each distinct tensor once.
static void weigh(at_ops *o, const at_obj_control *c, at_control *out)
{
    const at_tensor *from[PLACES] = {0}, *to[PLACES];
    int seen = 0;
    for (int i = 0; i < PLACES; i++) {
        const at_tensor **p = place(out, i);
        int k = 0;
        if (!*p) continue;
        while (k < seen && from[k] != *p)
            k++;
        if (k == seen) {
            from[seen] = *p;
            at_tensor *t = c->pooled ? pool(o, *p) : (at_tensor *)*p;
            to[seen++] = c->strength == 1.0f ? t : at_affine(o, t, c->strength, 0);
        }
        *p = to[k];
    }
}

static bool active(const at_control_run *r, const at_obj_control *c, float sigma)
{
    const at_model_sampling *ms = at_model_get_sampling(r->model);
    return !(sigma > (float)at_percent_to_sigma(ms, c->start_percent)) &&
           !(sigma < (float)at_percent_to_sigma(ms, c->end_percent));
}

// *sum += the residuals of one object.
static void add_one(at_control_run *r, at_ops *o, const at_obj_control *c, const at_model_in *in,
                    const at_tensor *context, const rows_of *rows, at_control *sum)
{
    slot *s = NULL;
    at_control own = {0};
    at_status st = slot_of(r, c, &s);
    if (st != AT_OK) {
        at_ops_poison(o, st, "%s", at_error_text());
        return;
    }
    (at_control_is_far(o, c->device) ? far_residuals : own_residuals)(o, s, in, context, rows,
                                                                      &own);
    if (at_ops_status(o) != AT_OK) return;
    weigh(o, c, &own);
    for (int i = 0; i < PLACES; i++) {
        const at_tensor **to = place(sum, i), *add = *place(&own, i);
        if (!add) continue;
        bool cut = *to && (*to)->run.rows; // an adapter's map is whole: the door cuts the second
        *to = !*to ? add : cut ? at_add(o, *to, add) : at_add(o, add, *to);
    }
    sum->shared |= own.shared;
}

// Ranks share a net's work as they share the network's, and have their own part of its residuals. They are wanted
// whole for a mean over the picture, and beside reference pictures, whose tokens the net does not know.
static bool whole(const at_obj_control *const *chain, int n, const at_model_in *in)
{
    bool yes = in->n_refs > 0;

    for (int i = 0; i < n; i++)
        yes |= chain[i]->pooled;
    return yes;
}

bool at_control_run_residuals(at_control_run *r, at_ops *o, const at_obj_control *c,
                              const at_model_in *in, const at_tensor *context, int64_t first,
                              int64_t all, at_control *out)
{
    const at_obj_control *chain[CHAIN_MAX];
    int n = 0;
    bool any = false;

    *out = (at_control){0};
    if (!in->x || in->x->rank != 4) return false;
    rows_of rows = {.batch = in->x->shape[0], .first = first, .all = all, .chunks = in->chunks};
    at_model_in alone = *in; // ControlNets see neither references nor what stands behind x
    alone.refs = NULL;
    alone.n_refs = 0;
    alone.concat = NULL;
    for (; c; c = c->previous) {
        if (n == CHAIN_MAX) {
            at_ops_poison(o, AT_EINVAL, "more than %d ControlNets in one chain", CHAIN_MAX);
            return false;
        }
        chain[n++] = c;
    }
    rows.whole = whole(chain, n, in);
    while (n-- > 0 && at_ops_status(o) == AT_OK) {
        if (!active(r, chain[n], in->sigma)) continue;
        add_one(r, o, chain[n], &alone, context ? context : in->context, &rows, out);
        any = true;
    }
    return any && at_ops_status(o) == AT_OK;
}
