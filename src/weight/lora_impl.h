// SPDX-License-Identifier: Apache-2.0
// lora_impl.h - private to the adapter files: the list of names.
#ifndef AT_WEIGHT_LORA_IMPL_H
#define AT_WEIGHT_LORA_IMPL_H

#include "weight/lora.h"

typedef struct at_lora_name {
    char *name, *record;
    size_t order;
    at_lora_target to; // its record is the copy above
} at_lora_name;

struct at_lora_names {
    at_lora_name *items;
    size_t count, cap;
    bool failed, settled;
};

// Each name once, in the order of first mention. AT_ENOMEM if a name was lost.
at_status at_lora_names_settle(at_lora_names *n);

#endif
