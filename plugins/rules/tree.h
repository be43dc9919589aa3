// What a configuration becomes: a tree of nodes, in memory that is given back as a whole; and its
// errors, which name line and column.

#ifndef RULES_TREE_H
#define RULES_TREE_H

#include "edge_nri.h"

// ---- memory of one configuration, given back as a whole ----

typedef struct arena_chunk {
    struct arena_chunk *next;
    uint32_t used, room;
} arena_chunk;

static arena_chunk *arena;

static void arena_reset(void) {
    while (arena) {
        arena_chunk *next = arena->next;
        heap_give(arena);
        arena = next;
    }
}

// Zeroes; null when there is no memory for it, and then the event fails (edge_nri.h).
static void *arena_take(uint32_t size) {
    const uint32_t usual = 1008;
    size = (size + 7) & ~7u;
    if (arena == NULL || arena->room - arena->used < size) {
        uint32_t room = size > usual ? size : usual;
        arena_chunk *chunk = heap_take(sizeof *chunk + room);
        if (chunk == NULL)
            return NULL;
        *chunk = (arena_chunk){.next = arena, .room = room};
        arena = chunk;
    }
    char *at = (char *)(arena + 1) + arena->used;
    arena->used += size;
    __builtin_memset(at, 0, size);
    return at;
}

// ---- the tree ----

typedef struct node {
    enum { TEXT, LIST, MAP } kind;
    uint32_t line, column; // of the value, from 1
    str text;              // of TEXT
    str key;               // in a map
    uint32_t key_line, key_column;
    struct node *first, *next;
} node;

#define DIGITS(limit) DIGITS_OF(limit)
#define DIGITS_OF(limit) #limit

// Clears what is in `error` and says where; what is wrong follows.
static void put_place(buf *error, uint32_t at_line, uint32_t column) {
    buf_clear(error);
    buf_put(error, "line ", at_line, ", column ", column, ": ");
}

#define place_wrong(error, at_line, column, ...)                                                   \
    (put_place(error, at_line, column), buf_put(error, __VA_ARGS__), false)
#define node_wrong(error, n, ...) place_wrong(error, (n)->line, (n)->column, __VA_ARGS__)
#define key_wrong(error, n, ...) place_wrong(error, (n)->key_line, (n)->key_column, __VA_ARGS__)

#endif
