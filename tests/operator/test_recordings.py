"""A recording that a node sends, at the operator: whose it is, and what a hostile node can do."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.authors import recording
from edge_agent.authors.recording import Recorded
from edge_agent.fleet_protocol import libcrypto, recorded_parts, requests, signed_states
from edge_agent.fleet_protocol.keys import public_key, public_pem
from edge_agent.fleet_protocol.recorded_parts import MAX_PARTS, PART_BYTES, part, whole
from edge_agent.operator.folder import FleetFolder
from edge_agent.store.digest import Digest
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto
from tests.wasm.lab import capture

pytestmark = [pytest.mark.system, needs_mosquitto]

SEED = bytes([9]) * 32
EVENT = Recorded(
    *("20-guard", "sha256:00", "x", "CreateContainer", "plugin_create_container", "ok", ""),
    *(1, 2, capture("create_container"), b""),
)
HEAD: dict[str, object] = {"agent": "0.1.0", "redacted": ["env"], "dropped": 2, "ended": "time"}
FILE = recording.encoded(HEAD, [EVENT] * 3)

Answer = Callable[[str, str], list[bytes]]
"""What a node answers to the request with this id, in this fleet."""


def good(data: bytes, seed: bytes = SEED, node: str = "board-1", part_bytes: int = 1000) -> Answer:
    """As a node does it, in smaller parts."""

    def answers(identity: str, fleet: str) -> list[bytes]:
        cut = [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]
        last = whole(fleet, node, len(cut), len(data), Digest.of(data))
        return [
            requests.answer(identity, "record", "accepted"),
            requests.answer(identity, "record", "running"),
            *(said(identity, part(number, each)) for number, each in enumerate(cut)),
            signed(said(identity, last, "succeeded"), seed),
        ]

    return answers


def said(identity: str, result: dict[str, Any], state: requests.State = "running") -> bytes:
    return requests.answer(identity, "record", state, result=result)


def signed(document: bytes, seed: bytes = SEED) -> bytes:
    text = signed_states.to_sign(document, recorded_parts.PAYLOAD_TYPE)
    return signed_states.sealed(document, libcrypto.public_of(seed), libcrypto.sign(seed, text))


class Recording(Peer):
    """A node that answers `record` with what it is given."""

    answers: Answer

    def _answer(self, verb: str, payload: bytes) -> None:
        if verb != "record":
            super()._answer(verb, payload)
            return
        request = self._read(verb, payload)
        self.requests.append(request)
        for each in self.answers(request.id, self._trust.fleet):
            self._client.publish(self._topics.response(verb), each, qos=1)


@contextmanager
def node(home: Home, answers: Answer) -> Iterator[Recording]:
    trust = FleetFolder(home.path).trust_set()
    with Recording(home.port, "board-1", trust, seed=SEED) as made:
        made.answers = answers
        yield made


def asked(home: Home, answers: Answer, *words: str) -> tuple[int, str, str]:
    with node(home, answers):
        file = str(home.path.parent / "events.edgerec")
        return home.tried("request", "board-1", "record", "-o", file, *words)


def written(home: Home) -> bytes | None:
    file = home.path.parent / "events.edgerec"
    return file.read_bytes() if file.exists() else None


def enrol(home: Home, folder: Path, seed: bytes = SEED) -> None:
    file = folder / "node.pem"
    file.write_text(public_pem(public_key(libcrypto.public_of(seed))))
    home.fleet("enrol", "board-1", "--key", str(file), "-y")


def test_what_a_node_sends_is_written_and_said(home: Home) -> None:
    code, told, errors = asked(home, good(FILE))
    assert (code, errors) == (0, "")
    assert told.splitlines()[:2] == ["board-1 record: accepted", "board-1 record: running"]
    assert "3 events in " in told
    assert "2 were lost; it ended by time" in told
    assert "hidden: env" in told
    assert "board-1 is not enrolled: nothing proves that it made this" in told
    assert written(home) == FILE
    file = home.path.parent / "events.edgerec"
    assert file.stat().st_mode & 0o077 == 0


def test_a_program_gets_the_facts_and_no_parts(home: Home, tmp_path: Path) -> None:
    enrol(home, tmp_path)
    code, told, _ = asked(home, good(FILE), "--json")
    assert code == 0
    states = [json.loads(line) for line in told.splitlines()]
    assert [each.get("state") for each in states] == ["accepted", "running", "succeeded", None]
    assert states[-1] == {
        "file": str(home.path.parent / "events.edgerec"),
        "size": len(FILE),
        "events": 3,
        "agent": "0.1.0",
        "redacted": ["env"],
        "dropped": 2,
        "ended": "time",
        "proven": True,
    }


def test_the_options_are_the_arguments_of_the_request(home: Home) -> None:
    with node(home, good(FILE)) as peer:
        words = ("--plugin", "20-guard", "--events", "create_container,stop-container")
        more = ("--count", "7", "--seconds", "9", "--redact", "labels:a*,args")
        home.fleet("request", "board-1", "record", "-o", str(home.path / "x"), *words, *more)
        home.fleet("request", "board-1", "record", "-o", str(home.path / "x"), "--redact", "none")
        first, second = peer.requests
    assert first.arguments == {
        "plugin": "20-guard",
        "events": ["CreateContainer", "StopContainer"],
        "count": 7,
        "seconds": 9,
        "redact": ["labels:a*", "args"],
    }
    assert second.arguments["redact"] == []
    assert first.signers


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("record",), "record needs -o FILE"),
        (("record", "-o", "/nowhere/x"), "/nowhere/x: there is no such folder"),
        (("record", "-o", "x", "--count", "1000000"), "count must be a whole number from 1 to"),
        (("record", "-o", "x", "--seconds", "86400"), "seconds must be a whole number from 1 to"),
        (("record", "-o", "x", "--redact", "enf"), "redact must be a list"),
        (("record", "-o", "x", "--redact", ",".join(["env"] * 17)), "redact must be a list"),
        (("record", "-o", "x", "--events", "create"), "no such event: create"),
        (("record", "-o", "x", "--arg", "depth=1"), "unknown argument depth"),
        (("sync", "-o", "x"), "--output is for record alone"),
        (("logs", "--plugin", "20-guard"), "--plugin is for record alone"),
        (("logs", "--count", "0"), "--count is for record alone"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(home: Home, words: tuple[str, ...], reason: str) -> None:
    with node(home, good(FILE)) as peer:
        code, _, errors = home.tried("request", "board-1", *words)
        assert code == 1
        assert reason in errors
        assert peer.requests == []


def test_a_node_that_refuses_says_why_and_nothing_is_written(home: Home) -> None:
    reason = "not allowed here: record is not in [requests] allow"
    refused: Answer = lambda identity, _: [  # noqa: E731
        requests.answer(identity, "record", "failed", reason=reason)
    ]
    code, told, _ = asked(home, refused)
    assert code == 1
    assert told == f"board-1 record: failed: {reason}\n"
    assert written(home) is None


def test_an_agent_of_before_is_not_taken_for_one_that_is_slow(home: Home) -> None:
    code, _, errors = asked(home, lambda _identity, _fleet: [], "--timeout", "0.3")
    assert code == 1
    assert "An agent of before record does not hear it." in errors


# --- hostile


def bomb(size: int) -> bytes:
    """A small file of one long line."""
    line = json.dumps({"format": recording.FORMAT}).encode() + b"\n"
    return gzip.compress(line + b" " * size, compresslevel=9)


def with_parts(*results: dict[str, Any], last: dict[str, Any] | None = None) -> Answer:
    """These parts, and then the end of another recording."""

    def answers(identity: str, fleet: str) -> list[bytes]:
        end = whole(fleet, "board-1", 1, 4, Digest.of(b"data")) if last is None else last
        return [*(said(identity, each) for each in results), said(identity, end, "succeeded")]

    return answers


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (good(b"no gzip"), "the recording of board-1: damaged: Not a gzipped file"),
        (good(FILE[:-20], part_bytes=500), "the recording of board-1: damaged"),
        (good(gzip.compress(b"{}\n")), "not of the format"),
        (good(bomb(recording.MAX_LINE_BYTES * 8), part_bytes=PART_BYTES), "has a line over"),
        (
            good(recording.encoded({}, [replace(EVENT, request=b"\xff")])),
            "the request of an event CreateContainer is none",
        ),
        (with_parts(part(0, b"other")), "not those of the recording that the last answer names"),
        (with_parts(), r"parts [0] of the recording did not come; ask again"),
        (with_parts(part(0, b"a"), part(0, b"b")), "part 0 of the recording came twice"),
        (with_parts({"part": MAX_PARTS, "data": ""}), "a part of the recording is none"),
        (with_parts({"data": "AA=="}), "a part of the recording is none"),
        (with_parts({"part": 0, "data": "\x1b[31m"}), "board-1: "),
        (with_parts(last={"parts": 10**15}), "does not say what the recording is"),
        (with_parts(last={}), "does not say what the recording is"),
    ],
)
def test_what_is_no_recording_is_told_and_not_written(
    home: Home, answers: Answer, reason: str
) -> None:
    code, _, errors = asked(home, answers)
    assert code == 1
    assert reason in errors
    assert len(errors.splitlines()) == 1
    assert errors.strip().isprintable()
    assert written(home) is None


def test_parts_of_other_requests_are_passed_over(home: Home) -> None:
    def answers(identity: str, fleet: str) -> list[bytes]:
        return [
            *(each.replace(identity.encode(), b"another") for each in good(b"x")(identity, fleet)),
            b"rubbish",
            *good(FILE)(identity, fleet),
        ]

    assert asked(home, answers)[0] == 0
    assert written(home) == FILE


def test_the_largest_recording_arrives_whole(home: Home) -> None:
    writer, number = recording.Writer(recorded_parts.MAX_BYTES), 0
    while writer.add(replace(EVENT, error=random.Random(number).randbytes(20_000).hex())):
        number += 1
    file = writer.end(HEAD)
    assert PART_BYTES * (MAX_PARTS - 2) < len(file) <= recorded_parts.MAX_BYTES
    assert asked(home, good(file, part_bytes=PART_BYTES))[0] == 0
    assert written(home) == file


# --- whose it is


def test_an_enrolled_node_has_to_sign(home: Home, tmp_path: Path) -> None:
    enrol(home, tmp_path)
    assert asked(home, good(FILE))[0] == 0
    (home.path.parent / "events.edgerec").unlink()

    def unsigned(identity: str, fleet: str) -> list[bytes]:
        *most, last = good(FILE)(identity, fleet)
        return [*most, signed_states.read(last).document]

    for answers, reason in (
        (unsigned, "it is not signed (unsigned)"),
        (good(FILE, seed=bytes([8]) * 32), "another key than the enrolled one (key)"),
        (good(FILE, node="board-2"), "it is signed for another node than board-1 (node)"),
    ):
        code, _, errors = asked(home, answers)
        assert code == 1
        assert "board-1 is enrolled, and this recording is not proven" in errors
        assert reason in errors
    assert written(home) is None
