// SPDX-License-Identifier: Apache-2.0
// pickle.c - the stack machine, see pickle.h.
// Idea: one function per group of opcodes over a bounded cursor; every count is checked against the
// bytes that are left before anything is allocated for it.
// Easy to get wrong: values move when their array grows, so they are passed by number; PUT may name any
// memo slot, so slots are bounded by the pickle's size.
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/pickle_impl.h"

// --- the machine -----------------------------------------------------------------------------------
at_status at_pm_bad(const at_pm *m, const char *what)
{
    return at_fail(AT_EFORMAT, "%s: byte %zu of its pickle: %s", m->label, (size_t)(m->p - m->data),
                   what);
}

// Room for `more` elements behind `count`.
static at_status room(const at_pm *m, void **items, size_t count, size_t more, size_t *cap,
                      size_t size)
{
    size_t want = *cap ? *cap : 16, bytes;
    void *p = NULL;

    if (more <= *cap && count <= *cap - more) return AT_OK;
    while (want < count + more)
        want *= 2;
    if (at_mul_size(want, size, &bytes)) p = at_realloc(*items, bytes);
    if (!p) return at_fail(AT_ENOMEM, "%s: no memory for its pickle", m->label);
    *items = p;
    *cap = want;
    return AT_OK;
}

at_pv *at_pm_at(at_pm *m, uint32_t index)
{
    return &m->out->values[index];
}

at_status at_pm_push(at_pm *m, uint32_t index)
{
    at_status st = room(m, (void **)&m->stack, m->depth, 1, &m->stack_cap, sizeof *m->stack);

    if (st == AT_OK) m->stack[m->depth++] = index;
    return st;
}

// The stack's bottom for the code since the last mark.
static size_t floor_of(const at_pm *m)
{
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

at_status at_pm_pop(at_pm *m, uint32_t *index)
{
    if (m->depth <= floor_of(m)) return at_pm_bad(m, "the stack is empty");
    *index = m->stack[--m->depth];
    return AT_OK;
}

static at_status top(at_pm *m, uint32_t *index)
{
    if (m->depth <= floor_of(m)) return at_pm_bad(m, "the stack is empty");
    *index = m->stack[m->depth - 1];
    return AT_OK;
}

at_status at_pm_value(at_pm *m, const at_pv *v, uint32_t *index)
{
    at_pickle *o = m->out;
    at_status st = AT_OK;

    if (o->count >= UINT32_MAX) AT_TRY(at_pm_bad(m, "too many values"));
    AT_TRY(room(m, (void **)&o->values, o->count, 1, &o->cap, sizeof *o->values));
    AT_TRY(at_pm_push(m, (uint32_t)o->count));
    *index = (uint32_t)o->count;
    o->values[o->count++] = *v;
out:
    return st;
}

at_status at_pm_items(at_pm *m, uint32_t owner, const uint32_t *items, size_t n)
{
    at_pv *v = at_pm_at(m, owner);

    // An item takes a byte of the pickle; only a dict made of a list holds some twice.
    m->item_count += n;
    if (m->item_count / 4 > (size_t)(m->end - m->data)) return at_pm_bad(m, "too many values");
    at_status st = room(m, (void **)&v->items, v->count, n, &v->cap, sizeof *v->items);

    if (st != AT_OK) return st;
    if (n) memcpy(v->items + v->count, items, n * sizeof *items);
    v->count += n;
    return AT_OK;
}

at_status at_pm_text(at_pm *m, const void *bytes, size_t n, const char **out)
{
    char *copy = at_strndup(bytes, n);

    *out = copy;
    return copy ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for a string", m->label);
}

static at_status push_plain(at_pm *m, at_pv v)
{
    uint32_t index;

    return at_pm_value(m, &v, &index);
}

// --- reading bytes ---------------------------------------------------------------------------------
static at_status take(at_pm *m, size_t n, const uint8_t **out)
{
    if ((size_t)(m->end - m->p) < n) return at_pm_bad(m, "it is cut short");
    *out = m->p;
    m->p += n;
    return AT_OK;
}

static at_status take_number(at_pm *m, size_t bytes, uint64_t *out)
{
    const uint8_t *b = NULL;
    at_status st = take(m, bytes, &b);

    *out = 0;
    for (size_t i = 0; st == AT_OK && i < bytes; i++)
        *out |= (uint64_t)b[i] << (8 * i);
    return st;
}

// Text up to a line feed.
static at_status take_line(at_pm *m, const char **text, size_t *n)
{
    const uint8_t *end = memchr(m->p, '\n', (size_t)(m->end - m->p));

    if (!end) return at_pm_bad(m, "a line without an end");
    *text = (const char *)m->p;
    *n = (size_t)(end - m->p);
    m->p = end + 1;
    return AT_OK;
}

static at_status push_string(at_pm *m, size_t length_bytes, bool must_be_text)
{
    uint64_t n;
    const uint8_t *b = NULL;
    const char *text;
    uint32_t index;
    at_status st = AT_OK;

    AT_TRY(take_number(m, length_bytes, &n));
    if (n > (uint64_t)(m->end - m->p)) AT_TRY(at_pm_bad(m, "it is cut short"));
    AT_TRY(take(m, (size_t)n, &b));
    if (!at_utf8_valid((const char *)b, (size_t)n) || memchr(b, 0, (size_t)n)) {
        if (must_be_text) AT_TRY(at_pm_bad(m, "a string is not UTF-8"));
        return push_plain(m, (at_pv){.kind = AT_PV_OPAQUE}); // bytes
    }
    AT_TRY(at_pm_value(m, &(at_pv){.kind = AT_PV_STRING}, &index));
    AT_TRY(at_pm_text(m, b, (size_t)n, &text));
    at_pm_at(m, index)->text = text;
out:
    return st;
}

// A whole number of any length, least byte first, with a sign; beyond 64 bits it is of no interest.
static at_status push_long(at_pm *m, size_t length_bytes)
{
    uint64_t n, v = 0;
    const uint8_t *b = NULL;
    at_status st = AT_OK;

    AT_TRY(take_number(m, length_bytes, &n));
    if (n > (uint64_t)(m->end - m->p)) AT_TRY(at_pm_bad(m, "it is cut short"));
    AT_TRY(take(m, (size_t)n, &b));
    if (n > 8) return push_plain(m, (at_pv){.kind = AT_PV_OPAQUE});
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)b[i] << (8 * i);
    if (n && n < 8 && b[n - 1] & 0x80) v |= UINT64_MAX << (8 * n);
    AT_TRY(push_plain(m, (at_pv){.kind = AT_PV_INT, .i = (int64_t)v}));
out:
    return st;
}

