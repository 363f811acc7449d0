// SPDX-License-Identifier: Apache-2.0
// packed.c - what twins keep beside a weight.
// Idea: the first packer of a weight publishes; whoever comes second, or packs for another table,
// uses its own copy for one call.
// Owns: a published block belongs to the at_packed and dies with the weight.
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "cpu/cpu_impl.h"

static void free_packed(void *data)
{
    at_cpu_packed *p = data;
    if (p && p->free) {
        p->free(p);
    } else {
        at_free(p);
    }
}

void *at_cpu_packed_get(at_packed *slot, const void *owner)
{
    at_cpu_packed *p = slot ? atomic_load_explicit(&slot->data, memory_order_acquire) : NULL;
    return p && p->owner == owner ? p : NULL;
}

bool at_cpu_packed_put(at_packed *slot, at_cpu_packed *p)
{
    void *none = NULL;
    if (!slot) return false;
    // Every packer of this backend writes the same function; atomic, so that two may do it at once.
    __atomic_store_n(&slot->free, free_packed, __ATOMIC_RELAXED);
    return atomic_compare_exchange_strong(&slot->data, &none, p);
}

static atomic_size_t g_taken; // bytes of packed copies that are alive

bool at_cpu_packed_take(size_t bytes)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t limit = pages > 0 && size > 0 ? (size_t)pages / 2 * (size_t)size : 0;

    if (atomic_fetch_add(&g_taken, bytes) + bytes <= limit) return true;
    atomic_fetch_sub(&g_taken, bytes);
    return false;
}

void at_cpu_packed_give_back(size_t bytes)
{
    atomic_fetch_sub(&g_taken, bytes);
}

void at_cpu_packed_drop_source(const at_wview *w)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin, end;
    size_t bytes = at_cpu_dtype_bytes(w->v.dtype);

    if (!w->mapped) return;
    for (int i = 0; i < w->v.rank; i++)
        bytes *= (size_t)w->v.shape[i];
    begin = ((uintptr_t)w->v.data + page - 1) / page *
            page; // whole pages: neighbours are other weights
    end = ((uintptr_t)w->v.data + bytes) / page * page;
    if (end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
}
