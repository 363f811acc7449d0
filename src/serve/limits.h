// SPDX-License-Identifier: Apache-2.0
// limits.h - how much one user may submit: a bucket of tokens for each.
// Idea: a bucket holds as many as may come in one minute and fills evenly; an empty one says how long to wait.
// Easy to get wrong: the clock is the one that is never set.
// Owns: its table, of a fixed size: the user who was not seen for longest gives way. One thread (the loop).
#ifndef AT_SERVE_LIMITS_H
#define AT_SERVE_LIMITS_H

#include "base/status.h"

typedef struct at_limits at_limits;
at_status at_limits_new(double per_minute, at_limits **out);
void at_limits_free(at_limits *l); // NULL is fine
// Takes one; 0, or the whole seconds until there is one. now: at_now().
int at_limits_take(at_limits *l, const char *user, double now);

#endif
