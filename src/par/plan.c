// SPDX-License-Identifier: Apache-2.0
// plan.c - the model of time behind a choice. See plan.h.
// A step is rounds of forwards (units dealt along cfg), each of which is arithmetic that its ranks share as evenly as
// tokens, heads or rows divide, a part that none shares, and exchanges: latency for each, bytes over the link.
// Volumes, of A bytes of one [tokens, width] tensor on u x r ranks: 4 (u - 1) / u^2 / r A for Ulysses (q, k, v and
// the result), 2 (r - 1) / (r u) A for keys and values along a ring (arXiv:2309.14509, arXiv:2405.07719),
// 2 (tp - 1) / tp A for each sum over tp ranks.
// Easy to get wrong: a few per cent of predicted gain are below what the prediction is worth: then fewer ranks win.
#include "par/plan.h"

#include <math.h>
#include <string.h>

static const double worth_it = 0.03; // of the time: less is no reason for more ranks
static const double thinner = 0.03; // arithmetic loses this for each further rank: smaller products
static const double slowest =
    0.03; // and this among several: clocks differ, the last one sets the pace
static const double least_scale = 1e-4; // a known step farther from its prediction says nothing

static int of(const at_degrees *d, at_axis a)
{
    return d->of[a] > 1 ? d->of[a] : 1;
}

// The largest share of n things over k ranks, as part of all.
static double largest(double n, int k)
{
    return n > 0 ? ceil(n / k) / n : 1.0 / k;
}

bool at_par_possible(const at_par_task *t, const at_degrees *d)
{
    const at_share_hints *h = &t->hints;

    for (int i = 0; i < AT_AXES; i++)
        if (i != AT_AXIS_CFG && d->of[i] > 1 && !(h->axes & 1u << i)) return false;
    if (of(d, AT_AXIS_CFG) > t->conditionings * t->batch) return false;
    if (of(d, AT_AXIS_ULYSSES) > h->heads && of(d, AT_AXIS_ULYSSES) > 1) return false;
    if (of(d, AT_AXIS_RING) * of(d, AT_AXIS_ULYSSES) > 1 &&
        of(d, AT_AXIS_RING) * of(d, AT_AXIS_ULYSSES) > h->tokens)
        return false;
    return of(d, AT_AXIS_PATCH) == 1 || of(d, AT_AXIS_PATCH) <= h->rows;
}

// Seconds of exchanges in one forward of one latent.
static double exchanges(const at_par_task *t, const at_par_site *s, const at_degrees *d)
{
    const at_share_hints *h = &t->hints;
    double u = of(d, AT_AXIS_ULYSSES), r = of(d, AT_AXIS_RING), p = of(d, AT_AXIS_PATCH),
           tp = of(d, AT_AXIS_TP);
    double meetings = 0, bytes = 0;

    if (u > 1) {
        meetings += 2.0 * h->attentions;
        bytes += h->attentions * 4 * (u - 1) / (u * u * r) * h->sequence_bytes;
    }
    if (r > 1) {
        meetings += h->attentions;
        bytes += h->attentions * 2 * (r - 1) / (r * u) * h->sequence_bytes;
    }
    if (u * r > 1) meetings += 1; // the result
    if (p > 1) {
        meetings += h->map_meetings;
        bytes += h->map_bytes * (p - 1) / p;
    }
    if (tp > 1) {
        meetings += h->tp_meetings;
        bytes += 2 * (tp - 1) / tp * h->tp_bytes / (u * r);
    }
    return meetings * s->latency + bytes / s->bandwidth;
}

// What one rank of these degrees has to do of a forward, before what tp saves.
static double work_of(const at_par_task *t, const at_degrees *d, double *share)
{
    const at_share_hints *h = &t->hints;
    int u = of(d, AT_AXIS_ULYSSES), r = of(d, AT_AXIS_RING);
    double attention;

    *share = largest((double)h->tokens, u * r) * largest((double)h->rows, of(d, AT_AXIS_PATCH));
    attention =
        h->heads && u > 1 ? largest((double)h->heads, u) * largest((double)h->tokens, r) : *share;
    return (t->flops - h->attention_flops) * *share + h->attention_flops * attention;
}

static double or_one(double x)
{
    return x > 0 ? x : 1;
}

// What the formulas say of one rank's forwards, which run as one.
static void by_formula(const at_par_task *t, const at_par_site *s, double units, double saved,
                       at_par_plan *p)
{
    const at_share_hints *h = &t->hints;
    const at_degrees *d = &p->degrees;
    double share, work = work_of(t, d, &share);
    double rate = s->flops * or_one(h->efficiency) * or_one(t->speed);

    if (saved > 0 && t->flops > 0) work *= 1 - saved * h->tp_flops / t->flops;
    rate /= 1 + thinner * (p->ranks / of(d, AT_AXIS_CFG) - 1);
    if (p->ranks > 1) rate /= 1 + slowest;
    if (s->one_processor) rate /= p->ranks;
    p->compute = units * work / rate + s->overhead + s->op * h->ops;
    p->exchange = units * exchanges(t, s, d);
    p->bytes = t->activation_bytes * units * share;
}

static at_par_word by_pricer(const at_par_task *t, double units, at_par_plan *p)
{
    at_par_price price;
    at_par_word word = AT_PAR_UNKNOWN;

    if (t->pricer) word = t->pricer->price(t->pricer->ctx, &p->degrees, (int64_t)units, &price);
    if (word != AT_PAR_PRICED) return word;
    p->compute = price.compute;
    p->exchange = price.exchange;
    p->sent = price.sent;
    p->bytes = price.activations;
    return word;
}

