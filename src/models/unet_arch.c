// SPDX-License-Identifier: Apache-2.0
// unet_arch.c - the families of latent-diffusion UNets as rows: which is which, their latents, what
// their output predicts, what stands behind the latent, and the vector beside the text.
// Idea: the forward does not care (unet.c); what differs is told by widths and by marks in the file.
// Source: ComfyUI 0.3.64 comfy/supported_models.py, comfy/model_base.py, comfy/latent_formats.py.
// Easy to get wrong:
//   - more than 4 channels mean an inpainting model, but 8 mean "change this picture"
//   - SD2 says nowhere that it predicts v: the spread of one bias tells it
//   - marks such as v_pred stand at the root of the file, not below the network's prefix
// Owns nothing.
#include <math.h>

#include "models/unet.h"

typedef enum family {
    NONE,
    SD15,
    SD15_INPAINT,
    SD15_IP2P,
    SD2,
    SD2_INPAINT,
    UNCLIP,
    LOTUS,
    REFINER,
    PLAYGROUND,
    SDXL_IP2P,
    COSXL_EDIT,
    SDXL_INPAINT,
    KOALA_700M,
    KOALA_1B,
    SSD1B,
    VEGA,
    SDXL
} family;

enum { REFINER_VECTOR = 2560, UNCLIP_L_VECTOR = 1536, UNCLIP_H_VECTOR = 2048, SD2_TEXT = 1024 };

// --- which family ------------------------------------------------------------------------------
static bool marked(at_store *s, const char *mark)
{
    return at_store_find(s, mark) != NULL;
}

// Video networks have layers in time; the x4 upscaler has a table of noise levels.
static bool is_another(at_store *s, const char *prefix)
{
    return at_store_findf(s, "%slabel_emb.weight", prefix) ||
           at_store_findf(s, "%sinput_blocks.1.1.time_stack.0.norm1.weight", prefix) ||
           at_store_findf(s, "%sinput_blocks.1.0.time_stack.in_layers.0.weight", prefix);
}

// Depth of the last transformer of the input half.
static int64_t last_depth(const at_unet_shape *u)
{
    int64_t depth = -1;
    for (int i = 0; i < u->blocks; i++)
        if (u->input[i].depth >= 0) depth = u->input[i].depth;
    return depth;
}

static family xl_family(at_store *s, const at_unet_shape *u)
{
    if (u->adm == REFINER_VECTOR) return REFINER;
    if (marked(s, "edm_mean") && marked(s, "edm_std")) return PLAYGROUND;
    if (u->in == 8) return marked(s, "edm_vpred.sigma_max") ? COSXL_EDIT : SDXL_IP2P;
    if (u->in > 4) return SDXL_INPAINT;
    if (u->middle == -2) return KOALA_700M;
    if (u->middle == -1) return last_depth(u) == 2 ? VEGA : SSD1B;
    if (u->blocks == 6) return KOALA_1B; // one residual block per level
    return SDXL;
}

static family family_of(at_store *s, const char *prefix)
{
    at_unet_shape u = {0};

    if (is_another(s, prefix) || at_unet_measure_input(s, prefix, &u)) return NONE;
    if (!u.linear) return u.in == 8 ? SD15_IP2P : u.in > 4 ? SD15_INPAINT : SD15;
    if (!u.adm) return u.in > 4 ? SD2_INPAINT : SD2;
    if (u.adm == 4 && u.in == 4) return LOTUS;
    if (u.context == SD2_TEXT && (u.adm == UNCLIP_L_VECTOR || u.adm == UNCLIP_H_VECTOR))
        return UNCLIP;
    return xl_family(s, &u);
}

// --- sampling facts in the file ----------------------------------------------------------------
// Population deviation of a small tensor; 0 if it is not there to be read.
static double deviation(at_store *s, const char *prefix, const char *key)
{
    enum { MOST = 8192 };
    at_weight *w = at_store_findf(s, "%s%s", prefix, key);
    int64_t n = w ? at_weight_elements(w) : 0;
    float v[MOST];
    double sum = 0, squares = 0;

    if (n < 1 || n > MOST || at_weight_ready(w) != AT_OK || !w->data) return 0;
    at_weight_read_f32(w, 0, n, v);
    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    for (int64_t i = 0; i < n; i++)
        squares += (v[i] - sum / (double)n) * (v[i] - sum / (double)n);
    return sqrt(squares / (double)n);
}

