// SPDX-License-Identifier: Apache-2.0
// rng.c - the Mersenne Twister MT19937 (Matsumoto & Nishimura 1998), read as torch's CPU generator
// does. Idea: 624 words are renewed at once when the last was read. Floats take the LOW 24 bits of
// a word, doubles the low 53 bits of two words, the first word being the high half. Owns nothing.
#include "base/rng.h"

enum { N = 624, M = 397 };

void at_mt_seed(at_mt19937 *r, uint64_t seed)
{
    r->state[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < N; j++) {
        r->state[j] = 1812433253u * (r->state[j - 1] ^ (r->state[j - 1] >> 30)) + j;
    }
    r->left = 1;
    r->next = 0;
}

static uint32_t twist(uint32_t far, uint32_t high, uint32_t low)
{
    uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);

    return far ^ (mixed >> 1) ^ (-(low & 1u) & 0x9908b0dfu);
}

// Three runs instead of one with remainders: the compiler makes vectors of the first two.
static void renew(at_mt19937 *r)
{
    uint32_t *s = r->state;

    for (int i = 0; i < N - M; i++)
        s[i] = twist(s[i + M], s[i], s[i + 1]);
    for (int i = N - M; i < N - 1; i++)
        s[i] = twist(s[i + M - N], s[i], s[i + 1]);
    s[N - 1] = twist(s[M - 1], s[N - 1], s[0]);
    r->left = N;
    r->next = 0;
}

static uint32_t temper(uint32_t y)
{
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float unit_f32(uint32_t word)
{
    return (float)(int32_t)(word & 0xffffffu) * 0x1p-24f;
}

uint32_t at_mt_u32(at_mt19937 *r)
{
    if (--r->left == 0) renew(r);
    return temper(r->state[r->next++]);
}

void at_mt_fill_f32(at_mt19937 *r, float *out, int64_t n)
{
    while (n > 0) {
        if (r->left == 1) { // the next word is the first of a new state
            renew(r);
            r->left = N + 1;
        }
        int64_t run = r->left - 1 < n ? r->left - 1 : n;
        const uint32_t *s = r->state + r->next;
        for (int64_t i = 0; i < run; i++)
            out[i] = unit_f32(temper(s[i]));
        r->left -= (int)run;
        r->next += (int)run;
        out += run;
        n -= run;
    }
}

float at_mt_f32(at_mt19937 *r)
{
    return unit_f32(at_mt_u32(r));
}

double at_mt_f64(at_mt19937 *r)
{
    uint64_t high = at_mt_u32(r);
    uint64_t word = (high << 32) | at_mt_u32(r);

    return (double)(word & ((1ull << 53) - 1)) * 0x1p-53;
}
