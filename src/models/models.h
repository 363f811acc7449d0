// SPDX-License-Identifier: Apache-2.0
// models.h - the zoo seen from outside: denoisers, text encoders and VAEs opened from weights.
// Idea: an architecture is a table (probes, config fields read off shapes, keys) and a forward
// that is a list of blocks; this header is all that nodes, engine and cli know of it.
// Ownership: everything here is reference counted and immutable after loading; a "patched" model
// is a cheap clone that shares the weights.
#ifndef AT_MODELS_MODELS_H
#define AT_MODELS_MODELS_H

#include "models/control.h"
#include "models/patch.h"
#include "models/sampling.h"
#include "ops/ops.h"
#include "par/plan.h"
#include "weight/store.h"

// --- what lies in a file -----------------------------------------------------------------------
typedef struct at_arch at_arch;              // private table row, see models/arch.h
const char *at_arch_name(const at_arch *a);  // "flux1", "clip_l", "t5", "kl_vae"
const char *at_arch_title(const at_arch *a); // "Flux.1 (dev)" family name for people

// A component found in a store: which architecture under which key prefix.
typedef enum at_part {
    AT_PART_DENOISER,
    AT_PART_TEXT,
    AT_PART_VAE,
    AT_PART_CONTROL,   // control_net.h
    AT_PART_VISION,    // vision.h: picture encoders
    AT_PART_STYLE,     // vision.h: from a picture's encoding to text tokens
    AT_PART_GLIGEN,    // gligen.h
    AT_PART_UPSCALER,  // upscaler.h
    AT_PART_PHOTOMAKER // photomaker.h
} at_part;
typedef struct at_found {
    const at_arch *arch;
    at_part part;
    char prefix[64]; // "model.diffusion_model.", "vae.", ""
} at_found;
// Its activations fit f16: what a GPU computes such networks in where nobody chose.
bool at_arch_f16(const at_arch *a);
// All components of a file, at most `max`. 0 found is no failure here.
size_t at_detect(at_store *s, at_found *out, size_t max);
// The first component of that part, under this prefix or (NULL) any; false: none.
bool at_detect_part(at_store *s, at_part part, const char *prefix, at_found *out);

// The config of a found component as rows for people ("hidden", "3072"): what `inspect` prints.
typedef struct at_fact {
    char name[32], value[64];
} at_fact;
size_t at_found_facts(at_store *s, const at_found *f, at_fact *out, size_t max);
// Names of tensors that the architecture needs and the file lacks or has in a wrong shape; joined
// by newlines in *out (at_free), "" if complete.
at_status at_found_missing(at_store *s, const at_found *f, char **out, size_t *count);

// --- latent formats ----------------------------------------------------------------------------
typedef struct at_latent_format {
    const char *name; // "flux", "sd15"
    int channels, downscale;
    float scale, shift; // process_in: (z - shift) * scale
    // [channels] each or NULL: process_in is (z - mean) * scale / std.
    const float *mean, *std;
    const float *rgb;      // [channels][3] for previews, NULL if none
    const float *rgb_bias; // [3] or NULL
    const char *tiny;      // its tiny autoencoder ("taesd"), for previews; NULL if none
} at_latent_format;

