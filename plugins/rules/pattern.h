// Patterns of text, decided in a time that is linear in the text: a glob, or after `re:` a
// regular expression, whose states are all followed at once (Pike), so that no text makes it go
// back. Both fit the whole text or nothing.

#ifndef RULES_PATTERN_H
#define RULES_PATTERN_H

#include "regex.h"

// ---- regular expressions: run ----

// The states that are followed; each is there once, so a character costs at most the
// program's length.
typedef struct states {
    uint32_t count;
    uint16_t at[MAX_PROGRAM];
} states;

static states states_now, states_then;
static uint32_t states_mark[MAX_PROGRAM], states_round;

// Once for each event, so that the rounds never come around.
static void states_forget(void) {
    __builtin_memset(states_mark, 0, sizeof states_mark);
    states_round = 0;
}

static bool states_add(const program *p, states *to, uint32_t at) {
    static uint16_t open[MAX_PROGRAM];
    uint32_t count = 0;
    if (states_mark[at] == states_round)
        return true;
    states_mark[at] = states_round;
    open[count++] = (uint16_t)at;
    while (count) {
        if (!steps(1))
            return false;
        uint32_t here = open[--count];
        const instruction *one = &p->code[here];
        if (one->op != SPLIT && one->op != JUMP) {
            to->at[to->count++] = (uint16_t)here;
            continue;
        }
        uint32_t ways[] = {here + (uint32_t)one->x, here + (uint32_t)one->y};
        for (uint32_t i = 0; i < (one->op == SPLIT ? 2 : 1); i++)
            if (states_mark[ways[i]] != states_round) {
                states_mark[ways[i]] = states_round;
                open[count++] = (uint16_t)ways[i];
            }
    }
    return true;
}

static bool in_class(const program *p, const instruction *one, uint32_t rune) {
    for (int32_t i = 0; i < one->y; i++)
        if (p->ranges[one->x + i].from <= rune && rune <= p->ranges[one->x + i].to)
            return true;
    return false;
}

static bool takes_rune(const program *p, const instruction *one, uint32_t rune) {
    uint32_t other = p->fold && lower(rune) >= 'a' && lower(rune) <= 'z' ? rune ^ 0x20 : rune;
    switch (one->op) {
    case RUNE:
        return (uint32_t)one->x == (p->fold ? lower(rune) : rune);
    case ANY:
        return true; // also the end of a line: nobody hides behind one
    case CLASS:
        return in_class(p, one, rune) || in_class(p, one, other);
    case NOT_CLASS:
        return !in_class(p, one, rune) && !in_class(p, one, other);
    default:
        return false;
    }
}

static answer regex_fits(const program *p, str text) {
    states *now = &states_now, *then = &states_then;
    now->count = 0;
    states_round++;
    if (!states_add(p, now, 0))
        return UNKNOWN;
    while (text.size && now->count) {
        uint32_t rune = take_rune(&text);
        then->count = 0;
        states_round++;
        for (uint32_t i = 0; i < now->count; i++) {
            const instruction *one = &p->code[now->at[i]];
            bool class = one->op == CLASS || one->op == NOT_CLASS;
            if (!steps(class ? 1 + (uint32_t)one->y / 4 : 1) ||
                (takes_rune(p, one, rune) && !states_add(p, then, now->at[i] + 1u)))
                return UNKNOWN;
        }
        states *swap = now;
        now = then, then = swap;
        if (!steps(1))
            return UNKNOWN;
    }
    for (uint32_t i = 0; i < now->count; i++)
        if (p->code[now->at[i]].op == FITS)
            return text.size ? NO : YES;
    return NO;
}

// ---- either ----

typedef struct pattern {
    str glob;
    program *program; // null for a glob
    const node *at;
} pattern;

// As long as the configuration; empty when there is no memory for it, and then the event fails.
static str keep(const buf *text) {
    str kept = {arena_take(text->size), text->size};
    if (kept.at == NULL)
        return (str){0};
    __builtin_memcpy((char *)kept.at, text->at, text->size);
    return kept;
}

static bool pattern_of(const node *at, str text, pattern *p, buf *error) {
    *p = (pattern){.glob = text, .at = at};
    if (str_starts(text, STR("re:"))) {
        p->program = regex_of(at, str_from(text, 3), error);
        return p->program != NULL;
    }
    return true;
}

static answer pattern_fits(const pattern *p, str text) {
    if (text.size > MAX_VALUE)
        return UNKNOWN;
    return p->program ? regex_fits(p->program, text) : glob_fits(p->glob, text);
}

#endif
