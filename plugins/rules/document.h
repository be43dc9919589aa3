// The YAML that rules are written in, and no more of it: maps and lists in block or in
// flow (JSON) style, of texts in one line. All of it is read before anything counts.
//
// Left out on purpose: anchors, tags, block scalars, text over several lines, `? ` keys,
// a second document. What is left out or wrong ends the parse with line, column and reason.

#ifndef RULES_DOCUMENT_H
#define RULES_DOCUMENT_H

#include "tree.h"

static bool key_is(const node *n, const char *key) { return str_is(n->key, key); }

static bool text_is(const node *n, const char *text) {
    return n->kind == TEXT && str_is(n->text, text);
}

#define MAX_DEPTH 8
#define MAX_NODES 4096
#define MAX_KEYS 512 // of one map
#define MAX_TEXT 65536 // bytes of a configuration

typedef struct document {
    const char *at, *end, *line_at; // line_at: where the line begins
    const char *counted;            // up to here `column` is known
    uint32_t column;
    uint32_t line, depth, nodes;
    buf *error;
} document;

#define doc_wrong(d, ...) place_wrong((d)->error, (d)->line, doc_column(d), __VA_ARGS__)

static uint32_t doc_column(document *d) { // in characters
    if (d->counted < d->line_at || d->counted > d->at)
        d->counted = d->line_at, d->column = 1;
    for (; d->counted < d->at; d->counted++)
        d->column += (*d->counted & 0xC0) != 0x80;
    return d->column;
}

static char doc_peek(const document *d) { return d->at < d->end ? *d->at : '\n'; }

static char doc_ahead(const document *d) { return d->end - d->at > 1 ? d->at[1] : '\n'; }

static bool doc_at_dash(const document *d) {
    return d->at < d->end && *d->at == '-' && is_any(doc_ahead(d), " \n");
}

static bool doc_at_colon(const document *d, bool flow) {
    return d->at < d->end && *d->at == ':' && is_any(doc_ahead(d), flow ? " \n,[]{}" : " \n");
}

static node *doc_node(document *d, uint32_t kind) {
    if (d->nodes++ == MAX_NODES)
        return doc_wrong(d, "more than " DIGITS(MAX_NODES) " values"), NULL;
    node *n = arena_take(sizeof *n);
    if (n)
        n->kind = kind, n->line = d->line, n->column = doc_column(d);
    return n;
}

// Blanks, and a comment, up to the line's end.
static void doc_blanks(document *d) {
    while (d->at < d->end && *d->at == ' ')
        d->at++;
    if (d->at < d->end && *d->at == '#' && (d->at == d->line_at || d->at[-1] == ' '))
        while (d->at < d->end && *d->at != '\n')
            d->at++;
}

// Goes on to what comes next in this or a later line; its column, from 0.
static uint32_t doc_next(document *d) {
    for (doc_blanks(d); d->at < d->end && *d->at == '\n'; doc_blanks(d)) {
        d->line_at = ++d->at;
        d->line++;
    }
    return (uint32_t)(d->at - d->line_at);
}

static bool doc_line_end(document *d) {
    doc_blanks(d);
    return doc_peek(d) == '\n' || doc_wrong(d, "the line goes on where it should end");
}

// ---- texts ----

static void put_rune(buf *out, uint32_t rune) {
    if (rune < 0x80) {
        buf_put_char(out, (char)rune);
        return;
    }
    if (rune >= 0x800)
        buf_put_char(out, (char)(0xE0 | rune >> 12));
    buf_put_char(out, (char)(rune >= 0x800 ? 0x80 | (rune >> 6 & 0x3F) : 0xC0 | rune >> 6));
    buf_put_char(out, (char)(0x80 | (rune & 0x3F)));
}

// Behind the backslash of "...".
static bool doc_escape(document *d, buf *out) {
    static const char names[] = "\"\\/ntr", stand[] = "\"\\/\n\t\r";
    char c = *d->at++;
    for (uint32_t i = 0; names[i]; i++)
        if (c == names[i]) {
            buf_put_char(out, stand[i]);
            return true;
        }
    uint32_t size = c == 'x' ? 2 : c == 'u' ? 4 : 0;
    uint64_t rune;
    if (size == 0 || d->end - d->at < (ptrdiff_t)size ||
        !conf_digits((str){d->at, size}, 16, &rune) || rune == 0 || (rune & ~0x7FFull) == 0xD800)
        return doc_wrong(d, "this escape is not understood; known are \\\" \\\\ \\/ \\n \\t \\r "
                         "\\xHH \\uHHHH, without 0 and surrogates");
    d->at += size;
    put_rune(out, (uint32_t)rune);
    return true;
}

