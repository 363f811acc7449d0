// SPDX-License-Identifier: Apache-2.0
// lanes.c - see lanes.h.
#include "serve/lanes.h"

at_status at_lanes_open(int devices, int wanted, int most, bool host, at_lanes *out)
{
    int n = devices > AT_LANES_MOST ? AT_LANES_MOST : devices < 1 ? 1 : devices;
    int can = wanted > 1 ? n / wanted : n;

    if (most > (can > 0 ? can : 1))
        return at_fail(AT_EUSAGE,
                       "--lanes %d: with %d devices, of which a job wants %d, %d at most", most,
                       devices, wanted > 1 ? wanted : 1, can > 0 ? can : 1);
    int slots = most ? most : host || can < 1 ? 1 : can;
    *out = (at_lanes){.devices = devices, .slots = slots, .unit = n / slots, .least = 1};
    return AT_OK;
}

int at_lanes_reach(const at_lanes *l, int lane)
{
    int block = lane & -lane, rest = l->slots - lane;
    return lane == 0 || block > rest ? rest : block;
}

static int power_below(int n)
{
    int p = 1;
    while (p * 2 <= n)
        p *= 2;
    return p;
}

static unsigned mask(int lane, int slots)
{
    return ((1u << slots) - 1) << lane;
}

static bool is_free(const at_lanes *l, unsigned up, int lane)
{
    return up >> lane & 1 && !(l->taken >> lane & 1);
}

// Slots for each of `jobs` jobs that share `spare` of them.
static int share(const at_lanes *l, int spare, size_t jobs)
{
    int each = (size_t)spare > jobs && jobs > 0 ? (int)((size_t)spare / jobs) : 1;

    if (each < l->least) each = l->least;
    return each >= l->slots ? l->slots : power_below(each);
}

int at_lanes_place(const at_lanes *l, unsigned up, size_t waiting, int *slots)
{
    int spare = 0, lanes = 0;

    for (int i = 0; i < l->slots; i++) {
        spare += !(l->taken >> i & 1);
        lanes += is_free(l, up, i);
    }
    if (!lanes || !waiting) return -1;
    int size = share(l, spare, waiting < (size_t)lanes ? waiting : (size_t)lanes);
    for (;; size = power_below(size - 1)) {
        for (int i = 0; i < l->slots; i++)
            if (is_free(l, up, i) && at_lanes_reach(l, i) >= size && !(l->taken & mask(i, size))) {
                *slots = size;
                return i;
            }
        if (size <= l->least || size == 1) return -1;
    }
}

void at_lanes_take(at_lanes *l, int lane, int slots)
{
    l->held[lane] = slots;
    l->taken |= mask(lane, slots);
}

void at_lanes_leave(at_lanes *l, int lane)
{
    l->taken &= ~mask(lane, l->held[lane]);
    l->held[lane] = 0;
}

int at_lanes_ranks(const at_lanes *l, int slots)
{
    return slots == l->slots ? 0 : slots * l->unit;
}

unsigned at_lanes_wanted(const at_lanes *l, size_t jobs)
{
    unsigned wanted = 1;
    int size = share(l, l->slots, jobs);

    for (int i = size; i < l->slots; i += size)
        if (at_lanes_reach(l, i) >= size) wanted |= 1u << i;
    return wanted;
}

void at_lanes_learn(at_lanes *l, int ranks)
{
    int slots = (ranks + l->unit - 1) / l->unit, least = 1;

    if (ranks < 1) return;
    while (least < slots)
        least *= 2;
    l->least = least > l->slots ? l->slots : least;
}
