// Made by scripts/generate from proto/nri.proto.

const Entry = @import("message.zig").Entry;

pub const Event = enum(i32) {
    UNKNOWN = 0,
    RUN_POD_SANDBOX = 1,
    STOP_POD_SANDBOX = 2,
    REMOVE_POD_SANDBOX = 3,
    CREATE_CONTAINER = 4,
    POST_CREATE_CONTAINER = 5,
    START_CONTAINER = 6,
    POST_START_CONTAINER = 7,
    UPDATE_CONTAINER = 8,
    POST_UPDATE_CONTAINER = 9,
    STOP_CONTAINER = 10,
    REMOVE_CONTAINER = 11,
    UPDATE_POD_SANDBOX = 12,
    POST_UPDATE_POD_SANDBOX = 13,
    VALIDATE_CONTAINER_ADJUSTMENT = 14,
    LAST = 15,
    _,
};

pub const ContainerState = enum(i32) {
    CONTAINER_UNKNOWN = 0,
    CONTAINER_CREATED = 1,
    CONTAINER_PAUSED = 2,
    CONTAINER_RUNNING = 3,
    CONTAINER_STOPPED = 4,
    _,
};

pub const IOPrioClass = enum(i32) {
    IOPRIO_CLASS_NONE = 0,
    IOPRIO_CLASS_RT = 1,
    IOPRIO_CLASS_BE = 2,
    IOPRIO_CLASS_IDLE = 3,
    _,
};

pub const LinuxSchedulerPolicy = enum(i32) {
    SCHED_NONE = 0,
    SCHED_OTHER = 1,
    SCHED_FIFO = 2,
    SCHED_RR = 3,
    SCHED_BATCH = 4,
    SCHED_ISO = 5,
    SCHED_IDLE = 6,
    SCHED_DEADLINE = 7,
    _,
};

pub const LinuxSchedulerFlag = enum(i32) {
    SCHED_FLAG_RESET_ON_FORK = 0,
    SCHED_FLAG_RECLAIM = 1,
    SCHED_FLAG_DL_OVERRUN = 2,
    SCHED_FLAG_KEEP_POLICY = 3,
    SCHED_FLAG_KEEP_PARAMS = 4,
    SCHED_FLAG_UTIL_CLAMP_MIN = 5,
    SCHED_FLAG_UTIL_CLAMP_MAX = 6,
    _,
};

pub const MpolMode = enum(i32) {
    MPOL_DEFAULT = 0,
    MPOL_PREFERRED = 1,
    MPOL_BIND = 2,
    MPOL_INTERLEAVE = 3,
    MPOL_LOCAL = 4,
    MPOL_PREFERRED_MANY = 5,
    MPOL_WEIGHTED_INTERLEAVE = 6,
    _,
};

pub const MpolFlag = enum(i32) {
    MPOL_F_STATIC_NODES = 0,
    MPOL_F_RELATIVE_NODES = 1,
    MPOL_F_NUMA_BALANCING = 2,
    _,
};

pub const Field = enum(i32) {
    NoField = 0,
    Annotations = 1,
    Mounts = 2,
    OciHooks = 3,
    Devices = 4,
    CdiDevices = 5,
    Env = 6,
    Args = 7,
    MemLimit = 8,
    MemReservation = 9,
    MemSwapLimit = 10,
    MemKernelLimit = 11,
    MemTCPLimit = 12,
    MemSwappiness = 13,
    MemDisableOomKiller = 14,
    MemUseHierarchy = 15,
    CPUShares = 16,
    CPUQuota = 17,
    CPUPeriod = 18,
    CPURealtimeRuntime = 19,
    CPURealtimePeriod = 20,
    CPUSetCPUs = 21,
    CPUSetMems = 22,
    PidsLimit = 23,
    HugepageLimits = 24,
    BlockioClass = 25,
    RdtClass = 26,
    CgroupsUnified = 27,
    CgroupsPath = 28,
    OomScoreAdj = 29,
    Rlimits = 30,
    IoPriority = 31,
    SeccompPolicy = 32,
    Namespace = 33,
    Sysctl = 34,
    LinuxNetDevices = 35,
    LinuxSched = 36,
    RdtClosID = 37,
    RdtSchemata = 38,
    RdtEnableMonitoring = 39,
    MemoryPolicy = 40,
    _,
};

