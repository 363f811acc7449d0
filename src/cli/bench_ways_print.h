// SPDX-License-Identifier: Apache-2.0
// bench_ways_print.h - every way to share a step, predicted beside measured, as a table or as JSON.
#ifndef AT_CLI_BENCH_WAYS_PRINT_H
#define AT_CLI_BENCH_WAYS_PRINT_H

#include "engine/bench_ways.h"

void at_bench_ways_print(const at_bench_options *b, const at_bench_ways *w);
at_status at_bench_ways_json(const at_bench_options *b, const at_bench_ways *w);

#endif
