// SPDX-License-Identifier: Apache-2.0
// cmd_serve.c - atelier serve: ComfyUI's server under ComfyUI's own flags.
// Source: comfyui-contract 8.1.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "engine/extra.h"
#include "serve/runner.h"
#include "serve/serve.h"

typedef struct serve_options {
    at_common_options common;
    at_arg_list allowed_hosts;
    const char *listen, *cors, *user_dir, *front_end_root, *templates, *tls_key, *tls_cert, *hash,
        *preview;
    const char *verbose, *token_file, *log_format, *lanes;
    at_arg_real max_upload;
    long port, preview_size, cache_lru;
    bool cache_classic, cache_none, compress, multi_user, no_persist, test_nodes, quiet, quick_test,
        one_process;
    at_arg_real drain, rate_limit;
    long queue_limit, max_queue, keepalive;
} serve_options;

#define FLAG(name_, field_, help_)                                                                 \
    {                                                                                              \
        name_, NULL, AT_ARG_FLAG, offsetof(serve_options, field_), .help = help_                   \
    }
#define IGNORED(name_, metavar_, why)                                                              \
    {                                                                                              \
        name_, metavar_, AT_ARG_IGNORED, .help = why                                               \
    }

static const at_arg serve_args[] = {
    {"--listen", "[ADDRESS]", AT_ARG_MAYBE, offsetof(serve_options, listen),
     .choices = "0.0.0.0,::",
     .help = "addresses, comma-separated (default 127.0.0.1); alone: every address"},
    {"--port", "N", AT_ARG_INT, offsetof(serve_options, port), 0, 65535,
     .help = "default 8188; 0: any that is free"},
    {"--token-file", "FILE", AT_ARG_TEXT, offsetof(serve_options, token_file),
     .help = "lines \"ROLE NAME SHA256\" (view, submit, admin): only these tokens get in"},
    {"--tls-keyfile", "FILE", AT_ARG_TEXT, offsetof(serve_options, tls_key),
     .help = "with --tls-certfile: https"},
    {"--tls-certfile", "FILE", AT_ARG_TEXT, offsetof(serve_options, tls_cert),
     .help = "with --tls-keyfile: https"},
    {"--enable-cors-header", "[ORIGIN]", AT_ARG_MAYBE, offsetof(serve_options, cors),
     .choices = "*", .help = "let pages from elsewhere ask (alone: from anywhere)"},
    {"--allowed-host", "NAME", AT_ARG_LIST, offsetof(serve_options, allowed_hosts),
     .help = "a name of this server that a Host header may have, such as a proxy's; may be "
             "repeated"},
    {"--max-upload-size", "MB", AT_ARG_REAL, offsetof(serve_options, max_upload),
     .help = "of a request's body (default 100)"},
    {"--lanes", "N", AT_ARG_TEXT, offsetof(serve_options, lanes),
     .help = "jobs that may run side by side on several devices while others wait; auto (the "
             "default): by devices and the queue; 1: one after the other"},
    {"--user-directory", "DIR", AT_ARG_TEXT, offsetof(serve_options, user_dir),
     .help = "settings, workflows, queue and history (default ./user)"},
    FLAG("--enable-compress-response-body", compress, "answer in gzip to those who take it"),
    FLAG("--no-persist", no_persist, "forget queue and history when the server ends"),
    FLAG("--multi-user", multi_user, "a folder and settings for each user"),
    {"--front-end-root", "DIR", AT_ARG_TEXT, offsetof(serve_options, front_end_root),
     .help = "serve this page, such as ComfyUI's own frontend"},
    {"--workflow-templates", "DIR", AT_ARG_TEXT, offsetof(serve_options, templates),
     .help = "what the frontend offers to begin with: the folder \"templates\" of the package "
             "comfyui-workflow-templates (default: workflow_templates below the base directory)"},
    {"--preview-method", "HOW", AT_ARG_CHOICE, offsetof(serve_options, preview),
     .choices = "none|auto|latent2rgb|taesd",
     .help = "what a sampler shows after each step (default none; auto: latent2rgb; taesd: by its "
             "decoder in models/vae_approx)"},
    {"--preview-size", "N", AT_ARG_INT, offsetof(serve_options, preview_size), 16, 4096,
     .help = "longest side of a preview (default 512)"},
    FLAG("--cache-classic", cache_classic, "keep the results of the last job (the default)"),
    {"--cache-lru", "N", AT_ARG_INT, offsetof(serve_options, cache_lru), 0, 1000000,
     .help = "keep the results of the N nodes that were used last"},
    FLAG("--cache-none", cache_none, "keep no results between jobs"),
    {"--default-hashing-function", "NAME", AT_ARG_CHOICE, offsetof(serve_options, hash),
     .choices = "md5|sha1|sha256|sha512", .help = "tells equal uploads (default sha256)"},
    {"--verbose", "[LEVEL]", AT_ARG_MAYBE, offsetof(serve_options, verbose), .choices = "DEBUG",
     .help = "DEBUG, INFO, WARNING, ERROR or CRITICAL (default INFO); alone: DEBUG"},
    {"--rate-limit", "N", AT_ARG_REAL, offsetof(serve_options, rate_limit),
     .help =
         "jobs and uploads a minute of one user (without tokens: of one address); default: any"},
    {"--queue-limit", "N", AT_ARG_INT, offsetof(serve_options, queue_limit), 0, 10000,
     .help = "jobs of one user that may wait (default: any number)"},
    {"--max-queue", "N", AT_ARG_INT, offsetof(serve_options, max_queue), 1, 10000000,
     .help = "jobs of all users that may wait (default 10000)"},
    {"--log-format", "FORM", AT_ARG_CHOICE, offsetof(serve_options, log_format),
     .choices = "text|json", .help = "of the lines on standard error (default text)"},
    {"--keepalive-seconds", "S", AT_ARG_INT, offsetof(serve_options, keepalive), 1, 7200,
     .help = "a connection that is silent so long is probed (default 60)"},
    {"--drain-seconds", "S", AT_ARG_REAL, offsetof(serve_options, drain),
     .help = "after SIGTERM the running job may go on so long (default 5); then it is kept"},
    FLAG("--one-process", one_process, "run jobs inside the server: a crash in a node ends it"),
    FLAG("--dont-print-server", quiet, "do not print the address"),
    FLAG("--quick-test-for-ci", quick_test, "end as soon as everything is ready"),
    FLAG("--enable-test-nodes", test_nodes, "also the nodes of ComfyUI's own test suite"),
    AT_COMMON_ARGS(serve_options, common),
    IGNORED("--auto-launch", NULL, "no browser is opened from here"),
    IGNORED("--disable-auto-launch", NULL, "no browser is opened from here"),
    IGNORED("--windows-standalone-build", NULL, "this is no Windows build"),
    IGNORED("--disable-all-custom-nodes", NULL, "there are no Python nodes here"),
    IGNORED("--whitelist-custom-nodes", "DIR", "there are no Python nodes here"),
    IGNORED("--disable-api-nodes", NULL, "there are no paid nodes here"),
    IGNORED("--comfy-api-base", "URL", "there are no paid nodes here"),
    IGNORED("--front-end-version", "VERSION", "no frontend is downloaded; see --front-end-root"),
    IGNORED("--database-url", "URL", "queue and history lie below --user-directory"),
    IGNORED("--log-stdout", NULL, "messages go to standard error"),
    IGNORED("--directml", "[N]", "there is no such device here; see `atelier devices`"),
    IGNORED("--oneapi-device-selector", "TEXT", "there is no such device here"),
    IGNORED("--disable-ipex-optimize", NULL, "there is no such device here"),
};

