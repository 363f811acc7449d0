// SPDX-License-Identifier: Apache-2.0
// trace.c - the recorder: chunks of slices that never move, so that a slice may be completed later.
// Owns: the chunks; they are given back when the next trace starts.
#include "base/trace.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"

enum { CHUNK = 4096, CHUNKS = AT_TRACE_MOST / CHUNK + 1 };

static atomic_int g_level = AT_TRACE_OFF;
static atomic_int g_threads;
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static at_trace_slice *g_chunks[CHUNKS];
static size_t g_count, g_dropped;
static pthread_mutex_t g_sources_lock = PTHREAD_MUTEX_INITIALIZER;
static at_trace_source *g_sources;
static atomic_bool g_expected;
static atomic_int g_home;
static _Thread_local int t_rank = -1;

at_trace_level at_trace_now(void)
{
    return (at_trace_level)atomic_load_explicit(&g_level, memory_order_relaxed);
}

void at_trace_start(at_trace_level level)
{
    pthread_mutex_lock(&g_lock);
    for (size_t i = 0; i < CHUNKS && g_chunks[i]; i++) {
        at_free(g_chunks[i]);
        g_chunks[i] = NULL;
    }
    g_count = g_dropped = 0;
    pthread_mutex_unlock(&g_lock);
    pthread_mutex_lock(&g_sources_lock);
    for (at_trace_source *i = g_sources; i && level != AT_TRACE_OFF; i = i->next)
        i->begin(i->ctx);
    pthread_mutex_unlock(&g_sources_lock);
    atomic_store(&g_level, (int)level);
}

void at_trace_stop(void)
{
    atomic_store(&g_level, AT_TRACE_OFF);
}

void at_trace_expect(bool yes)
{
    atomic_store(&g_expected, yes);
}

bool at_trace_wanted(void)
{
    return atomic_load_explicit(&g_expected, memory_order_relaxed) ||
           at_trace_now() != AT_TRACE_OFF;
}

// --- whose ---------------------------------------------------------------------------------------
void at_trace_set_rank(int rank)
{
    t_rank = rank;
}

void at_trace_set_home(int rank)
{
    atomic_store(&g_home, rank);
}

int at_trace_rank(void)
{
    return t_rank < 0 ? atomic_load_explicit(&g_home, memory_order_relaxed) : t_rank;
}

static int thread_number(void)
{
    static _Thread_local int number;

    if (!number) number = atomic_fetch_add(&g_threads, 1) + 1;
    return number;
}

size_t at_trace_add(const at_trace_slice *s)
{
    size_t at = SIZE_MAX;
    int thread = thread_number();

    pthread_mutex_lock(&g_lock);
    at_trace_slice **chunk = &g_chunks[g_count / CHUNK];
    if (g_count < AT_TRACE_MOST && !*chunk) *chunk = at_alloc(CHUNK * sizeof **chunk);
    if (g_count < AT_TRACE_MOST && *chunk) {
        at = g_count++;
        (*chunk)[at % CHUNK] = *s;
        (*chunk)[at % CHUNK].thread = thread;
        (*chunk)[at % CHUNK].rank = at_trace_rank();
    } else {
        g_dropped++;
    }
    pthread_mutex_unlock(&g_lock);
    return at;
}

void at_trace_device_time(size_t i, double began, double seconds)
{
    pthread_mutex_lock(&g_lock);
    if (i < g_count) {
        g_chunks[i / CHUNK][i % CHUNK].device_began = began;
        g_chunks[i / CHUNK][i % CHUNK].device_seconds = seconds;
    }
    pthread_mutex_unlock(&g_lock);
}

size_t at_trace_count(void)
{
    return g_count;
}

size_t at_trace_dropped(void)
{
    return g_dropped;
}

const at_trace_slice *at_trace_at(size_t i)
{
    return &g_chunks[i / CHUNK][i % CHUNK];
}

// --- sources ---------------------------------------------------------------------------------------
void at_trace_source_add(at_trace_source *s)
{
    pthread_mutex_lock(&g_sources_lock);
    s->next = g_sources;
    g_sources = s;
    pthread_mutex_unlock(&g_sources_lock);
}

void at_trace_source_remove(at_trace_source *s)
{
    pthread_mutex_lock(&g_sources_lock);
    for (at_trace_source **i = &g_sources; *i; i = &(*i)->next)
        if (*i == s) {
            *i = s->next;
            break;
        }
    pthread_mutex_unlock(&g_sources_lock);
    if (at_trace_now() != AT_TRACE_OFF) s->collect(s->ctx);
}

void at_trace_sources_collect(void)
{
    pthread_mutex_lock(&g_sources_lock);
    for (at_trace_source *i = g_sources; i; i = i->next)
        i->collect(i->ctx);
    pthread_mutex_unlock(&g_sources_lock);
}

// --- spans -----------------------------------------------------------------------------------
double at_trace_begin(void)
{
    return at_trace_now() == AT_TRACE_OFF ? 0 : at_now();
}

static void add_span(double began, const char *category, double bytes, const char *fmt,
                     va_list args)
{
    at_trace_slice s = {.category = category,
                        .began = began,
                        .seconds = at_now() - began,
                        .device_seconds = -1,
                        .bytes = bytes};

    vsnprintf(s.name, sizeof s.name, fmt, args);
    at_trace_add(&s);
}

void at_trace_end(double began, const char *category, const char *fmt, ...)
{
    va_list args;

    if (began <= 0 || at_trace_now() == AT_TRACE_OFF) return;
    va_start(args, fmt);
    add_span(began, category, 0, fmt, args);
    va_end(args);
}

void at_trace_end_bytes(double began, const char *category, double bytes, const char *fmt, ...)
{
    va_list args;

    if (began <= 0 || at_trace_now() == AT_TRACE_OFF) return;
    va_start(args, fmt);
    add_span(began, category, bytes, fmt, args);
    va_end(args);
}
