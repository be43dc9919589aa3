"""A container runtime without containers: pods, containers, and what adjustments of plugins make of
them.

Merging is a small model: the judge of merging is the runtime side of upstream (tests/peers). A name
that begins with "-" removes what an earlier plugin put there, as NRI has it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from edge_agent.pb import nri_pb2
from edge_agent.sim.nri_service import NriService
from edge_agent.sim.plugin_connection import Outcome

T = TypeVar("T")


class Conflict(Exception):
    """Two plugins set the same thing; the container is not created."""


class Merge:
    """Collects the adjustments of one creation into its container."""

    def __init__(self, container: nri_pb2.Container) -> None:
        self.container = container
        self.owners: dict[str, str] = {}  # what was set -> by which plugin

    def adjust(self, adjustment: nri_pb2.ContainerAdjustment, plugin: str) -> None:
        """Apply one plugin's adjustment. Conflict: another plugin set the same thing."""
        container = self.container
        self._map("annotation", container.annotations, dict(adjustment.annotations), plugin)
        self._list("mount", container.mounts, adjustment.mounts, _destination, plugin)
        self._env(adjustment.env, plugin)
        if adjustment.args:
            self._claim("args", plugin)
            # An empty first argument says that another plugin's may be replaced.
            container.args[:] = adjustment.args[adjustment.args[0] == "" :]
        if adjustment.HasField("hooks"):
            container.hooks.MergeFrom(adjustment.hooks)  # hooks of all plugins run
        self._list("rlimit", container.rlimits, adjustment.rlimits, _type, plugin)
        self._list("CDI device", container.CDI_devices, adjustment.CDI_devices, _name, plugin)
        linux = adjustment.linux
        self._list("device", container.linux.devices, linux.devices, _path, plugin)
        self._list("namespace", container.linux.namespaces, linux.namespaces, _type, plugin)
        self._map("sysctl", container.linux.sysctl, dict(linux.sysctl), plugin)
        for host, inside in linux.net_devices.items():
            self._claim(f"net device {host}", plugin)
            container.linux.net_devices[host].CopyFrom(inside)
        self.merge(container.linux.resources, linux.resources, "", plugin)
        if linux.cgroups_path:
            self._claim("cgroups_path", plugin)
            container.linux.cgroups_path = linux.cgroups_path
        for name in ("oom_score_adj", "io_priority", "seccomp_policy", "scheduler", "rdt"):
            if linux.HasField(name):
                self._claim(name, plugin)
                getattr(container.linux, name).CopyFrom(getattr(linux, name))

    def _claim(self, what: str, plugin: str) -> None:
        owner = self.owners.setdefault(what, plugin)
        if owner != plugin:
            raise Conflict(f"plugins {owner} and {plugin} both set {what}")

    def _release(self, what: str) -> None:
        self.owners.pop(what, None)

    def _map(self, what: str, target: Any, changes: dict[str, str], plugin: str) -> None:
        for key in [key for key in changes if key.startswith("-")]:
            target.pop(key[1:], None)
            self._release(f"{what} {key[1:]}")
            del changes[key]
        for key, value in changes.items():
            self._claim(f"{what} {key}", plugin)
            target[key] = value

    def _list(
        self,
        what: str,
        target: Any,
        changes: Iterable[T],
        key: Callable[[T], str],
        plugin: str,
    ) -> None:
        for change in changes:
            name = key(change)
            removes = name.startswith("-")
            name = name.removeprefix("-")
            kept = [item for item in target if key(item) != name]
            del target[:]
            target.extend(kept)
            if removes:
                self._release(f"{what} {name}")
            else:
                self._claim(f"{what} {name}", plugin)
                target.append(change)

    def _env(self, changes: Iterable[nri_pb2.KeyValue], plugin: str) -> None:
        for change in changes:
            key = change.key.removeprefix("-")
            env = self.container.env
            env[:] = [entry for entry in env if entry.partition("=")[0] != key]
            if change.key.startswith("-"):
                self._release(f"env {key}")
            else:
                self._claim(f"env {key}", plugin)
                env.append(f"{key}={change.value}")

    def merge(self, target: Message, changes: Message, path: str, plugin: str) -> None:
        """Field by field, down to what one plugin owns: linux.resources has many."""
        for field, value in changes.ListFields():
            where = f"{path}{field.name}"
            if _is_part(field):
                self.merge(getattr(target, field.name), value, f"{where}.", plugin)
            elif field.message_type is not None and field.message_type.GetOptions().map_entry:
                self._map(where, getattr(target, field.name), dict(value), plugin)
            else:
                self._claim(where, plugin)
                target.ClearField(field.name)
                part = type(changes)()
                part.CopyFrom(changes)
                for other, _ in changes.ListFields():
                    if other.name != field.name:
                        part.ClearField(other.name)
                target.MergeFrom(part)


