"""The two encodings of records and batches."""

import base64
import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.fleet_protocol.packing import (
    NUMBER_BYTES,
    PACKINGS,
    JsonPacking,
    MsgpackPacking,
    pack_json,
)

HEAD = {"version": 1, "node": "board-7", "stream": "00"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=20)


def unpacked(encoding: str, payload: bytes) -> Any:
    """As any consumer reads it."""
    return msgpack.unpackb(payload) if encoding == "msgpack" else json.loads(payload)


@pytest.mark.parametrize("encoding", sorted(PACKINGS))
@given(RECORDS)
def test_a_batch_reads_as_one_map(encoding: str, records: list[dict[str, object]]) -> None:
    packing = PACKINGS[encoding]()
    packed = [packing.pack(record) for record in records]
    payload = packing.batch(HEAD, packed)
    assert unpacked(encoding, payload) == {**HEAD, "records": records}
    separators = len(records) * packing.separator
    assert len(payload) <= len(packing.pack(HEAD)) + packing.overhead + separators + sum(
        map(len, packed)
    )


@pytest.mark.parametrize("encoding", sorted(PACKINGS))
@given(st.dictionaries(st.text().filter(lambda key: key != "seq"), VALUES, max_size=40), st.data())
def test_a_record_gets_its_number_last(
    encoding: str, record: dict[str, object], data: st.DataObject
) -> None:
    packing, number = PACKINGS[encoding](), data.draw(st.integers(1, 2**63))
    body = packing.body(record)
    numbered = packing.numbered(body, number)
    assert unpacked(encoding, numbered) == {**record, "seq": number}
    assert len(numbered) <= len(body.packed) + NUMBER_BYTES


@pytest.mark.parametrize("packing", [MsgpackPacking(), JsonPacking()])
def test_what_has_no_form_is_written_as_text(packing: MsgpackPacking | JsonPacking) -> None:
    assert b"Ellipsis" in packing.pack({"value": ...})


def test_broken_texts_are_escaped_and_not_refused() -> None:
    assert MsgpackPacking().pack({"text": "\udc80"}).endswith(b"\\udc80")
    assert JsonPacking().pack({"text": "\udc80"}) == rb'{"text":"\udc80"}'


@given(st.binary(max_size=100))
def test_json_loses_no_bytes(payload: bytes) -> None:
    said = json.loads(pack_json({"payload": payload}))["payload"]
    if isinstance(said, str):
        assert said.encode() == payload
    else:
        assert base64.b64decode(said.pop("base64"), validate=True) == payload
        assert not said


def test_json_writes_bytes_as_text_where_they_are_text() -> None:
    assert pack_json({"error": "nö".encode()}) == rb'{"error":"n\u00f6"}'
    assert pack_json({"error": b"no\xff"}) == rb'{"error":{"base64":"bm//"}}'
