// Devices, mounts, CDI devices and network devices that annotations name, in the format of NRI's
// own device-injector.

#ifndef DEVICE_INJECTOR_ANNOTATION_H
#define DEVICE_INJECTOR_ANNOTATION_H

#include "edge_nri.h"
#include "yaml.h"

typedef enum { A_DEVICE, A_MOUNT, A_CDI_DEVICE, A_NET_DEVICE } asked;

// What an annotation may ask for; patterns.
typedef struct permit {
    asked kind;
    str type, major, minor; // of a device
    str path;               // the device's, the mount's source, or a name
} permit;

static bool number_matches(str pattern, uint64_t number) {
    char digits[20];
    uint32_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + number % 10);
    while (number /= 10);
    return str_glob(pattern, (str){digits + i, sizeof digits - i});
}

// ---- one entry of an annotation ----

enum { PATH, TYPE, MAJOR, MINOR, FILE_MODE, UID, GID, DEVICE_KEYS };
enum { SOURCE, DESTINATION, MOUNT_TYPE, OPTIONS, MOUNT_KEYS };
enum { HOST_IF, NAME, NET_KEYS };

static const char *const device_keys[] = {"path", "type", "major", "minor",
                                          "file_mode", "uid", "gid"};
static const char *const mount_keys[] = {"source", "destination", "type", "options"};
static const char *const net_keys[] = {"hostIf", "name"};

// By what is asked for: the keys of an entry, and how many of the first are required.
static const struct {
    const char *const *keys;
    uint8_t count, required;
    const char *known;
} entry_forms[] = {
    [A_DEVICE] = {device_keys, DEVICE_KEYS, TYPE + 1,
                  "path, type, major, minor, file_mode, uid, gid"},
    [A_MOUNT] = {mount_keys, MOUNT_KEYS, MOUNT_TYPE + 1, "source, destination, type, options"},
    [A_NET_DEVICE] = {net_keys, NET_KEYS, NET_KEYS, "hostIf, name"},
};

typedef struct entry {
    yaml y; // first, so that the parser's callback finds the rest
    asked asked;
    bool begun;
    uint32_t line; // where it began
    uint32_t seen; // a bit for each key
    str value[DEVICE_KEYS];
    uint32_t lines[DEVICE_KEYS];
    bool quoted[DEVICE_KEYS];
    buf options; // of a mount, as fields of the message
    buf *reply;
    const permit *permits; // of both kinds; none of a kind allows all of it
    uint32_t permit_count;
    str pod, container; // names, for the log
    bool alone;         // a container without a pod: Docker Engine's
} entry;

// For "pod/container", or only the container where there is no pod.
static void entry_who(const entry *e, buf *line) {
    buf_clear(line);
    buf_put(line, e->pod, e->alone ? "" : "/", e->container, ": ");
}

#define entry_log(e, level, ...)                                                                   \
    do {                                                                                           \
        static buf line;                                                                           \
        entry_who(e, &line);                                                                       \
        buf_put(&line, __VA_ARGS__);                                                               \
        nri_log(level, buf_str(&line));                                                            \
    } while (0)

#define entry_wrong(e, key, ...)                                                                   \
    ((e)->y.line = (e)->lines[key], yaml_wrong(&(e)->y, __VA_ARGS__))

// A number as YAML 1.1 and JSON write it: 0660 and 0o660 are octal, 0x1b0 is not.
static bool entry_number(entry *e, uint32_t key, uint64_t largest, uint64_t *number) {
    str text = e->value[key];
    uint32_t base = 10, prefix = 0;
    if (text.size > 2 && text.at[0] == '0' && (text.at[1] == 'x' || text.at[1] == 'o'))
        base = text.at[1] == 'x' ? 16 : 8, prefix = 2;
    else if (text.size > 1 && text.at[0] == '0')
        base = 8, prefix = 1;
    if (!e->quoted[key] && conf_digits(str_from(text, prefix), base, number) && *number <= largest)
        return true;
    return entry_wrong(e, key, device_keys[key], " is ", &text,
                       e->quoted[key] ? " in quotes" : "", ", not a number from 0 to ", largest);
}

