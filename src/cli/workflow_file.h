// SPDX-License-Identifier: Apache-2.0
// workflow_file.h - a workflow's text from a JSON file, a PNG that carries one, or standard input.
#ifndef AT_CLI_WORKFLOW_FILE_H
#define AT_CLI_WORKFLOW_FILE_H

#include <stddef.h>

#include "base/status.h"

// *text is the caller's (at_free). AT_ENOTFOUND, AT_EFORMAT, AT_EIO.
at_status at_workflow_read(const char *path, char **text, size_t *bytes);

#endif
