// SPDX-License-Identifier: Apache-2.0
// node_vae.c - VAEDecode, VAEDecodeTiled, VAEEncode: between latents and pixels.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/vae_encode.h"

static const at_out image_out[] = {AT_OUT("IMAGE")};
static const at_out latent_out[] = {AT_OUT("LATENT")};

// tile 0: whole
static at_status decode(at_node_ctx *c, const at_object *vae, const at_object *samples, int tile,
                        int overlap, at_value *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    const at_obj_latent *l = (const at_obj_latent *)samples;
    at_vae *v;

    if (!vae)
        AT_TRY(at_fail(AT_EINVAL,
                       "vae input is invalid: None: the checkpoint holds no VAE; load one "
                       "with VAELoader"));
    v = ((const at_obj_vae *)vae)->vae;
    if (l->samples->shape[1] != at_vae_channels(v))
        AT_TRY(at_fail(AT_EINVAL, "the latent has %lld channels, this VAE decodes %d",
                       (long long)l->samples->shape[1], at_vae_channels(v)));
    AT_TRY(at_env_ops_for(c, AT_ENV_VAE, AT_DTYPE_COUNT, false, &o));
    at_tensor *z =
        at_from_host(o, AT_F32, l->samples->rank, l->samples->shape, at_tensor_data(l->samples));
    at_tensor *pixels = tile ? at_vae_decode_tiled(o, v, z, tile, overlap) : at_vae_decode(o, v, z);
    AT_TRY(at_ops_status(o));
    AT_TRY(at_give(out, at_obj_image_new(at_ops_keep(o, pixels)), "VAEDecode"));
out:
    at_ops_free(o);
    return st;
}

typedef struct decode_in {
    at_object *samples, *vae;
} decode_in;
static const at_in decode_rows[] = {AT_ROW_LINK(decode_in, samples, "LATENT"),
                                    AT_ROW_LINK(decode_in, vae, "VAE")};
static at_status decode_run(at_node_ctx *c, const void *in, at_value *out)
{
    const decode_in *i = in;
    return decode(c, i->vae, i->samples, 0, 0, &out[0]);
}
static const at_node node_decode = {.class_type = "VAEDecode",
                                    .display = "VAE Decode",
                                    .category = "latent",
                                    .description =
                                        "Decodes latent images back into pixel space images.",
                                    .python_module = "nodes",
                                    .in = decode_rows,
                                    .n_in = AT_COUNT(decode_rows),
                                    .out = image_out,
                                    .n_out = 1,
                                    .in_size = sizeof(decode_in),
                                    .run = decode_run};

typedef struct tiled_in {
    at_object *samples, *vae;
    int64_t tile_size, overlap, temporal_size, temporal_overlap;
} tiled_in;
static const at_in tiled_rows[] = {
    AT_ROW_LINK_BARE(tiled_in, samples, "LATENT"),
    AT_ROW_LINK_BARE(tiled_in, vae, "VAE"),
    AT_ROW_INT_STEP(tiled_in, tile_size, 512, 64, 4096, 32),
    AT_ROW_INT_STEP(tiled_in, overlap, 64, 0, 4096, 32),
    AT_ROW_INT_STEP(tiled_in, temporal_size, 64, 8, 4096, 4),
    AT_ROW_INT_STEP(tiled_in, temporal_overlap, 8, 4, 4096, 4),
};
static at_status tiled_run(at_node_ctx *c, const void *in, at_value *out)
{
    const tiled_in *i = in;
    // An overlap that would leave no tile is cut to a quarter of it, as ComfyUI does.
    int tile = at_int_of(i->tile_size), overlap = at_int_of(i->overlap);
    if (tile < (int64_t)overlap * 4) overlap = tile / 4;
    if (tile < 1)
        return at_fail(AT_EINVAL, "tile_size %lld: tiles have at least one pixel",
                       (long long)i->tile_size);
    return decode(c, i->vae, i->samples, tile, overlap, &out[0]);
}
static const at_node node_tiled = {.class_type = "VAEDecodeTiled",
                                   .display = "VAE Decode (Tiled)",
                                   .category = "_for_testing",
                                   .python_module = "nodes",
                                   .in = tiled_rows,
                                   .n_in = AT_COUNT(tiled_rows),
                                   .out = image_out,
                                   .n_out = 1,
                                   .in_size = sizeof(tiled_in),
                                   .run = tiled_run};

at_status at_vae_to_latent(at_node_ctx *c, const at_object *vae, const at_tensor *pixels, int tile,
                           int overlap, at_tensor **out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_tensor *host = NULL;
    at_vae *v;

    if (!vae)
        AT_TRY(at_fail(AT_EINVAL,
                       "vae input is invalid: None: the checkpoint holds no VAE; load one "
                       "with VAELoader"));
    v = ((const at_obj_vae *)vae)->vae;
    AT_TRY(at_env_ops_for(c, AT_ENV_VAE, AT_DTYPE_COUNT, false, &o));
    at_tensor *z =
        tile ? at_vae_encode_tiled(o, v, pixels, tile, overlap) : at_vae_encode(o, v, pixels);
    z = at_contiguous(o, z);
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, z->rank, z->shape, &host));
    AT_TRY(at_tensor_to_host(z, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    *out = host;
    host = NULL;
out:
    at_tensor_release(&host);
    at_ops_free(o);
    return st;
}

typedef struct encode_in {
    at_object *pixels, *vae;
} encode_in;
static const at_in encode_rows[] = {AT_ROW_LINK_BARE(encode_in, pixels, "IMAGE"),
                                    AT_ROW_LINK_BARE(encode_in, vae, "VAE")};
static at_status encode_run(at_node_ctx *c, const void *in, at_value *out)
{
    const encode_in *i = in;
    at_tensor *z = NULL;
    at_status st = at_vae_to_latent(c, i->vae, ((const at_obj_image *)i->pixels)->pixels, 0, 0, &z);
    return st == AT_OK ? at_give(&out[0], at_obj_latent_new(z), "VAEEncode") : st;
}
static const at_node node_encode = {.class_type = "VAEEncode",
                                    .display = "VAE Encode",
                                    .category = "latent",
                                    .python_module = "nodes",
                                    .in = encode_rows,
                                    .n_in = AT_COUNT(encode_rows),
                                    .out = latent_out,
                                    .n_out = 1,
                                    .in_size = sizeof(encode_in),
                                    .run = encode_run};

const at_node *const at_nodes_vae[] = {&node_decode, &node_tiled, &node_encode, NULL};
