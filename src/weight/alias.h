// SPDX-License-Identifier: Apache-2.0
// alias.h - a store whose records are another store's, under other names or by rows.
// Idea: people write one network in several key layouts. Renamed once when the file is opened, the
// tables of an architecture, LoRAs and mergers know one layout only, and no byte is copied.
// Easy to get wrong: names that no row gives are not in the alias.
// Owns: an alias keeps the other store alive.
#ifndef AT_WEIGHT_ALIAS_H
#define AT_WEIGHT_ALIAS_H

#include "weight/store.h"

// Rows [first, first + rows) of a record along its first dimension; rows 0: all of it.
typedef struct at_alias_row {
    char name[160];
    const at_weight *of;
    int64_t first, rows;
} at_alias_row;

// AT_EFORMAT: a name stands twice, or rows leave their record.
at_status at_store_alias(at_store *base, const at_alias_row *rows, size_t n, at_store **out);

#endif
