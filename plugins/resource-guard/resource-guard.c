// Gives containers memory, CPU and pids limits where they have none, and lowers what
// is above a maximum; by namespace or pod label. See README.md for the configuration.

#include "edge_nri.h"

// ---- configuration ----

enum { MEMORY, CPU, SHARES, PIDS, RESOURCES };
static const char *const resource_names[] = {"memory", "cpu", "shares", "pids"};

#define NONE UINT64_MAX

typedef struct bounds { // memory in bytes, cpu in thousandths
    uint64_t usual[RESOURCES], most[RESOURCES];
} bounds;

#define UNSET (NONE - 1) // in a section: what earlier sections say

typedef struct section {
    enum { EVERY, NAMESPACE, LABEL } kind;
    str key, pattern;
    uint32_t line;
    bounds bounds;
} section;

enum { MAX_SECTIONS = 32 };
static buf text; // what the views in `sections` point into
static section sections[MAX_SECTIONS];
static uint32_t section_count;

static bool begin_section(conf c, buf *error) {
    str words = str_from(c.line, 1);
    if (words.size == 0 || words.at[words.size - 1] != ']')
        return conf_error(error, c, "the section's ] is missing");
    words.size--;
    if (section_count == MAX_SECTIONS)
        return conf_error(error, c, "more than ", MAX_SECTIONS, " sections");
    section *s = &sections[section_count++];
    *s = (section){.line = c.number};
    for (uint32_t i = 0; i < RESOURCES; i++)
        s->bounds.usual[i] = s->bounds.most[i] = UNSET;
    str kind = str_word(&words);
    s->pattern = words;
    if (str_is(kind, "default") && words.size == 0)
        return true;
    if (str_is(kind, "namespace") && words.size) {
        s->kind = NAMESPACE;
        return true;
    }
    if (str_is(kind, "label") && words.size) {
        s->kind = LABEL;
        s->key = str_cut(&s->pattern, '=');
        if (s->key.size && s->key.size < words.size)
            return true;
    }
    return conf_error(error, c, "a section is [default], [namespace PATTERN] or ",
                      "[label KEY=PATTERN], not ", str_head(c.line, 60));
}

static bool parse_amount(uint32_t resource, str amount, uint64_t *value) {
    if (str_is(amount, "none")) {
        *value = NONE;
        return true;
    }
    bool good = resource == MEMORY ? conf_size(amount, value)
                : resource == CPU  ? conf_cpu(amount, value)
                                   : conf_uint(amount, value);
    return good && *value > 0 && *value <= INT64_MAX;
}

static bool parse_setting(conf c, buf *error) {
    str value = c.line, key = str_trim(str_cut(&value, '=')), which = key;
    str name = str_cut(&which, '.');
    uint32_t resource = 0;
    while (resource < RESOURCES && !str_is(name, resource_names[resource]))
        resource++;
    bool usual = str_is(which, "default");
    if (resource == RESOURCES || (!usual && !str_is(which, "maximum")))
        return conf_error(error, c, "unknown key ", str_head(key, 60),
                          "; known are memory, cpu, shares, pids, each with .default or .maximum");
    if (section_count == 0)
        return conf_error(error, c, "a setting before the first section; begin with [default]");
    bounds *b = &sections[section_count - 1].bounds;
    uint64_t *amount = usual ? &b->usual[resource] : &b->most[resource];
    if (*amount != UNSET)
        return conf_error(error, c, key, " is given twice in this section");
    value = str_trim(value);
    if (!parse_amount(resource, value, amount))
        return conf_error(error, c, key, " is ", str_head(value, 40), "; wanted is ",
                          resource == MEMORY ? "a size such as 128Mi"
                          : resource == CPU  ? "a number of CPUs such as 0.5 or 500m"
                                             : "a number above 0",
                          " or none");
    if (b->usual[resource] < UNSET && b->most[resource] < UNSET &&
        b->usual[resource] > b->most[resource])
        return conf_error(error, c, name, ".default is above ", name, ".maximum");
    return true;
}

