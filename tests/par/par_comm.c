// SPDX-License-Identifier: Apache-2.0
// par_comm.c - the promises of at_comm over threads, over TCP between threads, and between processes; who comes
// without the secret, and a process that ends.
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "comm_suite.h"
#include "par/comm_tcp.h"
#include "par/tcp.h"

enum { MOST = AT_SUITE_RANKS };

static int over_threads(int size, suite_fn *fn)
{
    at_comm *comm[MOST];

    if (at_comm_threads(size, comm) != AT_OK) return -1;
    return suite_threads(size, comm, fn);
}

// --- over TCP ----------------------------------------------------------------------------------
typedef struct seat {
    at_comm_tcp_config config;
    char address[64];
    at_comm *comm;
    at_status st;
    char text[400];
} seat;

static void *sit_down(void *arg)
{
    seat *s = arg;

    s->st = at_comm_tcp(&s->config, &s->comm);
    if (s->st != AT_OK) snprintf(s->text, sizeof s->text, "%s", at_error_text());
    return NULL;
}

static void set_table(int size, seat *s)
{
    int port = 0, listener = -1;

    assert_int_equal(at_tcp_listen("127.0.0.1:0", &listener, &port), AT_OK);
    for (int i = 0; i < size; i++) {
        s[i] = (seat){.config = {.rank = i,
                                 .ranks = size,
                                 .listener = i ? 0 : listener,
                                 .secret = "geheim",
                                 .job = "1",
                                 .connect_seconds = 10,
                                 .wait_seconds = 10}};
        snprintf(s[i].address, sizeof s[i].address, "127.0.0.1:%d", port);
        s[i].config.rendezvous = s[i].address;
    }
}

static void sit_all(int size, seat *s)
{
    pthread_t id[MOST];

    for (int i = 0; i < size; i++)
        assert_int_equal(pthread_create(&id[i], NULL, sit_down, &s[i]), 0);
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
}

static int over_tcp(int size, suite_fn *fn)
{
    seat s[MOST];
    at_comm *comm[MOST];

    set_table(size, s);
    sit_all(size, s);
    for (int i = 0; i < size; i++) {
        if (s[i].st != AT_OK) {
            fprintf(stderr, "%s\n", s[i].text);
            return -1;
        }
        comm[i] = s[i].comm;
    }
    return suite_threads(size, comm, fn);
}

// --- processes -----------------------------------------------------------------------------------
static int run_seat(seat *s, suite_fn *fn)
{
    atomic_int wrong = 0;
    suite_rank r = {.wrong = &wrong};

    (void)alarm(60);
    if (at_comm_tcp(&s->config, &r.comm) != AT_OK) {
        fprintf(stderr, "%s\n", at_error_text());
        return 100;
    }
    fn(&r);
    at_comm_free(r.comm);
    return wrong > 99 ? 99 : wrong;
}

static int over_processes(int size, suite_fn *fn)
{
    seat s[MOST];
    pid_t id[MOST];
    int wrong = 0;

    set_table(size, s);
    fflush(NULL);
    for (int i = 0; i < size; i++) {
        id[i] = fork();
        if (id[i] == 0) {
            if (i) close(s[0].config.listener);
            _exit(run_seat(&s[i], fn));
        }
    }
    close(s[0].config.listener);
    for (int i = 0; i < size; i++) {
        int code = 0;

        assert_int_equal(waitpid(id[i], &code, 0), id[i]);
        wrong += WIFEXITED(code) ? WEXITSTATUS(code) : 1000;
    }
    return wrong;
}

static void threads_keep_the_promises(void **state)
{
    static const suite_carrier c = {
        .name = "threads", .most = 5, .rounds = 100, .run = over_threads};

    (void)state;
    suite_run(&c);
}

static void sockets_keep_the_promises(void **state)
{
    static const suite_carrier c = {.name = "tcp", .most = 5, .rounds = 20, .run = over_tcp};

    (void)state;
    suite_run(&c);
}

static void processes_keep_the_promises(void **state)
{
    static const suite_carrier c = {
        .name = "processes", .most = 4, .rounds = 20, .run = over_processes};

    (void)state;
    suite_run(&c);
}

