// SPDX-License-Identifier: Apache-2.0
// alias.c - see alias.h.
// Easy to get wrong: bytes that are made when first wanted (an overlay's) do not exist yet when an
// alias points at them; they are made first.
#include "weight/alias.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weight/store_impl.h"

static at_status fill_record(at_store *s, at_record *r, const at_alias_row *row)
{
    const at_weight *w = row->of;
    int64_t rows = row->rows;
    at_status st = AT_OK;

    AT_TRY(at_weight_ready(w));
    r->own_name = at_strdup(row->name);
    if (!r->own_name) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %s", s->path, row->name));
    r->w = *w;
    r->w.name = r->own_name;
    r->w.packed = &r->packed;
    r->w.cuts = &r->cuts;
    r->w.store = s;
    r->w.lazy = NULL;
    if (!rows) goto out;
    if (w->rank < 1 || row->first < 0 || rows < 0 || row->first > w->shape[0] ||
        rows > w->shape[0] - row->first)
        AT_TRY(at_fail(AT_EFORMAT, "%s: %s has no rows %lld to %lld", s->path, w->name,
                       (long long)row->first, (long long)(row->first + rows)));
    size_t stride = w->shape[0] ? w->bytes / (size_t)w->shape[0] : 0;
    r->w.shape[0] = rows;
    r->w.bytes = stride * (size_t)rows;
    if (w->data) r->w.data = (const char *)w->data + stride * (size_t)row->first;
out:
    return st;
}

at_status at_store_alias(at_store *base, const at_alias_row *rows, size_t n, at_store **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;

    *out = NULL;
    AT_TRY(at_store_new(base->path, &s));
    s->under = at_store_retain(base);
    s->block = at_calloc(n ? n : 1, sizeof *s->block);
    s->order = at_calloc(n ? n : 1, sizeof *s->order);
    s->sorted = at_calloc(n ? n : 1, sizeof *s->sorted);
    if (!s->block || !s->order || !s->sorted)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to rename %zu tensors", base->path, n));
    s->block_count = s->cap = n;
    for (; s->count < n; s->count++) {
        s->order[s->count] = s->sorted[s->count] = &s->block[s->count];
        AT_TRY(fill_record(s, &s->block[s->count], &rows[s->count]));
    }
    qsort(s->sorted, n, sizeof *s->sorted, at_record_by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(s->sorted[i - 1]->w.name, s->sorted[i]->w.name))
            AT_TRY(at_fail(AT_EFORMAT, "%s: two tensors are %s in another layout", base->path,
                           s->sorted[i]->w.name));
    *out = s;
    s = NULL;
out:
    at_store_release(&s);
    return st;
}
