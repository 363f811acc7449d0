// SPDX-License-Identifier: Apache-2.0
// squeeze.c - answers in gzip for those who take it (--enable-compress-response-body); see server.h.
// Idea: what a handler wrote as text is packed where the handler ran; files from disk stay as they are.
// Easy to get wrong: pictures are packed already; a proxy must not give the packed answer to somebody else (Vary).
// Source: RFC 1952; which answers: ComfyUI 0.3.64, behaviour of its middleware, and the page's own files.
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "serve/server.h"

enum { LEAST = 512 }; // bytes; below, packing gains less than its headers cost

static bool is_text(const char *type)
{
    static const char *const types[] = {"application/json", "text/", "application/javascript",
                                        "image/svg+xml"};
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
        if (strncmp(type, types[i], strlen(types[i])) == 0) return true;
    return false;
}

// "gzip" without "q=0" behind it.
static bool takes_gzip(const char *accepts)
{
    const char *at = accepts ? strstr(accepts, "gzip") : NULL;
    if (!at) return false;
    at += strcspn(at, ",;");
    at += strspn(at, "; ");
    return strncmp(at, "q=0", 3) != 0 || at[3] == '.';
}

static at_status pack(at_response *rs)
{
    at_status st = AT_OK;
    z_stream z = {0};
    unsigned char *out = NULL;

    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return at_fail(AT_ENOMEM, "no memory for a packed answer");
    size_t most = deflateBound(&z, rs->bytes);
    out = at_alloc(most);
    if (!out) AT_TRY(at_fail(AT_ENOMEM, "no memory for a packed answer"));
    z.next_in = (unsigned char *)rs->body;
    z.avail_in = (uInt)rs->bytes;
    z.next_out = out;
    z.avail_out = (uInt)most;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        AT_TRY(at_fail(AT_EINTERNAL, "an answer of %zu bytes could not be packed", rs->bytes));
    at_free(rs->body);
    rs->body = (char *)out;
    rs->bytes = (size_t)z.total_out;
    out = NULL;
    at_response_header(rs, "Content-Encoding", "gzip");
out:
    deflateEnd(&z);
    at_free(out);
    return st;
}

void at_response_squeeze(const at_server *s, const at_request *rq, at_response *rs)
{
    if (!s->config->compress || rs->is_file || !rs->body || rs->bytes < LEAST ||
        rs->bytes > 1u << 30 || !is_text(rs->type))
        return;
    at_response_header(rs, "Vary", "Accept-Encoding");
    if (takes_gzip(rq->header[AT_HEADER_ACCEPT_ENCODING])) (void)pack(rs); // else as it is
}
