// The policy: its rules, and how the document of a configuration becomes them.

#ifndef RULES_POLICY_H
#define RULES_POLICY_H

#include "image.h"

static str amount_by[3][4]; // the rule that a bound comes from; [level][resource]
#define LIMITS_BY(level, resource) , " (rule ", &amount_by[level][resource], ")"
#include "../device-injector/annotation.h"
#include "../resource-guard/limits.h"

// ---- what a rule can ask ----

// Name, whether it is about a container, how it is compared, and the field that has it (in
// any of a list: and the field in that).
#define FACTS(X)                                                                                   \
    X(RUNTIME, "runtime", false, OF_TEXT, 0, 0)                                                    \
    X(NAMESPACE, "namespace", false, OF_TEXT, NRI_POD_NAMESPACE, 0)                                \
    X(POD, "pod", false, OF_TEXT, NRI_POD_NAME, 0)                                                 \
    X(RUNTIME_HANDLER, "runtime-handler", false, OF_TEXT, NRI_POD_RUNTIME_HANDLER, 0)              \
    X(LABEL, "label", false, OF_MAP, NRI_POD_LABELS, 0)                                            \
    X(ANNOTATION, "annotation", false, OF_MAP, NRI_POD_ANNOTATIONS, 0)                             \
    X(CONTAINER, "container", true, OF_TEXT, NRI_CTR_NAME, 0)                                      \
    X(CONTAINER_LABEL, "container-label", true, OF_MAP, NRI_CTR_LABELS, 0)                         \
    X(CONTAINER_ANNOTATION, "container-annotation", true, OF_MAP, NRI_CTR_ANNOTATIONS, 0)          \
    X(IMAGE, "image", true, OF_IMAGE, 0, 0)                                                        \
    X(IMAGE_DIGEST, "image-digest", true, OF_TEXT, 0, 0)                                           \
    X(USER, "user", true, OF_TEXT, 0, 0)                                                           \
    X(ARGV, "argv", true, OF_VECTOR, NRI_CTR_ARGS, 0)                                              \
    X(ANY_ARG, "any-arg", true, OF_ANY, NRI_CTR_ARGS, 0)                                           \
    X(ENV, "env", true, OF_MAP, NRI_CTR_ENV, 0)                                                    \
    X(MOUNT, "mount", true, OF_ANY, NRI_CTR_MOUNTS, NRI_MOUNT_DESTINATION)                         \
    X(MOUNT_SOURCE, "mount-source", true, OF_ANY, NRI_CTR_MOUNTS, NRI_MOUNT_SOURCE)                \
    X(DEVICE, "device", true, OF_ANY, NRI_LINUX_DEVICES, NRI_DEVICE_PATH)                          \
    X(HAS_MEMORY, "memory", true, OF_AMOUNT, 0, 0)                                                 \
    X(HAS_CPU, "cpu", true, OF_AMOUNT, 0, 0)                                                       \
    X(HAS_SHARES, "shares", true, OF_AMOUNT, 0, 0)                                                 \
    X(HAS_PIDS, "pids", true, OF_AMOUNT, 0, 0)

typedef enum { OF_TEXT, OF_MAP, OF_IMAGE, OF_VECTOR, OF_ANY, OF_AMOUNT } comparison;

#define FACT_NUMBER(number, ...) number,
typedef enum { FACTS(FACT_NUMBER) FACT_COUNT } fact;

static const struct {
    const char *name;
    bool of_container;
    uint8_t how, field, inner; // `how`: a comparison
} facts[] = {
#define FACT_ENTRY(number, ...) {__VA_ARGS__},
    FACTS(FACT_ENTRY)};

// One of the patterns of a condition. `key` is that of a map's entry, a glob too.
typedef struct alternative {
    struct alternative *next;
    union {
        pattern text;
        image_pattern image;
        struct {
            enum { MISSING, THERE, OVER, UNDER } than;
            uint64_t value;
        } amount;
    };
} alternative;

typedef struct condition {
    struct condition *next;
    fact fact;
    str key;                  // of a map
    alternative *first;       // one of them has to fit; of argv each its own argument
    bool open;                // argv: any further arguments
} condition;

// ---- what a rule can do ----

// Those of one value, and those with a key.
enum { CPUS, MEMS, OOM_SCORE_ADJ, BLOCKIO_CLASS, RDT_CLASS, ARGS, SINGLES };
static const char *const single_names[] = {"cpus", "mems", "oom-score-adj", "blockio-class",
                                           "rdt-class", "args"};
