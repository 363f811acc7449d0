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

static at_status send_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return at_fail(AT_EIO, "engine: the other process is gone");
        bytes += sent;
        n -= (size_t)sent;
    }
    return AT_OK;
}

// The length goes to the front.
static bool seal(const at_str *m)
{
    uint32_t length = (uint32_t)(m->len - 4);
    if (m->failed || m->len > AT_WIRE_MOST) return false;
    memcpy(m->data, &length, sizeof length);
    return true;
}

at_status at_wire_send(int fd, const at_str *m)
{
    return seal(m) ? send_all(fd, m->data, m->len) : at_fail(AT_ENOMEM, "engine: no memory");
}

void at_wire_queue(at_str *out, const at_str *m)
{
    if (seal(m))
        at_str_append_n(out, m->data, m->len);
    else
        out->failed = true;
}

at_status at_wire_flush(int fd, at_str *out)
{
    at_status st = out->failed ? at_fail(AT_ENOMEM, "engine: no memory") : AT_OK;
    if (st == AT_OK && out->len) st = send_all(fd, out->data, out->len);
    at_str_clear(out);
    return st;
}

// --- reading -----------------------------------------------------------------------------------------
// More bytes behind those that are there. False: the other side is gone.
static bool fill(int fd, at_wire_in *in)
{
    if (in->from == in->to) in->from = in->to = 0;
    if (in->to == sizeof in->bytes) {
        memmove(in->bytes, in->bytes + in->from, in->to - in->from);
        in->to -= in->from;
        in->from = 0;
    }
    for (;;) {
        ssize_t got = recv(fd, in->bytes + in->to, sizeof in->bytes - in->to, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got > 0) in->to += (size_t)got;
        return got > 0;
    }
}

static bool length_of(const at_wire_in *in, uint32_t *length)
{
    if (in->to - in->from < sizeof *length) return false;
    memcpy(length, in->bytes + in->from, sizeof *length);
    return true;
}

bool at_wire_ready(const at_wire_in *in)
{
    uint32_t length;
    return length_of(in, &length) && in->to - in->from - sizeof length >= length;
}

at_status at_wire_receive(int fd, at_wire_in *in, at_str *m)
{
    uint32_t length = 0;

    at_str_clear(m);
    while (!length_of(in, &length))
        if (!fill(fd, in)) goto gone;
    if (length > AT_WIRE_MOST) goto gone;
    in->from += sizeof length;
    while (length) {
        size_t n = in->to - in->from < length ? in->to - in->from : length;
        if (!n && !fill(fd, in)) goto gone;
        at_str_append_n(m, in->bytes + in->from, n);
        in->from += n;
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
