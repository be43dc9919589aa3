// Policies without programming: rules that say when they fit and what then comes of it.
// README.md and docs/rules.md tell the language.

#include "facts.h"

// ---- texts with $(...) ----

enum { SHOWN = 200 }; // bytes of a value in a line of log, a report or a refusal

static void put_expanded(buf *out, const event *e, str text, uint32_t longest) {
    while (text.size) {
        str before = str_cut(&text, '$');
        bool dollar = before.at + before.size < text.at; // or the text's end
        buf_put(out, before);
        if (!str_starts(text, STR("("))) {
            buf_put(out, dollar ? "$" : "");
            continue;
        }
        text = str_from(text, 1);
        str name = str_cut(&text, ')'), words = name, first = str_word(&words), value = {0};
        if (str_is(name, "namespace"))
            value = pb_bytes(e->pod, NRI_POD_NAMESPACE);
        else if (str_is(name, "pod"))
            value = e->pod_name;
        else if (str_is(name, "container"))
            value = e->name;
        else if (str_is(name, "image"))
            value = e->image_name;
        else if (str_is(first, "label"))
            value = pb_map_get(e->pod, NRI_POD_LABELS, words);
        else
            value = pb_map_get(e->pod, NRI_POD_ANNOTATIONS, words);
        buf_put(out, str_head(value, longest));
    }
}

// "pod/container: ", or the one of them that there is.
static void put_who(buf *out, const event *e) {
    str pod = e->alone ? STR("") : e->pod_name;
    buf_put(out, pod, pod.size && e->name.size ? "/" : "", e->name, ": ");
}

static buf line; // that is put together for the log

static void tell(const event *e, uint32_t level, str text, const rule *by) {
    pb_put_uint(&nri_out, 2, level);
    uint32_t said = pb_open(&nri_out, 1);
    put_who(&nri_out, e);
    buf_put(&nri_out, text);
    if (by)
        buf_put(&nri_out, " (rule ", &by->name->text, ")");
    pb_close(&nri_out, said);
    nri_tell(nri_host_log, &nri_out);
}

// "WHAT NAME END", by a rule.
static void tell_change(const event *e, const char *what, str name, const char *end,
                        const rule *by) {
    buf_clear(&line);
    buf_put(&line, what, " ", str_head(name, SHOWN), end);
    tell(e, NRI_INFO, buf_str(&line), by);
}

static void put_undecided(buf *out, const rule *r) {
    buf_put(out, "rule ", &r->name->text, " (line ", r->line,
            ") cannot be decided: ", buf_str(&unknown_why));
}

// ---- what has a key: the last rule that fits decides, key by key ----

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

// ---- writing them ----

static void close_or_drop(buf *out, uint32_t before, uint32_t start) {
    if (out->size == start && !out->full)
        out->size = before;
    else
        pb_close(out, start);
}

static void put_removed(buf *out, uint32_t field, uint32_t inner, str name) {
    uint32_t entry = pb_open(out, field), text = pb_open(out, inner);
    buf_put(out, "-", name);
    pb_close(out, text);
    pb_close(out, entry);
}

// Fields that are texts and numbers of a map, in the order of their names.
static void put_texts(buf *out, const node *map, const char *const *names, const uint8_t *fields,
                      uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        pb_put_str(out, fields[i], entry_of(map, names[i])->text);
}

static void put_number(buf *out, const node *map, const char *name, uint32_t field, bool optional) {
    const node *n = entry_of(map, name);
    uint64_t value = 0;
    if (n)
        conf_digits(n->text, field == NRI_DEVICE_FILE_MODE ? 8 : 10, &value);
    if (!optional)
        pb_put_uint(out, field, value);
    else if (n)
        pb_put_optional(out, field, value);
}

static void put_device(buf *out, const node *n) {
    static const char *const names[] = {"path", "type"};
    static const uint8_t fields[] = {NRI_DEVICE_PATH, NRI_DEVICE_TYPE};
    uint32_t device = pb_open(out, NRI_ADJ_LINUX_DEVICES);
    put_texts(out, n, names, fields, 2);
    put_number(out, n, "major", NRI_DEVICE_MAJOR, false);
    put_number(out, n, "minor", NRI_DEVICE_MINOR, false);
    put_number(out, n, "file_mode", NRI_DEVICE_FILE_MODE, true);
    put_number(out, n, "uid", NRI_DEVICE_UID, true);
    put_number(out, n, "gid", NRI_DEVICE_GID, true);
    pb_close(out, device);
}

