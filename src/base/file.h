// SPDX-License-Identifier: Apache-2.0
// file.h - files: mapped for reading, written whole or not at all, and never outside their folder.
// Owns: an at_map owns its mapping; buffers are the caller's (at_free).
#ifndef AT_BASE_FILE_H
#define AT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// A read-only mapping. `data` is NULL for an empty file. The kernel pages bytes in when touched.
typedef struct at_map {
    const uint8_t *data;
    size_t size;
} at_map;

at_status at_map_open(const char *path, at_map *out); // AT_ENOTFOUND, AT_EIO
void at_map_close(at_map *m);
// The file behind `bytes` bytes at `p`, if they lie in one open mapping, for who would rather read than fault
// pages in: its descriptor (good until that mapping is closed; read with pread alone) and the offset of p
// in it. -1: they do not.
int at_map_file(const void *p, size_t bytes, uint64_t *offset);

// The whole file with a NUL behind it (not counted in *size). Refuses more than `max` bytes.
at_status at_file_read(const char *path, size_t max, char **out, size_t *size);

// A file that appears under its name only when it is complete: temporary name, fsync, rename.
typedef struct at_atomic_file at_atomic_file;
at_status at_atomic_open(const char *path, at_atomic_file **out);
void at_atomic_fleeting(
    at_atomic_file *f); // need not outlive a power cut: nobody waits for the disk
at_status at_atomic_write(at_atomic_file *f, const void *bytes, size_t n);
at_status at_atomic_commit(at_atomic_file **f); // frees f, also on failure
// Called on this thread by each at_atomic_commit, just before the file gets its name; fn NULL: no more.
typedef struct at_file_mark {
    uint64_t inode, written_ns, bytes; // an inode alone is used again for the next file
} at_file_mark;
bool at_file_mark_of(const char *path, at_file_mark *out); // false: there is no such file
typedef void at_atomic_fn(void *ctx, const char *path, const at_file_mark *mark);
void at_atomic_watch(at_atomic_fn *fn, void *ctx);
void at_atomic_abort(at_atomic_file **f); // removes the temporary; NULL is fine

// dir + "/" + name with name proven to stay below dir: no absolute paths, no ".." parts, no NUL.
// Result is the caller's (at_free). AT_EINVAL names the offending path.
at_status at_path_join_safe(const char *dir, const char *name, char **out);
// Plain join without that proof, for paths of the user's own command line. NULL if out of memory.
char *at_path_join(const char *a, const char *b);
// A file of this program's own in the user's cache folder ($XDG_CACHE_HOME, ~/.cache). NULL: there is none.
char *at_path_cache(const char *name);
const char *at_path_base(const char *path); // after the last '/'; borrowed
const char *at_path_ext(const char *path);  // with the dot, "" if none; borrowed
char *at_path_dir(const char *path);        // "." if none; at_free
bool at_path_exists(const char *path);
bool at_path_is_dir(const char *path);
at_status at_make_dirs(const char *path);
at_status at_file_size(const char *path, uint64_t *out);
// One process at a time: waits for its turn in the folder `dir` (made where it is missing). What is returned goes to
// at_folder_unlock, and with the process. Below 0: this file system has no locks, or there is no such folder.
int at_folder_lock(const char *dir);
void at_folder_unlock(int lock); // below 0 is fine

// Relative names of all regular files below `dir` (links followed once), sorted bytewise, '/' between
// parts; at most `max` names. The list is one allocation of pointers plus strings: free with
// at_list_free.
typedef struct at_list {
    char **items;
    size_t count;
} at_list;
at_status at_list_files(const char *dir, bool recursive, size_t max, at_list *out);
void at_list_free(at_list *l);

// Fault injection for reads and writes, as at_mem_fail_at.
void at_io_fail_at(uint64_t n);
bool at_io_fault_hit(void);

// Seconds since an arbitrary start, monotonic.
double at_now(void);

#endif
