// SPDX-License-Identifier: Apache-2.0
// cache.h - results of finished nodes by signature, between runs.
// Ownership: a result is counted: the cache holds one reference, a caller that keeps it another.
#ifndef AT_FLOW_CACHE_H
#define AT_FLOW_CACHE_H

#include "flow/digest.h"
#include "flow/run.h"

typedef struct at_result {
    size_t refs;          // one thread owns a cache and its results
    at_value_list *slots; // one list per output
    size_t count;
    char *ui; // JSON text; NULL: none
} at_result;
at_result *at_result_new(size_t slots); // one reference; NULL if out of memory
void at_result_release(at_result *r);   // NULL is fine

// A new prompt with these keys: what the mode does not keep is dropped.
void at_cache_begin(at_cache *c, const at_digest *keys, size_t count);
at_result *at_cache_get(at_cache *c, at_digest key);              // borrowed; NULL if absent
at_status at_cache_put(at_cache *c, at_digest key, at_result *r); // takes a reference of its own
void at_cache_drop(at_cache *c, at_digest key);
at_cache_mode at_cache_get_mode(const at_cache *c);

#endif
