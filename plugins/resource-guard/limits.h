// Memory, CPU, shares and pids of a container: what it has, and what it has to have.
//
// A plugin may define LIMITS_BY(level, resource) before: what its log lines end with.

#ifndef EDGE_LIMITS_H
#define EDGE_LIMITS_H

#include "edge_nri.h"

enum { MEMORY, CPU, SHARES, PIDS, RESOURCES };
static const char *const resource_names[] = {"memory", "cpu", "shares", "pids"};

#define NONE UINT64_MAX

// `set` replaces, `usual` is for what has none, `most` holds all of them.
typedef enum { SET, DEFAULT, CAP, LEVELS } level;

typedef struct bounds { // memory in bytes, cpu in thousandths; or NONE
    uint64_t of[LEVELS][RESOURCES];
} bounds;

#ifndef LIMITS_BY
#define LIMITS_BY(level, resource)
#endif

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

static const char *amount_form(uint32_t resource) {
    return resource == MEMORY ? "a size such as 128Mi"
           : resource == CPU  ? "a number of CPUs such as 0.5 or 500m"
                              : "a number above 0";
}

// ---- what LinuxResources have ----

static int64_t value_of(str message, uint32_t field) {
    return (int64_t)pb_uint(pb_bytes(message, field), 1); // OptionalInt64 and its family
}

static uint64_t period_in(str cpu) { // zero where the kernel would not take it
    const uint64_t least = 1000, most = 1000000;
    uint64_t period = (uint64_t)value_of(cpu, NRI_CPU_PERIOD);
    return period >= least && period <= most ? period : 0;
}

#define USUAL_PERIOD 100000 // the kernel's

// In the unit of a bound; zero: nothing is said, below zero: unlimited.
static int64_t amount_in(str have, uint32_t resource) {
    str cpu = pb_bytes(have, NRI_RES_CPU);
    if (resource == MEMORY) {
        // cgroup v1 says "unlimited" as the largest multiple of a page.
        int64_t limit = value_of(pb_bytes(have, NRI_RES_MEMORY), NRI_MEMORY_LIMIT);
        return limit < (int64_t)1 << 62 ? limit : -1;
    }
    if (resource == SHARES) { // the kubelet's 2 stands for "no request"; an absent value for 1024
        int64_t shares = value_of(cpu, NRI_CPU_SHARES);
        return shares == 2 ? 0 : shares;
    }
    if (resource == PIDS)
        return (int64_t)pb_uint(pb_bytes(have, NRI_RES_PIDS), NRI_PIDS_LIMIT);
    int64_t quota = value_of(cpu, NRI_CPU_QUOTA);
    uint64_t given = period_in(cpu), period = given ? given : USUAL_PERIOD;
    if (quota <= 0 || quota >= (int64_t)1 << 50)
        return quota <= 0 ? quota : INT64_MAX;
    // Rounded up, so that more than the most is seen.
    return (int64_t)(((uint64_t)quota * 1000 + period - 1) / period);
}

// ---- what they have to have ----

typedef struct change {
    const bounds *bounds;
    bool create;   // or an update, where an absent or zero limit means "as it is"
    str pod, name; // for the log
    str more_cpu;  // further fields of LinuxCPU
    buf *out;      // LinuxResources
} change;

// `have` in front of "to" if it is above zero.
static void limits_log(const change *c, uint32_t resource, level by, const char *verb, int64_t have,
                       uint64_t want) {
    static buf text;
    buf_clear(&text);
    buf_put(&text, c->pod, "/", c->name, ": ", resource_names[resource], " ", verb);
    if (have > 0)
        buf_put(&text, " from ", have);
    buf_put(&text, " to ", want, resource == CPU ? "m" : "" LIMITS_BY(by, resource));
    nri_log(NRI_INFO, buf_str(&text));
}

// What `have` has to become; zero: it may stay.
static uint64_t decide(const change *c, uint32_t resource, int64_t have) {
    uint64_t fixed = c->bounds->of[SET][resource], usual = c->bounds->of[DEFAULT][resource];
    uint64_t most = c->bounds->of[CAP][resource];
    if (have == 0 && !c->create)
        return 0;
    if (fixed != NONE) {
        level by = fixed <= most ? SET : CAP;
        fixed = by == SET ? fixed : most;
        if (have > 0 && (uint64_t)have == fixed)
            return 0;
        limits_log(c, resource, by, "set", 0, fixed);
        return fixed;
    }
    if (have <= 0) {
        level by = c->create && usual < most ? DEFAULT : CAP;
        uint64_t want = by == DEFAULT ? usual : most;
        if (want == NONE)
            return 0;
        limits_log(c, resource, by, "limited", 0, want);
        return want;
    }
    if ((uint64_t)have <= most)
        return 0;
    limits_log(c, resource, CAP, "lowered", have, most);
    return most;
}

static void guard_memory(const change *c, str resources) {
    uint64_t limit = decide(c, MEMORY, amount_in(resources, MEMORY));
    if (limit == 0)
        return;
    str have = pb_bytes(resources, NRI_RES_MEMORY);
    uint32_t memory = pb_open(c->out, NRI_RES_MEMORY);
    pb_put_optional(c->out, NRI_MEMORY_LIMIT, limit);
    // Both count within the limit; a runtime refuses them above it (swap is memory and swap).
    if (value_of(have, NRI_MEMORY_RESERVATION) > (int64_t)limit)
        pb_put_optional(c->out, NRI_MEMORY_RESERVATION, limit);
    if (value_of(have, NRI_MEMORY_SWAP) > (int64_t)limit)
        pb_put_optional(c->out, NRI_MEMORY_SWAP, limit);
    pb_close(c->out, memory);
}

static void guard_cpu(const change *c, str resources) {
    const uint64_t least_quota = 1000, most_period = 1000000;
    uint64_t given = period_in(pb_bytes(resources, NRI_RES_CPU));
    uint64_t period = given ? given : USUAL_PERIOD;
    uint64_t cpu = decide(c, CPU, amount_in(resources, CPU));
    uint64_t shares = decide(c, SHARES, amount_in(resources, SHARES));
    if (cpu == 0 && shares == 0 && c->more_cpu.size == 0)
        return;
    uint32_t message = pb_open(c->out, NRI_RES_CPU);
    if (shares)
        pb_put_optional(c->out, NRI_CPU_SHARES, shares);
    if (cpu) {
        uint64_t limit = cpu < NONE / most_period ? cpu * period / 1000 : INT64_MAX;
        pb_put_optional(c->out, NRI_CPU_QUOTA, limit < least_quota ? least_quota : limit);
        if (given == 0)
            pb_put_optional(c->out, NRI_CPU_PERIOD, period);
    }
    buf_put_str(c->out, c->more_cpu);
    pb_close(c->out, message);
}

static void guard_pids(const change *c, str resources) {
    uint64_t limit = decide(c, PIDS, amount_in(resources, PIDS));
    if (limit == 0)
        return;
    uint32_t pids = pb_open(c->out, NRI_RES_PIDS);
    pb_put_uint(c->out, NRI_PIDS_LIMIT, limit);
    pb_close(c->out, pids);
}

// Appends to `out` what has to differ from `resources`.
static void guard(const change *c, str resources) {
    guard_memory(c, resources);
    guard_cpu(c, resources);
    guard_pids(c, resources);
}

#endif
