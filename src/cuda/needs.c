// SPDX-License-Identifier: Apache-2.0
// needs.c - what the slots here borrow and what they make of weights, told without doing it (tensor/needs.h).
// Idea: the same questions that linear.c, conv.c and attention*.c ask, over arguments whose data nobody reads. Where a
// library may refuse, the way behind it is what counts if it takes more.
// Easy to get wrong: what changes there changes here; `bench` prints the real peak beside a plan's, and
// tools/gpu/plan_memory.sh compares them.
// Owns nothing.
#include <string.h>

#include "cuda/cuda.h"
#include "cuda/norm_rows.h"
#include "cuda/rows8.h"

enum { WINDOWS = 16 << 20, CHUNK = 256 << 20, FP8_TOKENS = 2048, FP8_DIM = 128, FEW = 32 };

static size_t bytes_of(const at_view *v, at_dtype t)
{
    return (size_t)at_cuda_count(v) * at_cuda_size(t);
}

// What a slot keeps of w: with the weight, or for the call alone where it has no place to be kept.
static void form(at_needs *n, const at_wview *w, size_t bytes)
{
    if (!w->v.data) return;
    if (!w->packed || n->n == AT_NEEDS_FORMS) {
        n->scratch += bytes;
        return;
    }
    n->forms[n->n].of = w->packed;
    n->forms[n->n++].bytes = bytes;
}

static void vector(at_needs *n, const at_wview *w, at_dtype t)
{
    form(n, w, bytes_of(&w->v, t));
}

// --- linear --------------------------------------------------------------------------------------
static bool in_fp8(const at_cuda *g, const at_linear_args *a)
{
    int64_t n = a->w.v.shape[0], k = a->w.v.shape[1];
    return a->fp8 && g->lt && g->capability >= 89 && k % 16 == 0 && k > 0 && k <= AT_ROWS8_WIDEST &&
           n % 16 == 0 && a->split % 16 == 0 && a->out.dtype != AT_F32 &&
           (a->x_scale.data || a->x.dtype == a->out.dtype);
}

static void linear_weights(const at_linear_args *a, bool fp8, at_dtype math, at_needs *out)
{
    int64_t n = a->w.v.shape[0], k = a->w.v.shape[1];
    size_t rows8 = (size_t)(n * k) + (size_t)n * sizeof(float);

    if (a->n_more && !fp8 && !a->w8 && a->x.dtype == a->out.dtype) { // one matrix of all
        size_t all = bytes_of(&a->w.v, math);
        for (int i = 0; i < a->n_more; i++) {
            all += bytes_of(&a->more[i].v, math);
            form(out, &a->more[i], 0);
        }
        form(out, &a->w, all);
        return;
    }
    form(out, &a->w, fp8 || a->w8 ? rows8 : bytes_of(&a->w.v, math));
    if (a->w8 && !fp8) out->scratch += bytes_of(&a->w.v, math);
    for (int i = 0; i < a->n_more; i++) {
        size_t one = (size_t)at_cuda_count(&a->more[i].v) + (size_t)a->more[i].v.shape[0] * 4;
        form(out, &a->more[i], fp8 || a->w8 ? one : bytes_of(&a->more[i].v, math));
    }
}

static void linear(const at_cuda *g, const at_linear_args *a, at_needs *out)
{
    bool fp8 = in_fp8(g, a), scaled = a->x_scale.data != NULL;
    at_dtype math = scaled || fp8 ? a->out.dtype : a->x.dtype;
    const at_view *result = a->split && a->out2.data ? &a->out2 : &a->out; // the larger half
    bool more = a->gate.data || (a->act != AT_ACT_NONE && a->act != AT_ACT_GELU_TANH) ||
                (a->act != AT_ACT_NONE && a->residual.data) ||
                (a->out.dtype != AT_F32 && a->out.dtype != math) ||
                (a->residual.data && a->residual.dtype != a->out.dtype);

    linear_weights(a, fp8, math, out);
    vector(out, &a->bias, a->out.dtype == AT_F32 ? AT_F32 : math);
    if (fp8 && !scaled)
        out->scratch +=
            bytes_of(&a->x, AT_F8E4M3) + (size_t)(a->x.shape[0] * a->x.shape[1]) * sizeof(float);
    if (scaled && !fp8) out->scratch += bytes_of(&a->x, math);
    if (!scaled && a->x.stride[2] != 1) out->scratch += bytes_of(&a->x, a->x.dtype);
    if (fp8 && g->capability < 90) // bytes, sized by a kernel of ours
        out->scratch += bytes_of(result, a->out.dtype == AT_BF16 ? AT_BF16 : AT_F32);
    else if (more)
        out->scratch += bytes_of(result, a->out.dtype == math ? math : AT_F32);
}

static void geglu(const at_cuda *g, const at_geglu_args *a, at_needs *out)
{
    bool apart = a->gate.v.data != NULL;
    at_dtype t = a->x_scale.data || a->x.dtype == a->out.dtype ? a->out.dtype : AT_F32;
    int64_t shape[] = {a->out.shape[0], a->out.shape[1], a->w.v.shape[0] * (apart ? 2 : 1)};
    at_linear_args l = {.x = a->x,
                        .out = at_cuda_view(NULL, t, 3, shape),
                        .w = a->w,
                        .bias = a->bias,
                        .x_scale = a->x_scale,
                        .more = apart ? &a->gate : NULL,
                        .n_more = apart,
                        .w8 = a->w8,
                        .fp8 = a->fp8};

    linear(g, &l, out);
    out->scratch += bytes_of(&l.out, t);
}

