// SPDX-License-Identifier: Apache-2.0
// incbeta.c - regularised incomplete beta by its continued fraction, and the inverse by safe
// Newton.
// Source: Abramowitz & Stegun 26.5.8 (the fraction), evaluated by Lentz's method (1976).
// Owns nothing.
#include <float.h>
#include <math.h>

#include "sample/incbeta.h"

static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign); // lgamma would write a global
}

static double log_beta(double a, double b)
{
    return log_gamma(a) + log_gamma(b) - log_gamma(a + b);
}

static double away_from_zero(double x)
{
    return fabs(x) < 1e-300 ? 1e-300 : x;
}

// 1 + d1/(1 + d2/(1 + ...)) read as A&S 26.5.8; converges fast for x < (a + 1) / (a + b + 2).
static double fraction(double x, double a, double b)
{
    double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), f = d;

    for (int k = 1; k < 500; k++) {
        double even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k));
        double odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1));
        d = 1 / away_from_zero(1 + even * d);
        c = away_from_zero(1 + even / c);
        f *= d * c;
        d = 1 / away_from_zero(1 + odd * d);
        c = away_from_zero(1 + odd / c);
        f *= d * c;
        if (fabs(d * c - 1) < 1e-16) break;
    }
    return f;
}

double at_beta_cdf(double x, double a, double b)
{
    if (!(x > 0)) return 0;
    if (x >= 1) return 1;
    double front = exp(a * log(x) + b * log1p(-x) - log_beta(a, b));
    if (x < (a + 1) / (a + b + 2)) return front * fraction(x, a, b) / a;
    return 1 - front * fraction(1 - x, b, a) / b;
}

double at_beta_quantile(double p, double a, double b)
{
    double low = 0, high = 1, x = 0.5, lb = log_beta(a, b);

    if (!(p > 0)) return 0;
    if (p >= 1) return 1;
    for (int i = 0; i < 200 && high - low > 1e-16 * high; i++) {
        double miss = at_beta_cdf(x, a, b) - p;
        if (fabs(miss) <= 8 * DBL_EPSILON * p) break; // p = 1/2, a = b must give 1/2, not beside it
        if (miss < 0)
            low = x;
        else
            high = x;
        double slope = exp((a - 1) * log(x) + (b - 1) * log1p(-x) - lb);
        double next = x - miss / slope;
        if (!(next > low && next < high)) next = 0.5 * (low + high);
        if (next == x) break;
        x = next;
    }
    return x;
}
