// SPDX-License-Identifier: Apache-2.0
// control_net.c - ControlNets as objects, and the kinds that are known by name only.
// Idea: the architecture row holds the forward; this file holds the counted handle and makes a
// net's results outlive its scope.
// Source of the keys: ComfyUI 0.3.64 comfy/controlnet.py (load_controlnet_state_dict).
// Owns: an at_control_net owns its label and one reference to its at_bound.
#include "models/control_net.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "models/arch.h"
#include "models/control_over.h"

struct at_control_net {
    atomic_int refs;
    char *label;
    at_bound *bound; // NULL: a control-LoRA that waits for its base
    at_store *store;
    at_control_facts facts;
};

// Kinds that ComfyUI loads and this version does not.
static const struct {
    const char *key, *name;
} not_built[] = {
    {"after_proj_list.18.bias", "Hunyuan-DiT"},
    {"transformer_blocks.0.adaLN_modulation.1.bias", "Stable Diffusion 3.5"},
    {"pos_embed_input.proj.weight", "Stable Diffusion 3"},
    {"transformer_blocks.0.img_mlp.net.0.proj.weight", "Qwen-Image"},
    {"backbone.0.0.weight", "Stable Cascade"},
    {"backbone.10.blocks.0.weight", "Stable Cascade"},
};

static void net_free(at_control_net *n)
{
    if (!n) return;
    at_bound_release(&n->bound);
    at_store_release(&n->store);
    at_free(n->label);
    at_free(n);
}

static at_status net_new(at_store *s, const char *label, at_control_net **out)
{
    at_control_net *n = at_calloc(1, sizeof *n);
    char *copy = at_strdup(label);
    if (!n || !copy) {
        at_free(n);
        at_free(copy);
        return at_fail(AT_ENOMEM, "%s: no memory for a ControlNet", label);
    }
    atomic_init(&n->refs, 1);
    n->label = copy;
    n->store = at_store_retain(s);
    n->facts = (at_control_facts){.channels = 3, .step = 1};
    *out = n;
    return AT_OK;
}

// prefix NULL: wherever one is found.
static at_status bind_net(at_control_net *n, const char *prefix)
{
    at_store *s = n->store;
    at_found found;
    for (size_t i = 0; i < AT_LEN(not_built); i++)
        if (at_store_find(s, not_built[i].key))
            return at_fail(AT_EUNSUPPORTED, "%s: ControlNets for %s are not built yet", n->label,
                           not_built[i].name);
    if (!at_detect_part(s, AT_PART_CONTROL, prefix, &found))
        return at_fail(AT_EFORMAT,
                       "%s: no ControlNet or T2I adapter of a known kind in this file of %zu "
                       "tensors; `atelier inspect` shows what it holds",
                       n->label, at_store_count(s));
    at_status st = at_bound_new(found.arch, s, found.prefix, &n->bound);
    if (st == AT_OK) n->bound->arch->control->facts(n->bound, &n->facts);
    return st;
}

at_status at_control_net_load(at_store *s, const char *label, const at_model *add_to,
                              at_control_net **out)
{
    at_status st = AT_OK;
    at_control_net *n = NULL;
    at_store *sum = NULL;

    if (add_to && at_control_is_difference(s)) AT_TRY(at_control_add_base(s, add_to, &sum));
    AT_TRY(net_new(sum ? sum : s, label, &n));
    n->facts.needs_base = at_control_is_lora(s);
    if (!n->facts.needs_base) AT_TRY(bind_net(n, NULL));
    *out = n;
    n = NULL;
out:
    at_store_release(&sum);
    net_free(n);
    return st;
}

at_status at_control_net_over(const at_control_net *net, const at_model *base, at_control_net **out)
{
    at_status st = AT_OK;
    at_store *joined = NULL;
    at_control_net *n = NULL;

    if (!net->facts.needs_base) {
        *out = at_control_net_retain((at_control_net *)net);
        return AT_OK;
    }
    AT_TRY(at_control_lora_over(net->store, base, &joined));
    AT_TRY(net_new(joined, net->label, &n));
    AT_TRY(bind_net(n, at_model_prefix(base)));
    *out = n;
    n = NULL;
out:
    at_store_release(&joined);
    net_free(n);
    return st;
}

at_control_net *at_control_net_retain(at_control_net *n)
{
    if (n) atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    return n;
}

void at_control_net_release(at_control_net **n)
{
    if (*n && atomic_fetch_sub_explicit(&(*n)->refs, 1, memory_order_acq_rel) == 1) net_free(*n);
    *n = NULL;
}

const char *at_control_net_label(const at_control_net *n)
{
    return n->label;
}

const at_control_facts *at_control_net_facts(const at_control_net *n)
{
    return &n->facts;
}

// Every place of a control, one after the other; NULL behind the last.
static const at_tensor **place(at_control *c, size_t i)
{
    if (i < AT_CONTROL_MAX) return &c->input[i];
    if ((i -= AT_CONTROL_MAX) < AT_CONTROL_MAX) return &c->skip[i];
    if ((i -= AT_CONTROL_MAX) < AT_CONTROL_MAX) return &c->doubles[i];
    if ((i -= AT_CONTROL_MAX) < AT_CONTROL_MAX) return &c->singles[i];
    return (i -= AT_CONTROL_MAX) == 0 ? &c->middle : NULL;
}

void at_control_net_forward(at_ops *o, const at_control_net *n, const at_control_in *in,
                            at_control *out)
{
    const at_tensor **p;
    if (!n->bound) {
        at_ops_poison(o, AT_EINTERNAL, "%s: this net was not laid over its base", n->label);
        return;
    }
    if (!in->hint || in->hint->rank != 4 || !in->context || in->context->rank != 3) {
        at_ops_poison(o, AT_EINVAL, "%s: a ControlNet needs a hint [b, c, h, w] and a text",
                      n->label);
        return;
    }
    at_scope_begin(o);
    n->bound->arch->control->forward(o, n->bound, in, out);
    for (size_t i = 0; (p = place(out, i)); i++)
        at_ops_keep(o, (at_tensor *)*p);
    at_scope_end(o, NULL);
    for (size_t i = 0; (p = place(out, i)); i++)
        if (*p) at_ops_adopt(o, (at_tensor *)*p);
}