// --- denoisers ---------------------------------------------------------------------------------
typedef struct at_model at_model;
// What stands behind the latent along channels.
typedef enum at_concat_kind {
    AT_CONCAT_NONE,
    AT_CONCAT_INPAINT, // mask, masked picture (ComfyUI's concat_keys of set_inpaint)
    AT_CONCAT_IP2P,    // the picture to change, as its VAE gives it
    AT_CONCAT_IP2P_IN  // the same through process_in (CosXL edit)
} at_concat_kind;
// s is retained. AT_EFORMAT "unknown architecture" / missing tensors with their names.
at_status at_model_load(at_store *s, const char *label, at_model **out);
// Clone with other sampling facts (ModelSamplingFlux, ModelSamplingSD3): shares everything else.
at_status at_model_with_sampling(const at_model *m, const at_model_sampling *ms, at_model **out);
// Clones with another latent format (borrowed, static), and with another dtype of activations
// (ModelComputeDtype): at_model_compute gives it, AT_DTYPE_COUNT unless one was set.
at_status at_model_with_latent(const at_model *m, const at_latent_format *f, at_model **out);
at_status at_model_with_compute(const at_model *m, at_dtype compute, at_model **out);
at_dtype at_model_compute(const at_model *m);
// A clone whose wide layers may be kept in fp8 and multiply in it, whatever the file has (UNETLoader's
// weight_dtype); and whether most of the file's bytes are fp8 anyway.
at_status at_model_with_fp8(const at_model *m, at_model **out);
bool at_model_fp8(const at_model *m);
bool at_model_stored_fp8(const at_model *m);
// The same network over other weights of the same names and shapes (a LoRA's overlay): shares
// everything else. The store is retained.
at_status at_model_with_store(const at_model *m, at_store *s, at_model **out);
at_store *at_model_store(const at_model *m);    // borrowed
const char *at_model_prefix(const at_model *m); // of the network's keys in it
at_model *at_model_retain(at_model *m);
void at_model_release(at_model **m);
const at_model_sampling *at_model_get_sampling(const at_model *m);
const at_latent_format *at_model_latent(const at_model *m);
const char *at_model_label(const at_model *m);
const at_arch *at_model_arch(const at_model *m);
int at_model_blocks(const at_model *m);
at_concat_kind at_model_concat(const at_model *m);

// Channels that the network takes, x and concat together; its latent's if it takes no concat.
int at_model_channels(const at_model *m);
// Text is read by cross attention alone, so that repeating its tokens changes nothing.
bool at_model_text_repeats(const at_model *m);
// Widths of the text and of the vector beside it; 0: it takes none.
int64_t at_model_text_width(const at_model *m);
int64_t at_model_vector_width(const at_model *m);

// Where the positions of reference latents lie: in a layer of their own, beside each other; in a layer
// each; or behind the picture's last row and column (ComfyUI's "offset", "index", "uxo").
typedef enum at_ref_method { AT_REF_OFFSET, AT_REF_INDEX, AT_REF_UXO } at_ref_method;

// What one evaluation of the network needs beside x: tensors f32 or compute dtype on the op device.
typedef struct at_model_in {
    const at_tensor *x;       // [b, c, h, w] f32
    const float *timestep;    // b host values: at_sigma_to_timestep(sigma)
    const at_tensor *context; // [b, t, d]
    const at_tensor *pooled;  // [b, d] or NULL (zeros): pooled text, or all of at_model_vector
    const float *guidance;    // b host values or NULL (3.5 where the model wants one)
    // Behind x along channels, as the network takes it (inpainting, ip2p): [b, c2, h, w] f32 or NULL.
    const at_tensor *concat;
    // Latents to look at (Flux Kontext), [1 or b, c, h', w'] f32 each.
    const at_tensor *const *refs;
    size_t n_refs;
    at_ref_method ref_method;
    bool no_guidance;          // where the model wants guidance: leave its embedding out
    const at_control *control; // or NULL
    const at_patches *patches; // or NULL
    // For patches that have a range or treat conditionings apart: the sigma of all rows, and how
    // the batch is made up: `chunks` equal parts, kinds[i] 0 positive, 1 negative. NULL, 0: unknown.
    float sigma;
    const int *kinds;
    int chunks;
    // The timesteps of the run's evaluations, as they will come, and a name for what else stays the
    // same in them: guidance, pooled and their order. With key 0 nothing is kept from one to the next.
    const float *steps;
    size_t n_steps;
    uint64_t key;
    const struct at_made *made; // of the models themselves (arch.h); NULL
} at_model_in;
// All of at_model_in.pooled for a network that is told more than the pooled text (SDXL, unCLIP):
// sizes in pixels and score resolved by the caller (ComfyUI: sides of the latent * 8, crops 0,
// targets as the sides, score 6 or 2.5 for a negative prompt). pooled as it is for the others.
typedef struct at_vector_in {
    const at_tensor *pooled; // [b, d] or NULL
    const at_tensor *unclip; // [b, d] from unCLIP's noise augmentation, or NULL
    double width, height, crop_w, crop_h, target_w, target_h, score;
} at_vector_in;
at_tensor *at_model_vector(at_ops *o, const at_model *m, const at_vector_in *in);
// The raw network output [b, c, h, w] f32 in the current scope.
at_tensor *at_model_forward(at_ops *o, at_model *m, const at_model_in *in);

// Lets go of what idle sessions keep on the device for this model (session.h).
void at_model_forget(at_model *m);