// --- convolutions ----------------------------------------------------------------------------------
static bool dense(const at_view *v)
{
    int64_t want = 1;
    for (int d = v->rank - 1; d >= 0; want *= v->shape[d], d--)
        if (v->shape[d] > 1 && v->stride[d] != want) return false;
    return true;
}

static void conv2d(const at_cuda *g, const at_conv2d_args *a, at_needs *out)
{
    const int64_t *o = a->out.shape, *w = a->w.v.shape;
    at_dtype t = a->x.dtype;
    bool alike = a->out.dtype == t, half = t != AT_F32;
    bool phases = a->upsample2x && half && alike && a->stride == 1 && w[2] == 3 && w[3] == 3 &&
                  a->x.shape[3] % 8 == 0 && o[3] % 8 == 0 && g->dnn;
    bool wider = half && !alike && o[3] <= FEW; // all of it in f32
    bool whole = half && alike && a->act == AT_ACT_NONE && dense(&a->out) &&
                 (!a->residual.data || (a->bias.v.data && a->residual.dtype == t &&
                                        dense(&a->residual) && a->residual.data != a->out.data));
    int64_t windows = o[0] * o[2] * w[1] * w[2] * w[3] * (int64_t)at_cuda_size(t);

    form(out, &a->w,
         phases ? (size_t)(w[0] * w[1] * 16) * 2 : bytes_of(&a->w.v, wider ? AT_F32 : t));
    vector(out, &a->bias, AT_F32);
    if (w[2] == 1 && w[3] == 1 && a->stride == 1 && !a->upsample2x) { // a linear layer
        if (a->act != AT_ACT_NONE || !alike) out->scratch += bytes_of(&a->out, alike ? t : AT_F32);
        return;
    }
    if (wider || !dense(&a->x)) out->scratch += bytes_of(&a->x, wider ? AT_F32 : t);
    if (a->upsample2x && !phases) out->scratch += 4 * bytes_of(&a->x, t);
    if (half && windows * o[1] <= WINDOWS)
        out->scratch += (size_t)(windows * o[1]);
    else if (half && (wider || o[0] * o[1] * o[2] <= 256))
        out->scratch += windows > WINDOWS ? (size_t)windows : WINDOWS;
    // A sum that a kernel of ours goes on with.
    if (!whole && !(alike && dense(&a->out) && a->residual.data != a->out.data))
        out->scratch += bytes_of(&a->out, alike ? t : AT_F32);
    if (!g->dnn) out->scratch += bytes_of(&a->out, AT_F32);
}

// --- attention -------------------------------------------------------------------------------------
static void attention(const at_cuda *g, const at_attention_args *a, at_needs *out)
{
    const int64_t *q = a->q.shape, *k = a->k.shape;
    bool half = a->q.dtype != AT_F32 && a->k.dtype == a->q.dtype && a->v.dtype == a->q.dtype;
    bool fp8 = a->fp8 && g->dnn && g->capability == 90 && !a->bias.data && !a->causal && half &&
               q[1] >= FP8_TOKENS && k[1] >= FP8_TOKENS && q[3] == FP8_DIM;

    if (fp8) {
        out->scratch = bytes_of(&a->q, AT_F8E4M3) * (a->out_scale.data ? 1 : 2) +
                       2 * bytes_of(&a->k, AT_F8E4M3);
        return;
    }
    if (a->out_scale.data) out->scratch += bytes_of(&a->out, a->q.dtype);
    if (half && q[3] <= 256) return; // cuDNN, or our own
    // Scores in chunks.
    int64_t scores = q[2] * q[1] * ((k[1] + 7) / 8 * 8) * 4;
    out->scratch += scores < CHUNK ? (size_t)scores : CHUNK;
    if (a->k.dtype != a->q.dtype || a->v.dtype != a->q.dtype)
        out->scratch += bytes_of(&a->q, AT_F32) + 2 * bytes_of(&a->k, AT_F32);
    if (a->out.dtype != AT_F32 && a->out.dtype != a->q.dtype)
        out->scratch += bytes_of(&a->out, AT_F32);
}

void at_cuda_needs(at_device *d, at_needs_of slot, const void *args, at_needs *out)
{
    const at_cuda *g = (const at_cuda *)d;

    *out = (at_needs){0};
    switch (slot) {
    case AT_NEEDS_LINEAR: linear(g, args, out); break;
    case AT_NEEDS_GEGLU: geglu(g, args, out); break;
    case AT_NEEDS_CONV2D: conv2d(g, args, out); break;
    case AT_NEEDS_ATTENTION: attention(g, args, out); break;
    case AT_NEEDS_NORM: {
        const at_norm_args *a = args;
        vector(out, &a->weight, AT_F32);
        vector(out, &a->bias, AT_F32);
        break;
    }
    case AT_NEEDS_GROUP_NORM: {
        const at_group_norm_args *a = args;
        vector(out, &a->weight, AT_F32);
        vector(out, &a->bias, AT_F32);
        out->scratch +=
            at_k_group_norm_scratch(a->x.shape[0], a->x.shape[1], a->x.shape[2], a->groups);
        break;
    }
    case AT_NEEDS_ROPE: vector(out, &((const at_rope_args *)args)->weight, AT_F32); break;
    case AT_NEEDS_EMBEDDING: {
        const at_wview *table = &((const at_embedding_args *)args)->table;
        form(out, table, bytes_of(&table->v, table->v.dtype));
        break;
    }
    }
}
