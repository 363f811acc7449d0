// SPDX-License-Identifier: Apache-2.0
// args.c - parsing flags by their table.
#include "cli/args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "serve/runner.h"

// Does one of the comma-separated spellings equal the first n bytes of `word`?
static bool spells(const char *names, const char *word, size_t n)
{
    for (const char *p = names; *p;) {
        const char *end = strchr(p, ',');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len == n && strncmp(p, word, n) == 0) return true;
        p += end ? len + 1 : len;
    }
    return false;
}

// Which of the choices it is; -1: none.
static int choice_of(const char *choices, const char *value)
{
    size_t n = strlen(value);
    int i = 0;
    for (const char *p = choices; *p; i++) {
        const char *end = strchr(p, '|');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len == n && strncmp(p, value, n) == 0) return i;
        p += end ? len + 1 : len;
    }
    return -1;
}

static unsigned all_choices(const char *choices)
{
    unsigned mask = 1;
    for (const char *p = choices; *p; p++)
        if (*p == '|') mask = mask << 1 | 1;
    return mask;
}

static at_status store_real(const char *name, const char *value, at_arg_real *out)
{
    char *end = NULL;
    errno = 0;
    *out = (at_arg_real){true, strtod(value, &end)};
    if (end == value || *end || errno || !(out->value >= 0) || out->value > 1e9)
        return at_fail(AT_EUSAGE, "%s %s: a number of at least 0 is wanted", name, value);
    return AT_OK;
}

static at_status push(at_arg_list *l, const char *item)
{
    const char **grown = at_realloc(l->items, (l->count + 1) * sizeof *grown);
    if (!grown) return at_fail(AT_ENOMEM, "command line: no memory");
    l->items = grown;
    grown[l->count++] = item;
    return AT_OK;
}

static at_status store(const at_arg *a, const char *name, const char *value, void *options)
{
    void *field = (char *)options + a->offset;
    char *end = NULL;
    switch (a->kind) {
    case AT_ARG_FLAG: *(bool *)field = true; return AT_OK;
    case AT_ARG_TEXT: *(const char **)field = value; return AT_OK;
    case AT_ARG_LIST: return push(field, value);
    case AT_ARG_CHOICE:
        if (choice_of(a->choices, value) < 0)
            return at_fail(AT_EUSAGE, "%s %s: choose one of %s", name, value, a->choices);
        *(const char **)field = value;
        return AT_OK;
    case AT_ARG_INT:
        errno = 0;
        *(long *)field = strtol(value, &end, 10);
        if (end == value || *end || errno || *(long *)field < a->min || *(long *)field > a->max)
            return at_fail(AT_EUSAGE, "%s %s: a whole number from %ld to %ld is wanted", name,
                           value, a->min, a->max);
        return AT_OK;
    case AT_ARG_REAL: return store_real(name, value, field);
    case AT_ARG_MAYBE: *(const char **)field = value; return AT_OK;
    case AT_ARG_SET: // takes several words: take_set
    case AT_ARG_IGNORED: break;
    }
    return AT_OK;
}

static bool is_value(int argc, char **argv, int i)
{
    return i < argc && (argv[i][0] != '-' || !argv[i][1]);
}

// A flag of ComfyUI's that changes nothing here: its words are skipped, and a line says so.
static void ignore(const at_arg *a, const char *word, const char *joined, int argc, char **argv,
                   int *i)
{
    while (a->metavar && !joined && is_value(argc, argv, *i + 1))
        ++*i;
    if (at_engine_process_line() >= 0) return; // the server itself has said it
    fprintf(stderr, "atelier: %.*s is accepted and changes nothing: %s\n", (int)strcspn(word, "="),
            word, a->help);
}

// argv[i] is the flag; moves i behind the words that belong to it.
static at_status take_set(const at_arg *a, const char *joined, int argc, char **argv, int *i,
                          at_arg_set *out)
{
    out->given = true;
    if (joined) {
        int k = choice_of(a->choices, joined);
        if (k < 0) return at_fail(AT_EUSAGE, "%s: choose among %s", argv[*i], a->choices);
        out->mask |= 1u << k;
        return AT_OK;
    }
    unsigned mask = 0;
    for (int k; *i + 1 < argc && (k = choice_of(a->choices, argv[*i + 1])) >= 0; (*i)++)
        mask |= 1u << k;
    out->mask |= mask ? mask : all_choices(a->choices);
    return AT_OK;
}