static void put_mount(buf *out, const node *n) {
    static const char *const names[] = {"destination", "type", "source"};
    static const uint8_t fields[] = {NRI_MOUNT_DESTINATION, NRI_MOUNT_TYPE, NRI_MOUNT_SOURCE};
    uint32_t mount = pb_open(out, NRI_ADJ_MOUNTS);
    put_texts(out, n, names, fields, 3);
    const node *options = entry_of(n, "options");
    for (const node *one = options ? options->first : NULL; one; one = one->next)
        pb_put_item(out, NRI_MOUNT_OPTIONS, one->text);
    pb_close(out, mount);
}

static void put_rlimit(buf *out, const effect *one) {
    uint64_t soft, hard;
    rlimit_of(one->value->text, &soft, &hard);
    uint32_t limit = pb_open(out, NRI_ADJ_RLIMITS), name = pb_open(out, 1);
    put_rlimit_name(out, one->key);
    pb_close(out, name);
    pb_put_uint(out, 2, hard);
    pb_put_uint(out, 3, soft);
    pb_close(out, limit);
}

static void put_pair(buf *out, uint32_t field, const event *e, const effect *one, bool expand) {
    uint32_t entry = pb_open(out, field);
    pb_put_str(out, NRI_KEY, one->key);
    uint32_t value = pb_open(out, NRI_VALUE);
    if (expand)
        put_expanded(out, e, one->value->text, UINT32_MAX);
    else
        buf_put(out, one->value->text);
    pb_close(out, value);
    pb_close(out, entry);
}

static void put_kind(buf *out, const event *e, uint32_t kind, uint32_t field) {
    for (uint32_t i = 0; i < effect_count; i++) {
        const effect *one = &effects()[i];
        if (one->kind != kind || (one->value == NULL && !one->there && !container_has(e, kind, one->key)))
            continue;
        tell_change(e, kind_names[kind], one->key, one->value ? " given" : " removed", one->by);
        if (one->value == NULL) {
            put_removed(out, field, kind == MOUNTS ? NRI_MOUNT_DESTINATION : NRI_KEY, one->key);
            if (kind == ENVS) // up to NRI 0.12 at least, a removal alone comes to nothing
                pb_put_entry(out, field, one->key, (str){0});
        } else if (kind == MOUNTS)
            put_mount(out, one->value);
        else if (kind == DEVICES)
            put_device(out, one->value);
        else if (kind == RLIMITS)
            put_rlimit(out, one);
        else if (kind == CDI_DEVICES || kind == NET_DEVICES) {
            uint32_t item = pb_open(out, field);
            pb_put_str(out, 1, one->key);
            if (kind == NET_DEVICES) {
                uint32_t device = pb_open(out, NRI_VALUE);
                pb_put_str(out, 1, one->value->text);
                pb_close(out, device);
            }
            pb_close(out, item);
        } else {
            put_pair(out, field, e, one, kind == ENVS || kind == ANNOTATIONS);
        }
    }
}

// ---- resources ----

// The last rule that fits and says it, of each bound and each single value.
static bounds bounds_now(void) {
    bounds b;
    for (level which = SET; which < LEVELS; which++)
        for (uint32_t i = 0; i < RESOURCES; i++) {
            b.of[which][i] = NONE;
            for (const rule *r = rules; r; r = r->next)
                if (r->fits && r->amounts[which][i] != UNSET) {
                    b.of[which][i] = r->amounts[which][i];
                    amount_by[which][i] = r->name->text;
                }
        }
    return b;
}

