"""What plugins' adjustments make of a container, and which two plugins collide.

A small model: the judge of merging is upstream's own runtime side (tests/peers). A name
that begins with "-" removes what an earlier hand put there, as NRI has it.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from edge_agent.pb import nri_pb2

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
        self._message(container.linux.resources, linux.resources, "", plugin)
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

    def _message(self, target: Message, changes: Message, path: str, plugin: str) -> None:
        """Field by field, down to what one plugin owns: linux.resources has many."""
        for field, value in changes.ListFields():
            where = f"{path}{field.name}"
            if _is_part(field):
                self._message(getattr(target, field.name), value, f"{where}.", plugin)
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
    Merge(container)._message(container.linux.resources, update.linux.resources, "", "")


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