static void sampling_sd2(at_store *s, const char *prefix, at_model_sampling *ms)
{
    static const char key[] = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
    if (deviation(s, prefix, key) > 0.09) ms->prediction = AT_PRED_V;
}

static double number_at(at_store *s, const char *key, double otherwise)
{
    at_weight *w = at_store_find(s, key);
    float v;
    if (!w || at_weight_elements(w) != 1 || at_weight_ready(w) != AT_OK || !w->data)
        return otherwise;
    at_weight_read_f32(w, 0, 1, &v);
    return v > 0 && isfinite(v) ? (double)v : otherwise;
}

static void sampling_xl(at_store *s, const char *prefix, at_model_sampling *ms)
{
    (void)prefix;
    if (marked(s, "edm_vpred.sigma_max")) {
        ms->prediction = AT_PRED_V;
        ms->kind = AT_SIGMA_CONTINUOUS_EDM;
        ms->sigma_max = number_at(s, "edm_vpred.sigma_max", 120);
        ms->sigma_min = number_at(s, "edm_vpred.sigma_min", 0.002);
    } else if (marked(s, "v_pred")) {
        ms->prediction = AT_PRED_V;
        ms->zsnr = marked(s, "ztsnr");
    }
}

// --- the vector beside the text ----------------------------------------------------------------
// Pooled text and n numbers, each as a sinusoid of 256, for every row of the pooled text.
static at_tensor *pooled_and_sizes(at_ops *o, const at_bound *m, const at_vector_in *in,
                                   const float *values, int n)
{
    const at_unet_shape *u = m->config;
    const at_tensor *pooled = in->unclip ? in->unclip : in->pooled, *rows[64];
    int64_t width = u->adm - 256 * n;

    if (!pooled || pooled->rank != 2 || width < 1 || pooled->shape[1] < width)
        return at_ops_poison(o, AT_EINVAL,
                             "%s needs the pooled text of its own encoders, %lld wide, and got %s "
                             "%lld; load its text encoders with type \"sdxl\"",
                             m->arch->title, (long long)width, pooled ? "one of" : "none:",
                             (long long)(pooled ? pooled->shape[pooled->rank - 1] : 0));
    if (pooled->shape[0] < 1 || pooled->shape[0] > (int64_t)AT_LEN(rows))
        return at_ops_poison(o, AT_EINVAL, "a batch of %lld pooled texts; %zu is the most",
                             (long long)pooled->shape[0], AT_LEN(rows));
    if (in->unclip) pooled = at_narrow(o, pooled, 1, 0, width);
    pooled = at_cast(o, pooled, AT_F32);
    at_tensor *sizes = at_timestep_embedding(o, values, n, 256, 10000.0, true);
    sizes = at_reshape(o, sizes, 2, (int64_t[]){1, 256 * n});
    for (int64_t i = 0; pooled && i < pooled->shape[0]; i++)
        rows[i] = sizes;
    at_tensor *all = pooled ? at_concat(o, 0, (int)pooled->shape[0], rows) : NULL;
    return at_concat(o, 1, 2, (const at_tensor *[]){pooled, all});
}

static at_tensor *vector_xl(at_ops *o, const at_bound *m, const at_vector_in *in)
{
    const float values[] = {(float)in->height, (float)in->width,    (float)in->crop_h,
                            (float)in->crop_w, (float)in->target_h, (float)in->target_w};
    return pooled_and_sizes(o, m, in, values, AT_LEN(values));
}

static at_tensor *vector_refiner(at_ops *o, const at_bound *m, const at_vector_in *in)
{
    const float values[] = {(float)in->height, (float)in->width, (float)in->crop_h,
                            (float)in->crop_w, (float)in->score};
    return pooled_and_sizes(o, m, in, values, AT_LEN(values));
}