pub const ProfileType = enum(i32) {
    RUNTIME_DEFAULT = 0,
    UNCONFINED = 1,
    LOCALHOST = 2,
    _,
};

pub const UpdateContainersRequest = struct {
    update: []const ContainerUpdate = &.{},
    evict: []const ContainerEviction = &.{},

    pub const numbers = [_]u32{ 1, 2 };
};

pub const UpdateContainersResponse = struct {
    failed: []const ContainerUpdate = &.{},

    pub const numbers = [_]u32{1};
};

pub const ConfigureRequest = struct {
    config: []const u8 = "",
    runtime_name: []const u8 = "",
    runtime_version: []const u8 = "",
    registration_timeout: i64 = 0,
    request_timeout: i64 = 0,
    nri_version: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6 };
};

pub const ConfigureResponse = struct {
    events: i32 = 0,
    failure_policy: ?FailurePolicy = null,

    pub const numbers = [_]u32{ 2, 3 };
};

pub const FailurePolicy = struct {
    fail_request: bool = false,
    keep_connected: bool = false,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const SynchronizeRequest = struct {
    pods: []const PodSandbox = &.{},
    containers: []const Container = &.{},
    more: bool = false,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const SynchronizeResponse = struct {
    update: []const ContainerUpdate = &.{},
    more: bool = false,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const RunPodSandboxRequest = struct {
    pod: ?PodSandbox = null,

    pub const numbers = [_]u32{1};
};

pub const RunPodSandboxResponse = struct {
    pub const numbers = [_]u32{};
};

pub const UpdatePodSandboxRequest = struct {
    pod: ?PodSandbox = null,
    overhead_linux_resources: ?LinuxResources = null,
    linux_resources: ?LinuxResources = null,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const UpdatePodSandboxResponse = struct {
    pub const numbers = [_]u32{};
};

pub const PostUpdatePodSandboxRequest = struct {
    pod: ?PodSandbox = null,

    pub const numbers = [_]u32{1};
};

pub const PostUpdatePodSandboxResponse = struct {
    pub const numbers = [_]u32{};
};

pub const StopPodSandboxRequest = struct {
    pod: ?PodSandbox = null,

    pub const numbers = [_]u32{1};
};

pub const StopPodSandboxResponse = struct {
    pub const numbers = [_]u32{};
};

pub const RemovePodSandboxRequest = struct {
    pod: ?PodSandbox = null,

    pub const numbers = [_]u32{1};
};

pub const RemovePodSandboxResponse = struct {
    pub const numbers = [_]u32{};
};

pub const CreateContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const CreateContainerResponse = struct {
    adjust: ?ContainerAdjustment = null,
    update: []const ContainerUpdate = &.{},
    evict: []const ContainerEviction = &.{},

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const PostCreateContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const PostCreateContainerResponse = struct {
    pub const numbers = [_]u32{};
};

pub const StartContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const StartContainerResponse = struct {
    pub const numbers = [_]u32{};
};

pub const PostStartContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const PostStartContainerResponse = struct {
    pub const numbers = [_]u32{};
};

pub const UpdateContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,
    linux_resources: ?LinuxResources = null,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const UpdateContainerResponse = struct {
    update: []const ContainerUpdate = &.{},
    evict: []const ContainerEviction = &.{},

    pub const numbers = [_]u32{ 1, 2 };
};

pub const PostUpdateContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const PostUpdateContainerResponse = struct {
    pub const numbers = [_]u32{};
};

pub const StopContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const StopContainerResponse = struct {
    update: []const ContainerUpdate = &.{},

    pub const numbers = [_]u32{1};
};

pub const RemoveContainerRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const RemoveContainerResponse = struct {
    pub const numbers = [_]u32{};
};

pub const StateChangeEvent = struct {
    event: Event = @fromBackingInt(0),
    pod: ?PodSandbox = null,
    container: ?Container = null,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const ValidateContainerAdjustmentRequest = struct {
    pod: ?PodSandbox = null,
    container: ?Container = null,
    adjust: ?ContainerAdjustment = null,
    update: []const ContainerUpdate = &.{},
    owners: ?OwningPlugins = null,
    plugins: []const PluginInstance = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6 };
};

pub const PluginInstance = struct {
    name: []const u8 = "",
    index: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const ValidateContainerAdjustmentResponse = struct {
    reject: bool = false,
    reason: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const Empty = struct {
    pub const numbers = [_]u32{};
};

pub const PodSandbox = struct {
    id: []const u8 = "",
    name: []const u8 = "",
    uid: []const u8 = "",
    namespace: []const u8 = "",
    labels: []const Entry([]const u8, []const u8) = &.{},
    annotations: []const Entry([]const u8, []const u8) = &.{},
    runtime_handler: []const u8 = "",
    linux: ?LinuxPodSandbox = null,
    pid: u32 = 0,
    ips: []const []const u8 = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
};

pub const LinuxPodSandbox = struct {
    pod_overhead: ?LinuxResources = null,
    pod_resources: ?LinuxResources = null,
    cgroup_parent: []const u8 = "",
    cgroups_path: []const u8 = "",
    namespaces: []const LinuxNamespace = &.{},
    resources: ?LinuxResources = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6 };
};

pub const Container = struct {
    id: []const u8 = "",
    pod_sandbox_id: []const u8 = "",
    name: []const u8 = "",
    state: ContainerState = @fromBackingInt(0),
    labels: []const Entry([]const u8, []const u8) = &.{},
    annotations: []const Entry([]const u8, []const u8) = &.{},
    args: []const []const u8 = &.{},
    env: []const []const u8 = &.{},
    mounts: []const Mount = &.{},
    hooks: ?Hooks = null,
    linux: ?LinuxContainer = null,
    pid: u32 = 0,
    rlimits: []const POSIXRlimit = &.{},
    created_at: i64 = 0,
    started_at: i64 = 0,
    finished_at: i64 = 0,
    exit_code: i32 = 0,
    status_reason: []const u8 = "",
    status_message: []const u8 = "",
    cdi_devices: []const CDIDevice = &.{},
    user: ?User = null,
    image: ?Image = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22 };
};

pub const Image = struct {
    name: []const u8 = "",
    digest: []const u8 = "",
    config_digest: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const Mount = struct {
    destination: []const u8 = "",
    type: []const u8 = "",
    source: []const u8 = "",
    options: []const []const u8 = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4 };
};

pub const Hooks = struct {
    prestart: []const Hook = &.{},
    create_runtime: []const Hook = &.{},
    create_container: []const Hook = &.{},
    start_container: []const Hook = &.{},
    poststart: []const Hook = &.{},
    poststop: []const Hook = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6 };
};

pub const Hook = struct {
    path: []const u8 = "",
    args: []const []const u8 = &.{},
    env: []const []const u8 = &.{},
    timeout: ?i64 = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4 };
};

pub const LinuxContainer = struct {
    namespaces: []const LinuxNamespace = &.{},
    devices: []const LinuxDevice = &.{},
    resources: ?LinuxResources = null,
    oom_score_adj: ?i64 = null,
    cgroups_path: []const u8 = "",
    io_priority: ?LinuxIOPriority = null,
    seccomp_profile: ?SecurityProfile = null,
    seccomp_policy: ?LinuxSeccomp = null,
    sysctl: []const Entry([]const u8, []const u8) = &.{},
    net_devices: []const Entry([]const u8, LinuxNetDevice) = &.{},
    scheduler: ?LinuxScheduler = null,
    rdt: ?LinuxRdt = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
};

pub const LinuxNamespace = struct {
    type: []const u8 = "",
    path: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const LinuxDevice = struct {
    path: []const u8 = "",
    type: []const u8 = "",
    major: i64 = 0,
    minor: i64 = 0,
    file_mode: ?u32 = null,
    uid: ?u32 = null,
    gid: ?u32 = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7 };
};

pub const LinuxDeviceCgroup = struct {
    allow: bool = false,
    type: []const u8 = "",
    major: ?i64 = null,
    minor: ?i64 = null,
    access: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5 };
};

pub const CDIDevice = struct {
    name: []const u8 = "",

    pub const numbers = [_]u32{1};
};

pub const User = struct {
    uid: u32 = 0,
    gid: u32 = 0,
    additional_gids: []const u32 = &.{},

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const LinuxResources = struct {
    memory: ?LinuxMemory = null,
    cpu: ?LinuxCPU = null,
    hugepage_limits: []const HugepageLimit = &.{},
    blockio_class: ?[]const u8 = null,
    rdt_class: ?[]const u8 = null,
    unified: []const Entry([]const u8, []const u8) = &.{},
    devices: []const LinuxDeviceCgroup = &.{},
    pids: ?LinuxPids = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8 };
};

pub const LinuxMemory = struct {
    limit: ?i64 = null,
    reservation: ?i64 = null,
    swap: ?i64 = null,
    kernel: ?i64 = null,
    kernel_tcp: ?i64 = null,
    swappiness: ?u64 = null,
    disable_oom_killer: ?bool = null,
    use_hierarchy: ?bool = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8 };
};

pub const LinuxCPU = struct {
    shares: ?u64 = null,
    quota: ?i64 = null,
    period: ?u64 = null,
    realtime_runtime: ?i64 = null,
    realtime_period: ?u64 = null,
    cpus: []const u8 = "",
    mems: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7 };
};

