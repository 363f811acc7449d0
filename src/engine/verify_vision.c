// SPDX-License-Identifier: Apache-2.0
// verify_vision.c - picture encoders and style models as components of a case.
// A "clip_vision" looks at `image` [b, h, w, 3] (options.crop "center" or "none") and gives
// `pixels`, `last`, `penultimate` and `embeds`; a "style_model" makes `tokens` of `seen`.
// Owns nothing beyond a call.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "nodes/look.h"

static at_status open_vision(const at_case *c, at_part part, at_vision **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(at_store_open(c->model, &s));
    AT_TRY(at_vision_load(s, part, c->model, out));
out:
    at_store_release(&s);
    return st;
}

at_status at_case_clip_vision(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_vision *v = NULL;
    at_tensor *image = NULL, *host = NULL;

    AT_TRY(open_vision(c, AT_PART_VISION, &v));
    AT_TRY(at_case_input(c, "image", false, &image));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, image->rank, image->shape, &host));
    AT_TRY(at_tensor_to_host(image, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    double start = at_now();
    bool crop = strcmp(at_case_text(c, "crop", "center"), "center") == 0;
    at_tensor *pixels = at_look_pixels(c->ops, v, host, crop);
    at_seen seen = at_vision_look(c->ops, v, pixels);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "pixels", pixels));
    AT_TRY(at_case_output_tensor(c, "last", seen.last));
    AT_TRY(at_case_output_tensor(c, "penultimate", seen.penultimate));
    AT_TRY(at_case_output_tensor(c, "embeds", seen.embeds));
out:
    at_tensor_release(&host);
    at_vision_release(&v);
    return st;
}

at_status at_case_style_model(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_vision *v = NULL;
    at_tensor *seen = NULL;

    AT_TRY(open_vision(c, AT_PART_STYLE, &v));
    AT_TRY(at_case_input(c, "seen", false, &seen));
    double start = at_now();
    at_tensor *tokens = at_style_tokens(c->ops, v, seen);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "tokens", tokens));
out:
    at_vision_release(&v);
    return st;
}
