// SPDX-License-Identifier: Apache-2.0
// reply_file.c - a file from disk as an answer: streamed, with one range, an ETag and 304.
// Idea: the handler opens and measures; the loop thread reads piece by piece while the socket takes it.
// Source: RFC 9110 sections 8.8, 13 and 14; the ETag has aiohttp's form (mtime in ns and size, in hex).
// Owns: the descriptor belongs to the response until it is sent.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "serve/http.h"

// "bytes=a-b", "bytes=a-", "bytes=-n". 1: a range that fits; 0: none, or one that we need not follow;
// -1: it lies behind the end.
static int range_of(const char *text, uint64_t size, uint64_t *from, uint64_t *n)
{
    char *end = NULL;
    if (!text || strncmp(text, "bytes=", 6) != 0 || strchr(text, ',')) return 0;
    text += 6;
    if (*text == '-') {
        uint64_t last = strtoull(text + 1, &end, 10);
        if (end == text + 1 || *end) return 0;
        if (last == 0 || size == 0) return -1;
        *n = last < size ? last : size;
        *from = size - *n;
        return 1;
    }
    *from = strtoull(text, &end, 10);
    if (end == text || *end != '-') return 0;
    uint64_t to = size ? size - 1 : 0;
    if (end[1]) {
        const char *number = end + 1;
        uint64_t given = strtoull(number, &end, 10);
        if (end == number || *end || given < *from) return 0;
        if (given < to) to = given;
    }
    if (*from >= size) return -1;
    *n = to - *from + 1;
    return 1;
}

at_status at_reply_file(const at_request *rq, at_response *rs, const char *path, const char *type)
{
    struct stat s;
    char text[96];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not hold us up

    if (fd < 0 || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
        if (fd >= 0) close(fd);
        return at_reply_status(rs, 404);
    }
    uint64_t size = (uint64_t)s.st_size, from = 0, n = size;
    snprintf(text, sizeof text, "\"%llx-%llx\"",
             (unsigned long long)s.st_mtim.tv_sec * 1000000000ull +
                 (unsigned long long)s.st_mtim.tv_nsec,
             (unsigned long long)size);
    at_response_header(rs, "ETag", text);
    const char *known = rq->header[AT_HEADER_IF_NONE_MATCH];
    if (known && (strstr(known, text) || strcmp(known, "*") == 0)) {
        close(fd);
        return at_reply_status(rs, 304);
    }
    struct tm tm;
    strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&s.st_mtime, &tm));
    at_response_header(rs, "Last-Modified", text);
    at_response_header(rs, "Accept-Ranges", "bytes");
    int range = range_of(rq->header[AT_HEADER_RANGE], size, &from, &n);
    if (range) {
        if (range > 0)
            snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)from,
                     (unsigned long long)(from + n - 1), (unsigned long long)size);
        else
            snprintf(text, sizeof text, "bytes */%llu", (unsigned long long)size);
        at_response_header(rs, "Content-Range", text);
    }
    if (range < 0) {
        close(fd);
        return at_reply_status(rs, 416);
    }
    at_reply_status(rs, range ? 206 : 200);
    rs->type = type;
    rs->file = fd;
    rs->is_file = true;
    rs->offset = from;
    rs->bytes = n;
    return AT_OK;
}
