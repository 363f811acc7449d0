// SPDX-License-Identifier: Apache-2.0
// value.c - the small values that travel on links, and the reference count of the big ones.
// Owns: a value owns one reference to its object, or its string.
#include "atelier/node.h"

#include <assert.h>

#include "base/mem.h"

at_object *at_object_retain(at_object *o)
{
    if (o) atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

void at_object_release(at_object *o)
{
    int before;

    if (!o) return;
    before = atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before == 1) o->type->free(o);
}

at_value at_value_int(int64_t i)
{
    return (at_value){.kind = AT_VAL_INT, .i = i};
}

at_value at_value_float(double f)
{
    return (at_value){.kind = AT_VAL_FLOAT, .f = f};
}

at_value at_value_bool(bool b)
{
    return (at_value){.kind = AT_VAL_BOOL, .b = b};
}

at_value at_value_string(const char *s)
{
    char *copy = at_strdup(s);
    return copy ? (at_value){.kind = AT_VAL_STRING, .s = copy} : (at_value){0};
}

at_value at_value_object(at_object *o)
{
    return o ? (at_value){.kind = AT_VAL_OBJECT, .o = o} : (at_value){0};
}

at_value at_value_blocker(const char *message)
{
    at_value v = {.kind = AT_VAL_BLOCKER, .s = NULL};

    if (message && !(v.s = at_strdup(message))) return (at_value){0};
    return v;
}

static bool holds_text(const at_value *v)
{
    return v->kind == AT_VAL_STRING || v->kind == AT_VAL_JSON || v->kind == AT_VAL_BLOCKER;
}

at_value at_value_copy(const at_value *v)
{
    at_value out = *v;

    if (v->kind == AT_VAL_OBJECT) at_object_retain(out.o);
    if (holds_text(v) && v->s) {
        out.s = at_strdup(v->s);
        if (!out.s) out = (at_value){0};
    }
    return out;
}

void at_value_clear(at_value *v)
{
    if (v->kind == AT_VAL_OBJECT) at_object_release(v->o);
    if (holds_text(v)) at_free(v->s);
    *v = (at_value){0};
}
