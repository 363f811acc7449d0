// SPDX-License-Identifier: Apache-2.0
// needs.h - what a slot takes of a device's memory beside its arguments, told before it runs.
// Idea: a device knows how its slots work, so it alone can say what they borrow and what they make of weights;
// `plan` asks it while a network runs on the dry device (dry.h).
// Easy to get wrong: upper bounds are wanted. What libraries decide is told as if they took the more expensive way.
// Owns nothing.
#ifndef AT_TENSOR_NEEDS_H
#define AT_TENSOR_NEEDS_H

#include "atelier/backend.h"

typedef enum at_needs_of { // which slot's arguments
    AT_NEEDS_LINEAR,
    AT_NEEDS_GEGLU,
    AT_NEEDS_CONV2D,
    AT_NEEDS_ATTENTION,
    AT_NEEDS_NORM,
    AT_NEEDS_GROUP_NORM,
    AT_NEEDS_ROPE,
    AT_NEEDS_EMBEDDING
} at_needs_of;

enum { AT_NEEDS_FORMS = 8 };
typedef struct at_needs {
    size_t scratch; // while the slot's work is queued
    int n;
    struct {
        const at_packed *of; // a weight's slot
        size_t bytes;        // the form that is kept there
    } forms[AT_NEEDS_FORMS];
} at_needs;

#endif
