// SPDX-License-Identifier: Apache-2.0
// convert.h - files in foreign key layouts, shown in the layout that an architecture's tables know.
// Idea: a row with a `convert` function stands for a layout, not for a network; what the tensors are
// is asked again when they have their usual names.
// Ownership: a converted store shows the other's bytes and keeps it alive.
#ifndef AT_MODELS_CONVERT_H
#define AT_MODELS_CONVERT_H

#include "models/arch.h"
#include "weight/alias.h"

// The records that one tensor becomes: `name` is its name below the prefix, `rows` are zeroed but for
// `of`. Fills name (and first, rows) of the first n and returns n; 0: the tensor has no place.
enum { AT_RENAME_MOST = 3 };
typedef size_t at_rename_fn(const void *ctx, const at_weight *w, const char *name,
                            at_alias_row rows[AT_RENAME_MOST]);
// All tensors below prefix that fn names. AT_ENOMEM, AT_EFORMAT.
at_status at_convert_names(at_store *s, const char *prefix, at_rename_fn *fn, const void *ctx,
                           at_store **out);

// Lay `from`, a matrix of base that is multiplied from the right, over *s as `name`, turned on its
// side when it is first wanted. Nothing happens if it is no matrix or has no bytes.
at_status at_convert_turned(at_store **s, const char *name, at_store *base, const at_weight *from);

// The row that binds what `*arch` found under `*prefix`, the prefix it has in *out, and the store
// (counted; s itself for plain rows). AT_EFORMAT: no network has these tensors.
at_status at_arch_resolve(const at_arch **arch, at_store *s, const char **prefix, at_store **out);

#endif
