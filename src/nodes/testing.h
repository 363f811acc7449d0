// SPDX-License-Identifier: Apache-2.0
// testing.h - nodes of at_nodes_test that stand in files of their own.
#ifndef AT_NODES_TESTING_H
#define AT_NODES_TESTING_H

#include "atelier/node.h"

extern const at_node at_node_test_crash;

#endif
