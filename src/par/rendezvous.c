// SPDX-License-Identifier: Apache-2.0
// rendezvous.c - see rendezvous.h.
// Easy to get wrong: ranks call below and answer above. Rank 1 has nobody to wait for but rank 0, rank 2 then nobody
// but these: no circle. Whoever comes without the secret is sent away, and the wait goes on.
#include "par/rendezvous.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "par/tcp.h"

static const double greeting_seconds = 5; // for one caller

typedef struct party {
    const at_comm_tcp_config *c;
    at_tcp_hello mine;
    int listener;
    int *data, *alarm;
    double deadline;
    char places[AT_TCP_RANKS][64]; // where each listens
} party;

static double soon(const party *p)
{
    double t = at_tcp_now() + greeting_seconds;

    return t < p->deadline ? t : p->deadline;
}

static at_status call(party *p, int rank, uint32_t kind, int *fd)
{
    at_status st = AT_OK;
    at_tcp_hello hello = p->mine;

    hello.kind = kind;
    AT_TRY(at_tcp_connect(p->places[rank], p->deadline, fd));
    // Who is called may be busy with others before it turns to this one.
    AT_TRY(at_tcp_greet(*fd, p->c->secret, &hello, p->deadline));
out:
    return st == AT_OK ? st : at_fail_context(st, "rank %d at %s: ", rank, p->places[rank]);
}

// Why a caller that knows the secret is none of this picture; NULL: it is.
static const char *stranger(const party *p, const at_tcp_hello *h)
{
    const int *fd = h->kind == AT_TCP_DATA ? p->data : p->alarm;

    if (h->ranks != p->mine.ranks) return "has another number of ranks";
    if (memcmp(h->job, p->mine.job, sizeof h->job) != 0)
        return "has another version, workflow or plan";
    if (h->rank <= p->mine.rank || h->rank >= h->ranks) return "has a rank that is out of range";
    if (h->kind != AT_TCP_DATA && h->kind != AT_TCP_ALARM) return "wants something unknown";
    return fd[h->rank] >= 0 ? "has a rank that is here already" : NULL;
}

// The next caller that belongs here.
static at_status answer(party *p)
{
    at_status st = AT_OK;
    int fd = -1;
    at_tcp_hello h;

    AT_TRY(at_tcp_accept(p->listener, p->deadline, &fd));
    if (at_tcp_welcome(fd, p->c->secret, &h, soon(p)) != AT_OK) {
        at_log(AT_WARN, "RANKS-STRANGER", "%s", at_error_text());
        goto out;
    }
    const char *why = stranger(p, &h);
    if (why) AT_TRY(at_fail(AT_EINVAL, "rank %u %s", (unsigned)h.rank, why));
    (h.kind == AT_TCP_DATA ? p->data : p->alarm)[h.rank] = fd;
    if (p->mine.rank == 0 && h.kind == AT_TCP_DATA)
        AT_TRY(at_tcp_there(fd, (int)h.port, p->places[h.rank]));
    fd = -1;
out:
    if (fd >= 0) close(fd);
    return st;
}

static bool all_here(const int *fds, int from, int to)
{
    for (int i = from; i < to; i++)
        if (fds[i] < 0) return false;
    return true;
}

// Rank 0: wait for all, tell everybody where the others are, wait for the alarms.
static at_status host(party *p)
{
    at_status st = AT_OK;
    int n = p->c->ranks;

    while (!all_here(p->data, 1, n))
        AT_TRY(answer(p));
    for (int i = 1; i < n; i++)
        AT_TRY(at_tcp_send(p->data[i], p->places, sizeof p->places[0] * (size_t)n, soon(p)));
    while (!all_here(p->alarm, 1, n))
        AT_TRY(answer(p));
out:
    return st;
}

static at_status join(party *p)
{
    at_status st = AT_OK;
    int n = p->c->ranks, me = p->c->rank, port = 0;
    char here[64], any[96];

    snprintf(p->places[0], sizeof p->places[0], "%s", p->c->rendezvous);
    // Listens where rank 0 sees it, which must be known before it says so: a first call finds out.
    AT_TRY(at_tcp_connect(p->places[0], p->deadline, &p->data[0]));
    AT_TRY(at_tcp_here(p->data[0], 0, here));
    snprintf(any, sizeof any, "%s", here);
    AT_TRY(at_tcp_listen(any, &p->listener, &port));
    p->mine.port = (uint32_t)port;
    at_tcp_hello hello = p->mine;
    hello.kind = AT_TCP_DATA;
    AT_TRY(at_tcp_greet(p->data[0], p->c->secret, &hello, p->deadline));
    AT_TRY(at_tcp_recv(p->data[0], p->places, sizeof p->places[0] * (size_t)n, p->deadline));
    for (int i = 0; i < n; i++)
        p->places[i][sizeof p->places[i] - 1] = 0;
    snprintf(p->places[0], sizeof p->places[0], "%s", p->c->rendezvous);
    AT_TRY(call(p, 0, AT_TCP_ALARM, &p->alarm[0]));
    for (int i = 1; i < me; i++) {
        AT_TRY(call(p, i, AT_TCP_DATA, &p->data[i]));
        AT_TRY(call(p, i, AT_TCP_ALARM, &p->alarm[i]));
    }
    while (!all_here(p->data, me + 1, n) || !all_here(p->alarm, me + 1, n))
        AT_TRY(answer(p));
out:
    return st;
}

at_status at_rendezvous(const at_comm_tcp_config *c, int *data, int *alarm)
{
    at_status st = AT_OK;
    int port = 0;
    party p = {.c = c,
               .mine = {.rank = (uint32_t)c->rank, .ranks = (uint32_t)c->ranks},
               .listener = c->rank == 0 && c->listener > 0 ? c->listener : -1,
               .data = data,
               .alarm = alarm,
               .deadline = at_tcp_now() + (c->connect_seconds > 0 ? c->connect_seconds : 60)};

    for (int i = 0; i < c->ranks && i < AT_TCP_RANKS; i++)
        data[i] = alarm[i] = -1;
    if (c->ranks < 1 || c->ranks > AT_TCP_RANKS || c->rank < 0 || c->rank >= c->ranks)
        AT_TRY(at_fail(AT_EINVAL, "rank %d of %d: ranks count from 0, and %d are the most", c->rank,
                       c->ranks, AT_TCP_RANKS));
    if (strlen(c->rendezvous) >= sizeof p.places[0])
        AT_TRY(at_fail(AT_EINVAL, "the address of rank 0 is too long: %s", c->rendezvous));
    at_tcp_digest(c->job ? c->job : "", p.mine.job);
    if (c->rank) {
        AT_TRY(join(&p));
    } else {
        if (p.listener < 0) AT_TRY(at_tcp_listen(c->rendezvous, &p.listener, &port));
        AT_TRY(host(&p));
    }
out:
    if (p.listener >= 0) close(p.listener);
    for (int i = 0; i < c->ranks && i < AT_TCP_RANKS && st != AT_OK; i++) {
        if (data[i] >= 0) close(data[i]);
        if (alarm[i] >= 0) close(alarm[i]);
        data[i] = alarm[i] = -1;
    }
    return st == AT_OK ? st : at_fail_context(st, "rank %d of %d: ", c->rank, c->ranks);
}
