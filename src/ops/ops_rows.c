// SPDX-License-Identifier: Apache-2.0
// ops_rows.c - feature maps whose rows are shared out over ranks: who holds which, and what a layer needs of
// its neighbours.
// Idea: rank r of the patch axis holds a run of a map's rows, the shares of op_share. The label `run` of a
// tensor says so and every door hands it on, so that a model splits where its pixels come in, gathers where
// they go out, and says nothing between. A layer that looks at rows of other ranks asks for them with a span
// for each rank, which everybody can compute: nobody asks before he sends, and the sequence of exchanges is
// the same on all ranks.
// Easy to get wrong:
//   - shares of an odd height do not halve into the shares of the half: a convolution's rows are found from
//     the rows that it gives, never from the rank's own
//   - padding belongs to the edges of the whole map, not to those of a run
//   - an upsampling convolution may need half of a row's two copies: it computes rows more and drops them
//   - room at the ends of a run belongs to that tensor alone: views and copies have none
//   - a rank without rows still takes part
// Owns: see ops.h.
#include "ops/ops_private.h"

#include <string.h>

enum {
    ROOM = 2
}; // rows: what a 3x3 kernel looks over the edge, and what it makes too many there of a doubled map

static at_comm *patch_comm(const at_ops *o)
{
    return o->mesh.axis[AT_AXIS_PATCH];
}

void op_like(at_tensor *out, const at_tensor *x)
{
    if (out && x && x->run.rows && out->rank > 1) out->run = x->run;
}

int64_t at_map_rows(const at_tensor *x)
{
    return x->run.rows ? x->run.rows : x->shape[1];
}

static op_span share_of(const at_ops *o, int64_t rows, int rank)
{
    int64_t first, length;

    at_share_of(o->mesh.share[AT_AXIS_PATCH], rows, rank, patch_comm(o)->size, &first, &length);
    return (op_span){first, first + length};
}

static op_span overlap(op_span a, op_span b)
{
    op_span s = {a.lo > b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};

    if (s.hi < s.lo) s.hi = s.lo;
    return s;
}

// --- a door's own share ------------------------------------------------------------------------
at_tensor *at_split_rows(at_ops *o, const at_tensor *x)
{
    at_status st = AT_OK;
    at_comm *c = patch_comm(o);
    at_tensor *out = NULL;
    op_span mine;
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, "split_rows", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank != 4 || x->run.rows)
        AT_TRY(at_fail(AT_EINVAL, "x %s is no whole map [b, h, w, c]",
                       at_shape_text(x->dtype, x->rank, x->shape, text)));
    if (c->size > OPS_MAX_RANKS)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", c->size, OPS_MAX_RANKS));
    if (c->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    mine = share_of(o, x->shape[1], c->rank);
    AT_TRY(at_tensor_narrow(x, 1, mine.lo, mine.hi - mine.lo, &out));
    out->run = (at_row_run){x->shape[1], 1};
    AT_TRY(op_own(o, out));
out:
    return op_leave(&p, st, out);
}

at_status op_row_part(const op_pass *p, const at_tensor *like, const at_tensor **x)
{
    const at_tensor *whole = *x;
    at_status st = AT_OK;
    at_tensor *part;
    op_span mine;

    if (!like->run.rows || whole->run.rows || whole->rank != like->rank ||
        whole->shape[1] != like->run.rows * like->run.unit)
        return AT_OK;
    mine = share_of(p->o, like->run.rows, patch_comm(p->o)->rank);
    AT_TRY(at_tensor_narrow(whole, 1, mine.lo * like->run.unit,
                            (mine.hi - mine.lo) * like->run.unit, &part));
    part->run = like->run;
    AT_TRY(op_own(p->o, part));
    *x = part;
out:
    return st;
}

// --- rows of others ----------------------------------------------------------------------------
// Rows [s.lo, s.hi) of a view whose first row is `origin`.
static at_view rows_of(at_view v, op_span s, int64_t origin)
{
    return op_part(v, 1, s.lo - origin, s.hi - s.lo);
}

static size_t bytes_of(const at_view *v)
{
    return (size_t)at_view_count(v) * at_dtype_size(v->dtype);
}

