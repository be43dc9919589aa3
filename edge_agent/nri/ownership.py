"""Which plugin owns which field of a container that is being created, and which clash. Pure.

The rules are upstream's (containerd/nri, pkg/adaptation/result.go, pkg/api/owners.go): each field,
or entry of a field, may be set by one plugin; a plugin that first takes an entry away ("-name")
may set what another had set. A clash fails the creation, and the runtime tells only whoever asked
for the container.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from edge_agent.nri.capabilities import Carrier
from edge_agent.pb import nri_pb2

CLEARS_STAY_SINCE = 10
"""From NRI 0.10 on an entry that was taken away belongs to who took it (owners.go); before it
was free again."""


class Claim(NamedTuple):
    """`container` is another's id for updates, "" for the one that is created."""

    container: str
    field: str
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.field} {self.entry}".strip()


class Clash(NamedTuple):
    """`plugin` tried to set what `other` had set before."""

    plugin: str
    other: str
    claim: Claim


class _Owner(NamedTuple):
    plugin: str
    cleared: bool = False  # it took the entry away and set nothing


_Step = tuple[Claim, bool]  # False: the entry is taken away before


def clashes(
    replies: Sequence[tuple[str, nri_pb2.CreateContainerResponse]], carrier: Carrier
) -> list[Clash]:
    """What the last of these replies, in the order of the plugins' calls, clashes over.

    Fields that the runtime's NRI may not know are nobody's: it does not see them.
    """
    owners: dict[Claim, _Owner] = {}
    found: list[Clash] = []
    for plugin, reply in replies:
        found = list(_apply(owners, plugin, reply, carrier))
    return found


def _apply(
    owners: dict[Claim, _Owner],
    plugin: str,
    reply: nri_pb2.CreateContainerResponse,
    carrier: Carrier,
) -> Iterator[Clash]:
    for claim, sets in _steps(reply.adjust):
        if not carrier.knows(claim.field):
            continue
        if not sets:
            _clear(owners, plugin, claim, carrier)
        elif (clash := _claim(owners, plugin, claim)) is not None:
            yield clash
    for update in reply.update:
        for claim in _resource_claims(update.linux.resources):
            if claim.field == "linux.resources.pids":
                continue  # updateResources looks for it in the wrong message: nobody's
            clash = _claim(owners, plugin, claim._replace(container=update.container_id))
            if clash is not None and not update.ignore_failure:
                yield clash


def _claim(owners: dict[Claim, _Owner], plugin: str, claim: Claim) -> Clash | None:
    owner = owners.get(claim)
    if owner is not None and not (owner.cleared and owner.plugin == plugin):
        return Clash(plugin, owner.plugin, claim)
    owners[claim] = _Owner(plugin)
    return None


def _clear(owners: dict[Claim, _Owner], plugin: str, claim: Claim, carrier: Carrier) -> None:
    if claim in owners:
        if carrier.least >= CLEARS_STAY_SINCE:
            owners[claim] = _Owner(plugin, cleared=True)
        else:
            del owners[claim]


def _steps(adjust: nri_pb2.ContainerAdjustment) -> Iterator[_Step]:
    """What a reply takes away and claims. Hooks belong to everybody."""
    linux = adjust.linux
    yield from _replaced("annotations", adjust.annotations)
    yield from _listed("mounts", [each.destination for each in adjust.mounts])
    yield from _listed("env", [each.key for each in adjust.env])
    if adjust.args:
        if adjust.args[0] == "":
            yield Claim("", "args"), False
        yield Claim("", "args"), True
    yield from _listed("linux.devices", [each.path for each in linux.devices])
    for claim in _resource_claims(linux.resources):
        yield claim, True
    for field in ("cgroups_path", "oom_score_adj", "io_priority", "seccomp_policy"):
        if _is_set(linux, field):
            yield Claim("", f"linux.{field}"), True
    for namespace in linux.namespaces:  # taking one away claims it too
        yield Claim("", "linux.namespaces", namespace.type.removeprefix("-")), True
    yield from _replaced("linux.sysctl", linux.sysctl)
    yield from _replaced("linux.net_devices", linux.net_devices)
    for field in ("scheduler", "memory_policy"):
        if _is_set(linux, field):
            yield Claim("", f"linux.{field}"), True
    yield from _rdt(linux.rdt)
    for rlimit in adjust.rlimits:
        yield Claim("", "rlimits", rlimit.type), True
    for device in adjust.CDI_devices:
        yield Claim("", "cdi_devices", device.name), True


def _replaced(field: str, names: Collection[str]) -> Iterator[_Step]:
    """Of a map: a name that is only taken away changes no owner."""
    for name in names:
        if not name.startswith("-"):
            if f"-{name}" in names:
                yield Claim("", field, name), False
            yield Claim("", field, name), True


def _listed(field: str, names: Sequence[str]) -> Iterator[_Step]:
    """Of a list: all that is taken away first."""
    for name in names:
        if name.startswith("-"):
            yield Claim("", field, name[1:]), False
    for name in names:
        if not name.startswith("-"):
            yield Claim("", field, name), True


def _rdt(rdt: nri_pb2.LinuxRdt) -> Iterator[_Step]:
    fields = [Claim("", "linux.rdt", name) for name in ("clos_id", "schemata", "enable_monitoring")]
    if rdt.remove:
        yield from ((claim, False) for claim in fields)
    yield from ((claim, True) for claim in fields if _is_set(rdt, claim.entry))


def _resource_claims(resources: nri_pb2.LinuxResources) -> Iterator[Claim]:
    """Rules for the cgroup's devices belong to everybody."""
    for part in ("memory", "cpu"):
        for field, _ in getattr(resources, part).ListFields():
            yield Claim("", f"linux.resources.{part}.{field.name}")
    for limit in resources.hugepage_limits:
        yield Claim("", "linux.resources.hugepage_limits", limit.page_size)
    for name in resources.unified:
        yield Claim("", "linux.resources.unified", name)
    for name in ("blockio_class", "rdt_class", "pids"):
        if _is_set(resources, name):
            yield Claim("", f"linux.resources.{name}")


def _is_set(message: Message, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())
