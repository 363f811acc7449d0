// SPDX-License-Identifier: Apache-2.0
// cfg_node.h - what the nodes that change guidance share: their table, their selves, small mixes.
// Idea: such a node is a struct of parameters (the hook's self) and a table of hook functions; its
// run function copies one and hangs both on the MODEL.
// Owns: a hook owns the copy that at_cfg_give makes.
#ifndef AT_NODES_CFG_NODE_H
#define AT_NODES_CFG_NODE_H

#include "nodes/hooks.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

extern const at_out at_model_outs[1], at_patched_outs[1]; // MODEL; MODEL named patched_model

// A node table of inputs `rows` of struct `st` and one of the outputs above.
#define AT_MODEL_NODE(cls, title, where, module, flag, rows, st, outs, fn)                         \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = module,           \
        .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = outs, .n_out = 1,                \
        .in_size = sizeof(st), .run = fn,                                                          \
    }

// The model with one more hook, whose self is a copy of these bytes (size 0: NULL). An object in
// the copy is the hook's to hold: retain it before, release it in ops->free.
at_status at_cfg_give(const at_object *model, const at_hook_ops *ops, const void *self, size_t size,
                      at_value *out);

// a x + b y (+ c z), all f32 of one shape.
at_tensor *at_mix_2(at_ops *o, double a, const at_tensor *x, double b, const at_tensor *y);
at_tensor *at_mix_3(at_ops *o, double a, const at_tensor *x, double b, const at_tensor *y, double c,
                    const at_tensor *z);
// x with item i times k[i].
at_tensor *at_scale_items(at_ops *o, const at_tensor *x, const double *k);

enum { AT_CFG_ITEMS = 4096 }; // the largest batch that rules with numbers per item take
// False (and poison) if the batch is larger.
bool at_cfg_fits(at_ops *o, const at_guided *d);

#endif
