// SPDX-License-Identifier: Apache-2.0
// sweep.c - see sweep.h.
// Easy to get wrong: a link in the folder may lead to somebody's pictures: links are removed, not followed, and other
// file systems below it are left alone.
#include "serve/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define MARKER ".emptied-at-start"

static int drop(const char *path, const struct stat *s, int kind, struct FTW *at)
{
    (void)s, (void)kind;
    if (at->level > 0 && strcmp(path + at->base, MARKER) != 0 && remove(path) != 0)
        at_log(AT_WARN, "SWEEP", "%s: %s", path, strerror(errno));
    return 0;
}

static bool mark(const char *path)
{
    static const char text[] = "atelier serve removes what lies in this folder when it starts.\n";
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return false;
    bool written = write(fd, text, sizeof text - 1) == (ssize_t)(sizeof text - 1);
    close(fd);
    return written;
}

static bool is_empty(const char *dir)
{
    at_list l = {0};
    bool empty = at_list_files(dir, true, 1, &l) == AT_OK && l.count == 0;
    at_list_free(&l);
    return empty;
}

void at_sweep(const char *dir)
{
    char *marker = at_path_join(dir, MARKER);

    if (marker && at_path_exists(marker)) {
        if (nftw(dir, drop, 16, FTW_PHYS | FTW_DEPTH | FTW_MOUNT) != 0)
            at_log(AT_WARN, "SWEEP", "%s: %s", dir, strerror(errno));
    } else if (marker && !is_empty(dir)) {
        at_log(AT_INFO, "SWEEP-FOREIGN",
               "%s holds files that no server of this kind put there: they stay", dir);
    } else if (marker && !mark(marker)) {
        at_log(AT_WARN, "SWEEP", "%s: %s", marker, strerror(errno));
    }
    at_free(marker);
}
