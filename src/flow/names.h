// SPDX-License-Identifier: Apache-2.0
// names.h - a table from strings to numbers: node ids to positions, class names to tables.
// Owns: its slots; the strings are borrowed and must outlive it.
#ifndef AT_FLOW_NAMES_H
#define AT_FLOW_NAMES_H

#include "base/status.h"

#include <stddef.h>

#define AT_NO_INDEX ((size_t)-1)

typedef struct at_names {
    struct at_names_slot *slots;
    size_t cap, count;
} at_names;

// AT_EINVAL (no message) if the name is already there; AT_ENOMEM.
at_status at_names_add(at_names *t, const char *name, size_t value);
size_t at_names_find(const at_names *t, const char *name); // AT_NO_INDEX if absent
void at_names_free(at_names *t);

#endif