enum { ANNOTATIONS, ENVS, SYSCTLS, UNIFIED, RLIMITS, NET_DEVICES, MOUNTS, DEVICES, CDI_DEVICES, KINDS };
static const char *const kind_names[] = {"annotations", "env", "sysctl", "unified", "rlimits",
                                         "net-devices", "mounts", "devices", "cdi-devices"};

#define UNSET (NONE - 1) // what earlier rules say

typedef struct rule {
    struct rule *next;
    const node *name;       // its text
    uint32_t line;          // where it begins
    uint32_t events;        // NRI_EVENT bits
    bool usual;             // no `on`: an update is held to set and cap
    bool skip;              // `unknown: skip`
    bool fits;              // the event that is running
    condition *when, *unless;
    uint64_t amounts[LEVELS][RESOURCES];
    const node *singles[2][SINGLES]; // SET, DEFAULT
    const node *keyed[2][KINDS];     // maps of SET, DEFAULT
    const node *added[KINDS];        // lists, or a map with `from-annotations`
    alternative *removed[KINDS];
    const node *deny, *log, *report;
} rule;

static buf policy_text; // what the nodes point into
static rule *rules;
static buf policy_runtime; // name of the runtime, as Configure told

#define MAX_RULES 256
#define MAX_ALTERNATIVES 256 // patterns of one condition
#define MAX_PERMITS 64       // entries of one `allowed`

// ---- events ----

#define EVENTS(X)                                                                                  \
    X(run_pod_sandbox)                                                                             \
    X(stop_pod_sandbox)                                                                            \
    X(remove_pod_sandbox)                                                                          \
    X(create_container)                                                                            \
    X(post_create_container)                                                                       \
    X(start_container)                                                                             \
    X(post_start_container)                                                                        \
    X(update_container)                                                                            \
    X(post_update_container)                                                                       \
    X(stop_container)                                                                              \
    X(remove_container)                                                                            \
    X(update_pod_sandbox)                                                                          \
    X(post_update_pod_sandbox)                                                                     \
    X(validate_container_adjustment)

#define EVENT_ENTRY(name) {#name, NRI_EVENTS_##name},
static const struct {
    const char *name;
    uint32_t bit;
} events[] = {EVENTS(EVENT_ENTRY)};

#define POD_EVENTS                                                                                 \
    (NRI_EVENTS_run_pod_sandbox | NRI_EVENTS_stop_pod_sandbox | NRI_EVENTS_remove_pod_sandbox |    \
     NRI_EVENTS_update_pod_sandbox | NRI_EVENTS_post_update_pod_sandbox)
// Where an error of a plugin ends what is going on.
#define REFUSABLE                                                                                  \
    (NRI_EVENTS_run_pod_sandbox | NRI_EVENTS_create_container | NRI_EVENTS_start_container |       \
     NRI_EVENTS_update_container | NRI_EVENTS_update_pod_sandbox |                                 \
     NRI_EVENTS_validate_container_adjustment)
#define CARRY_AMOUNTS (NRI_EVENTS_create_container | NRI_EVENTS_update_container)

// ---- from the tree ----

#define COUNT(array) (sizeof(array) / sizeof *(array))

// Which of the names the key is; their number for none.
static uint32_t index_of(const node *n, const char *const *names, uint32_t count) {
    uint32_t index = 0;
    while (index < count && !key_is(n, names[index]))
        index++;
    return index;
}

#define name_index(names, n) index_of(n, names, COUNT(names))

static uint32_t fact_index(const node *n) {
    uint32_t fact = 0;
    while (fact < FACT_COUNT && !key_is(n, facts[fact].name))
        fact++;
    return fact;
}

// "KEY is VALUE" and what is wrong with that.
static bool value_wrong(buf *error, const node *n, const char *why, const char *more) {
    return node_wrong(error, n, n->key, " is ", &n->text, why, more);
}

// "WHAT KEY; known are" and these.
static bool unknown_key(buf *error, const node *n, const char *what, const char *known) {
    return key_wrong(error, n, what, &n->key, "; known are ", known);
}

static bool put_names(buf *error, const char *const *names, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        buf_put(error, i ? " " : "", names[i]);
    return false;
}

static const node this_one = {.key = STR("this")};