static bool entry_has(const entry *e, uint32_t key) { return e->seen >> key & 1; }

static bool entry_device(entry *e) {
    const uint64_t largest = UINT32_MAX;
    str path = e->value[PATH], type = e->value[TYPE];
    uint64_t major = 0, minor = 0, mode, uid, gid;
    bool fifo = str_is(type, "p");
    if (!str_starts(path, STR("/")))
        return entry_wrong(e, PATH, "path is ", &path, ", not an absolute path");
    if (type.size != 1 || !is_any(type.at[0], "bcup"))
        return entry_wrong(e, TYPE, "type is ", &type,
                           ", not c (character), b (block), u or p");
    if (!fifo && !(entry_has(e, MAJOR) && entry_has(e, MINOR)))
        return yaml_wrong(&e->y, entry_has(e, MAJOR) ? "minor" : "major", " is missing");
    if ((entry_has(e, MAJOR) && !entry_number(e, MAJOR, largest, &major)) ||
        (entry_has(e, MINOR) && !entry_number(e, MINOR, largest, &minor)) ||
        (entry_has(e, FILE_MODE) && !entry_number(e, FILE_MODE, 07777, &mode)) ||
        (entry_has(e, UID) && !entry_number(e, UID, largest, &uid)) ||
        (entry_has(e, GID) && !entry_number(e, GID, largest, &gid)))
        return false;

    if (e->alone)
        return yaml_wrong(&e->y, "Docker Engine takes no devices from a plugin; use `docker run ",
                          "--device ", &path, "` instead");

    bool ruled = false, allowed = false;
    for (uint32_t i = 0; i < e->permit_count; i++) {
        const permit *r = &e->permits[i];
        ruled |= r->kind == A_DEVICE;
        allowed |= r->kind == A_DEVICE && str_glob(r->type, type) &&
                   number_matches(r->major, major) && number_matches(r->minor, minor) &&
                   str_glob(r->path, path);
    }
    if (ruled && !allowed)
        return yaml_wrong(&e->y, "no rule of the configuration allows device ", &path,
                          " (", type, " ", major, ":", minor, ")");

    uint32_t device = pb_open(e->reply, NRI_ADJ_LINUX_DEVICES);
    pb_put_str(e->reply, NRI_DEVICE_PATH, path);
    pb_put_str(e->reply, NRI_DEVICE_TYPE, type);
    pb_put_uint(e->reply, NRI_DEVICE_MAJOR, major);
    pb_put_uint(e->reply, NRI_DEVICE_MINOR, minor);
    if (entry_has(e, FILE_MODE))
        pb_put_optional(e->reply, NRI_DEVICE_FILE_MODE, mode);
    if (entry_has(e, UID))
        pb_put_optional(e->reply, NRI_DEVICE_UID, uid);
    if (entry_has(e, GID))
        pb_put_optional(e->reply, NRI_DEVICE_GID, gid);
    pb_close(e->reply, device);
    entry_log(e, NRI_INFO, "device ", path, " (", type, " ", major, ":", minor, ")");
    return true;
}

// Whether one part of the path is `..`, which would lead around a rule.
static bool climbs(str path) {
    while (path.size)
        if (str_is(str_cut(&path, '/'), ".."))
            return true;
    return false;
}

