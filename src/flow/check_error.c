// SPDX-License-Identifier: Apache-2.0
// check_error.c - the shape of one validation error: type, message, details, extra_info.
#include "flow/check.h"

#include "base/mem.h"

json_t *at_error(const char *type, const char *message, char *details, json_t *extra)
{
    json_t *e = NULL;

    if (details && extra && message) e = json_object();
    if (!e) {
        json_decref(extra);
    } else if (json_object_set_new_nocheck(e, "type", json_string_nocheck(type)) ||
               json_object_set_new_nocheck(e, "message", json_string_nocheck(message)) ||
               json_object_set_new_nocheck(e, "details", json_string_nocheck(details))) {
        json_decref(extra);
        json_decref(e);
        e = NULL;
    } else if (json_object_set_new_nocheck(e, "extra_info", extra)) {
        json_decref(e);
        e = NULL;
    }
    at_free(details);
    if (!e) at_fail(AT_ENOMEM, "no memory for a validation error");
    return e;
}

json_t *at_extra(const char *input)
{
    json_t *extra = json_object();

    if (input && !at_extra_put(extra, "input_name", json_string_nocheck(input))) {
        json_decref(extra);
        extra = NULL;
    }
    return extra;
}

bool at_extra_put(json_t *extra, const char *key, json_t *value)
{
    return json_object_set_new_nocheck(extra, key, value) == 0;
}

at_status at_check_no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory to check the workflow");
}

at_status at_check_append(json_t *array, json_t *item)
{
    if (!item || json_array_append_new(array, item)) return at_check_no_memory();
    return AT_OK;
}
