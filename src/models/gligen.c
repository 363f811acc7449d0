// SPDX-License-Identifier: Apache-2.0
// gligen.c - GLIGEN (Li et al. 2023, arXiv:2301.07093), the text box form.
// Idea: object tokens come from a box's Fourier features and its text; always 30 of them, the
// unused ones are learned nulls. In each transformer, after self attention, picture and object
// tokens attend together and the picture's part comes back through a gate, then a gated
// feed-forward.
// Easy to get wrong:
//   - modules count transformers through the whole forward: input blocks, middle, output blocks
//   - Fourier features alternate: sines of the four sides, cosines of them, for each frequency
//   - heads: 8 where object tokens are 768 wide (SD1), else heads of 64
// Source: ComfyUI 0.3.64 comfy/gligen.py, comfy/ldm/modules/attention.py (middle_patch).
// Owns: an at_gligen owns its tables and keeps its store; a patch owns its boxes and objects'
// inputs.
#include "models/gligen.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "models/arch.h"

enum {
    MAX_MODULES = 64,
    BLOCKS = 20,
    FREQUENCIES = 8,
    POSITION = FREQUENCIES * 2 * 4,
    SD1_TEXT = 768
};
static const float norm_eps = 1e-5f;

typedef struct gligen_config {
    int64_t text, inside, out, joined; // widths: text, hidden, objects; text and position together
    int64_t modules;
} gligen_config;

typedef struct gligen_module {
    at_lin objects, norm1, norm2, to_out, ff_in, ff_out;
    const at_weight *q, *k, *v, *alpha_attn, *alpha_dense;
} gligen_module;

typedef struct gligen_weights {
    const at_weight *null_text, *null_position;
    at_lin net1, net2, net3;
    gligen_module modules[MAX_MODULES];
} gligen_weights;

// --- shape and weights -------------------------------------------------------------------------
// The n-th module's base key, in the order of the forward; false behind the last.
static bool module_base(at_store *s, const char *prefix, int n, char *out, size_t size)
{
    for (int half = 0; half < 3; half++)
        for (int b = 0; b < BLOCKS; b++) {
            switch (half) {
            case 0: snprintf(out, size, "input_blocks.%d.1.transformer_blocks.0.fuser.", b); break;
            case 1: snprintf(out, size, "middle_block.%d.transformer_blocks.0.fuser.", b); break;
            default:
                snprintf(out, size, "output_blocks.%d.1.transformer_blocks.0.fuser.", b);
                break;
            }
            if (at_store_findf(s, "%s%slinear.weight", prefix, out) && n-- == 0) return true;
        }
    return false;
}

static const at_weight *find(at_store *s, const char *prefix, const char *key, int rank)
{
    const at_weight *w = at_store_findf(s, "%s%s", prefix, key);
    return w && w->rank == rank ? w : NULL;
}

static const char *measure(at_store *s, const char *prefix, void *config)
{
    gligen_config *c = config;
    const at_weight *text = find(s, prefix, "position_net.null_positive_feature", 1);
    const at_weight *first = find(s, prefix, "position_net.linears.0.weight", 2);
    const at_weight *last = find(s, prefix, "position_net.linears.4.weight", 2);
    char base[96];

    if (!text || !first || !last) return "the position net is not complete";
    c->text = text->shape[0];
    c->inside = first->shape[0];
    c->joined = c->text + POSITION;
    c->out = last->shape[0];
    while (c->modules < MAX_MODULES && module_base(s, prefix, (int)c->modules, base, sizeof base))
        c->modules++;
    if (c->modules < 1) return "there are no attention layers";
    return NULL;
}

// Widths of one module.
typedef struct module_size {
    int64_t query, object;
} module_size;
#define C(field) AT_FIELD(gligen_config, field)
#define Q        AT_FIELD(module_size, query)
#define OFF(f)   offsetof(gligen_weights, f)
#define MOFF(f)  offsetof(gligen_module, f)
#define MAT(f, key_, out_, in_)                                                                    \
    {                                                                                              \
        .key = key_ ".weight", .offset = MOFF(f), .rank = 2, .dim = { out_, in_ }                  \
    }
#define VEC(f, key_, n_)                                                                           \
    {                                                                                              \
        .key = key_, .offset = MOFF(f), .rank = 1, .dim = { n_ }                                   \
    }
