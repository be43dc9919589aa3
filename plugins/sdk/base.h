// Memory, text and numbers for a guest without a C library.
//
// Three things only: a heap (the host takes and returns blocks through it too),
// `str` (a view of bytes that somebody else owns) and `buf` (bytes that grow).
// Nothing here traps on bad input. Running out of memory makes what is running come
// to nothing and its event fail (edge_nri.h), so no call site has to check.

#ifndef EDGE_BASE_H
#define EDGE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Unused ones are left out of a module. `inline` would say so too, but makes clang
// inline for speed and modules twice as large.
#define SDK static __attribute__((unused))

// ---- heap: first fit over blocks in address order, free neighbours merge ----
//
// A guest has a handful of live blocks (request, reply, a few buffers), so a walk
// costs less than lists would. The end moves back when the last block is freed.

typedef struct heap_block {
    uint32_t size; // of what follows this header; a multiple of 8
    uint32_t used;
} heap_block;

extern unsigned char __heap_base; // the linker's: first byte after static data
static heap_block *heap_end;      // null until the first use
static bool heap_refused;         // sticky; cleared before each call of the host

#define HEAP_FIRST ((heap_block *)(((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7))
#define HEAP_LARGEST (1u << 30) // keeps every sum below from wrapping around

SDK heap_block *heap_after(heap_block *block) {
    return (heap_block *)((char *)(block + 1) + block->size);
}

// Moves the heap's end; false when the host refuses the memory.
SDK bool heap_extend(heap_block *end) {
    uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    uint64_t want = (uintptr_t)end;
    if (want > have && __builtin_wasm_memory_grow(0, (want - have + 65535) >> 16) == (size_t)-1)
        return false;
    heap_end = end;
    return true;
}

SDK void *heap_refuse(void) {
    heap_refused = true;
    return NULL;
}

// Null when there is no memory for it.
SDK void *heap_take(uint32_t size) {
    if (size > HEAP_LARGEST || (heap_end == NULL && !heap_extend(HEAP_FIRST)))
        return heap_refuse();
    size = size ? (size + 7) & ~7u : 8;
    heap_block *block = HEAP_FIRST;
    while (block < heap_end) {
        heap_block *next = heap_after(block);
        if (block->used) {
            block = next;
        } else if (next == heap_end) {
            heap_end = block; // a free last block is no block
        } else if (!next->used) {
            block->size += sizeof *next + next->size;
        } else if (block->size < size) {
            block = next;
        } else {
            if (block->size - size > sizeof *block) {
                heap_block *rest = (heap_block *)((char *)(block + 1) + size);
                *rest = (heap_block){.size = block->size - size - sizeof *rest};
                block->size = size;
            }
            block->used = true;
            return block + 1;
        }
    }
    if ((uint64_t)(uintptr_t)(block + 1) + size > UINT32_MAX ||
        !heap_extend((heap_block *)((char *)(block + 1) + size)))
        return heap_refuse();
    *block = (heap_block){.size = size, .used = true};
    return block + 1;
}

// Anything outside the heap is left alone: a reply may be a string constant.
SDK void heap_give(void *memory) {
    heap_block *block = (heap_block *)memory - 1;
    if (block >= HEAP_FIRST && block < heap_end)
        block->used = false;
}

// ---- str: a view ----

typedef struct str {
    const char *at; // null says "absent" where absence matters
    uint32_t size;
} str;

#define STR(literal) ((str){literal, sizeof literal - 1})

SDK str str_of(const char *text) {
    uint32_t size = 0;
    while (text[size])
        size++;
    return (str){text, size};
}

SDK bool str_eq(str a, str b) {
    if (a.size != b.size)
        return false;
    for (uint32_t i = 0; i < a.size; i++)
        if (a.at[i] != b.at[i])
            return false;
    return true;
}

SDK bool str_is(str a, const char *text) { return str_eq(a, str_of(text)); }

SDK str str_from(str a, uint32_t start) {
    return start < a.size ? (str){a.at + start, a.size - start} : (str){a.at + a.size, 0};
}

SDK bool str_starts(str a, str prefix) {
    return a.size >= prefix.size && str_eq((str){a.at, prefix.size}, prefix);
}

// At most `size` bytes, never half a UTF-8 character: for quoting in messages.
SDK str str_head(str a, uint32_t size) {
    if (a.size <= size)
        return a;
    while (size && (a.at[size] & 0xC0) == 0x80)
        size--;
    return (str){a.at, size};
}

// Whether the character is one of these.
SDK bool is_any(char c, const char *set) {
    while (*set && *set != c)
        set++;
    return *set != '\0';
}

SDK bool str_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

SDK str str_trim(str a) {
    while (a.size && str_blank(a.at[0]))
        a.at++, a.size--;
    while (a.size && str_blank(a.at[a.size - 1]))
        a.size--;
    return a;
}

// Takes what stands before the first `mark` off `rest` (all of it without one).
SDK str str_cut(str *rest, char mark) {
    uint32_t i = 0;
    while (i < rest->size && rest->at[i] != mark)
        i++;
    str head = {rest->at, i};
    *rest = str_from(*rest, i < rest->size ? i + 1 : i);
    return head;
}

