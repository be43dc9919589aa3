// The YAML that device annotations are written in, and no more of it: a list of
// maps whose values are scalars or lists of scalars, or a list of scalars, in block or in flow
// (JSON) style.
//
//     - path: /dev/i2c-1            [{"path": "/dev/i2c-1", "type": "c", ...}]
//       type: c
//       options:
//         - ro
//
// Left out on purpose: anchors, tags, block scalars, escapes, text over several
// lines. What is left out or wrong ends the parse with the line and the reason.

#ifndef EDGE_YAML_H
#define EDGE_YAML_H

#include "base.h"

typedef enum yaml_kind {
    YAML_ITEM,    // a new entry of the list
    YAML_VALUE,   // `key: value`
    YAML_ELEMENT, // one of the values of `key`
    YAML_END,
} yaml_kind;

typedef struct yaml {
    str rest; // from the place that is read
    uint32_t line;
    buf *error;
    // Gets every piece in order; false (after yaml_wrong) ends the parse.
    bool (*take)(struct yaml *y, yaml_kind kind, str value, bool quoted);
    str key;      // of YAML_VALUE and YAML_ELEMENT
    bool scalars; // the list is of them, each a YAML_ELEMENT
} yaml;

static void yaml_put_line(const yaml *y) { buf_put(y->error, "line ", y->line, ": "); }

// Appends "line N: why" to what the caller wrote into the error; always false.
#define yaml_wrong(y, ...) (yaml_put_line(y), buf_put((y)->error, __VA_ARGS__), false)

static char yaml_peek(const yaml *y) { return y->rest.size ? y->rest.at[0] : '\0'; }

static void yaml_step(yaml *y, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        y->line += y->rest.at[i] == '\n';
    y->rest = str_from(y->rest, size);
}

// Skips blanks and comments, and line ends too if `lines`; the column reached is the
// caller's to compute from what was skipped after the last line end.
static uint32_t yaml_skip(yaml *y, bool lines) {
    uint32_t column = 0;
    while (y->rest.size) {
        char c = yaml_peek(y);
        if (c == '#') {
            while (y->rest.size && yaml_peek(y) != '\n')
                yaml_step(y, 1);
        } else if (str_blank(c)) {
            column++;
            yaml_step(y, 1);
        } else if (c == '\n' && lines) {
            column = 0;
            yaml_step(y, 1);
        } else {
            break;
        }
    }
    return column;
}

static bool yaml_at_dash(const yaml *y) {
    return yaml_peek(y) == '-' && (y->rest.size == 1 || is_any(y->rest.at[1], " \t\r\n"));
}

// A scalar, plain or quoted; a plain one ends before ": ", " #", the line's end and,
// in flow style, before punctuation.
static bool yaml_scalar(yaml *y, bool flow, str *value, bool *quoted) {
    char first = yaml_peek(y);
    *quoted = first == '"' || first == '\'';
    if (*quoted) {
        uint32_t end = 1;
        while (end < y->rest.size && y->rest.at[end] != first && y->rest.at[end] != '\n')
            if (y->rest.at[end++] == '\\' && first == '"')
                return yaml_wrong(y, "escapes (\\) are not understood; use '...' instead");
        if (end >= y->rest.size || y->rest.at[end] == '\n')
            return yaml_wrong(y, "the quote is not closed");
        *value = (str){y->rest.at + 1, end - 1};
        yaml_step(y, end + 1);
        if (!y->rest.size || is_any(yaml_peek(y), " \t\r\n,:]}"))
            return true;
        return yaml_wrong(y, "text follows the closing quote");
    }
    if (yaml_at_dash(y) || is_any(first, "&*!|>%@`[]{},"))
        return yaml_wrong(y, "YAML's ", str_head(y->rest, 1), " is not understood here");
    uint32_t end = 0;
    for (; end < y->rest.size && y->rest.at[end] != '\n'; end++) {
        char c = y->rest.at[end], next = end + 1 < y->rest.size ? y->rest.at[end + 1] : '\n';
        if ((c == ':' && is_any(next, flow ? " \t\r\n,]}[{" : " \t\r\n")) ||
            (str_blank(c) && next == '#') || (flow && is_any(c, ",[]{}")))
            break;
    }
    *value = str_trim((str){y->rest.at, end});
    yaml_step(y, end);
    return value->size || yaml_wrong(y, "a value is missing");
}

static bool yaml_key(yaml *y, bool flow) {
    bool quoted;
    if (!yaml_scalar(y, flow, &y->key, &quoted))
        return false;
    yaml_skip(y, flow);
    if (yaml_peek(y) != ':')
        return yaml_wrong(y, "a key and a colon are wanted, not ", &y->key);
    yaml_step(y, 1);
    return true;
}

// After an entry of a flow collection: its comma, or its end in sight.
static bool yaml_comma(yaml *y, const char *close) {
    yaml_skip(y, true);
    if (yaml_peek(y) == ',')
        yaml_step(y, 1);
    else if (yaml_peek(y) != *close)
        return yaml_wrong(y, "a comma or ", close, " is wanted");
    yaml_skip(y, true);
    return true;
}

static bool yaml_flow_values(yaml *y) { // [ro, bind]
    str value;
    bool quoted;
    yaml_step(y, 1);
    yaml_skip(y, true);
    while (yaml_peek(y) != ']')
        if (!yaml_scalar(y, true, &value, &quoted) || !y->take(y, YAML_ELEMENT, value, quoted) ||
            !yaml_comma(y, "]"))
            return false;
    yaml_step(y, 1);
    return true;
}

