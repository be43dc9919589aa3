// Whether a rule fits an event. What cannot be known is not taken for "no".

#ifndef RULES_FACTS_H
#define RULES_FACTS_H

#include "configuration.h"

typedef struct event {
    uint32_t bit;
    str pod, container;
    str pod_name, name; // of the container
    uint32_t fields[2]; // of the pod, and of the container
    str resources; // that an update asks for
    bool alone;    // Docker Engine's container without a pod
    image image;
} event;

static buf unknown_why; // of the last UNKNOWN

#define unknown(...) (buf_clear(&unknown_why), buf_put(&unknown_why, __VA_ARGS__), UNKNOWN)

static bool steps_of_fields(const event *e, bool of_container) {
    return steps(1 + 2 * e->fields[of_container]);
}

// ---- patterns ----

static answer undecided(str text, const char *what) {
    if (text.size > MAX_VALUE)
        return unknown(what, " has ", text.size, " bytes, and at most " DIGITS(MAX_VALUE)
                       " are compared");
    return unknown("comparing ", what, " takes too long");
}

static answer one_of(const alternative *a, str text, const char *what) {
    answer best = NO;
    for (; a && best != YES; a = a->next) {
        answer one = pattern_fits(&a->text, text);
        best = one == NO ? best : one;
    }
    return best == UNKNOWN ? undecided(text, what) : best;
}

// ---- maps and lists ----

// Of `labels` and the like, and of `env`: the entry's key and value.
static void entry_parts(str entry, bool env, str *key, str *value) {
    if (env) {
        *value = entry;
        *key = str_cut(value, '=');
    } else {
        *key = pb_bytes(entry, NRI_KEY);
        *value = pb_bytes(entry, NRI_VALUE);
    }
}

static bool is_glob(str text) {
    for (uint32_t i = 0; i < text.size; i++)
        if (is_any(text.at[i], "*?"))
            return true;
    return false;
}

// CRI-O copies the annotations of the pod to each of its containers (SpecAddAnnotations),
// containerd those that its configuration names. A container's own of the same key takes the
// copy's place.
static bool pod_has(const event *e, str key, str value) {
    str pods = pb_map_get(e->pod, NRI_POD_ANNOTATIONS, key);
    return !steps_of_fields(e, false) || (pods.at && str_eq(pods, value));
}

// Whether an entry has a key and a value that fit. Two different values of the one key that
// is asked for leave open which of them counts later.
static answer map_fits(const condition *c, const event *e, str message, uint32_t field) {
    bool env = c->fact == ENV;
    bool glob = is_glob(c->key), seen = false;
    str entry, key, value, first = {0};
    answer best = NO;
    while (pb_next_of(&message, field, &entry)) {
        entry_parts(entry, env, &key, &value);
        if (!steps(10))
            return unknown("the rules take too long");
        answer one = glob ? glob_fits(c->key, key) : str_eq(c->key, key) ? YES : NO;
        if (one == NO)
            continue;
        if (one == UNKNOWN)
            return undecided(key, "a key");
        if (!glob && seen && !str_eq(first, value))
            return unknown(facts[c->fact].name, " ", c->key, " is there twice");
        seen = true, first = value;
        one = one_of(c->first, value, "a value");
        if (one == YES && c->fact == CONTAINER_ANNOTATION && pod_has(e, key, value))
            one = unknown("the container's annotation ", &key,
                          " is the pod's, too, and may be a copy of it");
        if (one == YES && glob)
            return YES;
        best = one == NO ? best : one;
    }
    return best;
}

static answer any_fits(const condition *c, str message, uint32_t field, uint32_t inner) {
    buf clean = {0};
    str item;
    answer best = NO;
    while (best != YES && pb_next_of(&message, field, &item)) {
        if (inner)
            item = pb_bytes(item, inner);
        // A source may be no path: `proc`.
        if (inner && (c->fact != MOUNT_SOURCE || str_starts(item, STR("/")))) {
            if (!steps(item.size / 2))
                item.size = 0; // then comparing says that it takes too long
            buf_clear(&clean);
            put_clean_path(&clean, item);
            item = buf_str(&clean);
        }
        answer one = one_of(c->first, item, facts[c->fact].name);
        best = one == NO ? best : one;
    }
    buf_free(&clean);
    return best;
}

