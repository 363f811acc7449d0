// SPDX-License-Identifier: Apache-2.0
// thread.c - the pool behind at_parallel_for.
// Idea: one job at a time. A ticket word says "job number, open or closed, workers inside". A
// worker enters by adding one to an open ticket, so the caller, which closes the ticket and waits
// for the inside count to reach zero, never waits for a worker that slept through the job. Idle
// workers watch the ticket for some microseconds before they sleep. A caller that finds the pool
// busy (another rank's loop, or a nested one) runs its loop alone. Owns: the workers, detached, for
// the life of the process.
#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MAX_THREADS = 512, SPIN = 2000, CHUNKS_PER_THREAD = 4 };

// Ticket layout: low 16 bits count the workers inside, bit 16 is "open", above it the job number.
#define INSIDE ((uint64_t)0xffff)
#define OPEN   ((uint64_t)1 << 16)
#define JOB    ((uint64_t)1 << 17)

static struct {
    pthread_once_t once;
    atomic_int wanted;  // 0: not chosen yet
    atomic_int started; // workers that run; -1 before the first use
    atomic_bool busy;   // somebody's job owns the pool
    _Atomic uint64_t ticket;
    _Atomic int64_t next; // first index nobody has claimed

    pthread_mutex_t lock; // for sleeping only
    pthread_cond_t wake, done;
    atomic_int sleepers;
    atomic_bool caller_sleeps;