at_status at_args_parse(const at_command *c, int argc, char **argv, void *options,
                        at_arg_list *operands)
{
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        at_status st = AT_OK;
        if (only_operands || word[0] != '-' || !word[1]) {
            st = push(operands, word);
        } else if (strcmp(word, "--") == 0) {
            only_operands = true;
        } else {
            const char *eq = strchr(word, '=');
            size_t n = eq ? (size_t)(eq - word) : strlen(word);
            const at_arg *a = NULL;
            for (size_t k = 0; k < c->n_args && !a; k++)
                if (spells(c->args[k].name, word, n)) a = &c->args[k];
            if (!a)
                return at_fail(AT_EUSAGE, "%.*s: no such flag; `atelier %s --help` lists them",
                               (int)n, word, c->name);
            const char *value = eq ? eq + 1 : NULL;
            if (a->kind == AT_ARG_SET) {
                st = take_set(a, value, argc, argv, &i, (void *)((char *)options + a->offset));
                if (st != AT_OK) return st;
                continue;
            }
            if (a->kind == AT_ARG_IGNORED) {
                ignore(a, word, value, argc, argv, &i);
                continue;
            }
            if (a->kind == AT_ARG_MAYBE && !value && !is_value(argc, argv, i + 1))
                value = a->choices;
            if (a->kind == AT_ARG_FLAG && eq)
                return at_fail(AT_EUSAGE, "%.*s takes no value", (int)n, word);
            if (a->kind != AT_ARG_FLAG && !value) {
                if (i + 1 >= argc)
                    return at_fail(AT_EUSAGE, "%s wants a value: %s", word, a->metavar);
                value = argv[++i];
            }
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)n, word);
            st = store(a, name, value, options);
        }
        if (st != AT_OK) return st;
    }
    if (operands->count < c->min_operands)
        return at_fail(AT_EUSAGE, "atelier %s wants %s; see `atelier %s --help`", c->name,
                       c->operands, c->name);
    if (operands->count > c->max_operands)
        return at_fail(AT_EUSAGE, "\"%s\" is one argument too many; see `atelier %s --help`",
                       operands->items[c->max_operands], c->name);
    return AT_OK;
}

void at_args_free(const at_command *c, void *options, at_arg_list *operands)
{
    for (size_t k = 0; k < c->n_args; k++)
        if (c->args[k].kind == AT_ARG_LIST) {
            at_arg_list *l = (void *)((char *)options + c->args[k].offset);
            at_free(l->items);
        }
    at_free(operands->items);
    *operands = (at_arg_list){0};
}

// A flag of many spellings takes several lines.
static void print_names(const char *text)
{
    while (strlen(text) > 96) {
        size_t n = 96;
        while (n > 1 && text[n - 1] != ',')
            n--;
        if (n <= 1) break;
        printf("  %.*s\n", (int)n, text);
        text += n;
    }
    printf("  %s\n", text);
}

void at_args_help(const at_command *c)
{
    printf("usage: atelier %s%s%s%s\n\n%s\n", c->name, c->n_args ? " [flags]" : "",
           c->operands ? " " : "", c->operands ? c->operands : "", c->summary);
    if (c->details) printf("\n%s\n", c->details);
    if (c->n_args) printf("\nflags\n");
    for (size_t k = 0; k < c->n_args; k++) {
        const at_arg *a = &c->args[k];
        if (a->kind == AT_ARG_IGNORED) continue;
        char left[640];
        snprintf(left, sizeof left, "%s%s%s", a->name, a->kind == AT_ARG_FLAG ? "" : " ",
                 a->kind == AT_ARG_FLAG                              ? ""
                 : a->kind == AT_ARG_CHOICE || a->kind == AT_ARG_SET ? a->choices
                                                                     : a->metavar);
        if (strlen(left) > 30) {
            print_names(left);
            printf("  %-30s %s\n", "", a->help);
        } else {
            printf("  %-30s %s\n", left, a->help);
        }
    }
}
