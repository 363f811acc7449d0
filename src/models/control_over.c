// SPDX-License-Identifier: Apache-2.0
// control_over.c - control-LoRAs and "difference" ControlNets over their base model's weights.
// Idea: a control-LoRA keeps `K.up` and `K.down` where a ControlNet would keep `K.weight`: base
// plus up times down. What it has as a weight or bias (hint, zero convolutions, norms, biases) is
// taken as it is. The overlay lies over the base's store, under the base's prefix.
// Easy to get wrong: up and down may be convolutions; the product of [out, r] and [r, in * k * k]
// has the base's element order. Keys with "__" in them are markers.
// Owns: an overlay's maker owns its rows and keeps both stores alive.
#include "models/control_over.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/matrix.h"
#include "weight/overlay.h"

static const char control_prefix[] = "control_model.";

bool at_control_is_lora(at_store *s)
{
    return at_store_find(s, "lora_controlnet") != NULL;
}

bool at_control_is_difference(at_store *s)
{
    return at_store_find(s, "difference") != NULL &&
           at_store_findf(s, "%szero_convs.0.0.weight", control_prefix) != NULL;
}

// One made record: plain + (second, or up * down); any but plain may be NULL.
typedef struct part {
    const at_weight *plain, *second, *up, *down;
} part;

typedef struct sums {
    at_store *a, *b; // both files
    part *parts;
    at_overlay_row *rows;
    char **names; // of rows
    size_t n, room;
} sums;

static void sums_free(void *ctx)
{
    sums *s = ctx;
    if (!s) return;
    for (size_t i = 0; i < s->n; i++)
        at_free(s->names[i]);
    at_free(s->names);
    at_free(s->rows);
    at_free(s->parts);
    at_store_release(&s->a);
    at_store_release(&s->b);
    at_free(s);
}

static at_status make_sum(void *ctx, size_t row, const at_weight *w, void *bytes)
{
    at_status st = AT_OK;
    const part *p = &((const sums *)ctx)->parts[row];
    at_matrix sum = {0}, more = {0}, up = {0}, down = {0};

    AT_TRY(at_matrix_read(p->plain, &sum));
    if (p->second) AT_TRY(at_matrix_read(p->second, &more));
    if (p->up) {
        AT_TRY(at_matrix_read(p->up, &up));
        AT_TRY(at_matrix_read(p->down, &down));
        AT_TRY(at_matrix_mul(&up, &down, &more));
    }
    if (more.v) {
        if (more.rows * more.cols != sum.rows * sum.cols)
            AT_TRY(at_fail(AT_EFORMAT, "%s: the change is %lldx%lld, the weight %lldx%lld", w->name,
                           (long long)more.rows, (long long)more.cols, (long long)sum.rows,
                           (long long)sum.cols));
        at_matrix_add(sum.v, more.v, sum.rows * sum.cols, 1.0f);
    }
    AT_TRY(at_matrix_store(sum.v, sum.rows * sum.cols, w->dtype, bytes));
out:
    at_matrix_free(&sum);
    at_matrix_free(&more);
    at_matrix_free(&up);
    at_matrix_free(&down);
    return st;
}

// Formats that cannot hold a sum become bf16.
static at_dtype sum_dtype(at_dtype t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16 ? t : AT_BF16;
}

static at_status sums_new(at_store *a, at_store *b, size_t room, sums **out)
{
    sums *s = at_calloc(1, sizeof *s);
    if (s) {
        s->a = at_store_retain(a);
        s->b = at_store_retain(b);
        s->room = room;
        s->parts = at_calloc(room + 1, sizeof *s->parts);
        s->rows = at_calloc(room + 1, sizeof *s->rows);
        s->names = at_calloc(room + 1, sizeof *s->names);
    }
    if (!s || !s->parts || !s->rows || !s->names) {
        sums_free(s);
        return at_fail(AT_ENOMEM, "%s: no memory to join it with its base", at_store_path(a));
    }
    *out = s;
    return AT_OK;
}

