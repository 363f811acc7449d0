// SPDX-License-Identifier: Apache-2.0
// pickle.h - the data in a Python pickle, without Python: what torch.save writes, and nothing else.
// Idea: a pickle is a program for a small stack machine. Here that machine can make numbers, strings,
// containers and tensors; a list of names says which callables stand for them, and any other name,
// opcode or object is refused. Nothing is ever called.
// Source: CPython Lib/pickletools.py (format), torch/_weights_only_unpickler.py and
// torch/serialization.py (which names; behaviour).
// Limits: values are bounded by the bytes of the pickle; strings are UTF-8.
// Owns: an at_pickle owns its values; strings point into it. Immutable once read.
#ifndef AT_WEIGHT_PICKLE_H
#define AT_WEIGHT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atelier/types.h"
#include "base/status.h"

typedef enum at_pv_kind {
    AT_PV_NONE,
    AT_PV_BOOL,    // i
    AT_PV_INT,     // i
    AT_PV_FLOAT,   // f
    AT_PV_STRING,  // text
    AT_PV_LIST,    // items
    AT_PV_TUPLE,   // items
    AT_PV_DICT,    // items: key, value, key, value ...
    AT_PV_STORAGE, // text is its key; dtype, i elements
    AT_PV_TENSOR,  // items[0] is the storage; tensor
    AT_PV_DTYPE,   // dtype
    AT_PV_OPAQUE,  // understood and of no interest
    AT_PV_GLOBAL   // a callable of the list, by its number i
} at_pv_kind;

typedef struct at_pv_tensor {
    int rank;
    int64_t offset, shape[AT_MAX_RANK], stride[AT_MAX_RANK]; // in elements
} at_pv_tensor;

typedef struct at_pv {
    at_pv_kind kind;
    at_dtype dtype;
    int64_t i;
    double f;
    const char *text; // zero-terminated
    uint32_t *items;  // numbers of values
    size_t count, cap;
    at_pv_tensor *tensor;
} at_pv;

typedef struct at_pickle {
    at_pv *values;
    size_t count, cap;
    uint32_t root;
    size_t used; // bytes up to the end of this pickle
} at_pickle;

// AT_EFORMAT: no pickle, cut short, or values that make no sense. AT_EUNSUPPORTED names the callable
// or the opcode that is not allowed. `label` names the file.
at_status at_pickle_read(const char *label, const void *data, size_t size, at_pickle *out);
void at_pickle_free(at_pickle *p);
const at_pv *at_pickle_at(const at_pickle *p, uint32_t i);
// The value of a dict under a string key; NULL if it has none or is no dict.
const at_pv *at_pickle_get(const at_pickle *p, const at_pv *dict, const char *key);

#endif
