// A guest that misbehaves on request: each thing a host must survive has a name.
//
// Configure's text says which method does what, one `method:behaviour [number]` in
// a line; `*` is every method but configure. For CreateContainer the annotation
// `edge.test/behaviour` of the container or pod comes first. What changes malloc
// or free begins with the call it is named for and lasts.

#define NRI_OWN_ABI
#include "edge_nri.h"

static enum { MALLOC_OK, MALLOC_ZERO, MALLOC_OUTSIDE } malloc_mode;
static bool free_traps;
static buf rules;

NRI_EXPORT("malloc") uint32_t hostile_malloc(uint32_t size) {
    if (malloc_mode == MALLOC_ZERO)
        return 0;
    if (malloc_mode == MALLOC_OUTSIDE)
        return 0xFFFFFFF0u;
    return (uint32_t)heap_take(size);
}

NRI_EXPORT("free") void hostile_free(uint32_t memory) {
    if (free_traps)
        __builtin_trap();
    heap_give((void *)memory);
}

#ifndef API_VERSION // hostile-version.wasm sets another
#define API_VERSION 1
#endif
NRI_EXPORT("plugin_api_version") uint64_t hostile_api_version(void) { return API_VERSION; }

// ---- behaviours: each returns the packed result, or never does ----

static volatile uint32_t sink; // what is stored here cannot be optimised away

static uint64_t loop(uint32_t n) {
    while (true)
        sink++;
}

static uint64_t bomb(uint32_t n) { // until refused, and then again
    while (true)
        __builtin_wasm_memory_grow(0, 16);
}

static uint64_t bomb_touch(uint32_t n) {
    while (true) {
        size_t page = __builtin_wasm_memory_grow(0, 1);
        for (size_t i = 0; page != (size_t)-1 && i < 65536; i += 4096)
            *(volatile char *)(page * 65536 + i) = 1;
    }
}

#pragma clang diagnostic ignored "-Winfinite-recursion"
__attribute__((noinline)) static uint64_t recurse(uint32_t n) { // on the engine's stack
    uint64_t deeper = recurse(n + sink);
    return deeper + sink; // so that it is no tail call
}

__attribute__((noinline)) static uint64_t recurse_frames(uint32_t n) { // on the module's own
    volatile char frame[1024];
    frame[n % sizeof frame] = 1;
    uint64_t deeper = recurse_frames(n + 1);
    return deeper + (uint64_t)frame[0];
}

static uint64_t out_of_bounds(uint32_t n) { return *(volatile uint64_t *)0xFFFFFFF0u; }
static uint64_t trap(uint32_t n) { __builtin_trap(); }
static uint64_t bad_pointer_reply(uint32_t n) { return nri_pack((char *)0xFFFF0000u, 16); }
static uint64_t straddling_reply(uint32_t n) { // begins inside the memory, ends outside
    return nri_pack((char *)(__builtin_wasm_memory_size(0) * 65536 - 8), 16);
}
static uint64_t huge_reply(uint32_t n) { return nri_pack((char *)1024, n ? n : 0x7FFFFFFF); }
static uint64_t huge_error(uint32_t n) { return huge_reply(n) | NRI_ERROR_BIT; }
static uint64_t null_reply(uint32_t n) { return nri_pack(NULL, n ? n : 8); } // readable, not null

// A reply of n bytes (5 MiB): one unknown field, so valid wherever a message is.
static uint64_t reply_over_limit(uint32_t n) {
    buf reply = {0};
    char *at = buf_add(&reply, n ? n : 5u << 20);
    if (at == NULL)
        __builtin_trap(); // the host's memory limit is below the reply
    __builtin_memset(at, 0, reply.size);
    uint32_t rest = reply.size - 7; // two bytes of tag, five of length
    __builtin_memcpy(at, "\xFA\x7F", 2); // field 2047, length-delimited
    for (uint32_t i = 0; i < 5; i++)
        at[2 + i] = (char)((rest >> (7 * i) & 0x7F) | (i < 4 ? 0x80 : 0));
    return nri_pack(at, reply.size);
}