// --- what goes wrong -------------------------------------------------------------------------------
static void who_does_not_belong_is_told_so(void **state)
{
    seat s[3];

    (void)state;
    set_table(2, s);
    s[1].config.secret = "falsch";
    s[0].config.connect_seconds = s[1].config.connect_seconds = 1;
    sit_all(2, s);
    assert_int_equal(s[1].st, AT_EINVAL);
    assert_non_null(strstr(s[1].text, "ATELIER_SECRET"));
    assert_int_equal(s[0].st, AT_EIO); // it went on waiting for one who does
    assert_non_null(strstr(s[0].text, "rank 0 of 2: the other ranks did not come in time"));

    set_table(2, s);
    s[1].config.job = "2";
    sit_all(2, s);
    assert_int_equal(s[0].st, AT_EINVAL);
    assert_non_null(strstr(s[0].text, "rank 1 has another version, workflow or plan"));
    assert_int_not_equal(s[1].st, AT_OK);

    set_table(3, s);
    s[2].config.rank = 1; // twice
    sit_all(3, s);
    assert_int_equal(s[0].st, AT_EINVAL);
    assert_non_null(strstr(s[0].text, "is here already"));

    set_table(1, s);
    s[0].config.rank = 1;
    sit_all(1, s);
    assert_int_equal(s[0].st, AT_EINVAL);
    s[0].config = (at_comm_tcp_config){.ranks = 2, .rank = 1, .rendezvous = "nowhere"};
    sit_all(1, s);
    assert_non_null(strstr(s[0].text, "HOST:PORT is wanted"));
    s[0].config = (at_comm_tcp_config){
        .ranks = 2, .rank = 1, .rendezvous = "127.0.0.1:1", .connect_seconds = 0.2};
    sit_all(1, s);
    assert_non_null(strstr(s[0].text, "nobody listens at 127.0.0.1:1"));
}

// Noise at the door delays nobody but itself, and the ranks come together behind it.
static void noise_at_the_door_is_sent_away(void **state)
{
    seat s[2];
    int fd = -1;
    char bytes[200] = {0};

    (void)state;
    set_table(2, s);
    assert_int_equal(at_tcp_connect(s[0].address, at_tcp_now() + 5, &fd), AT_OK);
    assert_int_equal(at_tcp_send(fd, bytes, sizeof bytes, at_tcp_now() + 5), AT_OK);
    sit_all(2, s);
    close(fd);
    assert_int_equal(s[0].st, AT_OK);
    assert_int_equal(s[1].st, AT_OK);
    at_comm_free(s[0].comm);
    at_comm_free(s[1].comm);
}

// Rank 2 dies at a moment of its own: in an exchange, before it, before the vote. The others learn it soon.
static void until_one_dies(suite_rank *r)
{
    enum { BIG = 4000000 };
    static char big[2 * MOST * BIG / 8];
    at_comm *c = r->comm;
    int result;
    double began = at_tcp_now();

    if (c->rank == 2) {
        (void)c->ops->all_gather(c, big, big, 1);
        (void)raise(SIGKILL);
    }
    at_status st = c->ops->all_gather(c, big, big, 1);
    SUITE_EXPECT(r,
                 st == AT_OK || st == AT_EIO); // its byte came, or it was gone before the others'
    st = c->ops->all_to_all(c, big, big + MOST * BIG / 8, BIG / 8);
    SUITE_EXPECT(r, st == AT_EIO);
    SUITE_EXPECT(r, strstr(at_error_text(), "is gone"));
    SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_EIO);
    SUITE_EXPECT(r, c->ops->all_gather(c, big, big, 1) == AT_EIO);
    SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_EIO);
    SUITE_EXPECT(r, at_tcp_now() - began < 10);
}

static void a_lost_process_is_everybodys_error_and_nobodys_end(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(over_processes(3 + i % 2, until_one_dies),
                         1000); // who was killed, and no more
}

typedef struct bell {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool rung;
} bell;

static void ring_it(void *ctx)
{
    bell *b = ctx;

    pthread_mutex_lock(&b->lock);
    b->rung = true;
    pthread_cond_broadcast(&b->moved);
    pthread_mutex_unlock(&b->lock);
}

// Rank 0 waits for something that is no exchange.
static void watch(suite_rank *r)
{
    at_comm *c = r->comm;
    bell b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    int result;

    for (int round = 0; round < 20; round++) {
        if (c->rank) {
            c->ops->abort(c, AT_ECANCELLED);
        } else {
            b.rung = false;
            c->ops->watch(c, ring_it, &b, true);
            pthread_mutex_lock(&b.lock);
            while (!b.rung)
                pthread_cond_wait(&b.moved, &b.lock);
            pthread_mutex_unlock(&b.lock);
            c->ops->watch(c, ring_it, &b, false);
        }
        SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK);
    }
}

static void an_abort_rings_who_watches(void **state)
{
    (void)state;
    assert_int_equal(over_threads(2, watch), 0);
    assert_int_equal(over_tcp(2, watch), 0);
}

static void no_memory_leaves_nothing_behind(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    seat s[1];

    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        set_table(1, s);
        at_mem_fail_at(n, false);
        (void)sit_down(&s[0]);
        at_mem_fail_at(0, false);
        assert_int_equal(s[0].st, AT_ENOMEM);
        assert_null(s[0].comm);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_keep_the_promises),
        cmocka_unit_test(sockets_keep_the_promises),
        cmocka_unit_test(processes_keep_the_promises),
        cmocka_unit_test(who_does_not_belong_is_told_so),
        cmocka_unit_test(noise_at_the_door_is_sent_away),
        cmocka_unit_test(a_lost_process_is_everybodys_error_and_nobodys_end),
        cmocka_unit_test(an_abort_rings_who_watches),
        cmocka_unit_test(no_memory_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
