"""A recording in parts: what a node sends, and what a stranger could send in its place."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.fleet_protocol import keys, libcrypto, recorded_parts, requests, signed_states
from edge_agent.fleet_protocol.recorded_parts import MAX_PARTS, PART_BYTES, Gathered, part, whole
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.store.digest import Digest

DATA = bytes(range(256)) * 400
PARTS = [DATA[at : at + PART_BYTES] for at in range(0, len(DATA), PART_BYTES)]
END = whole("greenhouse", "board-7", len(PARTS), len(DATA), Digest.of(DATA))
SEED = bytes([7]) * 32
KEY = keys.public_key(libcrypto.public_of(SEED))


def test_what_was_cut_is_put_together_in_any_order_and_twice() -> None:
    gathered = Gathered()
    for number in (2, 0, 1, 0):
        gathered.take(part(number, PARTS[number]))
    gathered.end(END)
    assert gathered.missing == []
    assert gathered.joined() == DATA


def test_the_largest_part_fits_a_message_under_the_longest_id() -> None:
    answer = requests.answer(
        "x" * 64, "record", "running", result=part(MAX_PARTS - 1, bytes(PART_BYTES))
    )
    assert len(answer) <= MAX_MESSAGE_BYTES
    assert json.loads(answer)["state"] == "running"


def test_a_part_that_did_not_come_is_named() -> None:
    gathered = Gathered()
    gathered.take(part(1, PARTS[1]))
    gathered.end(END)
    with pytest.raises(ValueError, match=r"parts \[0, 2\] of the recording did not come"):
        gathered.joined()


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"part": 0},
        {"part": -1, "data": ""},
        {"part": True, "data": ""},
        {"part": MAX_PARTS, "data": ""},
        {"part": 10**15, "data": ""},
        {"part": 0, "data": 7},
        {"part": 0, "data": "no base64"},
        {"part": 0, "data": "\u00e9"},
        part(0, bytes(PART_BYTES + 1)),
    ],
)
def test_what_is_no_part_is_an_error(result: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Gathered().take(result)


def test_a_part_that_comes_twice_with_other_bytes_is_an_error() -> None:
    gathered = Gathered()
    gathered.take(part(0, b"a"))
    with pytest.raises(ValueError, match="came twice"):
        gathered.take(part(0, b"b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 0},
        {"parts": MAX_PARTS + 1},
        {"parts": True},
        {"parts": None},
        {"size": "1"},
        {"digest": 7},
        {"size": len(DATA) + 1},
        {"digest": Digest.of(b"another")},
        {"parts": len(PARTS) - 1},
    ],
)
def test_a_last_answer_that_names_something_else_is_an_error(changes: dict[str, Any]) -> None:
    gathered = Gathered()
    for number, data in enumerate(PARTS):
        gathered.take(part(number, data))

    def joined() -> bytes:
        gathered.end({**END, **changes})
        return gathered.joined()

    with pytest.raises(ValueError, match="last answer"):
        joined()


@pytest.mark.parametrize("result", [None, [], "x", 7])
def test_a_last_answer_without_a_result_is_an_error(result: object) -> None:
    with pytest.raises(ValueError, match="does not say what the recording is"):
        Gathered().end(result)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda inner: st.dictionaries(
            st.sampled_from(["part", "data", "parts", "size", "digest"]), inner
        ),
        max_leaves=6,
    )
)
def test_anything_is_a_part_or_refused(result: Any) -> None:
    gathered = Gathered()
    try:
        if isinstance(result, dict):
            gathered.take(result)
        gathered.end(result)
        gathered.joined()
    except ValueError:
        pass


# --- whose it is


def answer(result: dict[str, object], payload_type: str = recorded_parts.PAYLOAD_TYPE) -> bytes:
    document = requests.answer("8f1c", "record", "succeeded", result=result)
    signature = libcrypto.sign(SEED, signed_states.to_sign(document, payload_type))
    return signed_states.sealed(document, KEY.raw, signature)


def check(message: bytes, key: keys.PublicKey = KEY) -> None:
    recorded_parts.check(message, json.loads(message), key, "greenhouse", "board-7")


def test_what_the_node_signed_is_its_own() -> None:
    check(answer(END))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (requests.answer("8f1c", "record", "succeeded", result=END), "unsigned"),
        (answer(END).replace(b'"parts":3', b'"parts":2'), "signature"),
        (answer({**END, "node": "board-8"}), "node"),
        (answer({**END, "fleet": "barn"}), "fleet"),
        # A state that passes for a recording, and so the other way round.
        (answer(END, signed_states.PAYLOAD_TYPE), "signature"),
    ],
)
def test_what_somebody_else_made_of_it_is_not(message: bytes, reason: str) -> None:
    with pytest.raises(UnprovenError) as error:
        check(message)
    assert error.value.reason == reason


def test_another_key_proves_nothing() -> None:
    with pytest.raises(UnprovenError) as error:
        check(answer(END), keys.public_key(libcrypto.public_of(bytes([8]) * 32)))
    assert error.value.reason == "key"
