// SPDX-License-Identifier: Apache-2.0
// saving.h - what every node that writes files shares: the next name, the workflow as metadata, and
// the row that tells people which file it was.
// Source: comfyui-contract section 3.7.
// Owns: the caller closes the saver, also after a failure.
#ifndef AT_NODES_SAVING_H
#define AT_NODES_SAVING_H

#include "image/image.h"
#include "json/json.h"
#include "nodes/env.h"
#include "weight/safetensors.h"

#define AT_SAVER_TEXTS 32

typedef struct at_saver {
    const char *node, *type; // "output" or "temp"
    at_save_path where;
    at_text_chunk text
        [AT_SAVER_TEXTS]; // "approximate" if a sampler was, "prompt", then one per key of extra_pnginfo; none if disabled
    size_t text_count;
    json_t *extra, *images;
    at_node_ctx *ctx;
    int turn; // the folder's lock (base/file.h): of several processes one at a time chooses names; below 0: none
} at_saver;

// Names for `prefix` in the output folder, or (temp) in the temporary one. prompt and extra_pnginfo
// are the hidden inputs, NULL if absent; both are left out where metadata is disabled.
at_status at_saver_open(at_saver *s, at_node_ctx *c, const char *node, bool temp,
                        const char *prefix, int64_t width, int64_t height, const char *prompt,
                        const char *extra_pnginfo);
// Name of picture `index` ("%batch_num%" filled in, counter + index, ".png") and its path: at_free
// both.
at_status at_saver_name(const at_saver *s, int64_t index, const char *extension, char **name,
                        char **path);
at_status at_saver_add(at_saver *s, const char *name); // a row for people
// Both for one file of these bytes: named, written whole, added.
at_status at_saver_file(at_saver *s, int64_t index, const char *extension, const void *bytes,
                        size_t n);
// Show {"images": [...]}, with "animated": [...] unless that is NULL.
at_status at_saver_show(at_saver *s, at_node_ctx *c, const bool *animated);
// The same list under another name: {"latents": [...]}.
at_status at_saver_show_as(at_saver *s, at_node_ctx *c, const char *key);
// The workflow as metadata of a safetensors file: rows that borrow from s, and how many. "prompt"
// is there even when it is empty; nothing is where metadata is disabled.
size_t at_saver_metadata(const at_saver *s, const at_node_ctx *c,
                         at_st_pair rows[AT_SAVER_TEXTS + 1]);
void at_saver_close(at_saver *s);

#endif
