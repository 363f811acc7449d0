// SPDX-License-Identifier: Apache-2.0
// wire.c - see wire.h. A text is its length with its NUL, and its bytes; a length of 0 is NULL.
#include "serve/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

// --- writing -----------------------------------------------------------------------------------------
void at_wire_begin(at_str *m, at_wire_kind kind)
{
    at_str_clear(m);
    at_str_append_n(m, "\0\0\0\0", 4); // the length, when it is sent
    at_wire_number(m, kind);
}

void at_wire_number(at_str *m, double v)
{
    at_str_append_n(m, &v, sizeof v);
}

void at_wire_bytes(at_str *m, const void *bytes, size_t n)
{
    uint32_t length = (uint32_t)n;
    if (n > AT_WIRE_MOST) m->failed = true;
    at_str_append_n(m, &length, sizeof length);
    if (n) at_str_append_n(m, bytes, n);
}

void at_wire_text(at_str *m, const char *text)
{
    at_wire_bytes(m, text, text ? strlen(text) + 1 : 0);
}

at_status at_wire_send(int fd, const at_str *m)
{
    uint32_t length = (uint32_t)(m->len - 4);

    if (m->failed || m->len > AT_WIRE_MOST) return at_fail(AT_ENOMEM, "engine: no memory");
    memcpy(m->data, &length, sizeof length);
    for (size_t sent = 0; sent < m->len;) {
        ssize_t n = send(fd, m->data + sent, m->len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return at_fail(AT_EIO, "engine: the other process is gone");
        sent += (size_t)n;
    }
    return AT_OK;
}

// --- reading -----------------------------------------------------------------------------------------
static bool read_all(int fd, void *to, size_t n)
{
    for (char *p = to; n;) {
        ssize_t got = recv(fd, p, n, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

at_status at_wire_receive(int fd, at_str *m)
{
    uint32_t length = 0;
    char piece[16384];

    at_str_clear(m);
    if (!read_all(fd, &length, sizeof length) || length > AT_WIRE_MOST) goto gone;
    while (length) {
        size_t n = length < sizeof piece ? length : sizeof piece;
        if (!read_all(fd, piece, n)) goto gone;
        at_str_append_n(m, piece, n);
        length -= (uint32_t)n;
    }
    return m->failed ? at_fail(AT_ENOMEM, "engine: no memory for a message") : AT_OK;
gone:
    return at_fail(AT_EIO, "engine: the other process is gone");
}

at_wire_reader at_wire_open(const at_str *m, at_wire_kind *kind)
{
    at_wire_reader r = {.at = m->data, .end = m->data ? m->data + m->len : NULL};
    *kind = (at_wire_kind)at_wire_take_number(&r);
    return r;
}

static const char *take(at_wire_reader *r, size_t n)
{
    const char *p = r->at;
    if (r->failed || (size_t)(r->end - r->at) < n) {
        r->failed = true;
        return NULL;
    }
    r->at += n;
    return p;
}

double at_wire_take_number(at_wire_reader *r)
{
    double v = 0;
    const char *p = take(r, sizeof v);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}

const void *at_wire_take_bytes(at_wire_reader *r, size_t *n)
{
    uint32_t length = 0;
    const char *p = take(r, sizeof length);
    if (p) memcpy(&length, p, sizeof length);
    *n = length;
    p = length ? take(r, length) : NULL;
    if (!p) *n = 0;
    return p;
}

const char *at_wire_take_text(at_wire_reader *r)
{
    size_t n = 0;
    const char *text = at_wire_take_bytes(r, &n);
    if (text && text[n - 1]) r->failed = true; // not terminated
    return text && !text[n - 1] ? text : NULL;
}
