// SPDX-License-Identifier: Apache-2.0
// safetensors.h - the safetensors container: parser (bytes in, rows out) and writer.
// Format: huggingface/safetensors: u64 little-endian header length, JSON header, tensor bytes.
// Refused with a clear message: header longer than the file or than 100 MB, bytes after/before,
// offsets that overlap, leave the file, run backwards or do not match shape * dtype, unknown
// dtypes, duplicate names, ranks above AT_MAX_RANK, non-integer or negative numbers, JSON deeper
// than 8. Owns: at_st_file owns its rows and names; the bytes stay the caller's.
#ifndef AT_WEIGHT_SAFETENSORS_H
#define AT_WEIGHT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "atelier/types.h"
#include "base/status.h"

typedef struct at_st_row {
    const char *name;
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
    uint64_t offset, bytes; // offset from the start of the file
} at_st_row;

typedef struct at_st_pair {
    const char *key, *value;
} at_st_pair;

typedef struct at_st_file {
    at_st_row *rows; // in the order of the header
    size_t count;
    at_st_pair *meta;
    size_t meta_count;
    void *owner; // private: what at_st_free gives back
} at_st_file;

// `label` names the file in messages. `size` is the whole file's size; only header bytes are read.
at_status at_st_parse(const char *label, const void *data, size_t size, at_st_file *out);
void at_st_free(at_st_file *f);

// Write rows (dtype, shape and `data` of each) atomically. meta may be NULL.
typedef struct at_st_out {
    const char *name;
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
    const void *data;
} at_st_out;
at_status at_st_write(const char *path, const at_st_out *rows, size_t count, const at_st_pair *meta,
                      size_t meta_count);
// The same; the bytes of rows whose data is NULL are made one row at a time, when they are written.
typedef at_status at_st_make_fn(void *ctx, size_t row, void *bytes);
at_status at_st_write_made(const char *path, const at_st_out *rows, size_t count,
                           const at_st_pair *meta, size_t meta_count, at_st_make_fn *make,
                           void *ctx);

#endif
