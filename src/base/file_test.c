// SPDX-License-Identifier: Apache-2.0
// file_test.c - mapping, reading, atomic writing, and that a failed write leaves nothing behind.
#include "base/file.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"

static char g_dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", g_dir, name);
    return path[turn];
}

static at_status write_file(const char *path, const void *bytes, size_t n)
{
    at_status st = AT_OK;
    at_atomic_file *f = NULL;

    AT_TRY(at_atomic_open(path, &f));
    AT_TRY(at_atomic_write(f, bytes, n / 2));
    AT_TRY(at_atomic_write(f, (const char *)bytes + n / 2, n - n / 2));
    AT_TRY(at_atomic_commit(&f));
out:
    at_atomic_abort(&f);
    return st;
}

static size_t files_in_dir(void)
{
    at_list l = {0};
    size_t n;

    assert_int_equal(at_list_files(g_dir, true, 1000, &l), AT_OK);
    n = l.count;
    at_list_free(&l);
    return n;
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(g_dir, "/tmp/at_file_XXXXXX");
    return mkdtemp(g_dir) ? 0 : 1;
}

static int drop_dir(void **state)
{
    at_list l = {0};

    (void)state;
    if (at_list_files(g_dir, true, 1000, &l) == AT_OK) {
        for (size_t i = 0; i < l.count; i++)
            unlink(in_dir(l.items[i]));
    }
    at_list_free(&l);
    return rmdir(g_dir);
}

static void what_was_written_is_read_and_mapped(void **state)
{
    static char bytes[70000];
    char *back = NULL;
    at_map m = {0};
    uint64_t size64;
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    assert_int_equal(write_file(in_dir("a.bin"), bytes, sizeof bytes), AT_OK);
    assert_int_equal(at_file_read(in_dir("a.bin"), 1 << 20, &back, &size), AT_OK);
    assert_int_equal(size, sizeof bytes);
    assert_memory_equal(back, bytes, size);
    assert_int_equal(back[size], 0);
    at_free(back);
    assert_int_equal(at_map_open(in_dir("a.bin"), &m), AT_OK);
    assert_int_equal(m.size, sizeof bytes);
    assert_memory_equal(m.data, bytes, m.size);
    at_map_close(&m);
    at_map_close(&m); // closed is closed
    assert_int_equal(at_file_size(in_dir("a.bin"), &size64), AT_OK);
    assert_int_equal(size64, sizeof bytes);
    assert_int_equal(at_file_read(in_dir("a.bin"), 69999, &back, &size), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "70000"));
}

static void empty_files_work(void **state)
{
    at_map m = {(const uint8_t *)"x", 1};
    char *back = NULL;
    size_t size = 9;

    (void)state;
    assert_int_equal(write_file(in_dir("empty"), "", 0), AT_OK);
    assert_int_equal(at_map_open(in_dir("empty"), &m), AT_OK);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    at_map_close(&m);
    assert_int_equal(at_file_read(in_dir("empty"), 10, &back, &size), AT_OK);
    assert_int_equal(size, 0);
    assert_string_equal(back, "");
    at_free(back);
}

static void missing_files_and_folders_are_told_apart(void **state)
{
    char *back = NULL;
    uint64_t n;
    at_map m;

    (void)state;
    assert_int_equal(at_map_open(in_dir("nothing"), &m), AT_ENOTFOUND);
    assert_non_null(strstr(at_error_text(), "nothing"));
    assert_int_equal(at_file_read(in_dir("nothing"), 10, &back, NULL), AT_ENOTFOUND);
    assert_int_equal(at_file_size(in_dir("nothing"), &n), AT_ENOTFOUND);
    assert_int_equal(at_map_open(g_dir, &m), AT_EIO); // a folder
    assert_int_equal(at_file_read(g_dir, 10, &back, NULL), AT_EIO);
}

static void an_aborted_write_leaves_the_old_file(void **state)
{
    at_atomic_file *f = NULL;
    char *back = NULL;

    (void)state;
    assert_int_equal(write_file(in_dir("b"), "old", 3), AT_OK);
    assert_int_equal(at_atomic_open(in_dir("b"), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, "newer", 5), AT_OK);
    assert_int_equal(at_file_read(in_dir("b"), 10, &back, NULL), AT_OK);
    assert_string_equal(back, "old"); // not there before the commit
    at_free(back);
    at_atomic_abort(&f);
    assert_null(f);
    at_atomic_abort(&f);
    assert_int_equal(at_file_read(in_dir("b"), 10, &back, NULL), AT_OK);
    assert_string_equal(back, "old");
    at_free(back);
}

