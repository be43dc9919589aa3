// Globs: `*` stands for any run of characters, `?` for one. And what each comparison may cost.

#ifndef RULES_GLOB_H
#define RULES_GLOB_H

#include "tree.h"

// UNKNOWN: it cannot be said, and what cannot be said must let nobody through.
typedef enum { NO, YES, UNKNOWN } answer;

#define MAX_VALUE 16384  // bytes of a text that is compared
#define MAX_STEPS 500000 // for one event: instructions of patterns

static uint32_t steps_left;

static bool steps(uint32_t count) {
    bool good = count <= steps_left;
    steps_left = good ? steps_left - count : 0;
    return good;
}

// Looking for one field goes through all of them, and a pod's author makes a million of them.
#define MAX_FIELDS 16384 // of a pod and a container together
static uint32_t fields_of(str message) { // as far as that is of interest
    uint32_t count = 0;
    for (pb_field field; count <= MAX_FIELDS && pb_next(&message, &field);)
        count++;
    return count;
}

// ---- characters ----

// Takes one off: a code point, or for a byte that is no UTF-8 a number above all of them.
static uint32_t take_rune(str *text) {
    const uint32_t none = 0x110000;
    uint32_t first = (uint8_t)text->at[0];
    uint32_t size = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint32_t rune = size == 1 ? first : first & (0x7Fu >> size);
    bool good = size && size <= text->size && first < 0xF5;
    for (uint32_t i = 1; good && i < size; i++) {
        good = (text->at[i] & 0xC0) == 0x80;
        rune = rune << 6 | (text->at[i] & 0x3F);
    }
    if (good && ((size == 3 && rune < 0x800) || (size == 4 && rune < 0x10000) || rune >= none ||
                 (rune & ~0x7FFu) == 0xD800))
        good = false;
    *text = str_from(*text, good ? size : 1);
    return good ? rune : none + first;
}

static uint32_t lower(uint32_t rune) { return rune >= 'A' && rune <= 'Z' ? rune | 0x20 : rune; }

// ---- globs ----

// Behind the character that begins there, or the byte that begins none.
static uint32_t rune_end(str text, uint32_t at) {
    do
        at++;
    while (at < text.size && (text.at[at] & 0xC0) == 0x80);
    return at;
}

// A later star forgets an earlier one, so the work is at most pattern times text.
static answer glob_fits(str pattern, str text) {
    uint32_t p = 0, t = 0, star = UINT32_MAX, resume = 0;
    if (!steps(1)) // an empty text costs, too
        return UNKNOWN;
    while (t < text.size) {
        char want = p < pattern.size ? pattern.at[p] : '\0';
        if (!steps(1))
            return UNKNOWN;
        if (p < pattern.size && want == '*') {
            star = ++p;
            resume = t;
        } else if (p < pattern.size && want == '?') {
            p++;
            t = rune_end(text, t);
        } else if (p < pattern.size && want == text.at[t]) {
            p++, t++;
        } else if (star != UINT32_MAX) {
            p = star;
            t = resume = rune_end(text, resume);
        } else {
            return NO;
        }
    }
    while (p < pattern.size && pattern.at[p] == '*')
        p++;
    return p == pattern.size ? YES : NO;
}

#endif
