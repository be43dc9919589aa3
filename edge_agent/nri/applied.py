"""Whether a container was made as a plugin's reply asked. Pure; decodes nothing by itself.

The container is compared as a later event shows it. Only what each runtime shows there is looked
at (containerd and CRI-O since their first NRI, from the final OCI specification), and a field is
called dropped only where it is absent, or as it was before: another value may be another
plugin's, at a later index.
"""

from collections.abc import Collection, Iterable

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
