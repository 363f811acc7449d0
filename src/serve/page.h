// SPDX-License-Identifier: Apache-2.0
// page.h - the files of the page of the house, which the build puts into the program (web/, cmake/embed.cmake).
#ifndef AT_SERVE_PAGE_H
#define AT_SERVE_PAGE_H

#include <stddef.h>

typedef struct at_page_file {
    const char *name; // "index.html"
    const unsigned char *bytes;
    size_t n;
} at_page_file;

extern const at_page_file at_page_files[]; // ends with name NULL

#endif
