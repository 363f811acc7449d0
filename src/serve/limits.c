// SPDX-License-Identifier: Apache-2.0
// limits.c - see limits.h.
#include "serve/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { USERS = 1024 };

typedef struct bucket {
    char user[72];
    double left, seen;
} bucket;

struct at_limits {
    double most;
    bucket rows[USERS];
    size_t count;
};

at_status at_limits_new(double per_minute, at_limits **out)
{
    *out = at_calloc(1, sizeof **out);
    if (!*out) return at_fail(AT_ENOMEM, "server: no memory");
    (*out)->most = per_minute < 1 ? 1 : per_minute;
    return AT_OK;
}

void at_limits_free(at_limits *l)
{
    at_free(l);
}

static bucket *find(at_limits *l, const char *user, double now)
{
    bucket *oldest = &l->rows[0];
    for (size_t i = 0; i < l->count; i++) {
        if (strncmp(l->rows[i].user, user, sizeof l->rows[i].user - 1) == 0) return &l->rows[i];
        if (l->rows[i].seen < oldest->seen) oldest = &l->rows[i];
    }
    bucket *b = l->count < USERS ? &l->rows[l->count++] : oldest;
    *b = (bucket){.left = l->most, .seen = now};
    snprintf(b->user, sizeof b->user, "%s", user);
    return b;
}

int at_limits_take(at_limits *l, const char *user, double now)
{
    bucket *b = find(l, user, now);
    b->left = fmin(l->most, b->left + (now - b->seen) * l->most / 60);
    b->seen = now;
    if (b->left >= 1) {
        b->left -= 1;
        return 0;
    }
    return (int)ceil((1 - b->left) * 60 / l->most);
}