#define LAYER(f, key_, out_, in_)                                                                  \
    {.key = key_ ".weight", .offset = OFF(f.w), .rank = 2, .dim = {out_, in_}},                    \
    {                                                                                              \
        .key = key_ ".bias", .offset = OFF(f.b), .rank = 1, .dim = { out_ }                        \
    }
static const at_bind_row rows_net[] = {
    {.key = "position_net.null_positive_feature", .offset = OFF(null_text), .rank = 1},
    {.key = "position_net.null_position_feature", .offset = OFF(null_position), .rank = 1},
    LAYER(net1, "position_net.linears.0", C(inside), C(joined)),
    LAYER(net2, "position_net.linears.2", C(inside), C(inside)),
    LAYER(net3, "position_net.linears.4", C(out), C(inside)),
};
static const at_bind_row rows_module[] = {
    MAT(objects.w, "linear", Q, AT_FIELD(module_size, object)),
    VEC(objects.b, "linear.bias", Q),
    VEC(norm1.w, "norm1.weight", Q),
    VEC(norm1.b, "norm1.bias", Q),
    VEC(norm2.w, "norm2.weight", Q),
    VEC(norm2.b, "norm2.bias", Q),
    MAT(q, "attn.to_q", Q, Q),
    MAT(k, "attn.to_k", Q, Q),
    MAT(v, "attn.to_v", Q, Q),
    MAT(to_out.w, "attn.to_out.0", Q, Q),
    VEC(to_out.b, "attn.to_out.0.bias", Q),
    MAT(ff_in.w, "ff.net.0.proj", 0, Q),
    VEC(ff_in.b, "ff.net.0.proj.bias", 0),
    MAT(ff_out.w, "ff.net.2", Q, 0),
    VEC(ff_out.b, "ff.net.2.bias", Q),
    {.key = "alpha_attn", .offset = MOFF(alpha_attn)},
    {.key = "alpha_dense", .offset = MOFF(alpha_dense)},
};

static void bind(at_binder *b, const void *config, void *weights)
{
    const gligen_config *c = config;
    gligen_weights *w = weights;
    char base[96];

    at_bind_rows(b, "", rows_net, AT_LEN(rows_net), c, w);
    for (int i = 0; i < c->modules && module_base(b->store, b->prefix, i, base, sizeof base); i++) {
        const at_weight *l = at_store_findf(b->store, "%s%slinear.weight", b->prefix, base);
        module_size size = {.query = l->shape[0], .object = c->out};
        at_bind_rows(b, base, rows_module, AT_LEN(rows_module), &size, &w->modules[i]);
    }
}

#define MEASURED(field_)                                                                           \
    {                                                                                              \
        .name = #field_, .offset = offsetof(gligen_config, field_), .how = AT_SIZE_MEASURED        \
    }
static const at_size_row sizes[] = {MEASURED(text), MEASURED(inside), MEASURED(out),
                                    MEASURED(modules)};
static const at_probe probes[] = {{.key = "position_net.null_positive_feature"},
                                  {.key = "position_net.linears.0.weight"}};
const at_arch at_arch_gligen = {.name = "gligen",
                                .title = "GLIGEN, text boxes",
                                .part = AT_PART_GLIGEN,
                                .probes = probes,
                                .n_probes = AT_LEN(probes),
                                .sizes = sizes,
                                .n_sizes = AT_LEN(sizes),
                                .config_size = sizeof(gligen_config),
                                .measure = measure,
                                .weights_size = sizeof(gligen_weights),
                                .bind = bind};

// --- the object --------------------------------------------------------------------------------
struct at_gligen {
    atomic_int refs;
    at_bound *bound;
};

at_status at_gligen_load(at_store *s, const char *label, at_gligen **out)
{
    at_status st = AT_OK;
    at_found found;
    at_gligen *g = NULL;

    if (!at_detect_part(s, AT_PART_GLIGEN, NULL, &found))
        AT_TRY(at_fail(AT_EFORMAT, "%s: no GLIGEN text box model in this file of %zu tensors",
                       label, at_store_count(s)));
    g = at_calloc(1, sizeof *g);
    if (!g) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a GLIGEN model", label));
    atomic_init(&g->refs, 1);
    AT_TRY(at_bound_new(found.arch, s, found.prefix, &g->bound));
    *out = g;
    g = NULL;
out:
    at_free(g);
    return st;
}

