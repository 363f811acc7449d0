// SPDX-License-Identifier: Apache-2.0
// http.c - reading requests and filling answers; see http.h.
#include "serve/http.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

void at_request_free(at_request *rq)
{
    at_free(rq->path);
    for (size_t i = 0; i < rq->query_count; i++) {
        at_free(rq->query[i].key);
        at_free(rq->query[i].value);
    }
    at_free(rq->query);
    for (int i = 0; i < AT_HEADER_COUNT; i++)
        at_free(rq->header[i]);
    for (int i = 0; i < AT_ROUTE_PARAMS; i++)
        at_free(rq->param[i]);
    at_free(rq->body);
    at_free(rq->user);
    *rq = (at_request){0};
}

const char *at_request_query(const at_request *rq, const char *key)
{
    for (size_t i = 0; i < rq->query_count; i++)
        if (strcmp(rq->query[i].key, key) == 0) return rq->query[i].value;
    return NULL;
}

bool at_request_flag(const at_request *rq, const char *key)
{
    const char *v = at_request_query(rq, key);
    return v && at_equal_nocase(v, "true");
}

at_status at_request_json(const at_request *rq, json_t **out)
{
    return at_json_load("body", rq->body ? rq->body : "", rq->bytes, out);
}

void at_response_free(at_response *rs)
{
    at_str_free(&rs->head);
    at_free(rs->body);
    if (rs->is_file) close(rs->file);
    *rs = (at_response){0};
}

// A value with a line break would be a second header: it is cut there.
void at_response_header(at_response *rs, const char *name, const char *value)
{
    at_str_append(&rs->head, name);
    at_str_append(&rs->head, ": ");
    at_str_append_n(&rs->head, value, strcspn(value, "\r\n"));
    at_str_append(&rs->head, "\r\n");
}

at_status at_reply_status(at_response *rs, int status)
{
    at_free(rs->body);
    rs->body = NULL;
    rs->bytes = 0;
    rs->status = status;
    return AT_OK;
}

at_status at_reply_bytes(at_response *rs, const char *type, void *bytes, size_t n)
{
    at_reply_status(rs, 200);
    rs->type = type;
    rs->body = bytes;
    rs->bytes = n;
    return bytes ? AT_OK : at_fail(AT_ENOMEM, "no memory for an answer");
}

at_status at_reply_text(at_response *rs, int status, const char *text)
{
    at_status st = at_reply_bytes(rs, "text/plain; charset=utf-8", at_strdup(text), strlen(text));
    rs->status = status;
    return st;
}

at_status at_reply_json_text(at_response *rs, int status, char *json)
{
    at_status st =
        at_reply_bytes(rs, "application/json; charset=utf-8", json, json ? strlen(json) : 0);
    rs->status = status;
    return st;
}

at_status at_reply_json(at_response *rs, int status, json_t *value)
{
    char *text = value ? at_json_dump(value, 0) : NULL;
    json_decref(value);
    return at_reply_json_text(rs, status, text);
}

const char *at_mime_type(const char *name)
{
    static const char *const table[][2] = {
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".webp", "image/webp"},
        {".gif", "image/gif"},
        {".svg", "image/svg+xml"},
        {".ico", "image/vnd.microsoft.icon"},
        {".bmp", "image/bmp"},
        {".avif", "image/avif"},
        {".html", "text/html"},
        {".htm", "text/html"},
        {".xhtml", "application/xhtml+xml"},
        {".js", "application/javascript; charset=utf-8"},
        {".mjs", "text/javascript"},
        {".css", "text/css"},
        {".json", "application/json"},
        {".map", "application/json"},
        {".txt", "text/plain"},
        {".md", "text/markdown"},
        {".csv", "text/csv"},
        {".xml", "text/xml"},
        {".woff", "font/woff"},
        {".woff2", "font/woff2"},
        {".ttf", "font/ttf"},
        {".wasm", "application/wasm"},
        {".mp4", "video/mp4"},
        {".webm", "video/webm"},
        {".mp3", "audio/mpeg"},
        {".flac", "audio/x-flac"},
        {".wav", "audio/x-wav"},
        {".opus", "audio/opus"},
    };
    const char *ext = at_path_ext(name);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (at_equal_nocase(ext, table[i][0])) return table[i][1];
    return "application/octet-stream";
}

const char *at_http_reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Request Entity Too Large";
    case 416: return "Requested Range Not Satisfiable";
    case 429: return "Too Many Requests";
    case 503: return "Service Unavailable";
    case 507: return "Insufficient Storage";
    default: return status < 400 ? "OK" : status < 500 ? "Bad Request" : "Internal Server Error";
    }
}