static bool entry_mount(entry *e) {
    str source = e->value[SOURCE], destination = e->value[DESTINATION];
    if (!str_starts(destination, STR("/")))
        return entry_wrong(e, DESTINATION, "destination is ", &destination,
                           ", not an absolute path");
    bool ruled = false, allowed = false;
    for (uint32_t i = 0; i < e->permit_count; i++) {
        ruled |= e->permits[i].kind == A_MOUNT;
        allowed |= e->permits[i].kind == A_MOUNT && str_glob(e->permits[i].path, source);
    }
    if (ruled && (!allowed || climbs(source)))
        return yaml_wrong(&e->y, "no rule of the configuration allows mounting ",
                          &source);

    uint32_t mount = pb_open(e->reply, NRI_ADJ_MOUNTS);
    pb_put_str(e->reply, NRI_MOUNT_DESTINATION, destination);
    pb_put_str(e->reply, NRI_MOUNT_TYPE, e->value[MOUNT_TYPE]);
    pb_put_str(e->reply, NRI_MOUNT_SOURCE, source);
    buf_put_str(e->reply, buf_str(&e->options));
    pb_close(e->reply, mount);
    entry_log(e, NRI_INFO, "mount ", source, " at ", destination);
    return true;
}

// Docker Engine takes `ro` of a plugin's mount and fails the container for any other option,
// those that it sets by itself included.
static bool entry_option(entry *e, str option) {
    static const char *const own[] = {"bind", "rbind", "rw", "private", "rprivate"};
    if (e->alone && !str_is(option, "ro") && !str_is(option, "readonly")) {
        for (uint32_t i = 0; i < sizeof own / sizeof *own; i++)
            if (str_is(option, own[i]))
                return true;
        return yaml_wrong(&e->y, "Docker Engine takes no option ", &option,
                          " of a plugin's mount, only ro");
    }
    pb_put_item(&e->options, NRI_MOUNT_OPTIONS, option);
    return true;
}

// What rules say of names. Without a rule of any kind all is allowed, as upstream; older
// configurations know devices and mounts only, and allow nothing else.
static bool name_allowed(const entry *e, str name) {
    bool allowed = e->permit_count == 0;
    for (uint32_t i = 0; i < e->permit_count; i++)
        allowed |= e->permits[i].kind == e->asked && str_glob(e->permits[i].path, name);
    return allowed;
}

// VENDOR/CLASS=NAME
static bool entry_cdi(entry *e, str name) {
    str device = name, class = str_cut(&device, '='), vendor = str_cut(&class, '/');
    if (vendor.size == 0 || class.size == 0 || device.size == 0)
        return yaml_wrong(&e->y, &name, " is no CDI device, such as vendor.example/class=name");
    if (e->alone)
        return yaml_wrong(&e->y, "Docker Engine takes no devices from a plugin; use `docker run ",
                          "--device ", &name, "` instead");
    if (!name_allowed(e, name))
        return yaml_wrong(&e->y, "no rule of the configuration allows CDI device ", &name);
    uint32_t device_at = pb_open(e->reply, NRI_ADJ_CDI_DEVICES);
    pb_put_str(e->reply, 1, name);
    pb_close(e->reply, device_at);
    entry_log(e, NRI_INFO, "CDI device ", name);
    return true;
}

// As the kernel takes it (dev_valid_name).
static bool interface_name(str name) {
    for (uint32_t i = 0; i < name.size; i++)
        if (is_any(name.at[i], "/: \t\r"))
            return false;
    return name.size > 0 && name.size < 16 && !str_is(name, ".") && !str_is(name, "..");
}

static bool entry_net(entry *e) {
    for (uint32_t key = 0; key < NET_KEYS; key++)
        if (!interface_name(e->value[key]))
            return entry_wrong(e, key, net_keys[key], " is ", &e->value[key],
                               ", not the name of an interface");
    str host = e->value[HOST_IF];
    if (e->alone)
        return yaml_wrong(&e->y, "Docker Engine takes no network devices from a plugin");
    if (!name_allowed(e, host))
        return yaml_wrong(&e->y, "no rule of the configuration allows network device ", &host);
    uint32_t entry_at = pb_open(e->reply, NRI_ADJ_LINUX_NET_DEVICES);
    pb_put_str(e->reply, NRI_KEY, host);
    uint32_t device = pb_open(e->reply, NRI_VALUE);
    pb_put_str(e->reply, 1, e->value[NAME]);
    pb_close(e->reply, device);
    pb_close(e->reply, entry_at);
    entry_log(e, NRI_INFO, "network device ", host, " as ", e->value[NAME]);
    return true;
}

