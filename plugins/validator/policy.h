// The validator's policy: its rules, and how a line of configuration becomes one.

#ifndef VALIDATOR_POLICY_H
#define VALIDATOR_POLICY_H

#include "edge_nri.h"

// What a rule can be about, and the nri Field by which its owner is found.
#define SUBJECTS_OF_PATTERNS(X)                                                                    \
    X(MOUNT, "mount", 2)                                                                           \
    X(MOUNT_AT, "mount-at", 2)                                                                     \
    X(DEVICE, "device", 4)                                                                         \
    X(ENV, "env", 6)                                                                               \
    X(ANNOTATION, "annotation", 1)                                                                 \
    X(SYSCTL, "sysctl", 34)                                                                        \
    X(NAMESPACE, "namespace", 33)                                                                  \
    X(CDI_DEVICE, "cdi-device", 5)                                                                 \
    X(RLIMIT, "rlimit", 30)
#define SUBJECTS_ALONE(X)                                                                          \
    X(HOOKS, "hooks", 3)                                                                           \
    X(ARGS, "args", 7)                                                                             \
    X(SECCOMP, "seccomp", 32)
#define SUBJECTS_OF_AMOUNTS(X)                                                                     \
    X(MEMORY, "memory", 8)                                                                         \
    X(CPU, "cpu", 17)                                                                              \
    X(SHARES, "shares", 16)                                                                        \
    X(PIDS, "pids", 23)
#define SUBJECTS(X)                                                                                \
    SUBJECTS_OF_PATTERNS(X) SUBJECTS_ALONE(X) SUBJECTS_OF_AMOUNTS(X) X(PLUGIN, "plugin", 0)

#define SUBJECT_NUMBER(number, name, field) number,
enum subject { SUBJECTS(SUBJECT_NUMBER) SUBJECT_COUNT };

static const struct {
    const char *name;
    uint32_t field;
} subjects[] = {
#define SUBJECT_ENTRY(number, name, field) {name, field},
    SUBJECTS(SUBJECT_ENTRY)};

typedef struct rule {
    enum { ALLOW, DENY, LIMIT, REQUIRE } verb;
    enum subject subject;
    str type, numbers; // of a device; patterns, absent for any
    str pattern;
    uint64_t most; // of LIMIT: bytes, thousandths of a CPU, or a number
    str from;      // pattern of the owner's name; absent for anybody
    str text;      // as configured
    uint32_t line;
} rule;

enum { MAX_RULES = 128 };
static buf rules_text; // what the views in `rules` point into
static rule rules[MAX_RULES];
static uint32_t rule_count;

static bool parse_amount(enum subject subject, str amount, uint64_t *value) {
    return subject == MEMORY ? conf_size(amount, value)
           : subject == CPU  ? conf_cpu(amount, value)
                             : conf_uint(amount, value);
}

static bool parse_rule(conf c, rule *r, buf *error) {
    static const char *const verbs[] = {"allow", "deny", "limit", "require"};
    str words = c.line, verb = str_word(&words), name = str_word(&words);
    *r = (rule){.text = c.line, .line = c.number};
    while (r->verb <= REQUIRE && !str_is(verb, verbs[r->verb]))
        r->verb++;
    if (r->verb > REQUIRE)
        return conf_error(error, c, "a rule begins with allow, deny, limit or require, not ",
                          str_head(verb, 40));
    while (r->subject < SUBJECT_COUNT && !str_is(name, subjects[r->subject].name))
        r->subject++;

    enum subject first = r->verb == LIMIT ? MEMORY : r->verb == REQUIRE ? PLUGIN : MOUNT;
    enum subject after = r->verb == LIMIT ? PLUGIN : r->verb == REQUIRE ? SUBJECT_COUNT : MEMORY;
    if (r->subject < first || r->subject >= after) {
        conf_error(error, c, verb, " what? ", str_head(name, 40), " is none of");
        for (enum subject i = first; i < after; i++)
            buf_put(error, " ", subjects[i].name);
        return false;
    }
    if (r->subject < HOOKS || r->subject > SECCOMP) {
        r->pattern = str_word(&words);
        str ahead = words, next = str_word(&ahead);
        if (r->subject == DEVICE && next.size && !str_is(next, "from")) {
            r->type = r->pattern;
            r->numbers = next;
            words = ahead;
            r->pattern = str_word(&words);
        }
        if (r->pattern.size == 0)
            return conf_error(error, c, verb, " ", name, " wants ",
                              r->verb == LIMIT     ? "an amount, such as 512Mi or 2"
                              : r->verb == REQUIRE ? "a plugin's name"
                                                   : "a pattern; * stands for all");
    }
    if (r->verb == LIMIT && !parse_amount(r->subject, r->pattern, &r->most))
        return conf_error(error, c, str_head(r->pattern, 40), " is no amount of ", name);
    bool mounts = r->subject == MOUNT || r->subject == MOUNT_AT;
    while (mounts && r->pattern.size > 1 && r->pattern.at[r->pattern.size - 1] == '/')
        r->pattern.size--;
    if (words.size == 0)
        return true;
    if (r->verb != REQUIRE && str_is(str_word(&words), "from")) {
        r->from = str_word(&words);
        if (r->from.size && words.size == 0)
            return true;
    }
    return conf_error(error, c, "the rule should end after ", name, " and its pattern, or go on ",
                      "with: from PLUGIN");
}

static bool configure(str config, buf *error) {
    buf_clear(&rules_text);
    buf_put_str(&rules_text, config);
    rule_count = 0;
    for (conf c = conf_of(buf_str(&rules_text)); conf_next(&c); rule_count++) {
        if (rule_count == MAX_RULES)
            return conf_error(error, c, "more than ", MAX_RULES, " rules");
        if (!parse_rule(c, &rules[rule_count], error))
            return false;
    }
    return true;
}

// ---- matching ----

// The path itself, and what is below it.
static bool at_or_below(str pattern, str path) {
    return str_glob_until(pattern, path, '/') ||
           (str_is(pattern, "/") && str_starts(path, pattern));
}

// Whether `path` is a directory that what the pattern names is in: mounting /
// brings /etc along.
static bool above(str pattern, str path) {
    if (str_is(path, "/"))
        return true;
    return str_starts(pattern, path) && pattern.size > path.size && pattern.at[path.size] == '/';
}

// One owner, or for hooks several with commas: to allow, all have to match; to deny, one.
static bool from_matches(const rule *r, str owners) {
    if (r->from.at == NULL)
        return true;
    bool all = r->verb == ALLOW;
    if (owners.size == 0)
        return false;
    while (owners.size)
        if (str_glob(r->from, str_cut(&owners, ',')) != all)
            return !all;
    return all;
}

#endif
