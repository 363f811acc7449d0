// SPDX-License-Identifier: Apache-2.0
// patch_hypernet.c - hypernetworks: k and v of every attention become x + strength * net(x).
// Idea: the file is a dict {width: [layers of k, layers of v]}, seen as records
// "768.0.linear.0.weight"; the layers of one network are its weights in the order of the file.
// Easy to get wrong: with layer norms every second name is a norm, and then the last linear layer
// is not "last", so that it is activated, too; "swish" is the hard one.
// Source: behaviour of ComfyUI 0.3.64 comfy_extras/nodes_hypernetwork.py.
// Owns: an at_hypernet holds its store.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"

enum { NETS = 16, LAYERS = 16 };
typedef float activation(float x);

typedef struct layer {
    const at_weight *w, *b, *norm_w, *norm_b; // norm NULL: none
    bool active;
} layer;

typedef struct net {
    int64_t width;
    int part; // 0: keys, 1: values
    int count;
    layer layers[LAYERS];
} net;

typedef struct hypernet {
    at_store *store;
    float strength;
    activation *act;
    int count;
    net nets[NETS];
} hypernet;

// --- activations, as torch.nn has them ---------------------------------------------------------
static float relu(float x)
{
    return x > 0 ? x : 0;
}
static float leaky_relu(float x)
{
    return x > 0 ? x : 0.01f * x;
}
static float elu(float x)
{
    return x > 0 ? x : expm1f(x);
}
static float hard_swish(float x)
{
    return x * fminf(fmaxf(x + 3, 0), 6) / 6;
}
static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}
static float softsign(float x)
{
    return x / (1 + fabsf(x));
}
static float mish(float x)
{
    return x * tanhf(x > 20 ? x : log1pf(expf(x)));
}
static const struct {
    const char *name;
    activation *f;
} activations[] = {{"linear", NULL},     {"relu", relu},         {"leakyrelu", leaky_relu},
                   {"elu", elu},         {"swish", hard_swish},  {"tanh", tanhf},
                   {"sigmoid", sigmoid}, {"softsign", softsign}, {"mish", mish}};

// --- the file ----------------------------------------------------------------------------------
static bool flag(const at_store *s, const char *key)
{
    const char *text = at_store_metadata(s, key);
    return text && strcmp(text, "False") != 0 && strcmp(text, "0") != 0;
}

static void hypernet_free(void *self)
{
    hypernet *h = self;
    if (!h) return;
    at_store_release(&h->store);
    at_free(h);
}

// The network of width and part in a record's name "768.1.linear.0.weight", made if it is new;
// NULL: the name is no such name, or there are too many.
static net *net_of(hypernet *h, const char *name)
{
    char *end = NULL;
    long long width = strtoll(name, &end, 10);
    if (end == name || width < 1 || end[0] != '.' || (end[1] != '0' && end[1] != '1') ||
        end[2] != '.')
        return NULL;
    int part = end[1] - '0';
    for (int i = 0; i < h->count; i++)
        if (h->nets[i].width == width && h->nets[i].part == part) return &h->nets[i];
    if (h->count == NETS) return NULL;
    h->nets[h->count] = (net){.width = width, .part = part};
    return &h->nets[h->count++];
}

static const at_weight *bias_of(at_store *s, const at_weight *w)
{
    return at_store_findf(s, "%.*sbias", (int)(strlen(w->name) - strlen("weight")), w->name);
}

static at_status bad_layer(const at_store *s, const at_weight *w, const char *what)
{
    char text[128];
    return at_fail(AT_EFORMAT, "%s: %s %s: %s", at_store_path(s), w->name,
                   at_shape_text(w->dtype, w->rank, w->shape, text), what);
}

static bool vector(const at_weight *w, int64_t n)
{
    return w && w->rank == 1 && w->shape[0] == n;
}

