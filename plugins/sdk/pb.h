// Protocol Buffers without generated code: a reader that walks a message in
// place and a writer that appends to a buffer.
//
// Reader: pb_next() yields one field after the other; a message inside a message
// is a `str` and is walked the same way. Malformed bytes end the walk and set
// `pb_malformed`, which the SDK turns into an error reply: no call site has to
// check. Where a field that is not repeated occurs twice, the last one counts.
//
// Writer: zero values are left out as proto3 does; pb_open()/pb_close() enclose a
// message of a length that is not known yet.

#ifndef EDGE_PB_H
#define EDGE_PB_H

#include "base.h"

static bool pb_malformed; // sticky; cleared before each call of the host

enum { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

typedef struct pb_field {
    uint32_t number;
    uint32_t wire;
    uint64_t value; // of PB_VARINT, PB_FIXED64, PB_FIXED32
    str bytes;      // of PB_BYTES
} pb_field;

// ---- reading ----

SDK bool pb_bad(void) {
    pb_malformed = true;
    return false;
}

SDK bool pb_read_varint(str *in, uint64_t *value) {
    *value = 0;
    for (uint32_t i = 0; i < 10 && i < in->size; i++) {
        uint64_t byte = (uint8_t)in->at[i];
        if (i == 9 && byte > 1)
            return pb_bad(); // more than 64 bits
        *value |= (byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            *in = str_from(*in, i + 1);
            return true;
        }
    }
    return pb_bad();
}

SDK bool pb_read_fixed(str *in, uint64_t *value, uint32_t size) {
    if (in->size < size)
        return pb_bad();
    *value = 0;
    for (uint32_t i = 0; i < size; i++)
        *value |= (uint64_t)(uint8_t)in->at[i] << (8 * i);
    *in = str_from(*in, size);
    return true;
}

// The next field of the message `in`, which shrinks; false at its end.
SDK bool pb_next(str *in, pb_field *field) {
    uint64_t tag, size;
    if (in->size == 0)
        return false;
    if (!pb_read_varint(in, &tag) || tag > UINT32_MAX || tag < 8)
        return pb_bad();
    *field = (pb_field){.number = (uint32_t)tag >> 3, .wire = tag & 7};
    switch (field->wire) {
    case PB_VARINT:
        return pb_read_varint(in, &field->value);
    case PB_FIXED64:
        return pb_read_fixed(in, &field->value, 8);
    case PB_FIXED32:
        return pb_read_fixed(in, &field->value, 4);
    case PB_BYTES:
        if (!pb_read_varint(in, &size) || size > in->size)
            return pb_bad();
        field->bytes = (str){in->at, (uint32_t)size};
        *in = str_from(*in, (uint32_t)size);
        return true;
    default: // groups: proto3 has none
        return pb_bad();
    }
}

// The next occurrence of the string, bytes or message field `number`.
SDK bool pb_next_of(str *in, uint32_t number, str *bytes) {
    for (pb_field field; pb_next(in, &field);)
        if (field.number == number && field.wire == PB_BYTES) {
            *bytes = field.bytes;
            return true;
        }
    return false;
}

SDK str pb_bytes(str message, uint32_t number) {
    str found = {0};
    while (pb_next_of(&message, number, &found)) {
    }
    return found; // .at is null when the field is absent
}

SDK uint64_t pb_uint(str message, uint32_t number) {
    uint64_t found = 0;
    for (pb_field field; pb_next(&message, &field);)
        if (field.number == number && field.wire == PB_VARINT)
            found = field.value;
    return found;
}

// pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_LINUX, ...): a message in a message.
#define pb_at(message, ...)                                                                        \
    pb_path(message, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

SDK str pb_path(str message, const uint8_t *path, uint32_t steps) {
    for (uint32_t i = 0; i < steps && message.at; i++)
        message = pb_bytes(message, path[i]);
    return message;
}

// map<string, string> (and map<string, message>): entries are {key=1, value=2}.
// A present key without a value yields an empty value that is not absent.
SDK str pb_map_get(str message, uint32_t number, str key) {
    str entry, found = {0};
    while (pb_next_of(&message, number, &entry))
        if (str_eq(pb_bytes(entry, 1), key)) {
            found = pb_bytes(entry, 2);
            if (found.at == NULL)
                found = STR("");
        }
    return found;
}

// ---- writing ----

SDK void pb_put_varint(buf *out, uint64_t value) {
    char bytes[10];
    uint32_t size = 0;
    while (value > 0x7F) {
        bytes[size++] = (char)(value | 0x80);
        value >>= 7;
    }
    bytes[size++] = (char)value;
    buf_put_str(out, (str){bytes, size});
}

SDK void pb_put_tag(buf *out, uint32_t number, uint32_t wire) {
    pb_put_varint(out, (uint64_t)number << 3 | wire);
}

// Also bool, enum and (cast) int32 and int64: a negative number takes ten bytes.
SDK void pb_put_uint(buf *out, uint32_t number, uint64_t value) {
    if (value) {
        pb_put_tag(out, number, PB_VARINT);
        pb_put_varint(out, value);
    }
}

// Written even when empty: an element of a repeated field may be.
SDK void pb_put_item(buf *out, uint32_t number, str bytes) {
    pb_put_tag(out, number, PB_BYTES);
    pb_put_varint(out, bytes.size);
    buf_put_str(out, bytes);
}

SDK void pb_put_str(buf *out, uint32_t number, str bytes) {
    if (bytes.size)
        pb_put_item(out, number, bytes);
}

// Opens a message as field `number`; give what it returns to pb_close().
SDK uint32_t pb_open(buf *out, uint32_t number) {
    pb_put_tag(out, number, PB_BYTES);
    buf_put_char(out, 0); // its length, of one byte unless pb_close finds more
    return out->size;
}

SDK void pb_close(buf *out, uint32_t start) {
    if (out->full)
        return;
    uint32_t size = out->size - start;
    char length[5];
    uint32_t more = 0;
    for (uint32_t rest = size; rest > 0x7F; rest >>= 7)
        length[more++] = (char)(rest | 0x80);
    length[more] = (char)(size >> (7 * more));
    if (more && buf_add(out, more) == NULL)
        return;
    char *at = out->at + start;
    if (more)
        __builtin_memmove(at + more, at, size);
    __builtin_memcpy(at - 1, length, more + 1);
}

SDK void pb_put_entry(buf *out, uint32_t number, str key, str value) {
    uint32_t entry = pb_open(out, number);
    pb_put_str(out, 1, key);
    pb_put_str(out, 2, value);
    pb_close(out, entry);
}

// The OptionalInt64 family: {value=1}; there even when the value is zero.
SDK void pb_put_optional(buf *out, uint32_t number, uint64_t value) {
    uint32_t optional = pb_open(out, number);
    pb_put_uint(out, 1, value);
    pb_close(out, optional);
}

#endif
