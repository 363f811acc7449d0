// SPDX-License-Identifier: Apache-2.0
// submit.h - POST /prompt: from a body to a row of the queue, many in one transaction.
// Idea: a prompt is checked when its body is here, on the loop thread, so that the answer holds every error; what is to
// be accepted waits for the end of the loop's turn, when all of the turn's prompts are committed together. No answer
// goes out before its commit.
// Owns: a response owns its submission (`held`) until at_submit_commit has filled it, or at_submission_free.
#ifndef AT_SERVE_SUBMIT_H
#define AT_SERVE_SUBMIT_H

#include "serve/server.h"

typedef struct at_submission at_submission;

// The route. What is refused is answered at once; else rs->held is set, and rs is filled by at_submit_commit.
at_status at_submit(at_server *s, at_request *rq, at_response *rs);

// One that waits, with its request and its response.
typedef struct at_held {
    at_request *rq;
    at_response *rs;
} at_held;
// Puts all of them into the queue, in this order, and fills their responses (dressed, ready to be sent).
void at_submit_commit(at_server *s, const at_held *all, size_t n);

void at_submission_free(at_submission *p); // NULL is fine

#endif
