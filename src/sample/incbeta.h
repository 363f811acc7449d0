// SPDX-License-Identifier: Apache-2.0
// incbeta.h - the beta distribution, for the "beta" scheduler.
#ifndef AT_SAMPLE_INCBETA_H
#define AT_SAMPLE_INCBETA_H

// Regularised incomplete beta function I_x(a, b), a, b > 0; about 1e-14 relative.
double at_beta_cdf(double x, double a, double b);
// x with I_x(a, b) = p; 0 for p <= 0, 1 for p >= 1.
double at_beta_quantile(double p, double a, double b);

#endif
