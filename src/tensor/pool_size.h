// SPDX-License-Identifier: Apache-2.0
// pool_size.h - how large a block is that a device's pool takes for so many bytes.
// Idea: sizes that differ a little share blocks: to 512 bytes, from 1 MiB on to an eighth of their power of two.
// Plans count with the same rule (dry.h). Inline, because plug-ins ask too. Owns nothing.
#ifndef AT_TENSOR_POOL_SIZE_H
#define AT_TENSOR_POOL_SIZE_H

#include <stddef.h>

static inline size_t at_pool_block(size_t bytes)
{
    if (bytes < ((size_t)1 << 20)) return (bytes + 511) / 512 * 512 + (bytes == 0) * 512;
    size_t step = (size_t)1 << 17; // an eighth of the power of two below
    while (step * 16 <= bytes)
        step *= 2;
    return (bytes + step - 1) / step * step;
}

#endif