pub const HugepageLimit = struct {
    page_size: []const u8 = "",
    limit: u64 = 0,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const SecurityProfile = struct {
    profile_type: ProfileType = @fromBackingInt(0),
    localhost_ref: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const POSIXRlimit = struct {
    type: []const u8 = "",
    hard: u64 = 0,
    soft: u64 = 0,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const LinuxPids = struct {
    limit: i64 = 0,

    pub const numbers = [_]u32{1};
};

pub const LinuxIOPriority = struct {
    class: IOPrioClass = @fromBackingInt(0),
    priority: i32 = 0,

    pub const numbers = [_]u32{ 1, 2 };
};

pub const LinuxNetDevice = struct {
    name: []const u8 = "",

    pub const numbers = [_]u32{1};
};

pub const LinuxScheduler = struct {
    policy: LinuxSchedulerPolicy = @fromBackingInt(0),
    nice: i32 = 0,
    priority: i32 = 0,
    flags: []const LinuxSchedulerFlag = &.{},
    runtime: u64 = 0,
    deadline: u64 = 0,
    period: u64 = 0,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7 };
};

pub const ContainerAdjustment = struct {
    annotations: []const Entry([]const u8, []const u8) = &.{},
    mounts: []const Mount = &.{},
    env: []const KeyValue = &.{},
    hooks: ?Hooks = null,
    linux: ?LinuxContainerAdjustment = null,
    rlimits: []const POSIXRlimit = &.{},
    cdi_devices: []const CDIDevice = &.{},
    args: []const []const u8 = &.{},

    pub const numbers = [_]u32{ 2, 3, 4, 5, 6, 7, 8, 9 };
};

pub const LinuxContainerAdjustment = struct {
    devices: []const LinuxDevice = &.{},
    resources: ?LinuxResources = null,
    cgroups_path: []const u8 = "",
    oom_score_adj: ?i64 = null,
    io_priority: ?LinuxIOPriority = null,
    seccomp_policy: ?LinuxSeccomp = null,
    namespaces: []const LinuxNamespace = &.{},
    sysctl: []const Entry([]const u8, []const u8) = &.{},
    net_devices: []const Entry([]const u8, LinuxNetDevice) = &.{},
    scheduler: ?LinuxScheduler = null,
    rdt: ?LinuxRdt = null,
    memory_policy: ?LinuxMemoryPolicy = null,

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
};

pub const LinuxSeccomp = struct {
    default_action: []const u8 = "",
    default_errno: ?u32 = null,
    architectures: []const []const u8 = &.{},
    flags: []const []const u8 = &.{},
    listener_path: []const u8 = "",
    listener_metadata: []const u8 = "",
    syscalls: []const LinuxSyscall = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4, 5, 6, 7 };
};

pub const LinuxSyscall = struct {
    names: []const []const u8 = &.{},
    action: []const u8 = "",
    errno_ret: ?u32 = null,
    args: []const LinuxSeccompArg = &.{},

    pub const numbers = [_]u32{ 1, 2, 3, 4 };
};

pub const LinuxSeccompArg = struct {
    index: u32 = 0,
    value: u64 = 0,
    value_two: u64 = 0,
    op: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2, 3, 4 };
};