// The bytes of `v` as they travel: where they lie, if they lie behind each other, else a block of their own.
static at_status block_of(const op_pass *p, at_view v, at_comm_part *out)
{
    at_status st = AT_OK;
    at_tensor *block;

    *out = (at_comm_part){v.data, bytes_of(&v)};
    if (!out->bytes || at_view_contiguous(&v)) return AT_OK;
    AT_TRY(op_make(p->o, v.dtype, 4, v.shape, &block));
    out->data = at_tensor_data(block);
out:
    return st;
}

static at_view seen_as(const at_comm_part *part, at_view like)
{
    at_view v = {.data = part->data, .dtype = like.dtype, .rank = 4};
    int64_t step = 1;

    memcpy(v.shape, like.shape, sizeof v.shape);
    for (int i = 3; i >= 0; i--) {
        v.stride[i] = step;
        step *= v.shape[i];
    }
    return v;
}

static at_status copy_rows(const op_pass *p, at_view from, at_view to)
{
    if (at_view_count(&from) == 0 || from.data == to.data) return AT_OK;
    return p->o->be->copy(p->o->dev->stream, &from, &to);
}

// A map with ROOM where it can have it.
static at_status map_with_room(at_ops *o, at_dtype dtype, const int64_t *shape, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *whole;

    if (shape[0] != 1 || shape[1] < 1 || shape[2] * shape[3] * (int64_t)at_dtype_size(dtype) % 16)
        return op_make(o, dtype, 4, shape, out);
    AT_TRY(op_make(o, dtype, 4, (int64_t[]){1, shape[1] + 2 * ROOM, shape[2], shape[3]}, &whole));
    AT_TRY(at_tensor_narrow(whole, 1, ROOM, shape[1], out));
    AT_TRY(op_own(o, *out));
    (*out)->room = ROOM;
out:
    return st;
}

at_status op_run_result(op_pass *p, at_dtype dtype, const int64_t *shape, at_row_run run,
                        at_tensor **out)
{
    at_status st = AT_OK;

    if (p->into || !run.rows)
        AT_TRY(op_result(p, dtype, 4, shape, out));
    else
        AT_TRY(map_with_room(p->o, dtype, shape, out));
    if (run.rows) (*out)->run = run;
out:
    return st;
}

at_tensor *at_empty_rows(at_ops *o, at_dtype dtype, const int64_t *shape, const at_tensor *like)
{
    at_tensor *out = NULL;
    at_status st;
    op_pass p;

    if (!like || !like->run.rows) return at_empty(o, dtype, 4, shape);
    if (!op_enter(&p, o, "empty_rows", &o->stats.seconds_other)) return NULL;
    st = map_with_room(o, dtype, shape, &out);
    return op_leave(&p, st, out);
}

// The rows `need` in the place where `mine`, which x holds, lie already; *out NULL: there is no such place.
static at_status in_room(const op_pass *p, const at_tensor *x, op_span mine, op_span need,
                         at_tensor **out)
{
    at_status st = AT_OK;
    int64_t shape[4];

    *out = NULL;
    if (mine.lo >= mine.hi || need.lo >= need.hi || mine.lo - need.lo > x->room ||
        need.hi - mine.hi > x->room || need.lo > mine.hi || need.hi < mine.lo)
        return AT_OK;
    memcpy(shape, x->shape, sizeof shape);
    shape[1] = need.hi - need.lo;
    AT_TRY(at_tensor_view(x, 4, shape, x->stride, (need.lo - mine.lo) * x->stride[1], out));
    AT_TRY(op_own(p->o, *out));
out:
    return st;
}

