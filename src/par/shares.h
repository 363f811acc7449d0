// SPDX-License-Identifier: Apache-2.0
// shares.h - ranks of unlike speed: how much of the tokens, rows, heads and forwards each of them takes.
// Idea: small whole numbers, one a rank, that all ranks know alike; a run of things is cut where their running sum
// says, to the nearest whole. All zeros are equal shares, cut as ever (the first total % n have one more).
// Owns nothing.
#ifndef AT_PAR_SHARES_H
#define AT_PAR_SHARES_H

#include <stdint.h>

enum { AT_SHARE_RANKS = 16, AT_SHARE_MOST = 100 };

// Rank `rank`'s run of `total` things over size ranks. share[0] == 0, or more than AT_SHARE_RANKS of them: equal ones.
void at_share_of(const int *share, int64_t total, int rank, int size, int64_t *first,
                 int64_t *length);
// Of measured rates: the fastest has AT_SHARE_MOST. All zeros where they differ by less than 5 %, or one is unknown.
void at_shares_of_rates(const double *rates, int n, uint8_t out[AT_SHARE_RANKS]);

#endif
