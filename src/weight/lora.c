// SPDX-License-Identifier: Apache-2.0
// lora.c - adapter files, see lora.h.
// Idea: a file's tensors are listed under the names they go by after conversion (three families of
// files use names of their own); a tensor that was asked for is marked, so that the rest can be named.
// Owns: see lora.h.
#include "weight/lora.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/lora_impl.h"

typedef struct entry {
    char *name;
    const at_weight *w;
    bool used;
} entry;

struct at_lora {
    at_store *store;
    entry *items; // sorted by name
    size_t count;
    bool bfl; // a control LoRA of Black Forest Labs: img_in grows
    int64_t img_in[2];
};

// --- names after conversion ------------------------------------------------------------------------
typedef struct rename_row {
    const char *from, *to;
} rename_row;

static const rename_row bfl_names[] = {{".lora_B.bias", ".diff_b"},
                                       {"_norm.scale", "_norm.scale.set_weight"}};
static const rename_row uso_names[] = {
    {".down.weight", ".lora_down.weight"},
    {".up.weight", ".lora_up.weight"},
    {".qkv_lora2.", ".txt_attn.qkv."},
    {".qkv_lora1.", ".img_attn.qkv."},
    {".proj_lora1.", ".img_attn.proj."},
    {".proj_lora2.", ".txt_attn.proj."},
    {".qkv_lora.", ".linear1_qkv."},
    {".proj_lora.", ".linear2."},
    {".processor.", "."},
};

// Every `from` in s becomes `to`.
static void replace_all(at_str *s, const rename_row *row)
{
    at_str out = {0};
    const char *p = at_str_text(s), *hit;

    while ((hit = strstr(p, row->from)) != NULL) {
        at_str_append_n(&out, p, (size_t)(hit - p));
        at_str_append(&out, row->to);
        p = hit + strlen(row->from);
    }
    at_str_append(&out, p);
    out.failed |= s->failed;
    at_str_free(s);
    *s = out;
}

static char *renamed(const char *name, const char *prefix, const rename_row *rows, size_t n)
{
    at_str s = {0};

    at_str_append(&s, prefix);
    at_str_append(&s, name);
    for (size_t i = 0; i < n; i++)
        replace_all(&s, &rows[i]);
    char *out = at_str_take(&s);
    at_str_free(&s);
    return out;
}

#define N(rows) (sizeof(rows) / sizeof *(rows))
static char *name_of(at_store *s, const char *name, bool bfl)
{
    static const char wan_mark[] = "lora_unet__blocks_0_cross_attn_k.lora_down.weight";
    bool uso = at_store_find(s, "single_blocks.37.processor.qkv_lora.up.weight") &&
               at_store_find(s, "double_blocks.18.processor.qkv_lora2.up.weight");

    if (bfl) return renamed(name, "diffusion_model.", bfl_names, N(bfl_names));
    if (at_store_find(s, wan_mark))
        return at_starts_with(name, "lora_unet__") ? at_strprintf("lora_unet_%s", name + 11)
                                                   : at_strdup(name);
    if (uso) return renamed(name, "diffusion_model.", uso_names, N(uso_names));
    return at_strdup(name);
}

// --- opening ---------------------------------------------------------------------------------------
static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static void find_bfl(at_lora *l)
{
    const at_weight *a = at_store_find(l->store, "img_in.lora_A.weight");
    const at_weight *b = at_store_find(l->store, "img_in.lora_B.weight");

    if (!a || !b || a->rank != 2 || b->rank != 2) return;
    l->bfl = at_store_find(l->store, "single_blocks.0.norm.key_norm.scale") != NULL;
    l->img_in[0] = b->shape[0];
    l->img_in[1] = a->shape[1];
}

at_status at_lora_open(at_store *s, at_lora **out)
{
    at_lora *l = at_calloc(1, sizeof *l);
    size_t n = at_store_count(s);
    at_status st = AT_OK;

    *out = NULL;
    if (l) l->items = at_calloc(n ? n : 1, sizeof *l->items);
    if (!l || !l->items) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to read it", at_store_path(s)));
    l->store = at_store_retain(s);
    find_bfl(l);
    for (size_t i = 0; i < n; i++) {
        const at_weight *w = at_store_at(s, i);
        l->items[i] = (entry){name_of(s, w->name, l->bfl), w, false};
        if (!l->items[i].name)
            AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to read it", at_store_path(s)));
        l->count++;
    }
    if (n) qsort(l->items, n, sizeof *l->items, by_name);
    *out = l;
    l = NULL;
out:
    at_lora_free(l);
    return st;
}

void at_lora_free(at_lora *l)
{
    if (!l) return;
    for (size_t i = 0; i < l->count; i++)
        at_free(l->items[i].name);
    at_free(l->items);
    at_store_release(&l->store);
    at_free(l);
}

