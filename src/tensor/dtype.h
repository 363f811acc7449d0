// SPDX-License-Identifier: Apache-2.0
// dtype.h - facts about element types.
#ifndef AT_TENSOR_DTYPE_H
#define AT_TENSOR_DTYPE_H

#include <stdbool.h>

#include "atelier/types.h"

size_t at_dtype_size(at_dtype t);                  // bytes of one element
const char *at_dtype_name(at_dtype t);             // "bf16", as atelier's flags spell it
const char *at_dtype_st_name(at_dtype t);          // "BF16", as safetensors spells it
bool at_dtype_parse(const char *s, at_dtype *out); // either spelling, also "fp8_e4m3fn", "float32"
bool at_dtype_is_float(at_dtype t);

#endif
