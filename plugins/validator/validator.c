// Rejects adjustments of containers that a policy forbids, naming the rule and the
// plugin. See README.md for the rules.

#include "path.h"
#include "policy.h"

// ---- one request ----

typedef struct check {
    str owners; // FieldOwners of the container
    buf *reason;
} check;

// An adjustment marks what it removes with a leading minus.
static str unmarked(str name) { return str_starts(name, STR("-")) ? str_from(name, 1) : name; }

// OwningPlugins: maps by Field number to a plugin, or to a map of names to plugins.
static str owner_of(str owners, uint32_t field, str name) {
    enum { SIMPLE = 1, COMPOUND = 2 };
    for (pb_field entry; pb_next(&owners, &entry);) {
        if (entry.wire != PB_BYTES || pb_uint(entry.bytes, NRI_KEY) != field)
            continue;
        str value = pb_bytes(entry.bytes, NRI_VALUE);
        if (entry.number == SIMPLE)
            return unmarked(value);
        if (entry.number == COMPOUND)
            return unmarked(pb_map_get(value, 1, name));
    }
    return (str){0};
}

static bool reject(const check *c, const rule *r, str owner) {
    if (r)
        buf_put(c->reason, ", by the rule in line ", r->line, " (", r->text, ")");
    if (owner.size)
        buf_put(c->reason, ", wanted by plugin ", owner);
    return false;
}

// Linux knows no longer path; a longer name is there to keep the validator busy.
enum { LONGEST_NAME = 4096 };

// Whether the first rule that fits allows it; without one it is allowed. `owned` is
// the name under which its owner is kept, if that is another one.
static bool allowed(const check *c, enum subject subject, str name, str owned, str type,
                    str numbers) {
    str owner = owner_of(c->owners, subjects[subject].field, owned.at ? owned : name);
    for (const rule *r = rules; r < rules + rule_count; r++) {
        if (r->subject != subject || !from_matches(r, owner))
            continue;
        if (name.size > LONGEST_NAME) {
            buf_put(c->reason, subjects[subject].name, " name of ", name.size, " bytes is denied");
            return reject(c, NULL, owner);
        }
        bool fits = subject == MOUNT || subject == MOUNT_AT
                        ? at_or_below(r->pattern, name) ||
                              (r->verb == DENY && subject == MOUNT && above(r->pattern, name))
                        : str_glob(r->pattern, name);
        if (!fits || (r->type.at && !(str_glob(r->type, type) && str_glob(r->numbers, numbers))))
            continue;
        if (r->verb == ALLOW)
            return true;
        buf_put(c->reason, subjects[subject].name, name.size ? " " : "", str_head(name, 128));
        if (type.size)
            buf_put(c->reason, " (", type, " ", numbers, ")");
        buf_put(c->reason, " is denied");
        return reject(c, r, owner);
    }
    return true;
}

#define allowed_name(c, subject, name) allowed(c, subject, name, (str){0}, (str){0}, (str){0})

// Every entry of a repeated field whose name is its field 1, maps included.
static bool allowed_all(const check *c, enum subject subject, str message, uint32_t field) {
    for (str entry; pb_next_of(&message, field, &entry);)
        if (!allowed_name(c, subject, unmarked(pb_bytes(entry, 1))))
            return false;
    return true;
}

static bool mounts_allowed(const check *c, str adjust) {
    buf path = {0};
    bool good = true;
    for (str mount; good && pb_next_of(&adjust, NRI_ADJ_MOUNTS, &mount);) {
        str owned = unmarked(pb_bytes(mount, NRI_MOUNT_DESTINATION));
        str source = pb_bytes(mount, NRI_MOUNT_SOURCE);
        buf_clear(&path);
        put_clean_path(&path, owned);
        good = allowed(c, MOUNT_AT, buf_str(&path), owned, (str){0}, (str){0});
        buf_clear(&path);
        if (str_starts(source, STR("/"))) // others are no paths of the host: tmpfs, proc
            put_clean_path(&path, source);
        else
            buf_put(&path, source);
        if (good && source.size)
            good = allowed(c, MOUNT, buf_str(&path), owned, (str){0}, (str){0});
    }
    buf_free(&path);
    return good;
}

static bool devices_allowed(const check *c, str linux) {
    buf numbers = {0};
    bool good = true;
    for (str device; good && pb_next_of(&linux, NRI_ADJ_LINUX_DEVICES, &device);) {
        str path = pb_bytes(device, NRI_DEVICE_PATH), type = pb_bytes(device, NRI_DEVICE_TYPE);
        if (str_starts(path, STR("-")))
            continue; // a removal gives nothing away
        buf_clear(&numbers);
        buf_put(&numbers, (int64_t)pb_uint(device, NRI_DEVICE_MAJOR), ":",
                (int64_t)pb_uint(device, NRI_DEVICE_MINOR));
        good = allowed(c, DEVICE, path, path, type, buf_str(&numbers));
    }
    buf_free(&numbers);
    return good;
}

// ---- limits ----

#define UNLIMITED UINT64_MAX