def update_resources(container: nri_pb2.Container, update: nri_pb2.ContainerUpdate) -> None:
    """Apply a ContainerUpdate to a container."""
    Merge(container).merge(container.linux.resources, update.linux.resources, "", "")


def _is_part(field: FieldDescriptor) -> bool:
    """Whether a field is a group of fields (memory, cpu), not a value in a wrapper."""
    kind = field.message_type
    return (
        kind is not None
        and not field.is_repeated
        and not (len(kind.fields) == 1 and kind.name.startswith("Optional"))
    )


def _destination(mount: nri_pb2.Mount) -> str:
    return mount.destination


def _path(device: nri_pb2.LinuxDevice) -> str:
    return device.path


def _name(device: nri_pb2.CDIDevice) -> str:
    return device.name


def _type(item: Any) -> str:
    return str(item.type)


class SimRuntime(NriService):
    """See `NriService`, which serves it to plugins."""

    _made = 0  # pods and containers so far

    # --- pods and containers

    def run_pod(
        self,
        name: str,
        namespace: str = "default",
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Make a pod and tell the plugins; it runs if none of them objects."""
        with self._lock:
            pod = nri_pb2.PodSandbox(
                id=self._new_id(namespace, name),
                name=name,
                uid=f"uid-{name}",
                namespace=namespace,
                annotations=annotations,
                labels=labels,
                pid=10_000 + self._made,
            )
            self.pods[pod.id] = pod
            outcome = self.event("RunPodSandbox", pod=pod)
            if not outcome.ok:
                del self.pods[pod.id]
            return outcome

    def create_container(
        self,
        pod: nri_pb2.PodSandbox,
        name: str,
        *,
        image: str = "localhost/busybox:1",
        args: Sequence[str] = ("/bin/sh",),
        env: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
        container: nri_pb2.Container | None = None,
        start: bool = True,
    ) -> Outcome:
        """Create a container; the events after its creation follow unless `start` is false.

        `container` gives fields that the other arguments do not.
        """
        wanted = nri_pb2.Container()
        wanted.MergeFrom(container or nri_pb2.Container())
        wanted.MergeFrom(
            nri_pb2.Container(
                pod_sandbox_id=pod.id,
                name=name,
                image=nri_pb2.Image(name=image),
                args=args,
                env=env,
                annotations=annotations,
                labels=labels,
            )
        )
        if memory_bytes is not None:
            wanted.linux.resources.memory.limit.value = memory_bytes
        with self._lock:
            wanted.id = wanted.id or self._new_id(pod.id, name)
            outcome = self._create(pod, wanted)
            if outcome.ok:
                self.containers[wanted.id] = outcome.container
                if start:
                    self._start(outcome)
            return outcome

    def update_container(
        self, container: nri_pb2.Container, resources: nri_pb2.LinuxResources
    ) -> Outcome:
        """Change a running container's resources."""
        pod = self.pods[container.pod_sandbox_id]
        with self._lock:
            outcome = self.event(
                "UpdateContainer", pod=pod, container=container, linux_resources=resources
            )
            if outcome.ok:
                asked = nri_pb2.ContainerUpdate(container_id=container.id)
                asked.linux.resources.CopyFrom(resources)
                self.update([asked, *outcome.updates])
                outcome.add(self.event("PostUpdateContainer", pod=pod, container=container))
            return outcome

    def stop_pod(self, pod: nri_pb2.PodSandbox) -> Outcome:
        """Stop and remove the pod's containers, then the pod, whatever plugins say."""
        with self._lock:
            outcome = Outcome("StopPodSandbox", nri_pb2.StopPodSandboxRequest(pod=pod), pod=pod)
            for container in [c for c in self.containers.values() if c.pod_sandbox_id == pod.id]:
                container.state = nri_pb2.CONTAINER_STOPPED
                for method in ("StopContainer", "RemoveContainer"):
                    outcome.add(self.event(method, pod=pod, container=container))
                del self.containers[container.id]
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                outcome.add(self.event(method, pod=pod))
            self.pods.pop(pod.id, None)
            return outcome

    # --- the steps of a creation

    def _create(self, pod: nri_pb2.PodSandbox, wanted: nri_pb2.Container) -> Outcome:
        asked = nri_pb2.CreateContainerRequest(pod=pod, container=wanted)
        request = nri_pb2.CreateContainerRequest(pod=pod, container=wanted)
        outcome = Outcome("CreateContainer", asked, pod=pod)
        merge = Merge(request.container)  # each plugin sees what those before it made
        every = nri_pb2.ContainerAdjustment()
        for answer in self.ask_all(outcome, "CreateContainer", request):
            reply = self.read_reply(outcome, answer, "CreateContainer")
            if reply is not None:
                try:
                    merge.adjust(reply.adjust, answer.plugin)
                except Conflict as conflict:
                    outcome.error = str(conflict)
                every.MergeFrom(reply.adjust)
        outcome.container.CopyFrom(request.container)
        outcome.container.state = nri_pb2.CONTAINER_CREATED
        outcome.owners = merge.owners
        if outcome.ok:
            self._validate(outcome, every)
        if outcome.ok:
            self.update(outcome.updates)
        return outcome

    def _validate(self, outcome: Outcome, adjustment: nri_pb2.ContainerAdjustment) -> None:
        method = "ValidateContainerAdjustment"
        asked = outcome.request
        assert isinstance(asked, nri_pb2.CreateContainerRequest)
        request = nri_pb2.ValidateContainerAdjustmentRequest(
            pod=asked.pod,
            container=asked.container,
            adjust=adjustment,
            update=outcome.updates,
            plugins=[
                nri_pb2.PluginInstance(name=plugin.name, index=plugin.index)
                for plugin in self._plugins
            ],
        )
        for answer in self.ask_all(outcome, method, request):
            if answer.dropped:
                outcome.error = f"validator plugin {answer.plugin} failed: {answer.error}"
            verdict = self.read_reply(outcome, answer, method)
            if verdict is not None and verdict.reject:
                reason = verdict.reason or "without a reason"
                outcome.error = f"validator plugin {answer.plugin} rejects the container: {reason}"

    def _start(self, created: Outcome) -> None:
        for method in ("PostCreateContainer", "StartContainer", "PostStartContainer"):
            if method == "PostStartContainer":
                created.container.state = nri_pb2.CONTAINER_RUNNING
            created.add(self.event(method, pod=created.pod, container=created.container))

    def update(self, updates: Iterable[nri_pb2.ContainerUpdate]) -> list[str]:
        missing = []
        for update in updates:
            container = self.containers.get(update.container_id)
            if container is None:
                missing.append(update.container_id)
            else:
                update_resources(container, update)
        return missing

    def _new_id(self, *words: str) -> str:
        self._made += 1
        return hashlib.sha256("/".join((*words, str(self._made))).encode()).hexdigest()
