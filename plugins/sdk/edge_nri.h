// The C SDK for NRI plugins in WebAssembly. A plugin is one C file:
//
//     #include "edge_nri.h"
//
//     static bool configure(str config, buf *error) { return true; }
//     static bool create_container(str request, buf *reply) { ... return true; }
//     NRI_PLUGIN(create_container)
//
// `request` is the message the runtime sent, to be read in place; `reply` takes
// the response message, empty for "nothing to change". To fail the request:
// `return nri_error(reply, "why: ", what)`. NRI_PLUGIN exports exactly the methods
// it names, and Configure subscribes to exactly their events. See docs/plugins.md.

#ifndef EDGE_NRI_H
#define EDGE_NRI_H

#include "base.h"
#include "conf.h"
#include "nri_fields.h"
#include "pb.h"

#define NRI_EXPORT(name) __attribute__((export_name(name)))
#define NRI_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

// ---- results: pointer in the high word, size in the low, bit 31 for an error ----

#define NRI_ERROR_BIT (1ull << 31)

SDK uint64_t nri_pack(const char *at, uint32_t size) {
    return (uint64_t)(uintptr_t)at << 32 | size;
}

// ---- host functions ----

typedef uint64_t nri_host_function(const char *at, uint32_t size);

NRI_IMPORT("env", "log") nri_host_function nri_host_log;
NRI_IMPORT("edge", "report") nri_host_function nri_host_report;
NRI_IMPORT("edge", "update_containers") nri_host_function nri_host_update_containers;
NRI_IMPORT("edge", "state_get") nri_host_function nri_host_state_get;
NRI_IMPORT("edge", "state_put") nri_host_function nri_host_state_put;

enum { NRI_DEBUG = 1, NRI_INFO, NRI_WARN, NRI_ERROR };

// What is said to the host is put together here; kept, so that it grows only once.
static buf nri_out;

// Calls with what is in `request` and empties it. The reply is the caller's to free;
// why the host refused goes to the log, so callers need not tell it again.
SDK bool nri_call(nri_host_function *function, buf *request, str *reply) {
    *reply = (str){0};
    bool good = !request->full;
    if (good) {
        uint64_t packed = function(request->at, request->size);
        *reply = (str){(const char *)(uintptr_t)(packed >> 32), packed & (NRI_ERROR_BIT - 1)};
        good = !(packed & NRI_ERROR_BIT);
        if (!good) {
            buf_clear(&nri_out);
            pb_put_uint(&nri_out, 2, NRI_WARN);
            pb_put_str(&nri_out, 1, *reply);
            nri_host_log(nri_out.at, nri_out.size);
        }
    }
    buf_clear(request);
    return good;
}

SDK bool nri_tell(nri_host_function *function, buf *request) {
    str reply;
    bool good = nri_call(function, request, &reply);
    heap_give((void *)reply.at);
    return good;
}

// The level goes first: a host that cuts a long line then still has it.
#define nri_log(level, ...)                                                                        \
    do {                                                                                           \
        pb_put_uint(&nri_out, 2, level);                                                           \
        uint32_t nri_text = pb_open(&nri_out, 1);                                                  \
        buf_put(&nri_out, __VA_ARGS__);                                                            \
        pb_close(&nri_out, nri_text);                                                              \
        nri_tell(nri_host_log, &nri_out);                                                          \
    } while (0)

// Publishes a result of the plugin's own making, with the event that is running.
SDK bool edge_report(str kind, str payload, str content_type) {
    pb_put_str(&nri_out, 1, kind);
    pb_put_str(&nri_out, 2, payload);
    pb_put_str(&nri_out, 3, content_type);
    return nri_tell(nri_host_report, &nri_out);
}

// Asks for updates of containers other than the event's; `request` is an
// UpdateContainersRequest, sent after the event has been answered.
SDK bool edge_update_containers(buf *request) {
    return nri_tell(nri_host_update_containers, request);
}

// Appends the value to `value`; false when there is none.
SDK bool edge_state_get(str key, buf *value) {
    str reply;
    pb_put_str(&nri_out, 1, key);
    bool good = nri_call(nri_host_state_get, &nri_out, &reply) && pb_uint(reply, 2);
    if (good)
        buf_put_str(value, pb_bytes(reply, 1));
    heap_give((void *)reply.at);
    return good;
}

// An empty value removes the key.
SDK bool edge_state_put(str key, str value) {
    pb_put_str(&nri_out, 1, key);
    pb_put_str(&nri_out, 2, value);
    return nri_tell(nri_host_state_put, &nri_out);
}

// ---- pods and containers ----

// The name of a pod (NRI_POD_NAME) or a container (NRI_CTR_NAME) as people know it:
// Docker Engine puts a slash before it.
SDK str nri_name(str message, uint32_t field) {
    str name = pb_bytes(message, field);
    return str_starts(name, STR("/")) ? str_from(name, 1) : name;
}

