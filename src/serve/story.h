// SPDX-License-Identifier: Apache-2.0
// story.h - one job's events told as ComfyUI tells them: to the sockets now, to the history later.
// Idea: the sink's events are few; the messages, their order and their fields are ComfyUI's
// (comfyui-contract 2.2 to 2.4).
// Easy to get wrong: a preview is sent between progress_state and progress, so it waits for its progress event; a
// job without a client tells its progress to everybody and the rest to nobody.
// Owns: at_story owns what it collects; it lives on the job's thread.
#ifndef AT_SERVE_STORY_H
#define AT_SERVE_STORY_H

#include "base/sink.h"
#include "serve/hub.h"

typedef struct at_story {
    at_hub *hub;
    const char *job, *client; // borrowed; client NULL: nobody submitted this by name
    const char *user;         // borrowed; NULL: users are not kept apart
    int preview_size, lane;
    json_t *progress;            // of progress_state: node id to its entry
    json_t *messages;            // of the history's status
    json_t *approximate;         // the same: methods that are not exact; NULL: none
    at_message *preview, *plain; // waits for its progress event
    char *node, *class_type;     // what runs; NULL: nothing yet
    bool failed;                 // an error or an interruption was told
} at_story;

at_status at_story_begin(at_story *s, at_hub *hub, const char *job, const char *user,
                         const char *client, int preview_size);
void at_story_end(at_story *s);
void at_story_hear(void *ctx, const at_event *e); // at_sink.emit; ctx is the story
// An error that no node told: ComfyUI's execution_error with this text, at the node that ran last.
void at_story_fail(at_story *s, const char *type, const char *message);
// The history's "status" member; NULL if out of memory.
json_t *at_story_status(const at_story *s, bool success);

#endif
