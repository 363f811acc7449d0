// SPDX-License-Identifier: Apache-2.0
// conv_slabs.c - a convolution over a map of more elements than the library counts, cut into slabs of rows.
// Idea: a row of the result sees kh rows of x. In NHWC rows lie behind each other, so a slab is a view of the map with some rows
// of its neighbours around it, and zeros are added at the ends of the picture alone. A decoded picture of 4096 x 4096 has 2^32 elements
// of 256 channels; cuDNN counts to 2^31, and what was left was the reference kernel: seconds a layer.
// Easy to get wrong: with a doubled picture a slab begins at a whole pixel of x and ends at one, so the slab's result has rows too many
// at either end, which are wrong (there are zeros, where there should be neighbours) and are not taken.
// Owns: scratch for a doubled slab, until its copy is queued.
#include "cuda/conv_slabs.h"

#include "cuda/cuda.h"

static int64_t row_of(const at_view *v)
{
    return v->shape[2] * v->shape[3];
}

static int64_t x_row(const at_conv2d_args *a)
{
    return row_of(&a->x) * (a->upsample2x ? 2 : 1);
}

bool at_conv_is_large(const at_conv2d_args *a, int64_t limit)
{
    int64_t x = a->x.shape[0] * a->x.shape[1] * (a->upsample2x ? 2 : 1) * x_row(a);
    int64_t out = a->out.shape[0] * a->out.shape[1] * row_of(&a->out);
    if (a->upsample2x && (a->stride != 1 || a->residual.data)) return false;
    if (a->pad_top >= a->w.v.shape[2] || a->pad_bottom >= a->w.v.shape[2])
        return false; // windows of nothing but zeros
    return x > limit || out > limit;
}

static at_view rows_of(const at_view *v, int64_t picture, int64_t first, int64_t rows)
{
    at_view part = *v;
    if (!v->data) return part;
    part.shape[0] = 1;
    part.shape[1] = rows;
    part.stride[0] =
        rows *
        v->stride
            [1]; // of one picture it says nothing, but the library reads it: beyond 2^31 it crawls
    part.data = (char *)v->data +
                (picture * v->stride[0] + first * v->stride[1]) * (int64_t)at_cuda_size(v->dtype);
    return part;
}

// The rows of x (of the doubled x) that rows [first, first + rows) of the result see: [lo, hi), with zeros outside.
typedef struct span {
    int64_t lo, hi;
} span;

static span seen_by(const at_conv2d_args *a, int64_t first, int64_t rows)
{
    int64_t lo = first * a->stride - a->pad_top;
    return (span){lo, lo + (rows - 1) * a->stride + a->w.v.shape[2]};
}

static at_status slab(void *stream, const at_conv2d_args *a, int64_t picture, int64_t first,
                      int64_t rows, const at_conv_hands *hands)
{
    span s = seen_by(a, first, rows);
    int64_t h = a->x.shape[1], lo = s.lo > 0 ? s.lo : 0, hi = s.hi < h ? s.hi : h;
    at_conv2d_args part = *a;
    part.x = rows_of(&a->x, picture, lo, hi - lo);
    part.out = rows_of(&a->out, picture, first, rows);
    part.residual = rows_of(&a->residual, picture, first, rows);
    part.pad_top = (int)(lo - s.lo);
    part.pad_bottom = (int)(s.hi - hi);
    return hands->conv(stream, &part);
}

// Into scratch, with a pixel of x more at either end where there is one; then what is right of it.
static at_status doubled_slab(void *stream, const at_conv2d_args *a, int64_t picture, int64_t first,
                              int64_t rows, const at_conv_hands *hands)
{
    at_status st = AT_OK;
    void *scratch = NULL;
    span s = seen_by(a, first, rows);
    int64_t h = a->x.shape[1], lo = s.lo > 0 ? s.lo / 2 : 0, hi = (s.hi + 1) / 2;
    if (hi > h) hi = h;
    int64_t made = 2 * (hi - lo) + a->pad_top + a->pad_bottom - a->w.v.shape[2] + 1;
    at_conv2d_args part = *a;
    at_view from, to = rows_of(&a->out, picture, first, rows);

    AT_TRY(hands->scratch(stream, (size_t)(made * row_of(&a->out)) * at_cuda_size(a->out.dtype),
                          &scratch));
    part.x = rows_of(&a->x, picture, lo, hi - lo);
    part.out = (at_view){.data = scratch,
                         .dtype = a->out.dtype,
                         .rank = 4,
                         .shape = {1, made, a->out.shape[2], a->out.shape[3]},
                         .stride = {made * row_of(&a->out), row_of(&a->out), a->out.shape[3], 1}};
    AT_TRY(hands->conv(stream, &part));
    from = rows_of(&part.out, 0, first - 2 * lo, rows);
    AT_TRY(hands->copy(stream, &from, &to));
out:
    hands->drop(stream, scratch);
    return st;
}

at_status at_conv_in_slabs(void *stream, const at_conv2d_args *a, int64_t limit,
                           const at_conv_hands *hands)
{
    at_status st = AT_OK;
    int64_t x = x_row(a) * a->stride, out = row_of(&a->out), all = a->out.shape[1];
    int64_t rows = limit / (x > out ? x : out) - (a->upsample2x ? 4 : a->w.v.shape[2]);
    if (rows < 1) rows = 1;
    int64_t slabs = (all + rows - 1) / rows;
    rows = (all + slabs - 1) / slabs; // of about one size
    for (int64_t b = 0; b < a->out.shape[0]; b++)
        for (int64_t at = 0; at < all; at += rows) {
            int64_t n = rows < all - at ? rows : all - at;
            AT_TRY(a->upsample2x ? doubled_slab(stream, a, b, at, n, hands)
                                 : slab(stream, a, b, at, n, hands));
        }
out:
    return st;
}
