// Made by scripts/generate from proto/nri.proto.

use crate::view::{enumeration, Map, Repeated, Value, View};
use crate::wire::{Buf, Content, Fault};
use crate::{bail, head, Result};

macro_rules! message {
    ($name:ident $view:ident) => {
        #[derive(Clone, Copy)]
        pub struct $view<'a>(View<'a>);

        impl<'a> $view<'a> {
            pub fn new(bytes: &'a [u8], fault: &'a Fault) -> Self { Self(View::new(bytes, fault)) }
            pub fn bytes(self) -> &'a [u8] { self.0.bytes() }
        }

        impl<'a> Value<'a> for $view<'a> {
            fn read(content: Content<'a>, fault: &'a Fault) -> Option<Self> {
                View::read(content, fault).map(Self)
            }
            fn zero(fault: &'a Fault) -> Self { Self(View::zero(fault)) }
        }

        #[derive(Clone, Debug, Default)]
        pub struct $name(Buf);

        impl $name {
            pub const fn new() -> Self { Self(Buf::new()) }
            pub fn from_buf(buf: Buf) -> Self { Self(buf) }
            pub fn buf(&self) -> &Buf { &self.0 }
            pub fn into_buf(self) -> Buf { self.0 }
            pub fn view(&self) -> $view<'_> { $view(View::of(&self.0)) }
        }

        impl From<$view<'_>> for $name {
            fn from(view: $view<'_>) -> Self {
                let mut buf = Buf::new();
                buf.put(view.bytes());
                Self(buf)
            }
        }
    };
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event(pub i32);

