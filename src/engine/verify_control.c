// SPDX-License-Identifier: Apache-2.0
// verify_control.c - ControlNets as components of a case: every residual by the name of its place
// ("input.2", "skip.0", "middle", "doubles.5", "singles.5"), as the denoiser gets it; and "gligen",
// a UNet (options.base) with texts (input `text`, one row each) in boxes (options.boxes, [h, w, y,
// x]).
// Easy to get wrong: UNet residuals are [b, h, w, c], so expected tensors are, too.
// Owns nothing beyond a call.
#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "models/control_net.h"
#include "models/gligen.h"

// The model that options.NAME names, or NULL.
static at_status open_base(const at_case *c, const char *option, at_model **out)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_store *s = NULL;

    AT_TRY(at_case_path(c, c->options, option, &path));
    if (!path) goto out;
    AT_TRY(at_store_open(path, &s));
    AT_TRY(at_model_load(s, path, out));
out:
    at_store_release(&s);
    at_free(path);
    return st;
}

// The case's net, over options.base (a control-LoRA) or added to options.add_to (a difference).
static at_status open_net(const at_case *c, at_control_net **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_model *base = NULL, *add_to = NULL;
    at_control_net *loaded = NULL;

    if (!c->model) AT_TRY(at_fail(AT_EFORMAT, "%s: case.json names no \"model\"", c->dir));
    AT_TRY(open_base(c, "base", &base));
    AT_TRY(open_base(c, "add_to", &add_to));
    AT_TRY(at_store_open(c->model, &s));
    AT_TRY(at_control_net_load(s, c->model, add_to, &loaded));
    if (at_control_net_facts(loaded)->needs_base && !base)
        AT_TRY(at_fail(AT_EFORMAT, "%s: a control-LoRA needs \"base\" in options", c->dir));
    AT_TRY(at_control_net_over(loaded, base, out));
out:
    at_control_net_release(&loaded);
    at_model_release(&add_to);
    at_model_release(&base);
    at_store_release(&s);
    return st;
}

static at_status give_list(at_case *c, const char *name, const at_tensor *const *list)
{
    at_status st = AT_OK;
    char place[32];
    for (int i = 0; i < AT_CONTROL_MAX && st == AT_OK; i++) {
        if (!list[i]) continue;
        snprintf(place, sizeof place, "%s.%d", name, i);
        st = at_case_output_tensor(c, place, list[i]);
    }
    return st;
}

at_status at_case_controlnet(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_control_net *net = NULL;
    at_tensor *x, *context, *hint, *pooled;
    float *timestep = NULL, *guidance = NULL;
    int64_t n, n_guidance;
    at_control out = {0};

    AT_TRY(open_net(c, &net));
    AT_TRY(at_case_input(c, "x", false, &x));
    AT_TRY(at_case_input(c, "context", false, &context));
    AT_TRY(at_case_input(c, "hint", false, &hint));
    AT_TRY(at_case_input(c, "y", true, &pooled));
    AT_TRY(at_case_values(c, "timestep", false, &timestep, &n));
    AT_TRY(at_case_values(c, "guidance", true, &guidance, &n_guidance));
    if (x->rank < 1 || n != x->shape[0] || (guidance && n_guidance != n))
        AT_TRY(at_fail(AT_EFORMAT, "%s: timestep and guidance need one value per batch entry",
                       c->dir));
    at_model_in mi = {
        .x = x, .timestep = timestep, .context = context, .pooled = pooled, .guidance = guidance};
    at_control_in in = {.model = &mi,
                        .context = context,
                        .hint = hint,
                        .type = (int)at_case_number(c, "type", -1),
                        .whole = true};
    double start = at_now();
    at_control_net_forward(c->ops, net, &in, &out);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    AT_TRY(give_list(c, "input", out.input));
    AT_TRY(give_list(c, "skip", out.skip));
    AT_TRY(give_list(c, "doubles", out.doubles));
    AT_TRY(give_list(c, "singles", out.singles));
    AT_TRY(at_case_output_tensor(c, "middle", out.middle));
out:
    at_free(timestep);
    at_free(guidance);
    at_control_net_release(&net);
    return st;
}

// --- GLIGEN ------------------------------------------------------------------------------------
static at_status read_boxes(at_case *c, at_gligen_box *boxes, size_t *n)
{
    at_status st = AT_OK;
    const json_t *list = json_object_get(c->options, "boxes");
    at_tensor *text;

    *n = json_array_size(list);
    AT_TRY(at_case_input(c, "text", false, &text));
    if (*n > AT_GLIGEN_OBJECTS || text->rank != 2 || text->shape[0] != (int64_t)*n)
        AT_TRY(at_fail(AT_EFORMAT, "%s: text needs one row for each of at most %d boxes", c->dir,
                       AT_GLIGEN_OBJECTS));
    for (size_t i = 0; i < *n; i++) {
        int64_t side[4];
        for (size_t k = 0; k < 4; k++)
            side[k] = json_integer_value(json_array_get(json_array_get(list, i), k));
        boxes[i] = (at_gligen_box){.text = at_narrow(c->ops, text, 0, (int64_t)i, 1),
                                   .h = side[0],
                                   .w = side[1],
                                   .y = side[2],
                                   .x = side[3]};
    }
    st = at_ops_status(c->ops);
out:
    return st;
}

at_status at_case_gligen(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_model *base = NULL;
    at_gligen *net = NULL;
    at_patches *set = NULL;
    at_gligen_box boxes[AT_GLIGEN_OBJECTS];
    at_tensor *x, *context;
    float *timestep = NULL;
    int64_t count;
    size_t n;

    AT_TRY(open_base(c, "base", &base));
    if (!base || !c->model)
        AT_TRY(at_fail(AT_EFORMAT, "%s: \"model\" and options.base are wanted", c->dir));
    AT_TRY(at_store_open(c->model, &s));
    AT_TRY(at_gligen_load(s, c->model, &net));
    AT_TRY(at_case_input(c, "x", false, &x));
    AT_TRY(at_case_input(c, "context", false, &context));
    AT_TRY(at_case_values(c, "timestep", false, &timestep, &count));
    AT_TRY(read_boxes(c, boxes, &n));
    if (x->rank != 4 || count != x->shape[0])
        AT_TRY(at_fail(AT_EFORMAT, "%s: timestep needs one value per batch entry", c->dir));
    AT_TRY(at_gligen_patch(net, boxes, n, x->shape[2], x->shape[3], NULL, &set));
    at_model_in in = {.x = x, .timestep = timestep, .context = context, .patches = set};
    double start = at_now();
    at_tensor *out = at_model_forward(c->ops, base, &in);
    AT_TRY(at_ops_status(c->ops));
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "out", out));
out:
    at_patches_release(&set);
    at_gligen_release(&net);
    at_free(timestep);
    at_model_release(&base);
    at_store_release(&s);
    return st;
}