static bool yaml_flow_map(yaml *y) { // {path: /dev/null, type: c}
    str value;
    bool quoted;
    yaml_step(y, 1);
    yaml_skip(y, true);
    if (!y->take(y, YAML_ITEM, STR(""), false))
        return false;
    while (yaml_peek(y) != '}') {
        if (!yaml_key(y, true))
            return false;
        yaml_skip(y, true);
        if (yaml_peek(y) == '[' ? !yaml_flow_values(y)
                                : !yaml_scalar(y, true, &value, &quoted) ||
                                      !y->take(y, YAML_VALUE, value, quoted))
            return false;
        if (!yaml_comma(y, "}"))
            return false;
    }
    yaml_step(y, 1);
    return true;
}

static bool yaml_flow_list(yaml *y) { // [{...}, {...}]
    yaml_step(y, 1);
    yaml_skip(y, true);
    while (yaml_peek(y) != ']') {
        if (yaml_peek(y) != '{')
            return yaml_wrong(y, "an entry {key: value, ...} is wanted");
        if (!yaml_flow_map(y) || !yaml_comma(y, "]"))
            return false;
    }
    yaml_step(y, 1);
    return true;
}

static bool yaml_line_end(yaml *y) {
    yaml_skip(y, false);
    if (y->rest.size && yaml_peek(y) != '\n')
        return yaml_wrong(y, "the line goes on where it should end");
    return true;
}

// One `key: value` of a block map; `*open` when its values may follow as a list.
static bool yaml_block_pair(yaml *y, bool *open) {
    str value;
    bool quoted;
    if (!yaml_key(y, false))
        return false;
    yaml_skip(y, false);
    *open = !y->rest.size || yaml_peek(y) == '\n';
    if (*open)
        return true;
    if (yaml_peek(y) == '[')
        return yaml_flow_values(y) && yaml_line_end(y);
    return yaml_scalar(y, false, &value, &quoted) && yaml_line_end(y) &&
           y->take(y, YAML_VALUE, value, quoted);
}

static bool yaml_block_list(yaml *y, uint32_t column) {
    const uint32_t none = UINT32_MAX;
    uint32_t dashes = column, keys = none, values = none;
    uint32_t open_line = 0; // of the last key while it has no value
    for (; y->rest.size; column = yaml_skip(y, true)) {
        bool dash = yaml_at_dash(y);
        if (dash && column > dashes && (open_line || values != none)) {
            if (column < keys || (values != none && column != values))
                return yaml_wrong(y, "the indentation fits no list above");
            str value;
            bool quoted;
            open_line = 0;
            values = column;
            yaml_step(y, 1);
            yaml_skip(y, false);
            if (!yaml_scalar(y, false, &value, &quoted) || !yaml_line_end(y) ||
                !y->take(y, YAML_ELEMENT, value, quoted))
                return false;
            continue;
        }
        if (open_line)
            break;
        values = none;
        if (dash) {
            if (column != dashes)
                return yaml_wrong(y, "the indentation fits no list above");
            yaml_step(y, 1);
            keys = column + 1 + yaml_skip(y, false);
            if (yaml_peek(y) == '{') {
                keys = none;
                if (!yaml_flow_map(y) || !yaml_line_end(y))
                    return false;
                continue;
            }
            if (!y->take(y, YAML_ITEM, STR(""), false))
                return false;
            if (!y->rest.size || yaml_peek(y) == '\n') {
                keys = 0; // the next line says
                continue;
            }
        } else if (keys == 0 && column > dashes) {
            keys = column;
        } else if (column != keys) {
            return yaml_wrong(y, "the indentation fits no entry above");
        }
        uint32_t line = y->line;
        bool open;
        if (!yaml_block_pair(y, &open))
            return false;
        open_line = open ? line : 0;
    }
    if (open_line == 0)
        return true;
    y->line = open_line;
    return yaml_wrong(y, "a value is missing for ", &y->key);
}

static bool yaml_scalar_list(yaml *y, uint32_t column) { // - a
    str value;
    bool quoted;
    for (uint32_t dashes = column; y->rest.size; column = yaml_skip(y, true)) {
        if (column != dashes || !yaml_at_dash(y))
            return yaml_wrong(y, "the indentation fits no list above");
        yaml_step(y, 1);
        yaml_skip(y, false);
        if (!y->rest.size || yaml_peek(y) == '\n')
            return yaml_wrong(y, "a value is missing");
        if (!yaml_scalar(y, false, &value, &quoted) || !yaml_line_end(y) ||
            !y->take(y, YAML_ELEMENT, value, quoted))
            return false;
    }
    return true;
}

// Hands all of the text to `take`; false with a reason in `error` when it cannot.
static bool yaml_parse(yaml *y) {
    y->line = 1;
    for (uint32_t i = 0, start = true; i < y->rest.size; i++) {
        char c = y->rest.at[i];
        y->line += c == '\n';
        if (c == '\t' && start)
            return yaml_wrong(y, "a tab; YAML indents with blanks");
        start = c == '\n' || (start && str_blank(c));
    }
    y->line = 1;
    uint32_t column = yaml_skip(y, true);
    bool good = true;
    if (yaml_at_dash(y)) {
        good = y->scalars ? yaml_scalar_list(y, column) : yaml_block_list(y, column);
    } else if (yaml_peek(y) == '[') {
        good = y->scalars ? yaml_flow_values(y) : yaml_flow_list(y);
        yaml_skip(y, true);
        if (good && y->rest.size)
            good = yaml_wrong(y, "text follows the list");
    } else if (y->rest.size) {
        good = yaml_wrong(y, "a list is wanted: a dash before each entry");
    }
    return good && y->take(y, YAML_END, STR(""), false);
}

#endif