// Per-block timing of the last forward on this thread, for bench: seconds of block i; count
// returned.
size_t at_model_block_seconds(double *out, size_t max);

// Estimated bytes: weights resident on the device, activations of one forward at this latent size.
typedef struct at_model_cost {
    double weight_bytes, activation_bytes, flops; // one forward, batch 1
    at_share_hints share;                         // how ranks can share it, of one latent
} at_model_cost;
at_model_cost at_model_estimate(const at_model *m, int64_t batch, int64_t latent_h,
                                int64_t latent_w, int64_t text_tokens, at_dtype compute);

// --- text encoders -----------------------------------------------------------------------------
typedef struct at_encoder at_encoder;
// prefix as detected. The kind of tokenizer it needs is at_encoder_tokenizer_kind.
at_status at_encoder_load(at_store *s, const at_found *where, at_encoder **out);
at_status at_encoder_with_store(const at_encoder *e, at_store *s, at_encoder **out);
at_store *at_encoder_store(const at_encoder *e); // borrowed
const char *at_encoder_prefix(const at_encoder *e);
at_encoder *at_encoder_retain(at_encoder *e);
void at_encoder_release(at_encoder **e);
const at_arch *at_encoder_arch(const at_encoder *e);
int64_t at_encoder_vocab(const at_encoder *e);
int64_t at_encoder_width(const at_encoder *e);
int64_t at_encoder_layers(const at_encoder *e);
int64_t at_encoder_max_tokens(const at_encoder *e); // 77 for CLIP; 0: unbounded

// A token whose embedding is given: its place in [b * t], and `width` values.
typedef struct at_encode_row {
    int64_t at;
    const float *values;
} at_encode_row;

typedef struct at_encode_in {
    const int32_t *ids;        // [b, t] host
    const at_encode_row *rows; // textual inversions, or NULL
    size_t n_rows;
    int64_t batch, tokens;
    int layer;       // 0 = last; -2 = the one before (CLIP's clip skip); negative counts from end
    bool final_norm; // apply the final norm to an intermediate layer
    int32_t eos;     // pooled position: first EOS; -1: no pooled
} at_encode_in;
typedef struct at_encoded {
    at_tensor *hidden;           // [b, t, d] f32
    at_tensor *pooled;           // [b, d] f32 unprojected, or NULL
    at_tensor *pooled_projected; // through text_projection where the file has one, else NULL
} at_encoded;
at_encoded at_encoder_forward(at_ops *o, at_encoder *e, const at_encode_in *in);

// --- VAE ---------------------------------------------------------------------------------------
typedef struct at_vae at_vae;
at_status at_vae_load(at_store *s, const char *label, at_vae **out);
at_vae *at_vae_retain(at_vae *v);
void at_vae_release(at_vae **v);
at_store *at_vae_store(const at_vae *v);    // borrowed
const char *at_vae_prefix(const at_vae *v); // of its keys in the store
int at_vae_channels(const at_vae *v);       // latent channels
int at_vae_downscale(const at_vae *v);      // 8
// Raw network, f32 NCHW in and out: z [b, c, h, w] -> [b, 3, 8h, 8w] about -1..1;
// x [b, 3, h, w] -1..1 -> mean [b, c, h/8, w/8].
at_tensor *at_vae_decode_raw(at_ops *o, at_vae *v, const at_tensor *z);
at_tensor *at_vae_encode_raw(at_ops *o, at_vae *v, const at_tensor *x);
// ComfyUI's VAEDecode / VAEEncode: pixels f32 [b, h, w, 3] in 0..1 on the host device. Falls back
// to tiles when memory asks for it. Encode crops to multiples of the downscale (centred, as
// ComfyUI).
at_tensor *at_vae_decode(at_ops *o, at_vae *v, const at_tensor *z);
at_tensor *at_vae_encode(at_ops *o, at_vae *v, const at_tensor *pixels);
// Tiled with feathered overlap (VAEDecodeTiled): sizes in pixels. ComfyUI's three-orientation
// average.
at_tensor *at_vae_decode_tiled(at_ops *o, at_vae *v, const at_tensor *z, int tile, int overlap);
at_tensor *at_vae_encode_tiled(at_ops *o, at_vae *v, const at_tensor *pixels, int tile,
                               int overlap);

#endif
