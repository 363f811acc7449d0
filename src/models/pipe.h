// SPDX-License-Identifier: Apache-2.0
// pipe.h - a denoiser whose blocks are shared out over ranks, one run behind the other.
#ifndef AT_MODELS_PIPE_H
#define AT_MODELS_PIPE_H

#include "models/arch.h"

// at_denoiser_run on a mesh with a pipe: every rank has the result. AT_EUNSUPPORTED where the network has no parts.
at_tensor *at_pipe_run(at_ops *o, const at_bound *m, const at_model_in *in);

#endif
