// SPDX-License-Identifier: Apache-2.0
// chunks.h - the chunked coding of a request's body, piece by piece, as it stands on the wire.
// Source: RFC 9112 section 7.1.
// Owns nothing: data is handed on as it comes.
#ifndef AT_SERVE_CHUNKS_H
#define AT_SERVE_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>

// The place between two pieces; starts zeroed.
typedef struct at_chunks {
    enum {
        AT_CHUNK_SIZE,
        AT_CHUNK_SKIP, // an extension, or the line's end
        AT_CHUNK_DATA,
        AT_CHUNK_CRLF,
        AT_CHUNK_TRAILER,
        AT_CHUNK_END
    } at;
    size_t left;
    int digits;
    bool line; // the trailer's line has something in it
} at_chunks;

// One piece; data goes through add. False: it is not in that coding, or add said no. What follows the end is ignored.
bool at_chunks_feed(at_chunks *c, const char *bytes, size_t n,
                    bool (*add)(void *ctx, const char *bytes, size_t n), void *ctx);

#endif
