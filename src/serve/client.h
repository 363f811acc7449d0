// SPDX-License-Identifier: Apache-2.0
// client.h - the other end: a workflow is run by a server that speaks ComfyUI's protocol.
// Idea: its messages become the same events that an engine of our own would emit, so that whoever listens does not
// know the difference.
// Owns: the result's strings belong to the result (at_job_result_free).
#ifndef AT_SERVE_CLIENT_H
#define AT_SERVE_CLIENT_H

#include <jansson.h>

#include "atelier/atelier.h"

// Submit to `server` ("http://127.0.0.1:8188", "host:port") and wait for the end. `submission` is the body of
// POST /prompt without client_id (borrowed, changed). A cancel interrupts the job there, or takes it out of the queue.
// AT_OK; AT_EWORKFLOW with error and node_errors filled; AT_ECANCELLED; AT_EIO if the server cannot be reached;
// AT_EDEVICE if the job failed there. What was shown is in out->outputs either way.
at_status at_client_run(const char *server, json_t *submission, const at_sink *sink,
                        at_job_result *out);

#endif
