// SPDX-License-Identifier: Apache-2.0
// torch_file.h - files of torch.save (.ckpt, .pt, .pth, .bin) as records of a store.
// Idea: the pickle says which tensor lies where in which storage; storages are mapped as they lie in
// the zip archive, or behind each other in the older format. A nested "state_dict", or a dict that is
// the only value, is lifted, as ComfyUI's load_torch_file does; deeper dicts and lists give names
// joined by dots, and their numbers and texts become the store's metadata.
// Refused: tensors outside their storage, expanded ones, storages that overlap or leave the file.
// Owns: see store.h.
#ifndef AT_WEIGHT_TORCH_FILE_H
#define AT_WEIGHT_TORCH_FILE_H

#include "weight/store.h"

bool at_torch_is(const void *data, size_t size); // by content
// Fill a store whose map is open.
at_status at_torch_fill(at_store *s);

#endif
