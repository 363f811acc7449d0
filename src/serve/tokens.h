// SPDX-License-Identifier: Apache-2.0
// tokens.h - who may do what: bearer tokens with a role, known by their hash alone.
// Idea: a file with a line "ROLE NAME SHA256" for each token; the token itself is nowhere on this machine. NAME is the
// user: with --multi-user, folders and history are kept under it, so it is letters, digits, '-' and '_' alone.
//   view: look at everything; submit: also run, upload, change one's own files; admin: also all else.
// Easy to get wrong: a browser sends no Authorization header by itself: a token in the address of "/" becomes a cookie.
// Owns: its rows.
#ifndef AT_SERVE_TOKENS_H
#define AT_SERVE_TOKENS_H

#include <stdbool.h>

#include "base/status.h"

typedef enum at_role { AT_ROLE_NONE, AT_ROLE_VIEW, AT_ROLE_SUBMIT, AT_ROLE_ADMIN } at_role;

#define AT_TOKEN_COOKIE "atelier_token"

typedef struct at_tokens at_tokens;
// AT_ENOTFOUND, AT_EFORMAT with the line.
at_status at_tokens_load(const char *path, at_tokens **out);
void at_tokens_free(at_tokens *t); // NULL is fine
// What the token allows and (user not NULL) whose it is, borrowed. token NULL: AT_ROLE_NONE.
at_role at_tokens_find(const at_tokens *t, const char *token, const char **user);
bool at_tokens_knows(const at_tokens *t, const char *user); // is there a token of this user?
// The token of "Bearer TOKEN", else of the cookie; a copy (at_free), NULL if there is none.
char *at_token_of(const char *authorization, const char *cookies);

#endif
