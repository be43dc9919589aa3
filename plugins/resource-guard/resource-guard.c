// Gives containers memory, CPU and pids limits where they have none, and lowers what
// is above a maximum; by namespace or pod label. See README.md for the configuration.

#include "limits.h"

// ---- configuration ----

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
    for (uint32_t i = 0; i < RESOURCES; i++) {
        s->bounds.of[SET][i] = NONE;
        s->bounds.of[DEFAULT][i] = s->bounds.of[CAP][i] = UNSET;
    }
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
    uint64_t *amount = &b->of[usual ? DEFAULT : CAP][resource];
    if (*amount != UNSET)
        return conf_error(error, c, key, " is given twice in this section");
    value = str_trim(value);
    if (!parse_amount(resource, value, amount))
        return conf_error(error, c, key, " is ", str_head(value, 40), "; wanted is ",
                          amount_form(resource), " or none");
    uint64_t least = b->of[DEFAULT][resource], most = b->of[CAP][resource];
    if (least < UNSET && most < UNSET && least > most)
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
        b.of[SET][i] = b.of[DEFAULT][i] = b.of[CAP][i] = NONE;
    for (uint32_t n = 0; n < section_count; n++) {
        if (!section_fits(&sections[n], pod))
            continue;
        for (uint32_t i = 0; i < RESOURCES; i++)
            for (level which = DEFAULT; which <= CAP; which++)
                if (sections[n].bounds.of[which][i] != UNSET)
                    b.of[which][i] = sections[n].bounds.of[which][i];
    }
    return b;
}

// Appends the LinuxResources that differ; false when there are none.
static bool guarded(str request, str resources, bool create, buf *out) {
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
    guard(&c, resources);
    return out->size > before;
}

static bool create_container(str request, buf *reply) {
    str have = pb_at(request, NRI_REQ_CONTAINER, NRI_CTR_LINUX, NRI_LINUX_RESOURCES);
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    uint32_t linux = pb_open(reply, NRI_ADJ_LINUX);
    uint32_t resources = pb_open(reply, NRI_ADJ_LINUX_RESOURCES);
    if (!guarded(request, have, true, reply)) {
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
    if (!guarded(request, pb_bytes(request, NRI_UPDATE_REQ_RESOURCES), false, reply)) {
        buf_clear(reply);
        return true;
    }
    pb_close(reply, resources);
    pb_close(reply, linux);
    pb_close(reply, update);
    return true;
}

NRI_PLUGIN(create_container, update_container)
