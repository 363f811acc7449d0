// SPDX-License-Identifier: Apache-2.0
// claims.h - which files a job has written, so that the same job, run again after a crash, writes them again and no others.
// Idea: before a file gets its name, a line says which node's how-manieth file it is, its path and its inode with size and
// time. When the job runs again, that node's file takes the same name, if what lies there is still that file: nobody else's.
// Easy to get wrong: the line must be in the kernel before the rename; a line without its file is fine.
// Owns: its rows. One job's thread. Lives in a file of the caller's choice, which the caller removes.
#ifndef AT_ENGINE_CLAIMS_H
#define AT_ENGINE_CLAIMS_H

#include "base/status.h"

typedef struct at_claims at_claims;
// Reads what an earlier run left at `path`, removes what it had half written; watches this thread's at_atomic_commit until at_claims_close.
at_status at_claims_open(const char *path, at_claims **out);
void at_claims_close(at_claims *c); // NULL is fine
// The same for a job that will not run again: removes what it had half written, and the file at `path`.
void at_claims_sweep(const char *path);
// The path of this node's next file: `path`, or what an earlier run of this job has called it in the same folder.
// The caller's; NULL if out of memory.
char *at_claims_next(at_claims *c, const char *node, const char *path);

#endif
