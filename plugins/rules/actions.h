// From the configuration's tree to actions: `set`, `default`, `cap`, `add`, `remove`.

#ifndef RULES_ACTIONS_H
#define RULES_ACTIONS_H

#include "conditions.h"

// A mode as YAML 1.1 and 1.2 write octal numbers: 0660, 0o660. What has no 0 in front would be
// decimal to other readers of YAML, and 0660 in quotes is the same text.
static bool mode_of(str text, uint64_t *value) {
    bool octal = str_starts(text, STR("0"));
    str digits = str_from(text, octal && text.size > 1);
    if (octal && digits.at[0] == 'o')
        digits = str_from(digits, 1);
    return octal && conf_digits(digits, 8, value) && *value <= 07777;
}

// Without a 0 in front, by which others read an octal number.
static bool decimal_of(str text, uint64_t *value) {
    return conf_uint(text, value) && *value <= UINT32_MAX &&
           (text.size == 1 || text.at[0] != '0');
}

static bool device_number_of(const node *n, bool mode, uint64_t *value, buf *error) {
    if (!want(n, TEXT, "a number", error))
        return false;
    if (mode)
        return mode_of(n->text, value) ||
               value_wrong(error, n, ", not an octal number from 0 to 07777 with a 0 in front, "
                           "such as 0660", "");
    return decimal_of(n->text, value) ||
           value_wrong(error, n, ", not a decimal number from 0 to 4294967295", "");
}

// SOFT or SOFT:HARD; `unlimited`.
static bool rlimit_of(str text, uint64_t *soft, uint64_t *hard) {
    str rest = text, first = str_cut(&rest, ':');
    *hard = *soft = UINT64_MAX;
    bool good = str_is(first, "unlimited") || conf_uint(first, soft);
    if (first.size == text.size)
        *hard = *soft;
    else if (!str_is(rest, "unlimited") && !conf_uint(rest, hard))
        good = false;
    return good && *soft <= *hard;
}

static const char *const rlimit_names[] = {
    "as",     "core",    "cpu",      "data",   "fsize",  "locks", "memlock",    "msgqueue",
    "nice",   "nofile",  "nproc",    "rss",    "rtprio", "rttime", "sigpending", "stack"};

static bool oom_of(str text, int64_t *value) {
    uint64_t number;
    bool minus = str_starts(text, STR("-"));
    if (!conf_uint(str_from(text, minus), &number) || number > 1000)
        return false;
    *value = minus ? -(int64_t)number : (int64_t)number;
    return true;
}

static bool check_single(const node *n, uint32_t single, buf *error) {
    int64_t score;
    if (text_is(n, "none"))
        return true;
    if (single == ARGS) {
        if (!want(n, LIST, "a list of arguments", error))
            return false;
        for (const node *one = n->first; one; one = one->next)
            if (!want(one, TEXT, "texts only", error))
                return false;
        return n->first != NULL || node_wrong(error, n, "args wants at least one argument");
    }
    if (!want(n, TEXT, "one value", error))
        return false;
    if (single == OOM_SCORE_ADJ && !oom_of(n->text, &score))
        return value_wrong(error, n, ", not a number from -1000 to 1000", ", or none");
    if ((single == CPUS || single == MEMS))
        for (uint32_t i = 0; i < n->text.size; i++)
            if (!is_any(n->text.at[i], "0123456789,-"))
                return value_wrong(error, n, ", not such as 0-1,3", "");
    return n->text.size || node_wrong(error, n, n->key, " is empty");
}

// The map of a kind with keys, under `set` and `default`.
static bool check_keyed(const node *map, uint32_t kind, buf *error) {
    if (!want(map, MAP, "keys with values", error))
        return false;
    for (const node *n = map->first; n; n = n->next) {
        uint64_t soft, hard;
        if (!want(n, TEXT, "one value", error))
            return false;
        bool named = n->key.size && n->key.at[0] != '-'; // NRI marks a removal so
        for (uint32_t i = 0; kind == ENVS && i < n->key.size; i++)
            named &= n->key.at[i] != '=';
        if (!named)
            return key_wrong(error, n, "`", &n->key, "` is no name for ",
                             kind_names[kind]);
        if (kind == RLIMITS) {
            if (name_index(rlimit_names, n) == COUNT(rlimit_names)) {
                unknown_key(error, n, "unknown limit ", "");
                return put_names(error, rlimit_names, COUNT(rlimit_names));
            }
            if (!rlimit_of(n->text, &soft, &hard))
                return value_wrong(error, n, ", not NUMBER, SOFT:HARD or unlimited", "");
        }
        if ((kind == ENVS || kind == ANNOTATIONS) && !check_text(n, error))
            return false;
    }
    return map->first != NULL || node_wrong(error, map, map->key, " is empty");
}