at_status op_fetch_rows(const op_pass *p, const at_tensor *x, const op_span *needs, at_tensor **out)
{
    at_ops *o = p->o;
    at_comm *c = patch_comm(o);
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    int64_t rows = x->run.rows, shape[4];
    op_span mine = share_of(o, rows, c->rank), need = needs[c->rank];
    at_view from = at_tensor_as_view(x), to;

    AT_TRY(op_has(p, o->be->copy != NULL));
    memcpy(shape, x->shape, sizeof shape);
    shape[1] = need.hi - need.lo;
    AT_TRY(in_room(p, x, mine, need, out));
    if (!*out) AT_TRY(op_make(o, x->dtype, 4, shape, out));
    to = at_tensor_as_view(*out);
    for (int i = 0; i < c->size; i++) {
        op_span theirs = overlap(mine, needs[i]), ours = overlap(share_of(o, rows, i), need);

        send[i] = recv[i] = (at_comm_part){0};
        if (i == c->rank) {
            AT_TRY(copy_rows(p, rows_of(from, theirs, mine.lo), rows_of(to, theirs, need.lo)));
            continue;
        }
        at_view give = rows_of(from, theirs, mine.lo), take = rows_of(to, ours, need.lo);
        AT_TRY(block_of(p, give, &send[i]));
        if (send[i].bytes) AT_TRY(copy_rows(p, give, seen_as(&send[i], give)));
        AT_TRY(block_of(p, take, &recv[i]));
    }
    AT_TRY(op_exchange(o, c, send, recv));
    for (int i = 0; i < c->size; i++) {
        at_view take = rows_of(to, overlap(share_of(o, rows, i), need), need.lo);

        if (recv[i].bytes) AT_TRY(copy_rows(p, seen_as(&recv[i], take), take));
    }
out:
    return st;
}

at_tensor *at_gather_rows(at_ops *o, const at_tensor *x)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_span all[OPS_MAX_RANKS];
    int64_t shape[4];
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, "gather_rows", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (!x->run.rows) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    if (x->rank != 4 || x->run.unit != 1)
        AT_TRY(at_fail(AT_EINVAL, "x %s is no map [b, h, w, c]",
                       at_shape_text(x->dtype, x->rank, x->shape, text)));
    for (int i = 0; i < patch_comm(o)->size; i++)
        all[i] = (op_span){0, x->run.rows};
    memcpy(shape, x->shape, sizeof shape);
    AT_TRY(op_fetch_rows(&p, x, all, &out));
out:
    return op_leave(&p, st, out);
}

void op_row_counts(const at_ops *o, const at_row_run *run, int64_t *counts)
{
    for (int i = 0; i < patch_comm(o)->size; i++) {
        op_span s = share_of(o, run->rows, i);
        counts[i] = (s.hi - s.lo) * run->unit;
    }
}

// --- convolutions ------------------------------------------------------------------------------
static int64_t zoom_of(const at_conv2d_args *a)
{
    return a->upsample2x ? 2 : 1;
}

at_conv2d_args op_conv_numbers(const at_conv_spec *spec)
{
    at_conv2d_args a = {.stride = 1};

    if (!spec) return a;
    if (spec->stride) a.stride = spec->stride;
    a.pad_top = spec->pad_top;
    a.pad_left = spec->pad_left;
    a.pad_bottom = spec->pad_bottom;
    a.pad_right = spec->pad_right;
    a.upsample2x = spec->upsample2x;
    a.act = spec->act;
    return a;
}

int64_t op_own_rows(const at_ops *o, int64_t rows)
{
    op_span s = share_of(o, rows, patch_comm(o)->rank);

    return s.hi - s.lo;
}

int64_t op_conv_rows(const at_conv2d_args *a, int64_t rows, int64_t kh)
{
    return (rows * zoom_of(a) + a->pad_top + a->pad_bottom - kh) / a->stride + 1;
}

// The rows of the input that rank `rank` needs for its rows of the result.
static op_span conv_need(const at_ops *o, const at_conv2d_args *a, int64_t rows, int64_t kh,
                         int rank)
{
    int64_t zoom = zoom_of(a);
    op_span gives = share_of(o, op_conv_rows(a, rows, kh), rank), need;

    if (gives.lo == gives.hi) return (op_span){0, 0};
    need.lo = gives.lo * a->stride - a->pad_top;
    need.hi = (gives.hi - 1) * a->stride - a->pad_top + kh;
    if (need.lo < 0) need.lo = 0;
    if (need.hi > rows * zoom) need.hi = rows * zoom;
    need.lo /= zoom;
    need.hi = (need.hi + zoom - 1) / zoom;
    return need.hi > need.lo ? need : (op_span){need.lo, need.lo};
}

