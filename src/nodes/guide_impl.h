// SPDX-License-Identifier: Apache-2.0
// guide_impl.h - what the guide_*.c files share. Nothing outside includes it.
// Ownership: a guide owns its entries, plans, hook blocks and everything below them.
#ifndef AT_NODES_GUIDE_IMPL_H
#define AT_NODES_GUIDE_IMPL_H

#include "nodes/control.h"
#include "nodes/guide.h"

// A rectangle of the latent, in cells.
typedef struct at_rect {
    int64_t h, w, y, x;
} at_rect;

// One conditioning made ready for a run.
typedef struct at_entry {
    at_cond c;        // own references
    size_t id;        // the same for an entry and its mirror in another list
    bool in_negative; // ComfyUI's prompt_type "negative"
    bool has_area;
    at_rect area;     // as asked for, in cells
    at_rect rect;     // inside the picture; the whole without an area
    at_tensor *mask;  // f32 [n, h, w] of the latent's size on the host, or NULL
    float start, end; // holds from sigma `start` down to `end`
    // Weight of each cell, f32 [1 or b, 1, rect.h, rect.w]; NULL: c.strength everywhere.
    at_tensor *mult_host, *mult;
    at_tensor *vector; // beside the text, as at_model_in.pooled wants it; or NULL
    at_tensor *concat; // whole picture, f32 [b, k, h, w], or NULL
    at_tensor **refs;  // c.n_refs latents as the network takes them, or NULL
} at_entry;

typedef struct at_list {
    bool present;
    size_t count;
    at_entry *items;
} at_list;

// One entry in an evaluation, weighted for the estimate of `place`.
typedef struct at_item {
    const at_entry *e;
    int place;
    at_tensor *mult; // own reference on the device; NULL: weight
    float weight;
} at_item;

// Forwards `first` .. `first + count` of items together.
typedef struct at_batch {
    size_t first, count;
} at_batch;

// What an evaluation of these lists does while these entries hold.
typedef struct at_plan {
    int n;
    at_list_id list[AT_GUIDE_LISTS];
    bool *active; // of all entries, list after list
    at_item *items;
    size_t n_items;
    at_batch *batches;
    size_t n_batches;
    bool masked[AT_GUIDE_LISTS];    // the weights of a place differ from cell to cell
    at_tensor *sum[AT_GUIDE_LISTS]; // then: their sum, f32 [1 or b, 1, h, w] on the device
    float weight[AT_GUIDE_LISTS];   // else: their sum
    int64_t rows;                   // of the batch at once; below b: it is sampled by parts
} at_plan;

// The network with the LoRAs of one HOOKS object at the strengths of now.
typedef struct at_hooked {
    const at_object *hooks; // an entry's
    at_object *model;       // a MODEL, or NULL: not made yet
    double *strengths;      // of its hooks, as they are in `model`
} at_hooked;
// Where a list of keyframes stands.
typedef struct at_key_state {
    const at_object *keyframes; // an entry's
    size_t index;
    int used; // evaluations at different noise levels since it became current
    float at;
} at_key_state;

enum { AT_GUIDE_PLANS = 4, AT_GUIDE_ROWS = 64 };

struct at_guide {
    const at_obj_model *model; // borrowed
    at_model *net;
    at_model_sampling sampling;
    at_guider_kind kind;
    double cfg, cfg2;
    int64_t shape[4];               // of x now
    const at_tensor *latent, *mask; // borrowed
    const float *sigmas;            // borrowed
    size_t n_sigmas;
    float *timesteps; // the network's, of each sigma but a last 0
    size_t n_steps;
    uint64_t run; // unlike that of any other guide of this process
    double memory;
    int spread; // ranks that the forwards of an evaluation are shared out to
    uint64_t seed;
    bool noised;
    const int64_t *batch_index; // borrowed
    at_device *device;
    at_dtype compute;
    at_list lists[AT_GUIDE_LISTS]; // by at_list_id
    size_t entries;                // of all lists
    bool third_apart;    // the third list is a hook's: it neither gives to nor takes from others
    at_patches *patches; // the model's and those of its hooks
    at_control_run *control; // NULL until an entry has a ControlNet
    void **runs;             // by hook
    size_t begun;            // hooks whose begin was called
    at_hooked *hooked;
    at_key_state *keys;
    size_t n_hooked, n_keys;
    at_plan plans[AT_GUIDE_PLANS];
    size_t next_plan;
};

