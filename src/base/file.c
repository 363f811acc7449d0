// SPDX-License-Identifier: Apache-2.0
// file.c - reading files (mapped or whole) and writing them atomically.
// Idea: a written file appears under its name by rename, after its bytes and its folder were
// synced; whatever goes wrong before leaves the old file alone and no temporary behind. Owns: the
// temporary file between open and commit or abort.
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io_fault.h"
#include "base/mem.h"

// --- faults ----------------------------------------------------------------------------------
static atomic_bool g_armed, g_hit;
static _Atomic int64_t g_countdown;

void at_io_fail_at(uint64_t n)
{
    atomic_store(&g_armed, false);
    atomic_store(&g_countdown, (int64_t)n);
    atomic_store(&g_hit, false);
    atomic_store(&g_armed, n > 0);
}

bool at_io_fault_hit(void)
{
    return atomic_load(&g_hit);
}

bool at_io_fault_now(void)
{
    if (!atomic_load_explicit(&g_armed, memory_order_relaxed)) return false;
    if (atomic_fetch_sub(&g_countdown, 1) != 1) return false;
    atomic_store(&g_hit, true);
    errno = EIO;
    return true;
}

// --- reading ---------------------------------------------------------------------------------
static at_status fail_errno(const char *path, const char *what)
{
    int e = errno;

    if (e == ENOENT || e == ENOTDIR) return at_fail(AT_ENOTFOUND, "%s: no such file", path);
    // A mapping that does not fit the address space is memory that ran out, not a bad file.
    return at_fail(e == ENOMEM ? AT_ENOMEM : AT_EIO, "%s: cannot %s: %s", path, what, strerror(e));
}

// Open a regular file for reading and tell its size.
static at_status open_regular(const char *path, int *fd, uint64_t *size)
{
    struct stat info;

    *fd = at_io_fault_now() ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fail_errno(path, "open");
    if (fstat(*fd, &info) != 0) {
        at_status st = fail_errno(path, "stat");

        close(*fd);
        return st;
    }
    if (!S_ISREG(info.st_mode)) {
        close(*fd);
        return at_fail(AT_EIO, "%s: not a regular file", path);
    }
    *size = (uint64_t)info.st_size;
    return AT_OK;
}

// Mappings that are open, with their files: a handful, so a list is enough.
typedef struct mapping {
    struct mapping *next;
    const uint8_t *data;
    size_t size;
    int fd;
} mapping;
static pthread_mutex_t g_mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static mapping *g_mappings;

// Takes fd, unless there is no memory to remember it.
static at_status remember(const char *path, const uint8_t *data, size_t size, int fd)
{
    mapping *m = at_alloc(sizeof *m);

    if (!m) return at_fail(AT_ENOMEM, "%s: no memory to map it", path);
    pthread_mutex_lock(&g_mappings_lock);
    *m = (mapping){g_mappings, data, size, fd};
    g_mappings = m;
    pthread_mutex_unlock(&g_mappings_lock);
    return AT_OK;
}

static void forget(const uint8_t *data)
{
    mapping *gone = NULL;

    pthread_mutex_lock(&g_mappings_lock);
    for (mapping **at = &g_mappings; *at && !gone; at = &(*at)->next) {
        if ((*at)->data != data) continue;
        gone = *at;
        *at = gone->next;
        break;
    }
    pthread_mutex_unlock(&g_mappings_lock);
    if (gone) close(gone->fd);
    at_free(gone);
}

int at_map_file(const void *p, size_t bytes, uint64_t *offset)
{
    uintptr_t at = (uintptr_t)p;
    int fd = -1;

    pthread_mutex_lock(&g_mappings_lock);
    for (const mapping *m = g_mappings; m && fd < 0; m = m->next) {
        uintptr_t base = (uintptr_t)m->data;
        if (at < base || at - base > m->size || bytes > m->size - (at - base)) continue;
        *offset = at - base;
        fd = m->fd;
    }
    pthread_mutex_unlock(&g_mappings_lock);
    return fd;
}

at_status at_map_open(const char *path, at_map *out)
{
    at_status st = AT_OK;
    uint64_t size = 0;
    void *p = NULL;
    int fd = -1;

    *out = (at_map){0};
    st = open_regular(path, &fd, &size);
    if (st != AT_OK) return st;
    if (size > SIZE_MAX) AT_TRY(at_fail(AT_EIO, "%s: too large to map", path));
    if (size > 0) {
        p = at_io_fault_now() ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) AT_TRY(fail_errno(path, "map"));
    }
    if (p) {
        st = remember(path, p, (size_t)size, fd);
        if (st != AT_OK) {
            munmap(p, (size_t)size);
            goto out;
        }
        *out = (at_map){p, (size_t)size};
        return AT_OK; // fd is kept
    }
out:
    close(fd);
    return st;
}

void at_map_close(at_map *m)
{
    // The mapping is handed out const; giving it back does not write to it.
    if (m->data) {
        forget(m->data);
        munmap((void *)(uintptr_t)m->data, m->size);
    }
    *m = (at_map){0};
}