static uint64_t reply_of(str text, uint64_t flag) {
    buf reply = {0};
    buf_put_str(&reply, text);
    return nri_pack(reply.at, reply.size) | flag;
}

static uint64_t error_text(uint32_t n) { return reply_of(STR("refused on request"), NRI_ERROR_BIT); }
static uint64_t error_empty(uint32_t n) { return NRI_ERROR_BIT; }
static uint64_t error_not_utf8(uint32_t n) {
    return reply_of(STR("bad \xFF\xFE\xC0 text\n\x1B[31m"), NRI_ERROR_BIT);
}
static uint64_t garbage(uint32_t n) { return reply_of(STR("\x0A\xFF\xFF\xFF\xFF\x7F\x00garbage"), 0); }
static uint64_t not_protobuf(uint32_t n) { return reply_of(STR("{\"adjust\": \"no\"}"), 0); }
static uint64_t static_reply(uint32_t n) { // free() gets a pointer malloc never gave
    static const char empty_adjust[] = "\x0A\x00";
    return nri_pack(empty_adjust, 2);
}

static uint64_t log_flood(uint32_t n) { // n lines, or for ever
    for (uint32_t i = 0; n == 0 || i < n; i++)
        nri_log(NRI_INFO, "flood ", i);
    return 0;
}

static uint64_t log_huge(uint32_t n) { // one line of n bytes (8 MiB)
    pb_put_uint(&nri_out, 2, NRI_INFO);
    uint32_t text = pb_open(&nri_out, 1);
    char *at = buf_add(&nri_out, n ? n : 8u << 20);
    if (at)
        __builtin_memset(at, 'x', n ? n : 8u << 20);
    pb_close(&nri_out, text);
    if (nri_out.full)
        __builtin_trap();
    nri_tell(nri_host_log, &nri_out);
    return 0;
}

static uint64_t log_garbage(uint32_t n) {
    nri_host_log("\x0A\x7Fno such length", 15);
    return 0;
}
static uint64_t log_outside(uint32_t n) {
    nri_host_log((char *)0xFFFF0000u, 0x7FFFFFFF);
    return 0;
}
static uint64_t log_lines(uint32_t n) { // line breaks and a terminal's escape codes
    nri_log(NRI_INFO, "one\ntwo\r\n\x1B[2Jthree");
    return 0;
}

static uint64_t host_calls(uint32_t n) { // never waits, never ends
    while (true)
        nri_host_state_get("\x0A\x01k", 3);
}
static uint64_t report_flood(uint32_t n) {
    for (uint32_t i = 0; n == 0 || i < n; i++)
        edge_report(STR("flood"), STR("x"), STR("text/plain"));
    return 0;
}
static uint64_t state_huge(uint32_t n) { // n bytes (1 MiB) where 64 KiB are allowed
    buf value = {0};
    if (buf_add(&value, n ? n : 1u << 20))
        edge_state_put(STR("huge"), buf_str(&value));
    buf_free(&value);
    return 0;
}

static uint64_t free_traps_later(uint32_t n) {
    free_traps = true;
    return 0;
}
static uint64_t malloc_zero_later(uint32_t n) {
    malloc_mode = MALLOC_ZERO;
    return 0;
}
static uint64_t malloc_outside_later(uint32_t n) {
    malloc_mode = MALLOC_OUTSIDE;
    return 0;
}
static uint64_t leak(uint32_t n) { // n bytes (1 MiB) in each call
    sink += (uint32_t)heap_take(n ? n : 1u << 20);
    return 0;
}
static uint64_t ok(uint32_t n) { return 0; }