pub const LinuxMemoryPolicy = struct {
    mode: MpolMode = @fromBackingInt(0),
    nodes: []const u8 = "",
    flags: []const MpolFlag = &.{},

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const ContainerUpdate = struct {
    container_id: []const u8 = "",
    linux: ?LinuxContainerUpdate = null,
    ignore_failure: bool = false,

    pub const numbers = [_]u32{ 1, 2, 3 };
};

pub const LinuxContainerUpdate = struct {
    resources: ?LinuxResources = null,

    pub const numbers = [_]u32{1};
};

pub const ContainerEviction = struct {
    container_id: []const u8 = "",
    reason: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const LinuxRdt = struct {
    clos_id: ?[]const u8 = null,
    schemata: ?[]const []const u8 = null,
    enable_monitoring: ?bool = null,
    remove: bool = false,

    pub const numbers = [_]u32{ 1, 2, 3, 4 };
};

pub const KeyValue = struct {
    key: []const u8 = "",
    value: []const u8 = "",

    pub const numbers = [_]u32{ 1, 2 };
};

pub const CompoundFieldOwners = struct {
    owners: []const Entry([]const u8, []const u8) = &.{},

    pub const numbers = [_]u32{1};
};

pub const FieldOwners = struct {
    simple: []const Entry(i32, []const u8) = &.{},
    compound: []const Entry(i32, CompoundFieldOwners) = &.{},

    pub const numbers = [_]u32{ 1, 2 };
};

pub const OwningPlugins = struct {
    owners: []const Entry([]const u8, FieldOwners) = &.{},

    pub const numbers = [_]u32{1};
};

/// What the host calls; a plugin's functions have these names.
pub const Method = enum {
    configure,
    synchronize,
    shutdown,
    run_pod_sandbox,
    update_pod_sandbox,
    post_update_pod_sandbox,
    stop_pod_sandbox,
    remove_pod_sandbox,
    create_container,
    post_create_container,
    start_container,
    post_start_container,
    update_container,
    post_update_container,
    stop_container,
    remove_container,
    state_change,
    validate_container_adjustment,
};

/// What a method is asked.
pub fn RequestOf(comptime method: Method) type {
    return switch (method) {
        .configure => ConfigureRequest,
        .synchronize => SynchronizeRequest,
        .shutdown => Empty,
        .run_pod_sandbox => RunPodSandboxRequest,
        .update_pod_sandbox => UpdatePodSandboxRequest,
        .post_update_pod_sandbox => PostUpdatePodSandboxRequest,
        .stop_pod_sandbox => StopPodSandboxRequest,
        .remove_pod_sandbox => RemovePodSandboxRequest,
        .create_container => CreateContainerRequest,
        .post_create_container => PostCreateContainerRequest,
        .start_container => StartContainerRequest,
        .post_start_container => PostStartContainerRequest,
        .update_container => UpdateContainerRequest,
        .post_update_container => PostUpdateContainerRequest,
        .stop_container => StopContainerRequest,
        .remove_container => RemoveContainerRequest,
        .state_change => StateChangeEvent,
        .validate_container_adjustment => ValidateContainerAdjustmentRequest,
    };
}

/// What a method answers.
pub fn ReplyOf(comptime method: Method) type {
    return switch (method) {
        .configure => ConfigureResponse,
        .synchronize => SynchronizeResponse,
        .shutdown => Empty,
        .run_pod_sandbox => RunPodSandboxResponse,
        .update_pod_sandbox => UpdatePodSandboxResponse,
        .post_update_pod_sandbox => PostUpdatePodSandboxResponse,
        .stop_pod_sandbox => StopPodSandboxResponse,
        .remove_pod_sandbox => RemovePodSandboxResponse,
        .create_container => CreateContainerResponse,
        .post_create_container => PostCreateContainerResponse,
        .start_container => StartContainerResponse,
        .post_start_container => PostStartContainerResponse,
        .update_container => UpdateContainerResponse,
        .post_update_container => PostUpdateContainerResponse,
        .stop_container => StopContainerResponse,
        .remove_container => RemoveContainerResponse,
        .state_change => Empty,
        .validate_container_adjustment => ValidateContainerAdjustmentResponse,
    };
}

/// The bits that subscribe to a method's event; 0: it is no event.
pub fn eventsOf(method: Method) i32 {
    return switch (method) {
        .configure => 0x0,
        .synchronize => 0x0,
        .shutdown => 0x0,
        .run_pod_sandbox => 0x1,
        .update_pod_sandbox => 0x800,
        .post_update_pod_sandbox => 0x1000,
        .stop_pod_sandbox => 0x2,
        .remove_pod_sandbox => 0x4,
        .create_container => 0x8,
        .post_create_container => 0x10,
        .start_container => 0x20,
        .post_start_container => 0x40,
        .update_container => 0x80,
        .post_update_container => 0x100,
        .stop_container => 0x200,
        .remove_container => 0x400,
        .state_change => 0x577,
        .validate_container_adjustment => 0x2000,
    };
}
