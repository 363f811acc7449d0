// SPDX-License-Identifier: Apache-2.0
// cmd_run.c - atelier run: a workflow becomes files; their paths go to standard output, one a line.
#include <errno.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/process_args.h"
#include "cli/progress.h"
#include "cli/run_remote.h"
#include "cli/workflow_check.h"
#include "cli/workflow_file.h"
#include "engine/engine.h"
#include "engine/plan_memory.h"
#include "engine/trace_file.h"
#include "engine/trace_merge.h"
#include "json/json.h"
#include "tensor/device_trace.h"

typedef struct run_options {
    at_common_options common;
    at_arg_list sets, targets;
    const char *progress, *trace, *trace_level, *server;
    at_process_options process;
} run_options;

static const at_arg run_args[] = {
    {"--set", "NODE.INPUT=VALUE", AT_ARG_LIST, offsetof(run_options, sets),
     .help = "change an input; NODE is an id, or a title or class that occurs once"},
    {"--target", "NODE", AT_ARG_LIST, offsetof(run_options, targets),
     .help = "run only this output node; may be repeated"},
    {"--server", "URL", AT_ARG_TEXT, offsetof(run_options, server),
     .help = "let this server run it (atelier's or ComfyUI's) and print where its files are"},
    {"--progress", "MODE", AT_ARG_CHOICE, offsetof(run_options, progress),
     .choices = "auto|plain|json|none",
     .help = "a bar on a terminal, lines, JSON lines, or nothing"},
    AT_TRACE_ARGS(run_options),
    AT_PROCESS_ARGS(run_options, process),
    AT_COMMON_ARGS(run_options, common),
};

static void run_defaults(void *options)
{
    ((run_options *)options)->progress = "auto";
    ((run_options *)options)->trace_level = "ops";
}

// Our own JSON, with numbers that jansson's reader does not know; NULL if there is none.
static json_t *read_json(const char *text)
{
    json_t *v = NULL;

    return text && at_json_load("engine", text, strlen(text), &v) == AT_OK ? v : NULL;
}

static void print_node_errors(const char *text)
{
    json_t *all = read_json(text);
    at_print_node_errors(all);
    json_decref(all);
}

// The fault as a whole, if no node explains it.
static void print_invalid(const at_job_result *r)
{
    json_t *error = read_json(r->error);
    const char *details = json_string_value(json_object_get(error, "details"));
    if (details && *details && !(r->node_errors && strcmp(r->node_errors, "{}") != 0))
        fprintf(stderr, "  %s\n", details);
    json_decref(error);
    print_node_errors(r->node_errors);
}

// The files of every output node, with the folder that their `type` stands for.
static void print_files(at_engine *e, const char *outputs)
{
    json_t *all = read_json(outputs), *ui, *list, *file;
    const char *id, *key;
    size_t i;
    json_object_foreach(all, id, ui) json_object_foreach(ui, key, list)
        json_array_foreach(list, i, file)
    {
        const char *name = json_string_value(json_object_get(file, "filename"));
        const char *sub = json_string_value(json_object_get(file, "subfolder"));
        const char *type = json_string_value(json_object_get(file, "type"));
        if (!name || !type) continue;
        const char *dir =
            strcmp(type, "temp") == 0 ? at_engine_env(e)->temp_dir : at_engine_env(e)->output_dir;
        printf("%s/%s%s%s\n", dir, sub ? sub : "", sub && *sub ? "/" : "", name);
    }
    json_decref(all);
}

// The trace is written whatever became of the job, whose failure comes first. people: they get the table.
static at_status finish_trace(at_engine *engine, const char *path, bool people, at_status job)
{
    char text[1024];
    at_comm *world = at_engine_env(engine)->ranks.world;
    at_trace_rank_row rows[AT_TRACE_RANKS];
    int n = 0;

    snprintf(text, sizeof text, "%s", job == AT_OK ? "" : at_error_text());
    at_status st = at_device_trace_stop();
    if (st == AT_OK && job == AT_OK)
        st = at_trace_write_world(world, path, rows, &n);
    else if (st == AT_OK) // the others may not have come this far
        st = at_trace_write_alone(at_trace_rank(), path);
    if (people) at_trace_print_ranks(stderr, rows, n);
    return job == AT_OK ? st : at_fail(job, "%s", text);
}

// The faults of a workflow that was refused, under the name that it was read by.
static void report_invalid(const char *label, const at_job_result *result)
{
    const char *fault = at_error_text();
    if (at_starts_with(fault, label))
        fprintf(stderr, "atelier run: %s\n", fault);
    else
        fprintf(stderr, "atelier run: %s: %s\n", label, fault);
    print_invalid(result);
    at_error_clear();
}

// began: when the engine began to open.
static at_status run_here(const run_options *o, at_engine *engine, double began,
                          const at_progress *progress, const at_job *job, at_job_result *result)
{
    const at_device *device = at_engine_env(engine)->device;
    bool people = progress->mode == AT_PROGRESS_BAR || progress->mode == AT_PROGRESS_PLAIN;
    if (people) fprintf(stderr, "%s: %s\n", device->name, device->description);
    if (o->trace) at_device_trace_start(at_trace_level_of(o->trace_level));
    if (o->trace) at_trace_end(began, "load", "open the engine");
    at_status st = at_engine_run(engine, job, result);
    return o->trace ? finish_trace(engine, o->trace, people, st) : st;
}

