// Logs every event and reports it with edge.report. Knows both generations: events
// that have a method of their own, and those that come through StateChange.

#include "edge_nri.h"

// ---- configuration ----

static uint32_t level; // of the log lines; 0: none
static bool reports;
static buf text; // what `namespaces` points into
static str namespaces; // a pattern

static bool configure(str config, buf *error) {
    buf_clear(&text);
    buf_put_str(&text, config);
    level = NRI_INFO, reports = true, namespaces = STR("*");
    for (conf c = conf_of(buf_str(&text)); conf_next(&c);) {
        str value = c.line, key = str_trim(str_cut(&value, '='));
        value = str_trim(value);
        if (str_is(key, "log")) {
            level = str_is(value, "info") ? NRI_INFO : str_is(value, "debug") ? NRI_DEBUG : 0;
            if (level == 0 && !str_is(value, "off"))
                return conf_error(error, c, "log is info, debug or off");
        } else if (str_is(key, "report")) {
            reports = str_is(value, "on");
            if (!reports && !str_is(value, "off"))
                return conf_error(error, c, "report is on or off");
        } else if (str_is(key, "namespace") && value.size) {
            namespaces = value;
        } else {
            return conf_error(error, c, "unknown setting ", str_head(c.line, 60),
                              "; known are log, report and namespace, each followed by = VALUE");
        }
    }
    return true;
}

// ---- reports: one JSON object for each event ----

static void put_json(buf *out, const char *key, str value) {
    static const char hex[] = "0123456789abcdef";
    value = str_head(value, 256); // names are shorter; a report must stay below 16 KiB
    buf_put(out, "\"", key, "\":\"");
    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t c = (uint8_t)value.at[i];
        if (c == '"' || c == '\\')
            buf_put_char(out, '\\');
        if (c >= 0x20) {
            buf_put_char(out, (char)c);
        } else {
            buf_put(out, "\\u00");
            buf_put_char(out, hex[c >> 4]);
            buf_put_char(out, hex[c & 15]);
        }
    }
    buf_put(out, "\"");
}

static void put_object(buf *out, const char *name, str id, str label, str space) {
    buf_put(out, ",\"", name, "\":{");
    put_json(out, "id", id);
    buf_put(out, ",");
    put_json(out, "name", label);
    if (space.at) {
        buf_put(out, ",");
        put_json(out, "namespace", space);
    }
    buf_put(out, "}");
}

static bool tell(const char *event, str pod, str container) {
    str space = pb_bytes(pod, NRI_POD_NAMESPACE);
    str pod_name = nri_name(pod, NRI_POD_NAME), name = nri_name(container, NRI_CTR_NAME);
    if (!str_glob(namespaces, space))
        return true;
    if (level && container.at)
        nri_log(level, event, " ", space, "/", pod_name, " ", name);
    else if (level)
        nri_log(level, event, " ", space, "/", pod_name);
    if (reports) {
        buf json = {0};
        buf_put(&json, "{");
        put_json(&json, "event", str_of(event));
        if (pod.at)
            put_object(&json, "pod", pb_bytes(pod, NRI_POD_ID), pod_name,
                       space.at ? space : STR(""));
        if (container.at)
            put_object(&json, "container", pb_bytes(container, NRI_CTR_ID), name, (str){0});
        buf_put(&json, "}");
        edge_report(STR("event"), buf_str(&json), STR("application/json"));
        buf_free(&json);
    }
    return true;
}

// ---- methods ----

static bool synchronize(str request, buf *reply) {
    uint32_t pods = 0, containers = 0;
    for (pb_field field; pb_next(&request, &field);) {
        pods += field.number == NRI_SYNC_PODS;
        containers += field.number == NRI_SYNC_CONTAINERS;
    }
    if (level)
        nri_log(level, "synchronize: ", pods, " pods, ", containers, " containers");
    if (reports) {
        buf json = {0};
        buf_put(&json, "{\"event\":\"synchronize\",\"pods\":", pods, ",\"containers\":", containers,
                "}");
        edge_report(STR("event"), buf_str(&json), STR("application/json"));
        buf_free(&json);
    }
    return true;
}

static bool shutdown(str request, buf *reply) {
    if (level)
        nri_log(level, "shutdown");
    return true;
}

#define EVENT(name)                                                                                \
    static bool name(str request, buf *reply) {                                                    \
        return tell(#name, pb_bytes(request, NRI_REQ_POD), pb_bytes(request, NRI_REQ_CONTAINER));  \
    }
#define POD_EVENT(name) /* field 2 is something else there */                                      \
    static bool name(str request, buf *reply) {                                                    \
        return tell(#name, pb_bytes(request, NRI_REQ_POD), (str){0});                              \
    }
POD_EVENT(run_pod_sandbox)
POD_EVENT(update_pod_sandbox)
POD_EVENT(post_update_pod_sandbox)
POD_EVENT(stop_pod_sandbox)
POD_EVENT(remove_pod_sandbox)
EVENT(create_container)
EVENT(post_create_container)
EVENT(start_container)
EVENT(post_start_container)
EVENT(update_container)
EVENT(post_update_container)
EVENT(stop_container)
EVENT(remove_container)
EVENT(validate_container_adjustment)

static bool state_change(str request, buf *reply) {
    static const char *const names[] = {
        "unknown_event",      "run_pod_sandbox",       "stop_pod_sandbox",
        "remove_pod_sandbox", "create_container",      "post_create_container",
        "start_container",    "post_start_container",  "update_container",
        "post_update_container", "stop_container",     "remove_container",
        "update_pod_sandbox", "post_update_pod_sandbox",
    };
    uint64_t event = pb_uint(request, NRI_STATE_EVENT);
    return tell(names[event < sizeof names / sizeof *names ? event : 0],
                pb_bytes(request, NRI_STATE_POD), pb_bytes(request, NRI_STATE_CONTAINER));
}

NRI_PLUGIN(synchronize, shutdown, run_pod_sandbox, update_pod_sandbox, post_update_pod_sandbox,
           stop_pod_sandbox, remove_pod_sandbox, create_container, post_create_container,
           start_container, post_start_container, update_container, post_update_container,
           stop_container, remove_container, validate_container_adjustment, state_change)
