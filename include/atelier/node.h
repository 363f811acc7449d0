// SPDX-License-Identifier: Apache-2.0
// node.h - what a node is: a table of inputs and outputs, a plain struct, and a run function.
// Idea: one row per input says its name, type, place in the struct, default and range. The same
// rows check a workflow with ComfyUI's errors, fill the struct, and print /object_info, docs and
// help; the run function never sees JSON.
// Ownership: values hold one reference to their object or string; inputs are borrowed for the run,
// outputs are given away. Run functions are called on the job's thread.
#ifndef ATELIER_NODE_H
#define ATELIER_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sink.h"
#include "base/status.h"

// --- values that travel on links ----------------------------------------------------------------
// Base of everything big on a link (MODEL, LATENT, IMAGE ...): put it first in the struct.
typedef struct at_object {
    atomic_int refs;
    const struct at_object_type *type;
} at_object;
typedef struct at_object_type {
    const char *name; // the socket type: "MODEL"
    void (*free)(at_object *self);
} at_object_type;
at_object *at_object_retain(at_object *o); // NULL stays NULL
void at_object_release(at_object *o);      // NULL is fine

typedef enum at_value_kind {
    AT_VAL_NONE = 0, // optional and absent
    AT_VAL_INT,
    AT_VAL_UINT, // an INT above 2^63 - 1: seeds
    AT_VAL_FLOAT,
    AT_VAL_BOOL,
    AT_VAL_STRING, // also the choice of a COMBO
    AT_VAL_OBJECT,
    AT_VAL_JSON,   // any other literal, as compact JSON text in `s`
    AT_VAL_BLOCKER // ComfyUI's ExecutionBlocker; message in `s` or NULL
} at_value_kind;
typedef struct at_value {
    at_value_kind kind;
    union {
        int64_t i;
        uint64_t u;
        double f;
        bool b;
        char *s;
        at_object *o;
    };
} at_value;
at_value at_value_int(int64_t i);
at_value at_value_float(double f);
at_value at_value_bool(bool b);
at_value at_value_string(const char *s);        // copies; kind NONE if out of memory
at_value at_value_object(at_object *o);         // takes the reference
at_value at_value_blocker(const char *message); // NULL: silent; kind NONE if out of memory
at_value at_value_copy(const at_value *v);      // another kind than v's: out of memory
void at_value_clear(at_value *v);

// --- inputs -------------------------------------------------------------------------------------
typedef enum at_in_type {
    AT_IN_INT,    // int64_t field (seeds: uint64_t with AT_IN_U64)
    AT_IN_U64,    // "INT" on the wire, uint64_t field
    AT_IN_FLOAT,  // double
    AT_IN_BOOL,   // bool
    AT_IN_STRING, // const char *
    AT_IN_COMBO,  // const char *: one of `choices` or of what `list` names
    AT_IN_OBJECT, // at_object *: socket type in `type_name`
    AT_IN_ANY     // at_value: "*"
} at_in_type;

enum {
    AT_INF_OPTIONAL = 1 << 0,
    AT_INF_CONTROL = 1 << 1, // control_after_generate
    AT_INF_MULTILINE = 1 << 2,
    AT_INF_DYNAMIC = 1 << 3, // dynamicPrompts
    AT_INF_FORCE_INPUT = 1 << 4,
    AT_INF_LAZY = 1 << 5,
    AT_INF_IMAGE_UPLOAD = 1 << 6, // combo over the input folder
    AT_INF_NO_DEFAULT = 1 << 7,   // no "default" key in object_info
    AT_INF_NO_OPTIONS = 1 << 8,   // printed as ["LATENT"] and not ["LATENT", {}]
    AT_INF_HAS_MIN = 1 << 9,      // for INT and FLOAT: which of the keys exist
    AT_INF_HAS_MAX = 1 << 10,
    AT_INF_HAS_STEP = 1 << 11,
    AT_INF_HAS_ROUND = 1 << 12,
    AT_INF_ADVANCED = 1 << 13,
    AT_INF_HIDDEN = 1 << 14, // PROMPT, EXTRA_PNGINFO (JSON text), UNIQUE_ID: const char * fields
    AT_INF_ROUND_FALSE = 1 << 15,   // "round": false
    AT_INF_SINGLE_LINE = 1 << 16,   // "multiline": false is printed
    AT_INF_INT_LIMITS = 1 << 17,    // FLOAT whose min and max are printed as integers
    AT_INF_COMBO_OPTIONS = 1 << 18, // combo of a V1 node printed as ["COMBO", {"options": [...]}]
    AT_INF_RAW_LINK = 1 << 19       // the value is the link itself, as JSON: AT_IN_ANY rows
};

// One input. Order in the table is ComfyUI's order. Numbers are exact up to 2^53; U64 max is 2^64 -
// 1.
typedef struct at_in {
    const char *name;
    at_in_type type;
    size_t offset;         // into the node's input struct
    unsigned flags;        // AT_INF_*
    const char *type_name; // socket type of OBJECT rows; hidden kind of HIDDEN rows
    double def, min, max, step, round;
    const char *sdef;           // default of STRING and COMBO (NULL: none)
    const char *const *choices; // COMBO: NULL-terminated
    const char *list;           // COMBO over files: "checkpoints", "vae", "input" ...
    const char *tip;
    const char *display; // "display": "slider", "color"; NULL none
    unsigned alt;        // AT_ALT_*: numbers printed in the other form, see below
    const char *extra;   // more options as a JSON object: "{\"audio_upload\": true}"; NULL none
} at_in;

