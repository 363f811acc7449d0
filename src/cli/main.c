// SPDX-License-Identifier: Apache-2.0
// main.c - the door: hands the arguments to the command line floor.
#include "cli/cli.h"

int main(int argc, char **argv)
{
    return at_cli_main(argc, argv);
}
