// SPDX-License-Identifier: Apache-2.0
// guide_random.c - torch's default generator as ComfyUI leaves it behind the noise.
// Idea: prepare_noise seeds the one generator of the process and draws from it; patches that say
// "randint" go on where it stopped. So their draws are the seed's, too.
// Easy to get wrong: with batch indices every draw up to the largest is made, one latent at a time.
// Without noise nobody seeds it in ComfyUI; here it begins at the seed.
#include "base/mem.h"
#include "nodes/guide_impl.h"
#include "sample/noise.h"

at_status at_guide_random(const at_guide *g, at_mt19937 *out)
{
    at_status st = AT_OK;
    int64_t item = g->shape[1] * g->shape[2] * g->shape[3], draws = 1;
    at_generator r;
    float *scratch = NULL;

    at_generator_seed(&r, g->seed);
    if (!g->batch_index) item *= g->shape[0];
    for (int64_t b = 0; g->batch_index && b < g->shape[0]; b++)
        if (g->batch_index[b] >= draws) draws = g->batch_index[b] + 1;
    if (g->noised) {
        scratch = at_alloc((size_t)item * sizeof *scratch);
        if (!scratch) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the noise"));
        for (int64_t i = 0; i < draws; i++)
            at_generator_randn(&r, scratch, item);
    }
    *out = r.mt;
out:
    at_free(scratch);
    return st;
}