static void serve_defaults(void *options)
{
    ((serve_options *)options)->port = 8188;
}

static at_status set_level(const char *name)
{
    static const struct {
        const char *name;
        at_log_level level;
    } levels[] = {{"DEBUG", AT_DEBUG},
                  {"INFO", AT_INFO},
                  {"WARNING", AT_WARN},
                  {"ERROR", AT_ERROR},
                  {"CRITICAL", AT_ERROR}};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (at_equal_nocase(name, levels[i].name)) {
            at_log_set_level(levels[i].level);
            return AT_OK;
        }
    return at_fail(AT_EUSAGE, "--verbose %s: choose one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
                   name);
}

static void ready(void *ctx, const char *url)
{
    const serve_options *o = ctx;
    if (!o->quiet) {
        printf("atelier serves at %s\n", url);
        fflush(stdout);
    }
}

// This program as it was started, for the engine's process: at_free both. NULL: /proc does not tell.
static const char **own_arguments(char **text)
{
    at_str all = {0};
    char piece[4096];
    size_t count = 0;
    FILE *f = fopen("/proc/self/cmdline", "rb"); // its size says 0

    for (size_t n; f && (n = fread(piece, 1, sizeof piece, f)) > 0;)
        at_str_append_n(&all, piece, n);
    if (f) fclose(f);
    for (size_t i = 0; i < all.len; i++)
        count += all.data[i] == 0;
    const char **list = count > 1 && !all.failed ? at_calloc(count + 1, sizeof *list) : NULL;
    for (size_t i = 0, at = 0; list && i < count; i++, at += strlen(all.data + at) + 1)
        list[i] = all.data + at;
    *text = at_str_take(&all);
    return list;
}

