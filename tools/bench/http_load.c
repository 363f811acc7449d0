// SPDX-License-Identifier: Apache-2.0
// http_load.c - a generator of POST requests that costs little, so that a server and it fit on two cores.
// Idea: one thread, one epoll, one request in flight on each of many keep-alive connections; the request is the same
// bytes each time, or (NUMBER) has another number wherever the body has that one. Every answer is read whole: its status is counted, and the "prompt_id" of each that was accepted is
// kept, so that the end can say how many different jobs there are.
// Easy to get wrong: the time of an answer runs from its own send to its last byte, and a server that stalls is seen
// only by what was in flight (a closed loop): read p99 beside the rate.
// Build: cc -O2 -o http_load http_load.c       Use: http_load PORT PATH BODY_FILE CONNECTIONS SECONDS [NUMBER]
// Prints one JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 65536, ID = 36, PLACES = 16, DIGITS = 8 };

typedef struct connection {
    int fd;
    double sent;
    size_t got, want; // bytes of the answer: here, and in all (0: its head is not here yet)
    int status;
    char in[ANSWER + 1];
} connection;

typedef struct results {
    double *seconds;
    char (*ids)[ID];
    size_t count, cap, refused, failed;
} results;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_connection(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

// What is sent, and where in it the number stands that changes each time.
typedef struct request {
    char *text;
    size_t bytes, places[PLACES], count;
    unsigned long number;
} request;

static void find_places(request *r, const char *number)
{
    if (strlen(number) != DIGITS || *number == '0') {
        fprintf(stderr, "http_load: %s: a number of %d digits is wanted\n", number, DIGITS);
        exit(2);
    }
    r->number = strtoul(number, NULL, 10);
    for (char *at = r->text; (at = strstr(at, number)) && r->count < PLACES; at += DIGITS)
        r->places[r->count++] = (size_t)(at - r->text);
    if (!r->count) {
        fprintf(stderr, "http_load: %s is not in the body\n", number);
        exit(2);
    }
}

static void change(request *r)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%0*lu", DIGITS, ++r->number);
    for (size_t i = 0; i < r->count; i++)
        memcpy(r->text + r->places[i], digits, DIGITS);
}

static void ask(connection *c, request *r)
{
    if (r->count) change(r);
    c->sent = now();
    c->got = c->want = 0;
    if (send(c->fd, r->text, r->bytes, MSG_NOSIGNAL) != (ssize_t)r->bytes) die("send");
}

// The status and the length, once the head is whole.
static void read_head(connection *c)
{
    c->in[c->got] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    if (!length || length > end || sscanf(c->in, "HTTP/1.%*d %d", &c->status) != 1) {
        fprintf(stderr, "http_load: an answer that has no status or no length: %.80s\n", c->in);
        exit(1);
    }
    c->want = (size_t)(end + 4 - c->in) + strtoul(length + 17, NULL, 10);
    if (c->want > ANSWER) {
        fprintf(stderr, "http_load: an answer of %zu bytes\n", c->want);
        exit(1);
    }
}

static void keep(results *r, const connection *c, double at)
{
    const char *id = strstr(c->in, "\"prompt_id\": \"");
    if (!id) id = strstr(c->in, "\"prompt_id\":\"");
    if (c->status != 200 || !id) {
        (void)(c->status == 429 || c->status == 503 ? r->refused++ : r->failed++);
        return;
    }
    if (r->count == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 1 << 16;
        r->seconds = realloc(r->seconds, r->cap * sizeof *r->seconds);
        r->ids = realloc(r->ids, r->cap * sizeof *r->ids);
        if (!r->seconds || !r->ids) die("memory");
    }
    r->seconds[r->count] = at - c->sent;
    id = strchr(id + 11, '"') + 1;
    memcpy(r->ids[r->count++], id, ID);
}

// True when an answer was completed.
static bool hear(connection *c, results *r)
{
    ssize_t n = recv(c->fd, c->in + c->got, ANSWER - c->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) die("the server closed a connection");
    c->got += (size_t)n;
    if (!c->want) read_head(c);
    if (!c->want || c->got < c->want) return false;
    c->in[c->got] = 0;
    keep(r, c, now());
    return true;
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, ID);
}

static size_t different(results *r)
{
    size_t n = r->count > 0;
    qsort(r->ids, r->count, ID, by_id);
    for (size_t i = 1; i < r->count; i++)
        n += memcmp(r->ids[i], r->ids[i - 1], ID) != 0;
    return n;
}

static void tell(results *r, double taken)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    size_t n = r->count;
    qsort(r->seconds, n, sizeof *r->seconds, by_time);
    printf("{\"accepted\": %zu, \"different\": %zu, \"refused\": %zu, \"failed\": %zu, "
           "\"seconds\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, "
           "\"generator_cpu_s\": %.3f}\n",
           n, different(r), r->refused, r->failed, taken, n ? r->seconds[n / 2] * 1e3 : -1,
           n ? r->seconds[(size_t)((double)n * 0.99)] * 1e3 : -1, n ? r->seconds[n - 1] * 1e3 : -1,
           cpu);
}

static request read_request(const char *port, const char *path, const char *file)
{
    FILE *f = fopen(file, "rb");
    char *body = NULL, *text = NULL;
    size_t bytes = 0, cap = 0;
    if (!f || getdelim(&body, &cap, EOF, f) < 0) die(file);
    bytes = strlen(body);
    fclose(f);
    int len =
        asprintf(&text,
                 "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 path, port, bytes, body);
    if (len < 0) die("memory");
    free(body);
    return (request){.text = text, .bytes = (size_t)len};
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "use: http_load PORT PATH BODY_FILE CONNECTIONS SECONDS [NUMBER]\n");
        return 2;
    }
    int count = atoi(argv[4]), poll = epoll_create1(0), waiting = count;
    double seconds = atof(argv[5]);
    request rq = read_request(argv[1], argv[2], argv[3]);
    connection *all = calloc((size_t)count, sizeof *all);
    struct epoll_event events[256];
    results r = {0};

    if (!all || count < 1) die("connections");
    if (argc == 7) find_places(&rq, argv[6]);
    for (int i = 0; i < count; i++) {
        all[i].fd = open_connection(atoi(argv[1]));
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &e) != 0) die("epoll");
    }
    double start = now(), end = start + seconds;
    for (int i = 0; i < count; i++)
        ask(&all[i], &rq);
    while (waiting) {
        int got = epoll_wait(poll, events, 256, -1);
        bool more = now() < end;
        for (int i = 0; i < got; i++) {
            connection *c = events[i].data.ptr;
            if (!hear(c, &r)) continue;
            if (more)
                ask(c, &rq);
            else
                waiting--;
        }
    }
    tell(&r, now() - start);
    for (int i = 0; i < count; i++)
        close(all[i].fd);
    return 0;
}
