// SPDX-License-Identifier: Apache-2.0
// run_remote.h - atelier run --server: the workflow is read and changed here, and run there.
#ifndef AT_CLI_RUN_REMOTE_H
#define AT_CLI_RUN_REMOTE_H

#include "atelier/atelier.h"

// As at_engine_run, by the server at `url`.
at_status at_run_remote(const char *url, const at_job *job, at_job_result *out);
// Where each saved file can be fetched, one URL a line on standard output.
void at_print_urls(const char *url, const char *outputs);

#endif
