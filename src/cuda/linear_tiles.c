// SPDX-License-Identifier: Apache-2.0
// linear_tiles.c - which tiles of cublasLt's Hopper kernels cut a product into whole waves.
// Idea: the library's heuristic prefers large tiles, and a product of a UNet has few of them: 2048 tokens by 1280
// features are 160 tiles of 128 x 128, two waves on 132 multiprocessors, but 130 of 128 x 160. Tiles are ranked
// by waves times what one of them costs: its area, and its edges, which are what it loads. The best
// few are candidates beside the library's proposals; timing decides (linear_tune.c). Op by op on an H200, tokens x features x
// sum: 8192 x 640 x 2560 42.7 us instead of 47.9, 8192 x 640 x 640 18.5 instead of 21.4, 2048 x 1280 x 1280 17.5
// instead of 18.2; SD1.5's and T5's as before. A shape's first run pays for it: SDXL's first step 1.47 s instead of 0.92.
// Easy to get wrong: for the library a product's rows are our features, its columns our tokens.
// Source: tile numbers as in NVIDIA's cublasLt.h. Owns nothing.
#include "cuda/linear.h"

typedef struct tile {
    int16_t features, tokens, id;
} tile;

static const tile tiles[] = {
    {64, 64, 15},    {64, 80, 318},   {64, 88, 319},   {64, 96, 26},    {64, 104, 320},
    {64, 112, 321},  {64, 128, 17},   {64, 144, 324},  {64, 160, 326},  {64, 176, 328},
    {64, 192, 116},  {64, 208, 331},  {64, 224, 333},  {64, 256, 19},   {64, 320, 117},
    {128, 64, 18},   {128, 72, 399},  {128, 80, 400},  {128, 88, 401},  {128, 96, 33},
    {128, 104, 402}, {128, 112, 403}, {128, 120, 404}, {128, 128, 20},  {128, 136, 405},
    {128, 144, 406}, {128, 152, 407}, {128, 160, 29},  {128, 168, 408}, {128, 176, 409},
    {128, 192, 32},  {128, 208, 412}, {128, 224, 414}, {128, 256, 23},  {192, 64, 208},
    {192, 80, 456},  {192, 96, 458},  {192, 112, 460}, {192, 128, 31},  {192, 144, 463},
    {192, 160, 465}, {192, 176, 467}, {192, 192, 209}, {256, 64, 21},   {256, 80, 493},
    {256, 96, 495},  {256, 112, 497}, {256, 128, 24},  {256, 144, 500}, {80, 64, 134},
    {88, 64, 143},   {96, 64, 27},    {104, 64, 157},  {112, 64, 164},  {144, 64, 183},
    {160, 64, 193},  {176, 64, 200},  {208, 64, 214},  {224, 64, 220},  {72, 128, 125},
    {80, 128, 135},  {88, 128, 144},  {96, 128, 28},   {104, 128, 158}, {112, 128, 165},
    {120, 128, 171}, {136, 128, 179}, {144, 128, 184}, {152, 128, 189}, {160, 128, 30},
    {168, 128, 197}, {176, 128, 201}, {208, 128, 215}, {224, 128, 221}, {80, 192, 136},
    {96, 192, 151},  {112, 192, 166}, {144, 192, 185}, {160, 192, 194}, {176, 192, 202},
    {80, 256, 137},  {96, 256, 152},  {112, 256, 167}, {144, 256, 186}};

// What a tile costs beside its area: an edge's elements are loaded for every step of the sum.
enum { EDGE = 20 };

static double cost_of(const tile *t, const at_cuda_problem *p, int sms)
{
    int64_t n = (p->n + t->features - 1) / t->features * ((p->m + t->tokens - 1) / t->tokens);
    int64_t waves = (n * p->batch + sms - 1) / sms;
    return (double)waves * (t->features * t->tokens + EDGE * (t->features + t->tokens));
}

// The tiles that the library mostly proposes are whole waves: nothing to gain, and every kernel that is tried is
// loaded first.
static bool even(const at_cuda_problem *p, int sms)
{
    int64_t n = (p->n + 127) / 128 * ((p->m + 127) / 128) * p->batch;
    return 20 * n >= 19 * ((n + sms - 1) / sms) * sms;
}

int at_cuda_tiles(const at_cuda_problem *p, int sms, int most, int32_t *ids)
{
    double costs[AT_CUDA_TILES];
    int n = 0;

    if (sms < 1 || even(p, sms)) return 0;
    if (most > AT_CUDA_TILES) most = AT_CUDA_TILES;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        double cost = cost_of(&tiles[i], p, sms);
        int at = n;
        while (at > 0 && cost < costs[at - 1])
            at--;
        if (at == most) continue;
        if (n < most) n++;
        for (int k = n - 1; k > at; k--) {
            costs[k] = costs[k - 1];
            ids[k] = ids[k - 1];
        }
        costs[at] = cost;
        ids[at] = tiles[i].id;
    }
    return n;
}
