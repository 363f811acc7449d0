// SPDX-License-Identifier: Apache-2.0
// kit.h - what the tests of flow/ share: small nodes, a hub that speaks ComfyUI's WebSocket,
// comparison.
// Ownership: a kit owns everything in it until kit_free.
#ifndef AT_TESTS_FLOW_KIT_H
#define AT_TESTS_FLOW_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "flow/flow.h"
#include "json/json.h"

// The engine's context of the test nodes.
typedef struct kit_env {
    int runs;                // how often any node's run function was called
    int saved;               // SaveImage's counter
    atomic_bool cancel;      // what the sink reads
    int cancel_at_run;       // > 0: raise `cancel` in the n-th call of a run function
    char log[1024];          // class names of runs, in order, each followed by a blank
    const char *fingerprint; // what FileNode's fingerprint gives; NULL: it fails
} kit_env;

typedef struct kit {
    kit_env env;
    at_registry *registry;
    at_file_lists files;
    at_cache *cache;
    at_sink sink;
    json_t *messages; // what a ComfyUI server would have sent, in order
    json_t *progress; // progress_state's nodes
    const char *job;
    // of the last kit_run
    at_graph *graph;
    at_check_result check;
    json_t *outputs;
    json_t *extra_pnginfo;
} kit;

extern const at_node *const kit_nodes[];

void kit_make(kit *k, at_cache_mode mode, size_t lru);
void kit_free(kit *k);
// Parse, check, and if good execute. The status of the first step that failed; AT_EWORKFLOW if the
// check says no.
at_status kit_run(kit *k, const char *workflow);
at_status kit_check(kit *k, const char *workflow); // without executing
void kit_hub(void *ctx, const at_event *e);        // at_sink.emit

// Equal as Python compares (1 == 1.0), members in any order. Prints the first difference.
bool kit_same(const json_t *a, const json_t *b);
json_t *kit_json(const char *text);   // asserts that it parses
json_t *kit_golden(const char *name); // tests/golden/comfy/NAME
// Messages of one type, or all but progress_state when type is NULL: "executing 1|executed 2|..."
void kit_assert_story(const kit *k, const char *story);

#endif
