// SPDX-License-Identifier: Apache-2.0
// verify_upscaler.c - upscalers as a component of a case: `image` [b, h, w, c] in, `out` larger.
// options.tile and options.overlap cut it (512 and 32).
// Owns nothing beyond a call.
#include "base/file.h"
#include "engine/verify_case.h"
#include "models/upscaler.h"

at_status at_case_upscaler(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_upscaler *u = NULL;
    at_tensor *image = NULL, *host = NULL;
    at_upscale_how how = {.tile = (int)at_case_number(c, "tile", 512),
                          .overlap = (int)at_case_number(c, "overlap", 32)};

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(at_store_open(c->model, &s));
    AT_TRY(at_upscaler_load(s, c->model, &u));
    AT_TRY(at_case_input(c, "image", false, &image));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, image->rank, image->shape, &host));
    AT_TRY(at_tensor_to_host(image, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    double start = at_now();
    at_tensor *out = at_upscale(c->ops, u, host, &how);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "out", out));
out:
    at_tensor_release(&host);
    at_upscaler_release(&u);
    at_store_release(&s);
    return st;
}