// scale: what its arithmetic takes against what the site says. False: it cannot be shared so.
static bool predict(const at_par_task *t, const at_par_site *s, double scale, at_par_plan *p)
{
    const at_share_hints *h = &t->hints;
    const at_degrees *d = &p->degrees;
    int c = of(d, AT_AXIS_CFG), tp = of(d, AT_AXIS_TP);
    double units = ceil(t->conditionings * (double)t->batch / c);
    double saved = tp > 1 ? 1 - largest((double)h->heads, tp) : 0; // of what tp divides

    p->ranks = at_degrees_ranks(d);
    p->jobs = s->ranks / p->ranks;
    at_par_word word = by_pricer(t, units, p);
    if (word == AT_PAR_IMPOSSIBLE) return false;
    if (word == AT_PAR_UNKNOWN) by_formula(t, s, units, saved, p);
    p->compute *= scale * at_degrees_pace(d, s->speed, t->conditionings * (double)t->batch);
    if (c > 1) {
        double latents = t->latent_bytes * t->conditionings * (double)t->batch;
        p->exchange += s->latency + latents / s->bandwidth;
        if (word == AT_PAR_PRICED) p->sent += latents / c * (c - 1);
    }
    p->bytes += t->weight_bytes - saved * h->tp_weights;
    p->fits = s->memory <= 0 || p->bytes <= s->memory;
    p->step = p->compute + p->exchange;
    if (!p->fits) p->step += units * (p->bytes - s->memory) / s->load;
    for (int i = 0; i < t->n_known; i++)
        if (at_degrees_same(&t->known[i].degrees, d)) {
            p->step = t->known[i].step;
            p->known = true;
        }
    p->seconds = p->step * (double)(t->steps > 0 ? t->steps : 1);
    return true;
}

// What the known steps say of this network's arithmetic: one device's word, else the mean of all.
static double scale_of(const at_par_task *t, const at_par_site *s)
{
    double sum = 0;
    int n = 0;

    for (int i = 0; i < t->n_known; i++) {
        at_par_task plain = *t;
        at_par_plan p = {.degrees = t->known[i].degrees};

        plain.n_known = 0;
        if (!predict(&plain, s, 1, &p)) continue;
        double scale = (t->known[i].step - p.exchange) / p.compute;
        if (!p.fits || scale < least_scale || scale > 1 / least_scale) continue;
        if (p.ranks == 1) return scale;
        sum += scale;
        n++;
    }
    return n ? sum / n : 1;
}

// What is compared: a picture's time, or a group's share of the devices' time while others wait.
static double price(const at_par_plan *p, const at_par_site *s)
{
    return s->waiting > 0 ? p->step / p->jobs : p->step;
}

static bool better(const at_par_plan *a, const at_par_plan *b, const at_par_site *s)
{
    double x = price(a, s), y = price(b, s);

    if (a->ranks < b->ranks) return x <= y * (1 + worth_it);
    if (a->ranks > b->ranks) return x * (1 + worth_it) < y;
    // Alike: what travels less as ranks are added, and holds fewer keys and values.
    if (fabs(x - y) <= worth_it * fmin(x, y) &&
        of(&a->degrees, AT_AXIS_RING) != of(&b->degrees, AT_AXIS_RING))
        return of(&a->degrees, AT_AXIS_RING) < of(&b->degrees, AT_AXIS_RING);
    return x < y;
}

// Keeps the best `max`, in order.
static int insert(at_par_plan *out, int n, int max, const at_par_plan *p, const at_par_site *s)
{
    int at = n;

    while (at > 0 && price(p, s) < price(&out[at - 1], s))
        at--;
    if (at >= max) return n;
    if (n == max) n--;
    memmove(out + at + 1, out + at, (size_t)(n - at) * sizeof *out);
    out[at] = *p;
    return n + 1;
}

// All degrees of at most `left` ranks along the axes from `axis` on.
typedef struct search {
    const at_par_task *task;
    const at_par_site *site;
    at_par_plan *out, best;
    double scale;
    int n, max;
} search;

static void look(search *q, at_degrees *d, int axis, int left)
{
    if (axis == AT_AXES) {
        at_par_plan p = {.degrees = *d};
        if (!at_par_possible(q->task, d)) return;
        if (!predict(q->task, q->site, q->scale, &p)) return;
        if (!q->best.ranks || better(&p, &q->best, q->site)) q->best = p;
        q->n = insert(q->out, q->n, q->max, &p, q->site);
        return;
    }
    if (axis == AT_AXIS_PIPE) { // not exact: only who asks gets it
        look(q, d, axis + 1, left);
        return;
    }
    for (int k = 1; k <= left; k++) {
        d->of[axis] = k;
        look(q, d, axis + 1, left / k);
    }
}

int at_par_plans(const at_par_task *task, const at_par_site *site, at_par_plan *out, int max)
{
    search q = {.task = task, .site = site, .scale = scale_of(task, site), .out = out, .max = max};
    at_degrees d = {{1, 1, 1, 1, 1}};
    int i = 0;

    if (max < 1) return 0;
    look(&q, &d, 0, site->ranks > 1 ? site->ranks : 1);
    // The winner first, the others by their time.
    while (i < q.n && memcmp(&out[i].degrees, &q.best.degrees, sizeof d) != 0)
        i++;
    if (i == max) i--;
    if (i == q.n) q.n++;
    memmove(out + 1, out, (size_t)i * sizeof *out);
    out[0] = q.best;
    for (i = 0; i < q.n; i++)
        at_degrees_take_speeds(&out[i].degrees, site->speed);
    return q.n;
}
