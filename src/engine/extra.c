// SPDX-License-Identifier: Apache-2.0
// extra.c - what rides along with a workflow.
// Source: comfyui-contract sections 3.7 and 3.8: the official client posts the editor's graph as
// extra_data.extra_pnginfo.workflow, and SaveImage writes one text chunk per key of extra_pnginfo.
// Owns nothing: the result is the caller's reference.
#include "engine/extra.h"

#include "json/json.h"

at_status at_extra_pnginfo(const char *label, const char *text, size_t n, json_t **out)
{
    json_t *whole = NULL, *extra = NULL;
    at_status st = at_json_load(label, text, n, &whole);

    *out = NULL;
    if (st != AT_OK) return st;
    if (json_is_array(json_object_get(whole, "nodes"))) { // no prompt has a node that is a list
        *out = json_object();
        if (!*out || json_object_set(*out, "workflow", whole) != 0) {
            json_decref(*out);
            *out = NULL;
            st = at_fail(AT_ENOMEM, "%s: no memory for the workflow in the picture", label);
        }
    } else {
        extra = json_object_get(json_object_get(whole, "extra_data"), "extra_pnginfo");
        if (json_is_object(extra)) *out = json_incref(extra);
    }
    json_decref(whole);
    return st;
}
