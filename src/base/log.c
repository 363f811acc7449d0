// SPDX-License-Identifier: Apache-2.0
// log.c - lines for operators.
// Idea: a line is formatted on the caller's stack and handed on under a lock, so that lines of
// several threads never mix and the writer can be changed at any time. Owns: the writer setting.
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_int g_level = AT_WARN;
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static at_log_fn *g_writer;
static void *g_ctx;

static void write_stderr(at_log_level level, const char *id, const char *text)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};

    fprintf(stderr, "%s: %s: %s\n", names[level], id, text);
}

void at_log(at_log_level level, const char *id, const char *fmt, ...)
{
    char text[2048];
    va_list args;

    if ((int)level < atomic_load_explicit(&g_level, memory_order_relaxed)) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&g_lock);
    if (g_writer) {
        g_writer(g_ctx, level, id, text);
    } else {
        write_stderr(level, id, text);
    }
    pthread_mutex_unlock(&g_lock);
}

void at_log_set_level(at_log_level level)
{
    atomic_store_explicit(&g_level, (int)level, memory_order_relaxed);
}

void at_log_set_writer(at_log_fn *fn, void *ctx)
{
    pthread_mutex_lock(&g_lock);
    g_writer = fn;
    g_ctx = ctx;
    pthread_mutex_unlock(&g_lock);
}
