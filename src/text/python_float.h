// SPDX-License-Identifier: Apache-2.0
// python_float.h - what Python's float() makes of a piece of text, as the prompt language asks it.
#ifndef AT_TEXT_PYTHON_FLOAT_H
#define AT_TEXT_PYTHON_FLOAT_H

#include <stdbool.h>
#include <stddef.h>

// White space around it, a sign, digits of any script with single '_' between them, a point, an exponent;
// or inf, infinity, nan. False: float() would raise.
bool at_python_float(const char *text, size_t n, double *out);

#endif