static bool doc_quoted(document *d, str *text) {
    char quote = *d->at++;
    const char *start = d->at;
    buf out = {0};
    bool plain = true, good = true; // plain: the text stands there as it is
    while (good) {
        if (doc_peek(d) == '\n') {
            good = doc_wrong(d, "the quote is not closed in this line");
            break;
        }
        char c = *d->at++;
        bool doubled = c == quote && quote == '\'' && d->at < d->end && *d->at == quote;
        if (c == quote && !doubled)
            break;
        if ((doubled || (c == '\\' && quote == '"')) && plain) {
            plain = false;
            buf_put_str(&out, (str){start, (uint32_t)(d->at - 1 - start)});
        }
        if (doubled)
            d->at++;
        if (c == '\\' && quote == '"')
            good = doc_peek(d) == '\n' ? doc_wrong(d, "the quote is not closed in this line")
                                       : doc_escape(d, &out);
        else if (!plain)
            buf_put_char(&out, c);
    }
    *text = (str){start, (uint32_t)(d->at - 1 - start)};
    if (good && !plain) {
        text->at = arena_take(out.size + 1);
        text->size = out.size;
        if (text->at && out.size)
            __builtin_memcpy((char *)text->at, out.at, out.size);
        good = text->at != NULL;
    }
    buf_free(&out);
    if (good && !is_any(doc_peek(d), " \n,:]}"))
        return doc_wrong(d, "text follows the closing quote");
    return good;
}

// Plain or quoted; a plain one ends before ": ", " #", the line's end and, in flow style,
// before punctuation.
static bool doc_text(document *d, bool flow, str *text) {
    char first = doc_peek(d);
    str indicator = {d->at, (uint32_t)(d->end - d->at)};
    if (first == '"' || first == '\'')
        return doc_quoted(d, text);
    if (doc_at_dash(d) || is_any(first, "&*!|>%@`[]{},#") ||
        (is_any(first, "?:") && is_any(doc_ahead(d), " \n")))
        return doc_wrong(d, "YAML's ", str_head(indicator, 1), " is not understood here; put a text "
                         "that begins so into quotes");
    const char *start = d->at;
    while (doc_peek(d) != '\n' && !doc_at_colon(d, flow) &&
           !(*d->at == ' ' && doc_ahead(d) == '#') && !(flow && is_any(*d->at, ",[]{}")))
        d->at++;
    *text = str_trim((str){start, (uint32_t)(d->at - start)});
    return text->size || doc_wrong(d, "a value is missing");
}

static node *doc_text_node(document *d, bool flow) {
    node *n = doc_node(d, TEXT);
    return n && doc_text(d, flow, &n->text) ? n : NULL;
}

// ---- collections ----

static bool doc_deeper(document *d) {
    return ++d->depth <= MAX_DEPTH || doc_wrong(d, "deeper than " DIGITS(MAX_DEPTH) " levels");
}

// Takes the key into `value`, which comes after its colon; wrong when the map has it already.
static bool doc_add(document *d, node *map, node **last, node *value) {
    uint32_t count = 0;
    for (const node *n = map->first; n; n = n->next)
        if (++count == MAX_KEYS)
            return key_wrong(d->error, value, "more than " DIGITS(MAX_KEYS) " keys");
        else if (str_eq(n->key, value->key))
            return key_wrong(d->error, value, &value->key,
                             " is given twice, first in line ", n->key_line);
    if (*last)
        (*last)->next = value;
    else
        map->first = value;
    *last = value;
    return true;
}

typedef struct doc_key {
    str text;
    uint32_t line, column;
} doc_key;

static bool doc_key_of(document *d, bool flow, doc_key *key) {
    *key = (doc_key){.line = d->line, .column = doc_column(d)};
    if (!doc_text(d, flow, &key->text))
        return false;
    while (d->at < d->end && *d->at == ' ')
        d->at++;
    bool quoted_flow = flow && d->at < d->end && *d->at == ':'; // {"a":1}
    if (!doc_at_colon(d, flow) && !quoted_flow)
        return doc_wrong(d, "a key, a colon and a blank are wanted, not ",
                         &key->text);
    d->at++;
    return true;
}

static void doc_take_key(node *value, doc_key key) {
    value->key = key.text, value->key_line = key.line, value->key_column = key.column;
}

static node *doc_flow(document *d) {
    char open = doc_peek(d);
    if (open != '[' && open != '{')
        return doc_text_node(d, true);
    bool map = open == '{';
    char close[] = {map ? '}' : ']', '\0'};
    node *n = doc_node(d, map ? MAP : LIST), *last = NULL;
    if (n == NULL || !doc_deeper(d))
        return NULL;
    d->at++;
    doc_next(d);
    while (d->at < d->end && *d->at != *close) {
        doc_key key = {0};
        if (map) {
            if (!doc_key_of(d, true, &key))
                return NULL;
            doc_next(d);
        }
        node *value = doc_flow(d);
        if (value == NULL)
            return NULL;
        if (map) {
            doc_take_key(value, key);
            if (!doc_add(d, n, &last, value))
                return NULL;
        } else {
            *(last ? &last->next : &n->first) = value;
            last = value;
        }
        doc_next(d);
        if (doc_peek(d) == ',') {
            d->at++;
            doc_next(d);
        } else if (doc_peek(d) != *close) {
            break;
        }
    }
    if (d->at == d->end || *d->at != *close)
        return doc_wrong(d, "a comma or ", &close[0], " is wanted"), NULL;
    d->at++;
    d->depth--;
    return n;
}