// Each argument by its own pattern.
static answer vector_fits(const condition *c, str container) {
    const alternative *a = c->first;
    answer all = YES;
    for (str argument; pb_next_of(&container, NRI_CTR_ARGS, &argument);) {
        if (a == NULL)
            return c->open ? all : NO;
        answer one = pattern_fits(&a->text, argument);
        if (one == NO)
            return NO;
        if (one == UNKNOWN)
            all = undecided(argument, "an argument");
        a = a->next;
    }
    return a ? NO : all;
}

// ---- image ----

static answer image_condition(const condition *c, const event *e) {
    const image *i = &e->image;
    if (i->name.size == 0)
        return unknown("the runtime does not tell the image");
    if (!i->good)
        return unknown("the image `", &i->name,
                       "` is no name with or without registry, tag and digest");
    answer best = NO;
    for (const alternative *a = c->first; a && best != YES; a = a->next) {
        answer one = image_fits(&a->image, i);
        best = one == NO ? best : one;
    }
    return best == UNKNOWN ? undecided(i->whole, "the image") : best;
}

static answer digest_condition(const condition *c, const event *e) {
    str digest = e->image.digest;
    if (digest.size == 0)
        return unknown("the runtime does not tell the image's digest (NRI 0.13 does)");
    return one_of(c->first, digest, "the digest");
}

// ---- one condition ----

static int64_t amount_had(const event *e, uint32_t resource) {
    int64_t asked = amount_in(e->resources, resource);
    str linux = pb_bytes(e->container, NRI_CTR_LINUX);
    return asked ? asked : amount_in(pb_bytes(linux, NRI_LINUX_RESOURCES), resource);
}

static answer amount_fits(const condition *c, int64_t have) {
    for (const alternative *a = c->first; a; a = a->next) {
        bool fits = a->amount.than == MISSING ? have <= 0
                    : a->amount.than == THERE ? have > 0
                    : a->amount.than == OVER  ? have <= 0 || (uint64_t)have > a->amount.value
                                              : have > 0 && (uint64_t)have < a->amount.value;
        if (fits)
            return YES;
    }
    return NO;
}

static answer user_fits(const condition *c, const event *e) {
    str user = pb_bytes(e->container, NRI_CTR_USER);
    if (user.at == NULL)
        return unknown("the runtime does not tell the user");
    buf digits = {0};
    buf_put(&digits, pb_uint(user, 1));
    answer fits = one_of(c->first, buf_str(&digits), "the user");
    buf_free(&digits);
    return fits;
}

static answer condition_fits(const condition *c, const event *e) {
    if (!steps_of_fields(e, facts[c->fact].of_container))
        return unknown("the rules take too long");
    str message = facts[c->fact].of_container ? e->container : e->pod;
    uint32_t field = facts[c->fact].field;
    switch (c->fact) {
    case RUNTIME:
        return one_of(c->first, buf_str(&policy_runtime), "the runtime");
    case IMAGE:
        return image_condition(c, e);
    case IMAGE_DIGEST:
        return digest_condition(c, e);
    case USER:
        return user_fits(c, e);
    case POD:
        return one_of(c->first, e->pod_name, "a name");
    case CONTAINER:
        return one_of(c->first, e->name, "a name");
    case DEVICE:
        message = pb_bytes(message, NRI_CTR_LINUX);
        break;
    default:
        break;
    }
    switch (facts[c->fact].how) {
    case OF_MAP:
        return map_fits(c, e, message, field);
    case OF_ANY:
        return any_fits(c, message, field, facts[c->fact].inner);
    case OF_VECTOR:
        return vector_fits(c, message);
    case OF_AMOUNT:
        return amount_fits(c, amount_had(e, c->fact - HAS_MEMORY));
    default:
        return one_of(c->first, pb_bytes(message, field), facts[c->fact].name);
    }
}

// Every condition of `when` and none of `unless`.
static answer rule_fits(const rule *r, const event *e) {
    answer all = YES;
    for (const condition *c = r->when; c; c = c->next) {
        answer one = condition_fits(c, e);
        if (one == NO)
            return NO;
        all = one == UNKNOWN ? UNKNOWN : all;
    }
    for (const condition *c = r->unless; c; c = c->next) {
        answer one = condition_fits(c, e);
        if (one == YES)
            return NO;
        all = one == UNKNOWN ? UNKNOWN : all;
    }
    return all;
}

#endif