static at_status push_float(at_pm *m)
{
    const uint8_t *b = NULL;
    uint64_t bits = 0;
    at_pv v = {.kind = AT_PV_FLOAT};
    at_status st = take(m, 8, &b);

    if (st != AT_OK) return st;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | b[i]; // greatest byte first
    memcpy(&v.f, &bits, sizeof bits);
    return push_plain(m, v);
}

// --- containers ------------------------------------------------------------------------------------
static at_status pop_mark(at_pm *m, size_t *first)
{
    if (!m->mark_count) return at_pm_bad(m, "no mark on the stack");
    *first = m->marks[--m->mark_count];
    return AT_OK;
}

// A container of everything above the mark, or of the last n.
static at_status make(at_pm *m, at_pv_kind kind, int n)
{
    size_t first = 0;
    uint32_t index;
    at_status st = AT_OK;

    if (n < 0)
        AT_TRY(pop_mark(m, &first));
    else if (m->depth - floor_of(m) < (size_t)n)
        AT_TRY(at_pm_bad(m, "the stack is empty"));
    else
        first = m->depth - (size_t)n;
    size_t count = m->depth - first;
    if (kind == AT_PV_DICT && count % 2) AT_TRY(at_pm_bad(m, "a dict with half a pair"));
    AT_TRY(at_pm_value(m, &(at_pv){.kind = kind}, &index));
    AT_TRY(at_pm_items(m, index, m->stack + first, count));
    m->depth = first;
    AT_TRY(at_pm_push(m, index));
out:
    return st;
}

// Everything above the mark (or the last n) goes into the container below.
static at_status extend(at_pm *m, at_pv_kind kind, int n)
{
    size_t first = 0;
    at_status st = AT_OK;

    if (n < 0)
        AT_TRY(pop_mark(m, &first));
    else if (m->depth - floor_of(m) < (size_t)n)
        AT_TRY(at_pm_bad(m, "the stack is empty"));
    else
        first = m->depth - (size_t)n;
    size_t count = m->depth - first;
    if (first <= floor_of(m)) AT_TRY(at_pm_bad(m, "nothing to put values into"));
    uint32_t owner = m->stack[first - 1];
    at_pv_kind is = at_pm_at(m, owner)->kind;
    if (is != kind && is != AT_PV_OPAQUE) AT_TRY(at_pm_bad(m, "values for another container"));
    if (kind == AT_PV_DICT && count % 2) AT_TRY(at_pm_bad(m, "a dict with half a pair"));
    if (is == kind) AT_TRY(at_pm_items(m, owner, m->stack + first, count));
    m->depth = first;
out:
    return st;
}

