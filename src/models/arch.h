// SPDX-License-Identifier: Apache-2.0
// arch.h - what an architecture is: one table row, and the forward behind it.
// Idea: probes say when a file is this architecture, sizes come off its shapes, bind groups name
// its tensors, the latent format and the sampling facts are data, and the forward is a list of
// blocks (denoisers) or one function (encoders, VAEs). A new architecture is one file and one line
// in arch_list.h; nothing outside asks "is this Flux?".
// Ownership: everything here is const and lives as long as the process.
#ifndef AT_MODELS_ARCH_H
#define AT_MODELS_ARCH_H

#include "models/bind.h"
#include "models/control_net.h"
#include "models/models.h"
#include "models/upscaler.h"
#include "models/vision.h"

// A tensor that must (or must not) be there, below the prefix.
typedef struct at_probe {
    const char *key;
    bool absent;
} at_probe;

// --- the forwards ------------------------------------------------------------------------------
// A denoiser is a list of blocks over one hidden tensor and a state that the prologue fills. State
// tensors that must outlive a block are made in the prologue (the runner closes a scope around each
// block). `in` is valid for the whole forward.
// What was made ahead of a forward (session.h); a prologue gets it as in->made, a ControlNet
// does not.
enum { AT_MADE_TABLES = 4 };
typedef struct at_made {
    const at_tensor *cond;    // prepare's rows, one for each of the batch; NULL: it has none
    at_tensor *const *tables; // AT_MADE_TABLES, or NULL: the prologue makes its own
    const at_tensor *text;    // of the text hook, or NULL: the forward makes it piece by piece
} at_made;

typedef struct at_denoiser_ops {
    size_t state_size;      // zeroed before the prologue
    size_t channels;        // 1 + offset in the config: of x and concat together; 0: of x alone
    size_t context, vector; // 1 + offset in the config: widths of text and of the vector; 0: none
    bool text_repeats;      // see at_model_text_repeats
    int (*blocks)(const void *config);
    // Everything that depends on timestep, guidance and pooled but not on x and text, for n rows of
    // them (of which a batch may be some): [n, any], contiguous. in->x and text must not be looked
    // at. May be NULL.
    at_tensor *(*prepare)(at_ops *o, const at_bound *m, const at_model_in *in, int64_t n);
    // Everything that depends on the text alone (keys and values of cross attention), contiguous; NULL
    // where that would take more memory than it is worth. May be NULL.
    at_tensor *(*text)(at_ops *o, const at_bound *m, const at_model_in *in);
    // Everything that depends on shapes alone; for one rank. May be NULL.
    void (*tables)(at_ops *o, const at_bound *m, const at_model_in *in,
                   at_tensor *out[AT_MADE_TABLES]);
    at_tensor *(*prologue)(at_ops *o, const at_bound *m, void *state, const at_model_in *in);
    at_tensor *(*block)(at_ops *o, const at_bound *m, void *state, int i, at_tensor *hidden);
    at_tensor *(*epilogue)(at_ops *o, const at_bound *m, void *state, at_tensor *hidden);
    // For blocks that are shared out over ranks (pipe.h), both or none. Of the hidden tensor [b, tokens, ..]: how
    // many tokens stand before those that may be cut; and a state for tokens [first, first + n) alone, which owns
    // nothing and lives in the current scope.
    int64_t (*fixed)(const void *state);
    void (*part)(at_ops *o, const void *state, int64_t first, int64_t n, void *out);
    // Releases counted references in the state. Called once after every forward, also a failed one;
    // may be NULL.
    void (*finish)(void *state);
    // Work of one forward: fills flops and activation_bytes.
    void (*cost)(const void *config, int64_t batch, int64_t latent_h, int64_t latent_w,
                 int64_t text_tokens, at_dtype compute, at_model_cost *out);
} at_denoiser_ops;

typedef struct at_encoder_ops {
    // x [batch, tokens, width] f32: all that the ids say.
    at_tensor *(*embed)(at_ops *o, const at_bound *e, const at_encode_in *in);
    // What the number of tokens says, made by the host; kept on devices that record. May be NULL.
    at_tensor *(*shared)(at_ops *o, const at_bound *e, int64_t tokens);
    // The layers over x, which they change, without looking at the ids: out[0] is the hidden state, out[1], where
    // in->eos asks for it, the last layer's behind the final norm. May be recorded (session.h).
    void (*run)(at_ops *o, const at_bound *e, const at_encode_in *in, const at_tensor *shared,
                at_tensor *x, at_tensor *out[2]);
    // The pooled results out of out[1]. NULL: there are none.
    void (*pool)(at_ops *o, const at_bound *e, const at_encode_in *in, const at_tensor *last,
                 at_encoded *r);
    size_t vocab, width, max_tokens, layers; // 1 + offset in the config; 0: none
    at_act act;                              // of the MLP
} at_encoder_ops;

