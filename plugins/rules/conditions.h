// From the configuration's tree to conditions: `on`, `when`, `unless`.

#ifndef RULES_CONDITIONS_H
#define RULES_CONDITIONS_H

#include "policy.h"

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

#endif