    // The job; written by the caller before the ticket opens, read by workers that are inside.
    at_range_fn *fn;
    void *ctx;
    int64_t n, chunk;
    const atomic_bool *cancel; // the caller's
} g_pool = {
    .once = PTHREAD_ONCE_INIT,
    .started = -1,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

static _Thread_local bool t_in_loop;
static _Thread_local const atomic_bool *t_cancel; // a worker's: that of the job it is in

const atomic_bool *at_threads_watch(const atomic_bool *flag)
{
    const atomic_bool *before = t_cancel;
    t_cancel = flag;
    return before;
}

bool at_cancelled(void)
{
    return t_cancel && atomic_load_explicit(t_cancel, memory_order_relaxed);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static int default_threads(void)
{
    const char *env = getenv("ATELIER_THREADS");
    cpu_set_t set;
    int n = env ? atoi(env) : 0;

    if (n < 1 && sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    if (n < 1) n = 1;
    return n < MAX_THREADS ? n : MAX_THREADS;
}

int at_threads(void)
{
    int wanted = atomic_load(&g_pool.wanted), started = atomic_load(&g_pool.started), none = 0;

    if (wanted == 0) {
        wanted = default_threads();
        if (!atomic_compare_exchange_strong(&g_pool.wanted, &none, wanted)) wanted = none;
    }
    return started >= 0 && wanted > started + 1 ? started + 1 : wanted;
}

void at_threads_set(int n)
{
    if (n < 1) n = 1;
    atomic_store(&g_pool.wanted, n < MAX_THREADS ? n : MAX_THREADS);
}

static void work(void)
{
    int64_t begin;

    while ((begin = atomic_fetch_add(&g_pool.next, g_pool.chunk)) < g_pool.n) {
        int64_t end = g_pool.n - begin > g_pool.chunk ? begin + g_pool.chunk : g_pool.n;

        g_pool.fn(g_pool.ctx, begin, end);
    }
}

// Step into the open job `seen`; false if it closed meanwhile.
static bool enter(uint64_t seen)
{
    while (seen & OPEN) {
        if (atomic_compare_exchange_weak(&g_pool.ticket, &seen, seen + 1)) return true;
    }
    return false;
}

static void leave(void)
{
    uint64_t after = atomic_fetch_sub(&g_pool.ticket, 1) - 1;

    if ((after & (OPEN | INSIDE)) == 0 && atomic_load(&g_pool.caller_sleeps)) {
        pthread_mutex_lock(&g_pool.lock);
        pthread_cond_signal(&g_pool.done);
        pthread_mutex_unlock(&g_pool.lock);
    }
}

// Wait until a job other than `last` is open; returns the ticket.
static uint64_t next_job(uint64_t last)
{
    uint64_t seen = 0;

    for (int i = 0; i < SPIN; i++) {
        seen = atomic_load(&g_pool.ticket);
        if ((seen & OPEN) && seen / JOB != last) return seen;
        relax();
    }
    pthread_mutex_lock(&g_pool.lock);
    atomic_fetch_add(&g_pool.sleepers, 1);
    while (seen = atomic_load(&g_pool.ticket), !(seen & OPEN) || seen / JOB == last) {
        pthread_cond_wait(&g_pool.wake, &g_pool.lock);
    }
    atomic_fetch_sub(&g_pool.sleepers, 1);
    pthread_mutex_unlock(&g_pool.lock);
    return seen;
}

static void *worker_main(void *arg)
{
    int index = (int)(intptr_t)arg; // 1 = the first beside the caller
    uint64_t last = 0;

    t_in_loop = true;
    for (;;) {
        uint64_t seen = next_job(last);

        last = seen / JOB;
        if (index >= atomic_load(&g_pool.wanted) || !enter(seen)) continue;
        last = atomic_load(&g_pool.ticket) / JOB; // enter may have caught a newer job
        t_cancel = g_pool.cancel;
        work();
        t_cancel = NULL; // the flag may not live longer than the job
        leave();
    }
    return NULL;
}

static void start_pool(void)
{
    int count = at_threads() - 1, running = 0;
    pthread_attr_t attr;
    sigset_t all, old;

    if (count > 0 && pthread_attr_init(&attr) == 0) {
        // Workers take no signals, so that Ctrl-C reaches a thread that knows what to do with it.
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        while (running < count) {
            pthread_t id;

            if (pthread_create(&id, &attr, worker_main, (void *)(intptr_t)(running + 1)) != 0)
                break;
            running++;
        }
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
    }
    atomic_store(&g_pool.started, running);
}

static void run_job(int64_t n, int64_t chunk, at_range_fn *fn, void *ctx)
{
    uint64_t job = atomic_load(&g_pool.ticket) / JOB + 1;

    g_pool.fn = fn;
    g_pool.ctx = ctx;
    g_pool.n = n;
    g_pool.chunk = chunk;
    g_pool.cancel = t_cancel;
    atomic_store(&g_pool.next, 0);
    atomic_store(&g_pool.ticket, job * JOB | OPEN);
    if (atomic_load(&g_pool.sleepers) > 0) {
        pthread_mutex_lock(&g_pool.lock);
        pthread_cond_broadcast(&g_pool.wake);
        pthread_mutex_unlock(&g_pool.lock);
    }
    work();
    atomic_fetch_and(&g_pool.ticket, ~OPEN);
    for (int i = 0; i < SPIN; i++) {
        if ((atomic_load(&g_pool.ticket) & INSIDE) == 0) return;
        relax();
    }
    pthread_mutex_lock(&g_pool.lock);
    atomic_store(&g_pool.caller_sleeps, true);
    while (atomic_load(&g_pool.ticket) & INSIDE)
        pthread_cond_wait(&g_pool.done, &g_pool.lock);
    atomic_store(&g_pool.caller_sleeps, false);
    pthread_mutex_unlock(&g_pool.lock);
}

void at_parallel_for(int64_t n, int64_t grain, at_range_fn *fn, void *ctx)
{
    int threads = at_threads();
    bool idle = false;
    int64_t chunk;

    if (n <= 0) return;
    if (grain < 1) grain = 1;
    if (threads == 1 || n <= grain || t_in_loop) {
        fn(ctx, 0, n);
        return;
    }
    pthread_once(&g_pool.once, start_pool);
    threads = at_threads();
    if (threads == 1 || !atomic_compare_exchange_strong(&g_pool.busy, &idle, true)) {
        fn(ctx, 0, n);
        return;
    }
    chunk = (n - 1) / ((int64_t)threads * CHUNKS_PER_THREAD) + 1;
    t_in_loop = true;
    run_job(n, chunk > grain ? chunk : grain, fn, ctx);
    t_in_loop = false;
    atomic_store(&g_pool.busy, false);
}
