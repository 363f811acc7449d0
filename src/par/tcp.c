// SPDX-License-Identifier: Apache-2.0
// tcp.c - see tcp.h. RFC 2104 (HMAC) and FIPS 180-4 (SHA-256) by libcrypto.
// Easy to get wrong: a peer whose host vanishes sends no end of the stream; keepalive and TCP_USER_TIMEOUT make
// one of it within 10 s.
#include "par/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

double at_tcp_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// --- addresses ---------------------------------------------------------------------------------
static at_status resolve(const char *address, int flags, struct addrinfo **out)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    size_t n = colon ? (size_t)(colon - address) : 0;

    if (!n || n >= sizeof host || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return at_fail(AT_EINVAL, "\"%s\" is no address: HOST:PORT is wanted", address);
    snprintf(host, sizeof host, "%.*s", (int)n, address);
    if (host[0] == '[' && host[n - 1] == ']') { // an IPv6 address
        memmove(host, host + 1, n - 2);
        host[n - 2] = 0;
    }
    int e = getaddrinfo(host, colon + 1, &hints, out);
    if (e) return at_fail(AT_EIO, "%s: %s", address, gai_strerror(e));
    return AT_OK;
}

// Small frames go at once; a dead host is noticed.
static void tune(int fd)
{
    int one = 1, idle = 3, interval = 2, count = 3;
    unsigned timeout = 9000; // ms

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

at_status at_tcp_listen(const char *address, int *fd, int *port)
{
    at_status st = AT_OK;
    struct addrinfo *list = NULL;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    int s = -1, one = 1;

    *fd = -1;
    AT_TRY(resolve(address, AI_PASSIVE, &list));
    for (struct addrinfo *a = list; a && s < 0; a = a->ai_next) {
        s = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (s < 0) continue;
        (void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(s, a->ai_addr, a->ai_addrlen) == 0 && listen(s, 64) == 0) break;
        int e = errno;
        close(s);
        s = -1;
        errno = e;
    }
    if (s < 0 || getsockname(s, (struct sockaddr *)&bound, &size) != 0)
        AT_TRY(at_fail(AT_EIO, "listening at %s: %s", address, strerror(errno)));
    *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                              : ((struct sockaddr_in *)&bound)->sin_port);
    *fd = s;
    s = -1;
out:
    if (s >= 0) close(s);
    if (list) freeaddrinfo(list);
    return st;
}

// What may still be waited, in ms; at least one while anything is left.
static int left(double deadline)
{
    double s = deadline - at_tcp_now();

    return s <= 0 ? 0 : s > 1e6 ? 1000000000 : (int)(s * 1000) + 1;
}

static bool ready(int fd, short events, double deadline)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int n = poll(&p, 1, left(deadline));

        if (n > 0) return true;
        if (n == 0 || errno != EINTR) return false;
    }
}

static int connect_once(const struct addrinfo *a, double deadline)
{
    int e = 0, s = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof e;

    if (s < 0) return -1;
    if (connect(s, a->ai_addr, a->ai_addrlen) == 0) return s;
    e = errno;
    if (e == EINPROGRESS) {
        e = ETIMEDOUT;
        if (ready(s, POLLOUT, deadline)) (void)getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &size);
    }
    if (!e) return s;
    close(s);
    errno = e;
    return -1;
}

at_status at_tcp_connect(const char *address, double deadline, int *fd)
{
    at_status st = AT_OK;
    struct addrinfo *list = NULL;

    *fd = -1;
    AT_TRY(resolve(address, 0, &list));
    for (;;) {
        for (struct addrinfo *a = list; a && *fd < 0; a = a->ai_next)
            *fd = connect_once(a, deadline);
        if (*fd >= 0 || left(deadline) == 0) break;
        (void)poll(NULL, 0, 50);
    }
    if (*fd < 0)
        AT_TRY(at_fail(AT_EIO, "nobody listens at %s (%s); is rank 0 there?", address,
                       strerror(errno)));
    tune(*fd);
out:
    if (list) freeaddrinfo(list);
    return st;
}

at_status at_tcp_accept(int listener, double deadline, int *fd)
{
    for (;;) {
        *fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (*fd >= 0) break;
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return at_fail(AT_EIO, "accepting a rank: %s", strerror(errno));
        if (!ready(listener, POLLIN, deadline))
            return at_fail(AT_EIO, "the other ranks did not come in time");
    }
    tune(*fd);
    return AT_OK;
}

at_status at_tcp_send(int fd, const void *data, size_t n, double deadline)
{
    const char *p = data;

    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

        if (k >= 0) {
            p += k;
            n -= (size_t)k;
        } else if (errno != EAGAIN && errno != EINTR) {
            return at_fail(AT_EIO, "sending to a rank: %s", strerror(errno));
        } else if (!ready(fd, POLLOUT, deadline)) {
            return at_fail(AT_EIO, "sending to a rank: it takes nothing");
        }
    }
    return AT_OK;
}

