// SPDX-License-Identifier: Apache-2.0
// hub.h - who listens, and what is on its way to them.
// Idea: any thread posts; the loop thread alone moves posts to the sockets' own lines. A message is made once
// and shared by all who get it.
// Easy to get wrong: a client that does not read must not cost memory without end: progress and previews are
// left out for it first, and then it is dropped.
// Owns: messages are counted; sessions belong to the hub between join and leave.
#ifndef AT_SERVE_HUB_H
#define AT_SERVE_HUB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "json/json.h"

#define AT_MESSAGE_ROOM 32 // bytes before the payload, for the WebSocket frame's head

typedef struct at_message {
    atomic_int refs;
    bool binary, droppable;
    size_t bytes;
    unsigned char *data; // payload; AT_MESSAGE_ROOM writable bytes lie before it
} at_message;
at_message *at_message_new(const void *bytes, size_t n, bool binary); // NULL if out of memory
at_message *at_message_retain(at_message *m);
void at_message_release(at_message *m); // NULL is fine

typedef struct at_session {
    char *user; // NULL: users are not kept apart
    char *id;
    void *socket;    // the loop thread's handle
    bool superseded; // a newer socket has the same id: nothing is sent here by name any more
    bool previews_with_metadata, heard; // what its first message said; heard: there was one
    at_message **line;                  // waiting, a ring
    size_t head, count, cap, waiting_bytes;
    bool overrun; // to be closed
    struct at_session *next;
} at_session;

typedef struct at_hub at_hub;
// wake(ctx): called on the posting thread, so that the loop thread calls at_hub_deliver soon.
at_status at_hub_new(void (*wake)(void *ctx), void *ctx, at_hub **out);
void at_hub_free(at_hub *h);

// --- any thread ---------------------------------------------------------------------------------
// {"type": type, "data": data} to one client, or to all if client is NULL; user not NULL: of this user's alone.
// Takes `data`; a failure is logged, nobody waits for it.
void at_hub_post(at_hub *h, const char *user, const char *client, const char *type, json_t *data,
                 bool droppable);
// A picture for people: in the form with metadata, or the plain one, as each socket asked for.
void at_hub_post_picture(at_hub *h, const char *user, const char *client, at_message *with_metadata,
                         at_message *plain);
void at_hub_post_status(at_hub *h, size_t remaining);
// What a client that comes back is told: the node that runs for it, on this lane (below AT_HUB_LANES). NULL: nothing.
enum { AT_HUB_LANES = 16 };
void at_hub_set_current(at_hub *h, int lane, const char *user, const char *client,
                        const char *node);
size_t at_hub_sessions(at_hub *h);

// --- the loop thread ----------------------------------------------------------------------------
// Joins and is told the status; id NULL or "": one is made.
at_session *at_hub_join(at_hub *h, const char *user, const char *id, void *socket,
                        size_t remaining);
void at_hub_leave(at_hub *h, at_session *s);
// A text frame came in: the first may be feature_flags.
void at_hub_heard(at_hub *h, at_session *s, const char *text, size_t n);
// Moves posts to the sessions' lines; ready(ctx, s) for each that has something to send or is overrun.
void at_hub_deliver(at_hub *h, void (*ready)(void *ctx, at_session *s), void *ctx);
at_message *at_session_next(at_session *s); // takes the oldest; NULL if none

json_t *at_server_features(void);        // the body of GET /features
void at_uuid(char out[37], bool dashes); // a random UUID
// One whose first half is the time (version 7): a job's. What is inserted in its order lies together in an index.
void at_uuid_of_job(char out[37]);

extern size_t at_max_upload_bytes; // what /features tells; set once before the server starts

#endif