at_status at_file_read(const char *path, size_t max, char **out, size_t *size)
{
    at_status st = AT_OK;
    uint64_t want = 0;
    size_t have = 0;
    char *bytes = NULL;
    int fd = -1;

    st = open_regular(path, &fd, &want);
    if (st != AT_OK) return st;
    if (want > max || want >= SIZE_MAX) {
        AT_TRY(at_fail(AT_EINVAL, "%s: %llu bytes, at most %zu are read", path,
                       (unsigned long long)want, max));
    }
    bytes = at_alloc((size_t)want + 1);
    if (!bytes) {
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %llu bytes", path, (unsigned long long)want));
    }
    while (have < want) {
        ssize_t n = at_io_fault_now() ? -1 : read(fd, bytes + have, (size_t)want - have);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) AT_TRY(fail_errno(path, "read"));
        if (n == 0) break; // it shrank meanwhile: what is there counts
        have += (size_t)n;
    }
    bytes[have] = '\0';
    *out = bytes;
    if (size) *size = have;
    bytes = NULL;
out:
    at_free(bytes);
    close(fd);
    return st;
}

at_status at_file_size(const char *path, uint64_t *out)
{
    struct stat info;

    if (at_io_fault_now() || stat(path, &info) != 0) return fail_errno(path, "stat");
    *out = (uint64_t)info.st_size;
    return AT_OK;
}

// --- atomic writing --------------------------------------------------------------------------
struct at_atomic_file {
    int fd;
    bool fleeting;
    char *path, *temporary;
};

static void atomic_free(at_atomic_file *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    at_free(f->path);
    at_free(f->temporary);
    at_free(f);
}

at_status at_atomic_open(const char *path, at_atomic_file **out)
{
    static atomic_uint serial;
    at_status st = AT_OK;
    at_atomic_file *f = at_calloc(1, sizeof *f);

    if (f) {
        f->fd = -1;
        f->path = at_strdup(path);
        f->temporary =
            at_strprintf("%s.%ld-%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1u));
    }
    if (!f || !f->path || !f->temporary) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    f->fd =
        at_io_fault_now() ? -1 : open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) AT_TRY(fail_errno(f->temporary, "create"));
    *out = f;
    f = NULL;
out:
    atomic_free(f);
    return st;
}

void at_atomic_fleeting(at_atomic_file *f)
{
    f->fleeting = true;
}

at_status at_atomic_write(at_atomic_file *f, const void *bytes, size_t n)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t k = at_io_fault_now() ? -1 : write(f->fd, p, n);

        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return fail_errno(f->path, "write");
        p += k;
        n -= (size_t)k;
    }
    return AT_OK;
}

// Make the rename itself last. A file system that cannot sync a folder is no reason to fail.
static void sync_folder(const char *path)
{
    char *dir = at_path_dir(path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    at_free(dir);
}

static _Thread_local struct {
    at_atomic_fn *fn;
    void *ctx;
} g_watch;

void at_atomic_watch(at_atomic_fn *fn, void *ctx)
{
    g_watch.fn = fn;
    g_watch.ctx = ctx;
}

static at_file_mark mark_of(const struct stat *s)
{
    return (at_file_mark){.inode = (uint64_t)s->st_ino,
                          .written_ns = (uint64_t)s->st_mtim.tv_sec * 1000000000u +
                                        (uint64_t)s->st_mtim.tv_nsec,
                          .bytes = (uint64_t)s->st_size};
}

bool at_file_mark_of(const char *path, at_file_mark *out)
{
    struct stat s;
    if (stat(path, &s) != 0) return false;
    *out = mark_of(&s);
    return true;
}

static void tell_watcher(const at_atomic_file *f)
{
    struct stat s;
    if (!g_watch.fn || fstat(f->fd, &s) != 0) return;
    at_file_mark m = mark_of(&s);
    g_watch.fn(g_watch.ctx, f->path, &m);
}

at_status at_atomic_commit(at_atomic_file **file)
{
    at_status st = AT_OK;
    at_atomic_file *f = *file;
    int closed;

    *file = NULL;
    if (!f->fleeting && (at_io_fault_now() || fsync(f->fd) != 0))
        AT_TRY(fail_errno(f->path, "sync"));
    tell_watcher(f);
    closed = close(f->fd);
    f->fd = -1;
    if (closed != 0) AT_TRY(fail_errno(f->path, "close"));
    if (at_io_fault_now() || rename(f->temporary, f->path) != 0) {
        AT_TRY(fail_errno(f->path, "rename the finished file to"));
    }
    if (!f->fleeting) sync_folder(f->path);
out:
    if (st != AT_OK) unlink(f->temporary);
    atomic_free(f);
    return st;
}

void at_atomic_abort(at_atomic_file **f)
{
    if (!*f) return;
    unlink((*f)->temporary);
    atomic_free(*f);
    *f = NULL;
}

double at_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// --- turns -----------------------------------------------------------------------------------
int at_folder_lock(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failed;

    if (fd < 0 && errno == ENOENT && at_make_dirs(dir) == AT_OK)
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    do
        failed = flock(fd, LOCK_EX);
    while (failed && errno == EINTR);
    if (!failed) return fd;
    close(fd);
    return -1;
}

void at_folder_unlock(int lock)
{
    if (lock >= 0) close(lock);
}
