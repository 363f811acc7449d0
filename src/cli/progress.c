// SPDX-License-Identifier: Apache-2.0
// progress.c - bar, plain lines or JSON lines from a job's events.
#include "cli/progress.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"

static at_progress
    *active; // for the signal handler: set once before a job, a lock-free store in it

static void on_signal(int number)
{
    (void)number;
    if (active) atomic_store(&active->cancel, true);
    signal(SIGINT, SIG_DFL); // a second Ctrl-C ends the process at once
}

static void clock_text(double seconds, char out[16])
{
    int s = (int)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, 16, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 16, "%d:%02d", s / 60, s % 60);
}

// "KSampler  [#####-----]  10/20  3.21 it/s  0:03 left"
static void draw_bar(at_progress *p, double value, double max)
{
    double now = at_now();
    if (value <= 1.0 || p->step_start == 0.0) {
        if (value <= 1.0) p->step_start = now, p->first_value = value;
    }
    if (now - p->last_drawn < 0.05 && value < max) return;
    p->last_drawn = now;
    double done = value - p->first_value, spent = now - p->step_start;
    double rate = done > 0 && spent > 0 ? done / spent : 0;
    char left[16] = "-:--", bar[33];
    if (rate > 0) clock_text((max - value) / rate, left);
    int full = max > 0 ? (int)(32 * value / max) : 0;
    for (int i = 0; i < 32; i++)
        bar[i] = i < full ? '#' : '-';
    bar[32] = 0;
    fprintf(stderr, "\r\033[K%-24.24s [%s] %g/%g", p->class_type, bar, value, max);
    if (rate >= 1)
        fprintf(stderr, "  %.2f it/s  %s left", rate, left);
    else if (rate > 0)
        fprintf(stderr, "  %.2f s/it  %s left", 1 / rate, left);
    fflush(stderr);
    p->bar_open = true;
    if (value >= max) at_progress_end(p);
}

void at_progress_end(at_progress *p)
{
    if (p->bar_open) fputc('\n', stderr);
    p->bar_open = false;
}

static const char *const event_names[] = {
    [AT_EV_START] = "execution_start",     [AT_EV_CACHED] = "execution_cached",
    [AT_EV_EXECUTING] = "executing",       [AT_EV_PROGRESS] = "progress",
    [AT_EV_PREVIEW] = "preview",           [AT_EV_EXECUTED] = "executed",
    [AT_EV_ERROR] = "execution_error",     [AT_EV_INTERRUPTED] = "execution_interrupted",
    [AT_EV_SUCCESS] = "execution_success", [AT_EV_NOTE] = "note",
    [AT_EV_APPROXIMATE] = "approximate",
};

static void put(json_t *o, const char *key, json_t *value)
{
    json_object_set_new(o, key, value);
}

// One ComfyUI-like message a line: {"type": ..., "data": {...}}.
static void json_line(const at_event *e)
{
    if (e->kind == AT_EV_PREVIEW || e->kind == AT_EV_FINISHED) return;
    json_t *data = json_object();
    if (e->job) put(data, "prompt_id", json_string(e->job));
    if (e->node) put(data, "node", json_string(e->node));
    if (e->class_type) put(data, "class_type", json_string(e->class_type));
    if (e->kind == AT_EV_PROGRESS) {
        put(data, "value", json_real(e->value));
        put(data, "max", json_real(e->max));
    }
    if (e->text) {
        json_t *parsed = NULL; // a note is plain text
        if (e->kind != AT_EV_NOTE && e->kind != AT_EV_APPROXIMATE)
            (void)at_json_load("event", e->text, strlen(e->text), &parsed);
        const char *key = e->kind == AT_EV_EXECUTED ? "output"
                          : e->kind == AT_EV_CACHED ? "nodes"
                          : e->kind == AT_EV_ERROR  ? "error"
                                                    : "text";
        put(data, key, parsed ? parsed : json_string(e->text));
    }
    json_t *line = json_pack("{s:s, s:o}", "type", event_names[e->kind], "data", data);
    char *text = line ? at_json_dump(line, AT_JSON_COMPACT) : NULL;
    if (text) {
        puts(text);
        fflush(stdout);
    }
    at_free(text);
    json_decref(line);
}

static void plain_line(at_progress *p, const at_event *e)
{
    switch (e->kind) {
    case AT_EV_EXECUTING:
        if (p->mode == AT_PROGRESS_PLAIN && e->node)
            fprintf(stderr, "node %s %s\n", e->node, e->class_type ? e->class_type : "");
        break;
    case AT_EV_PROGRESS:
        if (p->mode == AT_PROGRESS_BAR)
            draw_bar(p, e->value, e->max);
        else
            fprintf(stderr, "  step %g of %g\n", e->value, e->max);
        break;
    case AT_EV_NOTE:
    case AT_EV_APPROXIMATE:
        at_progress_end(p);
        fprintf(stderr, "%s: %s\n", e->kind == AT_EV_NOTE ? "note" : "approximate", e->text);
        break;
    default: break;
    }
}

static void emit(void *ctx, const at_event *e)
{
    at_progress *p = ctx;
    if (e->kind == AT_EV_EXECUTING) {
        at_progress_end(p);
        snprintf(p->class_type, sizeof p->class_type, "%s", e->class_type ? e->class_type : "");
        p->step_start = 0;
    }
    if (p->mode == AT_PROGRESS_JSON)
        json_line(e);
    else if (p->mode != AT_PROGRESS_NONE)
        plain_line(p, e);
}

at_sink at_progress_sink(at_progress *p, const char *mode)
{
    *p = (at_progress){.mode = AT_PROGRESS_PLAIN};
    atomic_init(&p->cancel, false);
    if (strcmp(mode, "auto") == 0) p->mode = isatty(2) ? AT_PROGRESS_BAR : AT_PROGRESS_PLAIN;
    if (strcmp(mode, "json") == 0) p->mode = AT_PROGRESS_JSON;
    if (strcmp(mode, "none") == 0) p->mode = AT_PROGRESS_NONE;
    active = p;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    return (at_sink){.emit = emit, .ctx = p, .cancel = &p->cancel};
}
