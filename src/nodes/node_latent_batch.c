// SPDX-License-Identifier: Apache-2.0
// node_latent_batch.c - LatentBatch, LatentFromBatch, RepeatLatentBatch, LatentBatchSeedBehavior: how many,
// and with which noise.
// Idea: samples, noise mask and batch indices (which draw of noise an item gets) are three lists that are
// cut and joined together; lists that ComfyUI leaves alone are shared.
// Easy to get wrong: RepeatLatentBatch repeats the mask as it is, also where it has fewer rows than the
// batch.
// Source: ComfyUI 0.3.64, behaviour of nodes.py and comfy_extras/nodes_latent.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <string.h>

#include "base/mem.h"

#define EXTRAS "comfy_extras.nodes_latent"

// Rows [first, first + n) of t, at t's own rank.
static at_status rows_of(const char *node, const at_tensor *t, int64_t first, int64_t n,
                         at_tensor **out)
{
    at_status st = AT_OK;
    int64_t shape[AT_MAX_RANK];
    if (n < 1) return at_fail(AT_EINVAL, "%s: a batch of %lld is empty", node, (long long)n);
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = n;
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, t->rank, shape, out));
    size_t item = at_tensor_bytes(t) / (size_t)t->shape[0];
    memcpy(at_tensor_data(*out), (const char *)at_tensor_data(t) + (size_t)first * item,
           (size_t)n * item);
out:
    return st;
}

// --- LatentBatch -------------------------------------------------------------------------------------
typedef struct two_in {
    at_object *samples1, *samples2;
} two_in;
static const at_in two_rows[] = {AT_ROW_LINK(two_in, samples1, "LATENT"),
                                 AT_ROW_LINK(two_in, samples2, "LATENT")};

static at_status batch_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const two_in *i = in;
    const at_obj_latent *a = (const at_obj_latent *)i->samples1;
    const at_obj_latent *b = (const at_obj_latent *)i->samples2;
    at_tensor *fitted = NULL, *r = NULL;
    int64_t *index = NULL, na = a->samples->shape[0], nb = b->samples->shape[0];

    AT_TRY(at_latent_fit("LatentBatch", a->samples, b->samples, false, &fitted));
    if (a->samples->shape[1] != fitted->shape[1])
        AT_TRY(at_fail(AT_EINVAL, "LatentBatch: latents of %lld and %lld channels",
                       (long long)a->samples->shape[1], (long long)fitted->shape[1]));
    AT_TRY(at_latent_alloc(
        "LatentBatch", (int64_t[]){na + nb, fitted->shape[1], fitted->shape[2], fitted->shape[3]},
        &r));
    memcpy(at_tensor_data(r), at_tensor_data(a->samples), at_tensor_bytes(a->samples));
    memcpy((char *)at_tensor_data(r) + at_tensor_bytes(a->samples), at_tensor_data(fitted),
           at_tensor_bytes(fitted));
    AT_TRY(at_latent_index("LatentBatch", na + nb, &index));
    for (int64_t k = 0; k < na + nb; k++)
        index[k] = k < na ? at_latent_draw(a, k, 0) : at_latent_draw(b, k - na, 0);
    st = at_latent_parts("LatentBatch", r, a->noise_mask, index, out);
    r = NULL;
out:
    at_tensor_release(&fitted);
    at_tensor_release(&r);
    return st;
}
static const at_node node_batch = AT_LATENT_NODE("LatentBatch", NULL, "latent/batch", EXTRAS,
                                                 AT_NODE_V3, two_rows, two_in, batch_run);

// --- LatentFromBatch ---------------------------------------------------------------------------------
typedef struct from_in {
    at_object *samples;
    int64_t batch_index, length;
} from_in;
static const at_in from_rows[] = {AT_ROW_LINK_BARE(from_in, samples, "LATENT"),
                                  AT_ROW_INT(from_in, batch_index, 0, 0, 63),
                                  AT_ROW_INT(from_in, length, 1, 1, 64)};

// The mask's rows for items [first, first + n) of `batch`; one row stays one.
static at_status mask_rows(const at_tensor *mask, int64_t batch, int64_t start, int64_t stop,
                           at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *all = NULL;
    int64_t first;

    if (mask->shape[0] == 1) {
        *out = at_tensor_retain(mask);
        return AT_OK;
    }
    if (mask->shape[0] < batch)
        AT_TRY(at_latent_repeat(mask, batch, &all));
    else
        all = at_tensor_retain(mask);
    int64_t n = at_slice(start, stop, all->shape[0], &first);
    AT_TRY(rows_of("LatentFromBatch", all, first, n, out));
out:
    at_tensor_release(&all);
    return st;
}

