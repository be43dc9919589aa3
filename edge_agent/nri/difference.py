"""The changes that a plugin's reply makes, field by field, for people and tools.

Pure. Removal is NRI's own sign: a name that begins with "-" (containerd/nri,
pkg/api/helpers.go); where a reply both removes and sets a name, it is set
(pkg/api/adjustment.go).
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from edge_agent.config.model import PERMISSIONS
from edge_agent.config.units import format_size
from edge_agent.nri.events import OWN_EXPORTS, SHUTDOWN, STATE_CHANGE
from edge_agent.pb import edge_pb2, nri_pb2
from edge_agent.text import printable

if TYPE_CHECKING:
    from google._upb._message import FieldDescriptor as UpbField
    from google.protobuf.descriptor import FieldDescriptor as PythonField

    FieldDescriptor = PythonField | UpbField


# Where NRI's numbers are bytes: below LinuxResources, and of one huge page size.
_BYTES = frozenset(
    f"LinuxMemory.{name}" for name in ("limit", "reservation", "swap", "kernel", "kernel_tcp")
) | {"HugepageLimit.limit"}
_KEYS = {"HugepageLimit": "page_size"}  # what tells the entries of a list apart


def leaves(message: Message | None, path: str = "") -> dict[str, str]:
    """Every value that is set, by its path of field names with spaces between.

    A message that is there but says nothing (`pids {}` sets the limit to 0) shows its
    first number; wrappers such as OptionalInt64 show what they wrap.
    """
    found: dict[str, str] = {}
    if message is None:
        return found
    for field, value in message.ListFields():
        name = f"{path} {field.name}".strip()
        if _is_map(field):
            for key in sorted(value):
                found[f"{name} {key}"] = _one(value[key])
        elif field.is_repeated:
            found.update(_list(field, name, value))
        elif field.message_type is None:
            found[name] = scalar(field, value)
        elif wrapped := _wrapped(field):
            found[name] = _wrapped_text(field, wrapped, value)
        else:
            found.update(leaves(value, name) or _first_number(value, name))
    return found


def text(message: Message) -> str:
    """A message in one short line."""
    return ", ".join(f"{name} {value}" for name, value in leaves(message).items())


def scalar(field: "FieldDescriptor", value: Any) -> str:
    """A number, a string, a truth or a word of an enumeration."""
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name if known else value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value > 0 and _qualified(field) in _BYTES:
        return format_size(value)
    return str(value)


def _list(field: "FieldDescriptor", name: str, values: Sequence[Any]) -> dict[str, str]:
    key = _KEYS.get(field.message_type.name) if field.message_type else None
    if key is None:
        return {name: "; ".join(_one(value) for value in values)}
    found = {}
    for value in values:
        entry = leaves(value)
        told = entry.pop(key, "")
        found[f"{name} {told}"] = ", ".join(entry.values())
    return found


def _one(value: Any) -> str:
    return text(value) if isinstance(value, Message) else str(value)


def _wrapped(field: "FieldDescriptor") -> "FieldDescriptor | None":
    """The only field `value` of NRI's Optional messages."""
    fields = field.message_type.fields if field.message_type else []
    return fields[0] if len(fields) == 1 and fields[0].name == "value" else None


def _wrapped_text(field: "FieldDescriptor", inner: "FieldDescriptor", value: Any) -> str:
    content = getattr(value, inner.name)
    if inner.is_repeated:
        return "; ".join(map(str, content))
    # The unit belongs to the field outside: OptionalInt64 itself has none.
    return scalar(field, content)


def _first_number(message: Message, path: str) -> dict[str, str]:
    for field in message.DESCRIPTOR.fields:
        if not field.is_repeated and field.message_type is None:
            value = getattr(message, field.name)
            if not isinstance(value, str):
                return {f"{path} {field.name}".strip(): scalar(field, value)}
    return {}


def _is_map(field: "FieldDescriptor") -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _qualified(field: "FieldDescriptor") -> str:
    owner = field.containing_type
    return f"{owner.name}.{field.name}" if owner else field.name


ADDED, CHANGED, REMOVED, SAME = "+", "~", "-", "="
MAX_VALUE_CHARS = 160  # of a value in a line; a seccomp policy has thousands