#[allow(non_upper_case_globals)]
impl Event {
    pub const UNKNOWN: Self = Self(0);
    pub const RUN_POD_SANDBOX: Self = Self(1);
    pub const STOP_POD_SANDBOX: Self = Self(2);
    pub const REMOVE_POD_SANDBOX: Self = Self(3);
    pub const CREATE_CONTAINER: Self = Self(4);
    pub const POST_CREATE_CONTAINER: Self = Self(5);
    pub const START_CONTAINER: Self = Self(6);
    pub const POST_START_CONTAINER: Self = Self(7);
    pub const UPDATE_CONTAINER: Self = Self(8);
    pub const POST_UPDATE_CONTAINER: Self = Self(9);
    pub const STOP_CONTAINER: Self = Self(10);
    pub const REMOVE_CONTAINER: Self = Self(11);
    pub const UPDATE_POD_SANDBOX: Self = Self(12);
    pub const POST_UPDATE_POD_SANDBOX: Self = Self(13);
    pub const VALIDATE_CONTAINER_ADJUSTMENT: Self = Self(14);
    pub const LAST: Self = Self(15);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerState(pub i32);

#[allow(non_upper_case_globals)]
impl ContainerState {
    pub const CONTAINER_UNKNOWN: Self = Self(0);
    pub const CONTAINER_CREATED: Self = Self(1);
    pub const CONTAINER_PAUSED: Self = Self(2);
    pub const CONTAINER_RUNNING: Self = Self(3);
    pub const CONTAINER_STOPPED: Self = Self(4);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IOPrioClass(pub i32);

#[allow(non_upper_case_globals)]
impl IOPrioClass {
    pub const IOPRIO_CLASS_NONE: Self = Self(0);
    pub const IOPRIO_CLASS_RT: Self = Self(1);
    pub const IOPRIO_CLASS_BE: Self = Self(2);
    pub const IOPRIO_CLASS_IDLE: Self = Self(3);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinuxSchedulerPolicy(pub i32);

#[allow(non_upper_case_globals)]
impl LinuxSchedulerPolicy {
    pub const SCHED_NONE: Self = Self(0);
    pub const SCHED_OTHER: Self = Self(1);
    pub const SCHED_FIFO: Self = Self(2);
    pub const SCHED_RR: Self = Self(3);
    pub const SCHED_BATCH: Self = Self(4);
    pub const SCHED_ISO: Self = Self(5);
    pub const SCHED_IDLE: Self = Self(6);
    pub const SCHED_DEADLINE: Self = Self(7);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinuxSchedulerFlag(pub i32);

#[allow(non_upper_case_globals)]
impl LinuxSchedulerFlag {
    pub const SCHED_FLAG_RESET_ON_FORK: Self = Self(0);
    pub const SCHED_FLAG_RECLAIM: Self = Self(1);
    pub const SCHED_FLAG_DL_OVERRUN: Self = Self(2);
    pub const SCHED_FLAG_KEEP_POLICY: Self = Self(3);
    pub const SCHED_FLAG_KEEP_PARAMS: Self = Self(4);
    pub const SCHED_FLAG_UTIL_CLAMP_MIN: Self = Self(5);
    pub const SCHED_FLAG_UTIL_CLAMP_MAX: Self = Self(6);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MpolMode(pub i32);

#[allow(non_upper_case_globals)]
impl MpolMode {
    pub const MPOL_DEFAULT: Self = Self(0);
    pub const MPOL_PREFERRED: Self = Self(1);
    pub const MPOL_BIND: Self = Self(2);
    pub const MPOL_INTERLEAVE: Self = Self(3);
    pub const MPOL_LOCAL: Self = Self(4);
    pub const MPOL_PREFERRED_MANY: Self = Self(5);
    pub const MPOL_WEIGHTED_INTERLEAVE: Self = Self(6);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MpolFlag(pub i32);

#[allow(non_upper_case_globals)]
impl MpolFlag {
    pub const MPOL_F_STATIC_NODES: Self = Self(0);
    pub const MPOL_F_RELATIVE_NODES: Self = Self(1);
    pub const MPOL_F_NUMA_BALANCING: Self = Self(2);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field(pub i32);

#[allow(non_upper_case_globals)]
impl Field {
    pub const NoField: Self = Self(0);
    pub const Annotations: Self = Self(1);
    pub const Mounts: Self = Self(2);
    pub const OciHooks: Self = Self(3);
    pub const Devices: Self = Self(4);
    pub const CdiDevices: Self = Self(5);
    pub const Env: Self = Self(6);
    pub const Args: Self = Self(7);
    pub const MemLimit: Self = Self(8);
    pub const MemReservation: Self = Self(9);
    pub const MemSwapLimit: Self = Self(10);
    pub const MemKernelLimit: Self = Self(11);
    pub const MemTCPLimit: Self = Self(12);
    pub const MemSwappiness: Self = Self(13);
    pub const MemDisableOomKiller: Self = Self(14);
    pub const MemUseHierarchy: Self = Self(15);
    pub const CPUShares: Self = Self(16);
    pub const CPUQuota: Self = Self(17);
    pub const CPUPeriod: Self = Self(18);
    pub const CPURealtimeRuntime: Self = Self(19);
    pub const CPURealtimePeriod: Self = Self(20);
    pub const CPUSetCPUs: Self = Self(21);
    pub const CPUSetMems: Self = Self(22);
    pub const PidsLimit: Self = Self(23);
    pub const HugepageLimits: Self = Self(24);
    pub const BlockioClass: Self = Self(25);
    pub const RdtClass: Self = Self(26);
    pub const CgroupsUnified: Self = Self(27);
    pub const CgroupsPath: Self = Self(28);
    pub const OomScoreAdj: Self = Self(29);
    pub const Rlimits: Self = Self(30);
    pub const IoPriority: Self = Self(31);
    pub const SeccompPolicy: Self = Self(32);
    pub const Namespace: Self = Self(33);
    pub const Sysctl: Self = Self(34);
    pub const LinuxNetDevices: Self = Self(35);
    pub const LinuxSched: Self = Self(36);
    pub const RdtClosID: Self = Self(37);
    pub const RdtSchemata: Self = Self(38);
    pub const RdtEnableMonitoring: Self = Self(39);
    pub const MemoryPolicy: Self = Self(40);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileType(pub i32);

#[allow(non_upper_case_globals)]
impl ProfileType {
    pub const RUNTIME_DEFAULT: Self = Self(0);
    pub const UNCONFINED: Self = Self(1);
    pub const LOCALHOST: Self = Self(2);
}

enumeration! { Event ContainerState IOPrioClass LinuxSchedulerPolicy LinuxSchedulerFlag MpolMode MpolFlag Field ProfileType }

message! { UpdateContainersRequest UpdateContainersRequestView }

impl<'a> UpdateContainersRequestView<'a> {
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(1) }
    pub fn evict(self) -> Repeated<'a, ContainerEvictionView<'a>> { self.0.all(2) }
}

impl UpdateContainersRequest {
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_evict(&mut self, value: &ContainerEviction) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { UpdateContainersResponse UpdateContainersResponseView }

impl<'a> UpdateContainersResponseView<'a> {
    pub fn failed(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(1) }
}

impl UpdateContainersResponse {
    pub fn add_failed(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { ConfigureRequest ConfigureRequestView }

impl<'a> ConfigureRequestView<'a> {
    pub fn config(self) -> &'a str { self.0.one(1) }
    pub fn runtime_name(self) -> &'a str { self.0.one(2) }
    pub fn runtime_version(self) -> &'a str { self.0.one(3) }
    pub fn registration_timeout(self) -> i64 { self.0.one(4) }
    pub fn request_timeout(self) -> i64 { self.0.one(5) }
    pub fn nri_version(self) -> &'a str { self.0.one(6) }
}

impl ConfigureRequest {
    pub fn set_config(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_runtime_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_runtime_version(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_registration_timeout(&mut self, value: i64) -> &mut Self {
        self.0.put_number(4, value as u64);
        self
    }
    pub fn set_request_timeout(&mut self, value: i64) -> &mut Self {
        self.0.put_number(5, value as u64);
        self
    }
    pub fn set_nri_version(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(6, value.as_bytes());
        self
    }
}

message! { SynchronizeRequest SynchronizeRequestView }

impl<'a> SynchronizeRequestView<'a> {
    pub fn pods(self) -> Repeated<'a, PodSandboxView<'a>> { self.0.all(1) }
    pub fn containers(self) -> Repeated<'a, ContainerView<'a>> { self.0.all(2) }
    pub fn more(self) -> bool { self.0.one(3) }
}

impl SynchronizeRequest {
    pub fn add_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_more(&mut self, value: bool) -> &mut Self {
        self.0.put_number(3, value as u64);
        self
    }
}

message! { SynchronizeResponse SynchronizeResponseView }

impl<'a> SynchronizeResponseView<'a> {
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(1) }
    pub fn more(self) -> bool { self.0.one(2) }
}

impl SynchronizeResponse {
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_more(&mut self, value: bool) -> &mut Self {
        self.0.put_number(2, value as u64);
        self
    }
}

message! { RunPodSandboxRequest RunPodSandboxRequestView }

impl<'a> RunPodSandboxRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
}

impl RunPodSandboxRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { RunPodSandboxResponse RunPodSandboxResponseView }

message! { UpdatePodSandboxRequest UpdatePodSandboxRequestView }

impl<'a> UpdatePodSandboxRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn overhead_linux_resources(self) -> LinuxResourcesView<'a> { self.0.one(2) }
    pub fn has_overhead_linux_resources(self) -> bool { self.0.has(2) }
    pub fn linux_resources(self) -> LinuxResourcesView<'a> { self.0.one(3) }
    pub fn has_linux_resources(self) -> bool { self.0.has(3) }
}

impl UpdatePodSandboxRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_overhead_linux_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_linux_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
}

message! { UpdatePodSandboxResponse UpdatePodSandboxResponseView }

message! { PostUpdatePodSandboxRequest PostUpdatePodSandboxRequestView }

impl<'a> PostUpdatePodSandboxRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
}

impl PostUpdatePodSandboxRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { PostUpdatePodSandboxResponse PostUpdatePodSandboxResponseView }

message! { StopPodSandboxRequest StopPodSandboxRequestView }

impl<'a> StopPodSandboxRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
}

impl StopPodSandboxRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { StopPodSandboxResponse StopPodSandboxResponseView }

message! { RemovePodSandboxRequest RemovePodSandboxRequestView }

impl<'a> RemovePodSandboxRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
}

impl RemovePodSandboxRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { RemovePodSandboxResponse RemovePodSandboxResponseView }

message! { CreateContainerRequest CreateContainerRequestView }

impl<'a> CreateContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl CreateContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { CreateContainerResponse CreateContainerResponseView }

impl<'a> CreateContainerResponseView<'a> {
    pub fn adjust(self) -> ContainerAdjustmentView<'a> { self.0.one(1) }
    pub fn has_adjust(self) -> bool { self.0.has(1) }
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(2) }
    pub fn evict(self) -> Repeated<'a, ContainerEvictionView<'a>> { self.0.all(3) }
}

impl CreateContainerResponse {
    pub fn set_adjust(&mut self, value: &ContainerAdjustment) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn add_evict(&mut self, value: &ContainerEviction) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
}

message! { PostCreateContainerRequest PostCreateContainerRequestView }

impl<'a> PostCreateContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl PostCreateContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { PostCreateContainerResponse PostCreateContainerResponseView }

message! { StartContainerRequest StartContainerRequestView }

impl<'a> StartContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl StartContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { StartContainerResponse StartContainerResponseView }

message! { PostStartContainerRequest PostStartContainerRequestView }

impl<'a> PostStartContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl PostStartContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { PostStartContainerResponse PostStartContainerResponseView }

message! { UpdateContainerRequest UpdateContainerRequestView }

impl<'a> UpdateContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
    pub fn linux_resources(self) -> LinuxResourcesView<'a> { self.0.one(3) }
    pub fn has_linux_resources(self) -> bool { self.0.has(3) }
}

impl UpdateContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_linux_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
}

message! { UpdateContainerResponse UpdateContainerResponseView }

impl<'a> UpdateContainerResponseView<'a> {
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(1) }
    pub fn evict(self) -> Repeated<'a, ContainerEvictionView<'a>> { self.0.all(2) }
}

impl UpdateContainerResponse {
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_evict(&mut self, value: &ContainerEviction) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { PostUpdateContainerRequest PostUpdateContainerRequestView }

impl<'a> PostUpdateContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl PostUpdateContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { PostUpdateContainerResponse PostUpdateContainerResponseView }

message! { StopContainerRequest StopContainerRequestView }

impl<'a> StopContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl StopContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { StopContainerResponse StopContainerResponseView }

impl<'a> StopContainerResponseView<'a> {
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(1) }
}

impl StopContainerResponse {
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { RemoveContainerRequest RemoveContainerRequestView }

impl<'a> RemoveContainerRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
}

impl RemoveContainerRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
}

message! { RemoveContainerResponse RemoveContainerResponseView }

message! { StateChangeEvent StateChangeEventView }

impl<'a> StateChangeEventView<'a> {
    pub fn event(self) -> Event { self.0.one(1) }
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(2) }
    pub fn has_pod(self) -> bool { self.0.has(2) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(3) }
    pub fn has_container(self) -> bool { self.0.has(3) }
}

impl StateChangeEvent {
    pub fn set_event(&mut self, value: Event) -> &mut Self {
        self.0.put_number(1, value.0 as u64);
        self
    }
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
}

message! { ValidateContainerAdjustmentRequest ValidateContainerAdjustmentRequestView }

impl<'a> ValidateContainerAdjustmentRequestView<'a> {
    pub fn pod(self) -> PodSandboxView<'a> { self.0.one(1) }
    pub fn has_pod(self) -> bool { self.0.has(1) }
    pub fn container(self) -> ContainerView<'a> { self.0.one(2) }
    pub fn has_container(self) -> bool { self.0.has(2) }
    pub fn adjust(self) -> ContainerAdjustmentView<'a> { self.0.one(3) }
    pub fn has_adjust(self) -> bool { self.0.has(3) }
    pub fn update(self) -> Repeated<'a, ContainerUpdateView<'a>> { self.0.all(4) }
    pub fn owners(self) -> OwningPluginsView<'a> { self.0.one(5) }
    pub fn has_owners(self) -> bool { self.0.has(5) }
    pub fn plugins(self) -> Repeated<'a, PluginInstanceView<'a>> { self.0.all(6) }
}