at_gligen *at_gligen_retain(at_gligen *g)
{
    if (g) atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void at_gligen_release(at_gligen **g)
{
    if (*g && atomic_fetch_sub_explicit(&(*g)->refs, 1, memory_order_acq_rel) == 1) {
        at_bound_release(&(*g)->bound);
        at_free(*g);
    }
    *g = NULL;
}

// --- forward -----------------------------------------------------------------------------------
typedef struct boxes {
    at_gligen *net;
    size_t n;
    at_tensor *text[AT_GLIGEN_OBJECTS]; // counted, [1, d]
    float side[AT_GLIGEN_OBJECTS][4];   // left, top, right, bottom in shares of the picture
} boxes;

// Positions of all objects, nulls for the unused: [30, POSITION] on the device.
static at_tensor *positions(at_ops *o, const boxes *b)
{
    const gligen_weights *w = b->net->bound->weights;
    at_tensor *null = at_weight_tensor(o, w->null_position, AT_F32);
    float told[AT_GLIGEN_OBJECTS][POSITION];
    for (size_t i = 0; i < b->n; i++)
        for (int f = 0; f < FREQUENCIES; f++)
            for (int k = 0; k < 4; k++) {
                float angle = powf(100.0f, (float)f / FREQUENCIES) * b->side[i][k];
                told[i][f * 8 + k] = sinf(angle);
                told[i][f * 8 + 4 + k] = cosf(angle);
            }
    if (!null || at_tensor_count(null) != POSITION)
        return at_ops_poison(o, AT_EFORMAT, "GLIGEN: positions have %d features", POSITION);
    const at_tensor *rows[AT_GLIGEN_OBJECTS];
    at_tensor *all = at_from_host(o, AT_F32, 2, (int64_t[]){(int64_t)b->n, POSITION}, told);
    for (size_t i = 0; i < AT_GLIGEN_OBJECTS; i++)
        rows[i] = i < b->n ? at_narrow(o, all, 0, (int64_t)i, 1)
                           : at_reshape(o, null, 2, (int64_t[]){1, POSITION});
    return at_ops_status(o) == AT_OK ? at_concat(o, 0, AT_GLIGEN_OBJECTS, rows) : NULL;
}

static at_tensor *texts(at_ops *o, const boxes *b)
{
    const gligen_config *c = b->net->bound->config;
    const gligen_weights *w = b->net->bound->weights;
    const at_tensor *rows[AT_GLIGEN_OBJECTS];
    at_tensor *null = at_weight_tensor(o, w->null_text, AT_F32);
    null = at_reshape(o, null, 2, (int64_t[]){1, c->text});
    for (size_t i = 0; i < AT_GLIGEN_OBJECTS; i++)
        rows[i] = i < b->n ? at_cast(o, b->text[i], AT_F32) : null;
    return at_ops_status(o) == AT_OK ? at_concat(o, 0, AT_GLIGEN_OBJECTS, rows) : NULL;
}

// Object tokens [1, 30, out].
static at_tensor *objects(at_ops *o, const boxes *b)
{
    const gligen_config *c = b->net->bound->config;
    const gligen_weights *w = b->net->bound->weights;
    const at_linear_extra silu = {.act = AT_ACT_SILU};
    at_tensor *x = at_concat(o, 1, 2, (const at_tensor *[]){texts(o, b), positions(o, b)});
    x = at_linear(o, x, w->net1.w, w->net1.b, &silu);
    x = at_linear(o, x, w->net2.w, w->net2.b, &silu);
    x = at_linear(o, x, w->net3.w, w->net3.b, NULL);
    return at_reshape(o, x, 3, (int64_t[]){1, AT_GLIGEN_OBJECTS, c->out});
}

static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n)
{
    return at_norm(o, x, &(at_norm_spec){.weight = n.w, .bias = n.b, .eps = norm_eps});
}

// x + tanh(alpha) * y
static at_tensor *gated(at_ops *o, const at_tensor *x, const at_tensor *y, const at_weight *alpha)
{
    float a = 0;
    at_status st = at_weight_elements(alpha) == 1 ? at_weight_ready(alpha) : AT_EFORMAT;
    if (st != AT_OK) return at_ops_poison(o, st, "GLIGEN: %s is no number", alpha->name);
    at_weight_read_f32(alpha, 0, 1, &a);
    return at_add(o, x, at_affine(o, y, tanhf(a), 0));
}

