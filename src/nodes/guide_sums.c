// SPDX-License-Identifier: Apache-2.0
// guide_sums.c - see guide_sums.h.
#include "nodes/guide_sums.h"

#include <math.h>

#include "base/mem.h"

float *at_sum_values(at_ops *o, const at_tensor *t)
{
    at_tensor *whole = at_contiguous(o, t);
    if (!whole || at_ops_status(o) != AT_OK) return NULL;
    size_t bytes = (size_t)at_tensor_count(whole) * sizeof(float);
    float *v = at_alloc(bytes);
    if (!v) return (float *)at_ops_poison(o, AT_ENOMEM, "guidance: no memory for %zu bytes", bytes);
    at_status st = at_tensor_to_host(whole, AT_F32, v, bytes);
    if (st == AT_OK) return v;
    at_free(v);
    return (float *)at_ops_poison(o, st, "%s", at_error_text());
}

bool at_sum_dots(at_ops *o, const at_tensor *a, const at_tensor *b, double *out)
{
    float *p = at_sum_values(o, a), *q = at_sum_values(o, b);
    bool done = p && q && at_tensor_count(a) == at_tensor_count(b);
    if (p && q && !done) at_ops_poison(o, AT_EINVAL, "guidance: two sizes of latents");
    if (done) {
        int64_t n = a->shape[0], each = n ? at_tensor_count(a) / n : 0;
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t k = i * each; k < (i + 1) * each; k++)
                sum += (double)p[k] * (double)q[k];
            out[i] = sum;
        }
    }
    at_free(p);
    at_free(q);
    return done;
}

bool at_sum_dot(at_ops *o, const at_tensor *a, const at_tensor *b, double *out)
{
    double *each = NULL;

    *out = 0;
    if (!a || !b || at_ops_status(o) != AT_OK) return false;
    each = at_calloc((size_t)a->shape[0] + 1, sizeof *each);
    if (!each) {
        at_ops_poison(o, AT_ENOMEM, "guidance: no memory");
        return false;
    }
    bool done = at_sum_dots(o, a, b, each);
    for (int64_t i = 0; done && i < a->shape[0]; i++)
        *out += each[i];
    at_free(each);
    return done;
}

static double deviation(const float *p, int64_t n)
{
    double mean = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        mean += (double)p[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)p[i] - mean) * ((double)p[i] - mean);
    return sqrt(sum / (double)(n - 1));
}

bool at_sum_deviations(at_ops *o, const at_tensor *t, double *out)
{
    float *p = at_sum_values(o, t);
    if (!p) return false;
    int64_t each = t->shape[0] ? at_tensor_count(t) / t->shape[0] : 0;
    for (int64_t i = 0; i < t->shape[0]; i++)
        out[i] = deviation(p + i * each, each);
    at_free(p);
    return true;
}

bool at_sum_deviation(at_ops *o, const at_tensor *t, double *out)
{
    float *p = at_sum_values(o, t);
    if (!p) return false;
    *out = deviation(p, at_tensor_count(t));
    at_free(p);
    return true;
}

at_tensor *at_sum_column(at_ops *o, const double *values, int64_t n)
{
    float *v = at_alloc((size_t)n * sizeof *v);
    if (!v) return at_ops_poison(o, AT_ENOMEM, "guidance: no memory");
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)values[i];
    at_tensor *t = at_from_host(o, AT_F32, 4, (int64_t[]){n, 1, 1, 1}, v);
    at_free(v);
    return t;
}
