// SPDX-License-Identifier: Apache-2.0
// testing.h - nodes of at_nodes_test that stand in files of their own.
#ifndef AT_NODES_TESTING_H
#define AT_NODES_TESTING_H

#include "atelier/node.h"

#define AT_TEST_NODE(cls, title, where, rows, st, outs, fn, ...)                                   \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .flags = AT_NODE_TEST,             \
        .python_module = "custom_nodes.testing-pack", .in = rows, .n_in = AT_COUNT(rows),          \
        .in_size = sizeof(st), .out = outs, .n_out = AT_COUNT(outs), .run = fn, __VA_ARGS__        \
    }

extern const at_node at_node_test_crash;
// node_testing_logic.c
extern const at_node at_node_test_int, at_node_test_float, at_node_test_ints, at_node_test_floats,
    at_node_test_texts, at_node_test_bool, at_node_test_gate, at_node_test_math, at_node_test_block;
// node_testing_lists.c
extern const at_node at_node_test_accumulate, at_node_test_head, at_node_test_tail,
    at_node_test_to_list, at_node_test_of_list, at_node_test_length, at_node_test_get_item,
    at_node_test_set_item, at_node_test_make_list;
// node_testing_loops.c
extern const at_node at_node_test_while_open, at_node_test_while_close, at_node_test_for_open,
    at_node_test_for_close;
// node_testing_checks.c
extern const at_node at_node_test_average, at_node_test_changed, at_node_test_changed_constants,
    at_node_test_check1, at_node_test_check2, at_node_test_check3, at_node_test_check4,
    at_node_test_check5, at_node_test_scaled, at_node_test_check_value, at_node_test_check_max;
// node_testing_async.c
extern const at_node at_node_test_sleep, at_node_test_async_error, at_node_test_timeout,
    at_node_test_sync_error, at_node_test_async_lazy, at_node_test_resource, at_node_test_batch,
    at_node_test_limit, at_node_test_async_progress, at_node_test_sync_progress;
// node_testing_expand.c
extern const at_node at_node_test_cycle, at_node_test_mixed, at_node_test_sampling,
    at_node_test_parallel, at_node_test_dynamic;

#endif
