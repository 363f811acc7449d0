// SPDX-License-Identifier: Apache-2.0
// fuzz_safetensors.c - bytes as a model file: the parser, then the whole store over the same bytes.
// Promises: rows lie inside the file, behind the header, without overlap; every element can be read;
// what was read can be written and read again.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "tensor/dtype.h"
#include "weight/safetensors.h"
#include "weight/store.h"

static void quiet(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)ctx, (void)level, (void)id, (void)text;
}

static void check_rows(const at_st_file *f, size_t size)
{
    uint64_t total = 0;

    for (size_t i = 0; i < f->count; i++) {
        const at_st_row *r = &f->rows[i];
        uint64_t n = 1;
        FUZZ_CHECK(r->rank >= 0 && r->rank <= AT_MAX_RANK && strlen(r->name) < size);
        FUZZ_CHECK(r->offset >= 8 && r->offset <= size && r->bytes <= size - r->offset);
        for (int d = 0; d < r->rank; d++)
            n *= (uint64_t)r->shape[d];
        FUZZ_CHECK(n * at_dtype_size(r->dtype) == r->bytes);
        total += r->bytes;
    }
    FUZZ_CHECK(total <= size);
    for (size_t i = 1; i < f->meta_count; i++)
        FUZZ_CHECK(strcmp(f->meta[i - 1].key, f->meta[i].key) < 0);
}

static void check_store(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[32];
    at_store *s;

    if (fd < 0) {
        fd = memfd_create("model", 0);
        FUZZ_CHECK(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        at_log_set_writer(quiet, NULL);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (at_store_open(path, &s) != AT_OK) return;
    for (size_t i = 0; i < at_store_count(s); i++) {
        at_weight *w = at_store_at(s, i);
        int64_t n = at_weight_elements(w);
        float first, last;
        FUZZ_CHECK(at_store_find(s, w->name) == w);
        FUZZ_CHECK(at_weight_view(w).v.rank == w->rank);
        if (n == 0) continue;
        FUZZ_CHECK((uintptr_t)w->data % at_dtype_size(w->dtype) == 0);
        at_weight_read_f32(w, 0, 1, &first);
        at_weight_read_f32(w, n - 1, 1, &last);
    }
    at_store_release(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at_st_file f;

    if (at_st_parse("fuzz", data, size, &f) == AT_OK) {
        check_rows(&f, size);
        at_st_free(&f);
    }
    check_store(data, size);
    return 0;
}