static const node *entry_of(const node *map, const char *key) {
    const node *n = map->first;
    while (n && !key_is(n, key))
        n = n->next;
    return n;
}

static bool keys_are(const node *map, const char *const *known, uint32_t count, const char *what,
                     buf *error) {
    for (const node *n = map->first; n; n = n->next) {
        if (index_of(n, known, count) == count) {
            key_wrong(error, n, "unknown key ", &n->key, " of ", what, "; known are ");
            return put_names(error, known, count);
        }
    }
    return true;
}

static bool absolute(const node *map, const char *key, buf *error) {
    const node *n = entry_of(map, key);
    if (n == NULL)
        return node_wrong(error, map, key, " is missing");
    if (!want(n, TEXT, "a path", error))
        return false;
    return str_starts(n->text, STR("/")) ||
           node_wrong(error, n, key, " is ", &n->text, ", not an absolute path");
}

static bool check_device(const node *map, buf *error) {
    static const char *const known[] = {"path", "type", "major", "minor",
                                        "file_mode", "uid", "gid"};
    if (!want(map, MAP, "devices such as {path: /dev/i2c-1, type: c, major: 89, minor: 1}", error) ||
        !keys_are(map, known, COUNT(known), "a device", error) || !absolute(map, "path", error))
        return false;
    const node *type = entry_of(map, "type");
    if (type == NULL || type->kind != TEXT || type->text.size != 1 ||
        !is_any(type->text.at[0], "bcup"))
        return node_wrong(error, type ? type : map,
                          "type is c (character), b (block), u or p");
    for (uint32_t i = 2; i < COUNT(known); i++) {
        const node *n = entry_of(map, known[i]);
        uint64_t value;
        if (n == NULL && i < 4 && !text_is(type, "p"))
            return node_wrong(error, map, known[i], " is missing");
        if (n && !device_number_of(n, i == 4, &value, error))
            return false;
    }
    return true;
}

static bool check_mount(const node *map, buf *error) {
    static const char *const known[] = {"source", "destination", "type", "options"};
    if (!want(map, MAP, "mounts such as {source: /srv/data, destination: /data, type: bind}",
              error) ||
        !keys_are(map, known, COUNT(known), "a mount", error) ||
        !absolute(map, "destination", error))
        return false;
    for (uint32_t i = 0; i < 3; i++) {
        const node *n = entry_of(map, known[i]);
        if (n == NULL)
            return node_wrong(error, map, known[i], " is missing");
        if (!want(n, TEXT, "one value", error))
            return false;
    }
    const node *options = entry_of(map, "options");
    if (options && !want(options, LIST, "a list", error))
        return false;
    for (const node *n = options ? options->first : NULL; n; n = n->next)
        if (!want(n, TEXT, "texts only", error))
            return false;
    return true;
}

static bool check_texts(const node *list, const char *what, buf *error) {
    if (!want(list, LIST, what, error))
        return false;
    for (const node *n = list->first; n; n = n->next)
        if (!want(n, TEXT, "texts only", error) ||
            (n->text.size == 0 && !node_wrong(error, n, "an empty text")))
            return false;
    return list->first != NULL || node_wrong(error, list, "an empty list");
}

static asked asked_of(uint32_t kind) {
    return kind == MOUNTS ? A_MOUNT : kind == DEVICES ? A_DEVICE : A_CDI_DEVICE;
}

static bool permit_of(str text, asked kind, permit *p) {
    *p = (permit){.kind = kind};
    if (kind == A_DEVICE) {
        p->type = str_word(&text);
        str numbers = str_word(&text);
        p->major = str_cut(&numbers, ':');
        p->minor = numbers;
    }
    p->path = str_word(&text);
    return p->path.size && text.size == 0 && (kind != A_DEVICE || p->minor.size);
}

