// SPDX-License-Identifier: Apache-2.0
// extra.h - what rides along with a workflow: ComfyUI's extra_pnginfo, which goes into the pictures, and how the job
// wants to be seen.
#ifndef AT_ENGINE_EXTRA_H
#define AT_ENGINE_EXTRA_H

#include <jansson.h>

#include "atelier/atelier.h"

// From the text of a job: {"workflow": TEXT} if it is the editor's format, `extra_data.extra_pnginfo` if it
// is a client's body, nothing (NULL) if it is a bare prompt. *out is a new reference. AT_EWORKFLOW with
// line and column if it is no JSON.
// *previews becomes what extra_data.preview_method asks for ("none", "auto", "latent2rgb", "taesd"), and stays if
// it says "default", nothing, or a word that nobody knows. Source: newer ComfyUI servers.
at_status at_extra_read(const char *label, const char *text, size_t n, json_t **out,
                        at_previews *previews);
// false: no such word.
bool at_previews_parse(const char *word, at_previews *out);

#endif
