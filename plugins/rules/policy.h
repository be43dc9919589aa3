// The policy: its rules, what one can ask and what it can do.

#ifndef RULES_POLICY_H
#define RULES_POLICY_H

#include "../validator/path.h"
#include "document.h"
#include "image.h"

static str amount_by[3][4]; // the rule that a bound comes from; [level][resource]
#define LIMITS_BY(level, resource) , " (rule ", &amount_by[level][resource], ")"
#include "../device-injector/annotation.h"
#include "../resource-guard/limits.h"

// ---- what a rule can ask ----

// Name, whether it is about a container, how it is compared, and the field that has it (in
// any of a list: and the field in that).
#define FACTS(X)                                                                                   \
    X(RUNTIME, "runtime", false, OF_TEXT, 0, 0)                                                    \
    X(NAMESPACE, "namespace", false, OF_TEXT, NRI_POD_NAMESPACE, 0)                                \
    X(POD, "pod", false, OF_TEXT, NRI_POD_NAME, 0)                                                 \
    X(RUNTIME_HANDLER, "runtime-handler", false, OF_TEXT, NRI_POD_RUNTIME_HANDLER, 0)              \
    X(LABEL, "label", false, OF_MAP, NRI_POD_LABELS, 0)                                            \
    X(ANNOTATION, "annotation", false, OF_MAP, NRI_POD_ANNOTATIONS, 0)                             \
    X(CONTAINER, "container", true, OF_TEXT, NRI_CTR_NAME, 0)                                      \
    X(CONTAINER_LABEL, "container-label", true, OF_MAP, NRI_CTR_LABELS, 0)                         \
    X(CONTAINER_ANNOTATION, "container-annotation", true, OF_MAP, NRI_CTR_ANNOTATIONS, 0)          \
    X(IMAGE, "image", true, OF_IMAGE, 0, 0)                                                        \
    X(IMAGE_DIGEST, "image-digest", true, OF_TEXT, 0, 0)                                           \
    X(USER, "user", true, OF_TEXT, 0, 0)                                                           \
    X(ARGV, "argv", true, OF_VECTOR, NRI_CTR_ARGS, 0)                                              \
    X(ANY_ARG, "any-arg", true, OF_ANY, NRI_CTR_ARGS, 0)                                           \
    X(ENV, "env", true, OF_MAP, NRI_CTR_ENV, 0)                                                    \
    X(MOUNT, "mount", true, OF_ANY, NRI_CTR_MOUNTS, NRI_MOUNT_DESTINATION)                         \
    X(MOUNT_SOURCE, "mount-source", true, OF_ANY, NRI_CTR_MOUNTS, NRI_MOUNT_SOURCE)                \
    X(DEVICE, "device", true, OF_ANY, NRI_LINUX_DEVICES, NRI_DEVICE_PATH)                          \
    X(HAS_MEMORY, "memory", true, OF_AMOUNT, 0, 0)                                                 \
    X(HAS_CPU, "cpu", true, OF_AMOUNT, 0, 0)                                                       \
    X(HAS_SHARES, "shares", true, OF_AMOUNT, 0, 0)                                                 \
    X(HAS_PIDS, "pids", true, OF_AMOUNT, 0, 0)

typedef enum { OF_TEXT, OF_MAP, OF_IMAGE, OF_VECTOR, OF_ANY, OF_AMOUNT } comparison;

#define FACT_NUMBER(number, ...) number,
typedef enum { FACTS(FACT_NUMBER) FACT_COUNT } fact;

static const struct {
    const char *name;
    bool of_container;
    uint8_t how, field, inner; // `how`: a comparison
} facts[] = {
#define FACT_ENTRY(number, ...) {__VA_ARGS__},
    FACTS(FACT_ENTRY)};

