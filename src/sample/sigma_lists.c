// SPDX-License-Identifier: Apache-2.0
// sigma_lists.c - see sigma_lists.h.
// Easy to get wrong: the interpolation runs from the lowest sigma up, as numpy.interp wants it; rounding is
// Python's (halves to even).
#include "sample/sigma_lists.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sample/gits_table.h"

static const struct {
    const char *model;
    int n;
    double sigma[41];
} lists[] = {
    {"SD1",
     11,
     {14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
      0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582}},
    {"SDXL",
     11,
     {14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
      0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582}},
    {"SVD", 11, {700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002}},
    {"FLUX",
     11,
     {0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001}},
    {"Wan", 21, {1.0,   0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98,  0.975, 0.973,
                 0.968, 0.96,  0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001}},
    {"Chroma", 41, {0.992, 0.99,  0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943,
                    0.931, 0.917, 0.9,   0.881, 0.858, 0.832, 0.802, 0.769, 0.731, 0.69,  0.646,
                    0.599, 0.55,  0.501, 0.451, 0.402, 0.355, 0.311, 0.27,  0.232, 0.199, 0.169,
                    0.143, 0.12,  0.101, 0.084, 0.07,  0.058, 0.048, 0.001}},
};

// Value i of `points` on the falling list of n, straight in the logarithm.
static double between(const double *list, int n, int points, int i)
{
    double at = points > 1 ? (double)(points - 1 - i) * (1.0 / (points - 1)) : 0,
           step = 1.0 / (n - 1);
    if (i == 0 && points > 1) return list[0];
    int j = (int)(at / step);
    if (j > n - 2) j = n - 2;
    while (j > 0 && at < j * step)
        j--;
    double low = log(list[n - 1 - j]), high = log(list[n - 2 - j]);
    return exp((high - low) / step * (at - j * step) + low);
}

// The list at steps + 1 points, its tail for denoise, and 0 in the end.
static at_status from_list(const double *list, int count, int steps, double denoise, float **sigmas,
                           size_t *n)
{
    *sigmas = NULL;
    *n = 0;
    if (denoise <= 0) return AT_OK;
    int used = denoise < 1 ? (int)rint(steps * denoise) : steps;
    float *out = at_calloc((size_t)used + 1, sizeof *out);
    if (!out) return at_fail(AT_ENOMEM, "schedule: no memory for %d sigmas", used + 1);
    for (int i = 0; i < used; i++) {
        int from = steps - used + i;
        out[i] = (float)(count == steps + 1 ? list[from] : between(list, count, steps + 1, from));
    }
    *sigmas = out;
    *n = (size_t)used + 1;
    return AT_OK;
}

static at_status check_steps(const char *what, int steps, int least)
{
    if (steps >= least && steps <= AT_STEPS_MAX) return AT_OK;
    return at_fail(AT_EINVAL, "%s: %d steps, expected %d..%d", what, steps, least, AT_STEPS_MAX);
}

at_status at_schedule_listed(const char *model, int steps, double denoise, float **sigmas,
                             size_t *n)
{
    at_status st = check_steps(model ? model : "schedule", steps, 0);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (model && strcmp(model, lists[i].model) == 0)
            return from_list(lists[i].sigma, lists[i].n, steps, denoise, sigmas, n);
    return at_fail(AT_EINVAL, "no list of sigmas for \"%s\" (SD1, SDXL, SVD, FLUX, Wan, Chroma)",
                   model ? model : "");
}

at_status at_schedule_gits(double coeff, int steps, double denoise, float **sigmas, size_t *n)
{
    double list[AT_GITS_STEPS + 1], hundredths = rint(coeff * 100);
    at_status st = check_steps("GITS", steps, 2);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    double row = (hundredths - 80) / 5;
    if (!(row >= 0 && row < AT_GITS_ROWS) || row != floor(row))
        return at_fail(AT_EINVAL, "GITS: coeff %g, expected one of 0.80, 0.85 .. 1.50", coeff);
    int used = steps < AT_GITS_STEPS ? steps : AT_GITS_STEPS;
    const uint8_t *index = at_gits_index[(int)row] + at_gits_start(used);
    for (int i = 0; i <= used; i++)
        list[i] = at_gits_sigma[i == 0 ? 0 : i == used ? AT_GITS_SIGMAS - 1 : index[i - 1]];
    return from_list(list, used + 1, steps, denoise, sigmas, n);
}

at_status at_schedule_sd_turbo(const at_model_sampling *m, int steps, double denoise,
                               float **sigmas, size_t *n)
{
    at_status st = check_steps("SDTurboScheduler", steps, 0);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    if (!(denoise >= 0 && denoise <= 1))
        return at_fail(AT_EINVAL, "SDTurboScheduler: denoise %g, expected 0..1", denoise);
    int first = 10 - (int)(10 * denoise), used = steps < 10 - first ? steps : 10 - first;
    float *out = at_calloc((size_t)used + 1, sizeof *out);
    if (!out) return at_fail(AT_ENOMEM, "schedule: no memory for %d sigmas", used + 1);
    for (int i = 0; i < used; i++)
        out[i] = at_timestep_to_sigma(m, (float)(999 - 100 * (first + i)));
    *sigmas = out;
    *n = (size_t)used + 1;
    return AT_OK;
}
