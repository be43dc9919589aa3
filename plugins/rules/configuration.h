// From a configuration to its rules; all of it is read before any of it counts.

#ifndef RULES_CONFIGURATION_H
#define RULES_CONFIGURATION_H

#include "actions.h"

static bool rule_part(const node *n, rule *r, buf *error) {
    if (key_is(n, "rule")) {
        r->name = n;
        return want(n, TEXT, "a name", error) &&
               (n->text.size || node_wrong(error, n, "the rule wants a name")) &&
               (n->text.size <= MAX_NAME ||
                node_wrong(error, n, "the rule's name has ", n->text.size, " bytes, at most "
                           DIGITS(MAX_NAME)));
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

// Of the parts of a rule those that are no action.
static bool is_setting(const node *part) {
    static const char *const settings[] = {"rule", "on", "when", "unless", "unknown"};
    return name_index(settings, part) < COUNT(settings);
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
    const node *action = map->first;
    while (action && is_setting(action))
        action = action->next;
    bool good = rule_possible(map, r, error) &&
                (action || node_wrong(error, map, "the rule does nothing: none of set default cap "
                                      "add remove deny log report"));
    return good ? r : NULL;
}

// The copy that the tree's texts point into: without CR before LF. False for what no text has.
static bool doc_copy(str text, buf *copy, buf *error) {
    uint32_t line = 1, start = 0;
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t c = (uint8_t)text.at[i];
        bool end_ahead = i + 1 < text.size && text.at[i + 1] == '\n';
        if (c == '\n')
            line++, start = i + 1;
        else if (c == '\r' && end_ahead)
            continue;
        else if (c == '\t')
            return nri_error(error, "line ", line, ", column ", i - start + 1,
                             ": a tab; YAML indents with blanks, and a text has \"\\t\"");
        else if (c < 0x20 || c == 0x7F)
            return nri_error(error, "line ", line, ", column ", i - start + 1,
                             ": a control character (", (uint32_t)c, ")");
        buf_put_char(copy, (char)c);
    }
    return true;
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