// One more weight of a network: a linear layer, or the norm behind the one before.
static at_status add_weight(hypernet *h, net *n, const at_weight *w, bool norms)
{
    const at_weight *b = bias_of(h->store, w);
    layer *last = n->count ? &n->layers[n->count - 1] : NULL;
    int64_t width = last ? last->w->shape[0] : n->width;

    if (norms && last && !last->norm_w) {
        if (!vector(w, width) || !vector(b, width))
            return bad_layer(h->store, w, "no norm of the layer before it");
        last->norm_w = w;
        last->norm_b = b;
        return AT_OK;
    }
    if (w->rank != 2 || w->shape[1] != width || !vector(b, w->shape[0]))
        return bad_layer(h->store, w, "no linear layer that takes what comes, with a bias");
    if (n->count == LAYERS) return bad_layer(h->store, w, "more layers than fit");
    n->layers[n->count++] = (layer){.w = w, .b = b, .active = true};
    return AT_OK;
}

static at_status read_nets(hypernet *h)
{
    at_status st = AT_OK;
    bool norms = flag(h->store, "is_layer_norm"), output = flag(h->store, "activate_output");

    for (size_t i = 0; i < at_store_count(h->store); i++) {
        const at_weight *w = at_store_at(h->store, i);
        net *n = at_ends_with(w->name, ".weight") ? net_of(h, w->name) : NULL;
        if (n) AT_TRY(add_weight(h, n, w, norms));
    }
    for (int i = 0; i < h->count; i++) {
        layer *last = &h->nets[i].layers[h->nets[i].count - 1];
        if (last->w->shape[0] != h->nets[i].width)
            AT_TRY(
                bad_layer(h->store, last->w, "the last layer does not give the first one's width"));
        last->active = output || norms;
    }
out:
    return st;
}

at_status at_hypernet_open(at_store *s, double strength, void **self)
{
    at_status st = AT_OK;
    const char *name = at_store_metadata(s, "activation_func");
    hypernet *h = at_calloc(1, sizeof *h);
    bool known = false;

    *self = NULL;
    if (!h) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a hypernetwork", at_store_path(s)));
    h->store = at_store_retain(s);
    h->strength = (float)strength;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(name ? name : "linear", activations[i].name) == 0) {
            h->act = activations[i].f;
            known = true;
        }
    if (!known) {
        at_log(AT_WARN, "HYPERNET-ACT", "%s: the activation %.60s is unknown; nothing is changed",
               at_store_path(s), name);
        goto out;
    }
    AT_TRY(read_nets(h));
    *self = h;
    h = NULL;
out:
    hypernet_free(h);
    return st;
}

// --- the patch ---------------------------------------------------------------------------------
static at_tensor *activate(at_ops *o, const at_tensor *x, activation *f)
{
    float *v = at_patch_read(o, x, "HypernetworkLoader");
    if (!v) return NULL;
    for (int64_t i = 0; i < at_tensor_count(x); i++)
        v[i] = f(v[i]);
    at_tensor *out = at_patch_give(o, x->dtype, x->rank, x->shape, v);
    at_free(v);
    return out;
}

// x + strength * net(x); x itself where there is no network of this width.
static const at_tensor *changed(const hypernet *h, at_ops *o, int part, int64_t width,
                                const at_tensor *x)
{
    for (int i = 0; i < h->count; i++) {
        const net *n = &h->nets[i];
        if (n->width != width || n->part != part) continue;
        const at_tensor *y = x;
        for (int k = 0; k < n->count && y; k++) {
            const layer *l = &n->layers[k];
            at_norm_spec norm = {.weight = l->norm_w, .bias = l->norm_b, .eps = 1e-5f};
            y = at_linear(o, y, l->w, l->b, NULL);
            if (l->active && h->act && y) y = activate(o, y, h->act);
            if (l->norm_w) y = at_norm(o, y, &norm);
        }
        return y ? at_add(o, x, at_affine(o, y, h->strength, 0)) : NULL;
    }
    return x;
}

static void attn_in(void *self, at_ops *o, const at_site *s, const at_tensor **q,
                    const at_tensor **k, const at_tensor **v)
{
    const hypernet *h = self;
    (void)s;
    (void)q;
    if (!*k || !*v) return;
    int64_t width = (*k)->shape[2];
    *k = changed(h, o, 0, width, *k);
    *v = changed(h, o, 1, width, *v);
}

const at_patch_ops at_patch_hypernet = {
    .name = "HypernetworkLoader", .free = hypernet_free, .attn_in = attn_in};
