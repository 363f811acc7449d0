// SPDX-License-Identifier: Apache-2.0
// bench_print.h - a bench report as lines or as JSON, and a table of ceilings.
#ifndef AT_CLI_BENCH_PRINT_H
#define AT_CLI_BENCH_PRINT_H

#include "engine/bench.h"

void at_bench_print(const at_bench_options *b, const at_bench_report *r, bool kernels);
at_status at_bench_print_json(const at_bench_options *b, const at_bench_report *r, bool kernels);

// The rates of one device with activations of each type. As lines, or one JSON object.
at_status at_ceilings_print(at_device *d, bool json);

#endif
