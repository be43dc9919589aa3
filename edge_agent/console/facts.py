"""What the console keeps of each node, and what is counted over all of them. Pure.

A table of 10,000 nodes is filtered and sorted for each page, so what it needs is made once for each
message of a node (`Facts`), and the counts once for some changes (`summary`).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from edge_agent.operator.deploy import Current
from edge_agent.operator.node_state import BAD_STATUSES, Node, Running, count, maps
from edge_agent.operator.overview import Row, rows, troubles
from edge_agent.operator.rollout import RolloutStatus, rollout_status
from edge_agent.operator.view import View
from edge_agent.store.digest import short

MAX_CHOICES = 20  # values in the list of a filter
MAX_SHARED_CHARS = 100
SETTLED = frozenset(("running", "skipped", "waiting"))


class Tag(NamedTuple):
    """One plugin of a node in a table."""

    identity: str
    version: str
    status: str

    @property
    def bad(self) -> bool:
        return is_bad(self.status)


class Facts:
    """What a table shows of one node."""

    __slots__ = ("node", "plugins", "search", "seen", "troubles", "words")

    def __init__(self, node: Node, wrong: Sequence[str], seen: float) -> None:
        """`wrong`: its problems, in words; `seen`: when its last message came, in seconds since
        1970, 0 where there is only what the broker retained."""
        self.node = node
        self.troubles = tuple(wrong)
        self.seen = seen
        self.plugins = sorted({_tag(each) for each in node.plugins})
        self.words = _words(node, self.plugins, bool(wrong))
        labels = (f"{key}={value}" for key, value in node.labels.items())
        self.search = "\n".join((node.name, *labels, *wrong)).casefold()


def facts(
    node: Node, view: View, names: Mapping[str, str], trust_version: int, now: float, seen: float
) -> Facts:
    """The facts of one node of `view`; `names` and `trust_version` as in `overview.troubles`."""
    alone = View(view.enrolment)
    alone.nodes[node.name] = node
    wrong = troubles(alone, names, trust_version, now)
    node.state = _shared(node.state)
    return Facts(node, [each.text for each in wrong], seen)


def version_of(plugin: Running) -> str:
    """Of a plugin that no deployment names a version of: the first digits of its digest."""
    return plugin.version or short(plugin.digest) or "-"


def is_bad(status: str) -> bool:
    """Whether a plugin of this status does not run although it should."""
    return status in BAD_STATUSES or status == "backoff"


def latency(plugin: Mapping[str, Any], which: str) -> float | None:
    """`p50` or `p99` of a plugin in a state, in ms."""
    told = plugin.get("latency_ms")
    value = told.get(which) if isinstance(told, Mapping) else None
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None


def _tag(plugin: Running) -> Tag:
    return Tag(plugin.identity, version_of(plugin), plugin.status)


def _words(node: Node, plugins: Iterable[Tag], wrong: bool) -> frozenset[str]:
    """What a node counts as: its status, and what is the matter with it."""
    statuses = {each.status for each in plugins}
    found = {node.status or "unknown"} | {"probation", "quarantined"} & statuses
    if any(each.bad for each in plugins):
        found.add("failing")
    if node.rejected:
        found.add("rejected")
    if node.refused:
        found.add("refusing")
    if node.unproven or node.unreadable:
        found.add("doubtful")
    if any(each.get("state") != "connected" for each in maps(node.state.get("runtimes"))):
        found.add("no-nri")
    if wrong:
        found.add("trouble")
    return frozenset(found)


def _shared(value: Any) -> Any:
    """The same JSON with its short texts shared between nodes: half the memory of a large fleet."""
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= MAX_SHARED_CHARS else value
    if isinstance(value, dict):
        return {_shared(key): _shared(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return value


# --- over all nodes


class VersionCount(NamedTuple):
    """One version of one plugin: on how many nodes, and how it does there."""

    identity: str
    version: str
    nodes: int
    good: int  # it runs, or waits for a runtime
    bad: int
    events: int
    failures: int
    p50_ms: float | None  # median over nodes
    p99_ms: float | None

    @property
    def failed_share(self) -> float:
        """Failures in a hundred events."""
        return 100 * self.failures / self.events if self.events else 0.0


class Summary(NamedTuple):
    """What is counted over all nodes."""

    words: Mapping[str, int] = MappingProxyType({})  # nodes by `Facts.words`
    versions: Sequence[VersionCount] = ()  # by plugin and version
    agents: Sequence[str] = ()
    architectures: Sequence[str] = ()
    releases: Sequence[Row] = ()
    rollouts: Sequence[RolloutStatus] = ()  # of `releases`, in their order


def summary(nodes: Sequence[Facts], view: View, current: Current) -> Summary:
    """Count over all nodes; `current` is the deployment at the broker."""
    deployment = current.deployment
    releases = rows(view, deployment)
    return Summary(
        words=Counter(word for each in nodes for word in each.words),
        versions=_versions(nodes),
        agents=_some({each.node.agent for each in nodes}),
        architectures=_some({each.node.architecture for each in nodes}),
        releases=releases,
        rollouts=[
            rollout_status(view, deployment, name_of(each), each.version, current.message)
            for each in releases
            if deployment is not None
        ],
    )


def name_of(row: Row) -> str:
    """The name of a release's plugin, without its index."""
    return row.identity.partition("-")[2]


def _some(values: set[str]) -> list[str]:
    return sorted(values - {""})[:MAX_CHOICES]


def _versions(nodes: Iterable[Facts]) -> list[VersionCount]:
    found: dict[tuple[str, str], list[tuple[Facts, Tag, Mapping[str, Any]]]] = {}
    for each in nodes:
        for plugin, raw in zip(
            each.node.plugins, maps(each.node.state.get("plugins")), strict=True
        ):
            if plugin.status != "skipped":
                tag = _tag(plugin)
                found.setdefault(tag[:2], []).append((each, tag, raw))
    return [
        VersionCount(
            *(identity, version, len({id(each) for each, _, _ in entries})),
            good=len({id(each) for each, tag, _ in entries if tag.status in SETTLED}),
            bad=len({id(each) for each, tag, _ in entries if tag.bad}),
            events=sum(count(raw.get("events")) for _, _, raw in entries),
            failures=sum(_failures(raw) for _, _, raw in entries),
            p50_ms=_median(latency(raw, "p50") for _, _, raw in entries),
            p99_ms=_median(latency(raw, "p99") for _, _, raw in entries),
        )
        for (identity, version), entries in sorted(found.items())
    ]


def _failures(plugin: Mapping[str, Any]) -> int:
    told = plugin.get("failures")
    return sum(map(count, told.values())) if isinstance(told, Mapping) else 0


def _median(values: Iterable[float | None]) -> float | None:
    found = sorted(each for each in values if each is not None)
    return found[len(found) // 2] if found else None
