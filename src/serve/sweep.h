// SPDX-License-Identifier: Apache-2.0
// sweep.h - the folder of temporary files, emptied when a server starts.
#ifndef AT_SERVE_SWEEP_H
#define AT_SERVE_SWEEP_H

// Removes all that lies in the folder, if it is a server's: it was empty when a server first used it, and has had a
// marker since. A folder that somebody else filled ("temp" in a home) is left as it is. What fails is logged.
void at_sweep(const char *dir);

#endif
