"""The state of a node with many plugins, made to fit one MQTT message. Pure.

What a reader can do without goes first, for all plugins at once so that entries stay alike, in the
order of STATE or METRICS; `condensed` in the document names what went. docs/mqtt.md tells readers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_agent.fleet_protocol.limits import CUT_DIGEST_CHARS, MAX_MESSAGE_BYTES
from edge_agent.fleet_protocol.packing import pack_json

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
_FIGURES = ("latency_ms", "memory_bytes", "restarts", "not_carried")

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
