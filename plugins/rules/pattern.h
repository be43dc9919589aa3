// Patterns of text, decided in a time that is linear in the text.
//
// A glob: `*` stands for any run of characters, `?` for one. After `re:` a regular
// expression, which is turned into a program of a nondeterministic automaton (Thompson)
// whose states are all followed at once (Pike), so that no text makes it go back. Both
// fit the whole text or nothing.

#ifndef RULES_PATTERN_H
#define RULES_PATTERN_H

#include "../validator/path.h"
#include "document.h"

// UNKNOWN: it cannot be said, and what cannot be said must let nobody through.
typedef enum { NO, YES, UNKNOWN } answer;

#define MAX_PROGRAM 512   // instructions of one regular expression
#define MAX_PROGRAMS 4096 // of all in a configuration
#define MAX_RANGES 256    // of characters, in the classes of one
#define MAX_NESTING 16    // of its groups
#define MAX_REPEAT 255    // in {m,n}
#define MAX_VALUE 16384   // bytes of a text that is compared
#define MAX_STEPS 500000  // for one event: instructions of patterns

static uint32_t steps_left;

static bool steps(uint32_t count) {
    bool good = count <= steps_left;
    steps_left = good ? steps_left - count : 0;
    return good;
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

// ---- regular expressions: program ----

typedef enum { RUNE, ANY, CLASS, NOT_CLASS, SPLIT, JUMP, FITS } opcode;

typedef struct instruction {
    opcode op;
    int32_t x, y; // RUNE: it; CLASS: first range and their number; SPLIT, JUMP: how far
} instruction;

typedef struct range {
    uint32_t from, to;
} range;

typedef struct program {
    instruction *code;
    range *ranges;
    uint32_t size;
    bool fold; // (?i): ASCII letters of either case
} program;

static uint32_t programs_size; // of the configuration, so far

typedef struct compiler {
    str rest, whole;
    instruction *code; // of MAX_PROGRAM
    range *ranges;     // of MAX_RANGES
    uint32_t size, range_count, nesting;
    bool fold;
    const node *at; // for errors
    buf *error;
} compiler;

// Always false.
static bool regex_wrong(const compiler *c, const char *why) {
    return node_wrong(c->error, c->at, "the regular expression, behind its character ",
                      c->whole.size - c->rest.size, ": ", why);
}

static bool emit(compiler *c, uint32_t at, instruction one) {
    if (c->size == MAX_PROGRAM)
        return regex_wrong(c, "it becomes too large; at most " DIGITS(MAX_PROGRAM) " steps, where {m,n} counts n times");
    // Jumps are relative and lead to the end of what moves at most, so they stay right.
    for (uint32_t i = c->size++; i > at; i--)
        c->code[i] = c->code[i - 1];
    c->code[at] = one;
    return true;
}

static bool add_range(compiler *c, uint32_t from, uint32_t to) {
    if (c->range_count == MAX_RANGES)
        return regex_wrong(c, "its classes have more than " DIGITS(MAX_RANGES) " ranges");
    c->ranges[c->range_count++] = (range){from, to};
    return true;
}

// \d \w \s and their complements, as ranges of ASCII; false when the letter is none.
static bool add_named(compiler *c, char name, bool *good) {
    static const uint8_t digits[] = {1, '0', '9'};
    static const uint8_t words[] = {4, '0', '9', 'A', 'Z', '_', '_', 'a', 'z'};
    static const uint8_t blanks[] = {2, '\t', '\r', ' ', ' '};
    char small = name | 0x20;
    const uint8_t *named = small == 'd' ? digits : small == 'w' ? words : small == 's' ? blanks
                                                                                       : NULL;
    *good = true;
    if (named == NULL)
        return false;
    uint32_t from = 0;
    for (uint32_t i = 0; i < named[0] && *good; i++) {
        uint32_t low = named[1 + 2 * i], high = named[2 + 2 * i];
        if (name == small)
            *good = add_range(c, low, high);
        else if (low > from)
            *good = add_range(c, from, low - 1);
        from = high + 1;
    }
    if (name != small && *good)
        *good = add_range(c, from, UINT32_MAX);
    return true;
}

// One character behind a backslash that stands for itself, or by a number.
static bool escaped_rune(compiler *c, uint32_t *rune) {
    if (c->rest.size == 0)
        return regex_wrong(c, "it ends with a backslash");
    *rune = take_rune(&c->rest);
    uint32_t letter = lower(*rune);
    if (!((letter >= 'a' && letter <= 'z') || (*rune >= '0' && *rune <= '9')))
        return *rune < 0x80 || regex_wrong(c, "only punctuation stands behind a backslash");
    if (*rune == 'n' || *rune == 't' || *rune == 'r') {
        *rune = *rune == 'n' ? '\n' : *rune == 't' ? '\t' : '\r';
        return true;
    }
    uint64_t value;
    if (*rune == 'x' && c->rest.size >= 2 && conf_digits((str){c->rest.at, 2}, 16, &value)) {
        c->rest = str_from(c->rest, 2);
        *rune = (uint32_t)value;
        return true;
    }
    return regex_wrong(c, "this escape is not understood; known are \\d \\w \\s \\D \\W \\S \\n \\t "
                          "\\r \\xHH and punctuation");
}

static char regex_peek(const compiler *c) { return c->rest.size ? c->rest.at[0] : '\0'; }

static bool regex_class(compiler *c) {
    instruction one = {.op = CLASS, .x = (int32_t)c->range_count};
    if (regex_peek(c) == '^') {
        one.op = NOT_CLASS;
        c->rest = str_from(c->rest, 1);
    }
    while (regex_peek(c) != ']' || c->rest.size == 0) {
        if (c->rest.size == 0)
            return regex_wrong(c, "the class is not closed by ]");
        if (regex_peek(c) == '[')
            return regex_wrong(c, "a [ in a class is written \\[");
        uint32_t from = take_rune(&c->rest), to;
        if (from == '\\') {
            bool good;
            if (c->rest.size && add_named(c, c->rest.at[0], &good)) {
                if (!good)
                    return false;
                c->rest = str_from(c->rest, 1);
                continue;
            }
            if (!escaped_rune(c, &from))
                return false;
        }
        to = from;
        if (regex_peek(c) == '-' && c->rest.size > 1 && c->rest.at[1] != ']') {
            c->rest = str_from(c->rest, 1);
            to = take_rune(&c->rest);
            if (to == '\\' && !escaped_rune(c, &to))
                return false;
            if (to < from)
                return regex_wrong(c, "the range is upside down");
        }
        if (!add_range(c, from, to))
            return false;
    }
    c->rest = str_from(c->rest, 1);
    one.y = (int32_t)c->range_count - one.x;
    if (one.y == 0)
        return regex_wrong(c, "an empty class");
    return emit(c, c->size, one);
}

static bool regex_choice(compiler *c);

static bool regex_atom(compiler *c) {
    uint32_t rune = take_rune(&c->rest);
    if (rune == '(') {
        if (str_starts(c->rest, STR("?:")))
            c->rest = str_from(c->rest, 2);
        else if (regex_peek(c) == '?')
            return regex_wrong(c, "of (?...) only (?:...) is understood, and (?i) at the beginning");
        if (++c->nesting > MAX_NESTING)
            return regex_wrong(c, "groups deeper than " DIGITS(MAX_NESTING));
        if (!regex_choice(c))
            return false;
        if (regex_peek(c) != ')')
            return regex_wrong(c, "a ) is missing");
        c->rest = str_from(c->rest, 1);
        c->nesting--;
        return true;
    }
    if (rune == '[')
        return regex_class(c);
    if (rune == '.')
        return emit(c, c->size, (instruction){.op = ANY});
    if (rune == '^' || rune == '$')
        return regex_wrong(c, "^ and $ stand at the ends only; the whole text is compared anyway");
    if (rune < 0x80 && is_any((char)rune, "*+?{"))
        return regex_wrong(c, "nothing is there to be repeated");
    if (rune == '\\') {
        bool good;
        instruction one = {.op = CLASS, .x = (int32_t)c->range_count};
        if (c->rest.size && add_named(c, c->rest.at[0], &good)) {
            c->rest = str_from(c->rest, 1);
            one.y = (int32_t)c->range_count - one.x;
            return good && emit(c, c->size, one);
        }
        if (!escaped_rune(c, &rune))
            return false;
    }
    return emit(c, c->size, (instruction){.op = RUNE, .x = (int32_t)(c->fold ? lower(rune) : rune)});
}

// Another copy of what has `size` instructions from `start`.
static bool regex_copy(compiler *c, uint32_t start, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        if (!emit(c, c->size, c->code[start + i]))
            return false;
    return true;
}

// {m,n} behind its brace.
static bool regex_bounds(compiler *c, uint64_t *least, uint64_t *most) {
    str inside = str_cut(&c->rest, '}'), upper = inside, low = str_cut(&upper, ',');
    bool comma = low.size < inside.size;
    *most = MAX_REPEAT + 1; // {m,}: no bound
    if (!conf_uint(low, least) || (upper.size && !conf_uint(upper, most)))
        return regex_wrong(c, "wanted is {m}, {m,} or {m,n}");
    if (!comma)
        *most = *least;
    if (*least > MAX_REPEAT || (upper.size && *most > MAX_REPEAT))
        return regex_wrong(c, "at most " DIGITS(MAX_REPEAT) " repetitions");
    return *least <= *most || regex_wrong(c, "the repetition is upside down");
}

static bool regex_repeat(compiler *c, uint32_t start) {
    uint64_t least = 0, most = 1, endless = MAX_REPEAT + 1;
    char how = regex_peek(c);
    if (!is_any(how, "*+?{") || c->rest.size == 0)
        return true;
    c->rest = str_from(c->rest, 1);
    if (how == '*' || how == '+')
        least = how == '+', most = endless;
    else if (how == '{' && !regex_bounds(c, &least, &most))
        return false;
    if (c->rest.size && is_any(regex_peek(c), "*+?{"))
        return regex_wrong(c, "a repetition of a repetition; put the inner one into (?:...)");
    uint32_t size = c->size - start, last = start;
    if (most == 0) {
        c->size = start;
        return true;
    }
    for (uint64_t i = 1; i < least; i++) {
        last = c->size;
        if (!regex_copy(c, start, size))
            return false;
    }
    if (most == endless) {
        if (least) // once more from the last copy on, or further
            return emit(c, c->size, (instruction){SPLIT, -(int32_t)(c->size - last), 1});
        return emit(c, start, (instruction){SPLIT, 1, (int32_t)size + 2}) &&
               emit(c, c->size, (instruction){JUMP, -(int32_t)(size + 1), 0});
    }
    uint32_t optional = (uint32_t)(most - least);
    if (least == 0) { // the first one is there already
        if (!emit(c, start, (instruction){SPLIT, 1, (int32_t)(optional * (size + 1))}))
            return false;
        start++, optional--;
    }
    for (; optional; optional--)
        if (!emit(c, c->size, (instruction){SPLIT, 1, (int32_t)(optional * (size + 1))}) ||
            !regex_copy(c, start, size))
            return false;
    return true;
}

static bool regex_sequence(compiler *c) {
    while (c->rest.size && !is_any(regex_peek(c), "|)")) {
        if (c->rest.size == 1 && regex_peek(c) == '$' && c->nesting == 0) {
            c->rest = str_from(c->rest, 1);
            break;
        }
        uint32_t start = c->size;
        if (!regex_atom(c) || !regex_repeat(c, start))
            return false;
    }
    return true;
}

static bool regex_choice(compiler *c) {
    uint32_t start = c->size, jump = UINT32_MAX;
    if (!regex_sequence(c))
        return false;
    while (regex_peek(c) == '|' && c->rest.size) {
        c->rest = str_from(c->rest, 1);
        if (!emit(c, start, (instruction){SPLIT, 1, (int32_t)(c->size - start) + 2}))
            return false;
        if (jump != UINT32_MAX) // each alternative's end leads to the next one's, the last to
            c->code[jump].x = (int32_t)(c->size - jump); // the end of all
        jump = c->size;
        if (!emit(c, c->size, (instruction){.op = JUMP}))
            return false;
        start = c->size;
        if (!regex_sequence(c))
            return false;
    }
    if (jump != UINT32_MAX)
        c->code[jump].x = (int32_t)(c->size - jump);
    return true;
}

static bool regex_compile(compiler *c) {
    if (str_starts(c->rest, STR("(?i)")))
        c->fold = true, c->rest = str_from(c->rest, 4);
    if (regex_peek(c) == '^')
        c->rest = str_from(c->rest, 1);
    if (!regex_choice(c))
        return false;
    if (c->rest.size)
        return regex_wrong(c, "a ) without its (");
    return emit(c, c->size, (instruction){.op = FITS});
}

// Null when it is wrong, with the reason in `error`.
static program *regex_of(const node *at, str text, buf *error) {
    compiler c = {.rest = text, .whole = text, .at = at, .error = error};
    c.code = heap_take(MAX_PROGRAM * sizeof *c.code);
    c.ranges = heap_take(MAX_RANGES * sizeof *c.ranges);
    program *p = NULL;
    if (c.code && c.ranges && regex_compile(&c)) {
        programs_size += c.size;
        if (programs_size > MAX_PROGRAMS)
            node_wrong(error, at, "the regular expressions become too large together; at most "
                       DIGITS(MAX_PROGRAMS) " steps");
        else if ((p = arena_take(sizeof *p))) {
            *p = (program){.code = arena_take(c.size * sizeof *c.code), .size = c.size,
                           .ranges = arena_take(c.range_count * sizeof *c.ranges), .fold = c.fold};
            if (p->code && p->ranges) {
                __builtin_memcpy(p->code, c.code, c.size * sizeof *c.code);
                __builtin_memcpy(p->ranges, c.ranges, c.range_count * sizeof *c.ranges);
            }
        }
    }
    heap_give(c.ranges);
    heap_give(c.code);
    return p;
}

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