static inline const at_hook *at_guide_hook(const at_guide *g, size_t i)
{
    return at_hooks_at(g->model->hooks, i);
}
static inline size_t at_guide_hook_count(const at_guide *g)
{
    return at_hooks_count(g->model->hooks);
}

// guide_prepare.c: conditionings to entries.
at_status at_guide_prepare(at_guide *g, at_ops *o, const at_obj_cond *const source[AT_GUIDE_LISTS]);
// The latent has another size from now on (a sampler that grows it): areas stay where they are in
// cells, what was made ready at the first size is cut there or refused.
at_status at_guide_resize(at_guide *g, int64_t h, int64_t w);
void at_guide_unprepare(at_guide *g);
// guide_vector.c: fills e->vector, NULL where there is nothing to tell.
at_status at_guide_vector(const at_guide *g, at_ops *o, at_entry *e);
// guide.c: the positive estimate guided away from what the negative one has across it.
at_tensor *at_guide_perpendicular(at_ops *o, const at_tensor *positive, const at_tensor *negative,
                                  const at_tensor *empty, double cfg, double neg_scale);
// guide_concat.c: what the network wants behind x, on the host; *out NULL where it wants nothing.
at_status at_guide_concat(const at_guide *g, const at_cond *c, at_tensor **out);
// (z - shift) * scale of f32 host values, in place.
void at_guide_process_in(const at_guide *g, at_tensor *z);
// Items 0 .. n of t along dimension 0, repeated from the start or cut; a new host tensor.
at_status at_guide_repeat(const at_tensor *t, int64_t n, at_tensor **out);
// guide_mult.c: the weights of an entry, and what is left of the picture.
at_status at_guide_mult(const at_guide *g, at_entry *e);
// guide_plan.c
at_status at_guide_plan(at_guide *g, int n, const at_list_id *list, float sigma,
                        const at_plan **out);
void at_plan_clear(at_plan *p);
// guide_lora.c: the network that an entry with these hooks (NULL: none) runs on at this sigma;
// borrowed until the next call. NULL after a failure (sticky in `o`).
at_model *at_guide_network(at_guide *g, at_ops *o, const at_object *hooks, float sigma);
void at_guide_networks_free(at_guide *g);
// guide_units.c: how many ranks may share the forwards of this guide's evaluations.
int at_guide_spread(const at_guide *g, at_ops *o);
// The rows of one forward that keep `spread` ranks busy, at most `most`.
int64_t at_guide_unit_rows(const at_guide *g, size_t items, int64_t most);
// All of a plan's forwards, shared out: each(ctx, item, row, rows, x0) for every one of them, in order.
typedef void at_unit_fn(void *ctx, const at_item *item, int64_t row, int64_t rows, at_tensor *x0);
void at_guide_units(at_guide *g, at_ops *o, const at_plan *p, const at_tensor *x,
                    const at_tensor *scaled, float sigma, const at_patches *patches,
                    at_unit_fn *each, void *ctx);
// guide_batch.c: x0 of rows [row, row + rows) of a batch of items, each [rows, c, rect.h, rect.w].
void at_guide_forward(at_guide *g, at_ops *o, const at_plan *p, const at_batch *b,
                      const at_tensor *x, const at_tensor *scaled, float sigma,
                      const at_patches *patches, int64_t row, int64_t rows, at_tensor **x0);

#endif
