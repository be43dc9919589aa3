"""What a node says of itself in its `state`: the one place that names the keys. Pure.

The node builds these (agent, host/supervisor, fleet/updater) and the operator's view reads them, so
neither can mean another form. docs/mqtt.md and docs/fleet-protocol.md tell others what the keys
mean. A reader takes nothing for granted: the node may be of another version, or lie.

The state of a node with many plugins is truncated to fit one MQTT message: what a reader can do
without goes first, for all plugins at once so that entries stay alike, in the order of STATE or
METRICS; `condensed` in the document names what went.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.fleet_protocol.topics import CUT_DIGEST_CHARS, MAX_MESSAGE_BYTES


class Refusal(TypedDict):
    """The latest document of one kind that is not taken."""

    reason: str  # a word: `signature`, `rollback`, ... (docs/fleet-protocol.md)
    text: str
    count: int  # refused in a row, for whatever reasons
    since: int  # Unix time, s: when it was refused for this reason first
    generation: int | None  # what it says of itself, where trusted keys signed it
    message: str  # which one it was (deployment.message_name), signed or not


class TrustState(TypedDict, total=False):
    """The trusted keys; `trouble` alone where there are none."""

    version: int
    threshold: int
    keys: list[str]
    issued: int  # Unix time, s; these three only where the set expires
    expires: int
    expired: bool
    trouble: str
    refused: Refusal | None


class FetchState(TypedDict):
    """A module on its way here."""

    digest: str
    progress: float  # 0 to 1
    source: str
    trouble: str


class UpdatesState(TypedDict):
    """`updates` in the state."""

    generation: int  # of the deployment that runs; 0: none
    accepted: int
    epoch: int
    document: str  # SHA-256 in hex of the accepted deployment's payload; "": none
    form: int
    pending: int | None
    expires: int | None  # Unix time, s, of the deployment that runs
    expired: bool
    refused: Refusal | None
    trust: TrustState
    fetching: list[FetchState]
    rejected: dict[str, str]
    quarantined: dict[str, str]
    compiled: str  # "accept" or "refuse": of the fleet's machine code
    code: dict[str, str]  # NN-name: "" where the fleet's machine code is here, or why not
    trouble: str


class PluginState(TypedDict, total=False):
    """One plugin at one runtime, in `plugins` of the state."""

    name: str
    index: str
    version: str
    digest: str
    running: str
    status: str
    failure_policy: str
    instance: str  # "per-event"; only there
    mode: str  # "monitor"; these four only there
    would_adjust: int
    would_reject: int
    updates_withheld: int
    reason: str
    refusing: bool
    since: float
    runtime: str
    events: int
    failures: dict[str, int]
    restarts: int
    latency_ms: Mapping[str, float]
    memory_bytes: int
    not_carried: list[str]
    unread: list[str]  # of [pressure]: "READING: why this board does not have it"
    error: str


class CertificateState(TypedDict):
    """When the certificate counts with which the node connects to the broker; Unix time, s."""

    issued: int
    expires: int


class State(TypedDict):
    """The whole; `session`, `fleet`, `number` and `time` are added where it is published, and
    `signed` (fleet_protocol/signed_states)."""

    agent: str
    node: str
    labels: dict[str, str]
    architecture: str
    engine: Mapping[str, str]
    runtimes: list[dict[str, object]]
    plugins: list[PluginState]
    updates: NotRequired[UpdatesState]
    certificate: NotRequired[CertificateState]
    uptime_s: int


def refusals(updates: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The refusals in `updates` by kind of document, `deployment` and `trust`; each may be of
    another form than a Refusal."""
    trust = updates.get("trust")
    places = (("deployment", updates), ("trust", trust if isinstance(trust, Mapping) else {}))
    for kind, place in places:
        refused = place.get("refused")
        if isinstance(refused, Mapping) and refused:
            yield kind, refused