// Numbers that object_info prints as an integer though the row is FLOAT, or as a float though it is
// INT.
enum { AT_ALT_DEF = 1, AT_ALT_MIN = 2, AT_ALT_MAX = 4, AT_ALT_STEP = 8, AT_ALT_ROUND = 16 };

typedef struct at_out {
    const char *type_name; // "LATENT", "INT", "IMAGE"
    const char *name;
    bool is_list;
    const char *tip;
} at_out;

// --- running ------------------------------------------------------------------------------------
// What a run function may ask of the engine; opaque here, see flow/run.h and engine/.
typedef struct at_node_ctx at_node_ctx;

enum {
    AT_NODE_OUTPUT = 1 << 0,
    AT_NODE_V3 = 1 << 1,
    AT_NODE_DEPRECATED = 1 << 2,
    AT_NODE_EXPERIMENTAL = 1 << 3,
    AT_NODE_INPUT_IS_LIST = 1 << 4, // every field is at_values (see below)
    AT_NODE_NOT_IDEMPOTENT = 1 << 5,
    AT_NODE_TEST = 1 << 6,    // only with --enable-test-nodes
    AT_NODE_VARIADIC = 1 << 7 // takes linked inputs that its table does not know: at_node_more
};
// The field type of every input of an INPUT_IS_LIST node.
typedef struct at_values {
    const at_value *items;
    size_t count;
} at_values;

typedef struct at_node {
    const char *class_type, *display, *category, *description, *python_module;
    unsigned flags; // AT_NODE_*
    const at_in *in;
    size_t n_in;
    const at_out *out;
    size_t n_out;
    size_t in_size; // sizeof the input struct
    // Fill out[0 .. n_out). On failure what was filled is released by the caller. An is_list output
    // is given as several values with at_node_emit.
    at_status (*run)(at_node_ctx *c, const void *in, at_value *out);
    // Optional. More checks with constants only (linked fields are zero): AT_OK, or AT_EINVAL with
    // the text for "Custom validation failed for node".  `linked(c, name)` tells which fields are
    // linked.
    at_status (*validate)(at_node_ctx *c, const void *in);
    // The inputs that `validate` looks at, comma-separated ("image"), or "*": for them the checks
    // of range and list are left to it, and its complaint is reported once for each of them. NULL:
    // the combos over files.
    const char *validates;
    // Optional. A value that stands for outside state (a file's hash) in the cache signature: text.
    at_status (*fingerprint)(at_node_ctx *c, const void *in, char **out);
    // Optional, with AT_INF_LAZY rows: name the lazy inputs needed now through at_node_need.
    at_status (*lazy)(at_node_ctx *c, const void *in);
    // Optional. Seconds to wait before this call is run, while other nodes go on; the calls of a list wait beside
    // each other.
    double (*wait)(at_node_ctx *c, const void *in);
} at_node;

// For is_list outputs: one more value of output `slot` (takes the value).
at_status at_node_emit(at_node_ctx *c, size_t slot, at_value v);
at_status at_node_need(at_node_ctx *c, const char *input);
bool at_node_linked(const at_node_ctx *c, const char *input);
// The value of an input that the table does not know, in this call; NULL if there is none.
const at_value *at_node_more(const at_node_ctx *c, const char *input);
const char *at_node_id(const at_node_ctx *c);

// --- nodes in place of a result (ComfyUI's node expansion) ----------------------------------------
// A run function may answer with nodes of its own: it makes them, sets their inputs, and says which of their
// outputs stand for its own. They run after it returned, and its result is there when theirs are. Ids as
// ComfyUI's GraphBuilder makes them; texts that come back live as long as the call.
// A new node; id NULL: a number. *full: the id under which the others know it.
at_status at_expand_node(at_node_ctx *c, const char *class_type, const char *id, const char **full);
at_status at_expand_value(at_node_ctx *c, const char *node, const char *input, const at_value *v);
at_status at_expand_json(at_node_ctx *c, const char *node, const char *input, const char *json);
at_status at_expand_link(at_node_ctx *c, const char *node, const char *input, const char *from,
                         int64_t slot);
// People see this node where they would see the one that made it.
at_status at_expand_display(at_node_ctx *c, const char *node, const char *display);
// Output `slot` of this call is output `from_slot` of `from`, a node of the workflow or a new one.
at_status at_expand_answer(at_node_ctx *c, size_t slot, const char *from, int64_t from_slot);
// Any node of the running workflow as JSON text, also one that was made meanwhile; NULL if there is none.
// The caller frees it.
char *at_node_of_workflow(const at_node_ctx *c, const char *id);
const at_sink *at_node_sink(const at_node_ctx *c);
void at_node_progress(at_node_ctx *c, double value, double max); // fills in job and node
// Latent preview or other RGB8 picture for the people watching.
void at_node_preview(at_node_ctx *c, const void *rgb8, int width, int height);
// The same for a picture that is itself the result: sent whole and without loss.
void at_node_show(at_node_ctx *c, const void *rgb8, int width, int height);
// Result shown in the UI: JSON text such as {"images":[...]}; merged over list calls. Copied.
at_status at_node_ui(at_node_ctx *c, const char *json);
void *at_node_engine(const at_node_ctx *c); // the engine's own context: at_env *, see nodes/env.h

// Helpers for tables.
#define AT_ROW_OBJECT(st, field, TYPE, ...)                                                        \
    {                                                                                              \
        .name = #field, .type = AT_IN_OBJECT, .offset = offsetof(st, field), .type_name = TYPE,    \
        __VA_ARGS__                                                                                \
    }
#define AT_COUNT(a) (sizeof(a) / sizeof *(a))

#endif
