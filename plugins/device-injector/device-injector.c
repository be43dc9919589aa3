// Gives containers the devices, mounts, CDI devices and network devices that their pod's
// annotations name (with Docker Engine, which has no pods, their own), in the format of NRI's own
// device-injector. See README.md.

#include "annotation.h"

// ---- configuration: what annotations may ask for ----

enum { MAX_RULES = 64 };

static buf rules_text; // what the views in `rules` point into
static permit rules[MAX_RULES];
static uint32_t rule_count;

#define COUNT(array) (sizeof(array) / sizeof *(array))
static const char *const kinds[] = {[A_DEVICE] = "device",
                                    [A_MOUNT] = "mount",
                                    [A_CDI_DEVICE] = "cdi-device",
                                    [A_NET_DEVICE] = "net-device"};

static bool configure(str config, buf *error) {
    buf_clear(&rules_text);
    buf_put_str(&rules_text, config);
    rule_count = 0;
    for (conf c = conf_of(buf_str(&rules_text)); conf_next(&c);) {
        str words = c.line, kind = str_word(&words);
        if (rule_count == MAX_RULES)
            return conf_error(error, c, "more than ", MAX_RULES, " rules");
        permit *r = &rules[rule_count++];
        *r = (permit){0};
        while (r->kind < COUNT(kinds) && !str_is(kind, kinds[r->kind]))
            r->kind++;
        if (r->kind == COUNT(kinds))
            return conf_error(error, c, "a rule begins with device, mount, cdi-device or ",
                              "net-device, not ", str_head(kind, 40));
        if (r->kind == A_DEVICE) {
            r->type = str_word(&words);
            str numbers = str_word(&words);
            r->major = str_cut(&numbers, ':');
            r->minor = numbers;
        }
        r->path = str_word(&words);
        if (r->path.size == 0 || words.size || (r->kind == A_DEVICE && r->minor.size == 0))
            return conf_error(error, c, "wanted: device TYPE MAJOR:MINOR PATH (device c 89:* ",
                              "/dev/i2c-*), mount SOURCE (mount /srv/data/*), cdi-device NAME ",
                              "(cdi-device vendor.example/class=*) or net-device NAME");
    }
    return true;
}

static const str prefixes[][2] = {
    [A_DEVICE] = {STR("devices.noderesource.dev"), STR("devices.nri.io")},
    [A_MOUNT] = {STR("mounts.noderesource.dev"), STR("mounts.nri.io")},
    [A_CDI_DEVICE] = {STR("cdi-devices.noderesource.dev"), STR("cdi-devices.nri.io")},
    [A_NET_DEVICE] = {STR("network-devices.noderesource.dev"), STR("network-devices.nri.io")},
};

static bool create_container(str request, buf *reply) {
    str pod = pb_bytes(request, NRI_REQ_POD), container = pb_bytes(request, NRI_REQ_CONTAINER);
    bool alone = nri_has_no_pod(pod, container);
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
    bool good = inject(&e, annotated, A_DEVICE, prefixes[A_DEVICE], 2) &&
                inject(&e, annotated, A_NET_DEVICE, prefixes[A_NET_DEVICE], 2);
    if (good && reply->size == linux) // nothing in it: take the empty message back
        reply->size = adjust;
    else if (good)
        pb_close(reply, linux);
    good = good && inject(&e, annotated, A_MOUNT, prefixes[A_MOUNT], 2) &&
           inject(&e, annotated, A_CDI_DEVICE, prefixes[A_CDI_DEVICE], 2);
    if (good && reply->size == adjust)
        buf_clear(reply); // nothing to adjust
    else if (good)
        pb_close(reply, adjust);
    buf_free(&e.options);
    return good;
}

NRI_PLUGIN(create_container)
