// SPDX-License-Identifier: Apache-2.0
// journal.h - the server's log: lines for people or JSON for machines on standard error, the last lines for the
// frontend's terminal, and who wants to hear the next.
// Idea: a line has a stable id (JOB-ENDED, HTTP-DENIED ...) that does not change when its words do.
// Easy to get wrong: names in a line come from outside: a line break in one must not look like the next line. No line
// holds a token, a cookie or a query.
// Easy to get wrong: a line may be written anywhere, also inside libwebsockets and under locks: it is kept, and the loop
// thread tells the subscribers.
// Owns: its lines. Any thread, but for at_journal_flush.
#ifndef AT_SERVE_JOURNAL_H
#define AT_SERVE_JOURNAL_H

#include "serve/hub.h"

typedef struct at_journal at_journal;
// Becomes the log's writer; json: a line on standard error is {"time", "level", "id", "text"}. wake as in hub.h.
at_status at_journal_open(bool json, void (*wake)(void *ctx), void *ctx, at_journal **out);
void at_journal_close(at_journal *j); // the log's usual writer is back; NULL is fine

json_t *at_journal_entries(at_journal *j); // [{"t": iso, "m": text}]; NULL if out of memory
void at_journal_subscribe(at_journal *j, const char *user, const char *client, bool enabled);
void at_journal_flush(at_journal *j, at_hub *h); // the loop thread: new lines to the subscribers

#endif
