"""Whether a container got the adjustments that plugins asked for, and which replies of plugins
clash. Pure; decodes nothing by itself.

Applied: the container is compared as a later event shows it. Only what each runtime shows there
is looked at (containerd and CRI-O since their first NRI, from the final OCI specification), and a
field is called dropped only where it is absent, or as it was before: another value may be another
plugin's, at a later index.

Clashes: the rules are upstream's (containerd/nri, pkg/adaptation/result.go, pkg/api/owners.go):
each field, or entry of a field, may be set by one plugin; a plugin that first takes an entry away
("-name") may set what another had set. A clash fails the creation, and the runtime tells only
whoever asked for the container.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from edge_agent.nri.capabilities import Carrier
from edge_agent.nri.difference import ADDED, REMOVED, SAME, Change, adjustment_changes
from edge_agent.pb import nri_pb2

MAX_FIELDS = 16  # named in one result: they are for people, and a state has to stay small
MAX_NAME_CHARS = 100

# Shown by every runtime that sends PostCreateContainer.
_SHOWN = (
    *("annotations", "mounts", "env", "args"),
    *("linux.devices", "linux.namespaces", "linux.cgroups_path", "linux.oom_score_adj"),
    *("linux.resources.memory", "linux.resources.cpu", "linux.resources.pids"),
    "linux.resources.hugepage_limits",
)
_UNIFIED, _UNIFIED_SINCE = "linux.resources.unified", 10  # FromOCILinuxResources
_REMOVABLE = (
    *("annotations", "mounts", "env", "linux.devices", "linux.namespaces"),
    *("linux.sysctl", "linux.net_devices"),
)
_NOTHING = ("", "0", "-1")  # of a number: "none" and "no limit", which an absent field means too


def asked_fields(adjust: nri_pb2.ContainerAdjustment) -> list[str]:
    """All that an adjustment asks for, by field: `env`, `linux.resources.pids.limit`."""
    asked = adjustment_changes(nri_pb2.Container(), adjust)
    return list(dict.fromkeys(_field(change) for change in asked))


def dropped(
    adjust: nri_pb2.ContainerAdjustment,
    before: nri_pb2.Container,
    after: nri_pb2.Container | None,
    carrier: Carrier,
    removed: Collection[tuple[str, str]] = (),
) -> list[str]:
    """The fields, with the entry's name, that were asked for and did not reach the container.

    `before` is the container as the request had it, `after` as a later event shows it (None: the
    runtime has no such event, and only what is known of it counts). `removed` are entries that
    another plugin's reply takes away: (field, name).
    """
    found = []
    asked = [each for each in adjustment_changes(before, adjust) if each.mark != SAME]
    shown: dict[tuple[str, str], Change] = {}
    if after is not None:
        shown = {(each.field, each.name): each for each in adjustment_changes(after, adjust)}
    for change in asked:
        field = _field(change)
        if (change.field, change.name) in removed or _same_as_limit(change, asked):
            continue
        lost = carrier.carries(field) is False
        if not lost and after is not None and _comparable(field, change, carrier):
            lost = _lost(change, shown.get((change.field, change.name)))
        if lost:
            found.append(_name(change, field))
    if after is not None:
        found += _lost_hooks(adjust.hooks, after.hooks)
    return list(dict.fromkeys(found))[:MAX_FIELDS]


def removals(adjust: nri_pb2.ContainerAdjustment) -> set[tuple[str, str]]:
    """The entries that a reply takes away, or replaces as a whole."""
    found = {
        (change.field, change.name)
        for change in adjustment_changes(nri_pb2.Container(), adjust)
        if change.mark == REMOVED and change.field in _REMOVABLE
    }
    # Both "-name" and "name": the entry is another's now.
    names: Iterable[tuple[str, Iterable[str]]] = (
        ("annotations", adjust.annotations),
        ("mounts", (each.destination for each in adjust.mounts)),
        ("env", (each.key for each in adjust.env)),
        ("linux.devices", (each.path for each in adjust.linux.devices)),
        ("linux.namespaces", (each.type for each in adjust.linux.namespaces)),
    )
    found |= {(field, name[1:]) for field, each in names for name in each if name.startswith("-")}
    if adjust.args and adjust.args[0] == "":
        found.add(("args", ""))
    return found


def may_be_removed(field: str) -> bool:
    """Whether another plugin may take the field away again, so that its absence proves little."""
    return field.split(" ", 1)[0] in (*_REMOVABLE, "args")


def _field(change: Change) -> str:
    """The field, below linux.resources down to one value: linux.resources.pids.limit."""
    if change.field != "linux.resources":
        return change.field
    first, _, rest = change.name.partition(" ")
    if first in ("unified", "hugepage_limits"):
        return f"{change.field}.{first}"  # what follows is an entry's name
    return ".".join((change.field, first, *rest.split()))


def _name(change: Change, field: str) -> str:
    entry = ""
    if change.field in (*_REMOVABLE, "rlimits", "cdi_devices", "hooks"):
        entry = change.name
    elif field.endswith((".unified", ".hugepage_limits")):
        entry = change.name.partition(" ")[2]
    return f"{field} {entry}".strip()[:MAX_NAME_CHARS]


def _comparable(field: str, change: Change, carrier: Carrier) -> bool:
    if field == _UNIFIED:
        return carrier.least >= _UNIFIED_SINCE
    if not any(field == each or field.startswith(f"{each}.") for each in _SHOWN):
        return False
    if field == "annotations":
        # containerd shows an annotation of the request over one of the same name in the
        # specification (criContainer.GetAnnotations).
        return change.mark == ADDED
    return not (field.startswith("linux.") and change.new in _NOTHING)


def _lost(asked: Change, shown: Change | None) -> bool:
    if asked.mark == REMOVED:
        return shown is not None and shown.old is not None and shown.old == asked.old
    if shown is None or shown.mark == SAME:
        return False
    return shown.old is None or shown.old == asked.old


def _same_as_limit(change: Change, asked: Iterable[Change]) -> bool:
    """The generator sets swap to the memory limit: asked for just that, it is done."""
    return (change.field, change.name) == ("linux.resources", "memory swap") and any(
        (each.field, each.name, each.new) == ("linux.resources", "memory limit", change.new)
        for each in asked
    )


def _lost_hooks(asked: nri_pb2.Hooks, shown: nri_pb2.Hooks) -> list[str]:
    found = []
    for stage, hooks in asked.ListFields():
        there = [(each.path, list(each.args)) for each in getattr(shown, stage.name)]
        lost = any((each.path, list(each.args)) not in there for each in hooks)
        found += [f"hooks {stage.name}"] * lost
    return found


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
    """The clashes of the last of these replies, which are in the order of the plugins' calls.

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
    """The entries that a reply takes away and claims. Hooks have no owner."""
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
    """The steps of a map: a name that is only taken away changes no owner."""
    for name in names:
        if not name.startswith("-"):
            if f"-{name}" in names:
                yield Claim("", field, name), False
            yield Claim("", field, name), True


def _listed(field: str, names: Sequence[str]) -> Iterator[_Step]:
    """The steps of a list: everything that is taken away comes first."""
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
