// SPDX-License-Identifier: Apache-2.0
// log.h - one line per event, with a stable id that operators grep and tests assert on.
// Idea: at_log(AT_WARN, "PLACE-EVICT", "flux.safetensors: 812 MiB moved to disk").
// Owns nothing. Any thread; a line is written whole.
#ifndef AT_BASE_LOG_H
#define AT_BASE_LOG_H

typedef enum at_log_level { AT_DEBUG, AT_INFO, AT_WARN, AT_ERROR } at_log_level;

void at_log(at_log_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void at_log_set_level(at_log_level level); // default AT_WARN
// Where lines go; NULL restores standard error. `ctx` is passed through.
typedef void at_log_fn(void *ctx, at_log_level level, const char *id, const char *text);
void at_log_set_writer(at_log_fn *fn, void *ctx);

#endif
