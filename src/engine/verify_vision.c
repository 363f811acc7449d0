// SPDX-License-Identifier: Apache-2.0
// verify_vision.c - picture encoders and style models as components of a case.
// A "clip_vision" looks at `image` [b, h, w, 3] (options.crop "center" or "none") and gives
// `pixels`, `last`, `penultimate` and `embeds`; a "style_model" makes `tokens` of `seen`; a
// "photomaker" puts `image` into token options.place of `text` and gives `token`, and `all`
// tokens.
// Owns nothing beyond a call.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "models/photomaker.h"
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

at_status at_case_photomaker(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_photomaker *p = NULL;
    at_tensor *image = NULL, *host = NULL, *text = NULL;
    int64_t place = (int64_t)at_case_number(c, "place", 0);

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(at_store_open(c->model, &s));
    AT_TRY(at_photomaker_load(s, c->model, &p));
    AT_TRY(at_case_input(c, "text", false, &text));
    AT_TRY(at_case_input(c, "image", false, &image));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, image->rank, image->shape, &host));
    AT_TRY(at_tensor_to_host(image, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    double start = at_now();
    at_tensor *pixels = at_look_pixels(c->ops, at_photomaker_eyes(p), host, true);
    at_tensor *all = at_photomaker_fuse(c->ops, p, text, place, pixels);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    at_tensor *token = at_contiguous(c->ops, at_narrow(c->ops, all, 1, place, 1));
    AT_TRY(at_case_output_tensor(c, "token", token));
    AT_TRY(at_case_output_tensor(c, "all", all));
out:
    at_tensor_release(&host);
    at_photomaker_free(p);
    at_store_release(&s);
    return st;
}
