// SPDX-License-Identifier: Apache-2.0
// guide_units.c - the forwards of one evaluation, on one rank or shared out to several.
// Idea: a unit is one forward: some conditionings, some latents of the batch. Units are independent, whatever
// they are for (positive and negative, areas, a batch's pictures), so along the mesh's cfg axis each rank takes
// some and all exchange their x0 once. Every rank then puts the same values together in the same order.
// Easy to get wrong: who takes what must follow from what all ranks know. Hooks that look into forwards or
// remember them want to see all of them in order: with such a hook nothing is shared out here.
// Owns nothing beyond a call.
#include "nodes/guide_impl.h"

#include "base/mem.h"

enum { MOST_RANKS = 256 };

int at_guide_spread(const at_guide *g, at_ops *o)
{
    int n = at_ops_mesh(o)->axis[AT_AXIS_CFG]->size;

    for (size_t i = 0; i < at_guide_hook_count(g); i++) {
        const at_hook_ops *h = at_guide_hook(g, i)->ops;
        if (h->patch || h->forward) return 1;
    }
    return n;
}

int64_t at_guide_unit_rows(const at_guide *g, size_t items, int64_t most)
{
    const double overhead = 0.1; // of a forward, in rows
    int64_t b = g->shape[0], best = most;
    double least = 0;

    for (int64_t rows = most; rows >= 1 && items; rows--) {
        int64_t units = (int64_t)items * ((b + rows - 1) / rows);
        double time = (double)((units + g->spread - 1) / g->spread) * ((double)rows + overhead);
        if (rows < most && time >= least) continue;
        least = time;
        best = rows;
    }
    return best;
}

typedef struct unit {
    const at_batch *batch;
    int64_t row, rows;
    int rank;
    int64_t at, each; // elements: where its results begin, and of one item
} unit;

static double work_of(const at_plan *p, const unit *u)
{
    const at_rect *r = &p->items[u->batch->first].e->rect;
    return (double)u->batch->count * (double)u->rows * (double)(r->h * r->w);
}

static bool sooner(double mine, int share, double others, int other_share)
{
    return mine * other_share < others * share;
}

// The largest that is left goes to who would have done it first; ties to the first. share: their speeds; zeros: equal.
static void deal(const at_plan *p, unit *units, size_t n, int ranks, const int *share)
{
    double load[MOST_RANKS] = {0};

    for (size_t done = 0; done < n; done++) {
        size_t next = n;
        int to = 0;
        for (size_t i = 0; i < n; i++)
            if (units[i].rank < 0 &&
                (next == n || work_of(p, &units[i]) > work_of(p, &units[next])))
                next = i;
        double work = work_of(p, &units[next]);
        bool uneven = ranks <= AT_SHARE_RANKS && share[0];
        for (int r = 1; r < ranks; r++)
            if (sooner(load[r] + work, uneven ? share[r] : 1, load[to] + work,
                       uneven ? share[to] : 1))
                to = r;
        units[next].rank = to;
        load[to] += work;
    }
}

static size_t list_units(const at_guide *g, const at_plan *p, unit *units)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_batches; i++)
        for (int64_t row = 0; row < g->shape[0]; row += p->rows) {
            const at_batch *b = &p->batches[i];
            const at_rect *r = &p->items[b->first].e->rect;
            int64_t rows = g->shape[0] - row < p->rows ? g->shape[0] - row : p->rows;
            units[n++] = (unit){.batch = b,
                                .row = row,
                                .rows = rows,
                                .rank = -1,
                                .each = rows * g->shape[1] * r->h * r->w};
        }
    return n;
}

// Places of all results in one buffer, rank after rank; returns its length.
static int64_t lay_out(unit *units, size_t n, int ranks, int64_t *lengths)
{
    int64_t at = 0;

    for (int r = 0; r < ranks; r++) {
        int64_t begin = at;
        for (size_t i = 0; i < n; i++) {
            if (units[i].rank != r) continue;
            units[i].at = at;
            at += units[i].each * (int64_t)units[i].batch->count;
        }
        lengths[r] = at - begin;
    }
    return at;
}

typedef struct evaluation {
    at_guide *g;
    at_ops *o;
    const at_plan *p;
    const at_tensor *x, *scaled;
    float sigma;
    const at_patches *patches;
} evaluation;

static void forward(const evaluation *e, const unit *u, at_tensor **x0)
{
    at_guide_forward(e->g, e->o, e->p, u->batch, e->x, e->scaled, e->sigma, e->patches, u->row,
                     u->rows, x0);
}

static at_tensor *result_at(const evaluation *e, at_tensor *buffer, const unit *u, size_t i)
{
    const at_rect *r = &e->p->items[u->batch->first].e->rect;
    at_tensor *flat = at_narrow(e->o, buffer, 0, u->at + (int64_t)i * u->each, u->each);
    return at_reshape(e->o, flat, 4, (int64_t[]){u->rows, e->g->shape[1], r->h, r->w});
}

// This rank's units, and everybody's results.
static void share_out(const evaluation *e, unit *units, size_t n, at_unit_fn *each, void *ctx)
{
    at_comm *c = at_ops_mesh(e->o)->axis[AT_AXIS_CFG];
    int64_t lengths[MOST_RANKS] = {0};

    deal(e->p, units, n, c->size, at_ops_mesh(e->o)->share[AT_AXIS_CFG]);
    int64_t total = lay_out(units, n, c->size, lengths);
    at_tensor *all = at_empty(e->o, AT_F32, 1, &total);
    for (size_t k = 0; k < n && at_ops_status(e->o) == AT_OK; k++) {
        at_tensor *x0[AT_GUIDE_ROWS] = {0};
        if (units[k].rank != c->rank) continue;
        at_scope_begin(e->o);
        forward(e, &units[k], x0);
        for (size_t i = 0; i < units[k].batch->count; i++)
            at_unary(at_into(e->o, result_at(e, all, &units[k], i)), x0[i], AT_ACT_NONE);
        at_scope_end(e->o, NULL);
    }
    at_gather_runs(e->o, AT_AXIS_CFG, all, lengths);
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < units[k].batch->count && at_ops_status(e->o) == AT_OK; i++)
            each(ctx, &e->p->items[units[k].batch->first + i], units[k].row, units[k].rows,
                 result_at(e, all, &units[k], i));
}

void at_guide_units(at_guide *g, at_ops *o, const at_plan *p, const at_tensor *x,
                    const at_tensor *scaled, float sigma, const at_patches *patches,
                    at_unit_fn *each, void *ctx)
{
    evaluation e = {g, o, p, x, scaled, sigma, patches};
    int64_t parts = p->rows ? (g->shape[0] + p->rows - 1) / p->rows : 0;
    unit *units = at_calloc(p->n_batches * (size_t)parts + 1, sizeof *units);

    if (!units) {
        at_ops_poison(o, AT_ENOMEM, "sampler: no memory for %zu forwards", p->n_batches);
        return;
    }
    size_t n = list_units(g, p, units);
    if (g->spread > 1) {
        share_out(&e, units, n, each, ctx);
        n = 0;
    }
    for (size_t k = 0; k < n && at_ops_status(o) == AT_OK; k++) {
        at_tensor *x0[AT_GUIDE_ROWS] = {0};
        forward(&e, &units[k], x0);
        for (size_t i = 0; i < units[k].batch->count && at_ops_status(o) == AT_OK; i++)
            each(ctx, &p->items[units[k].batch->first + i], units[k].row, units[k].rows, x0[i]);
    }
    at_free(units);
}
