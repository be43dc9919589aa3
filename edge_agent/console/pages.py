"""What the console's pages show, as plain values for the templates. Pure.

Everything that a node says is foreign text: templates escape it for HTML and pass it through
`printable`, and here its length is bounded.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from edge_agent.console.facts import Facts, is_bad, latency, version_of
from edge_agent.console.live import Event
from edge_agent.operator.node_state import Node, count, maps, text
from edge_agent.operator.results import Item, subject

PAGE_ROWS = 50
MAX_SHOWN_EVENTS = 200
MAX_NAMED = 20  # nodes named in one group of failures
MAX_FILTER_CHARS = 200
NEVER = "before this console was opened"
# Outcomes (docs/mqtt.md) after which nobody has to look; every other word is shown as bad.
GOOD = frozenset(("", "ok", "adjusted", "would_adjust", "would_reject"))

# The counts of the first page, in this order: the word in `Facts.words`, and its title.
COUNTS = (
    ("online", "online"),
    ("lost", "lost"),
    ("offline", "offline"),
    ("trouble", "with a problem"),
    ("failing", "failing plugin"),
    ("quarantined", "quarantined"),
    ("rejected", "rejected a release"),
    ("refusing", "refuse a document"),
    ("probation", "on probation"),
    ("no-nri", "runtime without NRI"),
    ("doubtful", "state not proven"),
)


class NodeFilter(NamedTuple):
    """Which nodes the table shows; empty fields take every node."""

    q: str = ""  # part of the name, of a label or of a problem
    show: str = ""  # a word of COUNTS
    plugin: str = ""  # "NN-name" or "NN-name VERSION"
    agent: str = ""
    arch: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "NodeFilter":
        """From a page's address; each value is cut to MAX_FILTER_CHARS."""
        return cls(*(query.get(name, "")[:MAX_FILTER_CHARS].strip() for name in cls._fields))

    def takes(self, facts: Facts) -> bool:
        node = facts.node
        if self.show and self.show not in facts.words:
            return False
        if (self.agent and self.agent != node.agent) or (
            self.arch and self.arch != node.architecture
        ):
            return False
        if self.plugin and not any(
            self.plugin in (each.identity, f"{each.identity} {each.version}")
            for each in facts.plugins
        ):
            return False
        return self.q.casefold() in facts.search

    def address(self, **changes: object) -> str:
        """The query of the same page with `changes`; "" where nothing is filtered."""
        values = {**self._asdict(), **changes}
        told = {name: value for name, value in values.items() if value not in ("", None)}
        return f"?{urlencode(told)}" if told else ""


class Table(NamedTuple):
    """One page of nodes."""

    rows: Sequence[Facts]
    found: int  # nodes that the filter takes
    page: int  # from 1
    pages: int


def table(nodes: Iterable[Facts], wanted: NodeFilter, page: int) -> Table:
    """The nodes with problems come first, then by name."""
    found = [each for each in nodes if wanted.takes(each)]
    found.sort(key=lambda each: not each.troubles)  # stable: by name within
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    return Table(found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS], len(found), page, pages)


class FleetCount(NamedTuple):
    """One count of the first page."""

    word: str
    title: str
    nodes: int


def counts(found: Mapping[str, int]) -> list[FleetCount]:
    """Those of COUNTS that are not 0, and `online`; `found` has the nodes by word."""
    return [
        FleetCount(word, title, found.get(word, 0))
        for word, title in COUNTS
        if found.get(word) or word == "online"
    ]


class EventRow(NamedTuple):
    """One event for people."""

    time: str  # the node's, UTC
    node: str
    plugin: str
    event: str
    outcome: str
    subject: str
    detail: str
    bad: bool


class EventFilter(NamedTuple):
    """Which events are shown; empty fields take every event."""

    node: str = ""
    plugin: str = ""
    outcome: str = ""  # a word of docs/mqtt.md, or "bad"
    q: str = ""  # part of the pod, the container or the error

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "EventFilter":
        return cls(*(query.get(name, "")[:MAX_FILTER_CHARS].strip() for name in cls._fields))

    def takes(self, item: Item) -> bool:
        record = item.record
        outcome = str(record.get("outcome", ""))
        return (
            self.node in ("", item.node)
            and self.plugin in ("", str(record.get("plugin", "")))
            and (self.outcome in ("", outcome) or (self.outcome == "bad" and _is_bad(item)))
            and (not self.q or self.q.casefold() in f"{subject(record)} {_detail(item)}".casefold())
        )

    def address(self) -> str:
        told = {name: value for name, value in self._asdict().items() if value}
        return f"?{urlencode(told)}" if told else ""


