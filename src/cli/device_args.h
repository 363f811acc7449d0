// SPDX-License-Identifier: Apache-2.0
// device_args.h - the flags that say where networks run, in what numbers, and what stays in memory.
// Idea: ComfyUI's own flags under their own names, so that a command line that worked there works here;
// one table for every command that opens an engine. They become plain fields of at_engine_config.
// Owns nothing: strings are borrowed from argv.
#ifndef AT_CLI_DEVICE_ARGS_H
#define AT_CLI_DEVICE_ARGS_H

#include "atelier/atelier.h"
#include "cli/args.h"

typedef struct at_device_options {
    const char *device, *cuda_device, *devices, *parallel, *shares, *comm, *text_device,
        *vae_device;
    long cpu_ranks;
    bool cpu, gpu_only, highvram, normalvram, lowvram, novram;
    bool disable_smart_memory, cpu_vae, no_effect;
    at_arg_real reserve_vram;
    bool force_fp32, force_fp16;
    bool unet_fp32, unet_fp64, unet_bf16, unet_fp16, unet_e4m3, unet_e5m2, unet_e8m0;
    bool vae_fp16, vae_fp32, vae_bf16;
    bool text_e4m3, text_e5m2, text_fp16, text_fp32, text_bf16;
    at_arg_set fast;
} at_device_options;

#define AT_DEVICE_FLAG(T, f, name_, field_, help_)                                                 \
    {                                                                                              \
        name_, NULL, AT_ARG_FLAG, offsetof(T, f.field_), .help = help_                             \
    }