// Zeros where no picture is given.
static at_tensor *vector_unclip(at_ops *o, const at_bound *m, const at_vector_in *in)
{
    int64_t shape[] = {1, ((const at_unet_shape *)m->config)->adm};
    return in->unclip ? (at_tensor *)in->unclip : at_zeros(o, AT_F32, 2, shape);
}

// The task (1, 0) as sines, then cosines.
static at_tensor *vector_lotus(at_ops *o, const at_bound *m, const at_vector_in *in)
{
    const float task[] = {sinf(1), sinf(0), cosf(1), cosf(0)};
    (void)m, (void)in;
    return at_from_host(o, AT_F32, 2, (int64_t[]){1, 4}, task);
}

// --- latents -----------------------------------------------------------------------------------
static const float rgb_sd15[] = {0.3512f,  0.2297f, 0.3227f, 0.3250f,  0.4974f,  0.2350f,
                                 -0.2829f, 0.1762f, 0.2721f, -0.2120f, -0.2616f, -0.7177f};
static const float rgb_xl[] = {0.3651f, 0.4232f, 0.4341f,  -0.2533f, -0.0042f, 0.1068f,
                               0.1076f, 0.1111f, -0.0362f, -0.3165f, -0.2492f, -0.2188f};
static const float rgb_bias_xl[] = {0.1084f, -0.0175f, -0.0011f};
static const float rgb_playground[] = {0.3920f, 0.4054f, 0.4549f,  -0.2634f, -0.0196f, 0.0653f,
                                       0.0568f, 0.1687f, -0.0755f, -0.3112f, -0.2359f, -0.2076f};
static const float mean_playground[] = {-1.6574f, 1.886f, -1.383f, 2.5155f};
static const float std_playground[] = {8.4927f, 5.9022f, 6.5498f, 5.2299f};

static const at_latent_format latent_sd15 = {.name = "sd15",
                                             .channels = 4,
                                             .downscale = 8,
                                             .scale = 0.18215f,
                                             .rgb = rgb_sd15,
                                             .tiny = "taesd"};
static const at_latent_format latent_xl = {.name = "sdxl",
                                           .channels = 4,
                                           .downscale = 8,
                                           .scale = 0.13025f,
                                           .rgb = rgb_xl,
                                           .rgb_bias = rgb_bias_xl,
                                           .tiny = "taesdxl"};
static const at_latent_format latent_playground = {.name = "playground 2.5",
                                                   .channels = 4,
                                                   .downscale = 8,
                                                   .scale = 0.5f,
                                                   .mean = mean_playground,
                                                   .std = std_playground,
                                                   .rgb = rgb_playground,
                                                   .tiny = "taesdxl"};

// --- rows --------------------------------------------------------------------------------------
#define SIZE(name_, field)                                                                         \
    {                                                                                              \
        .name = name_, .offset = offsetof(at_unet_shape, field), .how = AT_SIZE_MEASURED           \
    }
static const at_size_row sizes[] = {
    SIZE("model channels", channels),
    SIZE("channels in", in),
    SIZE("channels out", out),
    SIZE("levels", levels),
    SIZE("input blocks", blocks),
    SIZE("transformer layers", layers),
    SIZE("middle depth", middle),
    SIZE("context", context),
    SIZE("vector", adm),
};

static const at_probe probes[] = {
    {.key = "input_blocks.0.0.weight"},
    {.key = "output_blocks.0.0.in_layers.2.weight"},
    {.key = "time_embed.0.weight"},
};

#define DISCRETE(prediction_)                                                                      \
    {                                                                                              \
        .prediction = prediction_, .kind = AT_SIGMA_DISCRETE, .beta_start = 0.00085,               \
        .beta_end = 0.012, .timesteps = 1000, .sigma_data = 1                                      \
    }
#define EDM                                                                                        \
    {                                                                                              \
        .prediction = AT_PRED_EDM, .kind = AT_SIGMA_CONTINUOUS_EDM, .sigma_min = 0.002,            \
        .sigma_max = 80, .sigma_data = 0.5                                                         \
    }