static bool container_has_single(const event *e, uint32_t single) {
    str linux = pb_bytes(e->container, NRI_CTR_LINUX);
    str resources = pb_bytes(linux, NRI_LINUX_RESOURCES), cpu = pb_bytes(resources, NRI_RES_CPU);
    switch (single) {
    case CPUS:
        return pb_bytes(cpu, NRI_CPU_CPUS).size;
    case MEMS:
        return pb_bytes(cpu, NRI_CPU_MEMS).size;
    case OOM_SCORE_ADJ:
        return pb_bytes(linux, NRI_LINUX_OOM_SCORE_ADJ).at != NULL;
    case BLOCKIO_CLASS:
        return pb_bytes(resources, NRI_RES_BLOCKIO_CLASS).size;
    case RDT_CLASS:
        return pb_bytes(resources, NRI_RES_RDT_CLASS).size;
    default:
        return pb_bytes(e->container, NRI_CTR_ARGS).at != NULL;
    }
}

// Null when nothing is to be changed.
static const node *single_now(const event *e, uint32_t single) {
    const node *fixed = NULL, *usual = NULL;
    const rule *by[2] = {0};
    for (const rule *r = rules; r; r = r->next) {
        if (r->fits && r->singles[SET][single])
            fixed = r->singles[SET][single], by[SET] = r;
        if (r->fits && r->singles[DEFAULT][single])
            usual = r->singles[DEFAULT][single], by[DEFAULT] = r;
    }
    if (fixed && text_is(fixed, "none"))
        fixed = NULL;
    if (usual && text_is(usual, "none"))
        usual = NULL;
    if (fixed == NULL && usual && container_has_single(e, single))
        usual = NULL;
    const node *n = fixed ? fixed : usual;
    if (n)
        tell_change(e, single_names[single], n->text, " set", by[fixed ? SET : DEFAULT]);
    return n;
}

static void put_optional_text(buf *out, uint32_t field, const node *n) {
    if (n) {
        uint32_t optional = pb_open(out, field);
        pb_put_str(out, 1, n->text);
        pb_close(out, optional);
    }
}

static void put_resources(buf *out, const event *e) {
    const bounds b = bounds_now();
    const node *cpus = single_now(e, CPUS), *mems = single_now(e, MEMS);
    buf more = {0};
    pb_put_str(&more, NRI_CPU_CPUS, cpus ? cpus->text : STR(""));
    pb_put_str(&more, NRI_CPU_MEMS, mems ? mems->text : STR(""));
    const change c = {
        .bounds = &b,
        .create = true,
        .pod = e->pod_name,
        .name = e->name,
        .more_cpu = buf_str(&more),
        .out = out,
    };
    guard(&c, pb_at(e->container, NRI_CTR_LINUX, NRI_LINUX_RESOURCES));
    buf_free(&more);
    put_optional_text(out, NRI_RES_BLOCKIO_CLASS, single_now(e, BLOCKIO_CLASS));
    put_optional_text(out, NRI_RES_RDT_CLASS, single_now(e, RDT_CLASS));
    put_kind(out, e, UNIFIED, NRI_RES_UNIFIED);
}

// ---- annotations that name devices and mounts ----

static bool put_annotated(buf *reply, const event *e, uint32_t kind) {
    static permit permits[MAX_PERMITS];
    const node *from = NULL;
    for (const rule *r = rules; r; r = r->next)
        if (r->fits && r->added[kind] && r->added[kind]->kind == MAP)
            from = r->added[kind];
    if (from == NULL)
        return true;
    str prefixes[2] = {0};
    uint32_t prefix_count = 0, permit_count = 0;
    for (const node *n = entry_of(from, "from-annotations")->first; n; n = n->next)
        prefixes[prefix_count++] = n->text;
    const node *allowed = entry_of(from, "allowed");
    for (const node *n = allowed ? allowed->first : NULL; n; n = n->next)
        permit_of(n->text, kind == MOUNTS, &permits[permit_count++]);
    entry one = {
        .reply = reply,
        .permits = permits,
        .permit_count = permit_count,
        .pod = e->alone ? STR("") : e->pod_name,
        .container = e->name,
        .alone = e->alone,
    };
    bool good = inject(&one, e->alone ? e->container : e->pod, kind == MOUNTS, prefixes,
                       prefix_count);
    buf_free(&one.options);
    return good;
}

// ---- replies ----