// One of the patterns of a condition. `key` is that of a map's entry, a glob too.
typedef struct alternative {
    struct alternative *next;
    union {
        pattern text;
        image_pattern image;
        struct {
            enum { MISSING, THERE, OVER, UNDER } than;
            uint64_t value;
        } amount;
    };
} alternative;

typedef struct condition {
    struct condition *next;
    fact fact;
    str key;                  // of a map
    alternative *first;       // one of them has to fit; of argv each its own argument
    bool open;                // argv: any further arguments
} condition;

// ---- what a rule can do ----

// Those of one value, and those with a key.
enum { CPUS, MEMS, OOM_SCORE_ADJ, BLOCKIO_CLASS, RDT_CLASS, ARGS, SINGLES };
static const char *const single_names[] = {"cpus", "mems", "oom-score-adj", "blockio-class",
                                           "rdt-class", "args"};
enum { ANNOTATIONS, ENVS, SYSCTLS, UNIFIED, RLIMITS, NET_DEVICES, MOUNTS, DEVICES, CDI_DEVICES, KINDS };
static const char *const kind_names[] = {"annotations", "env", "sysctl", "unified", "rlimits",
                                         "net-devices", "mounts", "devices", "cdi-devices"};

#define UNSET (NONE - 1) // what earlier rules say

typedef struct rule {
    struct rule *next;
    const node *name;       // its text
    uint32_t line;          // where it begins
    uint32_t events;        // NRI_EVENT bits
    bool usual;             // no `on`: an update is held to set and cap
    bool skip;              // `unknown: skip`
    bool fits;              // the event that is running
    condition *when, *unless;
    uint64_t amounts[LEVELS][RESOURCES];
    const node *singles[2][SINGLES]; // SET, DEFAULT
    const node *keyed[2][KINDS];     // maps of SET, DEFAULT
    const node *added[KINDS];        // lists, or a map with `from-annotations`
    alternative *removed[KINDS];
    const node *deny, *log, *report;
} rule;

static buf policy_text; // what the nodes point into
static rule *rules;
static buf policy_runtime; // name of the runtime, as Configure told

#define MAX_RULES 256
#define MAX_NAME 64          // bytes; the kind of a report, where the host has this bound
#define MAX_ALTERNATIVES 256 // patterns of one condition
#define MAX_PERMITS 64       // entries of one `allowed`

// ---- events ----

#define EVENTS(X)                                                                                  \
    X(run_pod_sandbox)                                                                             \
    X(stop_pod_sandbox)                                                                            \
    X(remove_pod_sandbox)                                                                          \
    X(create_container)                                                                            \
    X(post_create_container)                                                                       \
    X(start_container)                                                                             \
    X(post_start_container)                                                                        \
    X(update_container)                                                                            \
    X(post_update_container)                                                                       \
    X(stop_container)                                                                              \
    X(remove_container)                                                                            \
    X(update_pod_sandbox)                                                                          \
    X(post_update_pod_sandbox)                                                                     \
    X(validate_container_adjustment)

#define EVENT_ENTRY(name) {#name, NRI_EVENTS_##name},
static const struct {
    const char *name;
    uint32_t bit;
} events[] = {EVENTS(EVENT_ENTRY)};

#define POD_EVENTS                                                                                 \
    (NRI_EVENTS_run_pod_sandbox | NRI_EVENTS_stop_pod_sandbox | NRI_EVENTS_remove_pod_sandbox |    \
     NRI_EVENTS_update_pod_sandbox | NRI_EVENTS_post_update_pod_sandbox)
// Where an error of a plugin ends what is going on.
#define REFUSABLE                                                                                  \
    (NRI_EVENTS_run_pod_sandbox | NRI_EVENTS_create_container | NRI_EVENTS_start_container |       \
     NRI_EVENTS_update_container | NRI_EVENTS_update_pod_sandbox |                                 \
     NRI_EVENTS_validate_container_adjustment)
#define CARRY_AMOUNTS (NRI_EVENTS_create_container | NRI_EVENTS_update_container)

#endif