impl ValidateContainerAdjustmentRequest {
    pub fn set_pod(&mut self, value: &PodSandbox) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_container(&mut self, value: &Container) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_adjust(&mut self, value: &ContainerAdjustment) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
    pub fn add_update(&mut self, value: &ContainerUpdate) -> &mut Self {
        self.0.put_message(4, &value.0);
        self
    }
    pub fn set_owners(&mut self, value: &OwningPlugins) -> &mut Self {
        self.0.put_message(5, &value.0);
        self
    }
    pub fn add_plugin(&mut self, value: &PluginInstance) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
}

message! { PluginInstance PluginInstanceView }

impl<'a> PluginInstanceView<'a> {
    pub fn name(self) -> &'a str { self.0.one(1) }
    pub fn index(self) -> &'a str { self.0.one(2) }
}

impl PluginInstance {
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_index(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { ValidateContainerAdjustmentResponse ValidateContainerAdjustmentResponseView }

impl<'a> ValidateContainerAdjustmentResponseView<'a> {
    pub fn reject(self) -> bool { self.0.one(1) }
    pub fn reason(self) -> &'a str { self.0.one(2) }
}

impl ValidateContainerAdjustmentResponse {
    pub fn set_reject(&mut self, value: bool) -> &mut Self {
        self.0.put_number(1, value as u64);
        self
    }
    pub fn set_reason(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { Empty EmptyView }

message! { PodSandbox PodSandboxView }

impl<'a> PodSandboxView<'a> {
    pub fn id(self) -> &'a str { self.0.one(1) }
    pub fn name(self) -> &'a str { self.0.one(2) }
    pub fn uid(self) -> &'a str { self.0.one(3) }
    pub fn namespace(self) -> &'a str { self.0.one(4) }
    pub fn labels(self) -> Map<'a, &'a str, &'a str> { self.0.map(5) }
    pub fn annotations(self) -> Map<'a, &'a str, &'a str> { self.0.map(6) }
    pub fn runtime_handler(self) -> &'a str { self.0.one(7) }
    pub fn linux(self) -> LinuxPodSandboxView<'a> { self.0.one(8) }
    pub fn has_linux(self) -> bool { self.0.has(8) }
    pub fn pid(self) -> u32 { self.0.one(9) }
    pub fn ips(self) -> Repeated<'a, &'a str> { self.0.all(10) }
}

impl PodSandbox {
    pub fn set_id(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_uid(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_namespace(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(4, value.as_bytes());
        self
    }
    pub fn add_label(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(5, &to);
        self
    }
    pub fn add_annotation(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(6, &to);
        self
    }
    pub fn set_runtime_handler(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(7, value.as_bytes());
        self
    }
    pub fn set_linux(&mut self, value: &LinuxPodSandbox) -> &mut Self {
        self.0.put_message(8, &value.0);
        self
    }
    pub fn set_pid(&mut self, value: u32) -> &mut Self {
        self.0.put_number(9, value as u64);
        self
    }
    pub fn add_ip(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(10, value.as_bytes());
        self
    }
}

message! { LinuxPodSandbox LinuxPodSandboxView }

impl<'a> LinuxPodSandboxView<'a> {
    pub fn pod_overhead(self) -> LinuxResourcesView<'a> { self.0.one(1) }
    pub fn has_pod_overhead(self) -> bool { self.0.has(1) }
    pub fn pod_resources(self) -> LinuxResourcesView<'a> { self.0.one(2) }
    pub fn has_pod_resources(self) -> bool { self.0.has(2) }
    pub fn cgroup_parent(self) -> &'a str { self.0.one(3) }
    pub fn cgroups_path(self) -> &'a str { self.0.one(4) }
    pub fn namespaces(self) -> Repeated<'a, LinuxNamespaceView<'a>> { self.0.all(5) }
    pub fn resources(self) -> LinuxResourcesView<'a> { self.0.one(6) }
    pub fn has_resources(self) -> bool { self.0.has(6) }
}

impl LinuxPodSandbox {
    pub fn set_pod_overhead(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_pod_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_cgroup_parent(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_cgroups_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(4, value.as_bytes());
        self
    }
    pub fn add_namespace(&mut self, value: &LinuxNamespace) -> &mut Self {
        self.0.put_message(5, &value.0);
        self
    }
    pub fn set_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
}

message! { Container ContainerView }

impl<'a> ContainerView<'a> {
    pub fn id(self) -> &'a str { self.0.one(1) }
    pub fn pod_sandbox_id(self) -> &'a str { self.0.one(2) }
    pub fn name(self) -> &'a str { self.0.one(3) }
    pub fn state(self) -> ContainerState { self.0.one(4) }
    pub fn labels(self) -> Map<'a, &'a str, &'a str> { self.0.map(5) }
    pub fn annotations(self) -> Map<'a, &'a str, &'a str> { self.0.map(6) }
    pub fn args(self) -> Repeated<'a, &'a str> { self.0.all(7) }
    pub fn env(self) -> Repeated<'a, &'a str> { self.0.all(8) }
    pub fn mounts(self) -> Repeated<'a, MountView<'a>> { self.0.all(9) }
    pub fn hooks(self) -> HooksView<'a> { self.0.one(10) }
    pub fn has_hooks(self) -> bool { self.0.has(10) }
    pub fn linux(self) -> LinuxContainerView<'a> { self.0.one(11) }
    pub fn has_linux(self) -> bool { self.0.has(11) }
    pub fn pid(self) -> u32 { self.0.one(12) }
    pub fn rlimits(self) -> Repeated<'a, POSIXRlimitView<'a>> { self.0.all(13) }
    pub fn created_at(self) -> i64 { self.0.one(14) }
    pub fn started_at(self) -> i64 { self.0.one(15) }
    pub fn finished_at(self) -> i64 { self.0.one(16) }
    pub fn exit_code(self) -> i32 { self.0.one(17) }
    pub fn status_reason(self) -> &'a str { self.0.one(18) }
    pub fn status_message(self) -> &'a str { self.0.one(19) }
    pub fn cdi_devices(self) -> Repeated<'a, CDIDeviceView<'a>> { self.0.all(20) }
    pub fn user(self) -> UserView<'a> { self.0.one(21) }
    pub fn has_user(self) -> bool { self.0.has(21) }
    pub fn image(self) -> ImageView<'a> { self.0.one(22) }
    pub fn has_image(self) -> bool { self.0.has(22) }
}

impl Container {
    pub fn set_id(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_pod_sandbox_id(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_state(&mut self, value: ContainerState) -> &mut Self {
        self.0.put_number(4, value.0 as u64);
        self
    }
    pub fn add_label(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(5, &to);
        self
    }
    pub fn add_annotation(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(6, &to);
        self
    }
    pub fn add_arg(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(7, value.as_bytes());
        self
    }
    pub fn add_env(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(8, value.as_bytes());
        self
    }
    pub fn add_mount(&mut self, value: &Mount) -> &mut Self {
        self.0.put_message(9, &value.0);
        self
    }
    pub fn set_hooks(&mut self, value: &Hooks) -> &mut Self {
        self.0.put_message(10, &value.0);
        self
    }
    pub fn set_linux(&mut self, value: &LinuxContainer) -> &mut Self {
        self.0.put_message(11, &value.0);
        self
    }
    pub fn set_pid(&mut self, value: u32) -> &mut Self {
        self.0.put_number(12, value as u64);
        self
    }
    pub fn add_rlimit(&mut self, value: &POSIXRlimit) -> &mut Self {
        self.0.put_message(13, &value.0);
        self
    }
    pub fn set_created_at(&mut self, value: i64) -> &mut Self {
        self.0.put_number(14, value as u64);
        self
    }
    pub fn set_started_at(&mut self, value: i64) -> &mut Self {
        self.0.put_number(15, value as u64);
        self
    }
    pub fn set_finished_at(&mut self, value: i64) -> &mut Self {
        self.0.put_number(16, value as u64);
        self
    }
    pub fn set_exit_code(&mut self, value: i32) -> &mut Self {
        self.0.put_number(17, value as u64);
        self
    }
    pub fn set_status_reason(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(18, value.as_bytes());
        self
    }
    pub fn set_status_message(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(19, value.as_bytes());
        self
    }
    pub fn add_cdi_device(&mut self, value: &CDIDevice) -> &mut Self {
        self.0.put_message(20, &value.0);
        self
    }
    pub fn set_user(&mut self, value: &User) -> &mut Self {
        self.0.put_message(21, &value.0);
        self
    }
    pub fn set_image(&mut self, value: &Image) -> &mut Self {
        self.0.put_message(22, &value.0);
        self
    }
}

message! { Image ImageView }

impl<'a> ImageView<'a> {
    pub fn name(self) -> &'a str { self.0.one(1) }
    pub fn digest(self) -> &'a str { self.0.one(2) }
    pub fn config_digest(self) -> &'a str { self.0.one(3) }
}

impl Image {
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_digest(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_config_digest(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
}

message! { Mount MountView }

impl<'a> MountView<'a> {
    pub fn destination(self) -> &'a str { self.0.one(1) }
    pub fn r#type(self) -> &'a str { self.0.one(2) }
    pub fn source(self) -> &'a str { self.0.one(3) }
    pub fn options(self) -> Repeated<'a, &'a str> { self.0.all(4) }
}

impl Mount {
    pub fn set_destination(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_type(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_source(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn add_option(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(4, value.as_bytes());
        self
    }
}

message! { Hooks HooksView }

impl<'a> HooksView<'a> {
    pub fn prestart(self) -> Repeated<'a, HookView<'a>> { self.0.all(1) }
    pub fn create_runtime(self) -> Repeated<'a, HookView<'a>> { self.0.all(2) }
    pub fn create_container(self) -> Repeated<'a, HookView<'a>> { self.0.all(3) }
    pub fn start_container(self) -> Repeated<'a, HookView<'a>> { self.0.all(4) }
    pub fn poststart(self) -> Repeated<'a, HookView<'a>> { self.0.all(5) }
    pub fn poststop(self) -> Repeated<'a, HookView<'a>> { self.0.all(6) }
}

impl Hooks {
    pub fn add_prestart(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_create_runtime(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn add_create_container(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
    pub fn add_start_container(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(4, &value.0);
        self
    }
    pub fn add_poststart(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(5, &value.0);
        self
    }
    pub fn add_poststop(&mut self, value: &Hook) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
}

message! { Hook HookView }

impl<'a> HookView<'a> {
    pub fn path(self) -> &'a str { self.0.one(1) }
    pub fn args(self) -> Repeated<'a, &'a str> { self.0.all(2) }
    pub fn env(self) -> Repeated<'a, &'a str> { self.0.all(3) }
    pub fn timeout(self) -> Option<i64> { self.0.optional(4) }
}

impl Hook {
    pub fn set_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn add_arg(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn add_env(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_timeout(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
}

message! { LinuxContainer LinuxContainerView }

impl<'a> LinuxContainerView<'a> {
    pub fn namespaces(self) -> Repeated<'a, LinuxNamespaceView<'a>> { self.0.all(1) }
    pub fn devices(self) -> Repeated<'a, LinuxDeviceView<'a>> { self.0.all(2) }
    pub fn resources(self) -> LinuxResourcesView<'a> { self.0.one(3) }
    pub fn has_resources(self) -> bool { self.0.has(3) }
    pub fn oom_score_adj(self) -> Option<i64> { self.0.optional(4) }
    pub fn cgroups_path(self) -> &'a str { self.0.one(5) }
    pub fn io_priority(self) -> LinuxIOPriorityView<'a> { self.0.one(6) }
    pub fn has_io_priority(self) -> bool { self.0.has(6) }
    pub fn seccomp_profile(self) -> SecurityProfileView<'a> { self.0.one(7) }
    pub fn has_seccomp_profile(self) -> bool { self.0.has(7) }
    pub fn seccomp_policy(self) -> LinuxSeccompView<'a> { self.0.one(8) }
    pub fn has_seccomp_policy(self) -> bool { self.0.has(8) }
    pub fn sysctl(self) -> Map<'a, &'a str, &'a str> { self.0.map(9) }
    pub fn net_devices(self) -> Map<'a, &'a str, LinuxNetDeviceView<'a>> { self.0.map(10) }
    pub fn scheduler(self) -> LinuxSchedulerView<'a> { self.0.one(11) }
    pub fn has_scheduler(self) -> bool { self.0.has(11) }
    pub fn rdt(self) -> LinuxRdtView<'a> { self.0.one(12) }
    pub fn has_rdt(self) -> bool { self.0.has(12) }
}

impl LinuxContainer {
    pub fn add_namespace(&mut self, value: &LinuxNamespace) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn add_device(&mut self, value: &LinuxDevice) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
    pub fn set_oom_score_adj(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
    pub fn set_cgroups_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(5, value.as_bytes());
        self
    }
    pub fn set_io_priority(&mut self, value: &LinuxIOPriority) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
    pub fn set_seccomp_profile(&mut self, value: &SecurityProfile) -> &mut Self {
        self.0.put_message(7, &value.0);
        self
    }
    pub fn set_seccomp_policy(&mut self, value: &LinuxSeccomp) -> &mut Self {
        self.0.put_message(8, &value.0);
        self
    }
    pub fn add_sysctl(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(9, &to);
        self
    }
    pub fn add_net_device(&mut self, key: &str, value: &LinuxNetDevice) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_message(2, &value.0);
        self.0.put_message(10, &to);
        self
    }
    pub fn set_scheduler(&mut self, value: &LinuxScheduler) -> &mut Self {
        self.0.put_message(11, &value.0);
        self
    }
    pub fn set_rdt(&mut self, value: &LinuxRdt) -> &mut Self {
        self.0.put_message(12, &value.0);
        self
    }
}

message! { LinuxNamespace LinuxNamespaceView }

impl<'a> LinuxNamespaceView<'a> {
    pub fn r#type(self) -> &'a str { self.0.one(1) }
    pub fn path(self) -> &'a str { self.0.one(2) }
}

impl LinuxNamespace {
    pub fn set_type(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { LinuxDevice LinuxDeviceView }

impl<'a> LinuxDeviceView<'a> {
    pub fn path(self) -> &'a str { self.0.one(1) }
    pub fn r#type(self) -> &'a str { self.0.one(2) }
    pub fn major(self) -> i64 { self.0.one(3) }
    pub fn minor(self) -> i64 { self.0.one(4) }
    pub fn file_mode(self) -> Option<u32> { self.0.optional(5) }
    pub fn uid(self) -> Option<u32> { self.0.optional(6) }
    pub fn gid(self) -> Option<u32> { self.0.optional(7) }
}

impl LinuxDevice {
    pub fn set_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_type(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_major(&mut self, value: i64) -> &mut Self {
        self.0.put_number(3, value as u64);
        self
    }
    pub fn set_minor(&mut self, value: i64) -> &mut Self {
        self.0.put_number(4, value as u64);
        self
    }
    pub fn set_file_mode(&mut self, value: u32) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(5, &to);
        self
    }
    pub fn set_uid(&mut self, value: u32) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(6, &to);
        self
    }
    pub fn set_gid(&mut self, value: u32) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(7, &to);
        self
    }
}

message! { LinuxDeviceCgroup LinuxDeviceCgroupView }

impl<'a> LinuxDeviceCgroupView<'a> {
    pub fn allow(self) -> bool { self.0.one(1) }
    pub fn r#type(self) -> &'a str { self.0.one(2) }
    pub fn major(self) -> Option<i64> { self.0.optional(3) }
    pub fn minor(self) -> Option<i64> { self.0.optional(4) }
    pub fn access(self) -> &'a str { self.0.one(5) }
}

impl LinuxDeviceCgroup {
    pub fn set_allow(&mut self, value: bool) -> &mut Self {
        self.0.put_number(1, value as u64);
        self
    }
    pub fn set_type(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_major(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(3, &to);
        self
    }
    pub fn set_minor(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
    pub fn set_access(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(5, value.as_bytes());
        self
    }
}

message! { CDIDevice CDIDeviceView }

impl<'a> CDIDeviceView<'a> {
    pub fn name(self) -> &'a str { self.0.one(1) }
}

impl CDIDevice {
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
}

message! { User UserView }

impl<'a> UserView<'a> {
    pub fn uid(self) -> u32 { self.0.one(1) }
    pub fn gid(self) -> u32 { self.0.one(2) }
    pub fn additional_gids(self) -> Repeated<'a, u32> { self.0.all(3) }
}

impl User {
    pub fn set_uid(&mut self, value: u32) -> &mut Self {
        self.0.put_number(1, value as u64);
        self
    }
    pub fn set_gid(&mut self, value: u32) -> &mut Self {
        self.0.put_number(2, value as u64);
        self
    }
    pub fn add_additional_gid(&mut self, value: u32) -> &mut Self {
        self.0.put_number(3, value as u64);
        self
    }
}

message! { LinuxResources LinuxResourcesView }

impl<'a> LinuxResourcesView<'a> {
    pub fn memory(self) -> LinuxMemoryView<'a> { self.0.one(1) }
    pub fn has_memory(self) -> bool { self.0.has(1) }
    pub fn cpu(self) -> LinuxCPUView<'a> { self.0.one(2) }
    pub fn has_cpu(self) -> bool { self.0.has(2) }
    pub fn hugepage_limits(self) -> Repeated<'a, HugepageLimitView<'a>> { self.0.all(3) }
    pub fn blockio_class(self) -> Option<&'a str> { self.0.optional(4) }
    pub fn rdt_class(self) -> Option<&'a str> { self.0.optional(5) }
    pub fn unified(self) -> Map<'a, &'a str, &'a str> { self.0.map(6) }
    pub fn devices(self) -> Repeated<'a, LinuxDeviceCgroupView<'a>> { self.0.all(7) }
    pub fn pids(self) -> LinuxPidsView<'a> { self.0.one(8) }
    pub fn has_pids(self) -> bool { self.0.has(8) }
}

impl LinuxResources {
    pub fn set_memory(&mut self, value: &LinuxMemory) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_cpu(&mut self, value: &LinuxCPU) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn add_hugepage_limit(&mut self, value: &HugepageLimit) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
    pub fn set_blockio_class(&mut self, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, value.as_bytes());
        self.0.put_message(4, &to);
        self
    }
    pub fn set_rdt_class(&mut self, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, value.as_bytes());
        self.0.put_message(5, &to);
        self
    }
    pub fn add_unified(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(6, &to);
        self
    }
    pub fn add_device(&mut self, value: &LinuxDeviceCgroup) -> &mut Self {
        self.0.put_message(7, &value.0);
        self
    }
    pub fn set_pids(&mut self, value: &LinuxPids) -> &mut Self {
        self.0.put_message(8, &value.0);
        self
    }
}

message! { LinuxMemory LinuxMemoryView }

impl<'a> LinuxMemoryView<'a> {
    pub fn limit(self) -> Option<i64> { self.0.optional(1) }
    pub fn reservation(self) -> Option<i64> { self.0.optional(2) }
    pub fn swap(self) -> Option<i64> { self.0.optional(3) }
    pub fn kernel(self) -> Option<i64> { self.0.optional(4) }
    pub fn kernel_tcp(self) -> Option<i64> { self.0.optional(5) }
    pub fn swappiness(self) -> Option<u64> { self.0.optional(6) }
    pub fn disable_oom_killer(self) -> Option<bool> { self.0.optional(7) }
    pub fn use_hierarchy(self) -> Option<bool> { self.0.optional(8) }
}

impl LinuxMemory {
    pub fn set_limit(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(1, &to);
        self
    }
    pub fn set_reservation(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(2, &to);
        self
    }
    pub fn set_swap(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(3, &to);
        self
    }
    pub fn set_kernel(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
    pub fn set_kernel_tcp(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(5, &to);
        self
    }
    pub fn set_swappiness(&mut self, value: u64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value);
        self.0.put_message(6, &to);
        self
    }
    pub fn set_disable_oom_killer(&mut self, value: bool) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(7, &to);
        self
    }
    pub fn set_use_hierarchy(&mut self, value: bool) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(8, &to);
        self
    }
}

message! { LinuxCPU LinuxCPUView }

impl<'a> LinuxCPUView<'a> {
    pub fn shares(self) -> Option<u64> { self.0.optional(1) }
    pub fn quota(self) -> Option<i64> { self.0.optional(2) }
    pub fn period(self) -> Option<u64> { self.0.optional(3) }
    pub fn realtime_runtime(self) -> Option<i64> { self.0.optional(4) }
    pub fn realtime_period(self) -> Option<u64> { self.0.optional(5) }
    pub fn cpus(self) -> &'a str { self.0.one(6) }
    pub fn mems(self) -> &'a str { self.0.one(7) }
}

impl LinuxCPU {
    pub fn set_shares(&mut self, value: u64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value);
        self.0.put_message(1, &to);
        self
    }
    pub fn set_quota(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(2, &to);
        self
    }
    pub fn set_period(&mut self, value: u64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value);
        self.0.put_message(3, &to);
        self
    }
    pub fn set_realtime_runtime(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
    pub fn set_realtime_period(&mut self, value: u64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value);
        self.0.put_message(5, &to);
        self
    }
    pub fn set_cpus(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(6, value.as_bytes());
        self
    }
    pub fn set_mems(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(7, value.as_bytes());
        self
    }
}

message! { HugepageLimit HugepageLimitView }

impl<'a> HugepageLimitView<'a> {
    pub fn page_size(self) -> &'a str { self.0.one(1) }
    pub fn limit(self) -> u64 { self.0.one(2) }
}

impl HugepageLimit {
    pub fn set_page_size(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_limit(&mut self, value: u64) -> &mut Self {
        self.0.put_number(2, value);
        self
    }
}

message! { SecurityProfile SecurityProfileView }

impl<'a> SecurityProfileView<'a> {
    pub fn profile_type(self) -> ProfileType { self.0.one(1) }
    pub fn localhost_ref(self) -> &'a str { self.0.one(2) }
}

impl SecurityProfile {
    pub fn set_profile_type(&mut self, value: ProfileType) -> &mut Self {
        self.0.put_number(1, value.0 as u64);
        self
    }
    pub fn set_localhost_ref(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { POSIXRlimit POSIXRlimitView }

impl<'a> POSIXRlimitView<'a> {
    pub fn r#type(self) -> &'a str { self.0.one(1) }
    pub fn hard(self) -> u64 { self.0.one(2) }
    pub fn soft(self) -> u64 { self.0.one(3) }
}

impl POSIXRlimit {
    pub fn set_type(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_hard(&mut self, value: u64) -> &mut Self {
        self.0.put_number(2, value);
        self
    }
    pub fn set_soft(&mut self, value: u64) -> &mut Self {
        self.0.put_number(3, value);
        self
    }
}

message! { LinuxPids LinuxPidsView }

impl<'a> LinuxPidsView<'a> {
    pub fn limit(self) -> i64 { self.0.one(1) }
}

impl LinuxPids {
    pub fn set_limit(&mut self, value: i64) -> &mut Self {
        self.0.put_number(1, value as u64);
        self
    }
}

message! { LinuxIOPriority LinuxIOPriorityView }

impl<'a> LinuxIOPriorityView<'a> {
    pub fn class(self) -> IOPrioClass { self.0.one(1) }
    pub fn priority(self) -> i32 { self.0.one(2) }
}

impl LinuxIOPriority {
    pub fn set_class(&mut self, value: IOPrioClass) -> &mut Self {
        self.0.put_number(1, value.0 as u64);
        self
    }
    pub fn set_priority(&mut self, value: i32) -> &mut Self {
        self.0.put_number(2, value as u64);
        self
    }
}

message! { LinuxNetDevice LinuxNetDeviceView }

impl<'a> LinuxNetDeviceView<'a> {
    pub fn name(self) -> &'a str { self.0.one(1) }
}

impl LinuxNetDevice {
    pub fn set_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
}

message! { LinuxScheduler LinuxSchedulerView }

impl<'a> LinuxSchedulerView<'a> {
    pub fn policy(self) -> LinuxSchedulerPolicy { self.0.one(1) }
    pub fn nice(self) -> i32 { self.0.one(2) }
    pub fn priority(self) -> i32 { self.0.one(3) }
    pub fn flags(self) -> Repeated<'a, LinuxSchedulerFlag> { self.0.all(4) }
    pub fn runtime(self) -> u64 { self.0.one(5) }
    pub fn deadline(self) -> u64 { self.0.one(6) }
    pub fn period(self) -> u64 { self.0.one(7) }
}

impl LinuxScheduler {
    pub fn set_policy(&mut self, value: LinuxSchedulerPolicy) -> &mut Self {
        self.0.put_number(1, value.0 as u64);
        self
    }
    pub fn set_nice(&mut self, value: i32) -> &mut Self {
        self.0.put_number(2, value as u64);
        self
    }
    pub fn set_priority(&mut self, value: i32) -> &mut Self {
        self.0.put_number(3, value as u64);
        self
    }
    pub fn add_flag(&mut self, value: LinuxSchedulerFlag) -> &mut Self {
        self.0.put_number(4, value.0 as u64);
        self
    }
    pub fn set_runtime(&mut self, value: u64) -> &mut Self {
        self.0.put_number(5, value);
        self
    }
    pub fn set_deadline(&mut self, value: u64) -> &mut Self {
        self.0.put_number(6, value);
        self
    }
    pub fn set_period(&mut self, value: u64) -> &mut Self {
        self.0.put_number(7, value);
        self
    }
}

message! { ContainerAdjustment ContainerAdjustmentView }

impl<'a> ContainerAdjustmentView<'a> {
    pub fn annotations(self) -> Map<'a, &'a str, &'a str> { self.0.map(2) }
    pub fn mounts(self) -> Repeated<'a, MountView<'a>> { self.0.all(3) }
    pub fn env(self) -> Repeated<'a, KeyValueView<'a>> { self.0.all(4) }
    pub fn hooks(self) -> HooksView<'a> { self.0.one(5) }
    pub fn has_hooks(self) -> bool { self.0.has(5) }
    pub fn linux(self) -> LinuxContainerAdjustmentView<'a> { self.0.one(6) }
    pub fn has_linux(self) -> bool { self.0.has(6) }
    pub fn rlimits(self) -> Repeated<'a, POSIXRlimitView<'a>> { self.0.all(7) }
    pub fn cdi_devices(self) -> Repeated<'a, CDIDeviceView<'a>> { self.0.all(8) }
    pub fn args(self) -> Repeated<'a, &'a str> { self.0.all(9) }
}

impl ContainerAdjustment {
    pub fn add_annotation(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(2, &to);
        self
    }
    pub fn add_mount(&mut self, value: &Mount) -> &mut Self {
        self.0.put_message(3, &value.0);
        self
    }
    pub fn add_env(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(4, &to);
        self
    }
    pub fn set_hooks(&mut self, value: &Hooks) -> &mut Self {
        self.0.put_message(5, &value.0);
        self
    }
    pub fn set_linux(&mut self, value: &LinuxContainerAdjustment) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
    pub fn add_rlimit(&mut self, value: &POSIXRlimit) -> &mut Self {
        self.0.put_message(7, &value.0);
        self
    }
    pub fn add_cdi_device(&mut self, value: &CDIDevice) -> &mut Self {
        self.0.put_message(8, &value.0);
        self
    }
    pub fn add_arg(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(9, value.as_bytes());
        self
    }
}

message! { LinuxContainerAdjustment LinuxContainerAdjustmentView }

impl<'a> LinuxContainerAdjustmentView<'a> {
    pub fn devices(self) -> Repeated<'a, LinuxDeviceView<'a>> { self.0.all(1) }
    pub fn resources(self) -> LinuxResourcesView<'a> { self.0.one(2) }
    pub fn has_resources(self) -> bool { self.0.has(2) }
    pub fn cgroups_path(self) -> &'a str { self.0.one(3) }
    pub fn oom_score_adj(self) -> Option<i64> { self.0.optional(4) }
    pub fn io_priority(self) -> LinuxIOPriorityView<'a> { self.0.one(5) }
    pub fn has_io_priority(self) -> bool { self.0.has(5) }
    pub fn seccomp_policy(self) -> LinuxSeccompView<'a> { self.0.one(6) }
    pub fn has_seccomp_policy(self) -> bool { self.0.has(6) }
    pub fn namespaces(self) -> Repeated<'a, LinuxNamespaceView<'a>> { self.0.all(7) }
    pub fn sysctl(self) -> Map<'a, &'a str, &'a str> { self.0.map(8) }
    pub fn net_devices(self) -> Map<'a, &'a str, LinuxNetDeviceView<'a>> { self.0.map(9) }
    pub fn scheduler(self) -> LinuxSchedulerView<'a> { self.0.one(10) }
    pub fn has_scheduler(self) -> bool { self.0.has(10) }
    pub fn rdt(self) -> LinuxRdtView<'a> { self.0.one(11) }
    pub fn has_rdt(self) -> bool { self.0.has(11) }
    pub fn memory_policy(self) -> LinuxMemoryPolicyView<'a> { self.0.one(12) }
    pub fn has_memory_policy(self) -> bool { self.0.has(12) }
}

impl LinuxContainerAdjustment {
    pub fn add_device(&mut self, value: &LinuxDevice) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
    pub fn set_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_cgroups_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn set_oom_score_adj(&mut self, value: i64) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(4, &to);
        self
    }
    pub fn set_io_priority(&mut self, value: &LinuxIOPriority) -> &mut Self {
        self.0.put_message(5, &value.0);
        self
    }
    pub fn set_seccomp_policy(&mut self, value: &LinuxSeccomp) -> &mut Self {
        self.0.put_message(6, &value.0);
        self
    }
    pub fn add_namespace(&mut self, value: &LinuxNamespace) -> &mut Self {
        self.0.put_message(7, &value.0);
        self
    }
    pub fn add_sysctl(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(8, &to);
        self
    }
    pub fn add_net_device(&mut self, key: &str, value: &LinuxNetDevice) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_message(2, &value.0);
        self.0.put_message(9, &to);
        self
    }
    pub fn set_scheduler(&mut self, value: &LinuxScheduler) -> &mut Self {
        self.0.put_message(10, &value.0);
        self
    }
    pub fn set_rdt(&mut self, value: &LinuxRdt) -> &mut Self {
        self.0.put_message(11, &value.0);
        self
    }
    pub fn set_memory_policy(&mut self, value: &LinuxMemoryPolicy) -> &mut Self {
        self.0.put_message(12, &value.0);
        self
    }
}

message! { LinuxSeccomp LinuxSeccompView }

impl<'a> LinuxSeccompView<'a> {
    pub fn default_action(self) -> &'a str { self.0.one(1) }
    pub fn default_errno(self) -> Option<u32> { self.0.optional(2) }
    pub fn architectures(self) -> Repeated<'a, &'a str> { self.0.all(3) }
    pub fn flags(self) -> Repeated<'a, &'a str> { self.0.all(4) }
    pub fn listener_path(self) -> &'a str { self.0.one(5) }
    pub fn listener_metadata(self) -> &'a str { self.0.one(6) }
    pub fn syscalls(self) -> Repeated<'a, LinuxSyscallView<'a>> { self.0.all(7) }
}

impl LinuxSeccomp {
    pub fn set_default_action(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_default_errno(&mut self, value: u32) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(2, &to);
        self
    }
    pub fn add_architecture(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(3, value.as_bytes());
        self
    }
    pub fn add_flag(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(4, value.as_bytes());
        self
    }
    pub fn set_listener_path(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(5, value.as_bytes());
        self
    }
    pub fn set_listener_metadata(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(6, value.as_bytes());
        self
    }
    pub fn add_syscall(&mut self, value: &LinuxSyscall) -> &mut Self {
        self.0.put_message(7, &value.0);
        self
    }
}

message! { LinuxSyscall LinuxSyscallView }

impl<'a> LinuxSyscallView<'a> {
    pub fn names(self) -> Repeated<'a, &'a str> { self.0.all(1) }
    pub fn action(self) -> &'a str { self.0.one(2) }
    pub fn errno_ret(self) -> Option<u32> { self.0.optional(3) }
    pub fn args(self) -> Repeated<'a, LinuxSeccompArgView<'a>> { self.0.all(4) }
}

impl LinuxSyscall {
    pub fn add_name(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_action(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn set_errno_ret(&mut self, value: u32) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(3, &to);
        self
    }
    pub fn add_arg(&mut self, value: &LinuxSeccompArg) -> &mut Self {
        self.0.put_message(4, &value.0);
        self
    }
}

message! { LinuxSeccompArg LinuxSeccompArgView }

impl<'a> LinuxSeccompArgView<'a> {
    pub fn index(self) -> u32 { self.0.one(1) }
    pub fn value(self) -> u64 { self.0.one(2) }
    pub fn value_two(self) -> u64 { self.0.one(3) }
    pub fn op(self) -> &'a str { self.0.one(4) }
}

impl LinuxSeccompArg {
    pub fn set_index(&mut self, value: u32) -> &mut Self {
        self.0.put_number(1, value as u64);
        self
    }
    pub fn set_value(&mut self, value: u64) -> &mut Self {
        self.0.put_number(2, value);
        self
    }
    pub fn set_value_two(&mut self, value: u64) -> &mut Self {
        self.0.put_number(3, value);
        self
    }
    pub fn set_op(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(4, value.as_bytes());
        self
    }
}

message! { LinuxMemoryPolicy LinuxMemoryPolicyView }

impl<'a> LinuxMemoryPolicyView<'a> {
    pub fn mode(self) -> MpolMode { self.0.one(1) }
    pub fn nodes(self) -> &'a str { self.0.one(2) }
    pub fn flags(self) -> Repeated<'a, MpolFlag> { self.0.all(3) }
}

impl LinuxMemoryPolicy {
    pub fn set_mode(&mut self, value: MpolMode) -> &mut Self {
        self.0.put_number(1, value.0 as u64);
        self
    }
    pub fn set_nodes(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
    pub fn add_flag(&mut self, value: MpolFlag) -> &mut Self {
        self.0.put_number(3, value.0 as u64);
        self
    }
}

message! { ContainerUpdate ContainerUpdateView }

impl<'a> ContainerUpdateView<'a> {
    pub fn container_id(self) -> &'a str { self.0.one(1) }
    pub fn linux(self) -> LinuxContainerUpdateView<'a> { self.0.one(2) }
    pub fn has_linux(self) -> bool { self.0.has(2) }
    pub fn ignore_failure(self) -> bool { self.0.one(3) }
}

impl ContainerUpdate {
    pub fn set_container_id(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_linux(&mut self, value: &LinuxContainerUpdate) -> &mut Self {
        self.0.put_message(2, &value.0);
        self
    }
    pub fn set_ignore_failure(&mut self, value: bool) -> &mut Self {
        self.0.put_number(3, value as u64);
        self
    }
}

message! { LinuxContainerUpdate LinuxContainerUpdateView }

impl<'a> LinuxContainerUpdateView<'a> {
    pub fn resources(self) -> LinuxResourcesView<'a> { self.0.one(1) }
    pub fn has_resources(self) -> bool { self.0.has(1) }
}

impl LinuxContainerUpdate {
    pub fn set_resources(&mut self, value: &LinuxResources) -> &mut Self {
        self.0.put_message(1, &value.0);
        self
    }
}

message! { ContainerEviction ContainerEvictionView }

impl<'a> ContainerEvictionView<'a> {
    pub fn container_id(self) -> &'a str { self.0.one(1) }
    pub fn reason(self) -> &'a str { self.0.one(2) }
}

impl ContainerEviction {
    pub fn set_container_id(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_reason(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { LinuxRdt LinuxRdtView }

impl<'a> LinuxRdtView<'a> {
    pub fn clos_id(self) -> Option<&'a str> { self.0.optional(1) }
    pub fn schemata(self) -> Repeated<'a, &'a str> { self.0.one::<View>(2).all(1) }
    pub fn enable_monitoring(self) -> Option<bool> { self.0.optional(3) }
    pub fn remove(self) -> bool { self.0.one(4) }
}

impl LinuxRdt {
    pub fn set_clos_id(&mut self, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, value.as_bytes());
        self.0.put_message(1, &to);
        self
    }
    pub fn set_schemata(&mut self, values: &[&str]) -> &mut Self {
        let mut to = Buf::new();
        for value in values { to.put_bytes(1, value.as_bytes()); }
        self.0.put_message(2, &to);
        self
    }
    pub fn set_enable_monitoring(&mut self, value: bool) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, value as u64);
        self.0.put_message(3, &to);
        self
    }
    pub fn set_remove(&mut self, value: bool) -> &mut Self {
        self.0.put_number(4, value as u64);
        self
    }
}

message! { KeyValue KeyValueView }

impl<'a> KeyValueView<'a> {
    pub fn key(self) -> &'a str { self.0.one(1) }
    pub fn value(self) -> &'a str { self.0.one(2) }
}

impl KeyValue {
    pub fn set_key(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(1, value.as_bytes());
        self
    }
    pub fn set_value(&mut self, value: &str) -> &mut Self {
        self.0.put_bytes(2, value.as_bytes());
        self
    }
}

message! { CompoundFieldOwners CompoundFieldOwnersView }

impl<'a> CompoundFieldOwnersView<'a> {
    pub fn owners(self) -> Map<'a, &'a str, &'a str> { self.0.map(1) }
}

impl CompoundFieldOwners {
    pub fn add_owner(&mut self, key: &str, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(1, &to);
        self
    }
}

message! { FieldOwners FieldOwnersView }

impl<'a> FieldOwnersView<'a> {
    pub fn simple(self) -> Map<'a, i32, &'a str> { self.0.map(1) }
    pub fn compound(self) -> Map<'a, i32, CompoundFieldOwnersView<'a>> { self.0.map(2) }
}

impl FieldOwners {
    pub fn add_simple(&mut self, key: i32, value: &str) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, key as u64);
        to.put_bytes(2, value.as_bytes());
        self.0.put_message(1, &to);
        self
    }
    pub fn add_compound(&mut self, key: i32, value: &CompoundFieldOwners) -> &mut Self {
        let mut to = Buf::new();
        to.put_number(1, key as u64);
        to.put_message(2, &value.0);
        self.0.put_message(2, &to);
        self
    }
}

message! { OwningPlugins OwningPluginsView }

impl<'a> OwningPluginsView<'a> {
    pub fn owners(self) -> Map<'a, &'a str, FieldOwnersView<'a>> { self.0.map(1) }
}

impl OwningPlugins {
    pub fn add_owner(&mut self, key: &str, value: &FieldOwners) -> &mut Self {
        let mut to = Buf::new();
        to.put_bytes(1, key.as_bytes());
        to.put_message(2, &value.0);
        self.0.put_message(1, &to);
        self
    }
}

/// A plugin: what it does not answer changes nothing. [`crate::plugin!`] exports it.
#[allow(unused_variables)]
pub trait Plugin: Default {
    /// Without it the plugin has no settings, and refuses some.
    fn configure(&mut self, request: ConfigureRequestView<'_>) -> Result<()> {
        if !request.config().is_empty() {
            bail!("this plugin has no settings, not even {}", head(request.config(), 40));
        }
        Ok(())
    }

    fn synchronize(&mut self, request: SynchronizeRequestView<'_>) -> Result<SynchronizeResponse> {
        Ok(SynchronizeResponse::new())
    }

    fn shutdown(&mut self) -> Result<()> {
        Ok(())
    }

    fn run_pod_sandbox(&mut self, request: RunPodSandboxRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn update_pod_sandbox(&mut self, request: UpdatePodSandboxRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn post_update_pod_sandbox(&mut self, request: PostUpdatePodSandboxRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn stop_pod_sandbox(&mut self, request: StopPodSandboxRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn remove_pod_sandbox(&mut self, request: RemovePodSandboxRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn create_container(&mut self, request: CreateContainerRequestView<'_>) -> Result<CreateContainerResponse> {
        Ok(CreateContainerResponse::new())
    }

    fn post_create_container(&mut self, request: PostCreateContainerRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn start_container(&mut self, request: StartContainerRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn post_start_container(&mut self, request: PostStartContainerRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn update_container(&mut self, request: UpdateContainerRequestView<'_>) -> Result<UpdateContainerResponse> {
        Ok(UpdateContainerResponse::new())
    }

    fn post_update_container(&mut self, request: PostUpdateContainerRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn stop_container(&mut self, request: StopContainerRequestView<'_>) -> Result<StopContainerResponse> {
        Ok(StopContainerResponse::new())
    }

    fn remove_container(&mut self, request: RemoveContainerRequestView<'_>) -> Result<()> {
        Ok(())
    }

    fn state_change(&mut self, request: StateChangeEventView<'_>) -> Result<()> {
        Ok(())
    }

    fn validate_container_adjustment(&mut self, request: ValidateContainerAdjustmentRequestView<'_>) -> Result<ValidateContainerAdjustmentResponse> {
        Ok(ValidateContainerAdjustmentResponse::new())
    }
}

/// The methods by name, as the host calls them.
#[doc(hidden)]
pub mod methods {
    use super::*;

    pub fn configure<P: Plugin>(
        plugin: &mut P, request: View<'_>, events: i32,
    ) -> Result<Buf> {
        plugin.configure(ConfigureRequestView(request))?;
        let mut reply = Buf::new();
        reply.put_number(2, events as u64);
        Ok(reply)
    }

    pub fn synchronize<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        let request = SynchronizeRequestView(request);
        let mut reply = plugin.synchronize(request)?;
        reply.set_more(request.more());
        Ok(reply.0)
    }

    pub fn shutdown<P: Plugin>(plugin: &mut P, _: View<'_>) -> Result<Buf> {
        plugin.shutdown().map(|()| Buf::new())
    }

    pub fn run_pod_sandbox<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.run_pod_sandbox(RunPodSandboxRequestView(request)).map(|()| Buf::new())
    }

    pub fn update_pod_sandbox<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.update_pod_sandbox(UpdatePodSandboxRequestView(request)).map(|()| Buf::new())
    }

    pub fn post_update_pod_sandbox<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.post_update_pod_sandbox(PostUpdatePodSandboxRequestView(request)).map(|()| Buf::new())
    }

    pub fn stop_pod_sandbox<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.stop_pod_sandbox(StopPodSandboxRequestView(request)).map(|()| Buf::new())
    }

    pub fn remove_pod_sandbox<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.remove_pod_sandbox(RemovePodSandboxRequestView(request)).map(|()| Buf::new())
    }

    pub fn create_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.create_container(CreateContainerRequestView(request)).map(|reply| reply.0)
    }

    pub fn post_create_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.post_create_container(PostCreateContainerRequestView(request)).map(|()| Buf::new())
    }

    pub fn start_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.start_container(StartContainerRequestView(request)).map(|()| Buf::new())
    }

    pub fn post_start_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.post_start_container(PostStartContainerRequestView(request)).map(|()| Buf::new())
    }

    pub fn update_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.update_container(UpdateContainerRequestView(request)).map(|reply| reply.0)
    }

    pub fn post_update_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.post_update_container(PostUpdateContainerRequestView(request)).map(|()| Buf::new())
    }

    pub fn stop_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.stop_container(StopContainerRequestView(request)).map(|reply| reply.0)
    }

    pub fn remove_container<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.remove_container(RemoveContainerRequestView(request)).map(|()| Buf::new())
    }

    pub fn state_change<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.state_change(StateChangeEventView(request)).map(|()| Buf::new())
    }

    pub fn validate_container_adjustment<P: Plugin>(plugin: &mut P, request: View<'_>) -> Result<Buf> {
        plugin.validate_container_adjustment(ValidateContainerAdjustmentRequestView(request)).map(|reply| reply.0)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<P: Plugin> crate::testing::Harness<P> {
    /// Configures the plugin. Of all methods the error is the text of the error reply.
    pub fn configure(&mut self, config: &str) -> core::result::Result<(), alloc::string::String> {
        let mut request = ConfigureRequest::new();
        request.set_config(config);
        let request = request.buf().bytes();
        self.call(|plugin, request| methods::configure(plugin, request, 0), request).map(drop)
    }

    pub fn synchronize(&mut self, request: &SynchronizeRequest) -> core::result::Result<SynchronizeResponse, alloc::string::String> {
        self.call(methods::synchronize, request.buf().bytes()).map(SynchronizeResponse)
    }

    pub fn shutdown(&mut self) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::shutdown, &[]).map(drop)
    }

    pub fn run_pod_sandbox(&mut self, request: &RunPodSandboxRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::run_pod_sandbox, request.buf().bytes()).map(drop)
    }

    pub fn update_pod_sandbox(&mut self, request: &UpdatePodSandboxRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::update_pod_sandbox, request.buf().bytes()).map(drop)
    }

    pub fn post_update_pod_sandbox(&mut self, request: &PostUpdatePodSandboxRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::post_update_pod_sandbox, request.buf().bytes()).map(drop)
    }

    pub fn stop_pod_sandbox(&mut self, request: &StopPodSandboxRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::stop_pod_sandbox, request.buf().bytes()).map(drop)
    }

    pub fn remove_pod_sandbox(&mut self, request: &RemovePodSandboxRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::remove_pod_sandbox, request.buf().bytes()).map(drop)
    }

    pub fn create_container(&mut self, request: &CreateContainerRequest) -> core::result::Result<CreateContainerResponse, alloc::string::String> {
        self.call(methods::create_container, request.buf().bytes()).map(CreateContainerResponse)
    }

    pub fn post_create_container(&mut self, request: &PostCreateContainerRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::post_create_container, request.buf().bytes()).map(drop)
    }

    pub fn start_container(&mut self, request: &StartContainerRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::start_container, request.buf().bytes()).map(drop)
    }

    pub fn post_start_container(&mut self, request: &PostStartContainerRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::post_start_container, request.buf().bytes()).map(drop)
    }

    pub fn update_container(&mut self, request: &UpdateContainerRequest) -> core::result::Result<UpdateContainerResponse, alloc::string::String> {
        self.call(methods::update_container, request.buf().bytes()).map(UpdateContainerResponse)
    }

    pub fn post_update_container(&mut self, request: &PostUpdateContainerRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::post_update_container, request.buf().bytes()).map(drop)
    }

    pub fn stop_container(&mut self, request: &StopContainerRequest) -> core::result::Result<StopContainerResponse, alloc::string::String> {
        self.call(methods::stop_container, request.buf().bytes()).map(StopContainerResponse)
    }

    pub fn remove_container(&mut self, request: &RemoveContainerRequest) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::remove_container, request.buf().bytes()).map(drop)
    }

    pub fn state_change(&mut self, request: &StateChangeEvent) -> core::result::Result<(), alloc::string::String> {
        self.call(methods::state_change, request.buf().bytes()).map(drop)
    }

    pub fn validate_container_adjustment(&mut self, request: &ValidateContainerAdjustmentRequest) -> core::result::Result<ValidateContainerAdjustmentResponse, alloc::string::String> {
        self.call(methods::validate_container_adjustment, request.buf().bytes()).map(ValidateContainerAdjustmentResponse)
    }
}
