// SPDX-License-Identifier: Apache-2.0
// tensor.h - reference-counted tensors over reference-counted bytes on a device.
// Idea: a tensor is a window (dtype, shape, strides, offset) on a storage; views share the storage.
// A tensor is immutable once it was handed to somebody else.
// Owns: each at_tensor* counts one reference; release with at_tensor_release. Counting is thread-safe,
// the contents are not.
#ifndef AT_TENSOR_TENSOR_H
#define AT_TENSOR_TENSOR_H

#include <stdatomic.h>
#include <stdbool.h>

#include "atelier/types.h"
#include "base/status.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

typedef struct at_storage at_storage;

// One rank's rows of a map that several ranks share (ops/ops_rows.c): the whole has `rows` of them, and each is
// `unit` entries of dimension 1 (1 for a map [b, h, w, c], w for its pixels [b, h * w, c]). rows 0: a whole.
typedef struct at_row_run {
    int64_t rows, unit;
} at_row_run;

typedef struct at_tensor {
    atomic_int refs;
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
    int64_t stride[AT_MAX_RANK]; // elements
    at_storage *storage;
    size_t offset;               // bytes into the storage
    struct at_tensor *row_scale; // of fp8 rows (at_tensor_new_rows8): f32 [rows], owned; else NULL
    at_row_run run;              // a label that ops/ puts on and reads; views begin without one
    int64_t room; // rows (dimension 1) that the storage keeps free for it at both ends; likewise
} at_tensor;

// New contiguous, uninitialised tensor. Shapes are checked for overflow; a dimension may be 0.
// AT_EINVAL (rank or a negative dimension), AT_ENOMEM.
at_status at_tensor_new(at_device *dev, at_dtype dtype, int rank, const int64_t *shape,
                        at_tensor **out);
// fp8 rows [.., k]: e4m3 bytes, each row over a scale of its own. Only linear layers read such a tensor;
// views of it have no scales and nobody takes them, but for some tokens of a single sample (at_tensor_narrow).
at_status at_tensor_new_rows8(at_device *dev, int rank, const int64_t *shape, at_tensor **out);
// Narrowing t along dim keeps whole rows behind each other, with their scales.
static inline bool at_tensor_rows8_part(const at_tensor *t, int dim)
{
    return t->row_scale && t->rank == 3 && dim == 1 && t->shape[0] == 1;
}
// Host tensor over foreign memory; `release(ctx)` runs when the last view is gone (may be NULL).
at_status at_tensor_wrap(void *data, at_dtype dtype, int rank, const int64_t *shape,
                         void (*release)(void *ctx), void *ctx, at_tensor **out);
// Copy of contiguous host bytes on `dev`.
at_status at_tensor_from_host(at_device *dev, at_dtype dtype, int rank, const int64_t *shape,
                              const void *bytes, at_tensor **out);
// Contiguous host bytes converted to `dtype`; `bytes` must be count * size of dtype.
at_status at_tensor_to_host(const at_tensor *t, at_dtype dtype, void *dst, size_t bytes);

// *t becomes its copy on `d`, through the host, unless it is there or NULL. Nothing changes on failure.
at_status at_tensor_bring(at_device *d, at_tensor **t);

at_tensor *at_tensor_retain(const at_tensor *t); // returns t
void at_tensor_release(at_tensor **t);           // nulls it; NULL is fine

// A window on the same storage: strides and offset in elements, checked to stay inside.
at_status at_tensor_view(const at_tensor *t, int rank, const int64_t *shape, const int64_t *stride,
                         int64_t offset, at_tensor **out);
// Views: same elements under another shape (t must be contiguous); part of one dimension; permuted.
at_status at_tensor_reshape(const at_tensor *t, int rank, const int64_t *shape, at_tensor **out);
at_status at_tensor_narrow(const at_tensor *t, int dim, int64_t start, int64_t length,
                           at_tensor **out);
at_status at_tensor_permute(const at_tensor *t, const int *order, at_tensor **out);

void *at_tensor_data(const at_tensor *t);      // device address of the first element
at_view at_tensor_as_view(const at_tensor *t); // borrowed
at_device *at_tensor_device(const at_tensor *t);
int64_t at_tensor_count(const at_tensor *t); // elements
size_t at_tensor_bytes(const at_tensor *t);  // count * element size
bool at_tensor_contiguous(const at_tensor *t);
bool at_view_contiguous(const at_view *v);
int64_t at_view_count(const at_view *v);
// "bf16 [2, 16, 32, 32]" into out; returns out.
const char *at_shape_text(at_dtype dtype, int rank, const int64_t *shape, char out[128]);

#endif
