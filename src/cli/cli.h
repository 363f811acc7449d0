// SPDX-License-Identifier: Apache-2.0
// cli.h - the command line: one table of commands, each with its own file and flags.
#ifndef AT_CLI_CLI_H
#define AT_CLI_CLI_H

// Run the command of argv[1]; returns the process exit status (design: 0 done, 2 usage, 3 workflow not
// valid, 4 model or input file missing or bad, 5 out of memory, 6 device error, 130 interrupted).
int at_cli_main(int argc, char **argv);

#endif
