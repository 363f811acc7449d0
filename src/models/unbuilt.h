// SPDX-License-Identifier: Apache-2.0
// unbuilt.h - a file's denoiser is none that is known: say what it is, or why it is none.
#ifndef AT_MODELS_UNBUILT_H
#define AT_MODELS_UNBUILT_H

#include "weight/store.h"

// AT_EUNSUPPORTED with the family's name, AT_EFORMAT for anything else. Never AT_OK.
at_status at_fail_no_denoiser(at_store *s);

#endif
