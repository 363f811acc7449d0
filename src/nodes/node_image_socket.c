// SPDX-License-Identifier: Apache-2.0
// node_image_socket.c - SaveImageWebsocket: pictures go to whoever listens, and nothing to disk.
// Idea: each picture travels as a preview that loses nothing, with a step of progress behind it.
// Source: ComfyUI 0.3.64, behaviour of custom_nodes/websocket_image_save.py.
// Easy to get wrong: it is never taken from the cache, for there is nothing that a second listener could read.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"

typedef struct socket_in {
    at_object *images;
} socket_in;
static const at_in socket_rows[] = {AT_ROW_LINK_BARE(socket_in, images, "IMAGE")};

static at_status socket_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    const socket_in *i = in;
    at_pixels x;
    at_status st = at_pixels_of("SaveImageWebsocket", i->images, &x);
    if (st != AT_OK) return st;
    uint8_t *rgb = at_alloc((size_t)(x.h * x.w) * 3);
    if (!rgb) return at_fail(AT_ENOMEM, "SaveImageWebsocket: no memory for a picture");
    for (int64_t n = 0; n < x.b; n++) {
        const float *p = at_picture_at(&x, n);
        for (int64_t k = 0; k < x.h * x.w; k++)
            for (int64_t ch = 0; ch < 3; ch++)
                rgb[3 * k + ch] = at_pixel_byte(p[k * x.c + (x.c >= 3 ? ch : 0)]);
        at_node_show(c, rgb, (int)x.w, (int)x.h);
        at_node_progress(c, (double)n, (double)x.b);
    }
    at_free(rgb);
    return AT_OK;
}

static at_status socket_fingerprint(at_node_ctx *c, const void *in, char **out)
{
    (void)c, (void)in;
    *out = at_strprintf("%.9f", at_now());
    return *out ? AT_OK : at_fail(AT_ENOMEM, "SaveImageWebsocket: no memory");
}

static const at_node node_socket = {
    .class_type = "SaveImageWebsocket",
    .category = "api/image",
    .python_module = "custom_nodes.websocket_image_save",
    .flags = AT_NODE_OUTPUT,
    .in = socket_rows,
    .n_in = AT_COUNT(socket_rows),
    .in_size = sizeof(socket_in),
    .run = socket_run,
    .fingerprint = socket_fingerprint,
};

const at_node *const at_nodes_image_socket[] = {&node_socket, NULL};