// {from-annotations: [PREFIX, ...], allowed: [...]}
static bool check_annotated(const node *map, uint32_t kind, buf *error) {
    static const char *const known[] = {"from-annotations", "allowed"};
    const node *from = entry_of(map, known[0]), *allowed = entry_of(map, known[1]);
    if (!keys_are(map, known, COUNT(known), kind_names[kind], error))
        return false;
    if (from == NULL)
        return node_wrong(error, map, "from-annotations is missing");
    if (!check_texts(from, "a list of annotations' prefixes", error))
        return false;
    if (from->first->next && from->first->next->next)
        return node_wrong(error, from, "more than 2 prefixes");
    if (allowed && !check_texts(allowed, "a list", error))
        return false;
    permit p;
    uint32_t count = 0;
    for (const node *n = allowed ? allowed->first : NULL; n; n = n->next)
        if (++count > MAX_PERMITS)
            return node_wrong(error, n, "more than " DIGITS(MAX_PERMITS) " entries");
        else if (!permit_of(n->text, asked_of(kind), &p))
            return node_wrong(error, n, &n->text, " is not ",
                              kind == DEVICES  ? "TYPE MAJOR:MINOR PATH, such as c 89:* /dev/i2c-*"
                              : kind == MOUNTS ? "a pattern of a source, such as /srv/*"
                                               : "a pattern of a name, such as vendor.com/npu=*");
    return true;
}

static bool check_added(const node *n, uint32_t kind, buf *error) {
    if (n->kind == MAP)
        return check_annotated(n, kind, error);
    if (kind == CDI_DEVICES)
        return check_texts(n, "a list of names such as vendor.com/class=name", error);
    if (!want(n, LIST, "a list, or {from-annotations: [...]}", error))
        return false;
    for (const node *one = n->first; one; one = one->next)
        if (!(kind == DEVICES ? check_device(one, error) : check_mount(one, error)))
            return false;
    return n->first != NULL || node_wrong(error, n, "an empty list");
}

static bool unknown_action(const node *n, const char *verb, buf *error, const char *known) {
    return key_wrong(error, n, verb, " what? ", &n->key, " is none of ", known);
}

#define KNOWN_AMOUNTS "memory cpu shares pids"
#define KNOWN_VALUES                                                                               \
    KNOWN_AMOUNTS " cpus mems oom-score-adj blockio-class rdt-class args "                         \
                  "annotations env sysctl unified rlimits net-devices"

static bool level_of(const node *n, rule *r, uint32_t which, buf *error) {
    static const char *const verbs[] = {"set", "default", "cap"};
    if (!want(n, MAP, "what and how much, such as {memory: 128Mi}", error))
        return false;
    for (const node *one = n->first; one; one = one->next) {
        uint32_t resource = name_index(resource_names, one);
        uint32_t single = name_index(single_names, one), kind = name_index(kind_names, one);
        if (resource < RESOURCES) {
            if (!amount_of(one, resource, &r->amounts[which][resource], error))
                return false;
        } else if (which != CAP && single < SINGLES) {
            r->singles[which][single] = one;
            if (!check_single(one, single, error))
                return false;
        } else if (which != CAP && kind < MOUNTS) {
            r->keyed[which][kind] = one;
            if (!check_keyed(one, kind, error))
                return false;
        } else {
            return unknown_action(one, verbs[which], error,
                                  which == CAP ? KNOWN_AMOUNTS : KNOWN_VALUES);
        }
    }
    return n->first != NULL || node_wrong(error, n, n->key, " is empty");
}

static bool add_of(const node *n, rule *r, buf *error) {
    if (!want(n, MAP, "devices, mounts or cdi-devices", error))
        return false;
    for (const node *one = n->first; one; one = one->next) {
        uint32_t kind = name_index(kind_names, one);
        if (kind < MOUNTS || kind >= KINDS)
            return unknown_action(one, "add", error, "mounts devices cdi-devices");
        r->added[kind] = one;
        if (!check_added(one, kind, error))
            return false;
    }
    return n->first != NULL || node_wrong(error, n, "add is empty");
}

static bool remove_of(const node *n, rule *r, buf *error) {
    if (!want(n, MAP, "patterns such as {env: LD_*}", error))
        return false;
    for (const node *one = n->first; one; one = one->next) {
        uint32_t kind = name_index(kind_names, one);
        if (kind != ANNOTATIONS && kind != ENVS && kind != SYSCTLS && kind != MOUNTS)
            return unknown_action(one, "remove", error, "annotations env sysctl mounts");
        if (!alternatives_of(one, kind == MOUNTS ? MOUNT : CONTAINER, &r->removed[kind], error))
            return false;
    }
    return n->first != NULL || node_wrong(error, n, "remove is empty");
}

#endif
