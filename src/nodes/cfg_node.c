// SPDX-License-Identifier: Apache-2.0
// cfg_node.c - see cfg_node.h.
#include "nodes/cfg_node.h"

#include <string.h>

#include "base/mem.h"
#include "nodes/guide_sums.h"

const at_out at_model_outs[1] = {AT_OUT("MODEL")};
const at_out at_patched_outs[1] = {{.type_name = "MODEL", .name = "patched_model"}};

at_status at_cfg_give(const at_object *model, const at_hook_ops *ops, const void *self, size_t size,
                      at_value *out)
{
    at_object *o = NULL;
    void *copy = NULL;

    if (size) {
        copy = at_alloc(size);
        if (!copy) return at_fail(AT_ENOMEM, "%s: no memory", ops->name);
        memcpy(copy, self, size);
    }
    at_status st = at_obj_model_hook((const at_obj_model *)model, ops, copy, &o);
    if (st == AT_OK) *out = at_value_object(o);
    return st;
}

at_tensor *at_mix_2(at_ops *o, double a, const at_tensor *x, double b, const at_tensor *y)
{
    return at_lincomb(o, 2, (const float[]){(float)a, (float)b}, (const at_tensor *const[]){x, y});
}

at_tensor *at_mix_3(at_ops *o, double a, const at_tensor *x, double b, const at_tensor *y, double c,
                    const at_tensor *z)
{
    return at_lincomb(o, 3, (const float[]){(float)a, (float)b, (float)c},
                      (const at_tensor *const[]){x, y, z});
}

at_tensor *at_scale_items(at_ops *o, const at_tensor *x, const double *k)
{
    return x ? at_mul(o, x, at_sum_column(o, k, x->shape[0])) : NULL;
}

bool at_cfg_fits(at_ops *o, const at_guided *d)
{
    if (d->x->shape[0] <= AT_CFG_ITEMS) return true;
    at_ops_poison(o, AT_EINVAL, "guidance: a batch of %lld latents, %d is the most",
                  (long long)d->x->shape[0], AT_CFG_ITEMS);
    return false;
}
