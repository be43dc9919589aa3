"""Requests that a key of the fleet signed: which a node carries out, and which never again."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import strictjson
from edge_agent.errors import RefusedError, RepeatedError, RequestError
from edge_agent.fleet.documents import TrustInForce
from edge_agent.fleet.request_verifier import RequestVerifier
from edge_agent.fleet_protocol import envelope, requests, signed_requests, topics, trust
from edge_agent.fleet_protocol.keys import PublicKey, SigningKey
from edge_agent.fleet_protocol.requests import Request, Sealed
from edge_agent.fleet_protocol.signed_requests import (
    MAX_SEEN,
    MAX_SEEN_KEYS,
    PAYLOAD_TYPE,
    Addressed,
    Memory,
    Seen,
    accept,
)
from edge_agent.fleet_protocol.trust import TrustSet

ALICE, BOB, MALLORY = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
KEYS = (ALICE.public, BOB.public)
TO = Addressed("greenhouse", "board-7", "restart")
NOW = datetime(2026, 11, 17, 8, 27, 40, tzinfo=UTC).timestamp()
GOOD = {
    "kind": "edge-agent.request",
    "fleet": "greenhouse",
    "node": "board-7",
    "verb": "restart",
    "id": "8f1c",
    "issued": "2026-11-17T08:26:40Z",  # a minute before NOW
    "expires": "2026-11-18T08:26:39Z",
    "arguments": {"plugin": "10-guard"},
}


def asked(
    identity: str = "8f1c", *, key: SigningKey = ALICE, issued: float = NOW, valid_s: float = 600
) -> bytes:
    arguments = {"plugin": "10-guard"}
    return signed_requests.seal(
        TO, identity, arguments, issued=issued, valid_s=valid_s, signers=[key]
    )


def opened(raw: bytes, verb: str = "restart") -> Sealed:
    found = requests.read(verb, raw)
    assert isinstance(found, Sealed)
    return found


def taken(
    raw: bytes, memory: Memory | None = None, *, now: float = NOW, to: Addressed = TO
) -> tuple[Request, Memory]:
    return accept(opened(raw), to, KEYS, now, memory or {})


def changed(**changes: Any) -> bytes:
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    return envelope.seal(PAYLOAD_TYPE, strictjson.dumps(values), [ALICE])


def test_what_one_trusted_key_signed_is_a_request() -> None:
    request, _ = taken(asked())
    assert request == Request("8f1c", "restart", {"plugin": "10-guard"}, (ALICE.public.keyid,))
    assert taken(changed())[0] == request


def test_a_node_from_before_signatures_reads_the_same_request() -> None:
    """It takes an object with an id and arguments, and knows no other field."""
    said = json.loads(asked())
    assert {key: said[key] for key in ("id", "arguments")} == {
        "id": "8f1c",
        "arguments": {"plugin": "10-guard"},
    }
    assert len(asked()) <= topics.MAX_REQUEST_BYTES


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (asked(key=MALLORY), "signature"),
        (changed(kind="edge-agent.deployment"), "kind"),
        (changed(fleet="other"), "fleet"),
        (changed(node="board-8"), "node"),
        (changed(verb="release"), "verb"),
        (changed(expires="2026-11-17T08:26:41Z"), "expired"),
        (changed(expires="2026-11-19T08:26:40Z"), "malformed"),  # good for two days
        (changed(issued="2026-11-19T08:26:40Z"), "malformed"),  # after it has expired
        (changed(issued=...), "malformed"),
        (changed(expires=7), "malformed"),
        (changed(id=...), "id must be"),
        (changed(arguments={"plugin": 5}), "plugin must be"),
        (changed(arguments=[]), "arguments must be"),
        (envelope.seal(PAYLOAD_TYPE, b"[]", [ALICE]), "malformed"),
        (envelope.seal(PAYLOAD_TYPE, b"nonsense", [ALICE]), "malformed"),
        (envelope.seal(trust.PAYLOAD_TYPE, strictjson.dumps(GOOD), [ALICE]), "signature"),
        (b'{"payloadType": 1}', "envelope"),
    ],
)
def test_anything_else_is_refused_with_its_reason(raw: bytes, word: str) -> None:
    with pytest.raises(RequestError, match=f"^{word}"):
        taken(raw)


def test_nothing_is_carried_out_twice() -> None:
    _, memory = taken(asked())
    with pytest.raises(RepeatedError):
        taken(asked(), memory)
    with pytest.raises(RepeatedError):
        taken(asked(), signed_requests.load(signed_requests.dump(memory)))
    taken(asked("another"), memory)


def test_taking_one_of_two_signatures_away_makes_no_new_request() -> None:
    both = json.loads(
        signed_requests.seal(TO, "a", {}, issued=NOW, valid_s=60, signers=[ALICE, BOB])
    )
    _, memory = taken(json.dumps(both).encode())
    for signature in both["signatures"]:
        with pytest.raises(RepeatedError):
            taken(json.dumps({**both, "signatures": [signature]}).encode(), memory)


def test_a_board_without_a_clock_carries_nothing_out_twice_however_late() -> None:
    """Its time never passes, and it cannot remember everything."""
    memory: Memory = {}
    first = asked("first")
    _, memory = taken(first, memory, now=0.0)
    for number in range(3 * MAX_SEEN):
        later = asked(f"{number}", issued=NOW + number + 1)
        _, memory = taken(later, memory, now=0.0)
    assert len(memory[ALICE.public.keyid].ids) == MAX_SEEN
    for raw in (first, asked("0", issued=NOW + 1)):
        with pytest.raises(RepeatedError):
            taken(raw, memory, now=0.0)


def test_a_stolen_key_that_asks_without_end_does_not_shut_another_out() -> None:
    memory: Memory = {}
    for number in range(2 * MAX_SEEN):
        raw = asked(f"{number}", key=BOB, issued=NOW + 1e9)  # it expires in the year 2058
        with suppress(RepeatedError):
            _, memory = taken(raw, memory)
    assert memory[BOB.public.keyid].floor > NOW + 1e9
    taken(asked(key=ALICE), memory)


@given(times=st.lists(st.integers(0, 300), min_size=1, max_size=200), at=st.integers(0, 199))
def test_whatever_came_before_is_refused_later(times: list[int], at: int) -> None:
    seen = Seen()
    entered = []
    for number, expires in enumerate(times):
        if not seen.has(f"{number}", expires):
            seen = seen.added(f"{number}", expires)
            entered.append((f"{number}", expires))
    assert len(seen.ids) <= MAX_SEEN
    if entered:
        assert seen.has(*entered[at % len(entered)])


@settings(max_examples=300)
@given(
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=8)
        ),
        max_leaves=12,
    )
)
def test_whatever_a_trusted_key_signs_is_a_request_or_refused(payload: Any) -> None:
    raw = envelope.seal(PAYLOAD_TYPE, json.dumps(payload).encode(), [ALICE])
    values = {**GOOD, **payload} if isinstance(payload, dict) else GOOD
    for each in (raw, envelope.seal(PAYLOAD_TYPE, json.dumps(values).encode(), [ALICE])):
        try:
            taken(each)
        except (RequestError, RefusedError):
            continue


def standing(*keys: PublicKey) -> TrustInForce:
    return TrustInForce(TrustSet("greenhouse", 1, 1, keys) if keys else None, "no files", NOW)


def test_what_was_asked_is_on_the_disk_before_it_is_done(tmp_path: Path) -> None:
    file = tmp_path / "state" / "requests.json"
    first = RequestVerifier(file, lambda: standing(*KEYS))
    first.request(opened(asked()), TO)
    second = RequestVerifier(file, lambda: standing(*KEYS))  # the next process
    with pytest.raises(RepeatedError):
        second.request(opened(asked()), TO)


def at(now: float, *, clock_stands: bool = False) -> TrustInForce:
    return standing(*KEYS)._replace(now=now, clock_stands=clock_stands)


@pytest.mark.parametrize(
    "damaged",
    [b"damaged", b"", b"[]", b'{"a": 1}', b'{"a": {"floor": 0, "ids": {"8f1c": null}}}', b"\xff"],
)
def test_a_damaged_memory_lets_nothing_be_asked_again(tmp_path: Path, damaged: bytes) -> None:
    file, now = tmp_path / "state" / "requests.json", [NOW]

    def process() -> RequestVerifier:
        return RequestVerifier(file, lambda: at(now[0]))

    earlier = [opened(asked(f"{each}", issued=NOW - each)) for each in (0, 300)]
    for each in earlier:
        process().request(each, TO)
    file.write_bytes(damaged)
    now[0] += 5
    for _ in range(2):  # a process later too
        for each in earlier:
            with pytest.raises(RequestError, match=r"replayed: what was asked until .*:45Z is not"):
                process().request(each, TO)
    now[0] += 5
    anew = opened(asked("anew", issued=now[0]))
    assert process().request(anew, TO).id == "anew"
    with pytest.raises(RepeatedError):
        process().request(anew, TO)
    with pytest.raises(RequestError, match="is not known here any more"):
        process().request(earlier[0], TO)


def test_a_damaged_memory_on_a_board_without_a_clock_waits_for_a_time_that_is_known(
    tmp_path: Path,
) -> None:
    """Its latest time is that of the last deployment, and requests were issued after that."""
    file, now, stands = tmp_path / "requests.json", [NOW], [True]

    def process() -> RequestVerifier:
        return RequestVerifier(file, lambda: at(now[0], clock_stands=stands[0]))

    captured = opened(asked("captured", issued=NOW + 3600, valid_s=80_000))
    process().request(captured, TO)
    file.write_bytes(b"damaged")
    for identity in ("captured", "anew"):
        with pytest.raises(RequestError, match="lost, and the clock here stands"):
            process().request(opened(asked(identity, issued=NOW + 3600, valid_s=80_000)), TO)
    now[0] = NOW + 7200  # a deployment came, or the clock was set
    for _ in range(2):
        with pytest.raises(RequestError, match="is not known here any more"):
            process().request(captured, TO)
        stands[0] = False
    assert process().request(opened(asked("later", issued=NOW + 7201)), TO).id == "later"
    with pytest.raises(RequestError, match="replayed"):
        process().request(captured, TO)


def test_a_loss_is_remembered_beside_as_many_keys_as_there_can_be() -> None:
    memory: Memory = signed_requests.forgotten(NOW, clock_stands=False)
    strangers = {f"{each:064x}": Seen(0, {"a": 1.0}) for each in range(MAX_SEEN_KEYS)}
    _, memory = taken(asked(issued=NOW + 1), {**memory, **strangers})
    assert set(memory) == {"", ALICE.public.keyid}
    with pytest.raises(RequestError, match="not known here any more"):
        taken(asked("older", issued=NOW - 1), memory)


def test_a_disk_that_takes_nothing_stops_a_restart_and_no_look(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    verifier = RequestVerifier(tmp_path / "state" / "requests.json", lambda: standing(*KEYS))
    with pytest.raises(RequestError, match="could not be remembered"):
        verifier.request(opened(asked(issued=NOW + 1)), TO)  # nothing of before could be read
    look = Addressed("greenhouse", "board-7", "diagnose")
    raw = signed_requests.seal(look, "a", {}, issued=NOW + 1, valid_s=60, signers=[ALICE])
    assert verifier.request(opened(raw, "diagnose"), look).verb == "diagnose"
    with pytest.raises(RepeatedError):
        verifier.request(opened(raw, "diagnose"), look)


def test_where_nobody_is_trusted_the_reason_is_told(tmp_path: Path) -> None:
    verifier = RequestVerifier(tmp_path / "requests.json", standing)
    with pytest.raises(RequestError, match="signature: nobody is trusted here: no files"):
        verifier.request(opened(asked()), TO)
