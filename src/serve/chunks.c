// SPDX-License-Identifier: Apache-2.0
// chunks.c - see chunks.h.
#include "serve/chunks.h"

bool at_chunks_feed(at_chunks *c, const char *bytes, size_t n,
                    bool (*add)(void *ctx, const char *bytes, size_t n), void *ctx)
{
    for (size_t i = 0; i < n && c->at != AT_CHUNK_END;) {
        char b = bytes[i];
        if (c->at == AT_CHUNK_DATA) {
            size_t take = c->left < n - i ? c->left : n - i;
            if (!add(ctx, bytes + i, take)) return false;
            i += take;
            c->left -= take;
            if (!c->left) c->at = AT_CHUNK_CRLF;
            continue;
        }
        i++;
        if (c->at == AT_CHUNK_SIZE) {
            int v = b >= '0' && b <= '9'                 ? b - '0'
                    : (b | 32) >= 'a' && (b | 32) <= 'f' ? (b | 32) - 'a' + 10
                                                         : -1;
            if (v >= 0) {
                if (++c->digits > 8) return false;
                c->left = c->left * 16 + (size_t)v;
                continue;
            }
            if (!c->digits) return false;
            c->at = AT_CHUNK_SKIP;
        }
        if (c->at == AT_CHUNK_SKIP) {
            if (b != '\n') continue;
            c->at = c->left ? AT_CHUNK_DATA : AT_CHUNK_TRAILER;
            c->digits = 0;
        } else if (c->at == AT_CHUNK_CRLF) {
            if (b == '\n') c->at = AT_CHUNK_SIZE, c->left = 0;
        } else if (b == '\n') { // a trailer's line; an empty one ends it all
            if (!c->line) c->at = AT_CHUNK_END;
            c->line = false;
        } else if (b != '\r') {
            c->line = true;
        }
    }
    return true;
}
