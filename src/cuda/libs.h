// SPDX-License-Identifier: Apache-2.0
// libs.h - libraries opened by name, and tables of their functions.
#ifndef AT_CUDA_LIBS_H
#define AT_CUDA_LIBS_H

#include <stddef.h>

// A row per function: where its pointer goes and what it is called.
typedef struct at_cuda_symbol {
    size_t offset;
    const char *name;
} at_cuda_symbol;

// The first of names (NULL behind the last) that is found; NULL with a message.
void *at_cuda_library(const char *const *names);
int at_cuda_symbols(void *lib, void *table, const at_cuda_symbol *rows, size_t n);

#endif