size_t at_lora_unused(const at_lora *l, const char **first, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].used) continue;
        if (n < max) first[n] = l->items[i].name;
        n++;
    }
    return n;
}

// --- looking up ------------------------------------------------------------------------------------
static entry *find(at_lora *l, const char *x, const char *suffix)
{
    char name[768];
    int n = snprintf(name, sizeof name, "%s%s", x, suffix);
    entry key = {.name = name};

    if (n < 0 || (size_t)n >= sizeof name || !l->count) return NULL;
    return bsearch(&key, l->items, l->count, sizeof key, by_name);
}

// The tensor x + suffix, marked as used; NULL if the file has none.
static const at_weight *take(at_lora *l, const char *x, const char *suffix)
{
    entry *e = find(l, x, suffix);

    if (!e) return NULL;
    e->used = true;
    return e->w;
}

// Up and down of a plain LoRA in the order in which names are tried.
static const struct {
    const char *up, *down, *mid;
} pairs[] = {
    {".lora_up.weight", ".lora_down.weight", ".lora_mid.weight"},
    {"_lora.up.weight", "_lora.down.weight", NULL},
    {".lora_B.weight", ".lora_A.weight", NULL},
    {".lora.up.weight", ".lora.down.weight", NULL},
    {".lora_B", ".lora_A", NULL},
    {".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", NULL},
    {".lora_B.default.weight", ".lora_A.default.weight", NULL},
};

static bool read_grow(const at_weight *w, at_edit *e)
{
    int64_t n = w ? at_weight_elements(w) : 0;
    float v[AT_MAX_RANK];

    if (n < 1 || n > AT_MAX_RANK || w->rank != 1) return false;
    at_weight_read_f32(w, 0, n, v);
    for (int64_t i = 0; i < n; i++) {
        if (!(v[i] >= 1) || v[i] > 0x1p24f) return false;
        e->grow[i] = (int64_t)v[i];
    }
    e->grow_rank = (int)n;
    return true;
}

static bool read_lora(at_lora *l, const char *x, at_edit *e)
{
    for (size_t i = 0; i < N(pairs); i++) {
        const at_weight *up = take(l, x, pairs[i].up);
        if (!up) continue;
        e->kind = AT_EDIT_LORA;
        e->t[0] = up;
        e->t[1] = take(l, x, pairs[i].down);
        e->t[2] = pairs[i].mid ? take(l, x, pairs[i].mid) : NULL;
        if (l->bfl && !strcmp(x, "diffusion_model.img_in")) {
            e->grow_rank = 2;
            memcpy(e->grow, l->img_in, sizeof l->img_in);
        } else {
            read_grow(take(l, x, ".reshape_weight"), e);
        }
        return true;
    }
    return false;
}