# How a line names an entry of a field.
_WORDS = {
    "annotations": "annotation",
    "mounts": "mount",
    "hooks": "hook",
    "rlimits": "rlimit",
    "cdi_devices": "CDI device",
    "linux.devices": "device",
    "linux.namespaces": "namespace",
    "linux.net_devices": "network device",
    "linux.resources": "",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a reply changes.

    `field` is a word of PERMISSIONS ("update" and "evict" among them) or "reject";
    `name` says what within it, such as an annotation's key; `old` and `new` are texts,
    None where there is none. `container` is set if it is not the one being created.
    """

    field: str
    mark: str
    name: str
    old: str | None = None
    new: str | None = None
    container: str = ""

    def __str__(self) -> str:
        """One line, safe to print: `~ annotation a: old -> new`, `+ env A=B`."""
        word = _WORDS.get(self.field, self.field.rpartition(".")[2])
        subject = " ".join(filter(None, (word, _short(self.container), self.name)))
        between = "=" if self.field == "env" and self.name else ": "
        old, new = (None if value is None else _cut(value) for value in (self.old, self.new))
        if self.mark == CHANGED and old is not None:
            tail = f": {old or '(empty)'} -> {new or '(empty)'}"
        elif self.mark == REMOVED and old:
            tail = f" (was {old})" if self.field != "evict" else f": {old}"
        elif self.mark == SAME:
            tail = f"{between}{new}, as it was"
        else:
            tail = f"{between}{new}" if new else ""
        return printable(f"{self.mark} {subject}{tail}")


def message_types(method: str) -> tuple[type[Message], type[Message]]:
    """Request and reply of one of the Plugin service's methods."""
    if method == STATE_CHANGE:
        return nri_pb2.StateChangeEvent, nri_pb2.Empty
    if method in OWN_EXPORTS:
        return getattr(edge_pb2, f"{method}Request"), edge_pb2.Empty
    if method == SHUTDOWN:
        return nri_pb2.Empty, nri_pb2.Empty
    return getattr(nri_pb2, f"{method}Request"), getattr(nri_pb2, f"{method}Response")


def changes(request: Message, reply: Message) -> list[Change]:
    """What a reply to a request of any method changes; [] for those that change nothing."""
    found: list[Change] = []
    if isinstance(reply, nri_pb2.CreateContainerResponse):
        container = getattr(request, "container", nri_pb2.Container())
        found += adjustment_changes(container, reply.adjust)
    if isinstance(reply, nri_pb2.ValidateContainerAdjustmentResponse) and reply.reject:
        found.append(Change("reject", REMOVED, "", None, reply.reason or "no reason given"))
    present = _resources(request)
    for update in getattr(reply, "update", ()):
        found += _update_changes(update, present)
    for eviction in getattr(reply, "evict", ()):
        found.append(Change("evict", REMOVED, "", eviction.reason, container=eviction.container_id))
    return found


def adjustment_changes(
    container: nri_pb2.Container, adjust: nri_pb2.ContainerAdjustment
) -> list[Change]:
    """What an adjustment does to the container that is being created."""
    found: list[Change] = []
    if adjust.args:
        # An empty first argument only says that another plugin's may be replaced.
        new = adjust.args[1:] if adjust.args[0] == "" else adjust.args
        found += _value("args", "", shlex.join(container.args), shlex.join(new))
    for field, old, entries in _keyed(container, adjust):
        found += _keyed_changes(field, old, entries)
    for stage, hooks in adjust.hooks.ListFields():
        for hook in hooks:
            words = shlex.join([hook.path, *hook.args[1:]])
            found.append(Change("hooks", ADDED, stage.name, None, words))
    for field, was, now in _settings(container, adjust):
        for name, value in now.items():
            found += _value(field, name, was.get(name), value)
    order = {name: at for at, name in enumerate(PERMISSIONS)}
    return sorted(found, key=lambda change: order[change.field])


Entries = Iterable[tuple[str, str]]


def _keyed(
    container: nri_pb2.Container, adjust: nri_pb2.ContainerAdjustment
) -> list[tuple[str, Mapping[str, str], Entries]]:
    """Fields made of named entries: (field, the container's, the adjustment's)."""
    was, now = container.linux, adjust.linux
    environment = (each.partition("=") for each in container.env)
    return [
        ("annotations", container.annotations, sorted(adjust.annotations.items())),
        ("mounts", dict(_mounts(container.mounts)), _mounts(adjust.mounts)),
        (
            "env",
            {name: value for name, _, value in environment},
            [(each.key, each.value) for each in adjust.env],
        ),
        ("rlimits", dict(_rlimits(container.rlimits)), _rlimits(adjust.rlimits)),
        (
            "cdi_devices",
            {each.name: "" for each in container.CDI_devices},
            [(each.name, "") for each in adjust.CDI_devices],
        ),
        ("linux.devices", dict(_devices(was.devices)), _devices(now.devices)),
        ("linux.namespaces", dict(_namespaces(was.namespaces)), _namespaces(now.namespaces)),
        ("linux.sysctl", was.sysctl, sorted(now.sysctl.items())),
        (
            "linux.net_devices",
            {name: device.name for name, device in was.net_devices.items()},
            sorted((name, device.name) for name, device in now.net_devices.items()),
        ),
    ]


def _mounts(mounts: Iterable[nri_pb2.Mount]) -> Entries:
    return [
        (each.destination, " ".join(filter(None, (each.type, each.source, *each.options))))
        for each in mounts
    ]


def _rlimits(rlimits: Iterable[nri_pb2.POSIXRlimit]) -> Entries:
    return [(each.type, f"soft {each.soft}, hard {each.hard}") for each in rlimits]


def _namespaces(namespaces: Iterable[nri_pb2.LinuxNamespace]) -> Entries:
    return [(each.type, each.path or "new") for each in namespaces]


def _devices(devices: Iterable[nri_pb2.LinuxDevice]) -> Entries:
    found = []
    for each in devices:
        parts = [each.type, f"{each.major}:{each.minor}"]
        if each.HasField("file_mode"):
            parts.append(f"mode {each.file_mode.value:04o}")
        parts += [f"uid {each.uid.value}"] * each.HasField("uid")
        parts += [f"gid {each.gid.value}"] * each.HasField("gid")
        found.append((each.path, " ".join(filter(None, parts))))
    return found


def _settings(
    container: nri_pb2.Container, adjust: nri_pb2.ContainerAdjustment
) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """Fields made of values: (linux.field, the container's, the adjustment's)."""
    keyed = {"devices", "namespaces", "sysctl", "net_devices"}
    found = []
    for field, _ in adjust.linux.ListFields():
        if field.name not in keyed:
            was = _only(container.linux, field.name)
            was.pop("devices", None)  # rules of the cgroup: these are added to those
            found.append((f"linux.{field.name}", was, _only(adjust.linux, field.name)))
    return found


def _only(linux: Message, name: str) -> dict[str, str]:
    """The leaves of one field, without its own name."""
    return {
        path.removeprefix(name).strip(): value
        for path, value in leaves(linux).items()
        if path == name or path.startswith(f"{name} ")
    }


def _keyed_changes(field: str, old: Mapping[str, str], entries: Entries) -> list[Change]:
    wanted = dict(entries)
    set_names = {name for name in wanted if not name.startswith("-")}
    found = []
    for marked, value in wanted.items():
        name = marked.removeprefix("-")
        if marked in set_names:
            found += _value(field, name, old.get(name), value)
        elif name not in set_names:
            found.append(Change(field, REMOVED, name, old.get(name)))
    return found


def _value(field: str, name: str, old: str | None, new: str, container: str = "") -> list[Change]:
    mark = ADDED if old is None else SAME if old == new else CHANGED
    return [Change(field, mark, name, old, new, container)]


def _resources(request: Message) -> dict[str, dict[str, str]]:
    """What the containers of a request have, or are about to have, by container."""
    found = {each.id: leaves(each.linux.resources) for each in getattr(request, "containers", ())}
    if isinstance(request, nri_pb2.UpdateContainerRequest):
        found[request.container.id] = leaves(request.linux_resources)
    return found


def _update_changes(
    update: nri_pb2.ContainerUpdate, present: Mapping[str, Mapping[str, str]]
) -> list[Change]:
    was = present.get(update.container_id, {})
    return [
        change
        for name, value in leaves(update.linux.resources).items()
        for change in _value("update", name, was.get(name), value, update.container_id)
    ]


def _short(container: str) -> str:
    """A container's id as tools show it."""
    return container[:12] if len(container) == 64 else container


def _cut(value: str) -> str:
    return value if len(value) <= MAX_VALUE_CHARS else f"{value[:MAX_VALUE_CHARS]}..."
