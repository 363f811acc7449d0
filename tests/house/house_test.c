// SPDX-License-Identifier: Apache-2.0
// house_test.c - draws the 100 fixed prompts with the house model and lets the pixel check judge each picture.
// The prompts use only combinations that training never showed. Prints the number that pass, and every failure with
// its reason.   house_test WORKFLOW PROMPTS MODELS_DIR OUTPUT_DIR [COUNT]
// Pictures that others drew are judged too: DIR/001_00001_.png and on, one for each prompt in turn
// (tools/gpu/house_pictures.py draws them with any device and type), beside those of another folder by PSNR.
//                 house_test --judge PROMPTS DIR [DIR_OF_REFERENCE]
// Exit status 0 if at least 90 in 100 show what was asked.
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atelier/atelier.h"
#include "base/file.h"
#include "base/mem.h"
#include "house_check.h"
#include "image/image.h"

#define NEEDED_IN_100 90

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

// The asked facts of one prompt; the count, or -1 if the file names something unknown.
static int read_facts(const json_t *prompt, house_fact *facts)
{
    const json_t *objects = json_object_get(prompt, "objects");
    int n = (int)json_array_size(objects);
    if (n > HOUSE_MAX_FACTS) return -1;
    for (int i = 0; i < n; i++) {
        const json_t *o = json_array_get(objects, (size_t)i);
        facts[i] = (house_fact){.kind = house_kind_of(text_of(o, "kind")),
                                .colour = house_colour_of(text_of(o, "colour")),
                                .size = house_size_of(text_of(o, "size")),
                                .place = house_place_of(text_of(o, "place")),
                                .rel = house_rel_of(text_of(o, "rel")),
                                .of = (int32_t)json_integer_value(json_object_get(o, "of"))};
        if (facts[i].kind < 0 || facts[i].colour < 0 || facts[i].size < 0 || facts[i].place < 0 ||
            facts[i].rel < 0)
            return -1;
    }
    return n;
}

// Draw one prompt; the path of its picture in *path (at_free).
static at_status draw(at_engine *e, const char *workflow, const json_t *prompt, const char *out_dir,
                      char **path)
{
    at_status st = AT_OK;
    char seed[64];
    char *text = at_strprintf("prompt.text=%s", text_of(prompt, "prompt"));
    at_job_result result = {0};
    json_t *outputs = NULL;

    if (!text) AT_TRY(at_fail(AT_ENOMEM, "house: no memory"));
    snprintf(seed, sizeof seed, "sampler.seed=%lld",
             (long long)json_integer_value(json_object_get(prompt, "seed")));
    at_job job = {.label = "house.json",
                  .text = workflow,
                  .bytes = strlen(workflow),
                  .sets = (const char *const[]){text, seed},
                  .set_count = 2};
    AT_TRY(at_engine_run(e, &job, &result));
    outputs = json_loads(result.outputs, 0, NULL);
    const char *id;
    json_t *ui;
    json_object_foreach(outputs, id, ui)
    {
        const json_t *image = json_array_get(json_object_get(ui, "images"), 0);
        *path = at_path_join(out_dir, text_of(image, "filename"));
    }
    if (!*path) AT_TRY(at_fail(AT_EINTERNAL, "house: the workflow saved no picture"));
out:
    json_decref(outputs);
    at_job_result_free(&result);
    at_free(text);
    return st;
}

typedef struct pixels {
    uint8_t *rgb; // at_free
    int width, height;
} pixels;

static at_status read_pixels(const char *path, pixels *out)
{
    at_picture p = {0};
    at_status st = at_png_load(path, &p);
    if (st != AT_OK) return st;
    size_t count = (size_t)(p.width * p.height * 3);
    *out = (pixels){at_alloc(count), (int)p.width, (int)p.height};
    if (!out->rgb) st = at_fail(AT_ENOMEM, "house: no memory");
    for (size_t i = 0; out->rgb && i < count; i++)
        out->rgb[i] = (uint8_t)(p.rgb[i] * 255.0f + 0.5f);
    at_picture_free(&p);
    return st;
}

static at_status judge(const char *path, const house_fact *facts, int n, char *reason, size_t size,
                       int *pass)
{
    pixels p = {0};
    at_status st = read_pixels(path, &p);
    if (st == AT_OK) *pass = house_check(p.rgb, p.width, p.height, facts, n, reason, size);
    at_free(p.rgb);
    return st;
}