// --- memo and names --------------------------------------------------------------------------------
static at_status put_memo(at_pm *m, uint64_t slot)
{
    uint32_t index = 0;
    at_status st = AT_OK;

    AT_TRY(top(m, &index));
    if (slot > (uint64_t)(m->end - m->data)) AT_TRY(at_pm_bad(m, "a memo slot out of range"));
    if (slot >= m->memo_count) {
        size_t more = (size_t)slot + 1 - m->memo_count;
        AT_TRY(room(m, (void **)&m->memo, m->memo_count, more, &m->memo_cap, sizeof *m->memo));
        memset(m->memo + m->memo_count, 0xff, more * sizeof *m->memo);
        m->memo_count = (size_t)slot + 1;
    }
    m->memo[slot] = index;
out:
    return st;
}

static at_status get_memo(at_pm *m, uint64_t slot)
{
    if (slot >= m->memo_count || m->memo[slot] == UINT32_MAX)
        return at_pm_bad(m, "a memo slot that was never filled");
    return at_pm_push(m, m->memo[slot]);
}

static at_status push_global(at_pm *m, const char *module, size_t module_n, const char *name,
                             size_t name_n)
{
    char *a = at_strndup(module, module_n), *b = at_strndup(name, name_n);
    at_pv v = {0};
    at_status st = AT_OK;

    if (!a || !b) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a name", m->label));
    if (!at_utf8_valid(a, strlen(a)) || !at_utf8_valid(b, strlen(b)))
        AT_TRY(at_pm_bad(m, "a name is not UTF-8"));
    AT_TRY(at_pm_global(m, a, b, &v));
    AT_TRY(push_plain(m, v));
out:
    at_free(a);
    at_free(b);
    return st;
}

static at_status global_lines(at_pm *m)
{
    const char *module = NULL, *name = NULL;
    size_t module_n = 0, name_n = 0;
    at_status st = AT_OK;

    AT_TRY(take_line(m, &module, &module_n));
    AT_TRY(take_line(m, &name, &name_n));
    AT_TRY(push_global(m, module, module_n, name, name_n));
out:
    return st;
}

static at_status global_stack(at_pm *m)
{
    uint32_t name, module;
    at_status st = AT_OK;

    AT_TRY(at_pm_pop(m, &name));
    AT_TRY(at_pm_pop(m, &module));
    const at_pv *a = at_pm_at(m, module), *b = at_pm_at(m, name);
    if (a->kind != AT_PV_STRING || b->kind != AT_PV_STRING)
        AT_TRY(at_pm_bad(m, "a name that is no string"));
    AT_TRY(push_global(m, a->text, strlen(a->text), b->text, strlen(b->text)));
out:
    return st;
}

// State of an object: dicts have attributes that nobody wants, opaque values have none.
static at_status build(at_pm *m)
{
    uint32_t state = 0, index = 0;
    at_status st = AT_OK;

    AT_TRY(at_pm_pop(m, &state));
    AT_TRY(top(m, &index));
    at_pv_kind is = at_pm_at(m, index)->kind;
    if (is != AT_PV_DICT && is != AT_PV_OPAQUE && is != AT_PV_TENSOR)
        AT_TRY(at_pm_bad(m, "a state for what has none"));
out:
    return st;
}

static at_status push_mark(at_pm *m)
{
    at_status st = room(m, (void **)&m->marks, m->mark_count, 1, &m->mark_cap, sizeof *m->marks);

    if (st != AT_OK) return st;
    if (m->depth > UINT32_MAX) return at_pm_bad(m, "too many values");
    m->marks[m->mark_count++] = (uint32_t)m->depth;
    return AT_OK;
}

static at_status drop(at_pm *m, bool to_mark)
{
    uint32_t index = 0;
    size_t first = 0;

    if (!to_mark) return at_pm_pop(m, &index);
    at_status st = pop_mark(m, &first);
    if (st == AT_OK) m->depth = first;
    return st;
}

// --- opcodes ---------------------------------------------------------------------------------------
static at_status number(at_pm *m, uint8_t op)
{
    uint64_t v = 0;
    size_t bytes = op == 'J' ? 4 : op == 'K' ? 1 : 2;
    at_status st = take_number(m, bytes, &v);

    if (st != AT_OK) return st;
    return push_plain(m, (at_pv){.kind = AT_PV_INT, .i = op == 'J' ? (int32_t)v : (int64_t)v});
}

static at_status memo(at_pm *m, uint8_t op)
{
    uint64_t slot;
    size_t bytes = op == 'q' || op == 'h' ? 1 : 4;
    at_status st = take_number(m, bytes, &slot);

    if (st != AT_OK) return st;
    return op == 'q' || op == 'r' ? put_memo(m, slot) : get_memo(m, slot);
}

