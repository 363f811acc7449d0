// SPDX-License-Identifier: Apache-2.0
// digest.h - SipHash-2-4 with 128 bits: keys of the result cache and of tables over strange
// strings.
// Idea: with a key drawn at random per process nobody can choose two workflows with one digest.
// Source: Aumasson & Bernstein 2012, "SipHash: a fast short-input PRF", and its 128-bit variant.
// Owns nothing.
#ifndef AT_FLOW_DIGEST_H
#define AT_FLOW_DIGEST_H

#include <stddef.h>
#include <stdint.h>

typedef struct at_digest {
    uint64_t a, b;
} at_digest;

// A running digest. Fields of changing length need their length in front: at_hash_text does that.
typedef struct at_hash {
    uint64_t v[4], tail;
    size_t bytes;
} at_hash;

void at_hash_key(at_digest *out); // the random key of this process
void at_hash_start(at_hash *h, at_digest key);
void at_hash_bytes(at_hash *h, const void *p, size_t n);
void at_hash_text(at_hash *h, const char *s);
void at_hash_u64(at_hash *h, uint64_t v);
at_digest at_hash_end(at_hash *h);

#endif
