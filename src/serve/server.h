// SPDX-License-Identifier: Apache-2.0
// server.h - what the routes share; the inside of at_serve.
// Owns: the server owns its parts; everything here is borrowed by routes for the length of a call.
#ifndef AT_SERVE_SERVER_H
#define AT_SERVE_SERVER_H

#include "engine/engine.h"
#include "serve/executor.h"
#include "serve/http.h"
#include "serve/hub.h"
#include "serve/journal.h"
#include "serve/limits.h"
#include "serve/metrics.h"
#include "serve/queue.h"
#include "serve/serve.h"
#include "serve/tokens.h"

typedef struct at_server {
    const at_serve_config *config;
    at_engine *engine; // checks and lists; runs jobs only where there is no process for them
    at_queue *queue;
    at_hub *hub;
    at_journal *journal;
    at_metrics metrics;
    at_tokens *tokens;          // NULL: everybody may do everything
    at_limits *limits;          // NULL: none
    struct at_repeats *repeats; // prompts that were checked a moment ago; the loop thread's
    at_runner *runner;
    at_executor *executor;
    bool inside;                 // it listens on this machine's own addresses alone
    atomic_bool ready, draining; // the engine can run jobs; no more are taken
    char *user_dir, *claims_dir; // claims_dir NULL: nothing outlives the process
    char *page_dir;              // --front-end-root; NULL: the page of the house
} at_server;

// "input", "output" or "temp" as this request's folder (at_free); NULL for anything else, or if out of memory.
char *at_server_folder(const at_server *s, const at_request *rq, const char *type);

// --- routes -------------------------------------------------------------------------------------
typedef at_status at_route_fn(at_server *s, at_request *rq, at_response *rs);
typedef struct at_route {
    unsigned methods;    // at_method
    const char *pattern; // "/models/{}"; "{*}" takes the rest with its slashes
    at_route_fn *run;
    bool slow;    // reads disks or turns pictures: a worker runs it
    at_role role; // who may; AT_ROLE_NONE: view for a GET, submit for the rest
    bool limited; // counts against --rate-limit
} at_route;

// The route for this request with rq->param filled; NULL and *status (404, 405) if there is none.
const at_route *at_route_find(at_request *rq, int *status);
// Run it; a failure becomes an answer. An answer that is held (rs->held) is dressed later.
void at_route_answer(at_server *s, const at_route *r, at_request *rq, at_response *rs);
// What every answer goes through: a failure's status and words, gzip, and the headers that all carry.
void at_route_dress(const at_server *s, const at_request *rq, at_response *rs, at_status st);
bool at_listens_inside(const at_serve_config *c); // for this machine alone?
// Is this request allowed to be here at all (Host, Origin)? Else the status of the refusal.
int at_request_refused(const at_server *s, const at_request *rq);
// Fills user and role: of the request's token; where no tokens are asked for, what the header comfy-user says of
// itself, and everything is allowed. 0, or 403: the token is of another user than the header names.
int at_request_identify(const at_server *s, at_request *rq);
// Users see their own jobs and files alone: tokens say who they are, and --multi-user keeps them apart.
bool at_server_separates(const at_server *s);
// The user whose jobs this request may see and touch; NULL: everybody's.
const char *at_request_scope(const at_server *s, const at_request *rq);
// The folder below input, output and temp that this request's files live in; NULL: these folders themselves.
const char *at_request_owner(const at_server *s, const at_request *rq);
// 0, or 429 with the answer begun in rs: this user has submitted too much. The loop thread.
int at_request_limited(at_server *s, const at_route *r, const at_request *rq, at_response *rs);
// 0, or 401 or 403 with the answer begun in rs.
int at_route_forbidden(const at_server *s, const at_route *r, const at_request *rq,
                       at_response *rs);
// Packs a text for a client that takes gzip, where --enable-compress-response-body says so.
void at_response_squeeze(const at_server *s, const at_request *rq, at_response *rs);
// Cache-Control and CORS: on every answer.
void at_response_dress(const at_server *s, const at_request *rq, at_response *rs);

extern const at_route at_routes_prompt[], at_routes_jobs[], at_routes_logs[], at_routes_metrics[],
    at_routes_usage[], at_routes_info[], at_routes_models[], at_routes_files[], at_routes_upload[],
    at_routes_users[], at_routes_userdata[], at_routes_templates[],
    at_routes_page[]; // each ends with pattern NULL

#endif
