// Paths in one form, so that a pattern is not passed by another spelling of the same path. Used by
// the plugin rules, too.

#ifndef VALIDATOR_PATH_H
#define VALIDATOR_PATH_H

#include "edge_nri.h"

// Appends the path without `//`, `/./` and `/../`.
static void put_clean_path(buf *out, str path) {
    uint32_t start = out->size;
    while (path.size) {
        str part = str_cut(&path, '/');
        if (str_is(part, "..")) {
            while (out->size > start && out->at[--out->size] != '/') {
            }
        } else if (part.size && !str_is(part, ".")) {
            buf_put(out, "/", part);
        }
    }
    if (out->size == start)
        buf_put(out, "/");
}

#endif