#define AT_DEVICE_ARGS(T, f)                                                                       \
    {"--device", "NAME", AT_ARG_TEXT, offsetof(T, f.device),                                       \
     .help = "auto (the first GPU, else the CPU), cpu, cuda or cuda:1; `atelier devices` lists "   \
             "what there is"},                                                                     \
        {"--cuda-device,--default-device", "N", AT_ARG_TEXT, offsetof(T, f.cuda_device),           \
         .help = "the same as --device cuda:N"},                                                   \
        {"--devices", "LIST", AT_ARG_TEXT, offsetof(T, f.devices),                                 \
         .help = "several for one picture: cuda:0,cuda:1 or cuda (all); without it and --device "  \
                 "all GPUs"},                                                                      \
        {"--cpu-ranks",                                                                            \
         "N",                                                                                      \
         AT_ARG_INT,                                                                               \
         offsetof(T, f.cpu_ranks),                                                                 \
         1,                                                                                        \
         16,                                                                                       \
         .help = "share a picture among N ranks on the CPU"},                                      \
        {"--parallel", "PLAN", AT_ARG_TEXT, offsetof(T, f.parallel),                               \
         .help = "how devices share a picture: auto (the default), none, or some of cfg=N, "       \
                 "ulysses=N, ring=N, patch=N with commas between"},                                \
        {"--shares", "A,B", AT_ARG_TEXT, offsetof(T, f.shares),                                    \
         .help =                                                                                   \
             "of devices of unlike speed: what each takes against the others, as 3,2; without "    \
             "it they are measured where they differ"},                                            \
        {"--comm",                                                                                 \
         "HOW",                                                                                    \
         AT_ARG_CHOICE,                                                                            \
         offsetof(T, f.comm),                                                                      \
         .choices = "auto|peer|nccl",                                                              \
         .help = "how GPUs hand each other their parts: auto (copies where one process has all "   \
                 "of them, NCCL between processes), peer (copies), nccl"},                         \
        {"--text-device", "NAME", AT_ARG_TEXT, offsetof(T, f.text_device),                         \
         .help = "where text encoders run: auto (the default: with the denoiser while there is "   \
                 "room, else where there is), cuda:1, cpu"},                                       \
        {"--vae-device", "NAME", AT_ARG_TEXT, offsetof(T, f.vae_device),                           \
         .help = "where VAEs run, likewise"},                                                      \
        AT_DEVICE_FLAG(T, f, "--cpu", cpu, "the same as --device cpu"),                            \
        AT_DEVICE_FLAG(T, f, "--gpu-only", gpu_only,                                               \
                       "keep every model on the GPU (what happens anyway while there is room)"),   \
        AT_DEVICE_FLAG(T, f, "--highvram", highvram, "the same as --gpu-only"),                    \
        AT_DEVICE_FLAG(T, f, "--normalvram", normalvram,                                           \
                       "the default: models stay until their room is wanted"),                     \
        AT_DEVICE_FLAG(T, f, "--lowvram", lowvram,                                                 \
                       "keep at most half of the GPU's memory in weights; the rest streams"),      \
        AT_DEVICE_FLAG(T, f, "--novram", novram,                                                   \
                       "keep no weights on the GPU: all of them stream"),                          \
        {"--reserve-vram", "GB", AT_ARG_REAL, offsetof(T, f.reserve_vram),                         \
         .help = "GiB of the GPU's memory to leave to others (default 0.4)"},                      \
        AT_DEVICE_FLAG(T, f, "--disable-smart-memory", disable_smart_memory,                       \
                       "let a model's weights go when another model's are wanted"),                \
        AT_DEVICE_FLAG(T, f, "--cpu-vae", cpu_vae, "run VAEs on the CPU"),                         \
        AT_DEVICE_FLAG(T, f, "--force-fp32", force_fp32, "compute everything in f32"),             \
        AT_DEVICE_FLAG(T, f, "--force-fp16", force_fp16,                                           \
                       "f16 where a model bears it (on a GPU: the default)"),                      \
        AT_DEVICE_FLAG(T, f, "--fp32-unet", unet_fp32, "denoisers compute in f32"),                \
        AT_DEVICE_FLAG(T, f, "--fp64-unet", unet_fp64, "refused: nothing here computes in f64"),   \
        AT_DEVICE_FLAG(T, f, "--bf16-unet", unet_bf16, "denoisers compute in bf16"),               \
        AT_DEVICE_FLAG(T, f, "--fp16-unet", unet_fp16, "denoisers compute in f16"),                \
        AT_DEVICE_FLAG(T, f, "--fp8_e4m3fn-unet", unet_e4m3,                                       \
                       "keep denoisers' wide layers in fp8 and multiply in it"),                   \
        AT_DEVICE_FLAG(T, f, "--fp8_e5m2-unet", unet_e5m2,                                         \
                       "the same (kept in e4m3 with a scale a row)"),                              \
        AT_DEVICE_FLAG(T, f, "--fp8_e8m0fnu-unet", unet_e8m0, "refused: it has no mantissa"),      \
        AT_DEVICE_FLAG(T, f, "--fp16-vae", vae_fp16, "VAEs compute in f16 (may overflow)"),        \
        AT_DEVICE_FLAG(T, f, "--fp32-vae", vae_fp32, "VAEs compute in f32"),                       \
        AT_DEVICE_FLAG(T, f, "--bf16-vae", vae_bf16, "VAEs compute in bf16"),                      \
        AT_DEVICE_FLAG(T, f, "--fp8_e4m3fn-text-enc", text_e4m3,                                   \
                       "without effect: text encoders keep their numbers"),                        \
        AT_DEVICE_FLAG(T, f, "--fp8_e5m2-text-enc", text_e5m2,                                     \
                       "without effect: text encoders keep their numbers"),                        \
        AT_DEVICE_FLAG(T, f, "--fp16-text-enc", text_fp16, "text encoders compute in f16"),        \
        AT_DEVICE_FLAG(T, f, "--fp32-text-enc", text_fp32, "text encoders compute in f32"),        \
        AT_DEVICE_FLAG(T, f, "--bf16-text-enc", text_bf16, "text encoders compute in bf16"),       \
        {"--fast",                                                                                 \
         "WHAT...",                                                                                \
         AT_ARG_SET,                                                                               \
         offsetof(T, f.fast),                                                                      \
         .choices = "fp16_accumulation|fp8_matrix_mult|cublas_ops|autotune",                       \
         .help = "trade exactness for speed; fp8_matrix_mult multiplies fp8 files in fp8, the "    \
                 "others have nothing to do here"},                                                \
        AT_DEVICE_FLAG(T, f,                                                                       \
                       "--async-offload,--cuda-malloc,--disable-cuda-malloc,--force-channels-"     \
                       "last,--force-non-blocking,--disable-xformers,--use-pytorch-cross-"         \
                       "attention,--use-split-cross-attention,--use-quad-cross-attention,--use-"   \
                       "flash-attention,--use-sage-attention,--force-upcast-attention,--dont-"     \
                       "upcast-attention,--deterministic,--mmap-torch-files,--disable-mmap,"       \
                       "--supports-fp8-compute",                                                   \
                       no_effect, "ComfyUI's, taken without effect")

// Into the config. AT_EUSAGE where two of them exclude each other or one cannot be had.
at_status at_device_options_apply(const at_device_options *o, at_engine_config *c);

#endif
