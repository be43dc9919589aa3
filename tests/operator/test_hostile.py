"""What one board writes can end no command for the whole fleet."""

import json
from collections.abc import Callable

import msgpack  # type: ignore[import-untyped]
import pytest

from edge_agent.operator.untrusted import (
    MAX_DEPTH,
    MAX_VALUES,
    UnreadableError,
    read_batch,
    read_object,
)
from tests.operator import fuzz
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

Peers = Callable[..., list[Peer]]
NODES = "edge/v1/greenhouse/nodes"
DEEP = b"\x91" * 1000 + b"\x90"
DEEP_BATCH = b"\x82\xa6stream\xa1s\xa7records\x91\x82\xa3seq\x01\xa5error" + DEEP


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested deeper"),
        (b'{"a":' + b"[" * 100_000, "nested deeper|not JSON"),
        (b'{"a":' + b"7" * 400 + b"}", "whole number"),
        (b'{"a":' + b"7" * 5000 + b"}", "whole number"),
        (b'{"a":-9007199254740992}', "whole number"),
        (b'{"a":1e999}', "infinite"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":[' + b"1," * MAX_VALUES + b"1]}", "more than 50000 values"),
        (b"[]", "not an object"),
        (b"\xff{}", "not JSON"),
        (b"{}" + b" " * 300_000, "bytes"),
    ],
)
def test_a_document_beyond_the_bounds_is_unreadable(payload: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_object(payload)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (DEEP_BATCH, "nested deeper"),
        (b"\x91" * 2000, "not MessagePack"),
        (packed({"records": [], "a": 1 << 63}), "whole number"),
        (packed({"records": [], "a": float("nan")}), "infinite or none"),
        (packed({"records": [], "a": msgpack.ExtType(5, b"x")}), "ExtType"),
        (packed({"records": [], "a": msgpack.Timestamp(1)}), "Timestamp"),
        (packed({"records": [], b"a": 1}), "no text"),
        (packed({"records": [], 1: 1}), "not MessagePack"),
        (packed({"records": {}}), "no list of records"),
        (b"\x81\xa7records\xdd\xff\xff\xff\xff", "not MessagePack"),
        (b"\xc1", "not MessagePack"),
        (b"", "not MessagePack"),
        (b'{"records": 1}', "no list of records"),
    ],
)
def test_a_batch_beyond_the_bounds_is_unreadable(payload: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_batch(payload)


def test_text_that_is_no_character_is_written_out() -> None:
    assert read_object(rb'{"\udcff": ["a\ud800"]}') == {r"\udcff": [r"a\ud800"]}
    assert read_batch(b"\x81\xa7records\x91\xa1\xff") == {"records": [r"\udcff"]}


@pytest.mark.system
@needs_mosquitto
def test_a_board_that_nests_results_ends_neither_results_nor_watch(
    home: Home, peers: Peers
) -> None:
    (honest,) = peers("board-1")
    home.fleet("results")  # from now on the broker keeps them
    with home.opened() as fleet:
        fleet.client.publish(f"{NODES}/board-2/results", DEEP_BATCH, retain=False)
    honest.report("s", {"seq": 1, "outcome": "ok"})
    told = [json.loads(line) for line in home.fleet("results", "--json").splitlines()]
    assert [(each["node"], each.get("seq")) for each in told] == [("board-2", None), ("board-1", 1)]
    assert "nested deeper than 16" in told[0]["unreadable"]
    assert home.fleet("results", "--json") == ""  # what cannot be read was acknowledged
    with home.opened() as fleet:
        fleet.client.publish(f"{NODES}/board-2/results", DEEP_BATCH, retain=True)
    for words in (("--json",), ()):
        assert "nested deeper than 16" in home.fleet("watch", "--seconds", "1", *words)


@pytest.mark.system
@needs_mosquitto
def test_a_board_that_writes_400_digits_ends_neither_node_nor_nodes(
    home: Home, peers: Peers
) -> None:
    peers("board-1")
    with home.opened() as fleet:
        document = b'{"agent":"0.1.0","labels":{"a":"b"},"memory":{"pss":' + b"7" * 400 + b"}}"
        fleet.client.publish(f"{NODES}/board-2/state", document, retain=True)
    for words in (("node", "board-2"), ("nodes",)):
        for more in ((), ("--json",)):
            code, told, errors = home.tried(*words, *more)
            assert (code, errors) == (1 if words[0] == "nodes" else 0, "")
            assert "a whole number beyond 2**53 - 1" in told
    assert home.tried("plan")[2] == ""


@pytest.mark.system
@needs_mosquitto
def test_a_topic_that_is_no_part_of_a_blob_does_not_end_gc(published: Home) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    stale = "ab" * 32
    with published.opened() as fleet:
        root = fleet.topics.blobs
        for topic in (f"{stale}/0", f"{stale}/zz", f"{stale}/-1", "no-digest/0"):
            fleet.client.publish(f"{root}/{topic}", b"x", retain=True)
    told = published.fleet("gc", "-y")
    assert "3 topics below edge/v1/greenhouse/blobs without a part of a blob, left alone" in told
    with published.opened() as fleet:
        assert not fleet.client.kept(f"{root}/{stale}/0")
        assert fleet.client.kept(f"{root}/{stale}/zz") == b"x"


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_nodes_or_the_broker_write_ends_a_command(seed: int) -> None:
    """`python -m tests.operator.fuzz 1000000` is the long way."""
    assert fuzz.run(2000, seed) > 0
