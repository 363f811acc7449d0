// SPDX-License-Identifier: Apache-2.0
// patch_attention.c - attention of the middle block replaced or watched: perturbed and
// self-attention guidance.
// Easy to get wrong: perturbed attention concerns every transformer layer of the middle, the map
// only the first; the map is that of the negative prompt's part of the batch, and stays what it
// was when a forward has no such part.
// Source: behaviour of ComfyUI 0.3.64 comfy_extras/nodes_pag.py and nodes_sag.py; Ahn et al. 2024
// (arXiv:2403.17377), Hong et al. 2022 (arXiv:2210.00939).
// Owns: an at_attention_map's numbers.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "models/models.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"

static bool in_middle(const at_site *s)
{
    return !s->cross && s->part == AT_SITE_MIDDLE && s->block == 0;
}

// --- perturbed attention -----------------------------------------------------------------------
static at_tensor *itself(void *self, at_ops *o, const at_site *s, const at_tensor *q,
                         const at_tensor *k, const at_tensor *v)
{
    (void)self;
    (void)q;
    (void)k;
    if (!in_middle(s) || !v) return NULL;
    return at_reshape(o, v, 3, (int64_t[]){v->shape[0], v->shape[1], v->shape[2] * v->shape[3]});
}

const at_patch_ops at_patch_self_only = {
    .name = "PerturbedAttentionGuidance", .free = at_patch_not_owned, .attn = itself};

// --- what attention looks at -------------------------------------------------------------------
// One picture's part: q, k [n, heads, d].
typedef struct look {
    const float *q, *k;
    int64_t n, heads, d;
    float *seen; // [heads, n]: a row per head, so that heads can be done at once
    bool failed;
} look;

static void look_heads(void *ctx, int64_t begin, int64_t end)
{
    look *l = ctx;
    float scale = 1.0f / sqrtf((float)l->d);
    float *p = at_alloc((size_t)l->n * sizeof *p);
    if (!p) {
        l->failed = true;
        return;
    }
    for (int64_t h = begin; h < end; h++)
        for (int64_t i = 0; i < l->n; i++) {
            const float *q = l->q + (i * l->heads + h) * l->d;
            float top = -INFINITY, sum = 0;
            for (int64_t j = 0; j < l->n; j++) {
                const float *k = l->k + (j * l->heads + h) * l->d;
                float dot = 0;
                for (int64_t c = 0; c < l->d; c++)
                    dot += q[c] * k[c];
                p[j] = dot * scale;
                top = fmaxf(top, p[j]);
            }
            for (int64_t j = 0; j < l->n; j++)
                sum += p[j] = expf(p[j] - top);
            for (int64_t j = 0; j < l->n; j++)
                l->seen[h * l->n + j] += p[j] / sum;
        }
    at_free(p);
}

// Fill m->seen from pictures first .. first + m->batch of q and k.
static bool watch(at_attention_map *m, look *l, const float *q, const float *k, int64_t first)
{
    size_t all = (size_t)(l->heads * l->n);
    l->seen = at_alloc(all * sizeof *l->seen);
    for (int64_t b = 0; l->seen && !l->failed && b < m->batch; b++) {
        int64_t at = (first + b) * l->n * l->heads * l->d;
        l->q = q + at;
        l->k = k + at;
        memset(l->seen, 0, all * sizeof *l->seen);
        at_parallel_for(l->heads, 1, look_heads, l);
        for (int64_t j = 0; j < l->n; j++) {
            double sum = 0;
            for (int64_t h = 0; h < l->heads; h++)
                sum += l->seen[h * l->n + j];
            m->seen[b * l->n + j] = (float)(sum / (double)l->heads);
        }
    }
    bool good = l->seen && !l->failed;
    at_free(l->seen);
    return good;
}

// Which part of the batch is the negative prompt's: -1 if none.
static int negative_part(const at_model_in *in)
{
    for (int i = 0; in->kinds && i < in->chunks; i++)
        if (in->kinds[i] == 1) return i;
    return -1;
}

static at_tensor *look_on(void *self, at_ops *o, const at_site *s, const at_tensor *q,
                          const at_tensor *k, const at_tensor *v)
{
    at_attention_map *m = self;
    int part = negative_part(s->in);
    (void)v;
    if (!in_middle(s) || s->depth != 0 || part < 0 || !q || !k || q->shape[1] != k->shape[1])
        return NULL;
    at_attention_map_clear(m);
    m->batch = q->shape[0] / s->in->chunks;
    m->tokens = q->shape[1];
    look l = {.n = m->tokens, .heads = q->shape[2], .d = q->shape[3]};
    float *qv = at_patch_read(o, q, "SelfAttentionGuidance");
    float *kv = at_patch_read(o, k, "SelfAttentionGuidance");
    m->seen = at_alloc((size_t)(m->batch * m->tokens) * sizeof *m->seen);
    if (qv && kv && (!m->seen || !watch(m, &l, qv, kv, part * m->batch)))
        at_ops_poison(o, AT_ENOMEM, "SelfAttentionGuidance: no memory for %lld tokens",
                      (long long)m->tokens);
    at_free(qv);
    at_free(kv);
    return NULL; // the attention itself is the usual one
}

void at_attention_map_clear(at_attention_map *m)
{
    at_free(m->seen);
    m->seen = NULL;
}

const at_patch_ops at_patch_attention_map = {
    .name = "SelfAttentionGuidance", .free = at_patch_not_owned, .attn = look_on};
