// SPDX-License-Identifier: Apache-2.0
// ops_ranks.h - what attention over split tokens shares: the facts of an exchange, and tokens as they travel.
// Idea: see ops_attention_ranks.c (Ulysses, and keys brought together) and ops_attention_ring.c (keys that go
// round). Owns nothing.
#ifndef AT_OPS_OPS_RANKS_H
#define AT_OPS_OPS_RANKS_H

#include "ops/ops_private.h"

// The facts of one exchange.
typedef struct op_ranks {
    const op_pass *p;
    at_comm *heads, *ring;
    int64_t b, h, d;
    int64_t counts[OPS_MAX_RANKS]; // tokens of each rank; ring after ring
    const int64_t *mine;           // those of my Ulysses group
    int64_t all;                   // their sum
    int64_t first_head, own_heads;
} op_ranks;

// Elements of one token of all pictures with `heads` heads of `parts` tensors.
int64_t op_token(const op_ranks *x, int64_t heads, int parts);
// Tokens of some heads as they travel: [t][b][parts][heads][d], seen as part `part`, [b, t, heads, d].
at_view op_travelling(const op_ranks *x, void *data, at_dtype dtype, int64_t t, int64_t heads,
                      int part, int parts);
// The same, all parts as one: [b, t, parts, heads, d].
at_view op_together_there(const op_ranks *x, void *block, at_dtype dtype, int64_t t, int64_t n,
                          int parts);
// The tensors lie in each row of one, evenly apart, and can be copied as one. Tensors apart do so by chance, on one
// rank and not on another.
bool op_evenly_apart(const at_view *v, int parts);
// Then: heads [first, first + n) of all of them, [b, t, parts, n, d].
at_view op_together(const at_view *v, int parts, int64_t first, int64_t n);
// Heads [first, first + n) of v[0 .. parts) into a block.
at_status op_pack(const op_ranks *x, const at_view *v, int parts, int64_t first, int64_t n,
                  void *block);
// Tokens of ring i's group.
int64_t op_ring_tokens(const op_ranks *x, int i);

// --- keys and values that go round (ops_attention_ring.c) ---
// They do, rather than being brought together: where all of them are large, or by the word of AT_OFF.
bool op_ring_hops(const op_ranks *x, at_dtype dtype);
// The own keys and values leave for the next ring; *arrives takes those of the one before.
at_status op_ring_begin(const op_ranks *x, const at_view *kv, at_tensor **arrives);
// a->q over all rings' keys, a->k and a->v being this one's; `arrives` of op_ring_begin.
at_status op_ring_attend(const op_ranks *x, const at_attention_args *a, at_tensor *arrives);

#endif
