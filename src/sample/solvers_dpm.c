// SPDX-License-Identifier: Apache-2.0
// solvers_dpm.c - DPM-Solver in Karras' form (dpm_2), with a fixed budget (fast) and adaptive.
// Idea: in t = -log sigma the noise eps = (x - x0) / sigma is integrated exactly against exp(-t).
// Sources: comfyui-contract section 5.6; Lu et al. 2022 (arXiv:2206.00927); Karras et al. 2022.
// Owns: dpm_adaptive keeps three rows of host values in r->scratch.
#include <math.h>

#include "base/mem.h"
#include "sample/linspace.h"
#include "sample/solver.h"

at_tensor *at_step_dpm_2(at_run *r, int i)
{
    const at_tensor *x = r->x;
    double s = at_churn(r, i, &x), t = r->s[i + 1];
    at_denoised d = at_run_eval(r, x, s);

    at_run_report(r, i, x, d.out);
    if (t == 0) return d.out;
    double mid = (float)sqrt(s * t);
    at_tensor *x2 = at_toward(r->o, x, d.out, s, mid);
    at_denoised d2 = at_run_eval(r, x2, mid);
    double q = (t - s) / mid;
    return at_mix(r->o, {1, x}, {q, x2}, {-q, d2.out});
}

at_tensor *at_step_dpm_2_ancestral(at_run *r, int i)
{
    bool flow = at_run_is_flow(r);
    double s = r->s[i], t = r->s[i + 1], keep = 1;
    at_split a = at_ancestral(s, t, r->opt.eta);
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (flow) {
        at_flow_split f = at_flow_ancestral(s, t, r->opt.eta);
        a = (at_split){f.down, f.up};
        keep = f.keep;
    }
    if (a.down == 0) return d.out;
    double mid = (float)sqrt(s * a.down);
    at_tensor *x2 = at_toward(r->o, r->x, d.out, s, mid);
    at_denoised d2 = at_run_eval(r, x2, mid);
    double q = keep * (a.down - s) / mid;
    return at_mix(r->o, {keep, r->x}, {q, x2}, {-q, d2.out},
                  {a.up * r->opt.s_noise, at_run_noise(r)});
}

// --- DPM-Solver-1, -2, -3 over [t, u] in -log sigma ----------------------------------------------
// Every product and sum is rounded to f32 as ComfyUI's are: dpm_adaptive compares two of these
// results, and its first error estimates are little more than that rounding.
static float sigma_at(double t)
{
    return (float)exp(-t);
}

static float expm1_f32(float h)
{
    return (float)expm1((double)h);
}

static at_tensor *slope(at_run *r, const at_tensor *x, const at_tensor *x0, double s)
{
    return at_mix(r->o, {1 / s, at_mix(r->o, {1, x}, {-1, x0})});
}

static at_tensor *eps_at(at_run *r, const at_tensor *x, double t)
{
    float s = sigma_at(t);
    return slope(r, x, at_run_eval(r, x, s).out, s);
}

// x - k * y
static at_tensor *minus(at_run *r, const at_tensor *x, float k, const at_tensor *y)
{
    return at_mix(r->o, {1, x}, {-1, at_mix(r->o, {k, y})});
}

static at_tensor *solve_1(at_run *r, const at_tensor *x, float t, float u, const at_tensor *eps)
{
    return minus(r, x, sigma_at(u) * expm1_f32(u - t), eps);
}

// *eps_mid: eps at t + r1 (u - t); made unless it is there already.
static at_tensor *solve_2(at_run *r, const at_tensor *x, float t, float u, double r1,
                          const at_tensor *eps, at_tensor **eps_mid)
{
    float h = u - t, part = (float)r1 * h, mid = t + part, grow = expm1_f32(h);

    if (!*eps_mid) *eps_mid = eps_at(r, minus(r, x, sigma_at(mid) * expm1_f32(part), eps), mid);
    at_tensor *change = at_mix(r->o, {1, *eps_mid}, {-1, eps});
    return minus(r, minus(r, x, sigma_at(u) * grow, eps), sigma_at(u) / (float)(2 * r1) * grow,
                 change);
}