static bool configure(str config, buf *error) {
    buf_clear(&text);
    buf_put_str(&text, config);
    section_count = 0;
    for (conf c = conf_of(buf_str(&text)); conf_next(&c);)
        if (!(c.line.at[0] == '[' ? begin_section(c, error) : parse_setting(c, error)))
            return false;
    return true;
}

// ---- which bounds a pod's containers have: a later section that fits overrides ----

static bool section_fits(const section *s, str pod) {
    if (s->kind == NAMESPACE)
        return str_glob(s->pattern, pb_bytes(pod, NRI_POD_NAMESPACE));
    if (s->kind == LABEL) {
        str label = pb_map_get(pod, NRI_POD_LABELS, s->key);
        return label.at && str_glob(s->pattern, label);
    }
    return true;
}

static bounds bounds_of(str pod) {
    bounds b;
    for (uint32_t i = 0; i < RESOURCES; i++)
        b.usual[i] = b.most[i] = NONE;
    for (uint32_t n = 0; n < section_count; n++) {
        if (!section_fits(&sections[n], pod))
            continue;
        for (uint32_t i = 0; i < RESOURCES; i++) {
            uint64_t usual = sections[n].bounds.usual[i], most = sections[n].bounds.most[i];
            b.usual[i] = usual == UNSET ? b.usual[i] : usual;
            b.most[i] = most == UNSET ? b.most[i] : most;
        }
    }
    return b;
}

// ---- limits ----

typedef struct change {
    const bounds *bounds;
    bool create;     // or an update, where an absent or zero limit means "as it is"
    str pod, name;   // for the log
    buf *out;        // LinuxResources
} change;

static int64_t value_of(str message, uint32_t field) {
    return (int64_t)pb_uint(pb_bytes(message, field), 1); // OptionalInt64 and its family
}

// What `have` has to become; zero: it may stay. Not above zero is unlimited.
static uint64_t decide(const change *c, uint32_t resource, int64_t have, uint64_t unlimited) {
    uint64_t usual = c->bounds->usual[resource], most = c->bounds->most[resource], want = 0;
    if (have == 0 && !c->create)
        return 0;
    if (have <= 0 || (uint64_t)have >= unlimited) {
        want = c->create && usual < most ? usual : most;
        if (want == NONE)
            return 0;
        nri_log(NRI_INFO, c->pod, "/", c->name, ": ", resource_names[resource], " limited to ",
                want, resource == CPU ? "m" : "");
    } else if ((uint64_t)have > most) {
        want = most;
        nri_log(NRI_INFO, c->pod, "/", c->name, ": ", resource_names[resource], " lowered from ",
                have, " to ", want, resource == CPU ? "m" : "");
    }
    return want;
}

static void guard_memory(const change *c, str have) {
    // cgroup v1 says "unlimited" as the largest multiple of a page.
    uint64_t limit = decide(c, MEMORY, value_of(have, NRI_MEMORY_LIMIT), 1ull << 62);
    if (limit == 0)
        return;
    uint32_t memory = pb_open(c->out, NRI_RES_MEMORY);
    pb_put_optional(c->out, NRI_MEMORY_LIMIT, limit);
    // Both count within the limit; a runtime refuses them above it (swap is memory and swap).
    if (value_of(have, NRI_MEMORY_RESERVATION) > (int64_t)limit)
        pb_put_optional(c->out, NRI_MEMORY_RESERVATION, limit);
    if (value_of(have, NRI_MEMORY_SWAP) > (int64_t)limit)
        pb_put_optional(c->out, NRI_MEMORY_SWAP, limit);
    pb_close(c->out, memory);
}

