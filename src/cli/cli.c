// SPDX-License-Identifier: Apache-2.0
// cli.c - finds the command, parses its flags, runs it, and turns its status into an exit status.
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"

static const at_command *const commands[] = {
    &at_command_run,    &at_command_serve,   &at_command_plan,    &at_command_inspect,
    &at_command_nodes,  &at_command_models,  &at_command_devices, &at_command_bench,
    &at_command_verify, &at_command_version,
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void usage(FILE *to)
{
    fprintf(to, "usage: atelier COMMAND [flags] ...\n\n"
                "atelier draws pictures: it runs ComfyUI workflows natively.\n\ncommands\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(
        to,
        "\n`atelier COMMAND --help` tells more. Exit status: 0 done, 2 usage, 3 the workflow is "
        "not\nvalid, 4 a model or input file is missing or bad, 5 out of memory, 6 device error,\n"
        "130 interrupted.\n");
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

static int run_command(const at_command *c, int argc, char **argv)
{
    at_arg_list operands = {0};
    at_status st = AT_OK;
    void *options = at_calloc(1, c->options_size ? c->options_size : 1);

    if (asks_help(argc, argv)) {
        at_args_help(c);
        at_free(options);
        return 0;
    }
    if (!options) {
        st = at_fail(AT_ENOMEM, "command line: no memory");
    } else {
        if (c->defaults) c->defaults(options);
        st = at_args_parse(c, argc, argv, options, &operands);
        if (st == AT_OK) st = c->run(options, &operands);
        at_args_free(c, options, &operands);
    }
    at_free(options);
    if (st != AT_OK && *at_error_text())
        fprintf(stderr, "atelier %s: %s\n", c->name, at_error_text());
    return at_status_facts(st)->exit_code;
}

int at_cli_main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0) name = "version";
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return run_command(commands[i], argc - 2, argv + 2);
    fprintf(stderr, "atelier: \"%s\" is no command; `atelier --help` lists them\n", name);
    return 2;
}