// Takes the next word, separated by blanks, off `rest`; empty at the end.
SDK str str_word(str *rest) {
    *rest = str_trim(*rest);
    uint32_t i = 0;
    while (i < rest->size && !str_blank(rest->at[i]))
        i++;
    str word = {rest->at, i};
    *rest = str_trim(str_from(*rest, i));
    return word;
}

// `*` stands for any run of bytes, `?` for one; a later star forgets an earlier
// one, so the work is at most pattern times text. With `stop` the pattern may also
// fit just what is before one: "/etc" with '/' fits "/etc/hosts". -1 for none.
SDK bool str_glob_until(str pattern, str text, int stop) {
    uint32_t p = 0, t = 0, star = UINT32_MAX, resume = 0;
    while (t < text.size) {
        if (p < pattern.size && pattern.at[p] == '*') {
            star = p++;
            resume = t;
        } else if (p < pattern.size && (pattern.at[p] == '?' || pattern.at[p] == text.at[t])) {
            p++, t++;
        } else if (p == pattern.size && (uint8_t)text.at[t] == stop) {
            return true;
        } else if (star != UINT32_MAX) {
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.at[p] == '*')
        p++;
    return p == pattern.size;
}

SDK bool str_glob(str pattern, str text) { return str_glob_until(pattern, text, -1); }

// ---- buf: bytes that grow ----

typedef struct buf {
    char *at;
    uint32_t size, room;
    bool full; // memory ran out: takes nothing more
} buf;

SDK str buf_str(const buf *b) { return (str){b->at, b->size}; }

SDK void buf_clear(buf *b) { b->size = 0, b->full = false; }

SDK void buf_free(buf *b) {
    heap_give(b->at);
    *b = (buf){0};
}

// Makes room for `size` more bytes and counts them in; null when memory ran out.
SDK char *buf_add(buf *b, uint32_t size) {
    if (b->full || size > HEAP_LARGEST - b->size) {
        b->full = true;
        return NULL;
    }
    if (b->size + size > b->room) {
        uint32_t room = b->room ? b->room : 120;
        while (room < b->size + size)
            room *= 2;
        char *at = heap_take(room);
        if (at == NULL) {
            b->full = true;
            return NULL;
        }
        if (b->size)
            __builtin_memcpy(at, b->at, b->size);
        heap_give(b->at);
        b->at = at, b->room = room;
    }
    b->size += size;
    return b->at + b->size - size;
}

SDK void buf_put_str(buf *b, str text) {
    char *to = buf_add(b, text.size);
    if (to && text.size)
        __builtin_memcpy(to, text.at, text.size);
}

// By reference: as much of a text as belongs into a message, which others may have made long.
SDK void buf_put_shown(buf *b, const str *text) { buf_put_str(b, str_head(*text, 80)); }

SDK void buf_put_text(buf *b, const char *text) { buf_put_str(b, str_of(text)); }

SDK void buf_put_char(buf *b, char c) { buf_put_str(b, (str){&c, 1}); }

SDK void buf_put_uint(buf *b, uint64_t number) {
    char digits[20];
    uint32_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + number % 10);
    while (number /= 10);
    buf_put_str(b, (str){digits + i, sizeof digits - i});
}

SDK void buf_put_int(buf *b, int64_t number) {
    if (number < 0)
        buf_put_char(b, '-');
    buf_put_uint(b, number < 0 ? -(uint64_t)number : (uint64_t)number);
}

// buf_put(&b, "line ", 3, ": unknown key ", key): each piece by its type.
#define BUF_PUT_ONE(b, x)                                                                          \
    _Generic((x),                                                                                  \
        str: buf_put_str,                                                                          \
        str *: buf_put_shown,                                                                      \
        const str *: buf_put_shown,                                                                \
        char *: buf_put_text,                                                                      \
        const char *: buf_put_text,                                                                \
        int: buf_put_int,                                                                          \
        long: buf_put_int,                                                                         \
        long long: buf_put_int,                                                                    \
        unsigned: buf_put_uint,                                                                    \
        unsigned long: buf_put_uint,                                                               \
        unsigned long long: buf_put_uint)((b), (x))

#define BUF_PUT_EACH(b, x, ...)                                                                    \
    BUF_PUT_ONE(b, x) __VA_OPT__(, BUF_PUT_MORE BUF_PARENS(b, __VA_ARGS__))
#define BUF_PUT_MORE() BUF_PUT_EACH
#define BUF_PARENS ()
#define BUF_EXPAND(...) BUF_EXPAND2(BUF_EXPAND2(BUF_EXPAND2(__VA_ARGS__)))
#define BUF_EXPAND2(...) BUF_EXPAND3(BUF_EXPAND3(BUF_EXPAND3(__VA_ARGS__)))
#define BUF_EXPAND3(...) BUF_EXPAND4(BUF_EXPAND4(BUF_EXPAND4(__VA_ARGS__)))
#define BUF_EXPAND4(...) __VA_ARGS__
#define buf_put(b, ...) ((void)(BUF_EXPAND(BUF_PUT_EACH(b, __VA_ARGS__))))

#endif
