// SPDX-License-Identifier: Apache-2.0
// model_file.h - a model file in the making: weights of several objects under new names.
// Idea: rows name records; their bytes are made one at a time while the file is written, so that a
// merge of two large models needs no memory for a third.
// Easy to get wrong: weights with a scale (scaled fp8) are written as the bf16 numbers they stand for,
// for their scales stay behind.
// Ownership: names and literals are copied; records are borrowed until at_model_file_free.
#ifndef AT_NODES_MODEL_FILE_H
#define AT_NODES_MODEL_FILE_H

#include "weight/safetensors.h"
#include "weight/store.h"

typedef struct at_model_row at_model_row; // model_file.c
typedef struct at_model_file {
    at_model_row *rows;
    size_t count, cap;
    bool failed; // memory ran out: said when the file is written
} at_model_file;

void at_model_file_free(at_model_file *f);
// One record; `turned`: as its transpose.
void at_model_file_add(at_model_file *f, const char *name, const at_weight *w, bool turned);
// Three records of one width behind each other (q, k and v as one).
void at_model_file_join(at_model_file *f, const char *name, const at_weight *const w[3]);
// Values given here: f32 or i64 numbers, n of them in `rank` dimensions; n 0: an empty marker.
void at_model_file_put(at_model_file *f, const char *name, at_dtype dtype, int rank,
                       const int64_t *shape, const double *values, size_t n);
at_status at_model_file_write(at_model_file *f, const char *path, const at_st_pair *meta,
                              size_t meta_count);

// Every weight below `prefix` of a store, under `to` + its key. Scales and markers of fp8 files are left
// out; `without` (may be NULL) says which keys stay out as well.
void at_model_file_add_all(at_model_file *f, at_store *s, const char *prefix, const char *to,
                           bool (*without)(const char *key));

#endif
