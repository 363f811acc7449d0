// SPDX-License-Identifier: Apache-2.0
// store.h - weights as records: file, offset, storage format, and where they are resident.
// Idea: opening a model maps its file and reads the header; no weight byte is touched until an op
// wants it, and none is ever copied on the CPU unless a backend packs it.
// I1: a record's bytes lie inside the mapping (checked at open). I2: names are unique.
// I3: records do not move: an at_weight* is valid while the store is referenced.
// I4: weight data is aligned to its element type (a file that is not gets copied, logged).
// Limit: bytes are paged in from the file when touched. Who shortens a model file while it is open
// makes the kernel kill the process (SIGBUS); replace model files by rename, as downloaders do. The
// engine looks at size and time of open files as a job begins (engine/stores.h).
// Owns: the store owns the mapping, the records and what backends packed for them; counted
// references.
#ifndef AT_WEIGHT_STORE_H
#define AT_WEIGHT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "atelier/backend.h"
#include "base/status.h"
#include "tensor/dtype.h"

typedef struct at_store at_store;

typedef struct at_lazy at_lazy; // bytes that are made when first wanted, see weight/overlay.h
typedef struct at_cuts at_cuts; // how ranks share it, see weight/cut.h

typedef struct at_weight {
    const char *name;
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
    const void *data; // mapped bytes; NULL only in a store of shapes (plan, inspect), and before
                      // at_weight_ready where `lazy` is set
    size_t bytes;
    float scale; // multiply by it; 1 unless scaled fp8
    at_packed *packed;
    bool mapped; // data lies in the file's mapping
    at_store *store;
    at_lazy *lazy; // NULL: the bytes are there
    at_cuts *cuts; // NULL: it cannot be cut
} at_weight;

// Open by content: safetensors, and what torch.save writes (.ckpt, .pt, .pth, .bin); gguf plugs in
// here. AT_ENOTFOUND, AT_EFORMAT with a message naming file, tensor and numbers. A scaled-fp8 file has its `X.scale_weight` folded into
// the scale of `X.weight` (the scale tensors stay visible as records).
at_status at_store_open(const char *path, at_store **out);
// A store filled by hand: random weights for bench, literal ones for tests. `fill` is called when
// the record is added and gets a writable buffer.
at_status at_store_new(const char *label, at_store **out);
at_status at_store_add(at_store *s, const char *name, at_dtype dtype, int rank,
                       const int64_t *shape, void (*fill)(void *ctx, void *bytes, size_t n),
                       void *ctx);
// A record of a given shape without bytes: for `plan`.
at_status at_store_add_shape(at_store *s, const char *name, at_dtype dtype, int rank,
                             const int64_t *shape);
// A record of zeros that costs no memory: all of them show the same pages. For forecasts, where only shapes count.
at_status at_store_add_zeros(at_store *s, const char *name, at_dtype dtype, int rank,
                             const int64_t *shape);
at_store *at_store_retain(at_store *s);
void at_store_release(at_store **s); // nulls it; NULL is fine

const char *at_store_path(const at_store *s); // or the label
size_t at_store_count(const at_store *s);
at_weight *at_store_at(at_store *s, size_t i);           // in file order of the header
at_weight *at_store_find(at_store *s, const char *name); // NULL if absent
at_weight *at_store_findf(at_store *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *at_store_metadata(const at_store *s,
                              const char *key); // safetensors __metadata__; or NULL
uint64_t at_store_file_bytes(const at_store *s);

// Make sure that the bytes are there: a record of an overlay is computed here, once, and failure names
// it. To be asked before `data` is read; the doors of ops/ do. Any thread.
at_status at_weight_ready(const at_weight *w);
// Convert element range [first, first + n) to f32, scale applied. For small tables and tests. The
// weight is ready.
void at_weight_read_f32(const at_weight *w, int64_t first, int64_t n, float *out);
int64_t at_weight_elements(const at_weight *w);
at_wview at_weight_view(const at_weight *w); // w NULL gives an absent view

#endif