static bool want(const node *n, uint32_t kind, const char *what, buf *error) {
    return n->kind == kind ||
           node_wrong(error, n, &(n->key.at ? n : &this_one)->key, " wants ", what);
}

static bool amount_of(const node *n, uint32_t resource, uint64_t *value, buf *error) {
    if (!want(n, TEXT, amount_form(resource), error))
        return false;
    return parse_amount(resource, n->text, value) ||
           (value_wrong(error, n, "; wanted is ", amount_form(resource)),
            buf_put(error, " or none"), false);
}

// Checks the $(...) of a text: see put_expanded().
static bool check_text(const node *n, buf *error) {
    static const char *const known[] = {"namespace", "pod", "container", "image"};
    if (!want(n, TEXT, "a text", error))
        return false;
    for (str rest = n->text; rest.size;) {
        str_cut(&rest, '$');
        if (!str_starts(rest, STR("(")))
            continue;
        rest = str_from(rest, 1);
        str all = rest, name = str_cut(&rest, ')'), words = name, first = str_word(&words);
        bool good = name.size < all.size;
        uint32_t i = 0;
        while (i < COUNT(known) && !str_is(name, known[i]))
            i++;
        if (!good || (i == COUNT(known) &&
                      !(words.size && (str_is(first, "label") || str_is(first, "annotation")))))
            return node_wrong(error, n, "$(", &name, good ? ")" : "",
                              " is not understood; known are $(namespace), $(pod), $(container), "
                              "$(image), $(label KEY), $(annotation KEY)");
    }
    return true;
}

static alternative *alternative_of(const node *n, fact fact, buf *error) {
    alternative *a = arena_take(sizeof *a);
    if (a == NULL || !want(n, TEXT, "a pattern, or a list of them", error))
        return NULL;
    comparison how = facts[fact].how;
    if (how == OF_IMAGE)
        return image_pattern_of(n, n->text, &a->image, error) ? a : NULL;
    if (how != OF_AMOUNT) {
        if (!pattern_of(n, n->text, &a->text, error))
            return NULL;
        if (facts[fact].inner && str_starts(n->text, STR("/"))) { // as the paths will be
            buf clean = {0};
            put_clean_path(&clean, n->text);
            a->text.glob = keep(&clean);
            buf_free(&clean);
        }
        return a;
    }
    uint32_t resource = fact - HAS_MEMORY;
    str words = n->text, first = str_word(&words);
    bool over = str_is(first, "over"), under = str_is(first, "under");
    a->amount.than = over ? OVER : under ? UNDER : str_is(first, "none") ? MISSING : THERE;
    if ((over || under) && parse_amount(resource, words, &a->amount.value) && a->amount.value != NONE)
        return a;
    if (!over && !under && words.size == 0 && (str_is(first, "none") || str_is(first, "any")))
        return a;
    node_wrong(error, n, facts[fact].name, " is asked as none, any, over AMOUNT or under AMOUNT, "
               "where AMOUNT is ", amount_form(resource), ", not as ", &n->text);
    return NULL;
}

// A value of one pattern, or a list of them.
static bool alternatives_of(const node *n, fact fact, alternative **first, buf *error) {
    uint32_t count = 0;
    const node *one = n->kind == LIST ? n->first : n;
    if (one == NULL)
        return node_wrong(error, n, "an empty list fits nothing");
    while (one) {
        if (++count > MAX_ALTERNATIVES)
            return node_wrong(error, one, "more than " DIGITS(MAX_ALTERNATIVES) " patterns");
        if ((*first = alternative_of(one, fact, error)) == NULL)
            return false;
        first = &(*first)->next;
        one = n->kind == LIST ? one->next : NULL;
    }
    return true;
}

static condition *condition_of(const node *n, fact fact, str key, buf *error) {
    condition *c = arena_take(sizeof *c);
    if (c == NULL)
        return NULL;
    c->fact = fact, c->key = key;
    if (!alternatives_of(n, fact, &c->first, error))
        return NULL;
    if (facts[fact].how == OF_VECTOR) // the last `...` stands for any further arguments
        for (alternative **a = &c->first; *a; a = &(*a)->next)
            if (!(*a)->next && str_is((*a)->text.glob, "...")) {
                *a = NULL, c->open = true;
                break;
            }
    return c;
}