# Beside it come session, fleet, number, time and signature (signed_states).
MAX_BYTES = MAX_MESSAGE_BYTES - 1024
ERROR_CHARS = 60  # enough for the file or the kind of fault, which come first
# Worst first: what one entry for several runtimes says.
_STATUSES = (
    "failed",
    "quarantined",
    "backoff",
    "probation",
    "starting",
    "running",
    "waiting",
    "skipped",
)
_WITHHELD = ("would_adjust", "would_reject", "updates_withheld")
_FIGURES = ("latency_ms", "memory_bytes", "restarts", "not_carried", "unread")

Entry = dict[str, Any]
Step = Callable[[list[Entry]], list[Entry]]


def condensed(
    document: Mapping[str, Any], max_bytes: int, steps: Sequence[tuple[str, Step]]
) -> Mapping[str, Any]:
    """The document as it is if its JSON has at most `max_bytes`, or with less of its `plugins`."""
    head = {**document, "plugins": [], "condensed": [name for name, _ in steps]}
    # The list's own brackets are in it; the last line is for the number left out.
    room = max_bytes - len(pack_json(head)) - len('"plugins_left_out":12345678,')
    entries = list(document["plugins"])
    sizes = _sizes(entries)
    if sum(sizes) <= room:
        return document
    done = []
    for name, step in steps:
        entries = step(entries)
        done.append(name)
        sizes = _sizes(entries)
        if sum(sizes) <= room:
            break
    total = len(entries)
    while entries and sum(sizes) > room:
        entries.pop()
        sizes.pop()
    short = {**document, "plugins": entries, "condensed": done}
    if len(entries) < total:
        short["plugins_left_out"] = total - len(entries)
    return short


def _sizes(entries: list[Entry]) -> list[int]:
    # One by one: the encoder keeps the interpreter's lock, which the answering thread needs.
    return [len(pack_json(entry)) + 1 for entry in entries]


def _without(*keys: str) -> Step:
    return lambda entries: [
        {key: value for key, value in entry.items() if key not in keys} for entry in entries
    ]


def _cut(key: str, length: int) -> Step:
    def cut(entry: Entry) -> Entry:
        return {**entry, key: entry[key][:length]} if key in entry else entry

    return lambda entries: [cut(entry) for entry in entries]


def _merged(entries: list[Entry]) -> list[Entry]:
    """One entry for each plugin: the worst status and its error, sums, the number of runtimes."""
    plugins: dict[tuple[object, object], list[Entry]] = {}
    for entry in entries:
        plugins.setdefault((entry.get("index"), entry.get("name")), []).append(entry)
    return [_merge(each) if len(each) > 1 else each[0] for each in plugins.values()]


def _merge(entries: list[Entry]) -> Entry:
    worst = min(entries, key=lambda entry: _badness(entry.get("status")))
    failures: Counter[str] = Counter()
    for entry in entries:
        failures.update(entry.get("failures", {}))
    merged = {
        **worst,
        "runtimes": len(entries),
        "events": sum(entry.get("events", 0) for entry in entries),
        "failures": dict(failures),
    }
    for key in _WITHHELD:
        if any(key in entry for entry in entries):
            merged[key] = sum(entry.get(key, 0) for entry in entries)
    merged.pop("runtime", None)
    return merged


def _badness(status: object) -> int:
    return _STATUSES.index(status) if status in _STATUSES else 0


_ERRORS_CUT = ("errors cut", _cut("error", ERROR_CHARS))
_NO_ERRORS = ("no errors", _without("error"))
_NO_FIGURES = ("no figures", _without(*_FIGURES))
_MERGED = ("one entry for all runtimes", _merged)
_DIGESTS_CUT = ("digests cut", _cut("digest", CUT_DIGEST_CHARS))

# The operator's tools compare digests, so those come last.
STATE = (_NO_FIGURES, _ERRORS_CUT, _MERGED, _NO_ERRORS, _DIGESTS_CUT)
METRICS = (_NO_ERRORS, _DIGESTS_CUT, _MERGED, _NO_FIGURES)