static bool put_linux(buf *reply, const event *e) {
    uint32_t before = reply->size, linux = pb_open(reply, NRI_ADJ_LINUX);
    put_kind(reply, e, DEVICES, NRI_ADJ_LINUX_DEVICES);
    if (!put_annotated(reply, e, DEVICES))
        return false;
    uint32_t outside = reply->size, resources = pb_open(reply, NRI_ADJ_LINUX_RESOURCES);
    put_resources(reply, e);
    close_or_drop(reply, outside, resources);
    const node *score = single_now(e, OOM_SCORE_ADJ);
    int64_t value = 0;
    if (score && oom_of(score->text, &value))
        pb_put_optional(reply, NRI_ADJ_LINUX_OOM_SCORE_ADJ, (uint64_t)value);
    put_kind(reply, e, SYSCTLS, NRI_ADJ_LINUX_SYSCTL);
    put_kind(reply, e, NET_DEVICES, NRI_ADJ_LINUX_NET_DEVICES);
    close_or_drop(reply, before, linux);
    return true;
}

static bool adjust(buf *reply, const event *e) {
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    put_kind(reply, e, ANNOTATIONS, NRI_ADJ_ANNOTATIONS);
    put_kind(reply, e, MOUNTS, NRI_ADJ_MOUNTS);
    put_kind(reply, e, ENVS, NRI_ADJ_ENV);
    if (!put_linux(reply, e) || !put_annotated(reply, e, MOUNTS))
        return false;
    put_kind(reply, e, RLIMITS, NRI_ADJ_RLIMITS);
    put_kind(reply, e, CDI_DEVICES, NRI_ADJ_CDI_DEVICES);
    const node *args = single_now(e, ARGS);
    for (const node *n = args && args->kind == LIST ? args->first : NULL; n; n = n->next)
        pb_put_item(reply, NRI_ADJ_ARGS, n->text);
    close_or_drop(reply, 0, adjust);
    return true;
}

static bool update(buf *reply, const event *e) {
    const bounds b = bounds_now();
    uint32_t update = pb_open(reply, NRI_UPDATED_UPDATE);
    pb_put_str(reply, NRI_UPDATE_CONTAINER_ID, pb_bytes(e->container, NRI_CTR_ID));
    uint32_t linux = pb_open(reply, NRI_UPDATE_LINUX);
    uint32_t resources = pb_open(reply, NRI_UPDATE_LINUX_RESOURCES);
    const change c = {
        .bounds = &b,
        .pod = e->pod_name,
        .name = e->name,
        .out = reply,
    };
    guard(&c, e->resources);
    if (reply->size == resources) {
        buf_clear(reply); // nothing to change
        return true;
    }
    pb_close(reply, resources);
    pb_close(reply, linux);
    pb_close(reply, update);
    return true;
}

// ---- one event ----

// A refusal: an error, or of a validator its verdict. False where it is an error.
static bool refuse(buf *reply, const event *e, const buf *why) {
    buf_clear(&line);
    buf_put(&line, "refused: ", buf_str(why));
    tell(e, NRI_WARN, buf_str(&line), NULL);
    buf_clear(reply);
    if (e->bit != NRI_EVENTS_validate_container_adjustment)
        return nri_error(reply, buf_str(why));
    pb_put_uint(reply, 1, true);
    pb_put_str(reply, 2, buf_str(why));
    return true;
}

// Which rules fit; false when one of them cannot be decided, with `why`.
static bool judge(event *e, buf *why) {
    steps_left = MAX_STEPS;
    states_forget();
    effect_count = 0, effects_many = false;
    buf_clear(&effects_held);
    for (rule *r = rules; r; r = r->next) {
        answer fits = r->events & e->bit ? rule_fits(r, e) : NO;
        bool changes = fits == YES && e->bit == NRI_EVENTS_create_container;
        r->fits = fits == YES;
        if (changes)
            fits = collect(e, r);
        if (fits != UNKNOWN || (r->skip && !changes))
            continue;
        r->fits = false;
        if (e->bit & REFUSABLE) {
            put_undecided(why, r);
            return false;
        }
        buf_clear(&line);
        put_undecided(&line, r);
        tell(e, NRI_WARN, buf_str(&line), NULL);
    }
    const effect *part = changed_in_part(e);
    if (part) {
        (void)unknown(kind_names[part->kind], " ", &part->key, " is there twice");
        put_undecided(why, part->by);
    }
    return part == NULL;
}