static bool entry_finish(entry *e) {
    uint32_t line = e->y.line;
    e->y.line = e->line; // what is missing is missing where the entry began
    for (uint32_t key = 0; key < entry_forms[e->asked].required; key++)
        if (!entry_has(e, key))
            return yaml_wrong(&e->y, entry_forms[e->asked].keys[key], " is missing");
    if (!(e->asked == A_MOUNT    ? entry_mount(e)
          : e->asked == A_DEVICE ? entry_device(e)
                                 : entry_net(e)))
        return false;
    e->y.line = line;
    return true;
}

static bool entry_take(yaml *y, yaml_kind kind, str value, bool quoted) {
    entry *e = (entry *)y;
    if (e->asked == A_CDI_DEVICE)
        return kind == YAML_END || entry_cdi(e, value);
    if (kind == YAML_ITEM || kind == YAML_END) {
        if (e->begun && !entry_finish(e))
            return false;
        e->begun = kind == YAML_ITEM;
        e->line = y->line;
        e->seen = 0;
        buf_clear(&e->options);
        return true;
    }
    const char *const *names = entry_forms[e->asked].keys;
    uint32_t count = entry_forms[e->asked].count, key = 0;
    str wanted = e->asked == A_NET_DEVICE && str_is(y->key, "Name") ? STR("name") : y->key;
    while (key < count && !str_is(wanted, names[key]))
        key++;
    if (key == count)
        return yaml_wrong(y, "unknown key ", &y->key, "; known are ", entry_forms[e->asked].known);
    bool list = e->asked == A_MOUNT && key == OPTIONS;
    if (list != (kind == YAML_ELEMENT))
        return yaml_wrong(y, names[key], list ? " wants a list" : " wants one value, not a list");
    if (list) {
        e->seen |= 1u << key;
        return entry_option(e, value);
    }
    if (entry_has(e, key))
        return yaml_wrong(y, names[key], " is given twice");
    e->seen |= 1u << key;
    e->value[key] = value;
    e->quoted[key] = quoted;
    e->lines[key] = y->line;
    return true;
}

// ---- annotations ----

// The most specific annotation counts: container, pod, bare; of two that are equally
// specific the one with the earlier prefix. Its key in `key`.
static str find_annotation(str annotated, str container, const str *prefixes, uint32_t count,
                           str *key) {
    const str own = STR("/container.");
    str entry, found = {0};
    uint32_t best = UINT32_MAX;
    while (pb_next_of(&annotated, NRI_POD_ANNOTATIONS, &entry)) {
        str name = pb_bytes(entry, NRI_KEY);
        for (uint32_t i = 0; i < count; i++) {
            if (!str_starts(name, prefixes[i]))
                continue;
            str rest = str_from(name, prefixes[i].size);
            bool named = str_starts(rest, own) && str_eq(str_from(rest, own.size), container);
            uint32_t rank = named ? 0 : str_is(rest, "/pod") ? 1 : rest.size == 0 ? 2 : 3;
            if (rank == 3 || rank * count + i > best)
                continue;
            best = rank * count + i;
            found = pb_bytes(entry, NRI_VALUE);
            *key = name;
        }
    }
    return found;
}

// Appends what the annotation asks for: fields of an adjustment, or of its `linux` part.
static bool inject(entry *e, str annotated, asked asked, const str *prefixes, uint32_t count) {
    buf why = {0};
    str key = {0}, text = find_annotation(annotated, e->container, prefixes, count, &key);
    e->asked = asked, e->begun = false, e->seen = 0;
    e->y = (yaml){.rest = text,
                  .error = &why,
                  .take = entry_take,
                  .scalars = asked == A_CDI_DEVICE};
    bool good = yaml_parse(&e->y);
    if (!good) {
        (void)nri_error(e->reply, "annotation ", key, ", ", buf_str(&why));
        entry_log(e, NRI_ERROR, buf_str(e->reply));
    }
    buf_free(&why);
    return good;
}

#endif