static at_tensor *solve_3(at_run *r, const at_tensor *x, float t, float u, const at_tensor *eps,
                          at_tensor *eps1)
{
    const double r1 = 1.0 / 3, r2 = 2.0 / 3;
    float h = u - t, h1 = (float)r1 * h, h2 = (float)r2 * h, t1 = t + h1, t2 = t + h2;
    float s2 = sigma_at(t2), s3 = sigma_at(u), grow2 = expm1_f32(h2), grow = expm1_f32(h);

    if (!eps1) eps1 = eps_at(r, minus(r, x, sigma_at(t1) * expm1_f32(h1), eps), t1);
    at_tensor *change = at_mix(r->o, {1, eps1}, {-1, eps});
    at_tensor *x2 =
        minus(r, minus(r, x, s2 * grow2, eps), s2 * (float)(r2 / r1) * (grow2 / h2 - 1.0f), change);
    change = at_mix(r->o, {1, eps_at(r, x2, t2)}, {-1, eps});
    return minus(r, minus(r, x, s3 * grow, eps), s3 / (float)r2 * (grow / h - 1.0f), change);
}

// Where an ancestral step from t to u goes first, and the noise that lifts it back to u.
static at_split split_time(double t, double u, double end, double eta)
{
    if (eta == 0) return (at_split){u, 0};
    double down = -log(at_ancestral(sigma_at(t), sigma_at(u), eta).down);
    if (!(down < end)) down = end;
    double a = sigma_at(u), b = sigma_at(down);
    return (at_split){down, sqrt(fmax(a * a - b * b, 0))};
}

// num: 0 start, 1 end (in -log sigma).
static at_status time_range(at_run *r)
{
    double last = r->s[r->n] != 0 ? r->s[r->n] : r->s[r->n - 1];

    if (!(last > 0) || !(r->s[0] > 0))
        return at_fail(AT_EINVAL, "%s: sigmas from %g to %g, expected both above 0",
                       r->solver->name, r->s[0], last);
    r->num[0] = (float)-log(r->s[0]);
    r->num[1] = (float)-log(last);
    if (!(r->num[1] > r->num[0]) && r->opt.eta != 0)
        return at_fail(AT_EINVAL, "%s: eta must be 0 where sigma rises", r->solver->name);
    return AT_OK;
}

// n evaluations are spent in steps of order 3 and what remains.
at_status at_begin_dpm_fast(at_run *r)
{
    r->rounds = r->n / 3 + 1;
    return time_range(r);
}

static int fast_order(const at_run *r, int i)
{
    int left = r->rounds - 1 - i; // steps after this one
    if (r->n % 3 == 0) return left > 1 ? 3 : left == 1 ? 2 : 1;
    return left > 0 ? 3 : r->n % 3;
}

at_tensor *at_step_dpm_fast(at_run *r, int i)
{
    float start = (float)r->num[0], end = (float)r->num[1];
    double t = at_linspace_f32(start, end, r->rounds + 1, i);
    double u = at_linspace_f32(start, end, r->rounds + 1, i + 1), s = sigma_at(t);
    at_split a = split_time(t, u, end, r->opt.eta);
    at_denoised d = at_run_eval(r, r->x, s);
    at_tensor *eps = slope(r, r->x, d.out, s), *mid = NULL, *x;

    at_run_report(r, i, r->x, d.out);
    int order = fast_order(r, i);
    if (order == 1 || a.down == t)
        x = solve_1(r, r->x, t, a.down, eps);
    else if (order == 2)
        x = solve_2(r, r->x, t, a.down, 0.5, eps, &mid);
    else
        x = solve_3(r, r->x, t, a.down, eps, NULL);
    if (a.up == 0) return x;
    return at_mix(r->o, {1, x}, {a.up * r->opt.s_noise, at_run_noise(r)});
}

// --- adaptive ------------------------------------------------------------------------------------
#define ADAPTIVE_ROUNDS 10000
enum { T_NOW = 2, H_NOW, ERR_1, ERR_2 }; // r->num; ERR_* 0: none yet

