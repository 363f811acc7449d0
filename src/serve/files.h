// SPDX-License-Identifier: Apache-2.0
// files.h - from what a client calls a file to a path that stays inside its folder.
// Owns: paths are the caller's.
#ifndef AT_SERVE_FILES_H
#define AT_SERVE_FILES_H

#include <sys/stat.h>

#include "image/image.h"
#include "serve/server.h"

// Cuts " [output]", " [input]" or " [temp]" off the name; the word inside, NULL if there is none. Static.
const char *at_annotated_folder(char *name);
// The path of a file in one of the three folders: 0 and *path (which need not exist), or the status of the
// refusal. type NULL: output. subfolder may be NULL.
int at_find_file(const at_server *s, const at_request *rq, const char *name, const char *type,
                 const char *subfolder, char **path);

// The picture of a file in another form. channel: "rgb", "a" or else all that there is; format: "png", "webp" or "jpeg";
// side: of a thumbnail, else 0.
at_status at_reply_picture(at_response *rs, const char *path, const char *channel,
                           const char *format, int quality, int side);

// --- thumbnail.c ---------------------------------------------------------------------------------
// The side that the query's `side` names, 16..4096; 0: none.
int at_thumbnail_side(const char *text);
// Marks the answer with a tag of the file and the side; true: the client has it, and the answer (304) is complete.
bool at_thumbnail_known(const at_request *rq, at_response *rs, const struct stat *s, int side);
// At most `side` long (0: as it is).
at_status at_thumbnail_shrink(at_picture *p, int side);

#endif
