// SPDX-License-Identifier: Apache-2.0
// editor.c - the editor's workflow format, told from the API's.
#include "flow/graph.h"

bool at_editor_is(const json_t *v)
{
    return json_is_array(json_object_get(v, "nodes"));
}

at_status at_editor_convert(const char *label, const json_t *ui, const at_registry *r, json_t **out)
{
    (void)ui;
    (void)r;
    *out = NULL;
    return at_fail(AT_EUNSUPPORTED, "%s: the editor's format is not read yet; export as API",
                   label);
}