static void guard_cpu(const change *c, str have) {
    const uint64_t usual_period = 100000, least_period = 1000, most_period = 1000000; // kernel's
    const uint64_t least_quota = 1000, no_shares = 2;
    int64_t quota = value_of(have, NRI_CPU_QUOTA);
    uint64_t given = (uint64_t)value_of(have, NRI_CPU_PERIOD);
    uint64_t period = given >= least_period && given <= most_period ? given : usual_period;
    int64_t milli = quota <= 0 ? quota : INT64_MAX;
    if (quota > 0 && quota < (int64_t)1 << 50) // rounded up, so that more than the most is seen
        milli = (int64_t)(((uint64_t)quota * 1000 + period - 1) / period);
    uint64_t cpu = decide(c, CPU, milli, NONE);
    // The kubelet's 2 stands for "no request"; an absent value for 1024.
    int64_t now = value_of(have, NRI_CPU_SHARES);
    uint64_t shares = decide(c, SHARES, now == (int64_t)no_shares ? 0 : now, NONE);
    if (cpu == 0 && shares == 0)
        return;
    uint32_t message = pb_open(c->out, NRI_RES_CPU);
    if (shares)
        pb_put_optional(c->out, NRI_CPU_SHARES, shares);
    if (cpu) {
        uint64_t limit = cpu < NONE / most_period ? cpu * period / 1000 : INT64_MAX;
        pb_put_optional(c->out, NRI_CPU_QUOTA, limit < least_quota ? least_quota : limit);
        if (period != given)
            pb_put_optional(c->out, NRI_CPU_PERIOD, period);
    }
    pb_close(c->out, message);
}

static void guard_pids(const change *c, str have) {
    uint64_t limit = decide(c, PIDS, (int64_t)pb_uint(have, NRI_PIDS_LIMIT), NONE);
    if (limit == 0)
        return;
    uint32_t pids = pb_open(c->out, NRI_RES_PIDS);
    pb_put_uint(c->out, NRI_PIDS_LIMIT, limit);
    pb_close(c->out, pids);
}

// Appends the LinuxResources that differ; false when there are none.
static bool guard(str request, str resources, bool create, buf *out) {
    str pod = pb_bytes(request, NRI_REQ_POD);
    const bounds b = bounds_of(pod);
    const change c = {
        .bounds = &b,
        .create = create,
        .pod = nri_name(pod, NRI_POD_NAME),
        .name = nri_name(pb_bytes(request, NRI_REQ_CONTAINER), NRI_CTR_NAME),
        .out = out,
    };
    uint32_t before = out->size;
    guard_memory(&c, pb_bytes(resources, NRI_RES_MEMORY));
    guard_cpu(&c, pb_bytes(resources, NRI_RES_CPU));
    guard_pids(&c, pb_bytes(resources, NRI_RES_PIDS));
    return out->size > before;
}

static bool create_container(str request, buf *reply) {
    str have = pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_LINUX, NRI_LINUX_RESOURCES);
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    uint32_t linux = pb_open(reply, NRI_ADJ_LINUX);
    uint32_t resources = pb_open(reply, NRI_ADJ_LINUX_RESOURCES);
    if (!guard(request, have, true, reply)) {
        buf_clear(reply);
        return true;
    }
    pb_close(reply, resources);
    pb_close(reply, linux);
    pb_close(reply, adjust);
    return true;
}

static bool update_container(str request, buf *reply) {
    str id = pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_ID);
    uint32_t update = pb_open(reply, NRI_UPDATED_UPDATE);
    pb_put_str(reply, NRI_UPDATE_CONTAINER_ID, id);
    uint32_t linux = pb_open(reply, NRI_UPDATE_LINUX);
    uint32_t resources = pb_open(reply, NRI_UPDATE_LINUX_RESOURCES);
    if (!guard(request, pb_bytes(request, NRI_UPDATE_REQ_RESOURCES), false, reply)) {
        buf_clear(reply);
        return true;
    }
    pb_close(reply, resources);
    pb_close(reply, linux);
    pb_close(reply, update);
    return true;
}

NRI_PLUGIN(create_container, update_container)