static bool conditions_of(const node *n, condition **last, buf *error) {
    if (!want(n, MAP, "conditions such as `namespace: shop-*`", error))
        return false;
    for (const node *one = n->first; one; one = one->next) {
        uint32_t fact = fact_index(one);
        if (fact == FACT_COUNT) {
            unknown_key(error, one, "unknown condition ", "");
            for (fact = 0; fact < FACT_COUNT; fact++)
                buf_put(error, fact ? " " : "", facts[fact].name);
            return false;
        }
        bool map = facts[fact].how == OF_MAP;
        if (map && (!want(one, MAP, "keys with patterns, such as {app: web}", error) ||
                    (!one->first && node_wrong(error, one, "no keys"))))
            return false;
        for (const node *entry = map ? one->first : one; entry; entry = map ? entry->next : NULL) {
            if ((*last = condition_of(entry, fact, map ? entry->key : (str){0}, error)) == NULL)
                return false;
            last = &(*last)->next;
        }
    }
    return true;
}

static bool events_of(const node *n, rule *r, buf *error) {
    r->events = 0, r->usual = false;
    if (n->kind == MAP || (n->kind == LIST && n->first == NULL))
        return node_wrong(error, n, "on wants an event, or a list of events");
    for (const node *one = n->kind == LIST ? n->first : n; one;
         one = n->kind == LIST ? one->next : NULL) {
        uint32_t i = 0;
        while (i < COUNT(events) && !(text_is(one, events[i].name)))
            i++;
        if (i == COUNT(events)) {
            node_wrong(error, one, "unknown event ", &one->text, "; known are");
            for (i = 0; i < COUNT(events); i++)
                buf_put(error, " ", events[i].name);
            return false;
        }
        r->events |= events[i].bit;
    }
    return true;
}

// ---- actions ----

