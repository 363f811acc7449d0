// SPDX-License-Identifier: Apache-2.0
// zip.h - the directory of a zip archive whose entries are stored as they are (torch.save's).
// Source: PKWARE APPNOTE 6.3.10 (central directory, zip64).
// Refused: compressed or encrypted entries, entries that leave the file or overlap, several disks.
// Owns: an at_zip owns its rows and names; the bytes stay the caller's.
#ifndef AT_WEIGHT_ZIP_H
#define AT_WEIGHT_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_zip_row {
    char *name;
    uint64_t offset, bytes; // of the data, from the start of the file
} at_zip_row;

typedef struct at_zip {
    at_zip_row *rows; // sorted by name
    size_t count;
} at_zip;

at_status at_zip_read(const char *label, const void *data, size_t size, at_zip *out);
void at_zip_free(at_zip *z);
const at_zip_row *at_zip_find(const at_zip *z, const char *name); // NULL if there is none

#endif
