// SPDX-License-Identifier: Apache-2.0
// workflow_file.c - a workflow's text from wherever it lies.
#include "cli/workflow_file.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"
#include "image/image.h"

#define MAX_WORKFLOW ((size_t)100 << 20)

static at_status read_stdin(char **text, size_t *bytes)
{
    at_str s = {0};
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0 && s.len <= MAX_WORKFLOW)
        at_str_append_n(&s, block, n);
    *bytes = s.len;
    *text = at_str_take(&s);
    if (!*text) return at_fail(AT_ENOMEM, "standard input: no memory");
    return AT_OK;
}

static const char *chunk(const at_picture *p, const char *key)
{
    for (size_t i = 0; i < p->text_count; i++)
        if (strcmp(p->text[i].key, key) == 0) return p->text[i].value;
    return NULL;
}

static bool is_object(const char *text)
{
    json_t *v = NULL;
    bool yes = at_json_load("chunk", text, strlen(text), &v) == AT_OK && json_is_object(v);
    json_decref(v);
    return yes;
}

// The `prompt` chunk is the API form that was run; `workflow` is the editor's graph: taken in the absence of
// the other, else it rides along as a client would send it.
static at_status read_png(const char *path, char **text, size_t *bytes)
{
    at_picture p = {0};
    at_str s = {0};
    at_status st = at_png_load(path, &p);
    if (st != AT_OK) return st;
    const char *prompt = chunk(&p, "prompt"), *workflow = chunk(&p, "workflow");
    if (!prompt && !workflow) {
        st = at_fail(AT_EFORMAT,
                     "%s: this picture carries no workflow (no `prompt` or `workflow` text)", path);
    } else {
        if (prompt && workflow && is_object(prompt) && is_object(workflow))
            at_str_printf(
                &s, "{\"prompt\": %s, \"extra_data\": {\"extra_pnginfo\": {\"workflow\": %s}}}",
                prompt, workflow);
        else
            at_str_append(&s, prompt ? prompt : workflow);
        *bytes = s.len;
        *text = at_str_take(&s);
        if (!*text) st = at_fail(AT_ENOMEM, "%s: no memory", path);
    }
    at_picture_free(&p);
    return st;
}

at_status at_workflow_read(const char *path, char **text, size_t *bytes)
{
    if (strcmp(path, "-") == 0) return read_stdin(text, bytes);
    if (at_equal_nocase(at_path_ext(path), ".png")) return read_png(path, text, bytes);
    return at_file_read(path, MAX_WORKFLOW, text, bytes);
}
