// SPDX-License-Identifier: Apache-2.0
// net.h - the sockets: libwebsockets' loop around the routes and the hub.
// Idea: a connection is an at_conn in libwebsockets' per-socket memory; a request with its answer is an at_exchange
// that a worker may hold too, so it is counted and knows its socket only while that lives.
// Easy to get wrong: libwebsockets belongs to the loop thread; others may call at_net_wake alone.
// Owns: the net owns its context and its workers.
#ifndef AT_SERVE_NET_H
#define AT_SERVE_NET_H

#include <libwebsockets.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serve/chunks.h"
#include "serve/server.h"

enum { AT_NET_WORKERS = 2, AT_NET_PIECE = 64 << 10 };

typedef struct at_exchange {
    atomic_int refs;
    at_request rq;
    at_response rs;
    const at_route *route;
    struct lws *socket; // NULL: gone. The loop thread's alone
    at_server *server;
    size_t body_cap, sent, limit;
    double began;    // at_now()
    double since;    // at_now() when the body, then the answer, began
    int completions; // how often libwebsockets said that the body is whole
    bool chunked, head_sent, close_after;
    bool dispatched, answered; // the loop thread's view: a worker may be filling rs between them
    at_chunks chunks;
    struct at_exchange *next;
} at_exchange;

typedef struct at_conn {
    at_exchange *x;      // the HTTP request under way
    at_session *session; // a WebSocket's
    at_str frame;        // pieces of a text frame
} at_conn;

typedef struct at_net {
    at_server *server;
    struct lws_context *context;
    int port;
    atomic_bool stop;
    atomic_int signals;              // how many came
    lws_sorted_usec_list_t patience; // how long the running job may still go on
    size_t max_body;
    atomic_size_t bodies; // bytes of request bodies held now
    pthread_mutex_t lock; // of the lists below
    pthread_cond_t wake;
    at_exchange *todo, **todo_last, *done;
    pthread_t workers[AT_NET_WORKERS];
    int worker_count;
    at_exchange *held,
        **held_last; // answers that wait for the end of the loop's turn; its thread's
    size_t held_count;
    bool lock_made, wake_made;
    unsigned char piece[LWS_PRE + AT_NET_PIECE]; // the loop thread's scratch
} at_net;

at_status at_net_open(at_server *s, at_net **out);
at_status at_net_run(at_net *n); // until a signal
void at_net_close(at_net *n);    // NULL is fine
void at_net_wake(void *net);     // any thread
void at_net_stop(at_net *n);     // any thread, and signal handlers

void at_exchange_release(at_exchange *x);    // NULL is fine
void at_net_work(at_net *n, at_exchange *x); // give it to a worker
void at_net_hold(at_net *n, at_exchange *x); // its answer comes with the next at_net_settle
// What the turn's requests brought is committed; their answers may go out. The loop thread, after each turn.
void at_net_settle(at_net *n);

// One of libwebsockets' callbacks for HTTP or for a WebSocket.
int at_net_http(at_net *n, struct lws *wsi, enum lws_callback_reasons reason, at_conn *c, void *in,
                size_t len);
int at_net_socket(at_net *n, struct lws *wsi, enum lws_callback_reasons reason, at_conn *c,
                  void *in, size_t len);
// libwebsockets' memory, from before its first context on; and the end of what the calling thread has kept of it.
void at_net_memory_set(void);
void at_net_memory_drop(void);
void at_net_http_gone(struct lws *wsi); // the socket ends: what was kept with it goes
// The request's line and headers. AT_ENOMEM.
at_status at_net_request(struct lws *wsi, at_request *rq);

#endif