at_status op_conv_input(const op_pass *p, const at_tensor *x, int64_t kh, at_conv2d_args *a,
                        const at_tensor **in, int64_t *skip)
{
    at_ops *o = p->o;
    at_comm *c = patch_comm(o);
    at_status st = AT_OK;
    op_span needs[OPS_MAX_RANKS] = {0}, need, gives;
    int64_t rows = x->run.rows, zoom = zoom_of(a), end;
    bool apart = false; // somebody needs other rows than his own
    at_tensor *fetched;

    gives = share_of(o, op_conv_rows(a, rows, kh), c->rank);
    for (int i = 0; i < c->size; i++) {
        op_span own = share_of(o, rows, i);
        needs[i] = conv_need(o, a, rows, kh, i);
        apart |= needs[i].lo != own.lo || needs[i].hi != own.hi;
    }
    need = needs[c->rank];
    *in = x;
    if (apart) {
        AT_TRY(op_fetch_rows(p, x, needs, &fetched));
        *in = fetched;
    }
    // A doubled map keeps its padding (backends have that in one kernel): rows too many come out at the edges of the run.
    if (zoom == 2 && a->stride == 1) {
        *skip = gives.lo - need.lo * zoom;
        goto out;
    }
    // What is left of the padding at this run's edges.
    int64_t begin = gives.lo * a->stride - a->pad_top;
    end = (gives.hi - 1) * a->stride - a->pad_top + kh;
    a->pad_top = begin < 0 ? (int)-begin : 0;
    a->pad_bottom = end > rows * zoom ? (int)(end - rows * zoom) : 0;
    *skip = begin > need.lo * zoom ? begin - need.lo * zoom : 0;
out:
    return st;
}

// --- group norm --------------------------------------------------------------------------------
at_status op_group_parts(const op_pass *p, const at_tensor *x, at_group_norm_args *a,
                         int64_t *pixels)
{
    at_ops *o = p->o;
    at_comm *c = patch_comm(o);
    at_status st = AT_OK;
    int64_t shape[] = {c->size, x->shape[0], a->groups, 2};
    at_group_norm_args mine = *a;
    at_tensor *own, *all;

    AT_TRY(op_has(p, o->be->group_stats && o->be->fill));
    AT_TRY(op_make(o, AT_F32, 3, shape + 1, &own));
    AT_TRY(op_make(o, AT_F32, 4, shape, &all));
    mine.out = at_tensor_as_view(own);
    if (at_tensor_count(x) > 0) {
        AT_TRY(o->be->group_stats(o->dev->stream, &mine));
    } else {
        AT_TRY(o->be->fill(o->dev->stream, &mine.out, 0));
    }
    AT_TRY(op_all_gather(o, c, at_tensor_data(own), at_tensor_data(all), at_tensor_bytes(own)));
    for (int i = 0; i < c->size; i++) {
        op_span s = share_of(o, x->run.rows, i);
        pixels[i] = (s.hi - s.lo) * x->shape[2];
    }
    a->parts = at_tensor_as_view(all);
    a->part_pixels = pixels;
out:
    return st;
}

// --- other shapes ------------------------------------------------------------------------------
at_status op_reshaped_run(const at_tensor *x, at_tensor *out)
{
    int64_t before = 1, after = 1;
    char from[128], to[128];

    if (!x->run.rows) return AT_OK;
    for (int i = 2; i < x->rank; i++)
        before *= x->shape[i];
    for (int i = 2; i < out->rank; i++)
        after *= out->shape[i];
    // Features of a rank that has none of the heads: the pixels are what they were.
    if (!before && !after && out->rank > 1 && out->shape[0] == x->shape[0] &&
        out->shape[1] == x->shape[1]) {
        out->run = x->run;
        return AT_OK;
    }
    if (out->rank < 2 || out->shape[0] != x->shape[0] || !after ||
        x->run.unit * before % after != 0)
        return at_fail(AT_EUNSUPPORTED, "%s, some rows of a map, to %s: gather the rows first",
                       at_shape_text(x->dtype, x->rank, x->shape, from),
                       at_shape_text(out->dtype, out->rank, out->shape, to));
    out->run = (at_row_run){x->run.rows, x->run.unit * before / after};
    return AT_OK;
}
