// SPDX-License-Identifier: Apache-2.0
// ranks.c - threads behind a gate. See ranks.h. Owns: the crew, for the length of one run.
#include "par/ranks.h"

#include <pthread.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/trace.h"

typedef enum gate { GATE_SHUT, GATE_OPEN, GATE_CALLED_OFF } gate;

typedef struct crew {
    at_rank_fn *fn;
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    gate gate;
} crew;

typedef struct member {
    crew *c;
    int rank;
    pthread_t thread;
    at_status st;
    char text[1024];
} member;

static gate wait_at(crew *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->gate == GATE_SHUT)
        pthread_cond_wait(&c->moved, &c->lock);
    gate g = c->gate;
    pthread_mutex_unlock(&c->lock);
    return g;
}

static void set(crew *c, gate g)
{
    pthread_mutex_lock(&c->lock);
    c->gate = g;
    pthread_cond_broadcast(&c->moved);
    pthread_mutex_unlock(&c->lock);
}

static void work(member *m)
{
    at_trace_set_rank(m->rank);
    m->st = m->c->fn(m->c->ctx, m->rank);
    at_trace_set_rank(-1);
    if (m->st != AT_OK) snprintf(m->text, sizeof m->text, "%s", at_error_text());
}

static void *thread_main(void *arg)
{
    member *m = arg;

    if (wait_at(m->c) == GATE_OPEN) work(m);
    return NULL;
}

at_status at_ranks_run(int n, at_rank_fn *fn, void *ctx)
{
    crew c = {.fn = fn, .ctx = ctx};
    at_status st = AT_OK;
    int started = 1;

    if (n == 1) return fn(ctx, 0);
    member *m = at_calloc((size_t)n, sizeof *m);
    if (!m) return at_fail(AT_ENOMEM, "no memory for %d ranks", n);
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.moved, NULL);
    for (int i = 0; i < n; i++)
        m[i] = (member){.c = &c, .rank = i};
    while (started < n && pthread_create(&m[started].thread, NULL, thread_main, &m[started]) == 0)
        started++;
    set(&c, started == n ? GATE_OPEN : GATE_CALLED_OFF);
    if (started == n) work(&m[0]);
    for (int i = 1; i < started; i++)
        pthread_join(m[i].thread, NULL);
    if (started < n) st = at_fail(AT_ENOMEM, "%d of %d ranks have no thread", n - started, n);
    for (int i = 0; i < n && st == AT_OK; i++)
        if (m[i].st != AT_OK) st = at_fail(m[i].st, "%s", m[i].text);
    pthread_cond_destroy(&c.moved);
    pthread_mutex_destroy(&c.lock);
    at_free(m);
    return st;
}
