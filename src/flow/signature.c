// SPDX-License-Identifier: Apache-2.0
// signature.c - digests that are equal exactly when ComfyUI's signatures are.
// Idea: ComfyUI's signature of a node is its own content followed by that of all its ancestors in
// an order given by a depth-first walk over sorted input names; links name ancestors by their place
// in that order, so ids and titles do not matter, but sharing does. The content without link
// targets ("skin") is hashed once per node. A node with links to at most one other node needs no
// walk: its signature is determined by its skin and that node's key, which makes long chains
// linear. Others walk; when the walks of one prompt have seen WALK_LIMIT links, the rest are built
// from their sources' keys alone (that only merges "two equal sources" with "one shared source").
// Easy to get wrong: 1, 1.0 and True are equal in Python; undeclared inputs count.
// Ownership: everything here lives for one call.
#include "flow/signature.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "flow/python.h"

#define WALK_LIMIT ((size_t)16 << 20)

typedef struct skin {
    at_digest content;
    size_t *from; // where the links come from, by sorted input name
    size_t count;
} skin;

typedef struct maker {
    const at_graph *g;
    at_digest hash_key;
    skin *skins;
    at_digest *keys;
    unsigned char *state;                // of the post-order walk: 0 new, 1 open, 2 done
    size_t *ordinal, *epoch, walk;       // of the ancestor walks
    size_t *stack, *at, *order, visited; // scratch, one per node; links seen by all walks
    at_str text;
} maker;

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for the signatures of the workflow");
}

static at_digest fresh_digest(at_digest key)
{
    static atomic_ullong counter; // a number per use: equal to nothing
    at_hash h;

    at_hash_start(&h, key);
    at_hash_text(&h, "unique");
    at_hash_u64(&h, atomic_fetch_add(&counter, 1));
    return at_hash_end(&h);
}

// --- skins --------------------------------------------------------------------------------------
static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The keys of an object in sorted order, ended by NULL; NULL if out of memory.
static const char **sorted_keys(const json_t *object)
{
    const char **names = at_calloc(json_object_size(object) + 1, sizeof *names), *name;
    size_t n = 0;
    json_t *value;

    if (!names) return NULL;
    json_object_foreach((json_t *)object, name, value) names[n++] = name;
    qsort(names, n, sizeof *names, by_name);
    return names;
}

static void canonical(at_str *s, const json_t *v);

static void canonical_items(at_str *s, const json_t *v)
{
    const char **names;

    for (size_t i = 0; i < json_array_size(v); i++) {
        canonical(s, json_array_get(v, i));
        at_str_append(s, ",");
    }
    if (!json_is_object(v)) return;
    names = sorted_keys(v);
    if (!names) s->failed = true;
    for (size_t i = 0; names && names[i]; i++) {
        at_py_repr_text(s, names[i]);
        at_str_append(s, ":");
        canonical(s, json_object_get(v, names[i]));
        at_str_append(s, ",");
    }
    at_free(names);
}

// A constant such that equal texts are equal Python values.
static void canonical(at_str *s, const json_t *v)
{
    long double number;

    if (at_py_number(v, &number)) {
        if (number > -9e18L && number < 9e18L && number == (long double)(long long)number) {
            at_str_printf(s, "%lld", (long long)number);
        } else {
            at_py_repr(s, v);
        }
    } else if (json_is_array(v) || json_is_object(v)) {
        at_str_append(s, json_is_array(v) ? "[" : "{");
        canonical_items(s, v);
        at_str_append(s, json_is_array(v) ? "]" : "}");
    } else {
        at_json_append(s, v, AT_JSON_COMPACT);
    }
}

static bool wants_id(const at_node *n)
{
    if (n->flags & AT_NODE_NOT_IDEMPOTENT) return true;
    for (size_t i = 0; i < n->n_in; i++) {
        if ((n->in[i].flags & AT_INF_HIDDEN) && n->in[i].type_name &&
            strcmp(n->in[i].type_name, "UNIQUE_ID") == 0) {
            return true;
        }
    }
    return false;
}

// One input into the content; a link leaves its source in the skin. *unique: it leads nowhere.
static at_status add_input(maker *m, skin *s, at_hash *h, const char *name, const json_t *value,
                           bool *unique)
{
    at_link link;
    bool linked = at_link_of(m->g, NULL, name, value, &link);

    at_str_clear(&m->text);
    canonical(&m->text, linked ? link.slot : value);
    if (m->text.failed) return no_memory();
    at_hash_text(h, name);
    at_hash_text(h, linked ? "link" : "constant");
    at_hash_text(h, at_str_text(&m->text));
    if (linked && link.from == AT_NO_INDEX) *unique = true;
    if (linked && link.from != AT_NO_INDEX) s->from[s->count++] = link.from;
    return AT_OK;
}

static at_status make_skin(maker *m, size_t i, const char *changed, bool never)
{
    at_status st = AT_OK;
    const at_graph_node *n = &m->g->nodes[i];
    const char **names = sorted_keys(n->inputs);
    skin *s = &m->skins[i];
    at_hash h;
    bool unique = never || !n->spec;

    s->from = at_calloc(json_object_size(n->inputs) + 1, sizeof *s->from);
    if (!names || !s->from) AT_TRY(no_memory());
    at_hash_start(&h, m->hash_key);
    at_hash_text(&h, n->spec ? n->spec->class_type : "");
    at_hash_text(&h, changed ? "changed" : "");
    at_hash_text(&h, changed ? changed : "");
    at_hash_text(&h, n->spec && wants_id(n->spec) ? n->id : "");
    for (size_t k = 0; names[k]; k++) {
        AT_TRY(add_input(m, s, &h, names[k], json_object_get(n->inputs, names[k]), &unique));
    }
    s->content = unique ? fresh_digest(m->hash_key) : at_hash_end(&h);
out:
    at_free(names);
    return st;
}

