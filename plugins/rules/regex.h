// Regular expressions, turned into a program of a nondeterministic automaton (Thompson), whose
// size is bounded.

#ifndef RULES_REGEX_H
#define RULES_REGEX_H

#include "glob.h"

#define MAX_PROGRAM 512   // instructions of one regular expression
#define MAX_PROGRAMS 4096 // of all in a configuration
#define MAX_RANGES 256    // of characters, in the classes of one
#define MAX_NESTING 16    // of its groups
#define MAX_REPEAT 255    // in {m,n}

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
    uint32_t size = c->rest.size;
    str inside = str_cut(&c->rest, '}'), upper = inside, low = str_cut(&upper, ',');
    bool comma = low.size < inside.size, closed = inside.size < size;
    *most = MAX_REPEAT + 1; // {m,}: no bound
    if (!closed || !conf_uint(low, least) || (upper.size && !conf_uint(upper, most)))
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

#endif
