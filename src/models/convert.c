// SPDX-License-Identifier: Apache-2.0
// convert.c - see convert.h.
#include "models/convert.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

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
