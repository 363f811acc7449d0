// SPDX-License-Identifier: Apache-2.0
// shares.c - see shares.h.
#include "par/shares.h"

#include <math.h>
#include <string.h>

void at_share_of(const int *share, int64_t total, int rank, int size, int64_t *first,
                 int64_t *length)
{
    int64_t base = total / size, rest = total % size, sum = 0, before = 0;

    *first = base * rank + (rank < rest ? rank : rest);
    *length = base + (rank < rest);
    if (size > AT_SHARE_RANKS || !share[0]) return;
    for (int i = 0; i < size; i++) {
        sum += share[i];
        if (i < rank) before += share[i];
    }
    *first = (2 * total * before + sum) / (2 * sum);
    *length = (2 * total * (before + share[rank]) + sum) / (2 * sum) - *first;
}

void at_shares_of_rates(const double *rates, int n, uint8_t out[AT_SHARE_RANKS])
{
    static const double alike = 0.05;
    double most = 0, least = INFINITY;

    memset(out, 0, AT_SHARE_RANKS);
    for (int i = 0; i < n; i++) {
        most = fmax(most, rates[i]);
        least = fmin(least, rates[i]);
    }
    if (n > AT_SHARE_RANKS || least <= 0 || most <= least * (1 + alike)) return;
    for (int i = 0; i < n; i++)
        out[i] = (uint8_t)fmax(1, round(AT_SHARE_MOST * rates[i] / most));
}
