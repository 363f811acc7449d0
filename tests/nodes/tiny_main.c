// SPDX-License-Identifier: Apache-2.0
// tiny_main.c - make_tiny_models GOLDEN DIR: the small models folder for tests that are no C programs.
#include <stdio.h>

#include "tiny.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s tests/golden DIR\n", argv[0]);
        return 2;
    }
    if (tiny_models_make(argv[1], argv[2]) == AT_OK) return 0;
    fprintf(stderr, "%s\n", at_error_text());
    return 1;
}
