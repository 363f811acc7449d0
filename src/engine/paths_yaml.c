// SPDX-License-Identifier: Apache-2.0
// paths_yaml.c - ComfyUI's extra_model_paths.yaml: sections of base_path, is_default and folder lists.
// Easy to get wrong: base_path is relative to the yaml file, may begin with ~ or hold $VARS; a folder entry
// may list several paths, one a line.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/paths.h"

#define MAX_YAML (1u << 20)

// "~" and "$NAME" filled in; the caller frees.
static char *expand(const char *s)
{
    at_str out = {0};
    if (s[0] == '~' && (s[1] == '/' || !s[1]) && getenv("HOME")) {
        at_str_append(&out, getenv("HOME"));
        s++;
    }
    while (*s) {
        if (*s != '$') {
            at_str_append_n(&out, s++, 1);
            continue;
        }
        char name[64];
        size_t n = 0;
        const char *p = s + 1;
        bool brace = *p == '{';
        if (brace) p++;
        while ((isalnum((unsigned char)*p) || *p == '_') && n + 1 < sizeof name)
            name[n++] = *p++;
        name[n] = 0;
        if (brace && *p == '}') p++;
        const char *value = n ? getenv(name) : NULL;
        if (value)
            at_str_append(&out, value);
        else
            at_str_append_n(&out, s, (size_t)(p - s));
        s = p;
    }
    return at_str_take(&out);
}

static const char *scalar(yaml_document_t *d, int item)
{
    yaml_node_t *n = yaml_document_get_node(d, item);
    return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

// One line of a folder entry: absolute, or below `base`.
static at_status add_line(at_paths *p, const char *kind, const char *base, const char *line,
                          size_t n, bool front)
{
    while (n && isspace((unsigned char)*line))
        line++, n--;
    while (n && isspace((unsigned char)line[n - 1]))
        n--;
    if (!n) return AT_OK;
    char *raw = at_strndup(line, n);
    char *path = raw ? expand(raw) : NULL;
    char *full = !path ? NULL : path[0] == '/' ? at_strdup(path) : at_path_join(base, path);
    size_t len = full ? strlen(full) : 0;
    while (len > 1 && full[len - 1] == '/')
        full[--len] = 0;
    at_status st =
        full ? at_paths_add(p, kind, full, front) : at_fail(AT_ENOMEM, "model folders: no memory");
    at_free(raw);
    at_free(path);
    at_free(full);
    return st;
}

static at_status add_lines(at_paths *p, const char *kind, const char *base, const char *value,
                           bool front)
{
    at_status st = AT_OK;
    while (*value && st == AT_OK) {
        const char *end = strchr(value, '\n');
        size_t n = end ? (size_t)(end - value) : strlen(value);
        st = add_line(p, kind, base, value, n, front);
        value += end ? n + 1 : n;
    }
    return st;
}

static at_status add_section(at_paths *p, yaml_document_t *d, yaml_node_t *map,
                             const char *yaml_dir)
{
    at_status st = AT_OK;
    char *base = at_strdup(yaml_dir);
    bool front = false;

    for (yaml_node_pair_t *kv = map->data.mapping.pairs.start; kv < map->data.mapping.pairs.top;
         kv++) {
        const char *key = scalar(d, kv->key), *value = scalar(d, kv->value);
        if (!key || !value) continue;
        if (strcmp(key, "is_default") == 0)
            front = strcmp(value, "true") == 0 || strcmp(value, "True") == 0;
        if (strcmp(key, "base_path") != 0) continue;
        char *path = expand(value);
        at_free(base);
        base = !path ? NULL : path[0] == '/' ? at_strdup(path) : at_path_join(yaml_dir, path);
        at_free(path);
    }
    if (!base) AT_TRY(at_fail(AT_ENOMEM, "model folders: no memory"));
    for (yaml_node_pair_t *kv = map->data.mapping.pairs.start; kv < map->data.mapping.pairs.top;
         kv++) {
        const char *key = scalar(d, kv->key), *value = scalar(d, kv->value);
        if (!key || !value || strcmp(key, "is_default") == 0 || strcmp(key, "base_path") == 0)
            continue;
        AT_TRY(add_lines(p, key, base, value, front));
    }
out:
    at_free(base);
    return st;
}

at_status at_paths_add_yaml(at_paths *p, const char *yaml_path)
{
    at_status st = AT_OK;
    char *text = NULL, *dir = at_path_dir(yaml_path);
    size_t n = 0;
    yaml_parser_t parser;
    yaml_document_t doc;
    bool have_parser = false, have_doc = false;

    if (!dir) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", yaml_path));
    AT_TRY(at_file_read(yaml_path, MAX_YAML, &text, &n));
    have_parser = yaml_parser_initialize(&parser);
    if (!have_parser) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", yaml_path));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    have_doc = yaml_parser_load(&parser, &doc);
    if (!have_doc)
        AT_TRY(at_fail(AT_EFORMAT, "%s: line %zu: %s", yaml_path, parser.problem_mark.line + 1,
                       parser.problem ? parser.problem : "not valid YAML"));
    yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root && root->type != YAML_MAPPING_NODE)
        AT_TRY(at_fail(AT_EFORMAT, "%s: the top level must be names with folders below them",
                       yaml_path));
    if (root)
        for (yaml_node_pair_t *kv = root->data.mapping.pairs.start;
             kv < root->data.mapping.pairs.top; kv++) {
            yaml_node_t *section = yaml_document_get_node(&doc, kv->value);
            if (section && section->type == YAML_MAPPING_NODE)
                AT_TRY(add_section(p, &doc, section, dir));
        }
out:
    if (have_doc) yaml_document_delete(&doc);
    if (have_parser) yaml_parser_delete(&parser);
    at_free(text);
    at_free(dir);
    return st;
}