static node *doc_block(document *d, uint32_t indent);

static node *doc_flow_or_text(document *d) {
    return is_any(doc_peek(d), "[{") ? doc_flow(d) : doc_text_node(d, false);
}

static node *doc_list(document *d, uint32_t indent) {
    node *list = doc_node(d, LIST), *last = NULL;
    if (list == NULL || !doc_deeper(d))
        return NULL;
    for (;;) {
        d->at++;
        doc_blanks(d);
        uint32_t line = d->line, column = doc_next(d);
        if (d->at == d->end || column <= indent)
            return doc_wrong(d, "a value is missing behind the dash of line ", line), NULL;
        if (d->line == line && doc_at_dash(d))
            return doc_wrong(d, "a list in a list is not understood"), NULL;
        node *item = doc_block(d, column);
        if (item == NULL)
            return NULL;
        *(last ? &last->next : &list->first) = item;
        last = item;
        column = doc_next(d);
        if (d->at == d->end || column < indent || (column == indent && !doc_at_dash(d)))
            break;
        if (column > indent)
            return doc_wrong(d, "the indentation fits nothing above"), NULL;
    }
    d->depth--;
    return list;
}

static node *doc_value_of(document *d, uint32_t indent, const doc_key *key) {
    doc_blanks(d);
    if (doc_peek(d) != '\n') {
        node *n = doc_flow_or_text(d);
        return n && doc_line_end(d) ? n : NULL;
    }
    uint32_t column = doc_next(d);
    bool dash = doc_at_dash(d);
    if (d->at == d->end || column < indent || (column == indent && !dash)) {
        nri_error(d->error, "line ", key->line, ", column ", key->column,
                  ": a value is missing for ", &key->text);
        return NULL;
    }
    return column == indent ? doc_list(d, column) : doc_block(d, column);
}

static node *doc_map(document *d, uint32_t indent) {
    node *map = doc_node(d, MAP), *last = NULL;
    if (map == NULL || !doc_deeper(d))
        return NULL;
    for (;;) {
        doc_key key;
        if (!doc_key_of(d, false, &key))
            return NULL;
        node *value = doc_value_of(d, indent, &key);
        if (value == NULL)
            return NULL;
        doc_take_key(value, key);
        if (!doc_add(d, map, &last, value))
            return NULL;
        uint32_t column = doc_next(d);
        if (d->at == d->end || column < indent)
            break;
        if (column > indent)
            return doc_wrong(d, "the indentation fits nothing above"), NULL;
    }
    d->depth--;
    return map;
}

// What begins at this column, whatever it is.
static node *doc_block(document *d, uint32_t indent) {
    if (doc_at_dash(d))
        return doc_list(d, indent);
    if (!is_any(doc_peek(d), "[{")) { // a map if a colon follows the text
        document ahead = *d;
        str text;
        if (!doc_text(&ahead, false, &text))
            return NULL;
        while (ahead.at < ahead.end && *ahead.at == ' ')
            ahead.at++;
        if (doc_at_colon(&ahead, false))
            return doc_map(d, indent);
    }
    node *n = doc_flow_or_text(d);
    return n && doc_line_end(d) ? n : NULL;
}

// ---- the whole ----

// The tree of `text`, null for an empty one; `good` says whether it could be read.
static node *doc_parse(str text, buf *error, bool *good) {
    document d = {.at = text.at, .end = text.at + text.size, .line_at = text.at, .line = 1,
                  .error = error};
    *good = true;
    if (str_starts(text, STR("\xEF\xBB\xBF")))
        d.at = d.line_at = text.at + 3;
    doc_next(&d);
    if (d.at == d.line_at && d.end - d.at >= 3 && str_is((str){d.at, 3}, "---") &&
        (d.end - d.at == 3 || is_any(d.at[3], " \n"))) {
        d.at += 3;
        doc_blanks(&d);
    }
    uint32_t column = doc_next(&d);
    if (d.at == d.end)
        return NULL;
    node *root = doc_block(&d, column);
    if (root) {
        doc_next(&d);
        if (d.at < d.end)
            root = (doc_wrong(&d, "the indentation fits nothing above"), NULL);
    }
    *good = root != NULL;
    return root;
}

#endif
