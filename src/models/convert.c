// SPDX-License-Identifier: Apache-2.0
// convert.c - see convert.h.
#include "models/convert.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/overlay.h"

at_status at_convert_names(at_store *s, const char *prefix, at_rename_fn *fn, const void *ctx,
                           at_store **out)
{
    at_status st = AT_OK;
    size_t count = at_store_count(s), n = 0, skip = strlen(prefix), most;
    at_alias_row *rows = NULL;

    *out = NULL;
    if (at_mul_size(count + 1, AT_RENAME_MOST, &most)) rows = at_calloc(most, sizeof *rows);
    if (!rows)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to rename %zu tensors", at_store_path(s), count));
    for (size_t i = 0; i < count; i++) {
        const at_weight *w = at_store_at(s, i);
        if (!at_starts_with(w->name, prefix)) continue;
        for (size_t k = 0; k < AT_RENAME_MOST; k++)
            rows[n + k] = (at_alias_row){.of = w};
        n += fn(ctx, w, w->name + skip, rows + n);
    }
    AT_TRY(at_store_alias(s, rows, n, out));
out:
    at_free(rows);
    return st;
}

// --- a matrix on its side ------------------------------------------------------------------------
typedef struct turned {
    at_store *store; // counted
    const at_weight *from;
} turned;

static at_status turn(void *ctx, size_t row, const at_weight *w, void *bytes)
{
    const at_weight *from = ((turned *)ctx)->from;
    size_t size = at_dtype_size(w->dtype);
    int64_t rows = w->shape[0], cols = w->shape[1];
    at_status st = AT_OK;

    (void)row;
    AT_TRY(at_weight_ready(from));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            memcpy((char *)bytes + (size_t)(i * cols + j) * size,
                   (const char *)from->data + (size_t)(j * rows + i) * size, size);
out:
    return st;
}

static void free_turned(void *ctx)
{
    at_store_release(&((turned *)ctx)->store);
    at_free(ctx);
}

at_status at_convert_turned(at_store **s, const char *name, at_store *base, const at_weight *from)
{
    at_status st = AT_OK;
    at_overlay_row row = {.name = name, .dtype = from->dtype, .rank = 2};
    turned *t = NULL;
    at_store *over = NULL;

    if (from->rank != 2 || (!from->data && !from->lazy)) return AT_OK;
    row.shape[0] = from->shape[1];
    row.shape[1] = from->shape[0];
    t = at_calloc(1, sizeof *t);
    if (!t) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %s", at_store_path(base), name));
    *t = (turned){at_store_retain(base), from};
    at_overlay_maker maker = {turn, free_turned, t};
    AT_TRY(at_store_overlay(*s, &row, 1, &maker, &over));
    at_store_release(s);
    *s = over;
out:
    return st;
}

at_status at_arch_resolve(const at_arch **arch, at_store *s, const char **prefix, at_store **out)
{
    const at_arch *layout = *arch;
    at_status st = AT_OK;

    if (!layout->convert) {
        *out = at_store_retain(s);
        return AT_OK;
    }
    AT_TRY(layout->convert(s, *prefix, out));
    if (layout->as) {
        *arch = layout->as;
        *prefix = "";
        return AT_OK;
    }
    for (size_t i = 0; i < at_arch_count; i++) {
        const at_arch *a = at_arch_table[i];
        if (a->part != layout->part || a->convert || !at_arch_fits(a, *out, "")) continue;
        *arch = a;
        *prefix = "";
        return AT_OK;
    }
    at_store_release(out);
    st = at_fail(AT_EFORMAT, "%s: %s, but of no network that is known", at_store_path(s),
                 layout->title);
out:
    return st;
}
