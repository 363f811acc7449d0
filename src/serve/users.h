// SPDX-License-Identifier: Apache-2.0
// users.h - whose request it is, and the folder that is theirs.
// Owns: results are the caller's.
#ifndef AT_SERVE_USERS_H
#define AT_SERVE_USERS_H

#include "serve/server.h"

// The folder of the request's user: "default"; with --multi-user what its token says, or where there are no tokens what
// the comfy-user header says. NULL: unknown.
char *at_user_of(const at_server *s, const at_request *rq);
// user_dir/ID/name, below that folder for certain; name NULL: the folder. 0, 401 (no such user) or 403.
int at_user_path(const at_server *s, const at_request *rq, const char *name, char **path);

#endif
