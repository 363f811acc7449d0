// SPDX-License-Identifier: Apache-2.0
// digest.c - SipHash-2-4-128 as a running digest.
// Owns: the random key of the process, drawn once.
#include "flow/digest.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static at_digest g_key;

static void draw_key(void)
{
    struct timespec now;

    if (getrandom(&g_key, sizeof g_key, GRND_NONBLOCK) == (ssize_t)sizeof g_key) return;
    clock_gettime(CLOCK_REALTIME, &now); // early boot: weaker, still not constant
    g_key.a = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u;
    g_key.b = (uint64_t)now.tv_sec ^ (uintptr_t)&now;
}

void at_hash_key(at_digest *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, draw_key);
    *out = g_key;
}

static uint64_t rotate(uint64_t x, int n)
{
    return (x << n) | (x >> (64 - n));
}

static void rounds(uint64_t v[4], int n)
{
    while (n--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

void at_hash_start(at_hash *h, at_digest key)
{
    *h = (at_hash){.v = {0x736f6d6570736575u ^ key.a, 0x646f72616e646f6du ^ key.b ^ 0xee,
                         0x6c7967656e657261u ^ key.a, 0x7465646279746573u ^ key.b}};
}

static void word(at_hash *h, uint64_t m)
{
    h->v[3] ^= m;
    rounds(h->v, 2);
    h->v[0] ^= m;
}

void at_hash_u64(at_hash *h, uint64_t v)
{
    unsigned shift = 8 * (h->bytes & 7);

    word(h, h->tail | v << shift);
    h->tail = shift ? v >> (64 - shift) : 0;
    h->bytes += 8;
}

void at_hash_bytes(at_hash *h, const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t v;

    for (; n >= 8; n -= 8, b += 8) {
        v = 0;
        for (int i = 0; i < 8; i++)
            v |= (uint64_t)b[i] << (8 * i);
        at_hash_u64(h, v);
    }
    for (; n; n--, b++) {
        h->tail |= (uint64_t)*b << (8 * (h->bytes & 7));
        if ((++h->bytes & 7) == 0) {
            word(h, h->tail);
            h->tail = 0;
        }
    }
}

void at_hash_text(at_hash *h, const char *s)
{
    size_t n = strlen(s);

    at_hash_u64(h, n);
    at_hash_bytes(h, s, n);
}

at_digest at_hash_end(at_hash *h)
{
    uint64_t last = h->tail | (uint64_t)h->bytes << 56;
    at_digest out;

    word(h, last);
    h->v[2] ^= 0xee;
    rounds(h->v, 4);
    out.a = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    h->v[1] ^= 0xdd;
    rounds(h->v, 4);
    out.b = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    return out;
}
