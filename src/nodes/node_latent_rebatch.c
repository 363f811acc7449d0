// SPDX-License-Identifier: Apache-2.0
// node_latent_rebatch.c - RebatchLatents: a list of latents as a list of batches of another size.
// Idea: rows of samples, masks and batch indices wait in a pile; full batches leave it from the front.
// Easy to get wrong: the mask's rows are cut by the samples' numbers, a missing mask counts as ones of eight
// times the size, and a mask of ones is dropped in the end.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_rebatch.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <string.h>

#include "base/mem.h"

// One row of some latent's samples or mask; t NULL: a mask of ones, h x w.
typedef struct row {
    const at_tensor *t;
    int64_t at, h, w;
} row;
// What waits for a batch: rows [first, count) of each list.
typedef struct pile {
    row *samples, *masks;
    int64_t *index;
    int64_t first, count, mask_first, mask_count, seen;
} pile;

static at_status pile_alloc(pile *p, const at_values *latents)
{
    size_t samples = 0, masks = 0;
    for (size_t i = 0; i < latents->count; i++) {
        const at_obj_latent *l = (const at_obj_latent *)latents->items[i].o;
        size_t b = (size_t)l->samples->shape[0];
        at_status st = at_latent_flat("RebatchLatents", l->samples);
        if (st != AT_OK) return st;
        samples += b;
        masks += b + (l->noise_mask ? (size_t)l->noise_mask->shape[0] : 0);
    }
    p->samples = at_calloc(samples + 1, sizeof *p->samples);
    p->index = at_calloc(samples + 1, sizeof *p->index);
    p->masks = at_calloc(masks + 1, sizeof *p->masks);
    if (p->samples && p->index && p->masks) return AT_OK;
    return at_fail(AT_ENOMEM, "RebatchLatents: no memory for %zu latents", samples);
}

static void pile_add(pile *p, const at_obj_latent *l)
{
    const at_tensor *s = l->samples, *m = l->noise_mask;
    int64_t b = s->shape[0], rows = m && m->shape[0] > b ? m->shape[0] : b;
    for (int64_t i = 0; i < b; i++) {
        p->index[p->count] = at_latent_draw(l, i, p->seen);
        p->samples[p->count++] = (row){s, i, s->shape[2], s->shape[3]};
    }
    for (int64_t i = 0; i < rows; i++)
        p->masks[p->mask_count++] =
            m ? (row){m, i % m->shape[0], m->shape[m->rank - 2], m->shape[m->rank - 1]}
              : (row){NULL, 0, s->shape[2] * 8, s->shape[3] * 8};
    p->seen += b;
}

// n rows as one tensor [n, c, h, w] of the first one's size.
static at_status gather(const row *rows, int64_t n, int64_t channels, at_tensor **out)
{
    at_status st = AT_OK;
    AT_TRY(at_latent_alloc("RebatchLatents", (int64_t[]){n, channels, rows->h, rows->w}, out));
    int64_t item = channels * rows->h * rows->w;
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < n; i++, to += item) {
        const row *r = &rows[i];
        bool fits = r->h == rows->h && r->w == rows->w &&
                    (!r->t || at_tensor_count(r->t) == r->t->shape[0] * item);
        if (!fits)
            AT_TRY(at_fail(AT_EINVAL,
                           "RebatchLatents: latents or masks of different sizes (%lld x %lld and "
                           "%lld x %lld) cannot share a batch",
                           (long long)rows->w, (long long)rows->h, (long long)r->w,
                           (long long)r->h));
        if (r->t)
            memcpy(to, (const float *)at_tensor_data(r->t) + r->at * item,
                   (size_t)item * sizeof *to);
        else
            for (int64_t k = 0; k < item; k++)
                to[k] = 1.0f;
    }
out:
    if (st != AT_OK) at_tensor_release(out);
    return st;
}

static bool mean_is_one(const at_tensor *t)
{
    const float *p = at_tensor_data(t);
    double sum = 0;
    for (int64_t i = 0, n = at_tensor_count(t); i < n; i++)
        sum += (double)p[i];
    return (float)(sum / (double)at_tensor_count(t)) == 1.0f;
}

// The first n rows of the pile (all if fewer) leave as one LATENT.
static at_status pile_emit(at_node_ctx *c, pile *p, int64_t n)
{
    at_status st = AT_OK;
    at_tensor *samples = NULL, *mask = NULL;
    int64_t *index = NULL, left = p->count - p->first, masks = p->mask_count - p->mask_first;
    at_value v = {0};

    if (n > left) n = left;
    if (masks > n) masks = n;
    const row *head = p->samples + p->first;
    AT_TRY(gather(head, n, head->t->shape[1], &samples));
    AT_TRY(gather(p->masks + p->mask_first, masks, 1, &mask));
    if (mean_is_one(mask)) at_tensor_release(&mask);
    AT_TRY(at_latent_index("RebatchLatents", n, &index));
    memcpy(index, p->index + p->first, (size_t)n * sizeof *index);
    st = at_latent_parts("RebatchLatents", samples, mask, index, &v);
    samples = NULL;
    if (st == AT_OK) st = at_node_emit(c, 0, v);
    p->first += n;
    p->mask_first += masks;
    if (p->first == p->count) p->mask_first = p->mask_count; // rows without samples are forgotten
out:
    at_tensor_release(&samples);
    at_tensor_release(&mask);
    return st;
}

typedef struct rebatch_in {
    at_values latents, batch_size;
} rebatch_in;
static const at_in rebatch_rows[] = {AT_ROW_LINK(rebatch_in, latents, "LATENT"),
                                     AT_ROW_INT(rebatch_in, batch_size, 1, 1, 4096)};
static const at_out rebatch_out[] = {{.type_name = "LATENT", .name = "LATENT", .is_list = true}};

static at_status rebatch_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const rebatch_in *i = in;
    pile p = {0};
    int64_t size = i->batch_size.count ? i->batch_size.items[0].i : 1;

    if (size < 1) AT_TRY(at_fail(AT_EINVAL, "RebatchLatents: batches of %lld", (long long)size));
    AT_TRY(pile_alloc(&p, &i->latents));
    for (size_t k = 0; k < i->latents.count; k++) {
        const at_obj_latent *l = (const at_obj_latent *)i->latents.items[k].o;
        const row *last = p.first < p.count ? &p.samples[p.first] : NULL;
        if (last && (last->h != l->samples->shape[2] || last->w != l->samples->shape[3])) {
            AT_TRY(pile_emit(c, &p, size));
            p.first = p.count;
            p.mask_first = p.mask_count;
        }
        pile_add(&p, l);
        if (p.count - p.first > size)
            for (int64_t n = (p.count - p.first) / size; n > 0; n--)
                AT_TRY(pile_emit(c, &p, size));
    }
    if (p.first < p.count) AT_TRY(pile_emit(c, &p, size));
out:
    at_free(p.samples);
    at_free(p.masks);
    at_free(p.index);
    return st;
}
static const at_node node_rebatch = {.class_type = "RebatchLatents",
                                     .display = "Rebatch Latents",
                                     .category = "latent/batch",
                                     .python_module = "comfy_extras.nodes_rebatch",
                                     .flags = AT_NODE_V3 | AT_NODE_INPUT_IS_LIST,
                                     .in = rebatch_rows,
                                     .n_in = AT_COUNT(rebatch_rows),
                                     .out = rebatch_out,
                                     .n_out = 1,
                                     .in_size = sizeof(rebatch_in),
                                     .run = rebatch_run};

const at_node *const at_nodes_latent_rebatch[] = {&node_rebatch, NULL};
