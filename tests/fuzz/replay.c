// SPDX-License-Identifier: Apache-2.0
// replay.c - run every file of a corpus through one fuzz target: replay FOLDER_OR_FILE...
// Also runs each file cut in half and with its first byte changed, which costs nothing and finds much.
#include "base/file.h"
#include "base/mem.h"
#include "fuzz.h"

#define MAX_INPUT (16u << 20)

static int run(const char *path)
{
    char *data;
    size_t n;

    if (at_file_read(path, MAX_INPUT, &data, &n) != AT_OK) {
        fprintf(stderr, "%s\n", at_error_text());
        return 1;
    }
    size_t live = at_mem_get_stats().live_bytes;
    LLVMFuzzerTestOneInput((const uint8_t *)data, n);
    LLVMFuzzerTestOneInput((const uint8_t *)data, n / 2);
    if (n) {
        data[0] ^= 1;
        LLVMFuzzerTestOneInput((const uint8_t *)data, n);
    }
    if (at_mem_get_stats().live_bytes != live) {
        fprintf(stderr, "%s: %zu bytes leaked\n", path, at_mem_get_stats().live_bytes - live);
        n = SIZE_MAX;
    }
    at_free(data);
    return n == SIZE_MAX;
}

int main(int argc, char **argv)
{
    size_t count = 0, bad = 0;

    LLVMFuzzerTestOneInput((const uint8_t *)"", 0); // what a target keeps for ever, it makes now
    for (int i = 1; i < argc; i++) {
        at_list files = {0};
        if (!at_path_is_dir(argv[i])) {
            bad += (size_t)run(argv[i]);
            count++;
            continue;
        }
        if (at_list_files(argv[i], true, 100000, &files) != AT_OK) {
            fprintf(stderr, "%s\n", at_error_text());
            return 1;
        }
        for (size_t k = 0; k < files.count; k++, count++) {
            char *path = at_path_join(argv[i], files.items[k]);
            bad += path ? (size_t)run(path) : 1;
            at_free(path);
        }
        at_list_free(&files);
    }
    printf("%zu inputs, %zu bad\n", count, bad);
    return count == 0 || bad != 0;
}
