// SPDX-License-Identifier: Apache-2.0
// http.h - a request and its answer as plain structs, free of sockets.
// Idea: a route is a function from one to the other, so that any thread may run it and a test may call it;
// net_http.c alone knows how they travel.
// Easy to get wrong: paths and query values are already percent-decoded; a body may hold NUL bytes.
// Owns: a request owns its strings, a response its body; at_request_free, at_response_free.
#ifndef AT_SERVE_HTTP_H
#define AT_SERVE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json/json.h"

typedef enum at_method {
    AT_HTTP_GET = 1 << 0, // HEAD is a GET whose body is not sent
    AT_HTTP_POST = 1 << 1,
    AT_HTTP_PUT = 1 << 2,
    AT_HTTP_PATCH = 1 << 3,
    AT_HTTP_DELETE = 1 << 4,
    AT_HTTP_OPTIONS = 1 << 5,
    AT_HTTP_OTHER = 1 << 6
} at_method;

// The headers that somebody reads.
typedef enum at_header {
    AT_HEADER_HOST,
    AT_HEADER_ORIGIN,
    AT_HEADER_CONTENT_TYPE,
    AT_HEADER_RANGE,
    AT_HEADER_IF_NONE_MATCH,
    AT_HEADER_USER, // "comfy-user"
    AT_HEADER_AUTHORIZATION,
    AT_HEADER_COOKIE,
    AT_HEADER_ACCEPT_ENCODING,
    AT_HEADER_COUNT
} at_header;

typedef struct at_query {
    char *key, *value;
} at_query;

#define AT_ROUTE_PARAMS 3

typedef struct at_request {
    at_method method;
    bool head;
    char *path; // decoded, as sent: "/api/queue"
    at_query *query;
    size_t query_count;
    char *header[AT_HEADER_COUNT]; // NULL: not sent
    char *body;                    // with a NUL behind it; NULL: none
    size_t bytes;
    char *user;                   // whose request it is (at_request_identify); NULL: nobody's yet
    int role;                     // an at_role
    char peer[48];                // the address it comes from
    char *param[AT_ROUTE_PARAMS]; // what stood at the braces of the route's pattern
} at_request;

void at_request_free(at_request *rq);
const char *at_request_query(const at_request *rq, const char *key); // borrowed; NULL if absent
bool at_request_flag(const at_request *rq, const char *key);         // "true", in any case
// The body as JSON whatever its content type. AT_EWORKFLOW if it is none.
at_status at_request_json(const at_request *rq, json_t **out);

typedef struct at_response {
    int status;       // 0: 200
    const char *type; // content type, static; NULL: none is sent
    at_str head;      // more headers, "Name: value\r\n" each
    char *body;
    size_t bytes;
    int file; // when is_file: a descriptor that is streamed from `offset`, `bytes` long, and closed at the end
    bool is_file;
    uint64_t offset;
    struct at_submission
        *held; // not NULL: filled when the turn is committed (submit.h), who also frees it
} at_response;

void at_response_free(at_response *rs);
void at_response_header(at_response *rs, const char *name, const char *value);
// An empty answer with this status; clears what was there.
at_status at_reply_status(at_response *rs, int status);
at_status at_reply_text(at_response *rs, int status, const char *text); // text/plain; copies
// As aiohttp's json_response prints it; takes the reference, NULL is AT_ENOMEM.
at_status at_reply_json(at_response *rs, int status, json_t *value);
at_status at_reply_json_text(at_response *rs, int status, char *json); // takes the text
at_status at_reply_bytes(at_response *rs, const char *type, void *bytes, size_t n); // takes them
// A file from disk, with ranges, ETag and 304; 404 if it is no regular file.
at_status at_reply_file(const at_request *rq, at_response *rs, const char *path, const char *type);
// The type that Python's mimetypes gives the name; "application/octet-stream" for the rest.
const char *at_mime_type(const char *name);
const char *at_http_reason(int status);

#endif
