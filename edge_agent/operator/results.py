"""Merges the nodes' results: each record once, and the missing ones named. Pure.

docs/mqtt.md describes the batches. A record may arrive twice, in any batch; a record counts more
than a gap that names its number.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from edge_agent.fleet_protocol.packing import bytes_as_json
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator.untrusted import UnreadableError, read_batch

# Ranges of numbers kept for one stream; only a stream with that many holes has more.
MAX_RANGES = 1000
MAX_STREAMS = 50  # of one node, the latest


class Item(NamedTuple):
    """A record; a gap, `first` to `last`, that the node dropped or that is missing; or a batch that
    cannot be read, with the reason as `error` in `record`."""

    kind: Literal["record", "dropped", "missing", "unreadable"]
    node: str  # "" if the topic is no node's
    stream: str
    first: int
    last: int
    record: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """One object, for other programs."""
        head = {"node": self.node, "stream": self.stream}
        if self.kind == "record":
            return {
                **head,
                **_plain(self.record),
                **head,
            }  # the topic's node counts, not one named in the record
        if self.kind == "unreadable":
            return {**head, "unreadable": self.record["error"]}
        count = self.last - self.first + 1
        return {
            **head,
            "gap": {"from": self.first, "to": self.last, "count": count},
            "why": self.kind,
        }


class Ranges:
    """A set of whole numbers as ranges."""

    def __init__(self, ranges: list[list[int]] | None = None) -> None:
        self._firsts = [first for first, _ in ranges or []]
        self._lasts = [last for _, last in ranges or []]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, first: int, last: int) -> None:
        """Join `first` to `last` in."""
        begin = bisect_right(self._lasts, first - 2)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first = min(first, self._firsts[begin])
            last = max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]
        if len(self._firsts) > MAX_RANGES:
            del self._firsts[0], self._lasts[0]

    def absent(self, first: int, last: int) -> list[tuple[int, int]]:
        """The ranges between `first` and `last` that are not in."""
        found, at = [], first
        for number in range(bisect_left(self._lasts, first), len(self._firsts)):
            begin, end = self._firsts[number], self._lasts[number]
            if begin > last:
                break
            if begin > at:
                found.append((at, begin - 1))
            at = end + 1
        if at <= last:
            found.append((at, last))
        return found

    def ranges(self) -> list[list[int]]:
        return [list(pair) for pair in zip(self._firsts, self._lasts, strict=True)]

    @property
    def last(self) -> int:
        return self._lasts[-1] if self._lasts else 0

    @property
    def first(self) -> int:
        return self._firsts[0] if self._firsts else 0


class _Stream:
    """One stream of one node: the records that arrived, and the numbers that are known."""

    def __init__(self, records: Ranges, known: Ranges) -> None:
        self.records = records
        self.known = known  # records and gaps

    def as_json(self, node: str, name: str) -> list[Any]:
        return [node, name, self.records.ranges(), self.known.ranges()]


class Merger:
    """Takes batches in the order of their arrival. `as_json` and `from_json` keep it on disk."""

    def __init__(self) -> None:
        # By node and name; the stream with the latest batch is the last of its node.
        self._nodes: dict[str, dict[str, _Stream]] = {}
        self._changed: dict[tuple[str, str], None] = {}
        self.duplicates = 0
        self.unreadable = 0  # batches

    def feed(self, topic: str, payload: bytes) -> Iterator[Item]:
        """The new records and gaps of a batch, in its order."""
        node, _ = read_node_topic(topic) or ("", "")
        try:
            if not node:
                raise UnreadableError("its topic is that of no node")
            batch = read_batch(payload)
        except UnreadableError as error:
            self.unreadable += 1
            yield Item("unreadable", node, "", 0, 0, {"error": str(error)})
            return
        name = str(batch.get("stream", ""))[:64]  # a hostile node may send any length
        stream = self._nodes.get(node, {}).get(name) or _Stream(Ranges(), Ranges())
        self._put(node, name, stream)
        for record in batch["records"]:
            if isinstance(record, Mapping):
                yield from self._take(stream, node, name, record)

    def take_missing(self) -> list[Item]:
        """Missing numbers: neither a record nor a reported gap has them; returned once.

        Some may come yet, while a node sends again: they are taken then as any other.
        """
        found = []
        for node, streams in sorted(self._nodes.items()):
            for name, stream in sorted(streams.items()):
                for first, last in stream.known.absent(stream.known.first, stream.known.last):
                    found.append(Item("missing", node, name, first, last, {}))
                    stream.known.add(first, last)
                    self._changed[node, name] = None
        return found

    def as_json(self) -> list[list[Any]]:
        return [
            stream.as_json(node, name)
            for node, streams in self._nodes.items()
            for name, stream in streams.items()
        ]

    def take_changed(self) -> list[list[Any]]:
        """Of `as_json` what is new since the last call."""
        changed, self._changed = self._changed, {}
        return [
            self._nodes[node][name].as_json(node, name)
            for node, name in changed
            if name in self._nodes[node]
        ]

    def replace(self, value: object) -> None:
        """One entry of `as_json`. ValueError, TypeError: invalid."""
        if not isinstance(value, list):
            raise ValueError("not a list")
        node, name, records, known = value
        self._put(str(node), str(name), _Stream(_ranges(records), _ranges(known)))
        self._changed.clear()

    @classmethod
    def from_json(cls, value: object) -> "Merger":
        """ValueError, TypeError: not what `as_json` made."""
        merger = cls()
        if not isinstance(value, list):
            raise ValueError("not a list")
        for each in value:
            merger.replace(each)
        return merger

    def _put(self, node: str, name: str, stream: _Stream) -> None:
        """Streams outlive starts of their node; the one that was silent longest is over."""
        streams = self._nodes.setdefault(node, {})
        streams.pop(name, None)
        streams[name] = stream
        while len(streams) > MAX_STREAMS:
            del streams[next(iter(streams))]
        self._changed[node, name] = None

    def _take(
        self, stream: _Stream, node: str, name: str, record: Mapping[str, Any]
    ) -> Iterator[Item]:
        gap = record.get("gap")
        if isinstance(gap, Mapping):
            first, last = _number(gap.get("from")), _number(gap.get("to"))
            if 0 < first <= last:
                for begin, end in stream.known.absent(first, last):
                    yield Item("dropped", node, name, begin, end, record)
                stream.known.add(first, last)
            return
        number = _number(record.get("seq"))
        if number <= 0 or number in stream.records:
            self.duplicates += number > 0
            return
        stream.records.add(number, number)
        stream.known.add(number, number)
        yield Item("record", node, name, number, number, record)


def _ranges(value: object) -> Ranges:
    if not isinstance(value, list):
        raise ValueError("not a list of ranges")
    return Ranges([[int(first), int(last)] for first, last in value])


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def subject(record: Mapping[str, Any]) -> str:
    """What an event was about: namespace/pod/container, as far as the record has them."""
    pod, container = record.get("pod"), record.get("container")
    parts = (
        str(each.get(key, ""))
        for each, key in ((pod, "namespace"), (pod, "name"), (container, "name"))
        if isinstance(each, Mapping)
    )
    return "/".join(filter(None, parts))


def _plain(value: Any) -> Any:
    """Bytes become what JSON has for them."""
    if isinstance(value, bytes):
        return bytes_as_json(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
