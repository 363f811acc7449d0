// SPDX-License-Identifier: Apache-2.0
// pickle_impl.h - private to the pickle reader: the machine that opcodes work on.
#ifndef AT_WEIGHT_PICKLE_IMPL_H
#define AT_WEIGHT_PICKLE_IMPL_H

#include "weight/pickle.h"

typedef struct at_pm {
    const char *label;
    const uint8_t *data, *p, *end;
    at_pickle *out;
    uint32_t *stack, *marks, *memo;
    size_t item_count, depth, stack_cap, mark_count, mark_cap, memo_count, memo_cap;
} at_pm;

at_status at_pm_bad(const at_pm *m, const char *what); // AT_EFORMAT with the byte's number
at_status at_pm_value(at_pm *m, const at_pv *v, uint32_t *index); // a new value, pushed
at_status at_pm_push(at_pm *m, uint32_t index);
at_status at_pm_pop(at_pm *m, uint32_t *index);
at_pv *at_pm_at(at_pm *m, uint32_t index);
at_status at_pm_items(at_pm *m, uint32_t owner, const uint32_t *items, size_t n); // appended
// A zero-terminated copy of n bytes, kept with the pickle by the value it is put into.
at_status at_pm_text(at_pm *m, const void *bytes, size_t n, const char **out);

// Names (pickle_names.c): the number of a callable, or AT_EUNSUPPORTED with its name.
at_status at_pm_global(at_pm *m, const char *module, const char *name, at_pv *out);
// Pops arguments and callable, pushes what it stands for.
at_status at_pm_reduce(at_pm *m);
// Pops a persistent id, pushes the storage that it names.
at_status at_pm_storage(at_pm *m);

#endif
