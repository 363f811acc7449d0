// SPDX-License-Identifier: Apache-2.0
// queue_flush.c - the log of the queue's database goes to the disk early.
// Idea: SQLite waits for the disk when it copies its log into the table (a checkpoint), and then for all that was
// written since the last one: with thousands of jobs a second that is megabytes, and nobody is answered meanwhile. A
// thread that asks the kernel for the same a little after each commit leaves the checkpoint little to wait for. What a
// power cut can take is at most some hundredths of a second, too.
// Easy to get wrong: the descriptor is the log's alone: closing one of the database's file would drop SQLite's locks.
// Owns: its thread and that descriptor.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "serve/queue_impl.h"

struct at_queue_flusher {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool dirty, waits, stop; // under the lock
    int fd;
};

static void *work(void *ctx)
{
    at_queue_flusher *f = ctx;

    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        if (!f->dirty) {
            f->waits = true;
            pthread_cond_wait(&f->wake, &f->lock);
            f->waits = false;
            continue;
        }
        f->dirty = false;
        pthread_mutex_unlock(&f->lock);
        nanosleep(&(struct timespec){0, 20000000}, NULL); // several commits at once
        (void)fdatasync(f->fd); // an error is met again, and told, by the checkpoint
        pthread_mutex_lock(&f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

at_queue_flusher *at_queue_flusher_start(const char *path)
{
    char *log = path ? at_strprintf("%s-wal", path) : NULL;
    at_queue_flusher *f = log ? at_calloc(1, sizeof *f) : NULL;
    bool good = false;

    if (f) f->fd = open(log, O_RDONLY | O_CLOEXEC);
    if (f && f->fd >= 0 && pthread_mutex_init(&f->lock, NULL) == 0) {
        good = pthread_cond_init(&f->wake, NULL) == 0;
        if (good && pthread_create(&f->thread, NULL, work, f) != 0) {
            pthread_cond_destroy(&f->wake);
            good = false;
        }
        if (!good) pthread_mutex_destroy(&f->lock);
    }
    if (f && !good) {
        if (f->fd >= 0) close(f->fd);
        at_free(f);
        f = NULL;
    }
    at_free(log);
    return f;
}

void at_queue_flusher_tell(at_queue_flusher *f)
{
    if (!f) return;
    pthread_mutex_lock(&f->lock);
    f->dirty = true;
    if (f->waits) pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

void at_queue_flusher_stop(at_queue_flusher *f)
{
    if (!f) return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
    close(f->fd);
    at_free(f);
}