// "auto" or a number. A part of the devices would be another process's: there must be processes.
static at_status set_lanes(const serve_options *o, int *out)
{
    const char *text = o->lanes && strcmp(o->lanes, "auto") != 0 ? o->lanes : "0";
    size_t digits = strspn(text, "0123456789");
    int n = digits && digits < 4 && !text[digits] ? atoi(text) : -1;

    if (n < 0 || (n == 0 && o->lanes && strcmp(o->lanes, "auto") != 0))
        return at_fail(AT_EUSAGE, "--lanes %s: auto, or a number from 1 on", o->lanes);
    if (n > 1 && o->one_process)
        return at_fail(AT_EUSAGE, "--lanes %d and --one-process exclude each other", n);
    *out = n;
    return AT_OK;
}

static at_status serve(void *options, const at_arg_list *operands)
{
    (void)operands;
    serve_options *o = options;
    at_serve_config c = {.listen = o->listen,
                         .port = (int)o->port,
                         .cors = o->cors,
                         .allowed_hosts = o->allowed_hosts.items,
                         .allowed_host_count = o->allowed_hosts.count,
                         .max_upload_mb = o->max_upload.given ? o->max_upload.value : 100,
                         .user_dir = o->user_dir,
                         .front_end_root = o->front_end_root,
                         .templates_dir = o->templates,
                         .token_file = o->token_file,
                         .tls_key = o->tls_key,
                         .tls_cert = o->tls_cert,
                         .hash = o->hash,
                         .preview_size = (int)o->preview_size,
                         .compress = o->compress,
                         .multi_user = o->multi_user,
                         .no_persist = o->no_persist,
                         .quick_test = o->quick_test,
                         .json_log = o->log_format && *o->log_format == 'j',
                         .rate_limit = o->rate_limit.given ? o->rate_limit.value : 0,
                         .keepalive_seconds = (int)o->keepalive,
                         .queue_limit = (size_t)o->queue_limit,
                         .max_queue = (size_t)o->max_queue,
                         .drain_seconds = o->drain.given ? o->drain.value : 5,
                         .ready = ready,
                         .ctx = o};
    const char *argv[] = {"atelier", "serve"};
    c.argv = argv;
    c.argc = 2;
    at_status st = set_level(o->verbose ? o->verbose : "INFO");
    if (st == AT_OK && (o->cache_none + o->cache_classic + (o->cache_lru > 0)) > 1)
        st = at_fail(AT_EUSAGE, "--cache-classic, --cache-lru and --cache-none exclude each other");
    if (st == AT_OK) st = set_lanes(o, &c.lanes);
    if (st == AT_OK) st = at_common_config(&o->common, &c.engine);
    if (st != AT_OK) return st;
    c.engine.cache_results = o->cache_none ? -1 : o->cache_lru;
    c.engine.test_nodes = o->test_nodes;
    if (o->preview)
        (void)at_previews_parse(o->preview, &c.engine.previews); // args.c knows the words
    char *text = NULL, *temp = NULL; // as in ComfyUI: the folder that is emptied is one of its own
    if (c.engine.temp_dir && !(temp = at_path_join(c.engine.temp_dir, "temp")))
        return at_fail(AT_ENOMEM, "serve: no memory");
    if (temp) c.engine.temp_dir = temp;
    if (at_engine_process_line() >= 0) {
        st = at_engine_process(at_engine_process_line(), &c.engine);
        at_free(temp);
        return st;
    }
    const char **program = o->one_process ? NULL : own_arguments(&text);
    c.engine_argv = program;
    st = program || o->one_process
             ? at_serve(&c)
             : at_fail(AT_EIO, "/proc/self/cmdline cannot be read; --one-process does without");
    at_free(program);
    at_free(text);
    at_free(temp);
    return st;
}

const at_command at_command_serve = {
    .name = "serve",
    .summary = "serve ComfyUI's protocol over HTTP and WebSocket",
    .details = "Open the address in a browser: a page to draw with is there (--front-end-root "
               "serves another).\n"
               "Queue and history survive a crash: what was accepted runs after the next start.\n"
               "ComfyUI's flags keep their names; those without sense here say so.",
    .args = serve_args,
    .n_args = sizeof serve_args / sizeof *serve_args,
    .options_size = sizeof(serve_options),
    .max_operands = 0,
    .defaults = serve_defaults,
    .run = serve,
};
