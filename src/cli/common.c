// SPDX-License-Identifier: Apache-2.0
// common.c - an engine from the flags that every command shares.
#include <string.h>

#include "base/thread.h"
#include "cli/commands.h"
#include "tensor/dtype.h"

int at_common_dtype(const at_common_options *o)
{
    if (!o->dtype || strcmp(o->dtype, "auto") == 0) return AT_DTYPE_COUNT;
    at_dtype t = AT_BF16;
    if (strcmp(o->dtype, "fp8") == 0) return AT_F8E4M3;
    at_dtype_parse(o->dtype, &t); // one of the choices
    return (int)t;
}

at_status at_common_config(const at_common_options *o, at_engine_config *out)
{
    if (o->threads) at_threads_set((int)o->threads);
    int dtype = at_common_dtype(o);
    *out = (at_engine_config){.base_dir = o->base,
                              .models_dirs = o->models.items,
                              .models_count = o->models.count,
                              .yaml_files = o->yaml.items,
                              .yaml_count = o->yaml.count,
                              .input_dir = o->input,
                              .output_dir = o->output,
                              .temp_dir = o->temp,
                              .dtype = dtype,
                              .auto_dtype = dtype == AT_DTYPE_COUNT,
                              .disable_metadata = o->disable_metadata};
    return at_device_options_apply(&o->device, out);
}

at_status at_common_open(const at_common_options *o, at_engine **out)
{
    at_engine_config c;
    at_status st = at_common_config(o, &c);
    return st == AT_OK ? at_engine_open(&c, out) : st;
}
