// SPDX-License-Identifier: Apache-2.0
// run_remote.c - from a workflow's text to a submission; see run_remote.h.
#include "cli/run_remote.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/extra.h"
#include "flow/flow.h"
#include "json/json.h"
#include "nodes/nodes.h"
#include "serve/client.h"

// The body of POST /prompt. The registry is only for the editor's format and --set: the server decides what is valid.
static at_status make_submission(const at_job *job, json_t **out)
{
    at_status st = AT_OK;
    at_registry *r = NULL;
    at_graph *g = NULL;
    json_t *extra = NULL, *targets = NULL;

    AT_TRY(at_registry_new(&r));
    AT_TRY(at_nodes_register(r));
    AT_TRY(at_graph_parse(job->label, job->text, job->bytes, r, &g));
    for (size_t i = 0; i < job->set_count; i++)
        AT_TRY(at_graph_set(g, job->sets[i]));
    at_previews unread = AT_PREVIEWS_NONE;
    AT_TRY(at_extra_read(job->label, job->text, job->bytes, &extra, &unread));
    *out = json_pack("{s:O}", "prompt", at_graph_json(g));
    if (extra && *out)
        json_object_set_new(*out, "extra_data", json_pack("{s:O}", "extra_pnginfo", extra));
    if (job->target_count) {
        targets = json_array();
        for (size_t i = 0; i < job->target_count; i++)
            json_array_append_new(targets, json_string(job->targets[i]));
        json_object_set(*out, "partial_execution_targets", targets);
    }
    if (!*out) st = at_fail(AT_ENOMEM, "%s: no memory", job->label);
out:
    json_decref(targets);
    json_decref(extra);
    at_graph_free(g);
    at_registry_free(r);
    return st;
}

at_status at_run_remote(const char *url, const at_job *job, at_job_result *out)
{
    at_status st = AT_OK;
    json_t *submission = NULL;

    *out = (at_job_result){0};
    AT_TRY(make_submission(job, &submission));
    AT_TRY(at_client_run(url, submission, job->sink, out));
out:
    json_decref(submission);
    return st;
}

static void append_encoded(at_str *s, const char *text)
{
    for (; *text; text++) {
        unsigned char b = (unsigned char)*text;
        bool plain =
            (b >= '0' && b <= '9') || ((b | 32) >= 'a' && (b | 32) <= 'z') || strchr("-_.~", b);
        if (plain)
            at_str_append_n(s, text, 1);
        else
            at_str_printf(s, "%%%02X", b);
    }
}

void at_print_urls(const char *url, const char *outputs)
{
    json_t *all = NULL, *ui, *list, *file;
    const char *id, *key;
    size_t i, n = strlen(url);
    if (!outputs || at_json_load("outputs", outputs, strlen(outputs), &all) != AT_OK) return;
    while (n && url[n - 1] == '/')
        n--;
    json_object_foreach(all, id, ui) json_object_foreach(ui, key, list)
        json_array_foreach(list, i, file)
    {
        const char *name = json_string_value(json_object_get(file, "filename"));
        const char *sub = json_string_value(json_object_get(file, "subfolder"));
        const char *type = json_string_value(json_object_get(file, "type"));
        at_str line = {0};
        if (!name || !type) continue;
        at_str_printf(&line, "%.*s/view?filename=", (int)n, url);
        append_encoded(&line, name);
        at_str_append(&line, "&subfolder=");
        append_encoded(&line, sub ? sub : "");
        at_str_printf(&line, "&type=%s", type);
        puts(at_str_text(&line));
        at_str_free(&line);
    }
    json_decref(all);
}
