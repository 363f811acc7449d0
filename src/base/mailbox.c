// SPDX-License-Identifier: Apache-2.0
// mailbox.c - the bounded queue through which threads speak.
// Idea: a ring of fixed-size slots under one lock; closing wakes every reader, who first drains it.
// Owns: the slots.
#include "base/thread.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

struct at_mailbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    size_t message_bytes, capacity, first, count;
    bool closed;
    unsigned char *slots;
};

at_status at_mailbox_new(size_t message_bytes, size_t capacity, at_mailbox **out)
{
    at_status st = AT_OK;
    pthread_condattr_t attr;
    at_mailbox *m = NULL;

    if (message_bytes == 0 || capacity == 0) {
        return at_fail(AT_EINVAL, "mailbox: %zu messages of %zu bytes make no queue", capacity,
                       message_bytes);
    }
    m = at_calloc(1, sizeof *m);
    if (m) m->slots = at_calloc(capacity, message_bytes);
    if (!m || !m->slots) {
        AT_TRY(at_fail(AT_ENOMEM, "mailbox: no memory for %zu messages of %zu bytes", capacity,
                       message_bytes));
    }
    m->message_bytes = message_bytes;
    m->capacity = capacity;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->filled, &attr);
    pthread_condattr_destroy(&attr);
    *out = m;
    return AT_OK;
out:
    at_free(m);
    return st;
}

void at_mailbox_free(at_mailbox *m)
{
    if (!m) return;
    pthread_cond_destroy(&m->filled);
    pthread_mutex_destroy(&m->lock);
    at_free(m->slots);
    at_free(m);
}

bool at_mailbox_put(at_mailbox *m, const void *message)
{
    bool fits;

    pthread_mutex_lock(&m->lock);
    fits = !m->closed && m->count < m->capacity;
    if (fits) {
        size_t at = (m->first + m->count) % m->capacity;

        memcpy(m->slots + at * m->message_bytes, message, m->message_bytes);
        m->count++;
        pthread_cond_signal(&m->filled);
    }
    pthread_mutex_unlock(&m->lock);
    return fits;
}

static struct timespec deadline_in(double seconds)
{
    struct timespec t;
    double whole;

    if (seconds > 1e9) seconds = 1e9;
    whole = (double)(int64_t)seconds;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)whole;
    t.tv_nsec += (long)((seconds - whole) * 1e9);
    if (t.tv_nsec >= 1000000000L) {
        t.tv_nsec -= 1000000000L;
        t.tv_sec++;
    }
    return t;
}

bool at_mailbox_get(at_mailbox *m, void *message, double seconds)
{
    struct timespec deadline = {0};
    int timed_out = 0;
    bool got;

    if (seconds > 0) deadline = deadline_in(seconds);
    pthread_mutex_lock(&m->lock);
    while (m->count == 0 && !m->closed && !timed_out) {
        if (seconds < 0) {
            pthread_cond_wait(&m->filled, &m->lock);
        } else if (seconds > 0) {
            timed_out = pthread_cond_timedwait(&m->filled, &m->lock, &deadline);
        } else {
            timed_out = 1;
        }
    }
    got = m->count > 0;
    if (got) {
        memcpy(message, m->slots + m->first * m->message_bytes, m->message_bytes);
        m->first = (m->first + 1) % m->capacity;
        m->count--;
    }
    pthread_mutex_unlock(&m->lock);
    return got;
}

void at_mailbox_close(at_mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    m->closed = true;
    pthread_cond_broadcast(&m->filled);
    pthread_mutex_unlock(&m->lock);
}