static void every_io_fault_leaves_the_old_file_and_no_temporary(void **state)
{
    size_t files, live = at_mem_get_stats().live_bytes;
    char *back = NULL;
    uint64_t n;

    (void)state;
    assert_int_equal(write_file(in_dir("c"), "old", 3), AT_OK);
    files = files_in_dir();
    for (n = 1;; n++) {
        at_status st;
        bool hit;

        at_io_fail_at(n);
        st = write_file(in_dir("c"), "new", 3);
        hit = at_io_fault_hit();
        at_io_fail_at(0);
        assert_int_equal(files_in_dir(), files);
        if (!hit) break;
        assert_int_equal(st, AT_EIO);
        assert_int_equal(at_file_read(in_dir("c"), 10, &back, NULL), AT_OK);
        assert_string_equal(back, "old");
        at_free(back);
    }
    assert_true(n > 4); // open, two writes, sync, rename
    assert_int_equal(at_file_read(in_dir("c"), 10, &back, NULL), AT_OK);
    assert_string_equal(back, "new");
    at_free(back);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

// How many reads and writes a new file takes.
static uint64_t steps_of(bool fleeting)
{
    for (uint64_t n = 1;; n++) {
        at_atomic_file *f = NULL;
        at_io_fail_at(n);
        at_status st = at_atomic_open(in_dir("f"), &f);
        if (st == AT_OK && fleeting) at_atomic_fleeting(f);
        if (st == AT_OK) st = at_atomic_write(f, "shown", 5);
        if (st == AT_OK) st = at_atomic_commit(&f);
        bool hit = at_io_fault_hit();
        at_io_fail_at(0);
        at_atomic_abort(&f);
        assert_int_equal(st, hit ? AT_EIO : AT_OK);
        if (!hit) return n - 1;
        assert_int_equal(at_path_exists(in_dir("f")), false);
    }
}

static void a_fleeting_file_is_whole_and_waits_for_no_disk(void **state)
{
    char *back = NULL;
    (void)state;

    uint64_t quick = steps_of(true);
    assert_int_equal(at_file_read(in_dir("f"), 10, &back, NULL), AT_OK);
    assert_string_equal(back, "shown");
    at_free(back);
    assert_int_equal(unlink(in_dir("f")), 0);
    assert_int_equal(steps_of(false), quick + 1); // the sync
    assert_int_equal(unlink(in_dir("f")), 0);
}

static void read_faults_are_io_errors(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    char *back = NULL;
    at_map m;

    (void)state;
    assert_int_equal(write_file(in_dir("d"), "bytes", 5), AT_OK);
    for (uint64_t n = 1; n <= 2; n++) {
        at_io_fail_at(n);
        assert_int_equal(at_file_read(in_dir("d"), 10, &back, NULL), AT_EIO);
        at_io_fail_at(n);
        assert_int_equal(at_map_open(in_dir("d"), &m), AT_EIO);
        at_io_fail_at(0);
    }
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void a_mapping_knows_its_file(void **state)
{
    at_map m;
    at_atomic_file *f = NULL;
    uint64_t offset = 0;
    char got[4];

    (void)state;
    assert_int_equal(at_atomic_open(in_dir("mapped"), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, "0123456789", 10), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    assert_int_equal(at_map_open(in_dir("mapped"), &m), AT_OK);
    int fd = at_map_file(m.data + 3, 4, &offset);
    assert_true(fd >= 0);
    assert_int_equal(offset, 3);
    assert_int_equal(pread(fd, got, 4, (off_t)offset), 4);
    assert_memory_equal(got, "3456", 4);
    assert_int_equal(at_map_file(m.data + 8, 2, &offset), fd);
    assert_int_equal(at_map_file(m.data + 8, 3, &offset), -1);
    assert_int_equal(at_map_file(got, 4, &offset), -1);
    const uint8_t *old = m.data;
    at_map_close(&m);
    assert_int_equal(at_map_file(old, 1, &offset), -1);
}

// Of two processes the second gets its turn when the first gives it up, or dies.
static void a_folder_is_one_process_s_at_a_time(void **state)
{
    int told[2], status = 0;
    char got = 0;
    struct pollfd p = {.events = POLLIN};
    int lock = at_folder_lock(in_dir("turns"));

    (void)state;
    assert_true(lock >= 0);
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) { // two turns, and it ends with the second
        close(lock);  // it would keep the turn as well
        int own = at_folder_lock(in_dir("turns"));
        bool good = own >= 0 && write(told[1], "a", 1) == 1;
        at_folder_unlock(own);
        good = good && at_folder_lock(in_dir("turns")) >= 0;
        _exit(!good);
    }
    assert_true(child > 0);
    p.fd = told[0];
    assert_int_equal(poll(&p, 1, 100), 0);
    at_folder_unlock(lock);
    assert_int_equal(read(told[0], &got, 1), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    lock = at_folder_lock(in_dir("turns"));
    assert_true(lock >= 0);
    at_folder_unlock(lock);
    close(told[0]);
    close(told[1]);
    assert_int_equal(rmdir(in_dir("turns")), 0);
    assert_int_equal(at_folder_lock("/proc/nowhere"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_one_process_s_at_a_time),
        cmocka_unit_test(what_was_written_is_read_and_mapped),
        cmocka_unit_test(empty_files_work),
        cmocka_unit_test(missing_files_and_folders_are_told_apart),
        cmocka_unit_test(an_aborted_write_leaves_the_old_file),
        cmocka_unit_test(every_io_fault_leaves_the_old_file_and_no_temporary),
        cmocka_unit_test(a_fleeting_file_is_whole_and_waits_for_no_disk),
        cmocka_unit_test(read_faults_are_io_errors),
        cmocka_unit_test(a_mapping_knows_its_file),
    };

    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
