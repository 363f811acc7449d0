// SPDX-License-Identifier: Apache-2.0
// node_vae.c - VAEDecode, VAEDecodeTiled, VAEEncode: between latents and pixels.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/team.h"
#include "nodes/vae_encode.h"

static const at_out image_out[] = {AT_OUT("IMAGE")};
static const at_out latent_out[] = {AT_OUT("LATENT")};

// One picture or its latent, on all ranks: each has its rows of every map (models/vae_kl.c).
typedef struct vae_work {
    at_vae *vae;
    at_device *device;     // where a loader has put it, or NULL
    const at_tensor *from; // host
    int tile, overlap;     // tile 0: whole
    int64_t height, width; // in pixels
    at_tensor *out;        // of rank 0
} vae_work;

// A tile is too small to be shared; behind whole pictures the ranks have voted.
static at_status decode_rank(void *ctx, int rank, at_ops *o)
{
    vae_work *k = ctx;
    at_tensor *z = at_from_host(o, AT_F32, k->from->rank, k->from->shape, at_tensor_data(k->from));
    at_tensor *pixels = k->tile ? at_vae_decode_tiled(o, k->vae, z, k->tile, k->overlap)
                                : at_vae_decode(o, k->vae, z);
    at_status st = at_ops_status(o);

    if (st == AT_OK && rank == 0) k->out = at_ops_keep(o, pixels);
    return st;
}

static at_status encode_rank(void *ctx, int rank, at_ops *o)
{
    vae_work *k = ctx;
    at_tensor *z = k->tile ? at_vae_encode_tiled(o, k->vae, k->from, k->tile, k->overlap)
                           : at_vae_encode(o, k->vae, k->from);
    at_tensor *host = NULL;
    at_status st = AT_OK;

    z = at_contiguous(o, z);
    AT_TRY(at_ops_status(o));
    if (rank) goto out;
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, z->rank, z->shape, &host));
    AT_TRY(at_tensor_to_host(z, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    k->out = host;
    host = NULL;
out:
    at_tensor_release(&host);
    return st;
}

static at_status on_ranks(at_node_ctx *c, vae_work *k, at_team_fn *fn)
{
    at_ops_config config;
    const at_env *e = at_env_of(c);
    at_degrees alone = {0}, degrees = at_env_vae_degrees(e, k->height, k->width);

    at_env_config_for(c, AT_ENV_VAE, k->device, AT_DTYPE_COUNT, false, &config);
    bool shared = !k->tile && config.device == e->device;
    return at_team_run(c, &config, shared ? &degrees : &alone, fn, k);
}

at_status at_vae_to_image(at_node_ctx *c, const at_object *vae, const at_object *samples, int tile,
                          int overlap, at_value *out)
{
    at_status st = AT_OK;
    const at_obj_latent *l = (const at_obj_latent *)samples;
    vae_work k = {.from = l->samples, .tile = tile, .overlap = overlap};

    if (!vae)
        AT_TRY(at_fail(AT_EINVAL,
                       "vae input is invalid: None: the checkpoint holds no VAE; load one "
                       "with VAELoader"));
    k.vae = ((const at_obj_vae *)vae)->vae;
    k.device = ((const at_obj_vae *)vae)->device;
    if (l->samples->shape[1] != at_vae_channels(k.vae))
        AT_TRY(at_fail(AT_EINVAL, "the latent has %lld channels, this VAE decodes %d",
                       (long long)l->samples->shape[1], at_vae_channels(k.vae)));
    if (l->samples->rank == 4) {
        k.height = l->samples->shape[2] * at_vae_downscale(k.vae);
        k.width = l->samples->shape[3] * at_vae_downscale(k.vae);
    }
    AT_TRY(on_ranks(c, &k, decode_rank));
    at_tensor *pixels = k.out;
    k.out = NULL; // the object's, whatever becomes of it
    AT_TRY(at_give(out, at_obj_image_new(pixels), "VAEDecode"));
out:
    at_tensor_release(&k.out);
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
    return at_vae_to_image(c, i->vae, i->samples, 0, 0, &out[0]);
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
    return at_vae_to_image(c, i->vae, i->samples, tile, overlap, &out[0]);
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
    vae_work k = {.from = pixels, .tile = tile, .overlap = overlap};

    if (!vae)
        AT_TRY(at_fail(AT_EINVAL,
                       "vae input is invalid: None: the checkpoint holds no VAE; load one "
                       "with VAELoader"));
    k.vae = ((const at_obj_vae *)vae)->vae;
    k.device = ((const at_obj_vae *)vae)->device;
    if (pixels->rank == 4) {
        k.height = pixels->shape[1];
        k.width = pixels->shape[2];
    }
    AT_TRY(on_ranks(c, &k, encode_rank));
    *out = k.out;
    k.out = NULL;
out:
    at_tensor_release(&k.out);
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
