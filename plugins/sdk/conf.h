// Configuration text: one setting in a line, `#` begins a comment.
//
//     conf c = conf_of(config);
//     while (conf_next(&c)) {
//         str word = str_word(&c.line);
//         if (...)
//             return conf_error(error, c, "unknown word ", word, "; known are ...");
//     }

#ifndef EDGE_CONF_H
#define EDGE_CONF_H

#include "base.h"

typedef struct conf {
    str rest, line; // `line` is trimmed and never empty
    uint32_t number; // of `line`, from 1
} conf;

SDK conf conf_of(str text) { return (conf){.rest = text}; }

SDK bool conf_next(conf *c) {
    while (c->rest.size) {
        str line = str_cut(&c->rest, '\n');
        c->number++;
        for (uint32_t i = 0; i < line.size; i++)
            if (line.at[i] == '#' && (i == 0 || str_blank(line.at[i - 1])))
                line.size = i;
        c->line = str_trim(line);
        if (c->line.size)
            return true;
    }
    return false;
}

// Replaces what is in `reply` by an error's text; always false.
#define nri_error(reply, ...) (buf_clear(reply), buf_put(reply, __VA_ARGS__), false)

#define conf_error(error, c, ...) nri_error(error, "line ", (c).number, ": ", __VA_ARGS__)

// Digits of `base` that fit 64 bits, and nothing else.
SDK bool conf_digits(str text, uint32_t base, uint64_t *value) {
    *value = 0;
    for (uint32_t i = 0; i < text.size; i++) {
        char c = text.at[i] | ('0' <= text.at[i] && text.at[i] <= '9' ? 0 : 0x20); // lower case
        uint32_t digit = (uint32_t)(c >= 'a' ? c - 'a' + 10 : c - '0');
        if (digit >= base || *value > (UINT64_MAX - digit) / base)
            return false;
        *value = *value * base + digit;
    }
    return text.size > 0;
}

SDK bool conf_uint(str text, uint64_t *value) { return conf_digits(text, 10, value); }

// Bytes, with Kubernetes' suffixes: k M G T of 1000, Ki Mi Gi Ti of 1024.
SDK bool conf_size(str text, uint64_t *bytes) {
    static const char letters[] = "kmgt"; // of either case
    uint64_t unit = 1, step = 1000, limit = INT64_MAX;
    if (text.size && text.at[text.size - 1] == 'i')
        step = 1024, text.size--;
    if (text.size)
        for (uint32_t i = 0; i < sizeof letters - 1; i++)
            if ((text.at[text.size - 1] | 0x20) == letters[i]) {
                for (uint32_t power = 0; power <= i; power++)
                    unit *= step;
                text.size--;
                break;
            }
    if ((step == 1024 && unit == 1) || !conf_uint(text, bytes) || *bytes > limit / unit)
        return false;
    *bytes *= unit;
    return true;
}

// Thousandths of a CPU: "2", "0.5", "1.25" or "500m".
SDK bool conf_cpu(str text, uint64_t *milli) {
    uint64_t whole = 0, part = 0;
    if (text.size && text.at[text.size - 1] == 'm')
        return conf_uint((str){text.at, text.size - 1}, milli);
    str rest = text, head = str_cut(&rest, '.');
    bool point = head.size < text.size;
    if (!conf_uint(head, &whole) || whole > 1000000 || rest.size > 3 ||
        (point && !conf_uint(rest, &part)))
        return false;
    for (uint32_t i = rest.size; i < 3; i++)
        part *= 10;
    *milli = whole * 1000 + part;
    return true;
}

#endif
