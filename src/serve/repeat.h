// SPDX-License-Identifier: Apache-2.0
// repeat.h - prompts that were checked a moment ago, by their bytes.
// Idea: a program that submits the same workflow again (with another client, number or extra_data) sends the same bytes
// for it: what the check made of them is kept, and is the same, if the check looked at nothing else (at_check_result's
// `pure`: no list of files, no validator).
// Easy to get wrong: equal means equal bytes. The rest of the body is parsed each time.
// Owns: its entries, a few and small ones. One thread.
#ifndef AT_SERVE_REPEAT_H
#define AT_SERVE_REPEAT_H

#include <stdbool.h>
#include <stddef.h>

// What a good prompt becomes.
typedef struct at_repeat_of {
    const char *prompt, *targets, *node_errors; // JSON as the queue and the answer hold it
} at_repeat_of;

typedef struct at_repeats at_repeats;
at_repeats *at_repeats_new(void); // NULL: no memory, and nothing is kept
void at_repeats_free(at_repeats *k);
// Borrowed until the next call; NULL: not known (k may be NULL).
const at_repeat_of *at_repeats_find(at_repeats *k, const char *bytes, size_t n);
// Copies; takes the place of the oldest. What is too long, or no memory, is not kept.
void at_repeats_keep(at_repeats *k, const char *bytes, size_t n, const at_repeat_of *p);

// The bytes of the member `key` of a JSON object. False where that is not certain at first sight: twice there, keys with
// escapes, brackets that do not match. Says nothing about whether the text is JSON.
bool at_repeats_member(const char *text, size_t n, const char *key, size_t *from, size_t *to);

#endif
