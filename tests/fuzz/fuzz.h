// SPDX-License-Identifier: Apache-2.0
// fuzz.h - what every target shares: the entry point, and promises that hold for any bytes.
// Idea: a target does not only survive its input; it checks what the parser promised about the result
// (FUZZ_CHECK aborts, so that both libFuzzer and the replay stop there).
#ifndef AT_TESTS_FUZZ_H
#define AT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(promise)                                                                        \
    do {                                                                                           \
        if (!(promise)) {                                                                          \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #promise);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
