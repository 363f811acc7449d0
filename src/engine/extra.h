// SPDX-License-Identifier: Apache-2.0
// extra.h - what rides along with a workflow into the pictures that it makes: ComfyUI's extra_pnginfo.
#ifndef AT_ENGINE_EXTRA_H
#define AT_ENGINE_EXTRA_H

#include <jansson.h>

#include "base/status.h"

// From the text of a job: {"workflow": TEXT} if it is the editor's format, `extra_data.extra_pnginfo` if it
// is a client's body, nothing (NULL) if it is a bare prompt. *out is a new reference. AT_EWORKFLOW with
// line and column if it is no JSON.
at_status at_extra_pnginfo(const char *label, const char *text, size_t n, json_t **out);

#endif