def event_row(each: Event) -> EventRow:
    item, record = each.item, each.item.record
    return EventRow(
        *(clock(record.get("time") or each.came), item.node),
        *(str(record.get("plugin", "")), str(record.get("event", ""))),
        outcome=str(record.get("outcome", "")) if item.kind == "record" else item.kind,
        subject=subject(record),
        detail=_detail(item),
        bad=_is_bad(item),
    )


def _is_bad(item: Item) -> bool:
    return item.kind != "record" or str(item.record.get("outcome", "")) not in GOOD


def _detail(item: Item) -> str:
    """What was changed, why it failed, or which records are missing."""
    record = item.record
    if item.kind in ("dropped", "missing"):
        return f"{item.last - item.first + 1} results {item.kind}: {item.first} to {item.last}"
    told = [str(record["error"])] if record.get("error") else []
    for key, words in (("adjusted", "changed"), ("fields", "fields"), ("with", "with")):
        names = record.get(key)
        if isinstance(names, list) and names:
            told.append(f"{words} {', '.join(str(each) for each in names[:16])}")
    reports = record.get("reports")
    for each in reports[:4] if isinstance(reports, list) else ():
        if isinstance(each, Mapping):
            told.append(f"{each.get('kind', 'report')}: {each.get('payload', '')!s:.200}")
    return "; ".join(told)


class FailureGroup(NamedTuple):
    """One reason, and the nodes that give it."""

    reason: str
    nodes: int
    named: Sequence[str]  # the first MAX_NAMED


def grouped(failures: Mapping[str, str]) -> list[FailureGroup]:
    """Nodes by the reason that they give, the most frequent first."""
    found: dict[str, list[str]] = {}
    for node, reason in failures.items():
        found.setdefault(reason, []).append(node)
    groups = [
        FailureGroup(reason, len(names), sorted(names)[:MAX_NAMED])
        for reason, names in found.items()
    ]
    return sorted(groups, key=lambda each: (-each.nodes, each.reason))


def plugin_rows(node: Node) -> list[dict[str, Any]]:
    """The plugins of one node: what runs, since when, how fast, how often it failed."""
    found = []
    for each, raw in zip(node.plugins, maps(node.state.get("plugins")), strict=False):
        failures = raw.get("failures")
        told = failures.items() if isinstance(failures, Mapping) else ()
        found.append(
            {
                "identity": each.identity,
                "version": version_of(each),
                "status": each.status,
                "bad": is_bad(each.status),
                "since": clock(raw.get("since")),
                "events": each.events,
                "failures": ", ".join(f"{word!s:.20} {count(number)}" for word, number in told),
                "p50": latency(raw, "p50"),
                "p99": latency(raw, "p99"),
                "restarts": count(raw.get("restarts")),
                "runtime": each.runtime,
                "monitored": each.monitored,
                "error": each.error,
            }
        )
    return found


def about(node: Node, seen: float) -> list[tuple[str, str]]:
    """Facts of one node, each with its title."""
    state = node.state
    memory = state.get("memory")
    rss = count(memory.get("rss")) if isinstance(memory, Mapping) else 0
    runtimes = [
        " ".join(filter(None, (text(each.get(key)) for key in ("name", "version", "state"))))
        for each in maps(state.get("runtimes"))
    ]
    trusted = "signed by its enrolled key" if node.proven else "not enrolled"
    facts = [
        ("seen", clock(seen) if seen else NEVER),
        ("agent", node.agent),
        ("architecture", node.architecture),
        ("engine", " ".join(node.engine[:2])),
        ("runtimes", "; ".join(runtimes)),
        ("labels", ", ".join(f"{key}={value}" for key, value in node.labels.items())),
        ("generation", str(node.generation or "")),
        ("state", node.unproven or (trusted if node.state else "none")),
        ("memory", f"{rss / (1 << 20):.1f} MiB" if rss else ""),
        ("up for", _duration(count(state.get("uptime_s")))),
    ]
    return [(title, value) for title, value in facts if value.strip()]


def clock(seconds: object) -> str:
    """A time in UTC, to the second; "" for none, "-" for one that makes no sense."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s" if seconds else ""
