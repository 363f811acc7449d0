// SPDX-License-Identifier: Apache-2.0
// control_kit.h - what tests of ControlNets and of picture encoders share: golden models in the
// world's folders, pictures and lists on links, short forms of nodes.
#ifndef AT_TESTS_NODES_CONTROL_KIT_H
#define AT_TESTS_NODES_CONTROL_KIT_H

#include "world.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "nodes/control.h"

#define LOAD(id, name)                                                                             \
    "'" id "':{'class_type':'ControlNetLoader','inputs':{'control_net_name':'" name "'}},"
#define GIVE(id) "'" id "':{'class_type':'Give','inputs':{'key':'" id "'}},"
#define APPLY(id, from, net, image, strength, start, end)                                          \
    "'" id "':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['" from                \
    "',0],'negative':['" from "',1],'control_net':['" net "',0],'image':['" image                  \
    "',0],'strength':" #strength ",'start_percent':" #start ",'end_percent':" #end "}},"

// A golden case's file as models/KIND/NAME.
static inline void install_file(const world *w, const char *kind, const char *from,
                                const char *name)
{
    char *bytes = NULL;
    size_t size;
    at_atomic_file *f = NULL;
    char source[512];
    snprintf(source, sizeof source, AT_SOURCE_DIR "/tests/golden/%s.safetensors", from);
    assert_int_equal(at_file_read(source, 8u << 20, &bytes, &size), AT_OK);
    assert_int_equal(at_make_dirs(world_path(w, "models/%s", kind)), AT_OK);
    assert_int_equal(at_atomic_open(world_path(w, "models/%s/%s", kind, name), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, bytes, size), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    at_free(bytes);
}

static inline void install(const world *w, const char *kind, const char *from, const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "%s/model", from);
    install_file(w, kind, file, name);
}

#define PAIR                                                                                       \
    "'pair':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['p',0],"                 \
    "'negative':['n',0],'control_net':['net',0],'image':['i',0],'strength':0.5,"                   \
    "'start_percent':0.25,'end_percent':0.75}},"

// Pixel i is (7 i mod 23) / 22.
static inline at_tensor *picture(int64_t b, int64_t h, int64_t w, int64_t c)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, h, w, c}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < b * h * w * c; i++)
        p[i] = (float)((7 * i) % 23) / 22.0f;
    return t;
}

static inline void give_picture(const char *key, int64_t b, int64_t h, int64_t w)
{
    world_give(key, at_value_object(at_obj_image_new(picture(b, h, w, 3))));
}

// A list of `n` entries with a text [1, 2, 4] each.
static inline void give_list(const char *key, size_t n)
{
    at_object *o = at_obj_cond_new(n);
    for (size_t i = 0; i < n; i++) {
        at_tensor *t = NULL;
        assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, 2, 4}, &t),
                         AT_OK);
        memset(at_tensor_data(t), 0, at_tensor_bytes(t));
        ((at_obj_cond *)o)->items[i].context = t;
    }
    world_give(key, at_value_object(o));
}

static inline const at_obj_control *control_of(const char *id, size_t i)
{
    return (const at_obj_control *)world_cond(id)->items[i].control;
}

#endif
