// SPDX-License-Identifier: Apache-2.0
// scaled.h - ComfyUI's scaled fp8 layouts, folded into the scale of each weight when a file is
// opened. Source: comfyui-contract section 7.6 (behaviour of ComfyUI 0.3.64 and later).
//   old: a marker tensor `P` + "scaled_fp8"; `X.scale_weight` (one number) belongs to `X.weight`
//   new: `X.comfy_quant` (JSON bytes) or the metadata `_quantization_metadata` names the format of
//        `X.weight`; float8_* with one `X.weight_scale` is read, all else refused by name
// Owns nothing. Runs once, before the store is handed to anybody.
#ifndef AT_WEIGHT_SCALED_H
#define AT_WEIGHT_SCALED_H

#include "weight/store.h"

at_status at_scaled_fold(at_store *s); // AT_EFORMAT, AT_EUNSUPPORTED

#endif
