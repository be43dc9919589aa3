// Field numbers and event bits of nri.pkg.api.v1alpha1 (proto/nri.proto), as far
// as the plugins here need them.

#ifndef EDGE_NRI_FIELDS_H
#define EDGE_NRI_FIELDS_H

// The bit that subscribes to a method's event; methods that are no event have none.
#define NRI_EVENT(number) (1u << ((number) - 1))

#define NRI_EVENTS_synchronize 0u
#define NRI_EVENTS_shutdown 0u
#define NRI_EVENTS_run_pod_sandbox NRI_EVENT(1)
#define NRI_EVENTS_stop_pod_sandbox NRI_EVENT(2)
#define NRI_EVENTS_remove_pod_sandbox NRI_EVENT(3)
#define NRI_EVENTS_create_container NRI_EVENT(4)
#define NRI_EVENTS_post_create_container NRI_EVENT(5)
#define NRI_EVENTS_start_container NRI_EVENT(6)
#define NRI_EVENTS_post_start_container NRI_EVENT(7)
#define NRI_EVENTS_update_container NRI_EVENT(8)
#define NRI_EVENTS_post_update_container NRI_EVENT(9)
#define NRI_EVENTS_stop_container NRI_EVENT(10)
#define NRI_EVENTS_remove_container NRI_EVENT(11)
#define NRI_EVENTS_update_pod_sandbox NRI_EVENT(12)
#define NRI_EVENTS_post_update_pod_sandbox NRI_EVENT(13)
#define NRI_EVENTS_validate_container_adjustment NRI_EVENT(14)
// What runtimes before NRI 0.12 send through StateChange.
#define NRI_EVENTS_state_change                                                                    \
    (NRI_EVENT(1) | NRI_EVENT(2) | NRI_EVENT(3) | NRI_EVENT(5) | NRI_EVENT(6) | NRI_EVENT(7) |     \
     NRI_EVENT(9) | NRI_EVENT(11))

// A name says message, then field.
enum {
    NRI_REQ_POD = 1, // in the request of every pod and container event
    NRI_REQ_CONTAINER = 2,
    NRI_UPDATE_REQ_RESOURCES = 3, // UpdateContainerRequest

    NRI_SYNC_PODS = 1,
    NRI_SYNC_CONTAINERS = 2,

    NRI_STATE_EVENT = 1, // StateChangeEvent
    NRI_STATE_POD = 2,
    NRI_STATE_CONTAINER = 3,

    NRI_VALIDATE_ADJUST = 3,
    NRI_VALIDATE_UPDATE = 4,
    NRI_VALIDATE_OWNERS = 5,
    NRI_VALIDATE_PLUGINS = 6,

    NRI_CREATE_ADJUST = 1, // CreateContainerResponse
    NRI_UPDATED_UPDATE = 1, // UpdateContainerResponse, UpdateContainersRequest

    NRI_POD_ID = 1,
    NRI_POD_NAME = 2,
    NRI_POD_NAMESPACE = 4,
    NRI_POD_LABELS = 5,
    NRI_POD_ANNOTATIONS = 6,
    NRI_POD_RUNTIME_HANDLER = 7,

    NRI_CTR_ID = 1,
    NRI_CTR_POD_ID = 2,
    NRI_CTR_NAME = 3,
    NRI_CTR_STATE = 4,
    NRI_STATE_STOPPED = 4, // a ContainerState
    NRI_CTR_LABELS = 5,
    NRI_CTR_ANNOTATIONS = 6,
    NRI_CTR_ARGS = 7,
    NRI_CTR_ENV = 8,
    NRI_CTR_MOUNTS = 9,
    NRI_CTR_LINUX = 11,
    NRI_CTR_RLIMITS = 13,
    NRI_CTR_CDI_DEVICES = 20,
    NRI_CTR_USER = 21,
    NRI_CTR_IMAGE = 22,
    NRI_IMAGE_NAME = 1, // Image
    NRI_IMAGE_DIGEST = 2,
    NRI_IMAGE_CONFIG_DIGEST = 3,
    NRI_LINUX_DEVICES = 2, // LinuxContainer
    NRI_LINUX_RESOURCES = 3,
    NRI_LINUX_OOM_SCORE_ADJ = 4,
    NRI_LINUX_SYSCTL = 9,
    NRI_LINUX_NET_DEVICES = 10,

    NRI_ADJ_ANNOTATIONS = 2,
    NRI_ADJ_MOUNTS = 3,
    NRI_ADJ_ENV = 4,
    NRI_ADJ_HOOKS = 5,
    NRI_ADJ_LINUX = 6,
    NRI_ADJ_RLIMITS = 7,
    NRI_ADJ_CDI_DEVICES = 8,
    NRI_ADJ_ARGS = 9,
    NRI_ADJ_LINUX_DEVICES = 1,
    NRI_ADJ_LINUX_RESOURCES = 2,
    NRI_ADJ_LINUX_OOM_SCORE_ADJ = 4,
    NRI_ADJ_LINUX_SECCOMP = 6,
    NRI_ADJ_LINUX_NAMESPACES = 7,
    NRI_ADJ_LINUX_SYSCTL = 8,
    NRI_ADJ_LINUX_NET_DEVICES = 9,

    NRI_MOUNT_DESTINATION = 1,
    NRI_MOUNT_TYPE = 2,
    NRI_MOUNT_SOURCE = 3,
    NRI_MOUNT_OPTIONS = 4,

    NRI_DEVICE_PATH = 1,
    NRI_DEVICE_TYPE = 2,
    NRI_DEVICE_MAJOR = 3,
    NRI_DEVICE_MINOR = 4,
    NRI_DEVICE_FILE_MODE = 5,
    NRI_DEVICE_UID = 6,
    NRI_DEVICE_GID = 7,

    NRI_RES_MEMORY = 1, // LinuxResources
    NRI_RES_CPU = 2,
    NRI_RES_BLOCKIO_CLASS = 4,
    NRI_RES_RDT_CLASS = 5,
    NRI_RES_UNIFIED = 6,
    NRI_RES_PIDS = 8,
    NRI_MEMORY_LIMIT = 1,
    NRI_MEMORY_RESERVATION = 2,
    NRI_MEMORY_SWAP = 3,
    NRI_CPU_SHARES = 1,
    NRI_CPU_QUOTA = 2,
    NRI_CPU_PERIOD = 3,
    NRI_CPU_CPUS = 6,
    NRI_CPU_MEMS = 7,
    NRI_PIDS_LIMIT = 1,

    NRI_UPDATE_CONTAINER_ID = 1, // ContainerUpdate
    NRI_UPDATE_LINUX = 2,
    NRI_UPDATE_LINUX_RESOURCES = 1,

    NRI_KEY = 1, // KeyValue and map entries
    NRI_VALUE = 2,
};

#endif
