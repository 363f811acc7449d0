// SPDX-License-Identifier: Apache-2.0
// process_args.h - the flags by which several processes share one picture, and the processes that one starts itself.
// Idea: the others are told who they are by the environment, so that their command line is the first one's.
// Ownership: a group's processes belong to who began it, until at_process_group_end.
#ifndef AT_CLI_PROCESS_ARGS_H
#define AT_CLI_PROCESS_ARGS_H

#include "atelier/atelier.h"
#include "cli/args.h"

typedef struct at_process_options {
    const char *rank; // NULL: not given
    long ranks, processes;
    const char *rendezvous;
} at_process_options;

#define AT_PROCESS_ARGS(T, f)                                                                      \
    {"--processes",                                                                                \
     "N",                                                                                          \
     AT_ARG_INT,                                                                                   \
     offsetof(T, f.processes),                                                                     \
     1,                                                                                            \
     16,                                                                                           \
     .help = "share one picture among N processes of this machine, each with a device of its "     \
             "own: the first N GPUs, --devices, or the CPU"},                                      \
        {"--rank", "R", AT_ARG_TEXT, offsetof(T, f.rank),                                          \
         .help = "this is process R (from 0) of --ranks that share one picture; start the same "   \
                 "command for each, with its own --device"},                                       \
        {"--ranks", "N", AT_ARG_INT, offsetof(T, f.ranks), 1, 16, .help = "how many there are"},   \
    {                                                                                              \
        "--rendezvous", "HOST:PORT", AT_ARG_TEXT, offsetof(T, f.rendezvous),                       \
            .help = "where rank 0 listens; all of them must know the same ATELIER_SECRET (an "     \
                    "environment variable)"                                                        \
    }

typedef struct at_process_group at_process_group;

// Who this process is; with --processes the first one starts the others. job: what must be the same in all.
// *group is NULL where this process has started none.
at_status at_processes_begin(const at_process_options *o, const char *job, at_processes *out,
                             at_process_group **group);
// The device of this one of --processes, from --device and --devices: the i-th that is named, else GPU i, else the CPU.
// name keeps it.
at_status at_processes_device(const at_process_options *o, const at_processes *p,
                              const char **device, const char **devices, char name[32]);
// Waits for the others, which end by themselves or, where `st` is a failure, are ended after 10 s; a failure of one
// is returned where st is AT_OK. NULL group: st.
at_status at_process_group_end(at_process_group *g, at_status st);

#endif
