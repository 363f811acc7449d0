// SPDX-License-Identifier: Apache-2.0
// files.h - from what a client calls a file to a path that stays inside its folder.
// Owns: paths are the caller's.
#ifndef AT_SERVE_FILES_H
#define AT_SERVE_FILES_H

#include "serve/server.h"

// Cuts " [output]", " [input]" or " [temp]" off the name; the word inside, NULL if there is none. Static.
const char *at_annotated_folder(char *name);
// The path of a file in one of the three folders: 0 and *path (which need not exist), or the status of the
// refusal. type NULL: output. subfolder may be NULL.
int at_find_file(const at_server *s, const at_request *rq, const char *name, const char *type,
                 const char *subfolder, char **path);

#endif
