// The adjustment or update that comes of the rules that fit.

#ifndef RULES_ADJUSTMENT_H
#define RULES_ADJUSTMENT_H

#include "effects.h"

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
    if (n && field == NRI_DEVICE_FILE_MODE)
        mode_of(n->text, &value);
    else if (n)
        decimal_of(n->text, &value);
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
        permit_of(n->text, asked_of(kind), &permits[permit_count++]);
    entry one = {
        .reply = reply,
        .permits = permits,
        .permit_count = permit_count,
        .pod = e->alone ? STR("") : e->pod_name,
        .container = e->name,
        .alone = e->alone,
    };
    bool good = inject(&one, e->alone ? e->container : e->pod, asked_of(kind), prefixes,
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
    if (!put_annotated(reply, e, CDI_DEVICES))
        return false;
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

#endif
