// SPDX-License-Identifier: Apache-2.0
// signature.h - when are two nodes of two prompts the same work? The key of the result cache.
// Source: ComfyUI 0.3.64 comfy_execution/caching.py CacheKeySetInputSignature; comfyui-contract
// 3.6.
#ifndef AT_FLOW_SIGNATURE_H
#define AT_FLOW_SIGNATURE_H

#include "flow/digest.h"
#include "flow/graph.h"

// keys[i] for every node of the graph. changed[i]: the node's fingerprint as text, NULL if it has
// none; never[i]: its fingerprint failed (NaN in ComfyUI: equal to nothing, the key is fresh each
// time).
at_status at_signatures(const at_graph *g, char *const *changed, const bool *never,
                        at_digest *keys);

// keys[first ..] of nodes that were added to a graph whose other nodes have theirs.
at_status at_signatures_add(const at_graph *g, size_t first, char *const *changed,
                            const bool *never, at_digest *keys);

#endif