typedef struct at_vae_ops {
    at_tensor *(*decode)(at_ops *o, const at_bound *v, const at_tensor *z);
    at_tensor *(*encode)(at_ops *o, const at_bound *v, const at_tensor *x);
    int (*channels)(const void *config);
    int (*downscale)(const void *config);
} at_vae_ops;

// A ControlNet: residuals of one evaluation (control_net.h), and what its hint looks like.
typedef struct at_control_ops {
    void (*forward)(at_ops *o, const at_bound *m, const at_control_in *in, at_control *out);
    void (*facts)(const at_bound *m, at_control_facts *out);
} at_control_ops;

// The table of an AT_PART_VISION row (the first two) or an AT_PART_STYLE row (the last).
typedef struct at_vision_ops {
    at_seen (*look)(at_ops *o, const at_bound *v, const at_tensor *pixels);
    void (*facts)(const at_bound *v, at_vision_facts *out);
    at_tensor *(*style)(at_ops *o, const at_bound *v, const at_tensor *seen);
} at_vision_ops;

// The table of an AT_PART_UPSCALER row.
typedef struct at_upscaler_ops {
    // x [1, h, w, c] as at_upscaler_facts says -> [1, H, W, C]
    at_tensor *(*forward)(at_ops *o, const at_bound *u, const at_tensor *x);
    void (*facts)(const void *config, at_upscaler_facts *out);
} at_upscaler_ops;

struct at_arch {
    const char *name, *title;
    at_part part;
    bool f16; // its activations fit f16: what a GPU computes in where nobody chose
    const at_probe *probes;
    size_t n_probes;
    // What probes cannot tell, asked when they fit: shapes, marks elsewhere in the file. May be NULL.
    bool (*match)(at_store *s, const char *prefix);
    // A row for a key layout that other rows do not know: the tensors below prefix under their usual
    // names and without prefix (convert.h). Such a row has nothing behind it.
    at_status (*convert)(at_store *s, const char *prefix, at_store **out);
    const at_arch *as; // the row of such a layout's network; NULL: asked of the converted tensors
    const at_size_row *sizes;
    size_t n_sizes, config_size;
    // Sizes that no row can read (AT_SIZE_MEASURED), after the rows: NULL, or why no such model can
    // look so. May be NULL.
    const char *(*measure)(at_store *s, const char *prefix, void *config);
    // Derived sizes, and what no such model can have: a sentence in *why, or NULL. May be NULL.
    const char *(*derive)(void *config);
    const at_bind_group *groups;
    size_t n_groups, weights_size;
    // For tensors that no table can list (nested levels); may be NULL.
    void (*bind)(at_binder *b, const void *config, void *weights);
    const at_latent_format *latent; // denoisers
    at_model_sampling sampling;     // denoisers
    // Sampling facts that lie in the file: changes *ms, which holds the row's. May be NULL.
    void (*sampling_of)(at_store *s, const char *prefix, at_model_sampling *ms);
    at_concat_kind concat; // denoisers: what they take behind x
    // Denoisers: all of at_model_in.pooled (at_model_vector). NULL: the pooled text alone.
    at_tensor *(*vector)(at_ops *o, const at_bound *m, const at_vector_in *in);
    const at_denoiser_ops *denoiser;
    const at_encoder_ops *encoder;
    const at_vae_ops *vae;
    const at_control_ops *control;
    const at_vision_ops *vision;
    const at_upscaler_ops *upscaler;
};

extern const at_arch *const at_arch_table[]; // in the order of detection
extern const size_t at_arch_count;

// The row's probes and match hold for the tensors below prefix.
bool at_arch_fits(const at_arch *a, at_store *s, const char *prefix);
const char *at_prediction_text(at_prediction p); // for people
// The sampling facts of a denoiser in this file.
void at_arch_sampling(const at_arch *a, at_store *s, const char *prefix, at_model_sampling *out);

// The int64_t at 1 + offset of a config; 0 gives 0.
static inline int64_t at_size_at(const void *config, size_t field)
{
    return field ? *(const int64_t *)((const char *)config + field - 1) : 0;
}

// Token embeddings x [1, b * t, width] f32 with in->rows put into their places; x itself.
at_tensor *at_encode_put_rows(at_ops *o, at_tensor *x, const at_encode_in *in);

// --- helpers of every forward ------------------------------------------------------------------
// A layer's weight and bias.
typedef struct at_lin {
    const at_weight *w, *b;
} at_lin;

#define AT_LEN(a) (sizeof(a) / sizeof *(a))
// 1 + offset of a config field, for at_bind_row.dim and friends.
#define AT_FIELD(type, field) (1 + offsetof(type, field))

#endif
