// SPDX-License-Identifier: Apache-2.0
// verify_case.h - what verify.c gives to the components it runs.
// Idea: a component reads inputs from the case and hands each result to at_case_output.
// Owns: an at_case owns its JSON, stores, ops and outputs.
#ifndef AT_ENGINE_VERIFY_CASE_H
#define AT_ENGINE_VERIFY_CASE_H

#include <jansson.h>

#include "engine/verify.h"
#include "models/lora.h"
#include "models/models.h"

enum { AT_CASE_RANKS = 16 };

typedef struct at_case_out {
    char name[160];
    float *data; // f32 holds every id below 2^24
    int64_t count;
} at_case_out;

typedef struct at_case {
    const char *dir;
    json_t *json, *options; // options: borrowed from json, never NULL
    char *model;            // path; "" if the case names none
    at_store *inputs, *expected;
    at_ops *ops;
    at_device *device; // NULL: the CPU
    at_dtype dtype;
    bool fp8; // wide layers may multiply in fp8
    int ranks, repeat;
    bool layers; // ranks share layers
    double rtol;
    at_case_out *outs;
    size_t n_outs;
} at_case;

// A file of the case, relative to its folder; NULL key or absent: NULL in *path. The caller frees.
at_status at_case_path(const at_case *c, const json_t *object, const char *key, char **path);
const char *at_case_text(const at_case *c, const char *option, const char *fallback);
double at_case_number(const at_case *c, const char *option, double fallback);

// An input by name in f32 on the op device, NULL in *out if there is none and it is optional.
at_status at_case_input(at_case *c, const char *name, bool optional, at_tensor **out);
// The same as plain values (at_free): `scale` records are not applied to integers.
at_status at_case_values(at_case *c, const char *name, bool optional, float **out, int64_t *count);

// Copies n values; or a tensor's elements.
at_status at_case_output(at_case *c, const char *name, const float *values, int64_t n);
at_status at_case_output_tensor(at_case *c, const char *name, const at_tensor *t);

// The components, in verify_model.c, verify_text.c and verify_sample.c.
at_status at_case_denoiser(at_case *c, at_verify_report *r);
at_status at_case_text_encoder(at_case *c, at_verify_report *r);
at_status at_case_vae_decode(at_case *c, at_verify_report *r);
at_status at_case_controlnet(at_case *c, at_verify_report *r); // verify_control.c
at_status at_case_gligen(at_case *c, at_verify_report *r);
at_status at_case_clip_vision(at_case *c, at_verify_report *r); // verify_vision.c
at_status at_case_style_model(at_case *c, at_verify_report *r);
at_status at_case_photomaker(at_case *c, at_verify_report *r);
at_status at_case_upscaler(at_case *c, at_verify_report *r); // verify_upscaler.c
at_status at_case_vae_encode(at_case *c, at_verify_report *r);
at_status at_case_tokenizer(at_case *c, at_verify_report *r);
at_status at_case_sampler(at_case *c, at_verify_report *r);
at_status at_case_noise(at_case *c, at_verify_report *r);
at_status at_case_weights(at_case *c, at_verify_report *r); // verify_weights.c

// `store` with the files of options.loras on it, whose layers go by `names`; a new reference.
at_status at_case_apply_loras(at_case *c, at_store *store, at_lora_names *names, at_store **out);

#endif