#define UNET(id, family_, title_, latent_, sampling_, ...)                                         \
    static bool is_##id(at_store *s, const char *prefix)                                           \
    {                                                                                              \
        return family_of(s, prefix) == family_;                                                    \
    }                                                                                              \
    const at_arch at_arch_##id = {.name = #id,                                                     \
                                  .title = title_,                                                 \
                                  .part = AT_PART_DENOISER,                                        \
                                  .f16 = true,                                                     \
                                  .probes = probes,                                                \
                                  .n_probes = AT_LEN(probes),                                      \
                                  .match = is_##id,                                                \
                                  .sizes = sizes,                                                  \
                                  .n_sizes = AT_LEN(sizes),                                        \
                                  .config_size = sizeof(at_unet_shape),                            \
                                  .measure = at_unet_measure,                                      \
                                  .weights_size = sizeof(at_unet_weights),                         \
                                  .bind = at_unet_bind,                                            \
                                  .latent = &latent_,                                              \
                                  .sampling = sampling_,                                           \
                                  .denoiser = &at_unet_ops,                                        \
                                  __VA_ARGS__}

#define XL .sampling_of = sampling_xl, .vector = vector_xl

UNET(sd15, SD15, "Stable Diffusion 1", latent_sd15, DISCRETE(AT_PRED_EPS),
     .concat = AT_CONCAT_NONE);
UNET(sd15_inpaint, SD15_INPAINT, "Stable Diffusion 1 inpainting", latent_sd15,
     DISCRETE(AT_PRED_EPS), .concat = AT_CONCAT_INPAINT);
UNET(sd15_ip2p, SD15_IP2P, "InstructPix2Pix (Stable Diffusion 1)", latent_sd15,
     DISCRETE(AT_PRED_EPS), .concat = AT_CONCAT_IP2P);
UNET(sd2, SD2, "Stable Diffusion 2", latent_sd15, DISCRETE(AT_PRED_EPS),
     .sampling_of = sampling_sd2);
UNET(sd2_inpaint, SD2_INPAINT, "Stable Diffusion 2 inpainting", latent_sd15, DISCRETE(AT_PRED_EPS),
     .concat = AT_CONCAT_INPAINT);
UNET(sd21_unclip, UNCLIP, "Stable Diffusion 2.1 unCLIP", latent_sd15, DISCRETE(AT_PRED_EPS),
     .sampling_of = sampling_sd2, .vector = vector_unclip);
UNET(lotus, LOTUS, "Lotus-D", latent_sd15, DISCRETE(AT_PRED_IMG_TO_IMG), .vector = vector_lotus);
UNET(sdxl, SDXL, "Stable Diffusion XL", latent_xl, DISCRETE(AT_PRED_EPS), XL);
UNET(sdxl_inpaint, SDXL_INPAINT, "Stable Diffusion XL inpainting", latent_xl, DISCRETE(AT_PRED_EPS),
     XL, .concat = AT_CONCAT_INPAINT);
UNET(sdxl_ip2p, SDXL_IP2P, "InstructPix2Pix (Stable Diffusion XL)", latent_xl,
     DISCRETE(AT_PRED_EPS), XL, .concat = AT_CONCAT_IP2P);
UNET(cosxl_edit, COSXL_EDIT, "CosXL Edit", latent_xl, DISCRETE(AT_PRED_EPS), XL,
     .concat = AT_CONCAT_IP2P_IN);
UNET(playground25, PLAYGROUND, "Playground 2.5", latent_playground, EDM, .vector = vector_xl);
UNET(sdxl_refiner, REFINER, "Stable Diffusion XL refiner", latent_xl, DISCRETE(AT_PRED_EPS),
     .vector = vector_refiner);
UNET(ssd1b, SSD1B, "SSD-1B", latent_xl, DISCRETE(AT_PRED_EPS), XL);
UNET(vega, VEGA, "Segmind Vega", latent_xl, DISCRETE(AT_PRED_EPS), XL);
UNET(koala_700m, KOALA_700M, "KOALA 700M", latent_xl, DISCRETE(AT_PRED_EPS), XL);
UNET(koala_1b, KOALA_1B, "KOALA 1B", latent_xl, DISCRETE(AT_PRED_EPS), XL);
