// SPDX-License-Identifier: Apache-2.0
// cmd_models.c - atelier models: the architectures that this version knows, from their tables.
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "models/arch.h"

typedef struct models_options {
    bool markdown;
} models_options;

static const at_arg models_args[] = {
    {"--markdown", NULL, AT_ARG_FLAG, offsetof(models_options, markdown),
     .help = "print docs/models.md"},
};

static const char *part_title(at_part p)
{
    switch (p) {
    case AT_PART_DENOISER: return "Denoisers";
    case AT_PART_TEXT: return "Text encoders";
    case AT_PART_VAE: return "VAEs";
    case AT_PART_CONTROL: return "ControlNets and adapters";
    case AT_PART_VISION: return "Picture encoders";
    case AT_PART_STYLE: return "Style models";
    case AT_PART_GLIGEN: return "GLIGEN";
    case AT_PART_UPSCALER: return "Upscalers";
    case AT_PART_PHOTOMAKER: return "PhotoMaker";
    }
    return "Others";
}

static void markdown_arch(const at_arch *a)
{
    printf("\n### %s\n\n`%s`.", a->title, a->name);
    if (a->convert)
        printf(" A layout of keys; what lies in it is asked again under its usual names.");
    if (a->part == AT_PART_DENOISER && !a->convert) {
        printf(" Predicts %s", at_prediction_text(a->sampling.prediction));
        if (a->latent)
            printf("; %s latents of %d channels, 1/%d of the picture", a->latent->name,
                   a->latent->channels, a->latent->downscale);
        putchar('.');
    }
    if (a->n_probes) printf(" Known by");
    for (size_t i = 0; i < a->n_probes; i++)
        printf("%s `%s`%s", i ? "," : "", a->probes[i].key, a->probes[i].absent ? " absent" : "");
    printf("%s\n", a->n_probes ? "." : "");
    if (a->n_sizes) printf("\nRead off the file:");
    for (size_t i = 0; i < a->n_sizes; i++)
        printf("%s %s", i ? "," : "", a->sizes[i].name);
    if (a->n_sizes) printf(".\n");
}

// Architectures in the order of their parts' first appearance.
static void print_markdown(void)
{
    bool done[16] = {false};
    printf("# Models\n\nThe architectures that are told apart by what lies in a file. Written by "
           "`make docs` "
           "from the tables of `src/models`;\n`atelier inspect FILE` says which of them a file "
           "holds.\n");
    for (size_t i = 0; i < at_arch_count; i++) {
        at_part part = at_arch_table[i]->part;
        if (done[part % 16]) continue;
        done[part % 16] = true;
        printf("\n## %s\n", part_title(part));
        for (size_t k = i; k < at_arch_count; k++)
            if (at_arch_table[k]->part == part) markdown_arch(at_arch_table[k]);
    }
}

static at_status models(void *options, const at_arg_list *operands)
{
    const models_options *o = options;
    (void)operands;
    if (o->markdown) {
        print_markdown();
        return AT_OK;
    }
    for (size_t i = 0; i < at_arch_count; i++)
        printf("%-24s %-14s %s\n", at_arch_table[i]->name, part_title(at_arch_table[i]->part),
               at_arch_table[i]->title);
    return AT_OK;
}

const at_command at_command_models = {
    .name = "models",
    .summary = "list the architectures that this version knows",
    .args = models_args,
    .n_args = sizeof models_args / sizeof *models_args,
    .options_size = sizeof(models_options),
    .run = models,
};
