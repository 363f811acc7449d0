// SPDX-License-Identifier: Apache-2.0
// extra.c - what rides along with a workflow.
// Source: comfyui-contract sections 3.7 and 3.8: the official client posts the editor's graph as
// extra_data.extra_pnginfo.workflow, and SaveImage writes one text chunk per key of extra_pnginfo.
// Owns nothing: the result is the caller's reference.
#include "engine/extra.h"

#include <string.h>

#include "json/json.h"

bool at_previews_parse(const char *word, at_previews *out)
{
    static const struct {
        const char *word;
        at_previews previews;
    } words[] = {{"none", AT_PREVIEWS_NONE},
                 {"auto", AT_PREVIEWS_LATENT2RGB}, // as ComfyUI's
                 {"latent2rgb", AT_PREVIEWS_LATENT2RGB},
                 {"taesd", AT_PREVIEWS_TAESD}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i].word) == 0) {
            *out = words[i].previews;
            return true;
        }
    return false;
}

at_status at_extra_read(const char *label, const char *text, size_t n, json_t **out,
                        at_previews *previews)
{
    json_t *whole = NULL, *data = NULL, *extra = NULL;
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
        data = json_object_get(whole, "extra_data");
        extra = json_object_get(data, "extra_pnginfo");
        if (json_is_object(extra)) *out = json_incref(extra);
        const char *word = json_string_value(json_object_get(data, "preview_method"));
        if (word) (void)at_previews_parse(word, previews);
    }
    json_decref(whole);
    return st;
}