// LinuxResources' limit, in a rule's unit; false when the message has none, which
// stands for the kernel's own.
static bool limit_in(str resources, enum subject subject, str elsewhere, uint64_t *limit) {
    str cpu = pb_bytes(resources, NRI_RES_CPU), pids = pb_bytes(resources, NRI_RES_PIDS), found;
    if (subject == PIDS) {
        *limit = pb_uint(pids, NRI_PIDS_LIMIT);
        found = pids;
    } else {
        found = subject == MEMORY   ? pb_at(resources, NRI_RES_MEMORY, NRI_MEMORY_LIMIT)
                : subject == CPU    ? pb_bytes(cpu, NRI_CPU_QUOTA)
                                    : pb_bytes(cpu, NRI_CPU_SHARES);
        *limit = pb_uint(found, 1);
    }
    if ((int64_t)*limit <= 0)
        *limit = subject == SHARES ? 1024 : UNLIMITED;
    if (subject == CPU && *limit < 1ull << 50) { // quota and period, which may not be adjusted
        uint64_t period = pb_uint(pb_bytes(cpu, NRI_CPU_PERIOD), 1);
        if (period == 0)
            period = pb_uint(pb_at(elsewhere, NRI_RES_CPU, NRI_CPU_PERIOD), 1);
        if (period == 0)
            period = 100000; // the kernel's
        *limit = (*limit * 1000 + period - 1) / period;
    }
    return found.at != NULL;
}

// `had` are the container's own resources, if they are known: lowering what it had is
// never too much.
static bool limits_allowed(const check *c, str resources, str had) {
    for (enum subject subject = MEMORY; subject <= PIDS; subject++) {
        uint64_t want, before;
        if (!limit_in(resources, subject, had, &want))
            continue;
        limit_in(had, subject, had, &before);
        if (had.at && want <= before)
            continue;
        str owner = owner_of(c->owners, subjects[subject].field, (str){0});
        for (const rule *r = rules; r < rules + rule_count; r++) {
            if (r->subject != subject || !from_matches(r, owner))
                continue;
            if (want <= r->most)
                break;
            buf_put(c->reason, subjects[subject].name, " limit ");
            if (want == UNLIMITED)
                buf_put(c->reason, "removed");
            else
                buf_put(c->reason, want, subject == CPU ? "m" : "", " is too high");
            return reject(c, r, owner);
        }
    }
    return true;
}

// ---- the request ----

static bool plugins_there(const check *c, str request) {
    for (const rule *r = rules; r < rules + rule_count; r++) {
        bool there = r->verb != REQUIRE;
        buf full = {0};
        str rest = request, plugin;
        while (!there && pb_next_of(&rest, NRI_VALIDATE_PLUGINS, &plugin)) {
            buf_clear(&full);
            buf_put(&full, pb_bytes(plugin, 2), "-", pb_bytes(plugin, 1)); // 10-name
            there = str_glob(r->pattern, pb_bytes(plugin, 1)) ||
                    str_glob(r->pattern, buf_str(&full));
        }
        buf_free(&full);
        if (!there) {
            buf_put(c->reason, "plugin ", r->pattern, " is not there");
            return reject(c, r, (str){0});
        }
    }
    return true;
}

static bool adjustment_allowed(const check *c, str adjust, str had) {
    str linux = pb_bytes(adjust, NRI_ADJ_LINUX);
    return mounts_allowed(c, adjust) && devices_allowed(c, linux) &&
           allowed_all(c, ENV, adjust, NRI_ADJ_ENV) &&
           allowed_all(c, ANNOTATION, adjust, NRI_ADJ_ANNOTATIONS) &&
           allowed_all(c, SYSCTL, linux, NRI_ADJ_LINUX_SYSCTL) &&
           allowed_all(c, NAMESPACE, linux, NRI_ADJ_LINUX_NAMESPACES) &&
           allowed_all(c, CDI_DEVICE, adjust, NRI_ADJ_CDI_DEVICES) &&
           allowed_all(c, RLIMIT, adjust, NRI_ADJ_RLIMITS) &&
           (pb_bytes(adjust, NRI_ADJ_HOOKS).size == 0 || allowed_name(c, HOOKS, (str){0})) &&
           (pb_bytes(adjust, NRI_ADJ_ARGS).at == NULL || allowed_name(c, ARGS, (str){0})) &&
           (pb_bytes(linux, NRI_ADJ_LINUX_SECCOMP).at == NULL ||
            allowed_name(c, SECCOMP, (str){0})) &&
           limits_allowed(c, pb_bytes(linux, NRI_ADJ_LINUX_RESOURCES), had);
}

static bool validate_container_adjustment(str request, buf *reply) {
    buf reason = {0};
    str container = pb_bytes(request, NRI_REQ_CONTAINER);
    str owners = pb_bytes(request, NRI_VALIDATE_OWNERS), updates = request, update;
    check c = {
        .owners = pb_map_get(owners, 1, pb_bytes(container, NRI_CTR_ID)),
        .reason = &reason,
    };
    bool good = plugins_there(&c, request) &&
                adjustment_allowed(&c, pb_bytes(request, NRI_VALIDATE_ADJUST),
                                   pb_at(container, NRI_CTR_LINUX, NRI_LINUX_RESOURCES));
    while (good && pb_next_of(&updates, NRI_VALIDATE_UPDATE, &update)) {
        str id = pb_bytes(update, NRI_UPDATE_CONTAINER_ID); // another container; what it had
        c.owners = pb_map_get(owners, 1, id);               // is not told
        good = limits_allowed(&c, pb_at(update, NRI_UPDATE_LINUX, NRI_UPDATE_LINUX_RESOURCES),
                              (str){0});
        if (!good)
            buf_put(&reason, ", for container ", str_head(id, 64));
    }
    if (!good) {
        nri_log(NRI_WARN, nri_name(pb_bytes(request, NRI_REQ_POD), NRI_POD_NAME), "/",
                nri_name(container, NRI_CTR_NAME), " rejected: ", buf_str(&reason));
        pb_put_uint(reply, 1, true);
        pb_put_str(reply, 2, buf_str(&reason));
    }
    buf_free(&reason);
    return true;
}

NRI_PLUGIN(validate_container_adjustment)
