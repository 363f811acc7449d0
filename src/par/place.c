// SPDX-License-Identifier: Apache-2.0
// place.c - see place.h.
// Easy to get wrong: networks work one after the other, so of their work the most counts, of their weights the sum; a VAE
// that stays with the denoiser is shared by its devices, so its weights are on all of them.
#include "par/place.h"

static const double least_gain = 1e-3; // seconds a picture
// A device that cannot keep all: networks push each other out, what was recorded over them goes as well.
static const double crowded = 20e-3;

static int ranks(const at_place_net *n)
{
    return n->shared > 1 ? n->shared : 1;
}

static double speed(const at_place_site *s, int d)
{
    return s->speed[d] > 0 ? s->speed[d] : 1;
}

static void put(const at_place_net *n, double *weights, double *work)
{
    *weights += n->weights;
    if (n->work > *work) *work = n->work;
}

void at_place_load(const at_place_task *t, int text, int vae, int d, double *weights, double *peak)
{
    double work = 0;

    *weights = 0;
    if (d < ranks(&t->denoiser)) put(&t->denoiser, weights, &work);
    if (d == text) put(&t->text, weights, &work);
    if (d == vae || (vae == 0 && d < ranks(&t->vae))) put(&t->vae, weights, &work);
    *peak = *weights + work;
}

// Of a network that runs on device d; 0 is where the denoiser's first rank is.
static double time_of(const at_place_net *n, const at_place_site *s, int d)
{
    if (d == 0) return n->seconds / speed(s, 0) / ranks(n);
    double way = s->bandwidth > 0 ? n->travels / s->bandwidth : 0;
    return n->seconds / speed(s, d) + way + s->latency;
}

static double cost(const at_place_task *t, const at_place_site *s, int text, int vae, double *lacks)
{
    double weights, peak, worst = 0;
    double seconds = time_of(&t->text, s, text) + time_of(&t->vae, s, vae);

    *lacks = 0;
    for (int d = 0; d < s->n; d++) {
        at_place_load(t, text, vae, d, &weights, &peak);
        if (peak <= s->room[d]) continue;
        double lack = peak - s->room[d], again = crowded + (s->load > 0 ? lack / s->load : 0);
        *lacks += lack;
        if (d >= ranks(&t->denoiser))
            seconds += again;
        else if (again > worst)
            worst = again; // the denoiser's devices wait for the slowest of them
    }
    return seconds + worst;
}

at_place at_place_choose(const at_place_task *t, const at_place_site *s)
{
    at_place best = {0};
    int text = t->text.fixed ? t->text.fixed - 1 : 0, vae = t->vae.fixed ? t->vae.fixed - 1 : 0;

    best.text = text;
    best.vae = vae;
    best.seconds = cost(t, s, text, vae, &best.lacks);
    best.stay_seconds = best.seconds;
    best.stay_lacks = best.lacks;
    for (int a = t->text.fixed ? text : 0; a < (t->text.fixed ? text + 1 : s->n); a++)
        for (int b = t->vae.fixed ? vae : 0; b < (t->vae.fixed ? vae + 1 : s->n); b++) {
            double lacks, seconds = cost(t, s, a, b, &lacks);
            // The first to move something must be worth it; among those that move, the best.
            bool first = best.text == text && best.vae == vae;
            if (seconds >= best.seconds - (first ? least_gain : 0)) continue;
            best.text = a;
            best.vae = b;
            best.seconds = seconds;
            best.lacks = lacks;
        }
    return best;
}