static at_status skip(at_pm *m, size_t n)
{
    const uint8_t *b = NULL;

    return take(m, n, &b);
}

static at_status step(at_pm *m, uint8_t op)
{
    switch (op) {
    case 0x80: return skip(m, 1); // protocol
    case 0x95: return skip(m, 8); // frame
    case '(': return push_mark(m);
    case '0': return drop(m, false);
    case '1': return drop(m, true);
    case 'N': return push_plain(m, (at_pv){.kind = AT_PV_NONE});
    case 0x88: return push_plain(m, (at_pv){.kind = AT_PV_BOOL, .i = 1});
    case 0x89: return push_plain(m, (at_pv){.kind = AT_PV_BOOL});
    case 'J':
    case 'K':
    case 'M': return number(m, op);
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'G': return push_float(m);
    case 'X': return push_string(m, 4, true);
    case 0x8c: return push_string(m, 1, true);
    case 0x8d: return push_string(m, 8, true);
    case 'T': return push_string(m, 4, false);
    case 'U': return push_string(m, 1, false);
    case 'B': return push_string(m, 4, false);
    case 'C': return push_string(m, 1, false);
    case 0x8e: return push_string(m, 8, false);
    case ']': return push_plain(m, (at_pv){.kind = AT_PV_LIST});
    case ')': return push_plain(m, (at_pv){.kind = AT_PV_TUPLE});
    case '}': return push_plain(m, (at_pv){.kind = AT_PV_DICT});
    case 0x8f: return push_plain(m, (at_pv){.kind = AT_PV_OPAQUE}); // set
    case 0x90: return extend(m, AT_PV_OPAQUE, -1);
    case 0x85: return make(m, AT_PV_TUPLE, 1);
    case 0x86: return make(m, AT_PV_TUPLE, 2);
    case 0x87: return make(m, AT_PV_TUPLE, 3);
    case 't': return make(m, AT_PV_TUPLE, -1);
    case 'l': return make(m, AT_PV_LIST, -1);
    case 'd': return make(m, AT_PV_DICT, -1);
    case 'a': return extend(m, AT_PV_LIST, 1);
    case 'e': return extend(m, AT_PV_LIST, -1);
    case 's': return extend(m, AT_PV_DICT, 2);
    case 'u': return extend(m, AT_PV_DICT, -1);
    case 'q':
    case 'r':
    case 'h':
    case 'j': return memo(m, op);
    case 0x94: return put_memo(m, m->memo_count);
    case 'c': return global_lines(m);
    case 0x93: return global_stack(m);
    case 'R':
    case 0x81: return at_pm_reduce(m); // a class called by NEWOBJ is a callable as well
    case 'b': return build(m);
    case 'Q': return at_pm_storage(m);
    default:
        return at_fail(AT_EUNSUPPORTED,
                       "%s: byte %zu of its pickle: opcode 0x%02x is not read from model files",
                       m->label, (size_t)(m->p - m->data), op);
    }
}

static at_status run(at_pm *m)
{
    const uint8_t *op = NULL;
    at_status st = AT_OK;

    for (;;) {
        AT_TRY(take(m, 1, &op));
        if (*op == '.') break;
        AT_TRY(step(m, *op));
    }
    m->mark_count = 0;
    AT_TRY(at_pm_pop(m, &m->out->root));
    m->out->used = (size_t)(m->p - m->data);
out:
    return st;
}

at_status at_pickle_read(const char *label, const void *data, size_t size, at_pickle *out)
{
    const uint8_t *bytes = data;
    at_pm m = {.label = label, .data = bytes, .p = bytes, .end = bytes + size, .out = out};

    *out = (at_pickle){0};
    at_status st = size ? run(&m) : at_fail(AT_EFORMAT, "%s: its pickle is empty", label);
    at_free(m.stack);
    at_free(m.marks);
    at_free(m.memo);
    if (st != AT_OK) at_pickle_free(out);
    return st;
}

void at_pickle_free(at_pickle *p)
{
    for (size_t i = 0; i < p->count; i++) {
        at_free((void *)(uintptr_t)p->values[i].text);
        at_free(p->values[i].items);
        at_free(p->values[i].tensor);
    }
    at_free(p->values);
    *p = (at_pickle){0};
}

const at_pv *at_pickle_at(const at_pickle *p, uint32_t i)
{
    return &p->values[i];
}

const at_pv *at_pickle_get(const at_pickle *p, const at_pv *dict, const char *key)
{
    if (dict->kind != AT_PV_DICT) return NULL;
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const at_pv *k = at_pickle_at(p, dict->items[i]);
        if (k->kind == AT_PV_STRING && !strcmp(k->text, key))
            return at_pickle_at(p, dict->items[i + 1]);
    }
    return NULL;
}