static at_tensor *attend(at_ops *o, const gligen_config *c, const gligen_module *w,
                         const at_tensor *x)
{
    const at_weight *const part[] = {w->q, w->k, w->v};
    at_tensor *h[3];
    int64_t width = x->shape[2], heads = c->out == SD1_TEXT ? 8 : width / 64;
    if (heads < 1 || width % heads)
        return at_ops_poison(o, AT_EFORMAT, "GLIGEN: a width of %lld has no heads",
                             (long long)width);
    for (int i = 0; i < 3; i++)
        h[i] = at_reshape(o, at_linear(o, x, part[i], NULL, NULL), 4,
                          (int64_t[]){x->shape[0], x->shape[1], heads, width / heads});
    at_tensor *y = at_attention(o, h[0], h[1], h[2], NULL, 0, false);
    return at_linear(o, y, w->to_out.w, w->to_out.b, NULL);
}

// The hook: tokens [b, t, d] between self and cross attention.
static at_tensor *between(void *self, at_ops *o, const at_site *s, at_tensor *x)
{
    const boxes *b = self;
    const gligen_config *c = b->net->bound->config;
    const gligen_weights *w = b->net->bound->weights;
    const at_tensor *rows[AT_CONTROL_MAX];
    if (!x || s->index >= c->modules) return x;
    const gligen_module *m = &w->modules[s->index];
    int64_t n = x->shape[0], t = x->shape[1];
    if (x->shape[2] != m->norm1.w->shape[0] || n > AT_CONTROL_MAX)
        return at_ops_poison(o, AT_EINVAL,
                             "GLIGEN: this model was made for another UNet (width %lld at "
                             "transformer %d, %lld wanted), or the batch is larger than %d",
                             (long long)m->norm1.w->shape[0], s->index, (long long)x->shape[2],
                             AT_CONTROL_MAX);
    at_tensor *own = at_linear(o, objects(o, b), m->objects.w, m->objects.b, NULL);
    for (int64_t i = 0; i < n; i++)
        rows[i] = own;
    own = own ? at_concat(o, 0, (int)n, rows) : NULL;
    at_tensor *both = at_concat(o, 1, 2, (const at_tensor *[]){x, own});
    both = norm(o, both, m->norm1);
    if (!both) return NULL;
    at_tensor *y = at_narrow(o, attend(o, c, m, both), 1, 0, t);
    x = gated(o, x, y, m->alpha_attn);
    y = at_geglu(o, norm(o, x, m->norm2), m->ff_in.w, m->ff_in.b, AT_ACT_GELU_ERF);
    return gated(o, x, at_linear(o, y, m->ff_out.w, m->ff_out.b, NULL), m->alpha_dense);
}

static void boxes_free(void *self)
{
    boxes *b = self;
    for (size_t i = 0; i < b->n; i++)
        at_tensor_release(&b->text[i]);
    at_gligen_release(&b->net);
    at_free(b);
}

static const at_patch_ops patch_ops = {.name = "GLIGEN", .free = boxes_free, .between = between};

at_status at_gligen_patch(at_gligen *g, const at_gligen_box *list, size_t n, int64_t height,
                          int64_t width, const at_patches *set, at_patches **out)
{
    const gligen_config *c = g->bound->config;
    if (n > AT_GLIGEN_OBJECTS)
        return at_fail(AT_EINVAL, "GLIGEN: %zu boxes; %d are the most", n, AT_GLIGEN_OBJECTS);
    for (size_t i = 0; i < n; i++)
        if (list[i].text->rank != 2 || list[i].text->shape[1] != c->text)
            return at_fail(AT_EINVAL,
                           "GLIGEN: the box's text is %lld wide, this model takes %lld; use the "
                           "text encoder of the model that is sampled",
                           (long long)list[i].text->shape[list[i].text->rank - 1],
                           (long long)c->text);
    boxes *b = at_calloc(1, sizeof *b);
    if (!b) return at_fail(AT_ENOMEM, "GLIGEN: no memory for a patch");
    b->net = at_gligen_retain(g);
    for (; b->n < n; b->n++) {
        const at_gligen_box *from = &list[b->n];
        float *side = b->side[b->n];
        b->text[b->n] = at_tensor_retain(from->text);
        side[0] = (float)((double)from->x / (double)width);
        side[1] = (float)((double)from->y / (double)height);
        side[2] = (float)((double)(from->x + from->w) / (double)width);
        side[3] = (float)((double)(from->y + from->h) / (double)height);
    }
    return at_patches_add(set, &patch_ops, b, out);
}
