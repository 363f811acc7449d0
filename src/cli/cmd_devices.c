// SPDX-License-Identifier: Apache-2.0
// cmd_devices.c - atelier devices: what can compute here, and how much memory it has.
#include <jansson.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "engine/engine.h"
#include "engine/plugins.h"

typedef struct devices_options {
    bool json;
} devices_options;

static const at_arg devices_args[] = {
    {"--json", NULL, AT_ARG_FLAG, offsetof(devices_options, json), .help = "one JSON array"},
};

static at_status devices(void *options, const at_arg_list *operands)
{
    (void)operands;
    at_status st = AT_OK;
    bool as_json = ((devices_options *)options)->json;
    json_t *list = json_array();

    at_engine_setup_devices();
    at_plugins_load();
    for (int i = 0; i < at_device_count(); i++) {
        at_device *d = at_device_at(i);
        uint64_t free_bytes = 0, total = 0;
        char f[16], t[16];
        AT_TRY(d->ops->memory(d, &free_bytes, &total));
        at_human_bytes((double)free_bytes, f);
        at_human_bytes((double)total, t);
        if (as_json)
            json_array_append_new(list,
                                  json_pack("{s:s, s:s, s:I, s:I}", "name", d->name, "description",
                                            d->description, "free", (json_int_t)free_bytes, "total",
                                            (json_int_t)total));
        else
            printf("%-8s %s, %s free of %s\n", d->name, d->description, f, t);
    }
    if (as_json) {
        char *text = json_dumps(list, JSON_INDENT(2));
        if (!text) AT_TRY(at_fail(AT_ENOMEM, "devices: no memory"));
        puts(text);
        at_free(text);
    } else if (*at_plugins_reason()) {
        printf("no GPU: %s\n", at_plugins_reason());
    }
out:
    json_decref(list);
    return st;
}

const at_command at_command_devices = {
    .name = "devices",
    .summary = "list the devices that can compute",
    .args = devices_args,
    .n_args = sizeof devices_args / sizeof *devices_args,
    .options_size = sizeof(devices_options),
    .run = devices,
};