static at_status from_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const from_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    int64_t batch = l->samples->shape[0], first, *index = NULL;
    int64_t start = at_int_of(i->batch_index), length = at_int_of(i->length);
    at_tensor *r = NULL, *mask = NULL;

    if (start > batch - 1) start = batch - 1;
    if (length > batch - start) length = batch - start;
    int64_t n = at_slice(start, start + length, batch, &first);
    AT_TRY(rows_of("LatentFromBatch", l->samples, first, n, &r));
    if (l->noise_mask) AT_TRY(mask_rows(l->noise_mask, batch, start, start + length, &mask));
    AT_TRY(at_latent_index("LatentFromBatch", n, &index));
    for (int64_t k = 0; k < n; k++)
        index[k] = l->batch_index ? l->batch_index[first + k] : start + k;
    st = at_latent_parts("LatentFromBatch", r, mask, index, out);
    r = NULL;
out:
    at_tensor_release(&r);
    at_tensor_release(&mask);
    return st;
}
static const at_node node_from =
    AT_LATENT_NODE("LatentFromBatch", "Latent From Batch", "latent/batch", "nodes", 0, from_rows,
                   from_in, from_run);

// --- RepeatLatentBatch -------------------------------------------------------------------------------
typedef struct repeat_in {
    at_object *samples;
    int64_t amount;
} repeat_in;
static const at_in repeat_rows[] = {AT_ROW_LINK_BARE(repeat_in, samples, "LATENT"),
                                    AT_ROW_INT(repeat_in, amount, 1, 1, 64)};

// Copies get draws of their own: the whole list again, moved beyond its range.
static at_status repeat_draws(const at_obj_latent *l, int64_t amount, int64_t **out)
{
    int64_t n = l->samples->shape[0], low = INT64_MAX, high = INT64_MIN;
    at_status st = at_latent_index("RepeatLatentBatch", n * amount, out);
    if (st != AT_OK) return st;
    for (int64_t k = 0; k < n; k++) {
        if (l->batch_index[k] < low) low = l->batch_index[k];
        if (l->batch_index[k] > high) high = l->batch_index[k];
    }
    for (int64_t k = 0; k < n * amount; k++)
        (*out)[k] = l->batch_index[k % n] + k / n * (high - low + 1);
    return AT_OK;
}

static at_status repeat_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const repeat_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    at_tensor *r = NULL, *mask = NULL;
    int64_t *index = NULL, amount = at_int_of(i->amount);

    if (amount < 1)
        AT_TRY(
            at_fail(AT_EINVAL, "RepeatLatentBatch: %lld times leaves nothing", (long long)amount));
    AT_TRY(at_latent_repeat(l->samples, l->samples->shape[0] * amount, &r));
    if (l->noise_mask) {
        int64_t rows = l->noise_mask->shape[0];
        AT_TRY(at_latent_repeat(l->noise_mask, rows > 1 ? rows * amount : rows, &mask));
    }
    if (l->batch_index) AT_TRY(repeat_draws(l, amount, &index));
    st = at_latent_parts("RepeatLatentBatch", r, mask, index, out);
    r = NULL;
out:
    at_tensor_release(&r);
    at_tensor_release(&mask);
    return st;
}
static const at_node node_repeat =
    AT_LATENT_NODE("RepeatLatentBatch", "Repeat Latent Batch", "latent/batch", "nodes", 0,
                   repeat_rows, repeat_in, repeat_run);

// --- LatentBatchSeedBehavior -------------------------------------------------------------------------
typedef struct seed_in {
    at_object *samples;
    const char *seed_behavior;
} seed_in;
static const char *const behaviours[] = {"random", "fixed", NULL};
static const at_in seed_rows[] = {
    AT_ROW_LINK(seed_in, samples, "LATENT"),
    AT_ROW(seed_in, seed_behavior, AT_IN_COMBO, .choices = behaviours, .sdef = "fixed")};

// "fixed": all items get the first one's draw; "random": each the one at its place.
static at_status seed_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const seed_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    int64_t *index = NULL, n = l->samples->shape[0];
    if (strcmp(i->seed_behavior, "fixed") == 0) {
        at_status st = at_latent_index("LatentBatchSeedBehavior", n, &index);
        if (st != AT_OK) return st;
        for (int64_t k = 0; k < n; k++)
            index[k] = at_latent_draw(l, 0, 0);
    }
    return at_latent_parts("LatentBatchSeedBehavior", at_tensor_retain(l->samples), l->noise_mask,
                           index, out);
}
static const at_node node_seed = AT_LATENT_NODE("LatentBatchSeedBehavior", NULL, "latent/advanced",
                                                EXTRAS, AT_NODE_V3, seed_rows, seed_in, seed_run);

const at_node *const at_nodes_latent_batch[] = {&node_batch, &node_from, &node_repeat, &node_seed,
                                                NULL};
