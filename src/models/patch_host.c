// SPDX-License-Identifier: Apache-2.0
// patch_host.c - feature maps as plain numbers. See patch_host.h.
#include "models/patch_host.h"

#include "base/mem.h"

float *at_patch_read(at_ops *o, const at_tensor *x, const char *who)
{
    at_tensor *t = x ? at_contiguous(o, x) : NULL;
    if (!t) return NULL;
    size_t bytes = (size_t)at_tensor_count(t) * sizeof(float);
    float *values = at_alloc(bytes ? bytes : 1);
    at_status st = values ? at_tensor_to_host(t, AT_F32, values, bytes)
                          : at_fail(AT_ENOMEM, "no memory for %zu bytes", bytes);
    if (st == AT_OK) return values;
    at_ops_poison(o, st, "%s: %s", who, at_error_text());
    at_free(values);
    return NULL;
}

at_tensor *at_patch_give(at_ops *o, at_dtype dtype, int rank, const int64_t *shape,
                         const float *values)
{
    return at_cast(o, at_from_host(o, AT_F32, rank, shape, values), dtype);
}

void at_patch_not_owned(void *self)
{
    (void)self;
}
