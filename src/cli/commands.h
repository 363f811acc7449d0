// SPDX-License-Identifier: Apache-2.0
// commands.h - the list of commands, one file each, and the flags that several share.
#ifndef AT_CLI_COMMANDS_H
#define AT_CLI_COMMANDS_H

#include "atelier/atelier.h"
#include "cli/args.h"
#include "cli/device_args.h"

extern const at_command at_command_run;
extern const at_command at_command_serve;
extern const at_command at_command_plan;
extern const at_command at_command_inspect;
extern const at_command at_command_nodes;
extern const at_command at_command_models;
extern const at_command at_command_devices;
extern const at_command at_command_bench;
extern const at_command at_command_verify;
extern const at_command at_command_version;

// Folders, device, memory and precision: the same flags on every command that opens an engine.
typedef struct at_common_options {
    at_arg_list models, yaml;
    const char *base, *input, *output, *temp, *dtype;
    at_device_options device;
    long threads;
    bool disable_metadata;
} at_common_options;

#define AT_COMMON_ARGS(T, f)                                                                       \
    {"--models", "DIR", AT_ARG_LIST, offsetof(T, f.models),                                        \
     .help = "a folder in ComfyUI's models layout; may be repeated"},                              \
        {"--base-directory", "DIR", AT_ARG_TEXT, offsetof(T, f.base),                              \
         .help = "a ComfyUI folder: models/, input/, output/, temp/ below it"},                    \
        {"--extra-model-paths-config", "FILE", AT_ARG_LIST, offsetof(T, f.yaml),                   \
         .help = "an extra_model_paths.yaml; may be repeated"},                                    \
        {"--input,--input-directory", "DIR", AT_ARG_TEXT, offsetof(T, f.input),                    \
         .help = "where LoadImage looks (default ./input)"},                                       \
        {"--output,--output-directory", "DIR", AT_ARG_TEXT, offsetof(T, f.output),                 \
         .help = "where SaveImage writes (default ./output)"},                                     \
        {"--temp,--temp-directory", "DIR", AT_ARG_TEXT, offsetof(T, f.temp),                       \
         .help = "where PreviewImage writes (default ./temp)"},                                    \
        AT_DEVICE_ARGS(T, f.device),                                                               \
        {"--dtype",                                                                                \
         "TYPE",                                                                                   \
         AT_ARG_CHOICE,                                                                            \
         offsetof(T, f.dtype),                                                                     \
         .choices = "auto|f32|bf16|fp16|int8|fp8",                                                 \
         .help = "compute type (default auto: what the device does best for each network; fp16: "  \
                 "auto, f16 where a network bears it; int8: auto, with wide layers rounded to "    \
                 "int8 where that is faster; fp8: the same in fp8, in denoisers)"},                \
        {"--threads",                                                                              \
         "N",                                                                                      \
         AT_ARG_INT,                                                                               \
         offsetof(T, f.threads),                                                                   \
         1,                                                                                        \
         1024,                                                                                     \
         .help = "CPU threads (default: all cores this process may use)"},                         \
    {                                                                                              \
        "--disable-metadata", NULL, AT_ARG_FLAG, offsetof(T, f.disable_metadata),                  \
            .help = "write no workflow into pictures"                                              \
    }

// Where the time goes: options `trace` and `trace_level` of T.
#define AT_TRACE_ARGS(T)                                                                           \
    {"--trace", "FILE", AT_ARG_TEXT, offsetof(T, trace),                                           \
     .help = "write where the time goes, op by op, for ui.perfetto.dev or chrome://tracing"},      \
    {                                                                                              \
        "--trace-level", "LEVEL", AT_ARG_CHOICE, offsetof(T, trace_level),                         \
            .choices = "ops|spans",                                                                \
            .help =                                                                                \
                "ops: each by itself; spans: nodes, steps and replayed graphs as they run (ops)"   \
    }

// What the common flags say, borrowed from them; sets the number of threads.
at_status at_common_config(const at_common_options *o, at_engine_config *out);
// An engine as the common flags describe it.
at_status at_common_open(const at_common_options *o, at_engine **out);
// The compute dtype of --dtype; AT_DTYPE_COUNT for auto.
int at_common_dtype(const at_common_options *o);

#endif