// What rules say, and the last `deny`; true when there is one, with its text in `why`.
static bool speak(event *e, buf *why) {
    const rule *deny = NULL;
    buf text = {0};
    for (const rule *r = rules; r; r = r->next) {
        if (!r->fits || (r->usual && e->bit != NRI_EVENTS_create_container))
            continue;
        if (r->deny && e->bit & REFUSABLE)
            deny = text_is(r->deny, "none") ? NULL : r;
        if (r->log && !text_is(r->log, "none")) {
            buf_clear(&text);
            put_expanded(&text, e, r->log->text, SHOWN);
            tell(e, NRI_INFO, buf_str(&text), r);
        }
        if (r->report && !text_is(r->report, "none")) {
            buf_clear(&text);
            put_who(&text, e);
            put_expanded(&text, e, r->report->text, SHOWN);
            edge_report(r->name->text, buf_str(&text), STR("text/plain"));
        }
    }
    buf_free(&text);
    if (deny) {
        put_expanded(why, e, deny->deny->text, SHOWN);
        buf_put(why, " (rule ", &deny->name->text, ", line ", deny->line, ")");
    }
    return deny != NULL;
}

static bool handle(uint32_t bit, str pod, str container, str resources, buf *reply) {
    event e = {.bit = bit, .pod = pod, .container = container, .resources = resources,
               .fields = {fields_of(pod), fields_of(container)}};
    if (e.fields[0] + e.fields[1] > MAX_FIELDS)
        return nri_error(reply, "more than " DIGITS(MAX_FIELDS) " entries");
    e.alone = nri_has_no_pod(pod, container);
    e.pod_name = nri_name(pod, NRI_POD_NAME), e.name = nri_name(container, NRI_CTR_NAME);
    buf why = {0};
    if (container.at)
        read_image(&e);
    bool refused = !judge(&e, &why) || speak(&e, &why), good = true;
    if (refused)
        good = refuse(reply, &e, &why);
    else if (bit == NRI_EVENTS_create_container)
        good = adjust(reply, &e);
    else if (bit == NRI_EVENTS_update_container)
        good = update(reply, &e);
    buf_free(&why);
    return good;
}

// ---- methods ----

static bool handle_request(uint32_t bit, str request, buf *reply) {
    str container = {0}, resources = {0};
    if (!(bit & POD_EVENTS)) // field 2 is something else there
        container = pb_bytes(request, NRI_REQ_CONTAINER);
    if (bit == NRI_EVENTS_update_container)
        resources = pb_bytes(request, NRI_UPDATE_REQ_RESOURCES);
    return handle(bit, pb_bytes(request, NRI_REQ_POD), container, resources, reply);
}

#define METHOD(name)                                                                               \
    static bool name(str request, buf *reply) {                                                    \
        return handle_request(NRI_EVENTS_##name, request, reply);                                  \
    }
EVENTS(METHOD)

// Most events of runtimes before NRI 0.12.
static bool state_change(str request, buf *reply) {
    uint64_t number = pb_uint(request, NRI_STATE_EVENT);
    uint32_t bit = number > 0 && number <= 14 ? NRI_EVENT(number) : 0;
    str container = bit & POD_EVENTS ? (str){0} : pb_bytes(request, NRI_STATE_CONTAINER);
    return bit & NRI_EVENTS_state_change
               ? handle(bit, pb_bytes(request, NRI_STATE_POD), container, (str){0}, reply)
               : true;
}

// ---- configuration ----

static uint32_t policy_events;

static bool configure(str config, buf *error) { return policy_read(config, &policy_events, error); }

// Of all that is exported, what the rules ask for. A runtime takes an empty mask for all.
static uint32_t nri_events(void) {
    return policy_events ? policy_events : NRI_EVENTS_create_container;
}

static bool rules_configure(str request, buf *reply) {
    buf_clear(&policy_runtime);
    buf_put(&policy_runtime, pb_bytes(request, 2));
    return nri_configure(request, reply);
}

NRI_METHOD(configure, rules_configure)
BUF_EXPAND(NRI_EACH_METHOD(run_pod_sandbox, stop_pod_sandbox, remove_pod_sandbox,
                           update_pod_sandbox, post_update_pod_sandbox, create_container,
                           post_create_container, start_container, post_start_container,
                           update_container, post_update_container, stop_container,
                           remove_container, validate_container_adjustment, state_change))
