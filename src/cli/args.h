// SPDX-License-Identifier: Apache-2.0
// args.h - flags as a table: one row gives the parser, the range check and the --help line.
// Owns: strings are borrowed from argv; lists are the caller's (at_args_free).
#ifndef AT_CLI_ARGS_H
#define AT_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef enum at_arg_kind {
    AT_ARG_FLAG,   // bool
    AT_ARG_TEXT,   // const char *
    AT_ARG_LIST,   // at_arg_list: may be repeated
    AT_ARG_INT,    // long, within min..max
    AT_ARG_REAL,   // at_arg_real: a number >= 0
    AT_ARG_CHOICE, // const char *: one of `choices` ("a|b|c")
    AT_ARG_SET,    // at_arg_set: the words behind it that are `choices`; none: all of them
    AT_ARG_MAYBE, // const char *: the word behind it; without one, or before another flag, `choices`
    AT_ARG_IGNORED // stores nothing and says why: `help`; with a metavar it takes the words up to the next flag
} at_arg_kind;

typedef struct at_arg_real {
    bool given;
    double value;
} at_arg_real;

typedef struct at_arg_set {
    bool given;
    unsigned mask; // bit i: the i-th choice
} at_arg_set;

typedef struct at_arg_list {
    const char **items;
    size_t count;
} at_arg_list;

typedef struct at_arg {
    const char *name;    // "--models"; a second spelling after a comma: "--models,--model-path"
    const char *metavar; // "DIR"; NULL for flags
    at_arg_kind kind;
    size_t offset; // into the options struct
    long min, max;
    const char *choices;
    const char *help;
} at_arg;

typedef struct at_command {
    const char *name;
    const char *operands; // "WORKFLOW.json"
    const char *summary;  // one line
    const char *details;  // paragraphs under --help; may be NULL
    const at_arg *args;
    size_t n_args;
    size_t options_size;
    size_t min_operands, max_operands;
    // options filled from the table, defaults set by `defaults` before (may be NULL).
    void (*defaults)(void *options);
    at_status (*run)(void *options, const at_arg_list *operands);
} at_command;

// Parse argv[0..argc) (without program and command). AT_EUSAGE with a message.
at_status at_args_parse(const at_command *c, int argc, char **argv, void *options,
                        at_arg_list *operands);
void at_args_free(const at_command *c, void *options, at_arg_list *operands);
void at_args_help(const at_command *c); // to standard output

#endif