// A record named prefix + key (n bytes of it) + suffix, shaped like p.plain.
static at_status sums_add(sums *s, const char *prefix, const char *key, size_t n,
                          const char *suffix, part p)
{
    at_str name = {0};
    at_str_printf(&name, "%s%.*s%s", prefix, (int)n, key, suffix);
    char *text = at_str_take(&name);
    if (!text) return at_fail(AT_ENOMEM, "%s: no memory for a name", at_store_path(s->a));
    s->names[s->n] = text;
    s->parts[s->n] = p;
    at_overlay_row *r = &s->rows[s->n++];
    *r = (at_overlay_row){.name = text, .dtype = sum_dtype(p.plain->dtype), .rank = p.plain->rank};
    memcpy(r->shape, p.plain->shape, sizeof r->shape);
    return AT_OK;
}

static at_status sums_store(sums *s, at_store *base, at_store **out)
{
    at_overlay_maker maker = {.make = make_sum, .free = sums_free, .ctx = s};
    return at_store_overlay(base, s->rows, s->n, &maker, out);
}

// Record i of a control-LoRA as a row over the base, or nothing.
static at_status lora_row(sums *s, at_store *lora, at_store *base, const char *prefix, size_t i)
{
    const at_weight *w = at_store_at(lora, i);
    size_t n = strlen(w->name);

    if (strstr(w->name, "__") || strcmp(w->name, "lora_controlnet") == 0) return AT_OK;
    if (at_ends_with(w->name, ".weight") || at_ends_with(w->name, ".bias")) {
        part own = {.plain = w};
        if (at_ends_with(w->name, ".weight")) {
            int stem = (int)(n - strlen(".weight"));
            own.up = at_store_findf(lora, "%.*s.up", stem, w->name);
            own.down = at_store_findf(lora, "%.*s.down", stem, w->name);
            if (!own.up || !own.down) own.up = own.down = NULL;
        }
        return sums_add(s, prefix, w->name, n, "", own);
    }
    if (!at_ends_with(w->name, ".up")) return AT_OK;
    n -= 3;
    part p = {.up = w,
              .down = at_store_findf(lora, "%.*s.down", (int)n, w->name),
              .plain = at_store_findf(base, "%s%.*s.weight", prefix, (int)n, w->name)};
    if (at_store_findf(lora, "%.*s.weight", (int)n, w->name)) return AT_OK; // above
    if (!p.down || !p.plain)
        return at_fail(AT_EINVAL, "%s: %s has no %s; this control-LoRA was made for another model",
                       at_store_path(lora), w->name,
                       p.down ? "weight in the model that is sampled" : "\"down\"");
    return sums_add(s, prefix, w->name, n, ".weight", p);
}

at_status at_control_lora_over(at_store *lora, const at_model *base, at_store **out)
{
    at_status st = AT_OK;
    at_store *weights = at_model_store(base);
    const char *prefix = at_model_prefix(base);
    sums *s = NULL;

    *out = NULL;
    if (!at_store_findf(weights, "%sinput_blocks.0.0.weight", prefix))
        AT_TRY(at_fail(AT_EINVAL,
                       "%s: a control-LoRA needs a UNet in the original key layout as its base; %s "
                       "is none",
                       at_store_path(lora), at_model_label(base)));
    AT_TRY(sums_new(lora, weights, at_store_count(lora), &s));
    for (size_t i = 0; i < at_store_count(lora); i++)
        AT_TRY(lora_row(s, lora, weights, prefix, i));
    st = sums_store(s, weights, out);
    s = NULL; // taken, also on failure
out:
    sums_free(s);
    return st;
}

at_status at_control_add_base(at_store *difference, const at_model *base, at_store **out)
{
    at_status st = AT_OK;
    at_store *weights = at_model_store(base);
    const size_t skip = sizeof control_prefix - 1;
    sums *s = NULL;

    *out = NULL;
    AT_TRY(sums_new(difference, weights, at_store_count(difference), &s));
    for (size_t i = 0; i < at_store_count(difference); i++) {
        const at_weight *w = at_store_at(difference, i);
        if (!at_starts_with(w->name, control_prefix)) continue;
        part p = {.plain = w,
                  .second = at_store_findf(weights, "%s%s", at_model_prefix(base), w->name + skip)};
        if (p.second) AT_TRY(sums_add(s, "", w->name, strlen(w->name), "", p));
    }
    st = sums_store(s, difference, out);
    s = NULL;
out:
    sums_free(s);
    return st;
}
