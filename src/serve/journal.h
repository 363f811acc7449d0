// SPDX-License-Identifier: Apache-2.0
// journal.h - the last lines of the log, for the frontend's terminal, and who wants to hear the next.
// Easy to get wrong: a line may be written anywhere, also inside libwebsockets and under locks: it is kept, and the loop
// thread tells the subscribers.
// Owns: its lines. Any thread, but for at_journal_flush.
#ifndef AT_SERVE_JOURNAL_H
#define AT_SERVE_JOURNAL_H

#include "serve/hub.h"

typedef struct at_journal at_journal;
// Becomes the log's writer (lines also go to standard error); wake as in hub.h.
at_status at_journal_open(void (*wake)(void *ctx), void *ctx, at_journal **out);
void at_journal_close(at_journal *j); // the log's usual writer is back; NULL is fine

json_t *at_journal_entries(at_journal *j); // [{"t": iso, "m": text}]; NULL if out of memory
void at_journal_subscribe(at_journal *j, const char *user, const char *client, bool enabled);
void at_journal_flush(at_journal *j, at_hub *h); // the loop thread: new lines to the subscribers

#endif
