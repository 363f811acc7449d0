// SPDX-License-Identifier: Apache-2.0
// cmd_devices.c - atelier devices: what can compute here, how much memory it has, what lies around it.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

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

enum { INDENT = 9, COLUMNS = 100 };

// Facts behind each other, "name value", in lines that fit.
typedef struct paragraph {
    size_t column; // 0: nothing was printed yet
} paragraph;

static void print_fact(void *ctx, const char *name, const char *value)
{
    paragraph *p = ctx;
    size_t n = strlen(name) + 1 + strlen(value);

    if (p->column && p->column + 2 + n > COLUMNS) {
        printf(",\n");
        p->column = 0;
    }
    if (!p->column) {
        p->column = INDENT;
        printf("%*s", INDENT, "");
    } else {
        p->column += 2;
        printf(", ");
    }
    printf("%s %s", name, value);
    p->column += n;
}

static void keep_fact(void *ctx, const char *name, const char *value)
{
    json_object_set_new(ctx, name, json_string(value));
}

static void print_usage(const at_device_usage *u)
{
    char used[16];

    at_human_bytes((double)u->used_bytes, used);
    printf("%*snow %.0f %% busy, %s in use by everybody, %.0f W, %.0f C\n", INDENT, "",
           100 * u->busy, used, u->watts, u->celsius);
}

static json_t *usage_json(const at_device_usage *u)
{
    return json_pack("{s:f, s:f, s:I, s:I, s:I, s:f, s:f}", "busy", u->busy, "memory_busy",
                     u->memory_busy, "used", (json_int_t)u->used_bytes, "total",
                     (json_int_t)u->total_bytes, "process", (json_int_t)u->process_bytes, "watts",
                     u->watts, "celsius", u->celsius);
}

static void print_device(at_device *d, uint64_t free_bytes, uint64_t total, bool has_usage,
                         const at_device_usage *usage)
{
    char f[16], t[16];
    paragraph p = {0};

    at_human_bytes((double)free_bytes, f);
    at_human_bytes((double)total, t);
    printf("%-8s %s, %s free of %s\n", d->name, d->description, f, t);
    if (d->ops->facts) d->ops->facts(d, print_fact, &p);
    if (p.column) putchar('\n');
    if (has_usage) print_usage(usage);
}

static json_t *device_json(at_device *d, uint64_t free_bytes, uint64_t total, bool has_usage,
                           const at_device_usage *usage)
{
    json_t *facts = json_object();

    if (d->ops->facts) d->ops->facts(d, keep_fact, facts);
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:I, s:o}", "name", d->name, "description", d->description,
                  "free", (json_int_t)free_bytes, "total", (json_int_t)total, "facts", facts);
    if (o && has_usage) json_object_set_new(o, "usage", usage_json(usage));
    return o;
}

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
        at_device_usage usage;
        AT_TRY(d->ops->memory(d, &free_bytes, &total));
        bool has_usage = d->ops->usage && d->ops->usage(d, &usage) == AT_OK;
        if (as_json)
            json_array_append_new(list, device_json(d, free_bytes, total, has_usage, &usage));
        else
            print_device(d, free_bytes, total, has_usage, &usage);
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
    if (st == AT_OK) at_error_clear(); // a device without a management library is no failure
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
