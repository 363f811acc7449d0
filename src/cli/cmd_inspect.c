// SPDX-License-Identifier: Apache-2.0
// cmd_inspect.c - atelier inspect: what a model file holds, from its header alone.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "models/models.h"
#include "tensor/tensor.h"

typedef struct inspect_options {
    bool json, tensors;
} inspect_options;

static const at_arg inspect_args[] = {
    {"--tensors", NULL, AT_ARG_FLAG, offsetof(inspect_options, tensors),
     .help = "list every tensor too"},
    {"--json", NULL, AT_ARG_FLAG, offsetof(inspect_options, json), .help = "one JSON object"},
};

#define MAX_FOUND 8
#define MAX_FACTS 32

typedef struct totals {
    uint64_t count[AT_DTYPE_COUNT], elements[AT_DTYPE_COUNT], bytes[AT_DTYPE_COUNT];
    uint64_t all_elements;
} totals;

static totals count_up(at_store *s)
{
    totals t = {0};
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        uint64_t n = (uint64_t)at_weight_elements(w);
        t.count[w->dtype]++;
        t.elements[w->dtype] += n;
        t.bytes[w->dtype] += w->bytes;
        t.all_elements += n;
    }
    return t;
}

// "11.90 B", "7.3 M", "812"
static const char *human_count(double n, char out[16])
{
    if (n >= 1e9)
        snprintf(out, 16, "%.2f B", n / 1e9);
    else if (n >= 1e6)
        snprintf(out, 16, "%.2f M", n / 1e6);
    else if (n >= 1e3)
        snprintf(out, 16, "%.1f k", n / 1e3);
    else
        snprintf(out, 16, "%.0f", n);
    return out;
}

static const char *const part_names[] = {[AT_PART_DENOISER] = "denoiser",
                                         [AT_PART_TEXT] = "text encoder",
                                         [AT_PART_VAE] = "VAE",
                                         [AT_PART_CONTROL] = "ControlNet",
                                         [AT_PART_VISION] = "picture encoder",
                                         [AT_PART_STYLE] = "style model",
                                         [AT_PART_GLIGEN] = "GLIGEN",
                                         [AT_PART_UPSCALER] = "upscaler",
                                         [AT_PART_PHOTOMAKER] = "PhotoMaker"};

static at_status print_component(at_store *s, const at_found *f)
{
    at_fact facts[MAX_FACTS];
    size_t n = at_found_facts(s, f, facts, MAX_FACTS), missing_count = 0;
    char *missing = NULL;
    at_status st = at_found_missing(s, f, &missing, &missing_count);
    if (st != AT_OK) return st;
    printf("\n%s: %s (%s)%s%s\n", part_names[f->part], at_arch_title(f->arch),
           at_arch_name(f->arch), *f->prefix ? ", keys under " : "", f->prefix);
    for (size_t i = 0; i < n; i++)
        printf("  %-22s %s\n", facts[i].name, facts[i].value);
    if (!missing_count) {
        printf("  %-22s none\n", "missing tensors");
    } else {
        printf("  %-22s %zu\n", "missing tensors", missing_count);
        for (char *line = strtok(missing, "\n"); line; line = strtok(NULL, "\n"))
            printf("    %s\n", line);
    }
    at_free(missing);
    return AT_OK;
}

static at_status print_text(at_store *s, const char *path, bool tensors)
{
    at_status st = AT_OK;
    totals t = count_up(s);
    at_found found[MAX_FOUND];
    size_t n = at_detect(s, found, MAX_FOUND);
    char size[16], count[16], shape[128];

    at_human_bytes((double)at_store_file_bytes(s), size);
    printf("%s: %s, %zu tensors, %s parameters\n", path, size, at_store_count(s),
           human_count((double)t.all_elements, count));
    for (int d = 0; d < AT_DTYPE_COUNT; d++) {
        if (!t.count[d]) continue;
        at_human_bytes((double)t.bytes[d], size);
        printf("  %-10s %6llu tensors  %10s parameters  %s\n", at_dtype_name((at_dtype)d),
               (unsigned long long)t.count[d], human_count((double)t.elements[d], count), size);
    }
    for (size_t i = 0; i < n && st == AT_OK; i++)
        st = print_component(s, &found[i]);
    if (!n) printf("\nno architecture that this version knows; `--tensors` lists the keys\n");
    for (size_t i = 0; tensors && i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        printf("%s%s  %s\n", i ? "" : "\n", w->name,
               at_shape_text(w->dtype, w->rank, w->shape, shape));
    }
    return st;
}

static json_t *component_json(at_store *s, const at_found *f)
{
    at_fact facts[MAX_FACTS];
    size_t n = at_found_facts(s, f, facts, MAX_FACTS), missing_count = 0;
    char *missing = NULL;
    json_t *rows = json_object(), *gone = json_array();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(rows, facts[i].name, json_string(facts[i].value));
    if (at_found_missing(s, f, &missing, &missing_count) == AT_OK)
        for (char *line = strtok(missing, "\n"); line; line = strtok(NULL, "\n"))
            json_array_append_new(gone, json_string(line));
    at_free(missing);
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "part", part_names[f->part], "architecture",
                     at_arch_name(f->arch), "title", at_arch_title(f->arch), "prefix", f->prefix,
                     "config", rows, "missing", gone);
}

static at_status print_json(at_store *s, const char *path, bool tensors)
{
    totals t = count_up(s);
    at_found found[MAX_FOUND];
    size_t n = at_detect(s, found, MAX_FOUND);
    json_t *dtypes = json_object(), *parts = json_array(), *list = json_array();
    for (int d = 0; d < AT_DTYPE_COUNT; d++)
        if (t.count[d])
            json_object_set_new(dtypes, at_dtype_name((at_dtype)d),
                                json_integer((json_int_t)t.elements[d]));
    for (size_t i = 0; i < n; i++)
        json_array_append_new(parts, component_json(s, &found[i]));
    for (size_t i = 0; tensors && i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        json_t *shape = json_array();
        for (int d = 0; d < w->rank; d++)
            json_array_append_new(shape, json_integer(w->shape[d]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", w->name, "dtype",
                                              at_dtype_name(w->dtype), "shape", shape));
    }
    json_t *all =
        json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "file", path, "bytes",
                  (json_int_t)at_store_file_bytes(s), "tensors", (json_int_t)at_store_count(s),
                  "parameters", (json_int_t)t.all_elements, "dtypes", dtypes, "components", parts);
    if (tensors) json_object_set(all, "list", list);
    json_decref(list);
    char *text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
    json_decref(all);
    if (!text) return at_fail(AT_ENOMEM, "inspect: no memory");
    puts(text);
    at_free(text);
    return AT_OK;
}

static at_status inspect(void *options, const at_arg_list *operands)
{
    const inspect_options *o = options;
    at_store *s = NULL;
    const char *path = operands->items[0];
    at_status st = at_store_open(path, &s);
    if (st == AT_OK)
        st = o->json ? print_json(s, path, o->tensors) : print_text(s, path, o->tensors);
    at_store_release(&s);
    return st;
}

const at_command at_command_inspect = {
    .name = "inspect",
    .operands = "FILE",
    .summary = "tell what a model file holds: architecture, sizes, formats, what is missing",
    .args = inspect_args,
    .n_args = sizeof inspect_args / sizeof *inspect_args,
    .options_size = sizeof(inspect_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = inspect,
};
