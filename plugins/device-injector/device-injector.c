// Gives containers the devices and mounts that their pod's annotations name (with Docker
// Engine, which has no pods, their own), in the format of NRI's own device-injector. See README.md.

#include "annotation.h"

// ---- configuration: what annotations may ask for ----

enum { MAX_RULES = 64 };

static buf rules_text; // what the views in `rules` point into
static permit rules[MAX_RULES];
static uint32_t rule_count;

static bool configure(str config, buf *error) {
    buf_clear(&rules_text);
    buf_put_str(&rules_text, config);
    rule_count = 0;
    for (conf c = conf_of(buf_str(&rules_text)); conf_next(&c);) {
        str words = c.line, kind = str_word(&words);
        if (rule_count == MAX_RULES)
            return conf_error(error, c, "more than ", MAX_RULES, " rules");
        permit *r = &rules[rule_count++];
        *r = (permit){.mount = str_is(kind, "mount")};
        if (str_is(kind, "device")) {
            r->type = str_word(&words);
            str numbers = str_word(&words);
            r->major = str_cut(&numbers, ':');
            r->minor = numbers;
        } else if (!r->mount) {
            return conf_error(error, c, "a rule begins with device or mount, not ",
                              str_head(kind, 40));
        }
        r->path = str_word(&words);
        if (r->path.size == 0 || words.size || (!r->mount && r->minor.size == 0))
            return conf_error(error, c, "wanted: device TYPE MAJOR:MINOR PATH (device c 89:* ",
                              "/dev/i2c-*), or mount SOURCE (mount /srv/data/*)");
    }
    return true;
}

static bool create_container(str request, buf *reply) {
    str pod = pb_bytes(request, NRI_REQ_POD), container = pb_bytes(request, NRI_REQ_CONTAINER);
    bool alone = nri_has_no_pod(pod, container);
    static const str devices[] = {STR("devices.noderesource.dev"), STR("devices.nri.io")};
    static const str mounts[] = {STR("mounts.noderesource.dev"), STR("mounts.nri.io")};
    entry e = {
        .reply = reply,
        .permits = rules,
        .permit_count = rule_count,
        .pod = alone ? STR("") : nri_name(pod, NRI_POD_NAME),
        .container = nri_name(container, NRI_CTR_NAME),
        .alone = alone,
    };
    // A container's own annotations count only where there is no pod to have any. Never its
    // labels: an image brings labels of its own, and would give itself the host's files.
    static_assert((int)NRI_POD_ANNOTATIONS == (int)NRI_CTR_ANNOTATIONS, "one field for both");
    str annotated = alone ? container : pod;
    uint32_t adjust = pb_open(reply, NRI_CREATE_ADJUST);
    uint32_t linux = pb_open(reply, NRI_ADJ_LINUX);
    bool good = inject(&e, annotated, false, devices, 2);
    if (good) {
        if (reply->size == linux) { // no device: take the empty message back
            reply->size = adjust;
        } else {
            pb_close(reply, linux);
        }
        good = inject(&e, annotated, true, mounts, 2);
    }
    if (good && reply->size == adjust)
        buf_clear(reply); // nothing to adjust
    else if (good)
        pb_close(reply, adjust);
    buf_free(&e.options);
    return good;
}

NRI_PLUGIN(create_container)