at_status at_tcp_recv(int fd, void *data, size_t n, double deadline)
{
    char *p = data;

    while (n) {
        ssize_t k = recv(fd, p, n, 0);

        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (k == 0) {
            return at_fail(AT_EIO, "a rank has hung up");
        } else if (errno != EAGAIN && errno != EINTR) {
            return at_fail(AT_EIO, "hearing a rank: %s", strerror(errno));
        } else if (!ready(fd, POLLIN, deadline)) {
            return at_fail(AT_EIO, "a rank says nothing");
        }
    }
    return AT_OK;
}

static at_status name_of(const struct sockaddr_storage *a, socklen_t size, int port, char out[64])
{
    char host[48];

    if (getnameinfo((const struct sockaddr *)a, size, host, sizeof host, NULL, 0, NI_NUMERICHOST))
        return at_fail(AT_EIO, "a socket has no address");
    snprintf(out, 64, a->ss_family == AF_INET6 ? "[%s]:%d" : "%s:%d", host, port);
    return AT_OK;
}

at_status at_tcp_here(int fd, int port, char out[64])
{
    struct sockaddr_storage a;
    socklen_t size = sizeof a;

    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0)
        return at_fail(AT_EIO, "a socket has no address: %s", strerror(errno));
    return name_of(&a, size, port, out);
}

at_status at_tcp_there(int fd, int port, char out[64])
{
    struct sockaddr_storage a;
    socklen_t size = sizeof a;

    if (getpeername(fd, (struct sockaddr *)&a, &size) != 0)
        return at_fail(AT_EIO, "a rank has hung up: %s", strerror(errno));
    return name_of(&a, size, port, out);
}

// --- who is it? ----------------------------------------------------------------------------------
enum { NONCE = 32, PROOF = 32 };
static const char magic[8] = "atelier2";

typedef struct call {
    char magic[8];
    at_tcp_hello hello; // both ends run the same build: see job
    unsigned char nonce[NONCE];
} call;

void at_tcp_digest(const char *text, unsigned char out[32])
{
    (void)EVP_Digest(text, strlen(text), out, NULL, EVP_sha256(), NULL);
}

// Over the nonce of who is to be convinced, then the rest: no proof fits another connection or the other way.
static void prove(const char *secret, const unsigned char nonce[NONCE], const void *rest, size_t n,
                  unsigned char out[PROOF])
{
    unsigned char text[NONCE + sizeof(call) + NONCE];
    unsigned size = PROOF;
    const char *key = secret ? secret : "";

    memcpy(text, nonce, NONCE);
    memcpy(text + NONCE, rest, n);
    (void)HMAC(EVP_sha256(), key, (int)strlen(key), text, NONCE + n, out, &size);
}

at_status at_tcp_greet(int fd, const char *secret, const at_tcp_hello *mine, double deadline)
{
    at_status st = AT_OK;
    unsigned char theirs[NONCE], proof[PROOF], wanted[PROOF];
    call c;

    memset(&c, 0, sizeof c); // padding is sent too
    memcpy(c.magic, magic, sizeof c.magic);
    c.hello = *mine;
    AT_TRY(at_tcp_recv(fd, theirs, NONCE, deadline));
    if (RAND_bytes(c.nonce, NONCE) != 1) AT_TRY(at_fail(AT_EIO, "no random numbers"));
    prove(secret, theirs, &c, sizeof c, proof);
    AT_TRY(at_tcp_send(fd, &c, sizeof c, deadline));
    AT_TRY(at_tcp_send(fd, proof, PROOF, deadline));
    st = at_tcp_recv(fd, proof, PROOF, deadline);
    prove(secret, c.nonce, theirs, NONCE, wanted);
    if (st != AT_OK || CRYPTO_memcmp(proof, wanted, PROOF) != 0)
        AT_TRY(at_fail(AT_EINVAL, "another rank refuses this one or is not what it says: the "
                                  "secret (ATELIER_SECRET), the number of ranks, the version, the "
                                  "workflow and the plan must be the same in all processes"));
out:
    return st;
}

at_status at_tcp_welcome(int fd, const char *secret, at_tcp_hello *theirs, double deadline)
{
    at_status st = AT_OK;
    unsigned char mine[NONCE], proof[PROOF], wanted[PROOF];
    call c;

    if (RAND_bytes(mine, NONCE) != 1) AT_TRY(at_fail(AT_EIO, "no random numbers"));
    AT_TRY(at_tcp_send(fd, mine, NONCE, deadline));
    AT_TRY(at_tcp_recv(fd, &c, sizeof c, deadline));
    AT_TRY(at_tcp_recv(fd, proof, PROOF, deadline));
    prove(secret, mine, &c, sizeof c, wanted);
    if (memcmp(c.magic, magic, sizeof magic) != 0 || CRYPTO_memcmp(proof, wanted, PROOF) != 0)
        AT_TRY(at_fail(AT_EINVAL, "somebody came who does not know the secret (ATELIER_SECRET)"));
    prove(secret, c.nonce, mine, NONCE, proof);
    *theirs = c.hello;
    AT_TRY(at_tcp_send(fd, proof, PROOF, deadline));
out:
    return st;
}
