// SPDX-License-Identifier: Apache-2.0
// trace_merge.c - see trace_merge.h. Events travel as the text that will stand in the file, a piece at a time: a word
// on control reaches all ranks, so pieces stay small. Owns: the text, until it is written.
#include "engine/trace_merge.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/trace_file.h"

enum { ROUNDS = 30, PIECE = 64 << 10 };

// What this clock says more than rank 0's, as far as words can tell: all hear a word within the time that it took.
// Nothing where the difference is within that, as on one machine.
static at_status clock_ahead(at_comm *world, double *ahead)
{
    at_status st = AT_OK;
    double least = 1e30, all[AT_TRACE_RANKS], mine, found = 0;

    *ahead = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double before = at_now();

        AT_TRY(world->ops->tell(world, &before, all, sizeof before));
        mine = at_now();
        double took = mine - before;
        AT_TRY(world->ops->tell(world, &mine, all, sizeof mine));
        if (took >= least) continue;
        least = took;
        found = mine - all[0];
    }
    if (found > least || found < -least) *ahead = found;
out:
    return st;
}

static at_status render(double zero, char **text, size_t *bytes)
{
    FILE *f = open_memstream(text, bytes);

    if (!f) return at_fail(AT_ENOMEM, "no memory for a trace");
    at_trace_put_events(f, zero);
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) return at_fail(AT_ENOMEM, "no memory for a trace");
    return AT_OK;
}

// Rank r's text, piece by piece to everybody; rank 0 writes it down.
static at_status pass_on(at_comm *world, const char *text, const uint64_t *bytes, int r, FILE *f)
{
    at_status st = AT_OK;
    char *mine = at_calloc(1, PIECE), *all = at_alloc((size_t)world->size * PIECE);

    if (!mine || !all) AT_TRY(at_fail(AT_ENOMEM, "no memory for a trace"));
    if (f && r) fputs(",\n", f);
    for (uint64_t at = 0; at < bytes[r]; at += PIECE) {
        size_t n = bytes[r] - at < PIECE ? (size_t)(bytes[r] - at) : PIECE;

        if (world->rank == r) memcpy(mine, text + at, n);
        AT_TRY(world->ops->tell(world, mine, all, n));
        if (f) fwrite(all + (size_t)r * n, 1, n, f);
    }
out:
    at_free(mine);
    at_free(all);
    return st;
}

static at_status gather_rows(at_comm *world, at_trace_rank_row rows[AT_TRACE_RANKS], int *n)
{
    at_status st = AT_OK;
    at_trace_rank_row mine[AT_TRACE_RANKS], all[AT_TRACE_RANKS];
    int own = at_trace_by_rank(mine);

    if (!own) memset(&mine[0], 0, sizeof mine[0]);
    AT_TRY(world->ops->tell(world, &mine[0], all, sizeof mine[0]));
    *n = 0;
    for (int i = 0; i < world->size && world->rank == 0; i++)
        if (all[i].steps) rows[(*n)++] = all[i];
out:
    return st;
}

static at_status merge(at_comm *world, const char *path, FILE *f)
{
    at_status st = AT_OK;
    double zeros[AT_TRACE_RANKS], zero, ahead;
    uint64_t bytes[AT_TRACE_RANKS], own;
    char *text = NULL;
    size_t size = 0;

    AT_TRY(clock_ahead(world, &ahead));
    zero = at_trace_zero() - ahead;
    AT_TRY(world->ops->tell(world, &zero, zeros, sizeof zero));
    for (int i = 0; i < world->size; i++)
        if (zeros[i] < zero) zero = zeros[i];
    AT_TRY(render(zero + ahead, &text, &size));
    own = size;
    AT_TRY(world->ops->tell(world, &own, bytes, sizeof own));
    for (int r = 0; r < world->size; r++)
        AT_TRY(pass_on(world, text, bytes, r, f));
out:
    if (st != AT_OK)
        at_log(AT_WARN, "TRACE-PARTS", "%s: the other processes' traces are missing: %s", path,
               at_error_text());
    free(text); // open_memstream's
    return st;
}

at_status at_trace_write_alone(int rank, const char *path)
{
    char own[4096];

    if (!rank) return at_trace_write(path);
    snprintf(own, sizeof own, "%s.rank%d", path, rank);
    return at_trace_write(own);
}

at_status at_trace_write_world(at_comm *world, const char *path,
                               at_trace_rank_row rows[AT_TRACE_RANKS], int *n)
{
    at_status st = AT_OK;
    FILE *f = NULL;

    *n = 0;
    if (!world || world->size < 2 || world->size > AT_TRACE_RANKS) {
        *n = at_trace_by_rank(rows);
        return at_trace_write_alone(world ? world->rank : 0, path);
    }
    if (!world->rank)
        AT_TRY(at_trace_open(path, &f)); // else the others hear that this end is closed
    st = gather_rows(world, rows, n);
    if (st == AT_OK) st = merge(world, path, f);
    if (f) {
        at_status closed = at_trace_close(path, f);
        if (st == AT_OK) st = closed;
    }
    if (st != AT_OK) (void)at_trace_write_alone(world->rank, path);
out:
    return st;
}
