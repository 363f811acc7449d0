// SPDX-License-Identifier: Apache-2.0
// serve.h - ComfyUI's server over our engine: HTTP and WebSocket on one port, jobs that survive.
// Idea: one loop thread owns the sockets and never waits; one executor thread runs jobs; a few workers answer what
// reads disks or turns pictures. They speak through the queue (SQLite) and the hub.
// Owns: at_serve opens and closes all of it.
#ifndef AT_SERVE_SERVE_H
#define AT_SERVE_SERVE_H

#include "atelier/atelier.h"

typedef struct at_serve_config {
    at_engine_config engine;
    const char *listen; // addresses, comma-separated; NULL: 127.0.0.1
    int port;           // 0: any free one
    const char *cors;   // allowed origin; NULL: the origin check instead
    const char *const
        *allowed_hosts; // names that a Host header may have beside localhost and addresses
    size_t allowed_host_count;
    double max_upload_mb;           // 0: 100
    const char *user_dir;           // NULL: below the engine's base folder
    const char *front_end_root;     // NULL: the page of the house
    const char *templates_dir;      // NULL: workflow_templates below the base directory
    const char *token_file;         // who may do what (tokens.h); NULL: everybody everything
    const char *tls_key, *tls_cert; // both: https
    const char *hash;               // of the upload's duplicate check; NULL: sha256
    int preview_size;               // 0: 512
    bool compress;                  // texts in gzip for those who take it
    bool multi_user, no_persist;
    double rate_limit;  // submissions a minute of one user; 0: any number
    size_t queue_limit; // jobs of one user that wait; 0: any number
    size_t max_queue;   // jobs of all that wait; 0: 10000
    // The program and its arguments that call at_engine_process (runner.h), NULL-terminated: jobs run there, and a
    // crash ends that process alone. NULL: they run in this process.
    const char *const *engine_argv;
    int lanes;               // jobs that may run side by side on several devices; 0: as many as pay
    int keepalive_seconds;   // of silence until the kernel asks whether a peer is there; 0: 60
    double drain_seconds;    // how long a job that runs may go on after SIGTERM
    bool json_log;           // lines on standard error are JSON
    bool quick_test;         // end as soon as everything is ready
    const char *const *argv; // shown in /system_stats
    int argc;
    void (*ready)(void *ctx, const char *url); // once, when the first request can be answered
    void *ctx;
} at_serve_config;

// Serves until SIGINT or SIGTERM; a job that does not end in drain_seconds, or before a second signal, goes back to
// the queue.
at_status at_serve(const at_serve_config *config);

#endif