static const struct {
    const char *name;
    uint64_t (*run)(uint32_t n);
} behaviours[] = {
    {"ok", ok},
    {"loop", loop},
    {"bomb", bomb},
    {"bomb-touch", bomb_touch},
    {"leak", leak},
    {"recurse", recurse},
    {"recurse-frames", recurse_frames},
    {"oob", out_of_bounds},
    {"trap", trap},
    {"bad-pointer-reply", bad_pointer_reply},
    {"straddling-reply", straddling_reply},
    {"huge-reply", huge_reply},
    {"huge-error", huge_error},
    {"null-reply", null_reply},
    {"reply-over-limit", reply_over_limit},
    {"static-reply", static_reply},
    {"garbage", garbage},
    {"not-protobuf", not_protobuf},
    {"error", error_text},
    {"error-empty", error_empty},
    {"error-not-utf8", error_not_utf8},
    {"log-flood", log_flood},
    {"log-huge", log_huge},
    {"log-garbage", log_garbage},
    {"log-outside", log_outside},
    {"log-lines", log_lines},
    {"host-calls", host_calls},
    {"report-flood", report_flood},
    {"state-huge", state_huge},
    {"free-traps", free_traps_later},
    {"malloc-returns-zero", malloc_zero_later},
    {"malloc-returns-outside", malloc_outside_later},
};

static uint64_t behave(str rule) {
    str name = str_word(&rule);
    uint64_t number;
    if (!conf_uint(rule, &number))
        number = 0; // the behaviour's own
    for (uint32_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++)
        if (str_is(name, behaviours[i].name))
            return behaviours[i].run((uint32_t)number);
    nri_log(NRI_ERROR, "no such behaviour: ", name);
    return reply_of(STR("no such behaviour"), NRI_ERROR_BIT);
}

// The last line for the method counts; without one the reply is empty.
static uint64_t by_rules(const char *method, uint64_t otherwise) {
    str rest = buf_str(&rules), chosen = {0};
    while (rest.size) {
        str rule = str_trim(str_cut(&rest, '\n'));
        str name = str_cut(&rule, ':');
        if (str_is(name, method) || (str_is(name, "*") && !str_is(STR("configure"), method)))
            chosen = rule;
    }
    return chosen.at ? behave(chosen) : otherwise;
}

static uint64_t on_configure(str request) {
    static const char all_events[] = "\x10\xFF\x7F"; // ConfigureResponse{events: 1..14}
    buf_clear(&rules);
    buf_put_str(&rules, pb_bytes(request, 1));
    return by_rules("configure", reply_of((str){all_events, 3}, 0));
}

static uint64_t on_create_container(str request) {
    str key = STR("edge.test/behaviour");
    str container = pb_bytes(request, NRI_REQ_CONTAINER), pod = pb_bytes(request, NRI_REQ_POD);
    str rule = pb_map_get(container, NRI_CTR_ANNOTATIONS, key);
    if (rule.at == NULL)
        rule = pb_map_get(pod, NRI_POD_ANNOTATIONS, key);
    return rule.at ? behave(rule) : by_rules("create_container", 0);
}

#define HOSTILE(name, result)                                                                      \
    NRI_EXPORT("plugin_" #name) uint64_t hostile_##name(const char *at, uint32_t size) {           \
        str request = {at, size};                                                                  \
        (void)request;                                                                             \
        return result;                                                                             \
    }
HOSTILE(configure, on_configure(request))
HOSTILE(create_container, on_create_container(request))
#define HOSTILE_METHOD(name) HOSTILE(name, by_rules(#name, 0))
HOSTILE_METHOD(synchronize)
HOSTILE_METHOD(shutdown)
HOSTILE_METHOD(run_pod_sandbox)
HOSTILE_METHOD(update_pod_sandbox)
HOSTILE_METHOD(post_update_pod_sandbox)
HOSTILE_METHOD(stop_pod_sandbox)
HOSTILE_METHOD(remove_pod_sandbox)
HOSTILE_METHOD(post_create_container)
HOSTILE_METHOD(start_container)
HOSTILE_METHOD(post_start_container)
HOSTILE_METHOD(update_container)
HOSTILE_METHOD(post_update_container)
HOSTILE_METHOD(stop_container)
HOSTILE_METHOD(remove_container)
HOSTILE_METHOD(state_change)
HOSTILE_METHOD(validate_container_adjustment)
