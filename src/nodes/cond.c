// SPDX-License-Identifier: Apache-2.0
// cond.c - making, copying and freeing conditioning lists.
#include "nodes/cond.h"

#include "base/mem.h"

void at_cond_set_tensor(at_tensor **field, at_tensor *t)
{
    at_tensor_release(field);
    *field = t;
}

void at_cond_set_object(at_object **field, at_object *o)
{
    at_object_release(*field);
    *field = o;
}

void at_cond_clear(at_cond *c)
{
    at_tensor_release(&c->context);
    at_tensor_release(&c->pooled);
    at_tensor_release(&c->mask);
    at_tensor_release(&c->concat_latent);
    at_tensor_release(&c->concat_mask);
    at_tensor_release(&c->control_context);
    at_tensor_release(&c->attn_bias);
    for (size_t i = 0; i < c->n_refs; i++)
        at_tensor_release(&c->refs[i]);
    at_free(c->refs);
    c->refs = NULL;
    c->n_refs = 0;
    at_cond_set_object(&c->control, NULL);
    for (size_t i = 0; i < AT_COND_EXTRA_COUNT; i++)
        at_cond_set_object(&c->extra[i], NULL);
}

static at_tensor *again(at_tensor *t)
{
    return t ? at_tensor_retain(t) : NULL;
}

bool at_cond_copy(at_cond *to, const at_cond *from)
{
    at_tensor **refs = NULL;

    if (from->n_refs) {
        refs = at_calloc(from->n_refs, sizeof *refs);
        if (!refs) {
            *to = (at_cond){0};
            return false;
        }
    }
    *to = *from;
    to->refs = refs;
    for (size_t i = 0; i < from->n_refs; i++)
        refs[i] = at_tensor_retain(from->refs[i]);
    to->context = again(from->context);
    to->pooled = again(from->pooled);
    to->mask = again(from->mask);
    to->concat_latent = again(from->concat_latent);
    to->concat_mask = again(from->concat_mask);
    to->control_context = again(from->control_context);
    to->attn_bias = again(from->attn_bias);
    to->control = at_object_retain(from->control);
    for (size_t i = 0; i < AT_COND_EXTRA_COUNT; i++)
        to->extra[i] = at_object_retain(from->extra[i]);
    return true;
}

static void cond_free(at_object *self)
{
    at_obj_cond *c = (at_obj_cond *)self;
    for (size_t i = 0; i < c->count; i++)
        at_cond_clear(&c->items[i]);
    at_free(c->items);
    at_free(c);
}
static const at_object_type cond_type = {"CONDITIONING", cond_free};

at_object *at_obj_cond_new(size_t count)
{
    at_obj_cond *c = at_calloc(1, sizeof *c);
    at_cond *items = at_calloc(count ? count : 1, sizeof *items);
    if (!c || !items) {
        at_free(c);
        at_free(items);
        return NULL;
    }
    atomic_init(&c->base.refs, 1);
    c->base.type = &cond_type;
    c->items = items;
    c->count = count;
    for (size_t i = 0; i < count; i++) {
        items[i].strength = 1.0f;
        items[i].mask_strength = 1.0f;
        items[i].end_percent = 1.0f;
    }
    return &c->base;
}

// Copies n entries to place `at` of a fresh list; false: out of memory.
static bool put(at_obj_cond *to, size_t at, const at_obj_cond *from)
{
    for (size_t i = 0; i < from->count; i++)
        if (!at_cond_copy(&to->items[at + i], &from->items[i])) return false;
    return true;
}

at_object *at_obj_cond_copy(const at_obj_cond *from)
{
    at_object *o = at_obj_cond_new(from->count);
    if (o && !put((at_obj_cond *)o, 0, from)) {
        at_object_release(o);
        return NULL;
    }
    return o;
}

at_object *at_obj_cond_join(const at_obj_cond *a, const at_obj_cond *b)
{
    at_object *o = at_obj_cond_new(a->count + b->count);
    at_obj_cond *c = (at_obj_cond *)o;
    if (o && !(put(c, 0, a) && put(c, a->count, b))) {
        at_object_release(o);
        return NULL;
    }
    return o;
}

const at_out at_cond_out[1] = {{.type_name = "CONDITIONING", .name = "CONDITIONING"}};

at_status at_cond_give(const char *node, const at_object *list,
                       void (*change)(at_cond *c, const void *ctx), const void *ctx, at_value *out)
{
    at_object *o = at_obj_cond_copy((const at_obj_cond *)list);
    at_obj_cond *c = (at_obj_cond *)o;
    if (!o) return at_fail(AT_ENOMEM, "%s: no memory", node);
    for (size_t i = 0; i < c->count; i++)
        change(&c->items[i], ctx);
    *out = at_value_object(o);
    return AT_OK;
}

at_status at_cond_give_joined(const char *node, const at_object *a, at_object *b, at_value *out)
{
    at_object *o = b ? at_obj_cond_join((const at_obj_cond *)a, (const at_obj_cond *)b) : NULL;
    at_object_release(b);
    if (!o) return at_fail(AT_ENOMEM, "%s: no memory", node);
    *out = at_value_object(o);
    return AT_OK;
}

static void range_free(at_object *self)
{
    at_free(self);
}
static const at_object_type range_type = {"TIMESTEPS_RANGE", range_free};

at_object *at_obj_range_new(double start, double end)
{
    at_obj_range *r = at_calloc(1, sizeof *r);
    if (!r) return NULL;
    atomic_init(&r->base.refs, 1);
    r->base.type = &range_type;
    r->start = start;
    r->end = end;
    return &r->base;
}