static bool number_of(const node *n, uint32_t base, uint64_t most, uint64_t *value, buf *error) {
    if (!want(n, TEXT, "a number", error))
        return false;
    return (conf_digits(n->text, base, value) && *value <= most) ||
           node_wrong(error, n, n->key, " is ", &n->text, ", not a number from 0 to ",
                      most);
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
        bool mode = i == 4;
        if (n && !number_of(n, mode ? 8 : 10, mode ? 07777 : UINT32_MAX, &value, error))
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

static bool permit_of(str text, bool mount, permit *p) {
    *p = (permit){.mount = mount};
    if (!mount) {
        p->type = str_word(&text);
        str numbers = str_word(&text);
        p->major = str_cut(&numbers, ':');
        p->minor = numbers;
    }
    p->path = str_word(&text);
    return p->path.size && text.size == 0 && (mount || p->minor.size);
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
        else if (!permit_of(n->text, kind == MOUNTS, &p))
            return node_wrong(error, n, &n->text, " is not ",
                              kind == MOUNTS ? "a pattern of a source, such as /srv/*"
                                             : "TYPE MAJOR:MINOR PATH, such as c 89:* /dev/i2c-*");
    return true;
}

static bool check_added(const node *n, uint32_t kind, buf *error) {
    if (n->kind == MAP && kind != CDI_DEVICES)
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

// ---- one rule ----

static bool rule_part(const node *n, rule *r, buf *error) {
    if (key_is(n, "rule")) {
        r->name = n;
        return want(n, TEXT, "a name", error) &&
               (n->text.size || node_wrong(error, n, "the rule wants a name"));
    }
    if (key_is(n, "on"))
        return events_of(n, r, error);
    if (key_is(n, "when"))
        return conditions_of(n, &r->when, error);
    if (key_is(n, "unless"))
        return conditions_of(n, &r->unless, error);
    if (key_is(n, "set"))
        return level_of(n, r, SET, error);
    if (key_is(n, "default"))
        return level_of(n, r, DEFAULT, error);
    if (key_is(n, "cap"))
        return level_of(n, r, CAP, error);
    if (key_is(n, "add"))
        return add_of(n, r, error);
    if (key_is(n, "remove"))
        return remove_of(n, r, error);
    if (key_is(n, "unknown")) {
        r->skip = text_is(n, "skip");
        return r->skip || (text_is(n, "refuse")) ||
               node_wrong(error, n, "unknown is refuse or skip");
    }
    const node **text = key_is(n, "deny")     ? &r->deny
                        : key_is(n, "log")    ? &r->log
                        : key_is(n, "report") ? &r->report
                                                   : NULL;
    if (text == NULL)
        return unknown_key(error, n, "unknown key ",
                           "rule on when unless set default cap add remove deny log report unknown");
    *text = n;
    return check_text(n, error) && (n->text.size || node_wrong(error, n, n->key, " wants a text"));
}

// Whether each part can come to something in one of the events.
static bool rule_possible(const node *map, const rule *r, buf *error) {
    for (const node *part = map->first; part; part = part->next) {
        uint32_t at = UINT32_MAX;
        if (key_is(part, "deny"))
            at = REFUSABLE;
        else if (key_is(part, "default") || key_is(part, "add") ||
                 key_is(part, "remove"))
            at = NRI_EVENTS_create_container;
        else if (key_is(part, "set") || key_is(part, "cap"))
            at = CARRY_AMOUNTS;
        if ((r->events & at) == 0)
            return key_wrong(error, part, "none of the rule's events takes `", part->key, "`");
        for (const node *one = part->first; at == CARRY_AMOUNTS && one; one = one->next)
            if (name_index(resource_names, one) == RESOURCES &&
                !(r->events & NRI_EVENTS_create_container))
                return key_wrong(error, one, "none of the rule's events takes `", one->key, "`");
        if (!key_is(part, "when") && !key_is(part, "unless"))
            continue;
        for (const node *one = part->first; one; one = one->next)
            if ((r->events & POD_EVENTS) && facts[fact_index(one)].of_container)
                return key_wrong(error, one, "an event of a pod has no container: ", one->key,
                                 " cannot be asked");
    }
    return true;
}

static rule *rule_of(const node *map, buf *error) {
    rule *r = arena_take(sizeof *r);
    if (r == NULL || !want(map, MAP, "`rule: NAME` and what belongs to it", error))
        return NULL;
    r->line = map->line;
    r->events = NRI_EVENTS_create_container;
    r->usual = true;
    for (uint32_t i = 0; i < LEVELS; i++)
        for (uint32_t resource = 0; resource < RESOURCES; resource++)
            r->amounts[i][resource] = UNSET;
    for (const node *part = map->first; part; part = part->next)
        if (!rule_part(part, r, error))
            return NULL;
    if (r->name == NULL)
        return node_wrong(error, map, "the rule has no name: `rule: NAME`"), NULL;
    for (uint32_t resource = 0; resource < RESOURCES; resource++) {
        uint64_t least = r->amounts[DEFAULT][resource], most = r->amounts[CAP][resource];
        if (least < UNSET && most < UNSET && least > most)
            return node_wrong(error, map, "the default of ", resource_names[resource],
                              " is above its cap"), NULL;
        if (r->usual && (r->amounts[SET][resource] != UNSET || most != UNSET))
            r->events |= NRI_EVENTS_update_container;
    }
    return rule_possible(map, r, error) ? r : NULL;
}

static bool rules_of(str config, uint32_t *mask, buf *error) {
    if (config.size > MAX_TEXT)
        return nri_error(error, "line 1: the configuration has ", config.size,
                         " bytes, at most " DIGITS(MAX_TEXT));
    if (!doc_copy(config, &policy_text, error))
        return false;
    bool good;
    const node *root = doc_parse(buf_str(&policy_text), error, &good);
    if (root == NULL)
        return good;
    if (!want(root, LIST, "", error))
        return node_wrong(error, root, "a list of rules is wanted: `- rule: NAME`");
    uint32_t count = 0;
    rule **last = &rules;
    for (const node *one = root->first; one; one = one->next) {
        if (++count > MAX_RULES)
            return node_wrong(error, one, "more than " DIGITS(MAX_RULES) " rules");
        if ((*last = rule_of(one, error)) == NULL)
            return false;
        for (const rule *r = rules; r != *last; r = r->next)
            if (str_eq(r->name->text, (*last)->name->text))
                return node_wrong(error, (*last)->name, "two rules have the name ",
                                  &r->name->text, ", the first in line ", r->line);
        *mask |= (*last)->events;
        last = &(*last)->next;
    }
    return true;
}

// Reads all of it before any of it counts; the mask of events in `mask`.
static bool policy_read(str config, uint32_t *mask, buf *error) {
    arena_reset();
    buf_clear(&policy_text);
    rules = NULL;
    programs_size = 0;
    *mask = 0;
    if (rules_of(config, mask, error))
        return true;
    rules = NULL;
    return false;
}

#endif
