// SPDX-License-Identifier: Apache-2.0
// control_far.c - see control_far.h.
#include "nodes/control_far.h"

bool at_control_is_far(const at_ops *o, const at_device *device)
{
    return device && device != at_ops_device(o) && at_ops_comm(o)->size == 1;
}

at_status at_control_far_open(const at_ops *o, at_device *device, at_ops **out)
{
    at_ops_config with = {.device = device, .compute = at_ops_compute(o), .sink = at_ops_sink(o)};

    if (with.compute == AT_F16 && device->host)
        with.compute = AT_F32; // a CPU does not compute in it
    return at_ops_new(&with, out);
}

const at_tensor *at_control_far_bring(at_ops *o, const at_tensor *t)
{
    if (!t || at_ops_status(o) != AT_OK) return NULL;
    at_tensor *copy = at_tensor_retain(t);
    at_status st = at_tensor_bring(at_ops_device(o), &copy);

    if (st == AT_OK) return at_ops_adopt(o, copy);
    at_tensor_release(&copy);
    return at_ops_poison(o, st, "%s", at_error_text());
}

void at_control_far_take(at_ops *far, const at_model_in *in, const at_tensor *context,
                         at_model_in *out, const at_tensor **out_context)
{
    *out = *in;
    out->x = at_control_far_bring(far, in->x);
    out->context = at_control_far_bring(far, in->context);
    out->pooled = at_control_far_bring(far, in->pooled);
    out->concat = at_control_far_bring(far, in->concat);
    out->refs = NULL; // what is about the denoiser alone
    out->n_refs = 0;
    out->control = NULL;
    out->patches = NULL;
    *out_context = context == in->context ? out->context : at_control_far_bring(far, context);
}