// Docker Engine has no pods: it tells of each container as of a pod of the same id,
// with nothing else in it (moby, daemon/internal/nri, containerToNRI).
SDK bool nri_has_no_pod(str pod, str container) {
    str id = pb_bytes(pod, NRI_POD_ID);
    return id.size && str_eq(id, pb_bytes(container, NRI_CTR_ID));
}

// ---- exports ----

#ifndef NRI_OWN_ABI // the tests' hostile guest brings its own

NRI_EXPORT("malloc") uint32_t nri_malloc(uint32_t size) { return (uint32_t)heap_take(size); }
NRI_EXPORT("free") void nri_free(uint32_t memory) { heap_give((void *)memory); }
NRI_EXPORT("plugin_api_version") uint64_t nri_api_version(void) { return 1; }

typedef bool nri_method(str request, buf *reply);

SDK uint64_t nri_serve(nri_method *method, const char *at, uint32_t size) {
    static const char no_memory[] = "out of memory"; // heap_give() leaves it alone
    buf reply = {0};
    pb_malformed = heap_refused = false;
    bool good = method((str){at, size}, &reply);
    if (pb_malformed)
        good = nri_error(&reply, "malformed message");
    if (heap_refused) { // nothing half done may look like an answer
        buf_free(&reply);
        return nri_pack(no_memory, sizeof no_memory - 1) | NRI_ERROR_BIT;
    }
    if (reply.size == 0)
        buf_free(&reply);
    return nri_pack(reply.at, reply.size) | (good ? 0 : NRI_ERROR_BIT);
}

static uint32_t nri_events(void); // by NRI_PLUGIN
static bool configure(str config, buf *error);

SDK bool nri_configure(str request, buf *reply) {
    if (!configure(pb_bytes(request, 1), reply))
        return false;
    buf_clear(reply);
    pb_put_uint(reply, 2, nri_events());
    return true;
}

#define NRI_METHOD(name, function)                                                                 \
    NRI_EXPORT("plugin_" #name) uint64_t nri_export_##name(const char *at, uint32_t size) {        \
        return nri_serve(function, at, size);                                                      \
    }

// Beside NRI_PLUGIN: EDGE_METHOD(on_timer) and EDGE_METHOD(on_pressure) export what the agent calls by
// time and by pressure of the board (docs/plugins.md). Their reply stays empty; they ask for changes
// with edge_update_containers().
#define EDGE_METHOD(name)                                                                          \
    NRI_EXPORT("edge_" #name) uint64_t edge_export_##name(const char *at, uint32_t size) {         \
        return nri_serve(name, at, size);                                                          \
    }

enum {
    EDGE_TIMER_INTERVAL_MS = 1, // OnTimerRequest
    EDGE_PRESSURE_EXCEEDED = 1, // OnPressureRequest; none: what was exceeded is over
    EDGE_REQ_BOARD = 2,         // of both
    EDGE_EXCEEDED_READING = 1,  // Exceeded: "memory", "cpu", "io", "temperature", ...
    EDGE_EXCEEDED_VALUE = 2,
    EDGE_EXCEEDED_THRESHOLD = 3,
    EDGE_BOARD_MEMORY = 1, // Board: Pressure
    EDGE_BOARD_CPU = 2,
    EDGE_BOARD_IO = 3,
    EDGE_BOARD_TEMPERATURE = 4, // sint32, thousandths of a degree
    EDGE_BOARD_THROTTLED = 5,
    EDGE_BOARD_DISK = 6,
    EDGE_SOME_10 = 1, // Pressure: hundredths of a percent
    EDGE_SOME_60 = 2,
    EDGE_SOME_300 = 3,
    EDGE_FULL_10 = 4,
    EDGE_FULL_60 = 5,
    EDGE_FULL_300 = 6,
    EDGE_DISK_FREE = 1, // Disk: bytes
    EDGE_DISK_TOTAL = 2,
};

#define NRI_PLUGIN(...)                                                                            \
    NRI_METHOD(configure, nri_configure)                                                           \
    BUF_EXPAND(NRI_EACH_METHOD(__VA_ARGS__))                                                       \
    static uint32_t nri_events(void) { return 0 BUF_EXPAND(NRI_EACH_EVENT(__VA_ARGS__)); }
#define NRI_EACH_METHOD(name, ...)                                                                 \
    NRI_METHOD(name, name) __VA_OPT__(NRI_MORE_METHODS BUF_PARENS(__VA_ARGS__))
#define NRI_MORE_METHODS() NRI_EACH_METHOD
#define NRI_EACH_EVENT(name, ...)                                                                  \
    | NRI_EVENTS_##name __VA_OPT__(NRI_MORE_EVENTS BUF_PARENS(__VA_ARGS__))
#define NRI_MORE_EVENTS() NRI_EACH_EVENT

#endif
#endif
