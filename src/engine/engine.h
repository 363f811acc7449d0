// SPDX-License-Identifier: Apache-2.0
// engine.h - the wiring: devices, backends, folders, node tables and caches joined into one engine.
// The calls that others embed are in atelier/atelier.h; these are for the command line and the server.
#ifndef AT_ENGINE_ENGINE_H
#define AT_ENGINE_ENGINE_H

#include "atelier/atelier.h"
#include "engine/paths.h"
#include "flow/flow.h"
#include "nodes/env.h"

// Put the CPU backend into the CPU device; once per process, again does nothing.
void at_engine_setup_devices(void);
// The device of that name: "cpu", "cuda" (the first GPU), "cuda:1"; NULL or "auto": the first GPU, else
// the CPU (AT_WARN says so where there is a GPU that cannot be used). Loads the plug-ins unless it is
// "cpu". AT_EDEVICE says why there is none.
at_status at_engine_device(const char *name, at_device **out);

at_env *at_engine_env(at_engine *e); // borrowed
struct at_places;
struct at_places *at_engine_places(at_engine *e);    // borrowed
const at_registry *at_engine_registry(at_engine *e); // borrowed
const at_paths *at_engine_paths(at_engine *e);       // borrowed
const at_file_lists *at_engine_files(at_engine *e);  // borrowed

// The same for one owner of files (at_job's owner): what a check or a list of that owner's request reads. The
// engine's folders are made where they are missing. Any thread; the view may be used as long as the engine is open.
typedef struct at_engine_view {
    at_engine *engine;
    char *dirs[3]; // input, output, temp
    at_env env;
    at_file_lists files;
} at_engine_view;
at_status at_engine_view_open(at_engine *e, const char *owner, at_engine_view *out);
void at_engine_view_close(at_engine_view *v); // a zeroed one is fine
// As at_engine_object_info, with that owner's files.
at_status at_engine_view_object_info(const at_engine_view *v, const char *class_type, char **json);

// The folder of this program's own files ("<exe>/.."), for bundled models and vocabularies; at_free.
char *at_program_root(void);

#endif
