// SPDX-License-Identifier: Apache-2.0
// fuzz_torch.c - bytes as a file of torch.save: the zip directory, the pickle machine, the store.
// Promises: no byte outside the file is read, every record's elements are there, and what is refused
// is refused with a message.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "tensor/dtype.h"
#include "weight/pickle.h"
#include "weight/store.h"

static void quiet(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)ctx, (void)level, (void)id, (void)text;
}

// The sum of a record's bytes, so that every one of them is read.
static unsigned touch(const at_weight *w)
{
    const unsigned char *p = w->data;
    unsigned sum = 0;

    for (size_t i = 0; i < w->bytes; i++)
        sum += p[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[32];
    static volatile unsigned sink;
    at_pickle pickle;
    at_store *s;

    if (fd < 0) {
        fd = memfd_create("model", 0);
        FUZZ_CHECK(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        at_log_set_writer(quiet, NULL);
    }
    if (at_pickle_read("bytes", data, size, &pickle) == AT_OK) {
        FUZZ_CHECK(pickle.used <= size && pickle.root < pickle.count);
        at_pickle_free(&pickle);
    } else {
        FUZZ_CHECK(*at_error_text());
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (at_store_open(path, &s) != AT_OK) return 0;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        FUZZ_CHECK(at_store_find(s, w->name) == w);
        FUZZ_CHECK((size_t)at_weight_elements(w) * at_dtype_size(w->dtype) == w->bytes);
        sink += touch(w);
    }
    at_store_release(&s);
    return 0;
}