// --- several processes -----------------------------------------------------------------------------
// What all of them must have been asked.
static void describe(const run_options *o, const char *text, size_t bytes, at_str *out)
{
    const at_device_options *d = &o->common.device;

    at_str_append_n(out, text, bytes);
    for (size_t i = 0; i < o->sets.count; i++)
        at_str_printf(out, "|%s", o->sets.items[i]);
    for (size_t i = 0; i < o->targets.count; i++)
        at_str_printf(out, "|%s", o->targets.items[i]);
    at_str_printf(out, "|%s|%s|%s%s", d->parallel ? d->parallel : "auto",
                  d->shares ? d->shares : "", o->common.dtype ? o->common.dtype : "auto",
                  o->trace ? "|trace" : "");
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at)
{
    (void)s;
    (void)kind;
    (void)at;
    return remove(path);
}

// What one run opens beside the engine.
typedef struct run_place {
    at_processes who;
    at_process_group *others;
    at_str job;
    char device[32], folder[64]; // folder: where a rank that is not the first writes, until the end
} run_place;

static at_status open_engine(const run_options *o, const char *text, size_t bytes, run_place *p,
                             at_engine **out)
{
    at_status st = AT_OK;
    at_engine_config c;

    describe(o, text, bytes, &p->job);
    AT_TRY(at_common_config(&o->common, &c));
    AT_TRY(at_processes_begin(&o->process, at_str_text(&p->job), &p->who, &p->others));
    st = at_processes_device(&o->process, &p->who, &c.device, &c.devices, p->device);
    if (st == AT_OK && p->who.rank) {
        const char *tmp = getenv("TMPDIR");

        snprintf(p->folder, sizeof p->folder, "%.40s/atelier_rank_XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(p->folder)) {
            st = at_fail(AT_EIO, "%s: %s", p->folder, strerror(errno));
            p->folder[0] = 0;
        }
        c.output_dir = c.temp_dir = p->folder;
    }
    if (st != AT_OK && p->who.listener > 0) close(p->who.listener);
    AT_TRY(st);
    c.processes = p->who;
    at_trace_set_home(p->who.rank);
    at_trace_expect(o->trace != NULL);
    AT_TRY(at_engine_open(&c, out));
out:
    return st;
}

static at_status leave(run_place *p, at_status st)
{
    if (p->folder[0]) (void)nftw(p->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    at_str_free(&p->job);
    return at_process_group_end(p->others, st);
}

// ", cuda:0: 7.0 GiB in use at the highest": what `plan` tells before; "" for devices that keep no books.
enum { MEMORY_TEXT = 96 };
static const char *memory_text(at_engine *e, char text[MEMORY_TEXT])
{
    at_device *d = e ? at_engine_env(e)->device : NULL;
    char most[16];

    *text = 0;
    double bytes = d ? at_peak_measured(d) : 0;
    if (bytes <= 0) return text;
    at_human_bytes(bytes, most);
    snprintf(text, MEMORY_TEXT, ", %s: %s in use at the highest", d->name, most);
    return text;
}

static at_status run(void *options, const at_arg_list *operands)
{
    at_status st = AT_OK;
    run_options *o = options;
    at_engine *engine = NULL;
    char *text = NULL;
    size_t bytes = 0;
    at_job_result result = {0};
    at_progress progress = {0};
    run_place place = {0};
    char memory[MEMORY_TEXT];

    if (o->process.processes > 1 && strcmp(operands->items[0], "-") == 0)
        AT_TRY(at_fail(AT_EUSAGE, "--processes: all of them read the workflow, so give its file"));
    AT_TRY(at_workflow_read(operands->items[0], &text, &bytes));
    if (o->trace) AT_TRY(at_trace_check(o->trace));
    double began = at_now();
    if (!o->server) AT_TRY(open_engine(o, text, bytes, &place, &engine));
    const char *mode = place.who.rank ? "none" : o->progress; // rank 0 speaks for all
    at_sink sink = at_progress_sink(&progress, mode);
    at_job job = {.label = operands->items[0],
                  .text = text,
                  .bytes = bytes,
                  .sets = o->sets.items,
                  .set_count = o->sets.count,
                  .targets = o->targets.items,
                  .target_count = o->targets.count,
                  .sink = &sink};
    st = o->server ? at_run_remote(o->server, &job, &result)
                   : run_here(o, engine, began, &progress, &job, &result);
    at_progress_end(&progress);
    if (st == AT_EWORKFLOW) {
        report_invalid(operands->items[0], &result);
        goto out;
    }
    AT_TRY(st);
    if (result.node_errors && strcmp(result.node_errors, "{}") != 0) {
        fprintf(stderr, "some outputs were not valid and did not run:\n");
        print_node_errors(result.node_errors);
    }
    if (progress.mode != AT_PROGRESS_JSON && !place.who.rank) {
        if (o->server)
            at_print_urls(o->server, result.outputs);
        else
            print_files(engine, result.outputs);
    }
    if (progress.mode == AT_PROGRESS_BAR || progress.mode == AT_PROGRESS_PLAIN)
        fprintf(stderr, "done in %.2f s%s\n", result.seconds, memory_text(engine, memory));
out:
    at_progress_end(&progress);
    at_job_result_free(&result);
    at_engine_close(engine);
    at_free(text);
    return leave(&place, st);
}

const at_command at_command_run = {
    .name = "run",
    .operands = "WORKFLOW.json",
    .summary = "run a ComfyUI workflow and print the paths of what it saved",
    .details =
        "WORKFLOW.json is what ComfyUI's \"Save (API Format)\" or \"Save\" writes, a PNG that\n"
        "ComfyUI or atelier saved (its own workflow is run), or - for standard input.",
    .args = run_args,
    .n_args = sizeof run_args / sizeof *run_args,
    .options_size = sizeof(run_options),
    .min_operands = 1,
    .max_operands = 1,
    .defaults = run_defaults,
    .run = run,
};
