// SPDX-License-Identifier: Apache-2.0
// status.c - the table of outcomes and the sentence of the last failure on each thread.
// Idea: a failure costs one formatted line in a thread-local buffer; nothing is allocated, so that
// running out of memory can be told too.
// Owns: the thread-local buffer. A message that does not fit ends in "...".
#include "base/status.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 4096 };

static _Thread_local char g_text[TEXT_BYTES];

static const at_status_info facts[AT_STATUS_COUNT] = {
    [AT_OK] = {"ok", 0, 200},
    [AT_EINVAL] = {"invalid", 3, 400},
    [AT_EUSAGE] = {"usage", 2, 400},
    [AT_EWORKFLOW] = {"workflow", 3, 400},
    [AT_ENOTFOUND] = {"not_found", 4, 404},
    [AT_EFORMAT] = {"format", 4, 422},
    [AT_EUNSUPPORTED] = {"unsupported", 4, 501},
    [AT_EIO] = {"io", 4, 500},
    [AT_ENOMEM] = {"no_memory", 5, 507},
    [AT_EDEVICE] = {"device", 6, 500},
    [AT_ECANCELLED] = {"cancelled", 130, 409},
    [AT_EINTERNAL] = {"internal", 1, 500},
};

const at_status_info *at_status_facts(at_status st)
{
    if ((int)st < 0 || st >= AT_STATUS_COUNT) st = AT_EINTERNAL;
    return &facts[st];
}

// Format into `out`; marks a cut with three dots. The arguments may point into g_text.
static void format(char out[TEXT_BYTES], const char *fmt, va_list args)
{
    int n = vsnprintf(out, TEXT_BYTES, fmt, args);

    if (n < 0) out[0] = '\0';
    if (n >= TEXT_BYTES) memcpy(out + TEXT_BYTES - 4, "...", 4);
}

at_status(at_fail)(at_status st, const char *fmt, ...)
{
    char text[TEXT_BYTES];
    va_list args;

    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    memcpy(g_text, text, strlen(text) + 1);
    return st;
}

at_status(at_fail_context)(at_status st, const char *fmt, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    size_t front, back, room;

    if (st == AT_OK) return st;
    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    front = strlen(text);
    back = strlen(g_text);
    room = TEXT_BYTES - 1 - front;
    if (back > room) back = room;
    memmove(g_text + front, g_text, back);
    memcpy(g_text, text, front);
    g_text[front + back] = '\0';
    return st;
}

const char *at_error_text(void)
{
    return g_text;
}

void at_error_clear(void)
{
    g_text[0] = '\0';
}
