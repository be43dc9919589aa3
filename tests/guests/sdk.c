// Lays the SDK's parts open to the tests: each export is one of its functions.

#include "edge_nri.h"

static bool configure(str config, buf *error) { return true; }

static bool shutdown(str request, buf *reply) { return true; }

// Whether the bytes could be a message; they may as well be text.
static bool is_message(str bytes) {
    bool before = pb_malformed;
    for (pb_field field; pb_next(&bytes, &field);) {
    }
    bool good = !pb_malformed;
    pb_malformed = before;
    return good;
}

// Reads everything and writes it again; `depth` levels of messages are opened.
static void transcode(str message, buf *out, uint32_t depth) {
    for (pb_field field; pb_next(&message, &field);) {
        if (field.wire == PB_BYTES && depth && field.bytes.size && is_message(field.bytes)) {
            uint32_t inner = pb_open(out, field.number);
            transcode(field.bytes, out, depth - 1);
            pb_close(out, inner);
        } else if (field.wire == PB_BYTES) {
            pb_put_item(out, field.number, field.bytes);
        } else {
            pb_put_tag(out, field.number, field.wire);
            if (field.wire == PB_VARINT)
                pb_put_varint(out, field.value);
            for (uint32_t i = 0; field.wire != PB_VARINT && i < (field.wire == 1 ? 8 : 4); i++)
                buf_put_char(out, (char)(field.value >> (8 * i)));
        }
    }
}

static bool transcode_flat(str request, buf *reply) {
    transcode(request, reply, 0);
    return true;
}

static bool transcode_deep(str request, buf *reply) {
    transcode(request, reply, 12);
    return true;
}

// LogRequest's shape for the answer of everything below: {text=1, number=2}.
static void answer(buf *reply, str text, bool found) {
    pb_put_str(reply, 1, text);
    pb_put_uint(reply, 2, found);
}

// KeyValue{key, value: a Container}: the label under that key.
static bool label(str request, buf *reply) {
    str value = pb_map_get(pb_bytes(request, NRI_VALUE), NRI_CTR_LABELS, pb_bytes(request, NRI_KEY));
    answer(reply, value, value.at);
    return true;
}

// KeyValue{key: pattern, value: text}
static bool glob(str request, buf *reply) {
    answer(reply, STR(""), str_glob(pb_bytes(request, NRI_KEY), pb_bytes(request, NRI_VALUE)));
    return true;
}

// KeyValue{key: a unit, value: text}: the number it stands for, in decimal.
static bool amount(str request, buf *reply) {
    uint64_t number = 0;
    str unit = pb_bytes(request, NRI_KEY), text = pb_bytes(request, NRI_VALUE);
    bool good = str_is(unit, "size")  ? conf_size(text, &number)
                : str_is(unit, "cpu") ? conf_cpu(text, &number)
                                      : conf_uint(text, &number);
    buf digits = {0};
    if (good)
        buf_put(&digits, number);
    answer(reply, buf_str(&digits), good);
    buf_free(&digits);
    return true;
}

// KeyValue{value}: its lines that say something, as "number:line|".
static bool lines(str request, buf *reply) {
    buf said = {0};
    for (conf c = conf_of(pb_bytes(request, NRI_VALUE)); conf_next(&c);)
        buf_put(&said, c.number, ":", c.line, "|");
    answer(reply, buf_str(&said), true);
    buf_free(&said);
    return true;
}

// Every kind of piece that buf_put() takes.
static bool pieces(str request, buf *reply) {
    buf said = {0};
    buf_put(&said, "text ", STR("view "), -1, " ", 2u, " ", INT64_MIN, " ", UINT64_MAX, " ",
            str_head(request, 5));
    answer(reply, buf_str(&said), true);
    buf_free(&said);
    return true;
}

// Asks for more memory than there is.
static bool exhaust(str request, buf *reply) {
    buf most = {0};
    buf_add(&most, 1u << 29);
    buf_free(&most);
    return true;
}

NRI_PLUGIN(shutdown)
NRI_METHOD(transcode_flat, transcode_flat)
NRI_METHOD(transcode_deep, transcode_deep)
NRI_METHOD(label, label)
NRI_METHOD(glob, glob)
NRI_METHOD(amount, amount)
NRI_METHOD(lines, lines)
NRI_METHOD(pieces, pieces)
NRI_METHOD(exhaust, exhaust)