// Peak signal to noise in dB; equal pictures count as 100 dB.
static at_status compare(const char *path, const char *reference, double *psnr)
{
    at_status st = AT_OK;
    pixels a = {0}, b = {0};
    double sum = 0;

    AT_TRY(read_pixels(path, &a));
    AT_TRY(read_pixels(reference, &b));
    if (a.width != b.width || a.height != b.height)
        AT_TRY(at_fail(AT_EINVAL, "%s is %d x %d, %s is %d x %d", path, a.width, a.height,
                       reference, b.width, b.height));
    size_t count = (size_t)a.width * (size_t)a.height * 3;
    for (size_t i = 0; i < count; i++)
        sum += (double)(a.rgb[i] - b.rgb[i]) * (a.rgb[i] - b.rgb[i]);
    *psnr = sum > 0 ? fmin(100, 10 * log10(255.0 * 255.0 * (double)count / sum)) : 100;
out:
    at_free(a.rgb);
    at_free(b.rgb);
    return st;
}

static int give_up(const char *what)
{
    fprintf(stderr, "house: %s: %s\n", what, at_error_text());
    return 1;
}

// Judge the pictures of a folder: as many as are there, from the first prompt on.
static int judge_folder(const char *prompts_path, const char *dir, const char *reference)
{
    json_t *prompts = json_load_file(prompts_path, 0, NULL);
    int count = 0, passed = 0, equal = 0, bad = 0;
    double mean = 0, worst = 100;

    for (size_t i = 0; i < json_array_size(prompts) && !bad; i++) {
        char *path = at_strprintf("%s/%03zu_00001_.png", dir, i + 1), reason[256] = "";
        char *other = reference ? at_strprintf("%s/%03zu_00001_.png", reference, i + 1) : NULL;
        const json_t *prompt = json_array_get(prompts, i);
        house_fact facts[HOUSE_MAX_FACTS];
        int n = read_facts(prompt, facts), pass = 0, there = path && at_path_exists(path);
        double psnr = 100;
        bad = n < 0 || (there && judge(path, facts, n, reason, sizeof reason, &pass) != AT_OK) ||
              (there && other && compare(path, other, &psnr) != AT_OK);
        if (there && !bad && !pass)
            printf("miss %zu: \"%s\": %s\n", i + 1, text_of(prompt, "prompt"), reason);
        count += there;
        passed += pass;
        equal += there && other && psnr == 100;
        mean += there ? psnr : 0;
        worst = psnr < worst ? psnr : worst;
        at_free(path);
        at_free(other);
        if (!there) break;
    }
    json_decref(prompts);
    if (bad) return give_up(dir);
    printf("%s: %d of %d pictures show what was asked", dir, passed, count);
    if (reference && count)
        printf("; beside %s: PSNR %.1f dB on average, %.1f at worst, %d equal", reference,
               mean / count, worst, equal);
    printf("\n");
    return count && passed * 100 >= count * NEEDED_IN_100 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "--judge") == 0)
        return judge_folder(argv[2], argv[3], argc > 4 ? argv[4] : NULL);
    if (argc < 5) return 2;
    at_engine *e = NULL;
    char *workflow = NULL;
    size_t bytes = 0;
    int passed = 0;
    double start = at_now();
    at_engine_config config = {.models_dirs = (const char *const[]){argv[3]},
                               .models_count = 1,
                               .output_dir = argv[4],
                               .auto_dtype = true};
    if (at_file_read(argv[1], 1 << 20, &workflow, &bytes) != AT_OK) return give_up(argv[1]);
    if (at_engine_open(&config, &e) != AT_OK) return give_up("engine");
    // After the engine is open: it gives jansson the house's allocator, and what one allocator made
    // the other cannot free.
    json_t *prompts = json_load_file(argv[2], 0, NULL);
    size_t limit = argc > 5 ? (size_t)atoi(argv[5]) : json_array_size(prompts);
    if (!json_array_size(prompts)) return give_up(argv[2]);
    for (size_t i = 0; i < limit; i++) {
        const json_t *prompt = json_array_get(prompts, i);
        house_fact facts[HOUSE_MAX_FACTS];
        char reason[256] = "", *path = NULL;
        int n = read_facts(prompt, facts), pass = 0;
        if (n < 0) return give_up("prompts.json names something unknown");
        if (draw(e, workflow, prompt, argv[4], &path) != AT_OK) return give_up("drawing");
        if (judge(path, facts, n, reason, sizeof reason, &pass) != AT_OK) return give_up(path);
        passed += pass;
        if (!pass)
            printf("miss %zu: \"%s\": %s (%s)\n", i + 1, text_of(prompt, "prompt"), reason, path);
        at_free(path);
    }
    double seconds = at_now() - start;
    fflush(stdout);
    printf("house model: %d of %zu pictures show what was asked; %.2f s a picture\n", passed, limit,
           seconds / (double)limit);
    at_engine_close(e);
    at_free(workflow);
    json_decref(prompts);
    return (size_t)passed * 100 >= limit * NEEDED_IN_100 ? 0 : 1;
}