at_status at_begin_dpm_adaptive(at_run *r)
{
    at_status st = time_range(r);

    if (st != AT_OK) return st;
    if (r->opt.order != 2 && r->opt.order != 3)
        return at_fail(AT_EINVAL, "dpm_adaptive: order %d, expected 2 or 3", r->opt.order);
    r->scratch = at_calloc((size_t)r->count, 3 * sizeof *r->scratch);
    if (!r->scratch)
        return at_fail(AT_ENOMEM, "dpm_adaptive: no memory for %lld values", (long long)r->count);
    r->num[T_NOW] = r->num[0];
    r->num[H_NOW] = fabs(r->opt.h_init) * (r->num[1] > r->num[0] ? 1 : -1);
    r->rounds = ADAPTIVE_ROUNDS;
    r->done = r->num[0] == r->num[1];
    return AT_OK;
}

// Root mean square of (low - high) / tolerance.
static double error_of(at_run *r, const at_tensor *low, const at_tensor *high,
                       const at_tensor *prev)
{
    const at_tensor *in[3] = {low, high, prev};
    const at_sampler_options *p = &r->opt;
    int64_t n = r->count;
    double sum = 0;

    for (int k = 0; k < 3; k++) {
        float *row = r->scratch + k * n;
        if (!in[k] || at_ops_status(r->o) != AT_OK) return NAN;
        at_status st = at_tensor_to_host(in[k], AT_F32, row, (size_t)n * sizeof *row);
        if (st != AT_OK) at_ops_poison(r->o, st, "%s", at_error_text());
    }
    if (at_ops_status(r->o) != AT_OK) return NAN;
    for (int64_t i = 0; i < n; i++) {
        double a = r->scratch[i], b = r->scratch[n + i], c = r->scratch[2 * n + i];
        double e = (a - b) / fmax(p->atol, p->rtol * fmax(fabs(a), fabs(c)));
        sum += e * e;
    }
    return sqrt(sum / (double)n);
}

// PID controller of the step size; true: take the step.
static bool accept(at_run *r, double error)
{
    const at_sampler_options *p = &r->opt;
    double *e1 = &r->num[ERR_1], *e2 = &r->num[ERR_2], inv = 1 / (error + 1e-8);
    double order = p->eta != 0 ? 1.5 : p->order;

    if (*e1 == 0) *e1 = *e2 = inv;
    double factor = pow(inv, (p->pcoeff + p->icoeff + p->dcoeff) / order) *
                    pow(*e1, -(p->pcoeff + 2 * p->dcoeff) / order) * pow(*e2, p->dcoeff / order);
    factor = 1 + atan(factor - 1);
    bool ok = factor >= p->accept_safety;
    if (ok) {
        *e2 = *e1;
        *e1 = inv;
    }
    r->num[H_NOW] *= factor;
    return ok;
}

// slot 0: the low-order result of the last step taken.
at_tensor *at_step_dpm_adaptive(at_run *r, int i)
{
    double t = r->num[T_NOW], end = r->num[1], s = sigma_at(t), u = (float)(t + r->num[H_NOW]);
    bool forward = end > r->num[0];
    if (forward ? u > end : u < end) u = end;
    at_split a = split_time(t, u, end, r->opt.eta);
    at_denoised d = at_run_eval(r, r->x, s);
    at_tensor *eps = slope(r, r->x, d.out, s), *mid = NULL, *low, *high, *x = r->x;

    if (r->opt.order == 2) {
        low = solve_1(r, r->x, t, a.down, eps);
        high = solve_2(r, r->x, t, a.down, 0.5, eps, &mid);
    } else {
        low = solve_2(r, r->x, t, a.down, 1.0 / 3, eps, &mid);
        high = solve_3(r, r->x, t, a.down, eps, mid);
    }
    double error = error_of(r, low, high, r->slot[0] ? r->slot[0] : r->x);
    if (at_ops_status(r->o) != AT_OK) return NULL;
    if (!isfinite(error))
        return at_ops_poison(r->o, AT_EINVAL,
                             "dpm_adaptive: the error estimate at sigma %g is no number", s);
    if (accept(r, error)) {
        at_run_put(r, 0, low);
        x = a.up == 0 ? high : at_mix(r->o, {1, high}, {a.up * r->opt.s_noise, at_run_noise(r)});
        r->num[T_NOW] = u;
        r->done = forward ? !(u < end - 1e-5) : !(u > end + 1e-5);
    }
    at_run_report(r, i, x, d.out);
    if (!r->done && i + 1 == r->rounds)
        return at_ops_poison(r->o, AT_EINVAL,
                             "dpm_adaptive: not at the end after %d steps (sigma %g)", r->rounds,
                             s);
    return x;
}