// The adapters that are told by one tensor and take the others by name.
static const struct {
    at_edit_kind kind;
    int marks; // how many of the suffixes below say that it is there: the first, or any of some
    const char *suffix[AT_EDIT_TENSORS];
} adapters[] = {
    {AT_EDIT_LOHA,
     1,
     {".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2"}},
    {AT_EDIT_LOKR,
     5,
     {".lokr_w1", ".lokr_w2", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2"}},
    {AT_EDIT_GLORA, 1, {".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"}},
};

static bool read_adapter(at_lora *l, const char *x, size_t which, at_edit *e)
{
    bool there = false;

    for (int i = 0; i < adapters[which].marks; i++)
        there |= find(l, x, adapters[which].suffix[i]) != NULL;
    if (!there) return false;
    e->kind = adapters[which].kind;
    for (int i = 0; i < AT_EDIT_TENSORS; i++)
        e->t[i] = adapters[which].suffix[i] ? take(l, x, adapters[which].suffix[i]) : NULL;
    return true;
}

static bool read_turn(at_lora *l, const char *x, at_edit *e)
{
    entry *blocks = find(l, x, ".oft_blocks");

    if (!blocks || (blocks->w->rank != 3 && blocks->w->rank != 4)) return false;
    blocks->used = true;
    e->kind = blocks->w->rank == 3 ? AT_EDIT_OFT : AT_EDIT_BOFT;
    e->t[0] = blocks->w;
    e->t[1] = take(l, x, ".rescale");
    return true;
}

static bool read_whole(at_lora *l, const char *x, at_edit_kind kind, const char *suffix, at_edit *e)
{
    const at_weight *w = take(l, x, suffix);

    if (!w) return false;
    *e = (at_edit){.kind = kind, .t = {w}};
    return true;
}

// What the file says about `x`: the last kind that is there wins. *bias: about the layer's bias.
static bool read_entry(at_lora *l, const char *x, at_edit *e, at_edit *bias, bool *has_bias)
{
    const at_weight *alpha = take(l, x, ".alpha"), *dora = take(l, x, ".dora_scale");
    at_edit like = {.dora = dora}, one;
    bool there = false;
    float v = 0;

    if (alpha && at_weight_elements(alpha) == 1) {
        at_weight_read_f32(alpha, 0, 1, &v);
        like.has_alpha = true;
        like.alpha = (double)v;
    }
    one = like;
    if (read_lora(l, x, &one)) {
        *e = one;
        there = true;
    }
    for (size_t i = 0; i < N(adapters); i++) {
        one = like;
        if (!read_adapter(l, x, i, &one)) continue;
        *e = one;
        there = true;
    }
    one = like;
    if (read_turn(l, x, &one)) {
        *e = one;
        there = true;
    }
    if (read_whole(l, x, AT_EDIT_DIFF, ".w_norm", e)) {
        there = true;
        *has_bias = read_whole(l, x, AT_EDIT_DIFF, ".b_norm", bias);
    }
    there |= read_whole(l, x, AT_EDIT_DIFF, ".diff", e);
    *has_bias |= read_whole(l, x, AT_EDIT_DIFF, ".diff_b", bias);
    there |= read_whole(l, x, AT_EDIT_SET, ".set_weight", e);
    return there;
}

// --- matching --------------------------------------------------------------------------------------
// Everything the file says, by target, before what was said twice is dropped.
typedef struct claim {
    char *record;
    size_t order;
    at_edit edit;
} claim;
typedef struct claims {
    claim *items;
    size_t count, cap;
} claims;

static at_status claim_add(claims *c, const char *record, size_t len, const char *tail,
                           const at_edit *edit)
{
    if (c->count == c->cap) {
        size_t want = c->cap ? c->cap * 2 : 64;
        claim *p = at_realloc(c->items, want * sizeof *p);
        if (!p) return at_fail(AT_ENOMEM, "no memory for %zu changes", want);
        c->items = p;
        c->cap = want;
    }
    char *name = at_strprintf("%.*s%s", (int)len, record, tail);
    if (!name) return at_fail(AT_ENOMEM, "no memory for a change of %s", record);
    c->items[c->count] = (claim){name, c->count, *edit};
    c->count++;
    return AT_OK;
}

static void claims_free(claims *c)
{
    for (size_t i = 0; i < c->count; i++)
        at_free(c->items[i].record);
    at_free(c->items);
}

// Same target: same record, same rows, same function.
static int by_target(const void *a, const void *b)
{
    const claim *x = a, *y = b;
    int c = strcmp(x->record, y->record);

    if (c) return c;
    if (x->edit.first != y->edit.first) return x->edit.first < y->edit.first ? -1 : 1;
    if (x->edit.rows != y->edit.rows) return x->edit.rows < y->edit.rows ? -1 : 1;
    if (x->edit.swap_halves != y->edit.swap_halves) return x->edit.swap_halves ? 1 : -1;
    return (x->order > y->order) - (x->order < y->order);
}

static bool same_target(const claim *x, const claim *y)
{
    return !strcmp(x->record, y->record) && x->edit.first == y->edit.first &&
           x->edit.rows == y->edit.rows && x->edit.swap_halves == y->edit.swap_halves;
}

static at_status collect(at_lora *l, const at_lora_names *names, claims *all)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < names->count; i++) {
        const at_lora_name *n = &names->items[i];
        size_t len = strlen(n->record);
        at_edit e, bias;
        bool has_bias = false;

        if (read_entry(l, n->name, &e, &bias, &has_bias)) {
            e.first = n->to.first;
            e.rows = n->to.rows;
            e.swap_halves = n->to.swap_halves;
            AT_TRY(claim_add(all, n->record, len, "", &e));
        }
        // A part of a layer, or what is no ".weight", has no bias of its own.
        if (has_bias && !n->to.rows && !n->to.swap_halves && at_ends_with(n->record, ".weight"))
            AT_TRY(claim_add(all, n->record, len - strlen(".weight"), ".bias", &bias));
    }
out:
    return st;
}

at_status at_lora_match(at_lora *l, at_lora_names *names, at_store *model, double strength,
                        at_edits *out, size_t *changed)
{
    claims all = {0};
    size_t n = 0;
    at_status st = AT_OK;

    AT_TRY(at_lora_names_settle(names));
    AT_TRY(collect(l, names, &all));
    if (all.count) qsort(all.items, all.count, sizeof *all.items, by_target);
    for (size_t i = 0; i < all.count; i++) {
        claim *c = &all.items[i];
        const at_weight *w = at_store_find(model, c->record);
        if (i + 1 < all.count && same_target(c, &all.items[i + 1])) continue;
        if (!w || !at_dtype_is_float(w->dtype)) continue;
        c->edit.strength = strength;
        c->edit.keep = 1;
        AT_TRY(at_edits_add(out, c->record, &c->edit));
        n++;
    }
    if (n) AT_TRY(at_edits_hold(out, l->store));
    if (changed) *changed = n;
out:
    claims_free(&all);
    return st;
}