// --- keys ---------------------------------------------------------------------------------------
static void hash_digest(at_hash *h, at_digest d)
{
    at_hash_u64(h, d.a);
    at_hash_u64(h, d.b);
}

// Number the ancestors of `root` as ComfyUI does: at first sight, depth first. Returns how many.
static size_t number_ancestors(maker *m, size_t root)
{
    size_t depth = 1, found = 0;

    m->walk++;
    m->stack[0] = root;
    m->at[0] = 0;
    while (depth) {
        const skin *s = &m->skins[m->stack[depth - 1]];
        size_t k = m->at[depth - 1]++, from;
        if (k == s->count) {
            depth--;
            continue;
        }
        from = s->from[k];
        m->visited++;
        if (m->epoch[from] == m->walk) continue;
        m->epoch[from] = m->walk;
        m->ordinal[from] = found;
        m->order[found++] = from;
        m->stack[depth] = from;
        m->at[depth++] = 0;
    }
    return found;
}

static at_digest walked_key(maker *m, size_t root)
{
    size_t found = number_ancestors(m, root), id = root;
    at_hash h;

    at_hash_start(&h, m->hash_key);
    at_hash_text(&h, "walk");
    for (size_t i = 0; i <= found; i++) {
        hash_digest(&h, m->skins[id].content);
        for (size_t k = 0; k < m->skins[id].count; k++) {
            at_hash_u64(&h, m->ordinal[m->skins[id].from[k]]);
        }
        if (i < found) id = m->order[i];
    }
    return at_hash_end(&h);
}

// All sources of `i` have their keys, unless the workflow has a cycle there: then nothing equals
// it.
static at_digest key_of(maker *m, size_t i)
{
    const skin *s = &m->skins[i];
    bool one = true;
    at_hash h;

    for (size_t k = 0; k < s->count; k++) {
        if (m->state[s->from[k]] != 2) return fresh_digest(m->hash_key);
        if (s->from[k] != s->from[0]) one = false;
    }
    if (!one && m->visited < WALK_LIMIT) return walked_key(m, i);
    at_hash_start(&h, m->hash_key);
    at_hash_text(&h, one ? "one" : "many");
    hash_digest(&h, s->content);
    for (size_t k = 0; k < (one && s->count ? 1 : s->count); k++) {
        hash_digest(&h, m->keys[s->from[k]]);
    }
    return at_hash_end(&h);
}

static void make_keys(maker *m, size_t root, size_t *stack, size_t *at)
{
    size_t depth = 1;

    if (m->state[root]) return;
    stack[0] = root;
    at[0] = 0;
    m->state[root] = 1;
    while (depth) {
        size_t id = stack[depth - 1], k = at[depth - 1]++;
        if (k == m->skins[id].count) {
            m->keys[id] = key_of(m, id);
            m->state[id] = 2;
            depth--;
        } else if (!m->state[m->skins[id].from[k]]) {
            stack[depth] = m->skins[id].from[k];
            m->state[stack[depth]] = 1;
            at[depth++] = 0;
        }
    }
}

// Those of nodes [first, count); the keys before are there. New nodes are keyed by their sources' keys.
static at_status make_from(const at_graph *g, size_t first, char *const *changed, const bool *never,
                           at_digest *keys)
{
    at_status st = AT_OK;
    maker m = {.g = g, .keys = keys, .visited = first ? WALK_LIMIT : 0};
    size_t n = g->count, *scratch = at_calloc(n + 2, 7 * sizeof *scratch);

    at_hash_key(&m.hash_key);
    m.skins = at_calloc(n + 1, sizeof *m.skins);
    m.state = at_calloc(n + 1, 1);
    if (!scratch || !m.skins || !m.state) AT_TRY(no_memory());
    m.ordinal = scratch;
    m.epoch = scratch + (n + 2);
    m.stack = scratch + 2 * (n + 2);
    m.at = scratch + 3 * (n + 2);
    m.order = scratch + 4 * (n + 2);
    memset(m.state, 2, first);
    for (size_t i = first; i < n; i++) {
        AT_TRY(make_skin(&m, i, changed ? changed[i] : NULL, never && never[i]));
    }
    for (size_t i = first; i < n; i++) {
        make_keys(&m, i, scratch + 5 * (n + 2), scratch + 6 * (n + 2));
    }
out:
    for (size_t i = 0; m.skins && i < n; i++)
        at_free(m.skins[i].from);
    at_free(m.skins);
    at_free(m.state);
    at_free(scratch);
    at_str_free(&m.text);
    return st;
}

at_status at_signatures(const at_graph *g, char *const *changed, const bool *never, at_digest *keys)
{
    return make_from(g, 0, changed, never, keys);
}

at_status at_signatures_add(const at_graph *g, size_t first, char *const *changed,
                            const bool *never, at_digest *keys)
{
    return make_from(g, first, changed, never, keys);
}
