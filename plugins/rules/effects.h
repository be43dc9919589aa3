// What has a key (a variable, a mount, a device, ...): the last rule that fits decides, key by key.

#ifndef RULES_EFFECTS_H
#define RULES_EFFECTS_H

#include "texts.h"

typedef struct effect {
    uint32_t kind;
    str key;
    const node *value; // null: removed
    const rule *by;
    bool there; // the container is known to have it
    bool met;   // by changed_in_part()
} effect;

#define MAX_EFFECTS 512
static buf effects_held;
static uint32_t effect_count;
static bool effects_many;

static effect *effects(void) { return (effect *)(void *)effects_held.at; }

static effect *effect_of(uint32_t kind, str key) {
    for (uint32_t i = 0; i < effect_count; i++)
        if (effects()[i].kind == kind && str_eq(effects()[i].key, key))
            return &effects()[i];
    return NULL;
}

// Null when there are too many.
static effect *put_effect(uint32_t kind, str key, const node *value, const rule *by) {
    effect *e = effect_of(kind, key);
    if (e == NULL) {
        effects_many |= effect_count == MAX_EFFECTS;
        if (effects_many || buf_add(&effects_held, sizeof *e) == NULL)
            return NULL;
        e = &effects()[effect_count++];
    }
    *e = (effect){.kind = kind, .key = key, .value = value, .by = by};
    return e;
}

// Where the container keeps what is of this kind: message, field, and the field of its name
// (0: KEY=VALUE).
static str place_of(const event *e, uint32_t kind, uint32_t *field, uint32_t *inner) {
    static const uint8_t fields[KINDS][2] = {
        [ANNOTATIONS] = {NRI_CTR_ANNOTATIONS, NRI_KEY},
        [ENVS] = {NRI_CTR_ENV, 0},
        [SYSCTLS] = {NRI_LINUX_SYSCTL, NRI_KEY},
        [UNIFIED] = {NRI_RES_UNIFIED, NRI_KEY},
        [RLIMITS] = {NRI_CTR_RLIMITS, 1},
        [NET_DEVICES] = {NRI_LINUX_NET_DEVICES, NRI_KEY},
        [MOUNTS] = {NRI_CTR_MOUNTS, NRI_MOUNT_DESTINATION},
        [DEVICES] = {NRI_LINUX_DEVICES, NRI_DEVICE_PATH},
        [CDI_DEVICES] = {NRI_CTR_CDI_DEVICES, 1},
    };
    *field = fields[kind][0], *inner = fields[kind][1];
    if (kind != UNIFIED && kind != SYSCTLS && kind != NET_DEVICES && kind != DEVICES)
        return e->container;
    str linux = pb_bytes(e->container, NRI_CTR_LINUX);
    return kind == UNIFIED ? pb_bytes(linux, NRI_LINUX_RESOURCES) : linux;
}

static str name_in(str entry, uint32_t inner) {
    return inner ? pb_bytes(entry, inner) : str_cut(&entry, '=');
}

// RLIMIT_NOFILE of nofile.
static void put_rlimit_name(buf *out, str key) {
    buf_put(out, "RLIMIT_");
    for (uint32_t i = 0; i < key.size; i++)
        buf_put_char(out, (char)(key.at[i] - 0x20));
}

static bool container_has(const event *e, uint32_t kind, str key) {
    uint32_t field, inner;
    str message = place_of(e, kind, &field, &inner);
    buf name = {0};
    if (kind == RLIMITS)
        put_rlimit_name(&name, key);
    else
        buf_put(&name, key);
    bool found = false;
    for (str entry; !found && pb_next_of(&message, field, &entry);)
        found = str_eq(name_in(entry, inner), buf_str(&name));
    buf_free(&name);
    return found;
}

static answer name_fits(const alternative *patterns, uint32_t kind, str name) {
    buf clean = {0};
    if (kind == MOUNTS) {
        put_clean_path(&clean, name);
        name = buf_str(&clean);
    }
    answer fits = one_of(patterns, name, "a name");
    buf_free(&clean);
    return fits;
}

// What earlier rules gave and what the container came with. UNKNOWN: it cannot be decided.
static answer remove_fitting(const event *e, const rule *r, uint32_t kind) {
    const alternative *patterns = r->removed[kind];
    uint32_t field, inner;
    str message = place_of(e, kind, &field, &inner);
    for (uint32_t i = 0; i < effect_count; i++) {
        effect *one = &effects()[i];
        answer fits = one->kind == kind ? name_fits(patterns, kind, one->key) : NO;
        if (fits == UNKNOWN)
            return UNKNOWN;
        if (fits == YES)
            one->value = NULL, one->by = r;
    }
    for (str entry; pb_next_of(&message, field, &entry);) {
        str name = name_in(entry, inner);
        answer fits = name_fits(patterns, kind, name);
        if (fits == UNKNOWN)
            return UNKNOWN;
        if (fits != YES)
            continue;
        effect *removed = put_effect(kind, name, NULL, r);
        if (removed == NULL)
            return unknown("more than " DIGITS(MAX_EFFECTS) " changes");
        removed->there = true;
    }
    return YES;
}

static str added_key(const node *one, uint32_t kind) {
    return kind == CDI_DEVICES ? one->text
                               : entry_of(one, kind == DEVICES ? "path" : "destination")->text;
}

// Within one rule: remove, then set, default and add.
static answer collect(const event *e, const rule *r) {
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        if (r->removed[kind] && remove_fitting(e, r, kind) == UNKNOWN)
            return UNKNOWN;
        for (const node *n = r->keyed[SET][kind] ? r->keyed[SET][kind]->first : NULL; n; n = n->next)
            put_effect(kind, n->key, n, r);
        const node *usual = r->keyed[DEFAULT][kind] ? r->keyed[DEFAULT][kind]->first : NULL;
        for (; usual; usual = usual->next) {
            if (!steps_of_fields(e, true))
                return unknown("the rules take too long");
            const effect *had = effect_of(kind, usual->key);
            if (had ? had->value == NULL : !container_has(e, kind, usual->key))
                put_effect(kind, usual->key, usual, r);
        }
        if (r->added[kind] && r->added[kind]->kind == LIST)
            for (const node *n = r->added[kind]->first; n; n = n->next)
                put_effect(kind, added_key(n, kind), n, r);
    }
    return effects_many ? unknown("more than " DIGITS(MAX_EFFECTS) " changes") : YES;
}

// Runtimes change the first of two of one name and leave the second one as it is.
static const effect *changed_in_part(const event *e) {
    static const uint8_t kinds[] = {ENVS, MOUNTS};
    for (uint32_t i = 0; effect_count && i < sizeof kinds; i++) {
        uint32_t field, inner;
        str entry, message = place_of(e, kinds[i], &field, &inner);
        while (pb_next_of(&message, field, &entry)) {
            effect *one = effect_of(kinds[i], name_in(entry, inner));
            if (one && one->met)
                return one;
            if (one)
                one->met = true;
        }
    }
    return NULL;
}

#endif
