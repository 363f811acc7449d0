// SPDX-License-Identifier: Apache-2.0
// house_ref.c - the house model stage by stage against its trainer's own network (PyTorch, f32).
// Idea: the words are given as ids; text encoders, the denoiser at pure noise, and 20 Euler steps
// must give the trainer's tensors. Where a picture is wrong, this says which stage is.
//   house_ref MODELS_DIR REFERENCE.safetensors
// Owns nothing beyond a call.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/models.h"
#include "sample/sample.h"

typedef struct house {
    at_store *ref;
    at_model *model;
    at_ops *ops;
    at_tensor *hidden, *pooled;
    int bad;
} house;

static at_status open_part(const char *dir, const char *name, at_store **out)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return at_store_open(path, out);
}

static at_status compare(house *h, const char *name, const at_tensor *got, double rtol)
{
    at_status st = at_ops_status(h->ops);
    const at_weight *want = at_store_find(h->ref, name);
    float *a = NULL, *b = NULL;
    double diff = 0, norm = 0;

    AT_TRY(st);
    if (!got || !want || at_tensor_count(got) != at_weight_elements(want))
        AT_TRY(at_fail(AT_EFORMAT, "%s: missing, or of another size", name));
    int64_t n = at_weight_elements(want);
    a = at_alloc((size_t)n * sizeof *a);
    b = at_alloc((size_t)n * sizeof *b);
    if (!a || !b) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", name));
    AT_TRY(at_tensor_to_host(got, AT_F32, a, (size_t)n * sizeof *a));
    at_weight_read_f32(want, 0, n, b);
    for (int64_t i = 0; i < n; i++) {
        diff += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)b[i], 2);
    }
    double error = sqrt(diff / norm);
    printf("%s rel_err=%.3e %s\n", name, error, error <= rtol ? "PASS" : "FAIL");
    if (!(error <= rtol)) h->bad = 1;
out:
    at_free(a);
    at_free(b);
    return st;
}

// One encoder over the reference's ids; `pooled` at the last id of the vocabulary.
static at_status encode(house *h, const char *dir, const char *file, const char *ids_name,
                        bool pooled, at_encoded *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_encoder *e = NULL;
    at_found found[1];
    const at_weight *ids = at_store_find(h->ref, ids_name);

    if (!ids || ids->rank != 2 || ids->dtype != AT_I32)
        AT_TRY(at_fail(AT_EFORMAT, "%s: no ids [b, t] i32", ids_name));
    AT_TRY(open_part(dir, file, &s));
    if (at_detect(s, found, 1) != 1) AT_TRY(at_fail(AT_EFORMAT, "%s: nothing known", file));
    AT_TRY(at_encoder_load(s, found, &e));
    at_encode_in in = {.ids = ids->data,
                       .batch = ids->shape[0],
                       .tokens = ids->shape[1],
                       .eos = pooled ? (int32_t)at_encoder_vocab(e) - 1 : -1};
    *out = at_encoder_forward(h->ops, e, &in);
    st = at_ops_status(h->ops);
out:
    at_encoder_release(&e);
    at_store_release(&s);
    return st;
}

static at_tensor *flow(house *h, const at_tensor *x, float sigma)
{
    float t = at_sigma_to_timestep(at_model_get_sampling(h->model), sigma);
    at_model_in in = {.x = x, .timestep = &t, .context = h->hidden, .pooled = h->pooled};
    return at_model_forward(h->ops, h->model, &in);
}

static at_denoised denoise(void *ctx, at_ops *o, const at_tensor *x, float sigma, bool want_uncond)
{
    (void)want_uncond;
    at_tensor *v = flow(ctx, x, sigma);
    return (at_denoised){.out =
                             at_lincomb(o, 2, (float[]){1, -sigma}, (const at_tensor *[]){x, v})};
}

static at_status sample(house *h)
{
    at_status st = AT_OK;
    float noise[16 * 32 * 32], *sigmas = NULL;
    size_t n = 0;
    int64_t shape[] = {1, 16, 32, 32};
    const at_model_sampling *ms = at_model_get_sampling(h->model);

    AT_TRY(at_prepare_noise(1, 4, shape, NULL, noise));
    at_tensor *x = at_from_host(h->ops, AT_F32, 4, shape, noise);
    AT_TRY(compare(h, "flow_at_noise", flow(h, x, 1.0f), 1e-4));
    AT_TRY(at_ksampler_sigmas("euler", "simple", ms, 20, 1.0, &sigmas, &n));
    at_denoiser d = {.call = denoise, .ctx = h, .sampling = ms};
    at_sample_args args = {.sampler = "euler", .sigmas = sigmas, .n_sigmas = n, .noise = x};
    // 20 evaluations in a row; each step's difference is carried on
    AT_TRY(compare(h, "latent", at_sample(h->ops, &d, &args), 1e-3));
out:
    at_free(sigmas);
    return st;
}

static at_status run(house *h, const char *dir, const char *ref)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_encoded clip, t5;

    AT_TRY(at_store_open(ref, &h->ref));
    AT_TRY(open_part(dir, "diffusion_models/house.safetensors", &s));
    AT_TRY(at_model_load(s, "house", &h->model));
    AT_TRY(at_ops_new(&(at_ops_config){.compute = AT_F32}, &h->ops));
    AT_TRY(encode(h, dir, "text_encoders/house_clip_l.safetensors", "clip_tokens", true, &clip));
    AT_TRY(encode(h, dir, "text_encoders/house_t5.safetensors", "t5_tokens", false, &t5));
    AT_TRY(compare(h, "clip_pooled", clip.pooled, 1e-4));
    AT_TRY(compare(h, "t5_hidden", t5.hidden, 1e-4));
    h->pooled = clip.pooled;
    h->hidden = t5.hidden;
    AT_TRY(sample(h));
out:
    at_store_release(&s);
    return st;
}

int main(int argc, char **argv)
{
    house h = {0};
    if (argc != 3) return 2;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    at_status st = run(&h, argv[1], argv[2]);
    if (st != AT_OK) printf("house_ref: %s FAIL\n", at_error_text());
    at_model_release(&h.model);
    at_ops_free(h.ops);
    at_store_release(&h.ref);
    return st != AT_OK || h.bad;
}
